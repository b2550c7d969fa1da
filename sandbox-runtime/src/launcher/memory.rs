//! A sandbox that is out of memory ends as a whole, and says so.
//!
//! Version 2 of control groups does it by itself. In version 1 the launcher hears that a group is out of memory, usually just
//! before the kernel has ended a process of it: then it looks at the kernel's count for a while.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ostler_wire::launcher::Files;

use super::limits::Reached;
use super::sandboxes::{Because, Phase, Sandbox};
use super::state::{Launcher, log};
use crate::cgroup::OutOfMemory;

/// How long after the event the kernel may take to choose whom to end; with reclaim it may also find that nobody must.
const SUSPICION: Duration = Duration::from_secs(2);

/// The same at the start, where nothing need have happened.
const FIRST_SUSPICION: Duration = Duration::from_millis(100);

/// Hears of lack of memory.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) event: OwnedFd,
    /// Until when the count is looked at.
    suspected: Option<Instant>,
}

impl Sandbox {
    /// Whether its memory is to be looked at again and again.
    pub(super) fn is_suspected(&self) -> bool {
        self.memory.as_ref().is_some_and(|watch| watch.suspected.is_some())
    }
}

impl Launcher {
    /// To be called when a sandbox begins to live.
    pub(super) fn watch_memory(&mut self, id: &str) {
        let event = self.cgroups.watch_memory(id).unwrap_or_else(|failed| {
            log(&format!("{id}: lack of memory will not be noticed: {failed}"));
            None
        });
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        // What happened before somebody listened is in the count already, unless it is under way.
        let suspected = Some(Instant::now() + FIRST_SUSPICION);
        sandbox.memory = event.map(|event| Watch { event, suspected });
    }

    /// Takes the events that came.
    pub(super) fn hear_of_memory(&mut self) {
        for sandbox in self.sandboxes.values_mut() {
            let Some(watch) = &mut sandbox.memory else { continue };
            if rustix::io::read(watch.event.as_fd(), &mut [0; 8]).is_ok() {
                watch.suspected = Some(Instant::now() + SUSPICION);
            }
        }
    }

    /// Ends the sandboxes of which the kernel has ended a process.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        let suspected: Vec<String> =
            self.sandboxes.iter().filter(|(_, sandbox)| sandbox.is_suspected()).map(|(id, _)| id.clone()).collect();
        for id in suspected {
            if let Some(reached) = self.out_of_memory(&id) {
                if self.sandboxes.get(&id).is_some_and(|sandbox| matches!(sandbox.phase, Phase::Living)) {
                    self.end(&id, Because::Died { why: reached.to_string() }, Files::Keep);
                }
                continue;
            }
            let Some(watch) = self.sandboxes.get_mut(&id).and_then(|sandbox| sandbox.memory.as_mut()) else { continue };
            watch.suspected = watch.suspected.filter(|until| *until > now);
        }
    }

    /// The lack of memory, if that is what ended a process of the sandbox.
    pub(super) fn out_of_memory(&self, id: &str) -> Option<Reached> {
        let limit = self.sandboxes.get(id)?.limits.memory;
        Some(match self.cgroups.out_of_memory(id)? {
            OutOfMemory::Sandbox { used } => Reached::Memory { used, limit },
            OutOfMemory::Machine => Reached::Machine,
        })
    }
}
