//! The launcher: the one process with privileges, which makes and ends sandboxes for an unprivileged host.
//!
//! ```text
//!             ┌────────────── poll ───────────────┐
//! listener ──►│ callers ─Hello─► host             │──► replies, events (bounded queue)
//! signals  ──►│ reaped children                   │
//! reports  ──►│ door sockets, started, failed     │        Starting ──started──► Living
//! limits   ──►│ out of memory, room on the disk   │           │ failed, over time   │ died, destroyed, over a limit
//! clock    ──►│ deadlines, grace                  │           │                     │
//!             └──────────────┬────────────────────┘           └──────► Ending ◄─────┘
//!                            ▼                                            │ no process, no cgroup left
//!                    fork: worker, remover, meter                         ▼
//!                                                                   gone, or files kept
//! ```
//!
//! It trusts nobody: requests hold ids and numbers, and what cannot be decoded drops the connection. It lives
//! longer than its host and gives a new one the descriptors of what still runs; without a host for
//! [`LauncherConfig::grace`] it ends everything, keeps the files and exits. This module owns the
//! configuration and the way in; [`state`] owns the table, [`event_loop`] the waiting.

mod disk;
mod ending;
mod event_loop;
mod files;
mod hidden;
mod leases;
mod limits;
mod link;
mod memory;
mod meter;
mod mint;
mod recovery;
mod repositories;
mod requests;
mod rights;
mod running;
mod sandboxes;
mod sealed;
mod setup;
mod starting;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use ostler_wire::Failure;
use ostler_wire::launcher::Limits;
use serde::{Deserialize, Serialize};

use crate::defence::Weakened;
use crate::store::StoreError;

pub(crate) use leases::Block;
pub(crate) use sealed::seal;

/// Name of the launcher's lock in its directory; it holds the process number of its holder.
pub const LOCK: &str = "launcher.lock";

/// First host uid and gid of the first sandbox, where the configuration says nothing else.
pub(crate) const UID_FIRST: u32 = 0x7000_0000;

/// What a launcher needs to know. It is handed over as JSON in an argument, see [`LauncherConfig::to_argument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LauncherConfig {
    /// The image store, with the sandboxes' files in it.
    pub store: PathBuf,
    /// A directory of the launcher's own, for its lock; made if missing. One launcher per directory.
    pub state: PathBuf,
    /// Where it listens; the parent directory must exist.
    pub socket: PathBuf,
    /// User that may connect, besides root, and that the socket belongs to.
    pub host_uid: u32,
    /// Group that the socket belongs to.
    pub host_gid: u32,
    /// The folder of the forge's bare repositories, which belong to the host's user; without it there is no sandbox for git.
    pub forge: Option<PathBuf>,
    /// Time without a host after which everything is ended.
    pub grace: Duration,
    /// First host uid and gid of the first sandbox. Without root the ids of the user namespace are used.
    pub uid_first: u32,
    /// Ranges of 65,536 uids that may be used from there.
    pub uid_ranges: u32,
    /// Sandboxes that may live at one time.
    pub most_sandboxes: usize,
    /// Sandboxes that may be in the making at one time; further requests wait.
    pub most_workers: usize,
    /// The most that a host may give a workspace, as the operator chose it. The host is not asked.
    pub most_of_workspaces: Limits,
    /// The most that it may give a sandbox for git.
    pub most_of_git: Limits,
    /// File with the certificates that sandboxes are to trust, in PEM. Read for every sandbox.
    #[serde(default)]
    pub certificates: Option<PathBuf>,
    /// A static program to run as PID 1 of every sandbox, in place of the guest that this binary carries. For tests.
    pub guest: Option<PathBuf>,
    /// Defences to leave out. For tests: a build without debug assertions refuses to.
    pub weakened: Weakened,
}

impl LauncherConfig {
    /// A configuration with the usual limits.
    #[must_use]
    pub fn new(store: PathBuf, state: PathBuf, socket: PathBuf) -> Self {
        Self {
            store,
            state,
            socket,
            host_uid: 0,
            host_gid: 0,
            forge: None,
            grace: Duration::from_secs(60),
            uid_first: UID_FIRST,
            uid_ranges: 32_768,
            most_sandboxes: 1024,
            most_workers: 8,
            most_of_workspaces: limits::MOST,
            most_of_git: limits::MOST,
            certificates: None,
            guest: None,
            weakened: Weakened::default(),
        }
    }

    /// The configuration as one argument.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_argument(&self) -> Result<String, LauncherError> {
        serde_json::to_string(self).map_err(LauncherError::Configuration)
    }

    /// The configuration from one argument.
    ///
    /// # Errors
    /// When it is not what [`LauncherConfig::to_argument`] gave.
    pub fn from_argument(argument: &str) -> Result<Self, LauncherError> {
        serde_json::from_str(argument).map_err(LauncherError::Configuration)
    }
}

/// Why a launcher could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The configuration cannot be read or written.
    #[error("launcher configuration")]
    Configuration(#[source] serde_json::Error),
    /// It is to leave out defences, and is no build for tests.
    #[error("defences of sandboxes can be left out in builds for tests only")]
    Weakened,
    /// It is an ordinary user who cannot become root of a user namespace.
    #[error("start without root")]
    NotRoot(#[source] Failure),
    /// The process has threads.
    #[error("the launcher must be started in a process of its own that has one thread")]
    Threads,
    /// Another launcher has the directory.
    #[error("another launcher (process {holder}) already uses {state}")]
    Held {
        /// The directory.
        state: PathBuf,
        /// Its process number, or a question mark.
        holder: String,
    },
    /// The store cannot be used.
    #[error("open the image store")]
    Store(#[source] StoreError),
    /// A step of setting up or waiting failed.
    #[error("launcher")]
    Step(#[source] Failure),
}

/// Runs a launcher until it is told to shut down or its grace time is over.
///
/// Must be called first thing in a freshly executed process without threads. Says `ready` and a newline on
/// standard output once it listens, and closes standard output then. Logs to standard error.
///
/// # Errors
/// When it cannot start. Once it listens, it goes on whatever clients do.
pub fn run(config: LauncherConfig) -> Result<(), LauncherError> {
    let mut launcher = setup::prepare(config)?;
    setup::say_ready().map_err(LauncherError::Step)?;
    let ended = event_loop::serve(&mut launcher).map_err(LauncherError::Step);
    launcher.leave();
    // Its sockets close with the process, so that a host that waits for it to hang up has waited for its end.
    std::mem::forget(launcher);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_survives_its_argument() {
        let path = |name: &str| PathBuf::from(name);
        let config = LauncherConfig::new(path("/store"), path("/state"), path("/state/socket"));
        assert_eq!(LauncherConfig::from_argument(&config.to_argument().unwrap()).unwrap(), config);
    }
}
