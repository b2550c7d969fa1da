//! Integration tests of the whole product, through its public API and its command line.
//!
//! They need root (sandboxes) and what `cargo xtask test` prepares; without either they fail and say so.

#![expect(clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod contract;
mod docs;
mod durability;
mod functional;
mod package;
mod security;
mod tidy;
