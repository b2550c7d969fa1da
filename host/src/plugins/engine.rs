//! The engine for gates: compiles components, links what a gate may import, and runs one call in a fresh store.
//!
//! ```text
//!  call ─► pool thread ─► new store (limits, fuel, epoch deadline) ─► instance ─► guest ─► drop everything
//!                              two clocks: epoch ticks stop a guest that computes,
//!                              a timer stops one that waits in a host call
//! ```
//! Nothing of a call survives it, so a trap, or state that a guest built up, cannot reach the next one.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Instance, InstancePre, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, ResourceLimiter, Store, Trap,
};

use super::bindings::gate::Gate;
use super::pool::{Pool, PoolError};
use super::state::{HOSTCALL_FUEL, MAX_INSTANCES, MAX_MEMORY, MAX_TABLE, State};

/// How often epochs advance: how late a guest that computes is stopped at most.
const TICK: Duration = Duration::from_millis(5);

/// Why a plugin has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No thread was free.
    #[error("too many plugin calls are under way")]
    Busy,
    /// It ran out of time.
    #[error("it did not answer within {} ms", budget.as_millis())]
    TimedOut {
        /// How long it had.
        budget: Duration,
    },
    /// It wanted more memory than it may have.
    #[error("it used more memory than it may ({} MiB, tables of {MAX_TABLE} elements)", MAX_MEMORY / (1024 * 1024))]
    OutOfMemory,
    /// It trapped.
    #[error("it trapped: {trap}")]
    Trapped {
        /// In which way.
        trap: String,
    },
    /// It could not be started, or what it answered cannot be read.
    #[error("its answer cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// It said itself that it failed.
    #[error("it reported an error: {message}")]
    Reported {
        /// In its words.
        message: String,
    },
    /// Its change cannot be applied.
    #[error("its change is refused: {reason}")]
    BadPatch {
        /// Why.
        reason: String,
    },
    /// It wanted to change what is frozen.
    #[error("it wanted to change the value in the validate phase, where it is frozen")]
    PatchInValidate,
    /// The host failed.
    #[error("the plugin host failed in the middle of the call")]
    Lost,
}

/// The machine cannot run plugins at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refuses its configuration or the contract.
    #[error("the WebAssembly engine cannot be set up")]
    Engine {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No threads.
    #[error("the threads for plugins cannot be started")]
    Threads {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a guest call needs to know about its plugin.
#[derive(Clone)]
pub(super) struct Guest {
    /// Id of the plugin.
    pub(super) id: Arc<str>,
    /// Its own configuration.
    pub(super) config: Arc<str>,
    /// The compiled and linked component.
    pub(super) pre: InstancePre<State>,
}

/// Engine, linker, threads and ticker.
pub(super) struct GateEngine {
    engine: Engine,
    linker: Linker<State>,
    pool: Pool,
}

impl GateEngine {
    /// Sets everything up. Blocks for some milliseconds.
    ///
    /// # Errors
    /// No threads, or an engine that this machine cannot run.
    pub(super) fn new() -> Result<Self, EngineError> {
        let failed = |source: wasmtime::Error| EngineError::Engine { source: source.into_boxed_dyn_error() };
        let engine = new_engine().map_err(failed)?;
        let mut linker = Linker::new(&engine);
        Gate::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state).map_err(failed)?;
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(failed)?;
        start_ticker(&engine).map_err(|source| EngineError::Threads { source })?;
        let pool = Pool::start().map_err(|source| EngineError::Threads { source })?;
        Ok(Self { engine, linker, pool })
    }

    /// The engine that components are compiled by.
    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Links a component to what a gate may import.
    pub(super) fn link(&self, component: &Component) -> wasmtime::Result<InstancePre<State>> {
        self.linker.instantiate_pre(component)
    }

    /// Runs `body` with a fresh instance of a plugin on one of the plugin threads, and drops the instance.
    ///
    /// # Errors
    /// No answer, in one of the ways of [`CallError`].
    pub(super) async fn run<R: Send + 'static>(
        &self,
        guest: Guest,
        budget: Duration,
        body: impl AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<R> + Send + 'static,
    ) -> Result<R, CallError> {
        let job = move |runtime: &tokio::runtime::Runtime| runtime.block_on(in_fresh_store(&guest, budget, body));
        match self.pool.run(budget, job).await {
            Ok(answer) => answer,
            Err(PoolError::Busy) => Err(CallError::Busy),
            Err(PoolError::Stuck) => Err(CallError::TimedOut { budget }),
            Err(PoolError::Lost) => Err(CallError::Lost),
        }
    }
}

async fn in_fresh_store<R>(
    guest: &Guest,
    budget: Duration,
    body: impl AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<R>,
) -> Result<R, CallError> {
    let state = State::new(Arc::clone(&guest.id), Arc::clone(&guest.config));
    let mut store = Store::new(guest.pre.engine(), state);
    store.limiter(|state: &mut State| -> &mut dyn ResourceLimiter { &mut state.limits });
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.epoch_deadline_trap();
    store.set_epoch_deadline(ticks(budget));
    let called = tokio::time::timeout(budget, async {
        let instance = guest.pre.instantiate_async(&mut store).await?;
        body(&mut store, &instance).await
    })
    .await;
    match called {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(classify(&error, store.data(), budget)),
        Err(_) => Err(CallError::TimedOut { budget }),
    }
}

fn classify(error: &wasmtime::Error, state: &State, budget: Duration) -> CallError {
    if state.limits.exhausted() {
        return CallError::OutOfMemory;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => CallError::TimedOut { budget },
        Some(trap) => CallError::Trapped { trap: trap.to_string().trim_start_matches("wasm trap: ").to_owned() },
        // The outermost line says which step failed; the root says why.
        None => CallError::Unreadable { reason: error.root_cause().to_string() },
    }
}

/// Epochs in a budget; one more because the current one has begun already.
fn ticks(budget: Duration) -> u64 {
    u64::try_from(budget.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX - 1) + 1
}

/// An engine with pooled memory, or without where the machine has too little address space for a pool.
fn new_engine() -> wasmtime::Result<Engine> {
    match Engine::new(config().allocation_strategy(pooling())) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(%error, "no memory pool for plugins on this machine, their calls take a little longer");
            Engine::new(&config())
        }
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .async_stack_zeroing(true)
        .memory_init_cow(true);
    config
}

fn pooling() -> InstanceAllocationStrategy {
    // One call per thread, and one more for a store that is being dropped.
    let calls = u32::try_from(Pool::threads()).unwrap_or(2) + 1;
    let per_component = u32::try_from(MAX_INSTANCES).unwrap_or(64);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls * per_component)
        .total_stacks(calls)
        .total_memories(calls * 4)
        .max_memories_per_component(4)
        .total_tables(calls * 16)
        .max_tables_per_component(16)
        .max_tables_per_module(4)
        .table_elements(MAX_TABLE)
        .max_memory_size(MAX_MEMORY)
        .max_core_instance_size(10 << 20)
        .max_component_instance_size(10 << 20)
        .linear_memory_keep_resident(128 << 10)
        .table_keep_resident(64 << 10);
    InstanceAllocationStrategy::Pooling(pool)
}

/// Advances the epoch from a thread of its own until the engine is gone.
fn start_ticker(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(tick).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_room_for_the_memory_pool() {
        Engine::new(config().allocation_strategy(pooling())).unwrap();
    }

    #[test]
    fn a_deadline_is_never_sooner_than_the_budget() {
        assert_eq!(ticks(Duration::from_millis(250)), 51);
        assert_eq!(ticks(Duration::from_millis(1)), 2);
    }
}
