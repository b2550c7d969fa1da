//! What the host holds of a sandbox: asynchronous clients of the launcher and of each guest.
//!
//! Nothing here needs privileges or calls libcontainer; everything comes over sockets.

pub mod guest;
pub mod launcher;

mod registered;

pub use guest::{Deadlines, Ended, FileContent, Guest, GuestError, Listing, Piece, Running};
pub use launcher::{Died, Launcher, LauncherClientError, Opened, Spawned, Started, spawn_launcher};
