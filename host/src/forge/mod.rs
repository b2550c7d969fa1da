//! The built-in forge: bare repositories on disk, read and written through git's smart HTTP.
//!
//! ```text
//!  API (token)        door of a sandbox
//!    │ Access::Full      │ Access::Session: one repository, one branch to push to
//!    └────► git_router ◄─┘
//!             │ push: command list read and judged first (push.rs)
//!             ▼
//!           transfer ──► git upload-pack / receive-pack ──► <root>/<name>.git
//!             │          in a sandbox that holds this repository and nothing else (sandboxes.rs)
//!             └ settle: which references changed ──► PushObserver
//! ```
//!
//! Owns the folder of repositories and every git of the host; git runs in sandboxes, without the host's environment, its
//! configuration or any hook. Pull requests are rows of the index and belong to `store`. Does not authenticate anyone.

mod access;
mod error;
mod http;
mod leftovers;
mod name;
mod pkt_line;
mod places;
mod process;
mod push;
mod read;
mod repositories;
mod running;
mod sandboxes;
mod settle;
mod transfer;

use name::BranchName;

pub use access::{Access, PushObserver, Pushed};
pub use error::ForgeError;
pub use http::{git_router, observed_git_router};
pub use name::{NameError, RepositoryName};
pub use process::OLDEST_GIT;
pub use read::Commit;
pub use repositories::{Branch, Forge, ForgeLimits, Repository};
pub use running::{Exit, GitError, GitRunner};
pub use sandboxes::git_limits;

#[cfg(test)]
mod tests;
