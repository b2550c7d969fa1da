//! What every process of a sandbox is, read by one reader from inside and from outside, whole, and beside it the same root file
//! system under runc.
//!
//! As root; the guest is the real one. `tests/inside` holds the program that reads from inside.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

#[path = "../inside/json.rs"]
mod json;
#[path = "../inside/posture.rs"]
mod reader;

#[path = "../common/inside.rs"]
mod inside;
#[expect(dead_code, reason = "the tests of the launcher use the rest")]
#[path = "../launcher/support.rs"]
mod support;

mod canonical;
mod git;
mod ordinary;
mod runc;
mod unpacker;
mod whole;
