//! Handlers of `/v1/sessions`: thin, no logic.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use ostler_protocol::SessionId;
use ostler_protocol::api::{
    CreateSession, Diff, PromptAccepted, SessionList, SessionStatus, SessionView, SubmitPrompt,
};
use ostler_protocol::openapi::RepositoryName;
use serde::Deserialize;

use super::document::{examples, failures};
use super::extract::{IdempotencyKey, JsonBody, PathText, QueryOf, parse};
use super::page::{self, List};
use super::{ApiFailure, ApiState, validate};
use crate::session::SessionFilter;

#[utoipa::path(
    post,
    path = "/v1/sessions",
    operation_id = "createSession",
    tag = "sessions",
    summary = "Make a session",
    description = "A session works on one repository, from one branch, in the name of one person. It is durable when it is \
                   answered and does nothing until its first prompt. A repetition with the same `Idempotency-Key` answers \
                   the session as it is by then.",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, pattern = "^[!-~]+$", example = json!(examples::KEY), description = "A random text of the client, new for each request: a repetition with the same key is done once and answered as the first time.")),
    request_body(content = CreateSession, example = json!(examples::create_session())),
    responses(
        (status = 201, description = "The session.", body = SessionView, example = json!(examples::new_session())),
        failures::Taking
    )
)]
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

#[utoipa::path(
    get,
    path = "/v1/sessions",
    operation_id = "listSessions",
    tag = "sessions",
    summary = "List sessions",
    description = "Every session, the newest first; both filters together where both are given. What a list shows may be a \
                   moment behind what a single session says.",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 200, description = "Most items in the page; 50 where it is absent."),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next_cursor` of the page before."),
        ("repository" = Option<RepositoryName>, Query, description = "Only sessions on this repository."),
        ("status" = Option<SessionStatus>, Query, description = "Only sessions that do this now.")
    ),
    responses(
        (status = 200, description = "A page.", body = SessionList, example = json!(examples::sessions())),
        failures::Listing
    )
)]
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

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}",
    operation_id = "getSession",
    tag = "sessions",
    summary = "Read a session",
    description = "One session as it is now.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The session.", body = SessionView, example = json!(examples::session())),
        failures::Finding
    )
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<SessionView>, ApiFailure> {
    Ok(Json(state.sessions.get(parse::<SessionId>(&session)?).await?))
}

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/prompts",
    operation_id = "submitPrompt",
    tag = "sessions",
    summary = "Give a session a prompt",
    description = "The prompt is durable when it is answered. The agent begins at once, or when the prompts before it are \
                   done; only so many may wait. What becomes of it are the session's events.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, pattern = "^[!-~]+$", example = json!(examples::KEY), description = "A random text of the client, new for each request: a repetition with the same key is done once and answered as the first time.")
    ),
    request_body(content = SubmitPrompt, example = json!(examples::submit_prompt())),
    responses(
        (status = 202, description = "Accepted.", body = PromptAccepted, example = json!(examples::prompt_accepted())),
        failures::Taking
    )
)]
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

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/stop",
    operation_id = "stopSession",
    tag = "sessions",
    summary = "Stop the turn under way",
    description = "Ends what the session is doing, within about a second, and answers when it has ended; a session that does \
                   nothing is answered as it is, so it can be repeated without a key. The session stays: prompts that \
                   wait come next. It takes no body.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The session.", body = SessionView, example = json!(examples::stopped_session())),
        failures::Finding
    )
)]
pub(super) async fn stop(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<SessionView>, ApiFailure> {
    Ok(Json(state.sessions.stop(parse(&session)?).await?))
}

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/diff",
    operation_id = "getSessionDiff",
    tag = "sessions",
    summary = "See what a session changed",
    description = "The unified difference to the commit that the session began with: of the living workspace, with what is \
                   not committed, or of the pushed branch where there is none. At most 4 MiB; `truncated` says that it was cut.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The difference.", body = Diff, example = json!(examples::diff())),
        failures::Comparing
    )
)]
pub(super) async fn diff(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<Diff>, ApiFailure> {
    Ok(Json(state.sessions.diff(parse(&session)?).await?))
}

// A blob was written by whatever ran in the sandbox, so it is never something that a browser shows.
#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/blobs/{digest}",
    operation_id = "getBlob",
    tag = "sessions",
    summary = "Read the whole output of a tool",
    description = "The bytes that a `tool_finished` event of this session names in `blob`, where its `output` is not all of \
                   them. They are whatever the tool wrote; nothing checks them.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("digest" = String, Path, pattern = "^sha256:[0-9a-f]{64}$", example = json!(examples::DIGEST), description = "Digest of the blob.")
    ),
    responses(
        (status = 200, description = "The bytes.", body = Vec<u8>, content_type = "application/octet-stream"),
        failures::Finding
    )
)]
pub(super) async fn blob(
    State(state): State<ApiState>,
    PathText((session, digest)): PathText<(String, String)>,
) -> Result<impl IntoResponse, ApiFailure> {
    let session: SessionId = parse(&session)?;
    validate::digest(&digest)?;
    let bytes = state.sessions.blob(session, &digest).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_DISPOSITION, "attachment")], bytes))
}
