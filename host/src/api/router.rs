//! The routes, in one list, and the layers around them. Owns no handler.

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use ostler_protocol::ErrorCode;

use super::{ApiFailure, ApiState, edge, events, guard, health, pull_requests, repositories, sessions};

/// Every route of the host. Nothing is answered without the token, not even an unknown path.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/v1/health", get(health::show))
        .route("/v1/plugins", get(health::plugins))
        .route("/v1/repositories", get(repositories::list))
        .route("/v1/repositories/{repository}", put(repositories::create).get(repositories::show))
        .route("/v1/sessions", get(sessions::list).post(sessions::create))
        .route("/v1/sessions/{session}", get(sessions::show))
        .route("/v1/sessions/{session}/prompts", post(sessions::submit))
        .route("/v1/sessions/{session}/stop", post(sessions::stop))
        .route("/v1/sessions/{session}/events", get(events::read))
        .route("/v1/sessions/{session}/diff", get(sessions::diff))
        .route("/v1/sessions/{session}/blobs/{digest}", get(sessions::blob))
        .route("/v1/pull-requests", get(pull_requests::list))
        .route("/v1/pull-requests/{pull_request}", get(pull_requests::show))
        .with_state(state.clone())
        .nest("/git", state.git.clone())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state, guard::admit))
        .layer(from_fn(edge::wrap))
}

async fn unknown_path(uri: Uri) -> ApiFailure {
    ApiFailure::new(ErrorCode::NotFound, format!("there is nothing at `{}`", uri.path()))
        .with_hint("the API lives under `/v1`, repositories under `/git`")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiFailure {
    ApiFailure::new(ErrorCode::MethodNotAllowed, format!("`{method}` does not exist on `{}`", uri.path()))
}
