//! Turning a refused system call into a [`Failure`] that names the step.
//!
//! Launcher, worker and pair helper are separate processes that report to each other and to the host in the
//! same shape: the step that failed, its errno, and what was being done to what. This module owns that
//! conversion. It does not decide what happens next.

use ostler_wire::{Failure, FailureKind};
use rustix::io::Errno;

/// Adds the name of the step and its operands to an operating system error.
pub(crate) trait Step<T> {
    /// `op` is the step, such as `mount overlay`; `detail` says what was being done to what.
    fn step(self, op: &str, detail: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, op: &str, detail: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| refused(op, errno.raw_os_error(), detail()))
    }
}

impl<T> Step<T> for Result<T, std::io::Error> {
    fn step(self, op: &str, detail: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| refused(op, error.raw_os_error().unwrap_or(0), detail()))
    }
}

/// A failure of the operating system.
fn refused(op: &str, errno: i32, detail: String) -> Failure {
    let kind = match Errno::from_raw_os_error(errno) {
        Errno::NOSPC | Errno::DQUOT => FailureKind::NoSpace,
        _ => FailureKind::System,
    };
    Failure { kind, op: op.to_owned(), errno, detail }
}

/// A failure that no system call reported.
pub(crate) fn failure(kind: FailureKind, op: &str, detail: impl Into<String>) -> Failure {
    Failure { kind, op: op.to_owned(), errno: 0, detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_refusals() {
        let full = Err::<(), _>(Errno::NOSPC).step("write", || "/x".to_owned()).unwrap_err();
        let other = Err::<(), _>(Errno::PERM).step("write", || "/x".to_owned()).unwrap_err();
        assert_eq!((full.kind, other.kind), (FailureKind::NoSpace, FailureKind::System));
        assert_eq!(full.to_string(), "write: /x (No space left on device (os error 28))");
    }
}
