//! Handlers of `/v1/repositories`: thin, no logic.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::{RepositoryList, RepositoryView};

use super::extract::PathText;
use super::{ApiFailure, ApiState, validate};

pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<RepositoryList>, ApiFailure> {
    Ok(Json(RepositoryList { repositories: state.repositories.list().await? }))
}

pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(name): PathText<String>,
) -> Result<Json<RepositoryView>, ApiFailure> {
    validate::repository(&name)?;
    Ok(Json(state.repositories.get(&name).await?))
}

pub(super) async fn create(
    State(state): State<ApiState>,
    PathText(name): PathText<String>,
) -> Result<Json<RepositoryView>, ApiFailure> {
    validate::repository(&name)?;
    Ok(Json(state.repositories.create(&name).await?))
}
