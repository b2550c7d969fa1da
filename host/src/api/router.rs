//! The routes, in one list, and the layers around them. Owns no handler.

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use ostler_protocol::ErrorCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    ApiFailure, ApiState, document, edge, events, guard, health, preview, processes, pull_requests, repositories,
    sessions, terminals,
};

/// The operations under `/v1`. Each handler brings its own path, method and description, so that a route is in the
/// document, and what is in the document is a route.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(document::show))
        .routes(routes!(health::show))
        .routes(routes!(health::plugins))
        .routes(routes!(health::metrics))
        .routes(routes!(repositories::list))
        .routes(routes!(repositories::create, repositories::show))
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::show))
        .routes(routes!(sessions::submit))
        .routes(routes!(sessions::stop))
        .routes(routes!(events::read))
        .routes(routes!(sessions::diff))
        .routes(routes!(sessions::blob))
        .routes(routes!(processes::ports))
        .routes(routes!(processes::list, processes::start))
        .routes(routes!(processes::output))
        .routes(routes!(processes::stop))
        .routes(routes!(processes::restart))
        .routes(routes!(processes::previews, processes::preview))
        .routes(routes!(processes::end_preview))
        .routes(routes!(processes::terminals, processes::open_terminal))
        .routes(routes!(processes::close_terminal))
        .routes(routes!(pull_requests::list))
        .routes(routes!(pull_requests::show))
}

/// Every route of the host. Nothing is answered without the token, not even an unknown path; requests for the host name of a
/// preview never come to any of them.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .merge(Router::from(routes()))
        // Not in the document, which knows no WebSockets; the operation that opens a terminal names it.
        .route(terminals::ATTACH, get(terminals::attach))
        .with_state(state.clone())
        .nest("/git", state.git.clone())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), guard::admit))
        .layer(from_fn(edge::wrap))
        .layer(from_fn_with_state(state, preview::divert))
}

async fn unknown_path(uri: Uri) -> ApiFailure {
    ApiFailure::new(ErrorCode::NotFound, format!("there is nothing at `{}`", uri.path()))
        .with_hint("the API lives under `/v1`, repositories under `/git`")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiFailure {
    ApiFailure::new(ErrorCode::MethodNotAllowed, format!("`{method}` does not exist on `{}`", uri.path()))
}
