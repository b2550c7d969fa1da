//! The launcher with everything it makes, as root, through its client.
//!
//! The launcher runs in a process of its own (`ostler-sandbox-launcher`); PID 1 of the sandboxes is the
//! stand-in from `tests/stand_in`. Without root these tests fail and say so: a sandbox cannot be made without.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod crash;
mod door;
mod fuzzed;
mod hostile;
mod lifecycle;
mod limits;
mod ordinary;
mod posture;
mod rights;
mod support;
