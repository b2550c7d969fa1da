//! Previews: a port of a sandbox in a browser, under an origin of its own.
//!
//! ```text
//!  browser ─► p3000-5f0c7b1e7d.localhost ─► divert ─► key or cookie? ─► forward ─► socket in the sandbox's network
//!                                              │ any other Host
//!                                              └► edge, guard, router: the API
//! ```
//!
//! What a sandbox serves is hostile. It never shares an origin with the API, nor with another preview: each has a host name
//! below `localhost`, which browsers take for a site of its own and resolve to loopback. Such a name leads nowhere else, so
//! nothing of the API can be reached under it. Who may look has the key: it comes once in the address, then in a cookie, and the sandbox sees neither
//! it nor the host's token.
//!
//! Owns the table of previews and who may use them. What is passed on, and how, is in [`forward`], [`headers`] and [`tunnel`].

mod forward;
mod headers;
mod tunnel;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ostler_protocol::processes::{MAX_PREVIEWS, PreviewView};
use ostler_protocol::{ErrorCode, SessionId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::auth::{equal, random_hex};
use super::{ApiFailure, ApiState};
use crate::session::Clock;

/// How long a preview lives.
const LIFE: Duration = Duration::from_secs(8 * 3600);

/// Random bytes of a name, which keep names apart, and of a key, which keeps others out.
const NAME: usize = 5;
const KEY: usize = 32;

/// The parameter that brings the key, and the beginning of the cookie's name.
const PARAMETER: &str = "ostler_preview";

/// Previews of the whole host, and connections that were upgraded (WebSockets), of all of them and of one, at a time.
const MOST: usize = 256;
const MOST_TUNNELS: usize = 256;
const TUNNELS_OF_ONE: usize = 32;

/// The previews of this host. They are kept in memory: a restarted host has none.
pub struct Previews {
    /// The port of the API's listener.
    port: u16,
    clock: Clock,
    open: Mutex<BTreeMap<String, Preview>>,
    tunnels: Arc<Semaphore>,
    /// Who else would be asked for a preview, where that is not this host.
    stranger: Option<SocketAddr>,
}

#[derive(Clone)]
struct Preview {
    session: SessionId,
    port: u16,
    key: String,
    expires_at_ms: u64,
    tunnels: Arc<Semaphore>,
    /// Cancelled when it is no preview any more.
    ended: CancellationToken,
}

impl Previews {
    /// No previews yet, for a host whose API listens on `port`.
    #[must_use]
    pub fn new(port: u16, clock: Clock) -> Self {
        let tunnels = Arc::new(Semaphore::new(MOST_TUNNELS));
        Self { port, clock, open: Mutex::default(), tunnels, stranger: None }
    }

    /// Makes no preview where `stranger` is an address of loopback at which another program listens: a browser may go there
    /// first, and bring the key.
    #[must_use]
    pub fn unless(self, stranger: Option<SocketAddr>) -> Self {
        Self { stranger, ..self }
    }

    /// Makes a preview of a port.
    pub(super) fn open(&self, session: SessionId, port: u16) -> Result<PreviewView, ApiFailure> {
        if let Some(stranger) = self.stranger {
            let words = format!("another program listens on {stranger}, where browsers look for previews too");
            let hint = "end it, or give the host another --listen address, and start the host anew";
            return Err(ApiFailure::new(ErrorCode::Unavailable, words).with_hint(hint));
        }
        let random = |count| {
            random_hex(count).map_err(|error| {
                ApiFailure::new(ErrorCode::Internal, "the machine gives no random numbers").with_source(error)
            })
        };
        let (id, key) = (format!("p{port}-{}", random(NAME)?), random(KEY)?);
        let expires_at_ms = self.clock.now_ms() + u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
        let tunnels = Arc::new(Semaphore::new(TUNNELS_OF_ONE));
        let preview = Preview { session, port, key, expires_at_ms, tunnels, ended: CancellationToken::new() };
        let view = self.view(&id, &preview);
        let mut open = self.living();
        let of_session = open.values().filter(|each| each.session == session).count();
        if of_session >= MAX_PREVIEWS || open.len() >= MOST {
            let words = format!("session {session} has {of_session} previews, the host {}", open.len());
            let hint = format!("end some: {MAX_PREVIEWS} are possible for a session, {MOST} for a host");
            return Err(ApiFailure::new(ErrorCode::Overloaded, words).with_hint(hint));
        }
        open.insert(id, preview);
        Ok(view)
    }

    /// The previews of a session.
    pub(super) fn list(&self, session: SessionId) -> Vec<PreviewView> {
        let open = self.living();
        let of_session = open.iter().filter(|(_, preview)| preview.session == session);
        let mut views: Vec<_> = of_session.map(|(id, preview)| self.view(id, preview)).collect();
        views.sort_by_key(|view| view.expires_at_ms);
        views
    }

    /// Ends a preview.
    pub(super) fn close(&self, session: SessionId, id: &str) -> Option<PreviewView> {
        let mut open = self.living();
        open.get(id).filter(|preview| preview.session == session)?;
        let preview = open.remove(id)?;
        preview.ended.cancel();
        Some(self.view(id, &preview))
    }

    /// Waits until the preview has ended, by a person or by its time.
    fn until_ended(&self, preview: &Preview) -> impl Future<Output = ()> + Send + use<> {
        let left = Duration::from_millis(preview.expires_at_ms.saturating_sub(self.clock.now_ms()));
        let ended = preview.ended.clone();
        async move { drop(tokio::time::timeout(left, ended.cancelled()).await) }
    }

    fn find(&self, id: &str) -> Option<Preview> {
        self.living().get(id).cloned()
    }

    fn living(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Preview>> {
        let now = self.clock.now_ms();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, preview| preview.expires_at_ms > now);
        open
    }

    fn view(&self, id: &str, preview: &Preview) -> PreviewView {
        let url = format!("http://{id}.localhost:{}/?{PARAMETER}={}", self.port, preview.key);
        PreviewView {
            id: id.to_owned(),
            session: preview.session,
            port: preview.port,
            url,
            expires_at_ms: preview.expires_at_ms,
        }
    }
}

/// Answers requests for the host name of a preview, and lets every other one go on to the API.
pub(super) async fn divert(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match preview_name(request.headers(), request.uri()) {
        Some(id) => answer(&state, &id, request).await,
        None => next.run(request).await,
    }
}

/// The name of the preview that a request is for; none where the request does not clearly name one.
fn preview_name(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    let named = |authority: &Authority| {
        let name = authority.host().to_ascii_lowercase();
        let id = name.strip_suffix(".localhost")?;
        let (port, random) = id.strip_prefix('p')?.split_once('-')?;
        let fits = random.len() == 2 * NAME && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        (fits && port.parse::<u16>().is_ok() && !authority.as_str().contains('@')).then(|| id.to_owned())
    };
    let id = named(&host.to_str().ok()?.parse().ok()?)?;
    // The target of a proxy request must not name another host.
    uri.authority().is_none_or(|target| named(target).as_ref() == Some(&id)).then_some(id)
}

/// Answers and leaves a line about it. The path is the sandbox's and may hold a key, so it is not in it.
async fn answer(state: &ApiState, id: &str, request: Request) -> Response {
    let method = request.method().clone();
    let response = respond(state, id, request).await;
    tracing::debug!(preview = id, %method, status = response.status().as_u16(), "a preview was asked");
    response
}

async fn respond(state: &ApiState, id: &str, request: Request) -> Response {
    let Some(preview) = state.previews.find(id) else {
        return page(
            StatusCode::NOT_FOUND,
            "This preview does not exist, or has ended. `ostler preview` makes a new one.",
        );
    };
    if request.headers().get("service-worker").is_some() {
        // It would see each address that the browser opens here, with the key.
        return page(StatusCode::FORBIDDEN, "A preview has no service workers.");
    }
    let Some(admitted) = admit(&preview, id, &request) else {
        let words = "Open the preview with the whole address that `ostler preview` printed: it holds the key.";
        return page(StatusCode::FORBIDDEN, words);
    };
    if let Admitted::ByKey { path, cookie } = &admitted
        && is_navigation(&request)
    {
        // The key leaves the address bar, the history and what other pages are told.
        let headers = [(header::LOCATION, path.clone()), (header::SET_COOKIE, cookie.clone())];
        return (StatusCode::SEE_OTHER, headers, Body::empty()).into_response();
    }
    forward::forward(state, id, &preview, admitted, request).await
}

/// How a request showed that it may come in.
enum Admitted {
    /// With the cookie.
    ByCookie,
    /// With the key in its address; `path` is what is left of that.
    ByKey { path: String, cookie: String },
}

fn admit(preview: &Preview, id: &str, request: &Request) -> Option<Admitted> {
    let query = request.uri().query().unwrap_or_default();
    let brought = query.split('&').find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='));
    if let Some(key) = brought {
        return equal(&preview.key, key).then(|| Admitted::ByKey {
            path: headers::without_key(request.uri(), PARAMETER),
            cookie: format!("{}={}; Path=/; HttpOnly; SameSite=Lax", cookie_name(id), preview.key),
        });
    }
    let name = cookie_name(id);
    let mut keys = headers::cookies(request.headers(), &name);
    keys.any(|key| equal(&preview.key, key)).then_some(Admitted::ByCookie)
}

fn cookie_name(id: &str) -> String {
    format!("{PARAMETER}_{id}")
}

/// Whether a person opens the address, rather than a page or a program that fetches something.
fn is_navigation(request: &Request) -> bool {
    let headers = request.headers();
    let mode = headers.get("sec-fetch-mode").map(|mode| mode == "navigate");
    // An older browser says only what it would like to get.
    let wants_a_page = || headers.get(header::ACCEPT).is_some_and(|kinds| kinds.as_bytes().starts_with(b"text/html"));
    request.method() == Method::GET && mode.unwrap_or_else(wants_a_page)
}

/// A page of ours, in words only. It is the one thing under a preview's name that is not from the sandbox.
fn page(status: StatusCode, words: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{words}\n")).into_response()
}

#[cfg(test)]
mod tests;
