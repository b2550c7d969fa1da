//! Ending a call by force: SIGTERM to everything below its supervisor, SIGKILL after a grace time until nothing is left.
//!
//! ```text
//! begin ── SIGTERM ──► grace ── over ──► sweep: SIGKILL ──► again … until the supervisor has ended
//! ```
//!
//! On a terminal SIGHUP comes before SIGTERM, which an interactive shell does not mind, and both are sent again: a shell
//! that is just about to read its terminal forgets a signal now and then (seen with bash 5.2).
//!
//! A process that is forked while the table is walked is found by the next sweep, since it stays below the supervisor.

use std::time::{Duration, Instant};

use ostler_wire::guest::ExitCause;
use rustix::process::{Pid, Signal, kill_process};

use crate::processes::Processes;

/// Time between two sweeps at first, and once many were needed (a process that the kernel cannot end at once).
const SWEEP: Duration = Duration::from_millis(2);
const SLOW_SWEEP: Duration = Duration::from_millis(100);
const QUICK_SWEEPS: u32 = 50;

/// Sweeps that may find nothing before the supervisor itself is taken to be stuck (each takes at least 2 ms, and a
/// supervisor with nothing below it ends at once).
const EMPTY_SWEEPS: u32 = 10;

/// Time between two requests to end what runs on a terminal.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How a call is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// SIGTERM, once.
    Terminate,
    /// As when its terminal is taken away.
    HangUp,
}

/// A call that is being ended.
pub(crate) struct Ending {
    cause: ExitCause,
    asking: Asking,
    /// When the grace time is over.
    until: Instant,
    next: Instant,
    sweeps: u32,
    empty: u32,
}

impl Ending {
    /// Sends SIGTERM and starts the grace time.
    pub(crate) fn begin(
        cause: ExitCause,
        asking: Asking,
        grace: Duration,
        now: Instant,
        processes: &Processes,
        supervisor: Pid,
    ) -> Self {
        let until = now + grace;
        let mut ending = Self { cause, asking, until, next: until, sweeps: 0, empty: 0 };
        if !grace.is_zero() {
            ending.ask(now, processes, supervisor);
        }
        ending
    }

    fn ask(&mut self, now: Instant, processes: &Processes, supervisor: Pid) {
        if self.asking == Asking::HangUp {
            let _ = processes.signal_descendants(supervisor, Signal::HUP);
            // What was stopped by its terminal could not hear it.
            let _ = processes.signal_descendants(supervisor, Signal::CONT);
            self.next = self.until.min(now + ASK_AGAIN);
        }
        terminate(processes, supervisor);
    }

    /// Why the call is ended: the first reason that came up.
    pub(crate) fn cause(&self) -> ExitCause {
        self.cause
    }

    /// Shortens the grace time.
    pub(crate) fn hasten(&mut self, grace: Duration, now: Instant) {
        self.until = self.until.min(now + grace);
        self.next = self.next.min(self.until);
    }

    /// When to call [`Self::tick`] next.
    pub(crate) fn deadline(&self) -> Instant {
        self.next
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, processes: &Processes, supervisor: Pid) {
        if now < self.next {
            return;
        }
        if now < self.until {
            return self.ask(now, processes, supervisor);
        }
        // A table that cannot be read now (no descriptor, no memory) counts as a sweep that found something.
        let found = processes.signal_descendants(supervisor, Signal::KILL).unwrap_or(1);
        self.sweeps = self.sweeps.saturating_add(1);
        self.empty = if found == 0 { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_SWEEPS {
            let _ = kill_process(supervisor, Signal::KILL);
        }
        self.next = now + if self.sweeps > QUICK_SWEEPS { SLOW_SWEEP } else { SWEEP };
    }
}

/// Asks everything below a supervisor to end. What this misses, the sweeps find.
pub(crate) fn terminate(processes: &Processes, supervisor: Pid) {
    let _ = processes.signal_descendants(supervisor, Signal::TERM);
}
