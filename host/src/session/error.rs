//! What can go wrong with a session, as its callers see it.

use ostler_protocol::{ApiError, ErrorCode};

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
