//! The guest as its host sees it: an ordinary process, a control socket, a workspace in a temporary directory.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod calls;
mod files;
mod host;
mod link;
mod streams;
mod support;
