//! Named points at which a test ends the process as `kill -9` would: without unwinding, without flushing, without a last
//! word. What was not synced is still there afterwards: this is no power cut.
//!
//! A multi-step operation passes a point between every two steps, and its test sets [`VARIABLE`] to each in turn. In a
//! build without debug assertions, which is what is installed, a point is nothing.

/// Environment variable that names the point at which the process ends itself.
pub const VARIABLE: &str = "OSTLER_FAULT_POINT";

/// Ends the process here if a test asked for it.
#[inline]
pub fn point(name: &str) {
    if cfg!(debug_assertions) && std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
