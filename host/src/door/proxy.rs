//! Plain HTTP to the outside. Every request is read by hyper, decided by itself and written anew: no byte of its head is passed on
//! as it came, so that both sides cannot read different requests.
//!
//! ```text
//!  transparent: a redirected connection       Host = where the connection goes; an absolute URI must say the same
//!  explicit: proxy.ostler.internal:3128       the absolute URI says where; Host must say the same
//!    CONNECT host:port ─► 200 ─► the tunnel is a connection like every other (see `passage`): what is spoken inside must agree
//! ```
//!
//! Upgrades are not passed on. A refusal is an answer with its reason in words.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use axum::http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tower::ServiceExt;

use super::choke::{Egress, Stopped};
use super::gate::Protocol;
use super::greeting::Heard;
use super::hosts::DoorHosts;
use super::meter::Counted;
use super::passage::{Goal, pass};
use super::tcp::{BUFFER, HEADERS};
use crate::egress::{Host, Wanted};

/// Headers that are about one connection. Source: RFC 9110, 7.6.1.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers by which some servers take another method or path than those of the request.
const OVERRIDES: [&str; 9] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-method",
];

/// Most time without any byte from the other end while an answer is awaited or read.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// Whom a connection of HTTP is for.
pub(super) enum For {
    /// Where it goes is known.
    Goal(Goal),
    /// Each request says it; those to services behind the door are served here.
    Anyone(Arc<DoorHosts>),
}

/// What one connection holds.
struct Connection {
    egress: Arc<Egress>,
    whom: For,
    /// The last connection to the outside, to be used again for the same place.
    kept: Mutex<Option<(Host, u16, SendRequest<Incoming>)>>,
    /// What becomes of the connection after CONNECT.
    tunnel: OnceLock<(Goal, OnUpgrade)>,
}

/// A request that is not passed on, as the client is told.
struct No {
    status: StatusCode,
    text: String,
}

impl No {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl From<Stopped> for No {
    fn from(stopped: Stopped) -> Self {
        let status = if stopped.failed { StatusCode::BAD_GATEWAY } else { StatusCode::FORBIDDEN };
        Self::new(status, stopped.reason)
    }
}

/// Serves one connection, and the tunnel that it may become.
pub(super) async fn serve(egress: Arc<Egress>, stream: Heard, whom: For, patience: Duration) {
    let connection = Connection { egress, whom, kept: Mutex::default(), tunnel: OnceLock::new() };
    let connection = Arc::new(connection);
    let shared = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(connection.answer(request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(BUFFER).max_headers(HEADERS);
    let served = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "a connection of HTTP ended early");
        },
        () = connection.egress.meter().until_spent() => {}
    }
    let Some(Connection { egress, tunnel, .. }) = Arc::into_inner(connection) else { return };
    if let Some((goal, upgrade)) = tunnel.into_inner()
        && let Ok(upgraded) = upgrade.await
    {
        let heard = Heard::new(Box::new(TokioIo::new(upgraded)));
        // In a box, because a tunnel is served by the same functions as what it is in.
        Box::pin(pass(egress, heard, goal, patience)).await;
    }
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answered =
            if request.method() == Method::CONNECT { self.connect(request) } else { self.forward(request).await };
        answered.unwrap_or_else(|No { status, text }| {
            let mut answer = Response::new(Body::from(format!("ostler: {text}\n")));
            *answer.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, plain);
            // Whatever of the request was not read must not be taken for the next one.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        })
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, No> {
        self.egress.pace().turn().await;
        let goal = self.goal(&request)?;
        if let For::Anyone(hosts) = &self.whom
            && let Some(service) = hosts.by_name(&goal.host, goal.port)
        {
            return service.oneshot(request.map(Body::new)).await.map_err(|never| match never {});
        }
        let Goal { host, port } = &goal;
        let overriding = OVERRIDES.into_iter().find(|header| request.headers().contains_key(*header));
        let wanted = Wanted::Http { method: request.method().as_str(), path: request.uri().path(), overriding };
        let permit = self.egress.admit(host, *port, wanted).await?;
        rewrite(&mut request, &goal)?;
        let mut kept = self.kept.lock().await;
        let again = kept.take_if(|(at, on, sender)| at == host && on == port && !sender.is_closed());
        let sent = match again {
            Some((.., sender)) => send(&goal, sender, request).await,
            None => Err(Unsent::Whole(Box::new(request))),
        };
        let (mut answer, sender) = match sent {
            Ok(sent) => {
                self.egress.used(&permit);
                sent
            }
            Err(Unsent::Whole(request)) => {
                let sender = self.open(self.egress.connect(&permit).await?).await?;
                send(&goal, sender, *request).await.map_err(|unsent| unsent.into_no(&goal))?
            }
            Err(Unsent::Broken(no)) => {
                // Some of it may have left.
                self.egress.used(&permit);
                return Err(no);
            }
        };
        *kept = Some((goal.host, goal.port, sender));
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(No::new(StatusCode::BAD_GATEWAY, "protocols cannot be switched here"));
        }
        strip(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        Ok(answer.map(Body::new))
    }

    async fn open(&self, upstream: Counted) -> Result<SendRequest<Incoming>, No> {
        let activity = upstream.activity();
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(BUFFER).max_headers(HEADERS);
        let (sender, connection) = builder
            .handshake(TokioIo::new(upstream))
            .await
            .map_err(|error| No::new(StatusCode::BAD_GATEWAY, format!("no HTTP is possible: {error}")))?;
        let egress = Arc::clone(&self.egress);
        // Ends with its sender, which this connection holds.
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = activity.until_idle(IDLE) => {}
                () = egress.meter().until_spent() => {}
            }
        });
        Ok(sender)
    }

    /// Where a request goes, when all that it says about that agrees.
    fn goal(&self, request: &Request<Incoming>) -> Result<Goal, No> {
        let said = said(request);
        match (&self.whom, said) {
            (For::Anyone(_), Ok(said)) if request.uri().authority().is_some() => Ok(said),
            (For::Anyone(_), Ok(_)) => {
                let text = "this is a proxy: it wants a whole address such as http://example.org/, or CONNECT";
                Err(No::new(StatusCode::BAD_REQUEST, text))
            }
            (For::Goal(goal), Ok(said)) => {
                let other = match &goal.host {
                    Host::Name(_) => goal.host != said.host,
                    Host::Address(_) => matches!(said.host, Host::Address(_)) && goal.host != said.host,
                };
                if other || goal.port != said.port {
                    let text =
                        format!("the connection is to another place than its request, {}:{}", said.host, said.port);
                    return Err(self.disagrees(goal, text));
                }
                Ok(said)
            }
            (For::Goal(goal), Err(text)) => Err(self.disagrees(goal, text.to_owned())),
            (For::Anyone(_), Err(text)) => Err(No::new(StatusCode::BAD_REQUEST, text)),
        }
    }

    fn disagrees(&self, goal: &Goal, text: String) -> No {
        let stopped = self.egress.stop(&goal.host, Some(goal.port), Some(Protocol::Http), text);
        No::new(StatusCode::MISDIRECTED_REQUEST, stopped.reason)
    }

    /// Answers CONNECT; what then comes through the tunnel is a connection like every other.
    fn connect(&self, request: Request<Incoming>) -> Result<Response<Body>, No> {
        if matches!(self.whom, For::Goal(_)) {
            return Err(No::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is for http://proxy.ostler.internal:3128"));
        }
        let malformed = || No::new(StatusCode::BAD_REQUEST, "CONNECT wants a host and a port such as example.org:443");
        let goal = request.uri().authority().and_then(|authority| place(authority, 0)).ok_or_else(malformed)?;
        let stop = |reason: String| self.egress.stop(&goal.host, Some(goal.port), None, reason);
        // Some clients leave the port out there.
        let named = |host: &HeaderValue| place(&Authority::try_from(host.as_bytes()).ok()?, goal.port);
        let mut hosts = request.headers().get_all(header::HOST).iter().map(named);
        let (first, more) = (hosts.next(), hosts.next());
        if more.is_some() || first.is_some_and(|host| host.as_ref() != Some(&goal)) {
            stop("CONNECT and its Host differ".to_owned());
            return Err(No::new(StatusCode::BAD_REQUEST, "CONNECT and its Host differ"));
        }
        self.egress.policy().may_speak(&goal.host, goal.port).map_err(|refusal| stop(refusal.to_string()))?;
        let _ = self.tunnel.set((goal, hyper::upgrade::on(request)));
        Ok(Response::new(Body::empty()))
    }
}

/// Why a request was not answered.
enum Unsent {
    /// It was not sent at all, so that it can be sent another way.
    Whole(Box<Request<Incoming>>),
    /// Nobody knows what became of it.
    Broken(No),
}

impl Unsent {
    fn into_no(self, goal: &Goal) -> No {
        match self {
            Self::Whole(_) => No::new(StatusCode::BAD_GATEWAY, format!("{} broke off", goal.host)),
            Self::Broken(no) => no,
        }
    }
}

/// Sends a request; gives back the connection with the answer.
async fn send(
    goal: &Goal,
    mut sender: SendRequest<Incoming>,
    request: Request<Incoming>,
) -> Result<(Response<Incoming>, SendRequest<Incoming>), Unsent> {
    if sender.ready().await.is_err() {
        return Err(Unsent::Whole(Box::new(request)));
    }
    // Bounded by the connection, which ends when nothing passes in either direction for [`IDLE`].
    match sender.try_send_request(request).await {
        Ok(answer) => Ok((answer, sender)),
        Err(mut error) => Err(match error.take_message() {
            Some(request) => Unsent::Whole(Box::new(request)),
            None => {
                let text = format!("{} broke off: {}", goal.host, error.into_error());
                Unsent::Broken(No::new(StatusCode::BAD_GATEWAY, text))
            }
        }),
    }
}

/// Where a request says that it goes.
fn said(request: &Request<Incoming>) -> Result<Goal, &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err("the request has not one Host") };
    let host = Authority::try_from(host.as_bytes()).ok().and_then(|host| place(&host, 80));
    let host = host.ok_or("the request's Host is malformed")?;
    let Some(authority) = request.uri().authority() else { return Ok(host) };
    if request.uri().scheme() != Some(&Scheme::HTTP) {
        return Err("the request's address is not of plain http");
    }
    match place(authority, 80) {
        Some(named) if named == host => Ok(host),
        Some(_) => Err("the request's address and its Host differ"),
        None => Err("the request's address is malformed"),
    }
}

fn place(authority: &Authority, default_port: u16) -> Option<Goal> {
    // The parser accepts a port that it cannot read.
    let port = match authority.port() {
        Some(port) => Some(port.as_u16()),
        None if authority.as_str().ends_with(':') || authority.as_str().len() != authority.host().len() => None,
        None => Some(default_port),
    };
    let plain = !authority.as_str().contains('@');
    Some(Goal { host: authority.host().parse().ok()?, port: port.filter(|port| plain && *port != 0)? })
}

/// Makes of a request what is sent on.
fn rewrite(request: &mut Request<Incoming>, goal: &Goal) -> Result<(), No> {
    let malformed = |_| No::new(StatusCode::BAD_REQUEST, "the request's address is malformed");
    // hyper leaves out the body of a GET whose length it does not know, unless it is told that there is one.
    let unknown_length = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    strip(request.headers_mut());
    if unknown_length {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // hyper has said yes to it already.
    request.headers_mut().remove(header::EXPECT);
    let bracketed = match &goal.host {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        host => host.to_string(),
    };
    let host = if goal.port == 80 { bracketed } else { format!("{bracketed}:{}", goal.port) };
    request.headers_mut().insert(header::HOST, HeaderValue::try_from(host).map_err(malformed)?);
    Ok(())
}

/// Removes what is about one connection only, and what `Connection` names as such.
fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
