//! Reading requests: path parts, query strings and JSON bodies, each with an error that names what is wrong.
//!
//! Owns the limits on bodies. Does not know what the values mean; that is [`super::validate`].

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use futures::StreamExt;
use ostler_protocol::ErrorCode;
use ostler_protocol::api::MAX_IDEMPOTENCY_KEY;
use serde::de::DeserializeOwned;

use super::{ApiFailure, ApiState};

/// How far past the limit a body is read, so that the client hears the answer instead of a closed connection.
const DRAIN_FACTOR: usize = 16;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A JSON body.
pub(super) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for JsonBody<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiFailure> {
        // A form or a plain-text body is what a foreign web page can send without asking.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(ApiFailure::bad_request(format!("the body has the content type `{kind}`"))
                .with_hint("send JSON with `Content-Type: application/json`"));
        }
        let limits = state.limits;
        let body = tokio::time::timeout(limits.body_time, collect(request.into_body(), limits.body)).await;
        let bytes = body.map_err(|_| {
            ApiFailure::bad_request(format!("the body did not arrive within {} s", limits.body_time.as_secs()))
        })??;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiFailure::bad_request(format!("the body is not the JSON that is expected: {error}")))?;
        Ok(Self(value))
    }
}

async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, ApiFailure> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut total = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|source| ApiFailure::bad_request("the body ended before its end").with_source(source))?;
        total = total.saturating_add(chunk.len());
        if total <= limit {
            bytes.extend_from_slice(&chunk);
        } else if total > limit.saturating_mul(DRAIN_FACTOR) {
            break;
        }
    }
    if total > limit {
        // Past the drained part nobody counted.
        let counted = if total > limit.saturating_mul(DRAIN_FACTOR) { "more than " } else { "" };
        let message = format!("the body has {counted}{total} bytes, the limit is {limit} bytes");
        return Err(ApiFailure::new(ErrorCode::TooLarge, message));
    }
    Ok(bytes)
}

/// The parts of the path, as text.
pub(super) struct PathText<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for PathText<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiFailure> {
        let Path(value) = Path::from_request_parts(parts, state).await.map_err(|rejection| {
            ApiFailure::bad_request(format!("the path cannot be read: {}", rejection.body_text()))
        })?;
        Ok(Self(value))
    }
}

/// The query string; an unknown key is an error where `T` says so.
pub(super) struct QueryOf<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for QueryOf<T> {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiFailure> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiFailure::bad_request(lower_first(&rejection.body_text())))?;
        Ok(Self(value))
    }
}

/// The header `Idempotency-Key`, where there is one: 1 to [`MAX_IDEMPOTENCY_KEY`] visible ASCII characters.
pub(super) struct IdempotencyKey(pub Option<String>);

impl FromRequestParts<ApiState> for IdempotencyKey {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiFailure> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(value), None) => value.as_bytes(),
            (Some(_), Some(_)) => return Err(ApiFailure::bad_request("there is more than one `Idempotency-Key`")),
        };
        let fits = (1..=MAX_IDEMPOTENCY_KEY).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        match String::from_utf8(value.to_vec()) {
            Ok(key) if fits => Ok(Self(Some(key))),
            _ => Err(ApiFailure::bad_request(format!(
                "`Idempotency-Key` must have 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters"
            ))
            .with_hint("take a new random one for each request, such as a UUID")),
        }
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// A text of the request as a value such as an id.
pub(super) fn parse<T>(text: &str) -> Result<T, ApiFailure>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| ApiFailure::bad_request(error.to_string()))
}
