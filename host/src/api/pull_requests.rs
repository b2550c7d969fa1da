//! Handlers of `/v1/pull-requests`: thin, no logic.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::{PullRequestDetail, PullRequestList};

use super::extract::{PathText, parse};
use super::{ApiFailure, ApiState};

pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<PullRequestList>, ApiFailure> {
    Ok(Json(PullRequestList { pull_requests: state.sessions.pull_requests().await? }))
}

pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(id): PathText<String>,
) -> Result<Json<PullRequestDetail>, ApiFailure> {
    let (pull_request, diff) = state.sessions.pull_request(parse(&id)?).await?;
    Ok(Json(PullRequestDetail { pull_request, diff }))
}
