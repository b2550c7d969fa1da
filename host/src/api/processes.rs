//! Handlers of what runs in a session's sandbox: `/ports`, `/processes`, `/previews` and `/terminals` of a session.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ostler_protocol::processes::{
    CreatePreview, CreateTerminal, MAX_PIECE, PortList, PreviewList, PreviewView, ProcessList, ProcessOutput,
    ProcessView, StartProcess, TerminalList, TerminalView,
};
use ostler_protocol::{ErrorCode, SessionId};
use serde::Deserialize;

use super::document::{examples, failures};
use super::extract::{JsonBody, PathText, QueryOf, parse};
use super::{ApiFailure, ApiState, validate};

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/ports",
    operation_id = "listPorts",
    tag = "processes",
    summary = "List the ports of a sandbox",
    description = "The TCP ports on which something listens inside the session's sandbox. None of them can be reached from \
                   outside but through a preview.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The ports.", body = PortList, example = json!(examples::ports())),
        failures::Inside
    )
)]
pub(super) async fn ports(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<PortList>, ApiFailure> {
    Ok(Json(state.processes.ports(parse(&session)?).await?))
}

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/processes",
    operation_id = "startProcess",
    tag = "processes",
    summary = "Start a command in the background",
    description = "Runs a command line with bash in the session's workspace, beside the agent. It goes on until it ends by \
                   itself or is stopped, or the sandbox ends; the last 256 KiB of its output are kept. A name that is taken \
                   is a `conflict`, so a start with a name can be repeated safely.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    request_body(content = StartProcess, example = json!(examples::start_process())),
    responses(
        (status = 201, description = "The command.", body = ProcessView, example = json!(examples::process())),
        failures::Acting
    )
)]
pub(super) async fn start(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
    JsonBody(asked): JsonBody<StartProcess>,
) -> Result<(StatusCode, Json<ProcessView>), ApiFailure> {
    asked.author.as_ref().map_or(Ok(()), validate::person)?;
    Ok((StatusCode::CREATED, Json(state.processes.start_process(parse(&session)?, asked).await?)))
}

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/processes",
    operation_id = "listProcesses",
    tag = "processes",
    summary = "List the commands in the background",
    description = "First the services that the repository declares, in the order in which they are started, with where each \
                   is. Then the commands of the agent and those of people, ended ones too, the oldest first. A sandbox \
                   remembers at most 256 commands of all kinds.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The commands.", body = ProcessList, example = json!(examples::processes())),
        failures::Inside
    )
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<ProcessList>, ApiFailure> {
    Ok(Json(state.processes.processes(parse(&session)?).await?))
}

/// Query of an output.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    /// First byte wanted.
    offset: Option<u64>,
    /// Most bytes wanted.
    limit: Option<u32>,
}

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/processes/{process}/output",
    operation_id = "readProcessOutput",
    tag = "processes",
    summary = "Read what a command in the background wrote",
    description = "A piece of what is kept of its output, stdout and stderr in the order of writing. To follow it, ask again \
                   with `next_offset` as `offset`. An offset after the end of the output gives nothing.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("process" = String, Path, description = "Name of the command.", example = json!("web")),
        ("offset" = Option<u64>, Query, description = "First byte wanted; the end of the output where it is absent."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 49152, description = "Most bytes; 49152 where it is absent.")
    ),
    responses(
        (status = 200, description = "The piece.", body = ProcessOutput, example = json!(examples::process_output())),
        failures::Inside
    )
)]
pub(super) async fn output(
    State(state): State<ApiState>,
    PathText((session, process)): PathText<(String, String)>,
    QueryOf(piece): QueryOf<Piece>,
) -> Result<Json<ProcessOutput>, ApiFailure> {
    let limit = piece.limit.unwrap_or(MAX_PIECE);
    if !(1..=MAX_PIECE).contains(&limit) {
        let words = format!("`limit` is {limit}, it must be between 1 and {MAX_PIECE}");
        return Err(ApiFailure::bad_request(words));
    }
    if let Some(offset) = piece.offset.filter(|offset| i64::try_from(*offset).is_err()) {
        return Err(ApiFailure::bad_request(format!("`offset` is {offset}, it must be at most {}", i64::MAX)));
    }
    Ok(Json(state.processes.process_output(parse(&session)?, &process, piece.offset, limit).await?))
}

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/processes/{process}/stop",
    operation_id = "stopProcess",
    tag = "processes",
    summary = "Stop a command in the background",
    description = "Ends it with everything that it started, by force after two seconds, and answers when it has ended. One \
                   that has ended is answered as it is, so it can be repeated. A service of the repository is asked in the \
                   way and given the time that it declares, and stays stopped until somebody starts it. It takes no body.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("process" = String, Path, description = "Name of the command.", example = json!("web"))
    ),
    responses(
        (status = 200, description = "The command.", body = ProcessView, example = json!(examples::stopped_process())),
        failures::Inside
    )
)]
pub(super) async fn stop(
    State(state): State<ApiState>,
    PathText((session, process)): PathText<(String, String)>,
) -> Result<Json<ProcessView>, ApiFailure> {
    Ok(Json(state.processes.stop_process(parse(&session)?, &process).await?))
}

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/processes/{process}/restart",
    operation_id = "restartProcess",
    tag = "processes",
    summary = "Start a service, again where it runs",
    description = "Stops a service that the repository declares where it runs, starts it, and answers when it was started. \
                   Whether it is ready then, its state tells. Commands in the background are none. It takes no body.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("process" = String, Path, description = "Name of the service.", example = json!("database"))
    ),
    responses(
        (status = 200, description = "The service.", body = ProcessView, example = json!(examples::service())),
        failures::Inside
    )
)]
pub(super) async fn restart(
    State(state): State<ApiState>,
    PathText((session, process)): PathText<(String, String)>,
) -> Result<Json<ProcessView>, ApiFailure> {
    Ok(Json(state.processes.restart_process(parse(&session)?, &process).await?))
}

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/previews",
    operation_id = "createPreview",
    tag = "processes",
    summary = "Show a port in a browser",
    description = "Makes an address under which a port of the session's sandbox can be opened in a browser on the host's machine \
                   for 8 hours, whether something listens on it yet or not. HTTP and WebSockets are passed on to \
                   `localhost` in the sandbox. The address holds a key: whoever has it can use the preview and nothing else \
                   of the host. The host's token is not needed there, and never sent into the sandbox.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    request_body(content = CreatePreview, example = json!(examples::create_preview())),
    responses(
        (status = 201, description = "The preview.", body = PreviewView, example = json!(examples::preview())),
        failures::Acting
    )
)]
pub(super) async fn preview(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
    JsonBody(asked): JsonBody<CreatePreview>,
) -> Result<(StatusCode, Json<PreviewView>), ApiFailure> {
    let session: SessionId = parse(&session)?;
    if asked.port == 0 {
        return Err(ApiFailure::bad_request("`port` is 0, it must be between 1 and 65535"));
    }
    let preview = state.previews.open(session, asked.port)?;
    if let Err(error) = state.processes.preview_opened(session, preview.id.clone(), asked.port).await {
        state.previews.close(session, &preview.id);
        return Err(error.into());
    }
    Ok((StatusCode::CREATED, Json(preview)))
}

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/previews",
    operation_id = "listPreviews",
    tag = "processes",
    summary = "List the previews of a session",
    description = "Those that have not expired, the oldest first. A host that is started anew has none.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The previews.", body = PreviewList, example = json!(examples::previews())),
        failures::Finding
    )
)]
pub(super) async fn previews(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<PreviewList>, ApiFailure> {
    // A session that does not exist is told as everywhere.
    let session = state.sessions.get(parse(&session)?).await?.id;
    Ok(Json(PreviewList { previews: state.previews.list(session) }))
}

#[utoipa::path(
    delete,
    path = "/v1/sessions/{session}/previews/{preview}",
    operation_id = "deletePreview",
    tag = "processes",
    summary = "End a preview",
    description = "Its address leads nowhere from now on. WebSockets that are open go on until one side ends them.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("preview" = String, Path, description = "Name of the preview.", example = json!(examples::PREVIEW))
    ),
    responses(
        (status = 200, description = "The preview that was ended.", body = PreviewView, example = json!(examples::preview())),
        failures::Finding
    )
)]
pub(super) async fn end_preview(
    State(state): State<ApiState>,
    PathText((session, preview)): PathText<(String, String)>,
) -> Result<Json<PreviewView>, ApiFailure> {
    let session: SessionId = parse(&session)?;
    state.previews.close(session, &preview).map(Json).ok_or_else(|| {
        ApiFailure::new(ErrorCode::NotFound, format!("session {session} has no such preview"))
            .with_hint("it may have expired; the session's previews can be listed")
    })
}

#[utoipa::path(
    post,
    path = "/v1/sessions/{session}/terminals",
    operation_id = "createTerminal",
    tag = "processes",
    summary = "Open a terminal",
    description = "Starts a login shell on a terminal in the session's sandbox, with the sandbox's rights and no more. It goes on \
                   until its shell ends, it is closed, or the sandbox ends, whoever looks at it. A WebSocket at \
                   `/v1/sessions/{session}/terminals/{terminal}/attach` shows it: see the chapter on processes.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    request_body(content = CreateTerminal, example = json!(examples::create_terminal())),
    responses(
        (status = 201, description = "The terminal.", body = TerminalView, example = json!(examples::terminal())),
        failures::Acting
    )
)]
pub(super) async fn open_terminal(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
    JsonBody(asked): JsonBody<CreateTerminal>,
) -> Result<(StatusCode, Json<TerminalView>), ApiFailure> {
    asked.author.as_ref().map_or(Ok(()), validate::person)?;
    Ok((StatusCode::CREATED, Json(state.processes.open_terminal(parse(&session)?, asked).await?)))
}

#[utoipa::path(
    get,
    path = "/v1/sessions/{session}/terminals",
    operation_id = "listTerminals",
    tag = "processes",
    summary = "List the terminals of a session",
    description = "Those whose shell runs and those that ended, the oldest first.",
    params(("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id()))),
    responses(
        (status = 200, description = "The terminals.", body = TerminalList, example = json!(examples::terminals())),
        failures::Inside
    )
)]
pub(super) async fn terminals(
    State(state): State<ApiState>,
    PathText(session): PathText<String>,
) -> Result<Json<TerminalList>, ApiFailure> {
    Ok(Json(state.processes.terminals(parse(&session)?).await?))
}

#[utoipa::path(
    delete,
    path = "/v1/sessions/{session}/terminals/{terminal}",
    operation_id = "deleteTerminal",
    tag = "processes",
    summary = "Close a terminal",
    description = "Ends its shell with everything in it, by force after a second, and forgets it: its name is free again.",
    params(
        ("session" = SessionId, Path, description = "Which session.", example = json!(examples::session_id())),
        ("terminal" = String, Path, description = "Name of the terminal.", example = json!("main"))
    ),
    responses(
        (status = 200, description = "The terminal that was closed.", body = TerminalView, example = json!(examples::closed_terminal())),
        failures::Inside
    )
)]
pub(super) async fn close_terminal(
    State(state): State<ApiState>,
    PathText((session, terminal)): PathText<(String, String)>,
) -> Result<Json<TerminalView>, ApiFailure> {
    Ok(Json(state.processes.close_terminal(parse(&session)?, &terminal).await?))
}
