//! Handlers of `/v1/sessions`: thin, no logic.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use ostler_protocol::SessionId;
use ostler_protocol::api::{
    CreateSession, Diff, PromptAccepted, SessionList, SessionStatus, SessionView, SubmitPrompt,
};
use serde::Deserialize;

use super::extract::{IdempotencyKey, JsonBody, PathText, QueryOf, parse};
use super::page::{self, List};
use super::{ApiFailure, ApiState, validate};
use crate::session::SessionFilter;

pub(super) async fn create(
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(request): JsonBody<CreateSession>,
) -> Result<(StatusCode, Json<SessionView>), ApiFailure> {
    validate::session(&request)?;
    Ok((StatusCode::CREATED, Json(state.sessions.create(request, key).await?)))
}

/// Query of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionQuery {
    /// Most sessions that the page may hold.
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before.
    cursor: Option<String>,
    /// Only sessions on this repository.
    repository: Option<String>,
    /// Only sessions with this status.
    status: Option<SessionStatus>,
}

pub(super) async fn list(
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<SessionQuery>,
) -> Result<Json<SessionList>, ApiFailure> {
    let limit = page::limit(query.limit)?;
    let before = page::after_id(List::Sessions, query.cursor.as_deref())?;
    query.repository.as_deref().map_or(Ok(()), validate::repository)?;
    let filter = SessionFilter { repository: query.repository, status: query.status };
    let found = state.sessions.list(filter, before, limit + 1).await?;
    let (sessions, next_cursor) = page::cut(List::Sessions, limit, found, |session| session.id.to_string());
    Ok(Json(SessionList { sessions, next_cursor }))
}

pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<SessionView>, ApiFailure> {
    Ok(Json(state.sessions.get(parse(&session)?).await?))
}

pub(super) async fn submit(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(prompt): JsonBody<SubmitPrompt>,
) -> Result<(StatusCode, Json<PromptAccepted>), ApiFailure> {
    let session: SessionId = parse(&session)?;
    validate::prompt(&prompt)?;
    Ok((StatusCode::ACCEPTED, Json(state.sessions.submit(session, prompt, key).await?)))
}

pub(super) async fn stop(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<SessionView>, ApiFailure> {
    Ok(Json(state.sessions.stop(parse(&session)?).await?))
}

pub(super) async fn diff(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<Diff>, ApiFailure> {
    Ok(Json(state.sessions.diff(parse(&session)?).await?))
}

/// A blob was written by whatever ran in the sandbox, so it is never something that a browser shows.
pub(super) async fn blob(
    State(state): State<ApiState>,
    PathText((session, digest)): PathText<(String, String)>,
) -> Result<impl IntoResponse, ApiFailure> {
    let session: SessionId = parse(&session)?;
    validate::digest(&digest)?;
    let bytes = state.sessions.blob(session, &digest).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_DISPOSITION, "attachment")], bytes))
}
