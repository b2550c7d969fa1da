//! Building the [`Failure`] that answers a refused request: kind, step, errno and words in one place.

use ostler_wire::{Failure, FailureKind};
use rustix::io::Errno;

/// A failure without an errno.
pub(crate) fn refused(kind: FailureKind, op: &str, detail: impl Into<String>) -> Failure {
    Failure { kind, op: op.to_owned(), errno: 0, detail: detail.into() }
}

/// A failure of a system call, its kind taken from the errno.
pub(crate) fn failed(op: &str, errno: Errno, detail: impl Into<String>) -> Failure {
    let kind = match errno {
        Errno::NOENT => FailureKind::NotFound,
        Errno::EXIST => FailureKind::Exists,
        Errno::XDEV => FailureKind::Outside,
        Errno::NOSPC | Errno::DQUOT => FailureKind::NoSpace,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::TOOBIG | Errno::FBIG => FailureKind::Limit,
        Errno::NAMETOOLONG | Errno::INVAL | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP => FailureKind::Invalid,
        _ => FailureKind::System,
    };
    Failure { kind, op: op.to_owned(), errno: errno.raw_os_error(), detail: detail.into() }
}
