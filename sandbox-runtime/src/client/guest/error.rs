//! What can go wrong between the host and a guest.

use std::sync::Arc;
use std::time::Duration;

use ostler_wire::Failure;
use ostler_wire::socket::SocketError;
use rustix::io::Errno;

/// Why an operation on a guest failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The link is gone; whether the operation was begun is not known. Nothing works over this link any more.
    #[error("the link to the guest is lost")]
    Link(#[source] LinkLost),
    /// The guest refused; nothing was begun.
    #[error("the guest refused to {what}")]
    Refused {
        /// The operation, such as `start a program`.
        what: &'static str,
        /// The guest's words.
        #[source]
        failure: Failure,
    },
    /// No answer came in time; whether the operation was begun is not known. The link goes on.
    #[error("the guest did not {what} within {after:?}")]
    Deadline {
        /// The operation.
        what: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// Too many requests are unanswered; nothing was begun.
    #[error("could not {what}: too many requests are unanswered")]
    Busy {
        /// The operation.
        what: &'static str,
    },
    /// The request is too large to be sent; nothing was begun.
    #[error("a request to {what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// The operation.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The most that can be sent.
        limit: usize,
    },
    /// Another `attach` follows the call now.
    #[error("call `{call}` is followed by somebody else now")]
    Replaced {
        /// The call.
        call: String,
    },
    /// The host could not make what a request needs (socket pair, memfd); nothing was begun.
    #[error("could not {step}")]
    Local {
        /// What failed.
        step: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The guest opened something for `path` that the host does not read from.
    #[error("`{path}` is not a file that can be read: {why}")]
    Unreadable {
        /// The path asked for.
        path: String,
        /// What it is instead.
        why: &'static str,
    },
    /// Reading an opened file failed.
    #[error("reading `{path}` failed")]
    Read {
        /// The path asked for.
        path: String,
        /// Why.
        #[source]
        source: Errno,
    },
}

/// Why a link ended. Told to everybody who waited for something over it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkLost {
    /// The guest is gone, or this host has let the link go.
    #[error("the link was closed")]
    Closed,
    /// The guest broke the protocol.
    #[error("the guest broke the protocol: {0}")]
    Violation(&'static str),
    /// A newer host has taken the guest over.
    #[error("a host of epoch {epoch} has taken over")]
    Superseded {
        /// Its epoch.
        epoch: u64,
    },
    /// The socket failed.
    #[error("the control socket failed")]
    Socket(#[source] Arc<SocketError>),
}

impl From<SocketError> for LinkLost {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed => Self::Closed,
            SocketError::Violation(what) => Self::Violation(what),
            SocketError::Decode(_) => Self::Violation("an undecodable message"),
            error => Self::Socket(Arc::new(error)),
        }
    }
}
