//! Handler of `/v1/health`.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::Health;

use super::{ApiFailure, ApiState};

pub(super) async fn show(State(state): State<ApiState>) -> Result<Json<Health>, ApiFailure> {
    Ok(Json(state.health.health().await?))
}
