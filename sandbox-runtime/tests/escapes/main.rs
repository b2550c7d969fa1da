//! Ways in which processes got out of sandboxes before, tried in ours: each must be stopped, and each must get through where
//! what stops it is left out, or say why that cannot be shown.
//!
//! One row is one attempt with its defences ([`row::Row`]); one runner does both runs ([`run::check`]). The rows of all themes
//! are the table of `docs/src/operations/escapes.md`, which a test compares. As root; the guest is the real one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]
#![expect(unsafe_code, reason = "shared memory has no safe wrapper")]

#[expect(dead_code, reason = "the tests of the posture use the rest")]
#[path = "../common/inside.rs"]
mod inside;
#[expect(dead_code, reason = "the tests of the launcher use the rest")]
#[path = "../launcher/support.rs"]
mod support;

mod row;
mod run;

mod files;
mod kernel;
mod machine;
mod processes;
mod races;

mod elsewhere;
mod page;
