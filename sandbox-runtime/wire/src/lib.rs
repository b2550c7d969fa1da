//! Typed messages between the host, the launcher and the guest.
//!
//! Both links are `SOCK_SEQPACKET` Unix sockets; a message is one postcard-encoded value of at most
//! [`MAX_MESSAGE`] bytes with at most one descriptor. Every message carries the epoch of the host that
//! sent it: what an older host asked for is never answered to a newer one.
//!
//! This crate owns the shapes ([`guest`], [`launcher`]) and the blocking-free transport ([`socket`]).
//! It does not own policy: what is allowed is decided by the launcher and the guest.

pub mod guest;
pub mod launcher;
pub mod socket;

/// Version of both protocols. A peer of another version is refused in the first message.
pub const VERSION: u16 = 2;

/// Largest encoded message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What failed on the other side of a link: mapped once, by the host, to words for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Kind, for decisions in code.
    pub kind: FailureKind,
    /// The step that failed, such as `open` or `mount overlay`.
    pub op: String,
    /// The errno of the step, 0 where there is none.
    pub errno: i32,
    /// Words for a person: what was being done to what.
    pub detail: String,
}

/// Kinds of failure that a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FailureKind {
    /// The request is malformed or names something that is not allowed.
    Invalid,
    /// The named thing (call, file, image, sandbox) does not exist.
    NotFound,
    /// The named thing exists already.
    Exists,
    /// A path leads outside the workspace.
    Outside,
    /// A limit of size, count or time was reached.
    Limit,
    /// No room on the disk.
    NoSpace,
    /// The request came from an older host than one already seen.
    StaleEpoch,
    /// Anything else that the operating system refused.
    System,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.op, self.detail)?;
        if self.errno != 0 {
            write!(f, " ({})", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
