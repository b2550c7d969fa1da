//! Git's smart HTTP: three routes in front of `git upload-pack` and `git receive-pack`.
//!
//! ```text
//!  GET  /{repository}.git/info/refs?service=…   what there is
//!  POST /{repository}.git/git-upload-pack       clone, fetch
//!  POST /{repository}.git/git-receive-pack      push: command list read and judged, then the same bytes to git
//! ```
//!
//! Owns what a client may ask ([`Access`]) and in which shape. Does not authenticate: the router is mounted where only
//! those come who hold the access that it was made with. Format: gitprotocol-http(5).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPIRES, PRAGMA, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{FutureExt, StreamExt};
use ostler_sandbox::fault;
use ostler_sandbox::wire::launcher::RepositoryAccess;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_http::decompression::RequestDecompressionLayer;

use super::places::Share;
use super::process::GitCommand;
use super::push::{self, CommandReader, PushError, PushRequest};
use super::settle::{Settlement, settle};
use super::transfer::{Input, Transfer, TransferError};
use super::{Access, Forge, ForgeError, PushObserver, RepositoryName};
use crate::telemetry::chain;

/// Longest command list of a session: its one branch, and the shallow lines of its clone.
const SESSION_COMMANDS: usize = 64 * 1024;

/// Longest command list of a holder of the token: about a hundred thousand references.
const FULL_COMMANDS: usize = 8 << 20;

/// How much of a refused push is taken, so that the client comes to read the refusal.
const DRAINED: u64 = 64 << 20;

/// Time for that.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Git {
    forge: Forge,
    access: Access,
    observer: Option<Arc<dyn PushObserver>>,
    requests: Arc<Semaphore>,
    /// What its session has of the forge's places.
    share: Share,
}

/// Routes of git's smart HTTP for clients that have `access`. Mount it where only such clients come: under the token's
/// guard of the API, or behind the door of one sandbox. The `.git` in addresses may be left out.
pub fn git_router(forge: Forge, access: Access) -> Router {
    router(forge, access, None)
}

/// [`git_router`] with an observer, which is told of every reference that a push changed.
pub fn observed_git_router(forge: Forge, access: Access, observer: Arc<dyn PushObserver>) -> Router {
    router(forge, access, Some(observer))
}

fn router(forge: Forge, access: Access, observer: Option<Arc<dyn PushObserver>>) -> Router {
    let limits = forge.limits();
    let requests = match access {
        Access::Full => limits.full_requests,
        Access::Session { .. } => limits.session_requests,
    };
    let requests = Arc::new(Semaphore::new(requests));
    Router::new()
        .route("/{repository}/info/refs", get(advertise))
        .route("/{repository}/git-upload-pack", post(upload_pack))
        .route("/{repository}/git-receive-pack", post(receive_pack))
        .fallback(|| async { Refused::new(StatusCode::NOT_FOUND, "there is only git's smart HTTP here") })
        .layer(RequestDecompressionLayer::new())
        .with_state(Git { forge, access, observer, requests, share: Share::new() })
}

/// A request that is not served. Git shows the text to its user.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<ForgeError> for Refused {
    fn from(error: ForgeError) -> Self {
        let status = match error {
            ForgeError::UnknownRepository { .. } | ForgeError::Name(_) => StatusCode::NOT_FOUND,
            ForgeError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %chain(&error), "the forge failed");
            return Self::new(status, "the forge failed; the host's log says why");
        }
        // Which other repositories exist is nobody's business here.
        match error {
            ForgeError::UnknownRepository { repository, .. } => unknown(repository.as_str()),
            error => Self::new(status, error.to_string()),
        }
    }
}

impl From<TransferError> for Refused {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            TransferError::Stalled { .. } | TransferError::Untaken { .. } => {
                Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string())
            }
            TransferError::Request(_) => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
            TransferError::Deadline { .. } | TransferError::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            // Git says nothing to a client whose request makes no sense to it, and fails.
            TransferError::Git { ref stderr, .. } => {
                tracing::warn!(%error, "git refused a request");
                Self::new(StatusCode::BAD_REQUEST, format!("git refused the request: {stderr}"))
            }
            TransferError::Run(ref why) if why.is_passing() => {
                tracing::error!(error = %chain(&error), "git did not run to its end");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{why}; try again"))
            }
            TransferError::Io(_) | TransferError::Run(_) | TransferError::Abandoned => {
                tracing::error!(error = %chain(&error), "a git transfer failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the forge failed; the host's log says why")
            }
        }
    }
}

fn unknown(name: &str) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, format!("there is no repository `{name}` here"))
}

#[derive(serde::Deserialize)]
struct Advertise {
    service: Option<String>,
}

async fn advertise(
    State(git): State<Git>,
    Path(repository): Path<String>,
    Query(Advertise { service }): Query<Advertise>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let name = git.repository(&repository).await?;
    let request = git.request().await?;
    let service = service.unwrap_or_default();
    let program = match service.as_str() {
        "git-upload-pack" => "upload-pack",
        "git-receive-pack" => "receive-pack",
        _ => {
            return Err(Refused::new(StatusCode::FORBIDDEN, "only git's smart HTTP is spoken here: use a current git"));
        }
    };
    let version = protocol(&headers);
    let mut command = GitCommand::new(name.clone(), RepositoryAccess::Read, &[]);
    command.args(&[program, "--stateless-rpc", "--http-backend-info-refs", "."]);
    set_protocol(&mut command, program, version);
    let transfer = git.transfer(command, None, request, futures::future::ready(()).boxed()).await?;
    let answer = transfer.start().await?;
    let answer = if program == "upload-pack" && version == Some(2) {
        answer
    } else {
        let mut lead = Vec::new();
        super::pkt_line::write(&mut lead, format!("# service={service}\n").as_bytes());
        lead.extend_from_slice(super::pkt_line::FLUSH);
        let lead = futures::stream::once(async { Ok::<_, axum::Error>(lead.into()) });
        Body::from_stream(lead.chain(answer.into_data_stream()))
    };
    Ok(respond(format!("application/x-{service}-advertisement"), answer))
}

async fn upload_pack(
    State(git): State<Git>,
    Path(repository): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let name = git.repository(&repository).await?;
    check_type(&headers, "application/x-git-upload-pack-request")?;
    let place = git.request().await?;
    let mut command = GitCommand::new(name.clone(), RepositoryAccess::Read, &[]);
    command.args(&["upload-pack", "--strict", "--stateless-rpc", "."]);
    set_protocol(&mut command, "upload-pack", protocol(&headers));
    let limits = git.forge.limits();
    let rest = request.into_body().into_data_stream();
    let input = Input { head: Vec::new(), rest, limit: limits.fetch_request, idle: limits.idle };
    let transfer = git.transfer(command, Some(input), place, futures::future::ready(()).boxed()).await?;
    Ok(respond("application/x-git-upload-pack-result".to_owned(), transfer.start().await?))
}

async fn receive_pack(
    State(git): State<Git>,
    Path(repository): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let name = git.repository(&repository).await?;
    check_type(&headers, "application/x-git-receive-pack-request")?;
    let place = git.request().await?;
    let limits = git.forge.limits();
    let (commands, pack) = match git.access {
        Access::Full => (FULL_COMMANDS, limits.full_push),
        Access::Session { .. } => (SESSION_COMMANDS, limits.session_push),
    };
    let mut rest = request.into_body().into_data_stream();
    let (push, head) = read_commands(&mut rest, commands, limits.idle).await?;
    let kind = "application/x-git-receive-pack-result".to_owned();
    if push.updates.is_empty() {
        // Git asks this way whether it may push, before it sends a large pack in pieces.
        return Ok(respond(kind, Body::empty()));
    }
    if let Some(reasons) = git.access.refusals(&push) {
        tracing::info!(repository = %name, session = ?git.access.session(), ?reasons, "a push was refused");
        let whole = drain(rest).await;
        let mut response = respond(kind, Body::from(push::refusal(&push, &reasons)));
        if !whole {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return Ok(response);
    }
    fault::point("forge.push-permitted");
    let mut settings = vec![format!("receive.maxInputSize={pack}")];
    if git.access != Access::Full {
        settings.push("receive.denyDeletes=true".to_owned());
    }
    let mut command = GitCommand::new(name.clone(), RepositoryAccess::Write, &settings);
    command.args(&["receive-pack", "--stateless-rpc", "."]);
    if git.access != Access::Full {
        command.distrust_input();
    }
    set_protocol(&mut command, "receive-pack", protocol(&headers));
    let input = Input { head, rest, limit: pack.saturating_add(commands as u64), idle: limits.idle };
    let settlement = Settlement {
        forge: git.forge.clone(),
        name,
        access: git.access.clone(),
        updates: push.updates,
        observer: git.observer.clone(),
    };
    let transfer = git.transfer(command, Some(input), place, settle(settlement).boxed()).await?;
    Ok(respond(kind, transfer.start().await?))
}

impl Git {
    /// The repository of an address, if these clients can see it.
    async fn repository(&self, address: &str) -> Result<RepositoryName, Refused> {
        let name = address.strip_suffix(".git").unwrap_or(address);
        let name = name.parse::<RepositoryName>().map_err(ForgeError::from)?;
        if !self.access.sees(&name) {
            return Err(unknown(name.as_str()));
        }
        self.forge.get(&name).await?;
        Ok(name)
    }

    /// A place among the requests of this router; waits for one.
    async fn request(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let place = timeout(self.forge.limits().query, self.requests.clone().acquire_owned()).await;
        let busy = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many git requests at once");
        place.ok().and_then(Result::ok).ok_or_else(busy)
    }

    async fn transfer(
        &self,
        command: GitCommand,
        input: Option<Input>,
        request: OwnedSemaphorePermit,
        settle: futures::future::BoxFuture<'static, ()>,
    ) -> Result<Transfer, Refused> {
        let limits = self.forge.limits();
        let (place, deadline) = match self.access {
            Access::Full => (self.forge.places().own().await?, limits.full_transfer),
            Access::Session { .. } => (self.forge.places().of_session(&self.share).await?, limits.session_transfer),
        };
        let (stream, git) = self.forge.start(command, place).await.map_err(TransferError::Run)?;
        Ok(Transfer { stream, git, input, deadline, idle: limits.idle, place: request, settle })
    }
}

/// The protocol version that a client asks for, where git on this side knows it.
fn protocol(headers: &HeaderMap) -> Option<u8> {
    let asked = headers.get("git-protocol")?.to_str().ok()?;
    asked.split(':').find_map(|part| match part.strip_prefix("version=") {
        Some("1") => Some(1),
        Some("2") => Some(2),
        _ => None,
    })
}

/// Passes the version on, in our own words. Pushes have no version 2.
fn set_protocol(command: &mut GitCommand, program: &str, version: Option<u8>) {
    match version {
        Some(2) if program != "upload-pack" => {}
        Some(version) => {
            command.env("GIT_PROTOCOL", format!("version={version}"));
        }
        None => {}
    }
}

/// A web page cannot send these types to another site without asking first.
fn check_type(headers: &HeaderMap, expected: &str) -> Result<(), Refused> {
    if headers.get(CONTENT_TYPE).is_some_and(|found| found == expected) {
        return Ok(());
    }
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("the body must be of type {expected}")))
}

async fn read_commands(
    rest: &mut BodyDataStream,
    limit: usize,
    idle: Duration,
) -> Result<(PushRequest, Vec<u8>), Refused> {
    let mut reader = CommandReader::new(limit);
    let refused = |error: PushError| match error {
        PushError::TooLong { .. } => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        error => Refused::new(StatusCode::BAD_REQUEST, error.to_string()),
    };
    loop {
        let piece = match timeout(idle, rest.next()).await {
            Err(_) => return Err(TransferError::Stalled { idle }.into()),
            Ok(None) => return Err(refused(PushError::Incomplete)),
            Ok(Some(piece)) => piece.map_err(TransferError::Request)?,
        };
        if reader.push(&piece).map_err(refused)? {
            return Ok(reader.finish());
        }
    }
}

/// Takes the rest of a request that is refused. Returns whether that was all of it.
async fn drain(mut rest: BodyDataStream) -> bool {
    let all = async {
        let mut taken = 0;
        while let Some(piece) = rest.next().await {
            let Ok(piece) = piece else { return false };
            taken += piece.len() as u64;
            if taken > DRAINED {
                return false;
            }
        }
        true
    };
    timeout(DRAIN, all).await.unwrap_or(false)
}

fn respond(kind: String, body: Body) -> Response {
    const FRESH: [(HeaderName, &str); 3] = [
        (CACHE_CONTROL, "no-cache, max-age=0, must-revalidate"),
        (PRAGMA, "no-cache"),
        (EXPIRES, "Fri, 01 Jan 1980 00:00:00 GMT"),
    ];
    (FRESH, [(CONTENT_TYPE, kind)], body).into_response()
}
