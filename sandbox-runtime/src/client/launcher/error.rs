//! Why the launcher could not be started or asked.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use ostler_wire::Failure;

use super::task::MOST_QUEUED;

/// Why the launcher could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum LauncherClientError {
    /// Nobody listens there.
    #[error("connect to the launcher at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The launcher program could not be run.
    #[error("start the launcher {program}")]
    Start {
        /// What was run.
        program: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The launcher ended before it listened.
    #[error("the launcher ended ({status}) before it was ready; its log says: {log}")]
    EndedEarly {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The launcher did not listen in time and was killed.
    #[error("the launcher was not ready after {seconds} s; its log says: {log}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
    /// The launcher refused a request or could not do it.
    #[error("{request}")]
    Refused {
        /// The request in words.
        request: String,
        /// The launcher's words.
        #[source]
        source: Failure,
    },
    /// A host of a higher epoch was there.
    #[error("{request}")]
    Stale {
        /// The request in words.
        request: String,
        /// The highest epoch.
        highest: u64,
        /// The launcher's words.
        #[source]
        source: Failure,
    },
    /// No answer came in time.
    #[error("{request}: no answer from the launcher within {milliseconds} ms")]
    Timeout {
        /// The request in words.
        request: String,
        /// How long was waited.
        milliseconds: u64,
    },
    /// Too many requests wait already.
    #[error("{request}: {MOST_QUEUED} requests to the launcher wait already")]
    Full {
        /// The request in words.
        request: String,
    },
    /// The connection ended.
    #[error("{request}: the connection to the launcher ended ({why})")]
    Gone {
        /// The request in words.
        request: String,
        /// What is known of the reason.
        why: String,
    },
    /// The answer does not fit the request.
    #[error("{request}: unexpected answer from the launcher")]
    Unexpected {
        /// The request in words.
        request: String,
    },
}

impl LauncherClientError {
    pub(super) fn gone(words: &str, why: &str) -> Self {
        Self::Gone { request: words.to_owned(), why: why.to_owned() }
    }
}
