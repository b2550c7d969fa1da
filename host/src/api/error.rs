//! The one shape of every error of the API.
//!
//! Owns the way from a failed operation to a response: what the client is told goes into the body, what only the log
//! is told rides along in the response's extensions until [`super::edge`] writes both with the request's id.

use std::error::Error;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ostler_protocol::{ApiError, ErrorCode};

use crate::session::SessionError;

/// Seconds after which a full queue is worth another try: it empties within moments, or not for long.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A failed request: the words for the client, and the cause for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{public}")]
pub struct ApiFailure {
    /// What the client is told.
    pub public: ApiError,
    /// What only the log is told.
    #[source]
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ApiFailure {
    /// A failure that has nothing to add for the log.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { public: ApiError::new(code, message), source: None }
    }

    /// The same failure with advice for the client.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.public = self.public.with_hint(hint);
        self
    }

    /// The same failure with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// A wrong request.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The failure as a response that already tells this request's id.
    pub(super) fn respond(mut self, request_id: Option<&str>) -> Response {
        self.public.request_id = request_id.map(str::to_owned);
        let status = StatusCode::from_u16(self.public.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self.public)).into_response();
        if self.public.code == ErrorCode::Overloaded {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SessionError> for ApiFailure {
    fn from(error: SessionError) -> Self {
        Self { public: error.public, source: error.source.map(Arc::from) }
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        self.respond(None)
    }
}
