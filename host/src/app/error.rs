//! Why a host could not start or go on.

use std::error::Error;

use ostler_protocol::{ApiError, ErrorCode};

/// An error for the operator: words, a code for the exit status, and the cause for the log.
#[derive(Debug, thiserror::Error)]
#[error("{public}")]
pub struct AppError {
    /// What the operator is told.
    pub public: ApiError,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl AppError {
    /// An error of the environment that the host starts in.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { public: ApiError::new(ErrorCode::Environment, message).with_hint(hint), source: None }
    }

    /// The same error with another code.
    #[must_use]
    pub fn code(mut self, code: ErrorCode) -> Self {
        self.public.code = code;
        self.public.status = code.status();
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        if let Some(error) = (&source as &(dyn Error + 'static)).downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::StorageFull
        {
            self = self.code(ErrorCode::NoSpace);
        }
        self.source = Some(Box::new(source));
        self
    }
}
