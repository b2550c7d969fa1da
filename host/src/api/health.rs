//! Handlers of `/v1/health`, `/v1/plugins` and `/metrics`: what the host says of itself.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use ostler_protocol::ErrorCode;
use ostler_protocol::api::{Health, PluginList};

use super::document::examples;
use super::{ApiFailure, ApiState};

#[utoipa::path(
    get,
    path = "/v1/health",
    operation_id = "getHealth",
    tag = "host",
    summary = "See whether the host works",
    description = "Answers when the host can work, with its version, default model, image and plugins. A host that cannot \
                   work answers with an error.",
    responses((status = 200, description = "The host works.", body = Health, example = json!(examples::health())))
)]
pub(super) async fn show(State(state): State<ApiState>) -> Result<Json<Health>, ApiFailure> {
    Ok(Json(state.health.health().await?))
}

#[utoipa::path(
    get,
    path = "/v1/plugins",
    operation_id = "listPlugins",
    tag = "host",
    summary = "List the plugins",
    description = "The plugins that take part, in the order in which the host was given them, with the hooks of each; and those \
                   that could not be loaded and are not required.",
    responses((status = 200, description = "The plugins.", body = PluginList, example = json!(examples::plugins())))
)]
pub(super) async fn plugins(State(state): State<ApiState>) -> Result<Json<PluginList>, ApiFailure> {
    Ok(Json(state.health.plugins().await?))
}

#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "host",
    summary = "Read the metrics",
    description = "What the host counts and measures, in Prometheus' text format. The names are in the reference of metrics.",
    responses((
        status = 200,
        description = "The metrics.",
        content_type = "text/plain; version=0.0.4; charset=utf-8",
        body = String,
        example = "# TYPE ostler_prompts_total counter\nostler_prompts_total 1\n"
    ))
)]
pub(super) async fn metrics() -> Result<impl IntoResponse, ApiFailure> {
    let text = crate::telemetry::prometheus_text().map_err(|error| {
        ApiFailure::new(ErrorCode::Internal, "the metrics could not be collected").with_source(error)
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
