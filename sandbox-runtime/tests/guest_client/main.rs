//! The client of the guest, against real guests and against one that lies.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[expect(dead_code, reason = "the tests of the guest use the rest")]
#[path = "../../guest/tests/guest/support.rs"]
mod support;

mod hostile;
mod image;
mod real;
