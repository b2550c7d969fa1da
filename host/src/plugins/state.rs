//! What one guest call owns on the host's side: its limits, its log lines, its configuration, and a WASI that denies
//! everything. Made for the call, dropped with it.

use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::bindings::{config, log, types};
use super::value::cut;

/// Most bytes of linear memory of a guest, all its memories together.
pub(super) const MAX_MEMORY: usize = 64 * 1024 * 1024;
/// Most elements of a table of a guest.
pub(super) const MAX_TABLE: usize = 20_000;
/// Most core instances of one component: a Python component has about 38.
pub(super) const MAX_INSTANCES: usize = 64;
/// Most bytes that a guest may hand to the host in one call, by any way.
pub(super) const HOSTCALL_FUEL: usize = 8 * 1024 * 1024;
/// Most resources (streams, files, timers) that a guest may hold.
const MAX_RESOURCES: usize = 1000;
/// Most bytes of random numbers at once.
const MAX_RANDOM: u64 = 64 * 1024;

/// Most bytes of one line in the log.
const MAX_LOG_LINE: usize = 4 * 1024;
/// Most bytes of all lines of a call.
const MAX_LOG: usize = 64 * 1024;
/// Most lines of a call.
const MAX_LOG_LINES: usize = 100;

/// The data of a guest's store.
pub(super) struct State {
    plugin: Arc<str>,
    config: Arc<str>,
    /// Its limits, and whether it ran into them.
    pub(super) limits: Limits,
    log: LogBudget,
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

impl State {
    /// The state of a new call.
    pub(super) fn new(plugin: Arc<str>, config: Arc<str>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self { plugin, config, limits: Limits::default(), log: LogBudget::default(), wasi: None, table }
    }
}

/// Limits of memory, tables and instances.
#[derive(Default)]
pub(super) struct Limits {
    memory: usize,
    exhausted: bool,
}

impl Limits {
    /// Whether the guest asked for more memory or larger tables than it may have.
    pub(super) const fn exhausted(&self) -> bool {
        self.exhausted
    }

    fn refuse(&mut self, what: &'static str, limit: usize) -> wasmtime::Error {
        self.exhausted = true;
        wasmtime::Error::msg(format!("the guest asked for more than {limit} {what}"))
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > MAX_MEMORY {
            return Err(self.refuse("bytes of memory", MAX_MEMORY));
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE {
            return Err(self.refuse("table elements", MAX_TABLE));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_INSTANCES
    }
}

/// What is left of a call's room in the log.
struct LogBudget {
    bytes: usize,
    lines: usize,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { bytes: MAX_LOG, lines: MAX_LOG_LINES }
    }
}

impl LogBudget {
    /// The part of a line that may be logged; nothing once the room is used up.
    fn admit<'a>(&mut self, message: &'a str) -> Option<&'a str> {
        self.lines = self.lines.checked_sub(1)?;
        let line = cut(message, MAX_LOG_LINE.min(self.bytes));
        self.bytes -= line.len();
        (!line.is_empty()).then_some(line)
    }
}

impl types::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) {
        let Some(message) = self.log.admit(&message) else { return };
        let plugin = &*self.plugin;
        match level {
            log::Level::Trace => tracing::trace!(target: "ostler::plugin", plugin, ?message),
            log::Level::Debug => tracing::debug!(target: "ostler::plugin", plugin, ?message),
            log::Level::Info => tracing::info!(target: "ostler::plugin", plugin, ?message),
            log::Level::Warn => tracing::warn!(target: "ostler::plugin", plugin, ?message),
            log::Level::Error => tracing::error!(target: "ostler::plugin", plugin, ?message),
        }
    }
}

impl config::Host for State {
    fn get(&mut self) -> String {
        self.config.to_string()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.get_or_insert_with(deny_everything), table: &mut self.table }
    }
}

/// WASI without files, environment, arguments, standard streams and network. Clocks and random numbers are real.
fn deny_everything() -> WasiCtx {
    WasiCtxBuilder::new()
        .max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut limits = Limits::default();
        assert!(limits.memory_growing(0, MAX_MEMORY / 2, None).unwrap());
        assert!(limits.memory_growing(0, MAX_MEMORY / 2, None).unwrap());
        assert!(!limits.exhausted());
        assert!(limits.memory_growing(MAX_MEMORY / 2, MAX_MEMORY / 2 + 65_536, None).is_err());
        assert!(limits.exhausted());
    }

    #[test]
    fn the_log_of_a_call_is_bounded_in_lines_and_bytes() {
        let mut budget = LogBudget::default();
        let admitted: usize = (0..1000).filter_map(|_| budget.admit("x")).map(str::len).sum();
        assert_eq!(admitted, MAX_LOG_LINES);

        let mut budget = LogBudget::default();
        let long = "ä".repeat(MAX_LOG_LINE);
        let lines: Vec<_> = (0..1000).filter_map(|_| budget.admit(&long)).map(str::len).collect();
        assert!(lines.iter().all(|length| *length <= MAX_LOG_LINE), "{lines:?}");
        assert_eq!(lines.iter().sum::<usize>(), MAX_LOG);
    }
}
