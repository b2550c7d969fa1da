//! Handler of `/v1/health`.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::Health;

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
