//! What can go wrong when keeping or finding something.

use std::path::PathBuf;

use ostler_protocol::{ErrorCode, SessionId};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database threads have more to do than they accept.
    #[error("the database threads are overloaded")]
    Overloaded,
    /// The database threads are gone; the host is stopping.
    #[error("the database threads have stopped")]
    Stopped,
    /// A folder or file could not be made.
    #[error("cannot make {path}")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder could not be listed.
    #[error("cannot list {path}")]
    List {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The beginning of a database could not be read.
    #[error("cannot look at the database {path}")]
    Look {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A database could not be opened.
    #[error("cannot open the database {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A database was made by a newer version.
    #[error("{path} has format {found}, this version knows up to {known}")]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest known format.
        known: i64,
    },
    /// A statement failed.
    #[error("cannot {operation}")]
    Query {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A row holds something that cannot be read.
    #[error("{what} is unreadable")]
    Corrupt {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no such session.
    #[error("there is no session {0}")]
    UnknownSession(SessionId),
    /// A log has a gap or grew behind its writer's back.
    #[error("the log of {session} ends at {found}, its writer expected {expected}")]
    Diverged {
        /// Whose log.
        session: SessionId,
        /// What the writer expected.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A blob could not be written or read.
    #[error("cannot {operation} the blob {digest}")]
    Blob {
        /// What was being done.
        operation: &'static str,
        /// Which.
        digest: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    /// The code under which clients see it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Overloaded => ErrorCode::Overloaded,
            Self::Stopped => ErrorCode::Unavailable,
            Self::UnknownSession(_) => ErrorCode::NotFound,
            Self::Create { source, .. } | Self::Blob { source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                ErrorCode::NoSpace
            }
            Self::Open { source, .. } | Self::Query { source, .. } if disk_full(source) => ErrorCode::NoSpace,
            _ => ErrorCode::Internal,
        }
    }
}

fn disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
