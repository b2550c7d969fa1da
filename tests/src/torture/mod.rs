//! Long and rough use of the sandbox runtime: many creates beside a busy host, random use, kills at random, and a look at
//! what is left.
//!
//! ```text
//! controller ── starts ──► user (a process: the host of one epoch) ── requests ──► launcher ──► sandboxes
//!      └──── kill -9, at random ──┴──────────────────────────────────────────────────┘
//! ```
//!
//! The short form runs with the tests, the long one with `cargo xtask torture`. Nothing here measures speed: what counts is
//! that nothing hangs, nothing that was acknowledged is lost, and nothing stays.

pub mod chance;
pub mod creates;
pub mod git;
pub mod leftovers;
pub mod soak;
pub mod user;

pub use creates::{Creates, creates};
pub use leftovers::Leftovers;
pub use soak::{Soak, soak};
