//! Handlers of `/v1/pull-requests`: thin, no logic.

use axum::Json;
use axum::extract::State;
use ostler_protocol::PullRequestId;
use ostler_protocol::api::{PullRequestDetail, PullRequestList};

use super::document::{examples, failures};
use super::extract::{PathText, QueryOf, parse};
use super::page::{self, List, PageQuery};
use super::{ApiFailure, ApiState};

#[utoipa::path(
    get,
    path = "/v1/pull-requests",
    operation_id = "listPullRequests",
    tag = "pull requests",
    summary = "List pull requests",
    description = "Every pull request of the built-in forge, the newest first.",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 200, description = "Most items in the page; 50 where it is absent."),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next_cursor` of the page before.")
    ),
    responses(
        (status = 200, description = "A page.", body = PullRequestList, example = json!(examples::pull_requests())),
        failures::Listing
    )
)]
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

#[utoipa::path(
    get,
    path = "/v1/pull-requests/{pull_request}",
    operation_id = "getPullRequest",
    tag = "pull requests",
    summary = "Read a pull request",
    description = "A pull request with the difference between its branch and its base, at most 4 MiB of it.",
    params(("pull_request" = PullRequestId, Path, description = "Which one.", example = json!(examples::pull_request_id()))),
    responses(
        (
            status = 200,
            description = "The pull request.",
            body = PullRequestDetail,
            example = json!(examples::pull_request_detail())
        ),
        failures::Finding
    )
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(id): PathText<String>,
) -> Result<Json<PullRequestDetail>, ApiFailure> {
    let (pull_request, diff) = state.sessions.pull_request(parse::<PullRequestId>(&id)?).await?;
    Ok(Json(PullRequestDetail { pull_request, diff }))
}
