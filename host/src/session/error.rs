//! What can go wrong with a session, as its callers see it.

use ostler_protocol::{ApiError, ErrorCode, SessionId};

use crate::forge::{ForgeError, NameError};
use crate::store::StoreError;
use crate::workspace::chain;

/// An error of a session operation; it already is in the words and with the code that clients see.
#[derive(Debug, thiserror::Error)]
#[error("{public}")]
pub struct SessionError {
    /// What a client is told.
    pub public: ApiError,
    /// What only the log is told.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SessionError {
    /// An error that has nothing to add for the log.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { public: ApiError::new(code, message), source: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.public = self.public.with_hint(hint);
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

pub(super) fn unknown(session: SessionId) -> SessionError {
    SessionError::new(ErrorCode::NotFound, format!("there is no session {session}"))
        .with_hint("`ostler sessions` lists them")
}

pub(super) fn store_error(error: StoreError) -> SessionError {
    if let StoreError::UnknownSession(session) = error {
        return unknown(session);
    }
    let code = error.code();
    let (text, hint) = match code {
        ErrorCode::NoSpace => ("the disk of the host is full; nothing was changed", "free room in the data folder"),
        ErrorCode::Overloaded => ("the host has more to write than it accepts", "try again in a moment"),
        ErrorCode::Unavailable => ("the host is stopping", "try again when it runs"),
        _ => ("the host's store failed; nothing was changed", "the host's log says why"),
    };
    SessionError::new(code, text).with_hint(hint).with_source(error)
}

pub(super) fn forge_error(error: ForgeError) -> SessionError {
    SessionError::new(error.code(), chain(&error)).with_source(error)
}

pub(super) fn name_error(error: NameError) -> SessionError {
    SessionError::new(ErrorCode::BadRequest, error.to_string()).with_source(error)
}

pub(super) fn stopping() -> SessionError {
    SessionError::new(ErrorCode::Unavailable, "the host is stopping").with_hint("try again when it runs")
}
