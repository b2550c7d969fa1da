//! Workspaces as OCI containers on an embedded youki.
//!
//! ```text
//! host (tokio, unprivileged)                 launcher (one thread, root)
//!   client::launcher ── SEQPACKET ─────────►  launcher ── fork ──► worker ── libcontainer ──► guest (PID 1)
//!   client::guest ── control socket, handed over ──────────────────────────────────────────────┘
//! ```
//!
//! [`launcher`] and what it forks run in a process of their own, freshly executed: libcontainer clones without
//! exec and must never share a process with threads. [`client`] is what the host uses, [`store`] holds images.

pub mod client;
pub mod defence;
pub mod fault;
pub mod guest_image;
pub mod launcher;
pub mod probe;
pub mod standing;
pub mod store;
pub mod terminal;

mod cgroup;
mod ids;
mod pair;
mod process;
mod removal;
mod step;
mod worker;

pub use ostler_wire as wire;
