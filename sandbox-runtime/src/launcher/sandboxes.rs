//! What the launcher knows of each sandbox, and the phases it goes through.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use ostler_wire::Failure;
use ostler_wire::launcher::{Files, Limits};
use rustix::process::Pid;

use super::memory::Watch;
use super::meter::Room;
use crate::worker::Repository;
use crate::worker::record::Record;

/// Which request an answer belongs to: the connection, its number and the epoch it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestKey {
    pub(super) link: u64,
    pub(super) id: u64,
    pub(super) epoch: u64,
}

/// A create that waits for a worker to be free.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: RequestKey,
    pub(super) sandbox: String,
    pub(super) purpose: Purpose,
    pub(super) limits: Limits,
    pub(super) deadline: Instant,
}

/// What a sandbox is to be for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A workspace, from the image with this digest.
    Workspace(String),
    /// Git on a repository.
    Git(Repository),
}

/// Duplicates of the descriptors that a host gets.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) control: Rc<OwnedFd>,
    pub(super) door_tcp: Option<Rc<OwnedFd>>,
    pub(super) door_dns: Option<Rc<OwnedFd>>,
    pub(super) door_dns_v6: Option<Rc<OwnedFd>>,
}

/// PID 1 of a sandbox.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) pid: Pid,
    pub(super) descriptor: OwnedFd,
}

/// One sandbox that has, or had a moment ago, processes.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) record: Record,
    /// Tells this start from others of the same sandbox.
    pub(super) instance: u64,
    /// Whether its files were there before it was made.
    pub(super) restored: bool,
    pub(super) limits: Limits,
    /// What it may have on the disk, once that was measured.
    pub(super) allowed: Option<Room>,
    /// Hears of lack of memory while it lives, where the kernel does not end all of it by itself.
    pub(super) memory: Option<Watch>,
    /// The connection of the host that it ends with; none for a workspace, which has files and outlives hosts.
    pub(super) service_of: Option<u64>,
    pub(super) phase: Phase,
    /// Absent where only files are to be removed.
    pub(super) sockets: Option<Sockets>,
    /// From the worker; absent once it has hung up.
    pub(super) report: Option<OwnedFd>,
    pub(super) worker: Option<Pid>,
    pub(super) init: Option<Init>,
    /// Removes files.
    pub(super) remover: Option<Pid>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// A worker makes it.
    Starting {
        request: RequestKey,
        deadline: Instant,
    },
    Living,
    Ending(Ending),
}

/// A sandbox on its way out.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) because: Because,
    pub(super) files: Files,
    /// When those who wait are told that it takes too long; the launcher goes on trying.
    pub(super) until: Instant,
    /// Destroys to answer when nothing is left.
    pub(super) waiters: Vec<RequestKey>,
}

#[derive(Debug)]
pub(super) enum Because {
    /// It was to end.
    Asked,
    /// It could not be made; the create is answered when nothing of it is left.
    Failed { request: RequestKey, failure: Failure },
    /// Its PID 1 ended by itself, or it was over a limit.
    Died { why: String },
}

impl Sandbox {
    /// Whether a process of its making or running is known.
    pub(super) fn has_processes(&self) -> bool {
        self.worker.is_some() || self.init.is_some()
    }

    /// When something must be done about it if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Starting { deadline, .. } => Some(*deadline),
            Phase::Living => None,
            Phase::Ending(ending) => Some(ending.until),
        }
    }
}
