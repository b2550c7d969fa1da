//! Handlers of `/v1/health` and `/v1/plugins`: what the host says of itself.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::{Health, PluginList};

use super::{ApiFailure, ApiState};

pub(super) async fn show(State(state): State<ApiState>) -> Result<Json<Health>, ApiFailure> {
    Ok(Json(state.health.health().await?))
}

pub(super) async fn plugins(State(state): State<ApiState>) -> Result<Json<PluginList>, ApiFailure> {
    Ok(Json(state.health.plugins().await?))
}
