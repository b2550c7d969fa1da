//! Handlers of `/v1/pull-requests`: thin, no logic.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::{PullRequestDetail, PullRequestList};

use super::extract::{PathText, QueryOf, parse};
use super::page::{self, List, PageQuery};
use super::{ApiFailure, ApiState};

pub(super) async fn list(
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<PullRequestList>, ApiFailure> {
    let limit = page::limit(query.limit)?;
    let before = page::after_id(List::PullRequests, query.cursor.as_deref())?;
    let found = state.sessions.pull_requests(before, limit + 1).await?;
    let (pull_requests, next_cursor) = page::cut(List::PullRequests, limit, found, |pull| pull.id.to_string());
    Ok(Json(PullRequestList { pull_requests, next_cursor }))
}

pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(id): PathText<String>,
) -> Result<Json<PullRequestDetail>, ApiFailure> {
    let (pull_request, diff) = state.sessions.pull_request(parse(&id)?).await?;
    Ok(Json(PullRequestDetail { pull_request, diff }))
}
