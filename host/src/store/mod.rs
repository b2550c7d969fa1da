//! What the host keeps: one SQLite file per session, one index over all of them, blobs by digest.
//!
//! Only this module knows SQL. Every call runs on one of a few database threads ([`threads`]); a session always
//! meets the same thread, so its file has one writer.

mod blobs;
mod database;
mod error;
mod format;
mod index;
pub mod pulls;
mod session_log;
mod threads;

pub use blobs::Blobs;
pub use error::StoreError;
pub use format::check_formats;
pub use index::{Index, SessionFilter};
pub use session_log::SessionLogs;
