//! PID 1 of every sandbox: runs commands for the host, keeps their output, opens files of the workspace.
//!
//! The program has one thread and one poll loop. It starts inside the sandbox's namespaces with seccomp and
//! no-new-privileges already on, so what it starts inherits all of that; it never mounts and never changes a namespace. It
//! outlives the host that asked: calls stay in its table until they are forgotten. When the control socket closes, host
//! and launcher are both gone; it ends everything and exits.
//!
//! ```text
//! server      the poll loop                     call        one call and its states
//! ├ link      control socket, epochs            ├ supervisor  the process between PID 1 and a command
//! ├ calls     the table ────────────────────────┤ streams     pipes, the host's socket, a terminal
//! ├ files     paths beneath the workspace       ├ ending      SIGTERM, grace, SIGKILL until none is left
//! ├ ports     who listens                       ├ spool       the output so far, or its tail
//! └ worker    write, list, ports: in a child    ├ attachment  who follows the output
//!                                               └ typed       what is typed into a terminal
//! ```
//!
//! It does not decide what may run or what a call is for, knows no secret, and is not trusted by the host once its
//! first command ran. What it offers is in [`ostler_wire::guest`].

mod attachment;
mod call;
mod calls;
mod ending;
mod failure;
mod files;
mod link;
mod list;
mod ports;
mod processes;
mod server;
mod spool;
mod streams;
mod supervisor;
mod sys;
mod typed;
mod worker;
mod write;

use std::os::fd::OwnedFd;
use std::path::Path;

use ostler_wire::Failure;
use ostler_wire::socket::SocketError;
use rustix::io::Errno;

pub use calls::{MAX_CALLS, MAX_LIVING};
pub use sys::take_control;

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The control socket was closed or broken, or the host sent what is no message.
    #[error("the control link ended")]
    Link(#[source] SocketError),
    /// Waiting for something to happen failed.
    #[error("waiting for descriptors failed")]
    Poll(#[source] Errno),
    /// Blocking signals, or hearing of ended children, failed.
    #[error("preparing for signals failed")]
    Signals(#[source] Errno),
    /// Becoming the subreaper failed.
    #[error("becoming the subreaper failed")]
    Subreaper(#[source] Errno),
    /// The table of calls could not be prepared.
    #[error("preparing the table of calls failed")]
    Table(#[source] Failure),
}

/// Serves requests from `control` for the workspace at `root` until the link ends, then kills everything below this
/// process and gives the reason. `root` need not exist yet.
///
/// The calling process must have one thread and no other children; its signal mask is changed for good.
pub fn serve(control: OwnedFd, root: &Path) -> ServeError {
    match server::Server::new(control, root) {
        Ok(mut server) => server.run(),
        Err(error) => error,
    }
}
