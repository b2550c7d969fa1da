//! The outermost layer of the API: every request gets an id and a line in the log, every error its one shape, every panic
//! becomes an answer.
//!
//! Requests for the host name of a preview do not come here: [`super::preview`] answers them outside of it. Does not know
//! routes and decides nothing about access.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use ostler_protocol::ErrorCode;
use tracing::Instrument;
use ulid::Ulid;

use super::ApiFailure;
use crate::telemetry::{chain, label, metrics, seconds};

const REQUEST_ID: &str = "x-request-id";

/// Runs a request and finishes its response.
pub(super) async fn wrap(request: Request, next: Next) -> Response {
    // An id that a client chose could be chosen to confuse the log, so it is always ours.
    let id = format!("req_{}", Ulid::generate().to_string().to_ascii_lowercase());
    let git = request.uri().path().starts_with("/git/");
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let (method, route) = (method_word(request.method()), route(&request));
    let started = Instant::now();
    async {
        let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => ApiFailure::new(ErrorCode::Internal, "the request met a defect of the host").respond(None),
        };
        let mut response = shape(response, &id, git);
        log(&response, started);
        measure(method, route, &response, started);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }
    .instrument(span)
    .await
}

/// The route of a request as it is documented; one word for everything that is none, because clients make paths up.
fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned())
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

fn measure(method: &'static str, route: String, response: &Response, started: Instant) {
    let labels = [
        label("http.request.method", method),
        label("http.route", route),
        label("http.response.status_code", i64::from(response.status().as_u16())),
    ];
    metrics().http_duration.record(seconds(started.elapsed()), &labels);
}

/// Gives an error response its body with the request's id. The forge speaks to git in its own words.
fn shape(mut response: Response, id: &str, git: bool) -> Response {
    let status = response.status();
    let failure = match response.extensions_mut().remove::<ApiFailure>() {
        Some(failure) => failure,
        None if git || !(status.is_client_error() || status.is_server_error()) => return response,
        None => foreign(status),
    };
    let mut shaped = failure.respond(Some(id));
    // `Allow` and `WWW-Authenticate` are part of the answer.
    for name in [header::ALLOW, header::WWW_AUTHENTICATE] {
        if let Some(value) = response.headers_mut().remove(&name) {
            shaped.headers_mut().insert(name, value);
        }
    }
    shaped
}

/// An error that a library answered with, in our words.
fn foreign(status: StatusCode) -> ApiFailure {
    let code = match status {
        StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        status if status.is_client_error() => ErrorCode::BadRequest,
        _ => ErrorCode::Internal,
    };
    let words = status.canonical_reason().unwrap_or("unknown reason").to_ascii_lowercase();
    ApiFailure::new(code, format!("the request failed: {words}"))
}

fn log(response: &Response, started: Instant) {
    let status = response.status().as_u16();
    let took_ms = started.elapsed().as_millis() as u64;
    let Some(failure) = response.extensions().get::<ApiFailure>() else {
        tracing::info!(status, took_ms, "answered");
        return;
    };
    let code = failure.public.code.as_str();
    let cause = failure.source.as_ref().map(|source| chain(source.as_ref()));
    if response.status().is_server_error() {
        tracing::error!(status, took_ms, code, reason = %failure.public.message, cause, "failed");
    } else {
        tracing::info!(status, took_ms, code, reason = %failure.public.message, cause, "refused");
    }
}
