//! Putting a socket that tokio has no type for (`SOCK_SEQPACKET`) under tokio's eyes. Used by both clients.

#![expect(unsafe_code, reason = "tokio has no safe constructor for a descriptor of one's own")]

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor for reading and writing. The socket need not be set to non-blocking: both clients pass
/// `MSG_DONTWAIT` with every operation. Must be called within a tokio runtime.
pub(crate) fn register(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, stays the same, and is owned by the result as long as that lives.
    unsafe { AsyncFd::register(descriptor) }.map_err(Into::into)
}
