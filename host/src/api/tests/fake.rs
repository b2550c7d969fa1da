//! A host in memory, and helpers that ask it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use axum::routing::{get, post};
use futures::StreamExt;
use ostler_protocol::api::{
    CreateSession, Diff, DiffSource, Health, PluginHook, PluginList, PluginView, PromptAccepted, PullRequestView,
    RefusedPlugin, RepositoryView, SessionStatus, SessionView, SubmitPrompt,
};
use ostler_protocol::event::Person;
use ostler_protocol::processes::{
    self as protocol, CreateTerminal, PortList, PortView, ProcessList, ProcessOutput, ProcessView, StartProcess,
    TerminalList, Window,
};
use ostler_protocol::{Delta, ErrorCode, Event, EventBody, PromptId, PullRequestId, SessionId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::*;
use crate::session::{SessionError, SessionFilter, Subscription};
use crate::workspace::TerminalView;

pub const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
pub const SESSION: &str = "ses_01jd3kq4v5w6x7y8z9a0b1c2d3";

/// One session with a log that tests write.
pub struct Fake {
    pub events: Mutex<Vec<Event>>,
    pub head: Mutex<Option<watch::Sender<u64>>>,
    pub deltas: broadcast::Sender<Delta>,
    pub pages_read: AtomicUsize,
    /// Sessions that were asked for.
    pub created: Mutex<Vec<CreateSession>>,
    /// Answers to prompts that came with a key.
    pub keys: Mutex<std::collections::HashMap<String, PromptAccepted>>,
    /// Names of the repositories.
    pub names: Mutex<std::collections::BTreeSet<String>>,
    /// Prompts that were accepted, in order.
    pub prompts: watch::Sender<Vec<(PromptId, SubmitPrompt)>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            head: Mutex::new(Some(watch::Sender::new(0))),
            deltas: broadcast::Sender::new(16),
            pages_read: AtomicUsize::new(0),
            created: Mutex::default(),
            keys: Mutex::default(),
            names: Mutex::default(),
            prompts: watch::Sender::new(Vec::new()),
        }
    }
}

impl Fake {
    /// Appends a notice, as the actor does: durable first, then seen.
    pub fn append(&self, body: EventBody) {
        let mut events = self.events.lock().unwrap();
        let seq = events.len() as u64 + 1;
        events.push(Event { seq, at_ms: 1_700_000_000_000 + seq, body });
        if let Some(head) = self.head.lock().unwrap().as_ref() {
            head.send_replace(seq);
        }
    }

    pub fn notice(&self, text: &str) {
        self.append(EventBody::Notice { text: text.to_owned() });
    }

    fn check(&self, session: SessionId) -> Result<(), SessionError> {
        if session.to_string() == SESSION {
            return Ok(());
        }
        Err(SessionError::new(ErrorCode::NotFound, format!("there is no session `{session}`"))
            .with_hint("`ostler sessions` lists them"))
    }

    fn view(&self) -> SessionView {
        SessionView {
            id: SESSION.parse().unwrap(),
            repository: "demo".into(),
            base_branch: "main".into(),
            branch: "ostler/01jd".into(),
            author: ada(),
            status: SessionStatus::Idle,
            model: "scripted/demo".into(),
            title: String::new(),
            head_seq: self.events.lock().unwrap().len() as u64,
            pull_request: None,
            sandboxes_cut_off: 0,
            created_at_ms: 1,
            updated_at_ms: 2,
        }
    }
}

pub fn ada() -> Person {
    Person { name: "Ada".into(), email: "ada@example.org".into() }
}

#[async_trait]
impl SessionService for Fake {
    async fn create(&self, request: CreateSession, _: Option<String>) -> Result<SessionView, SessionError> {
        self.created.lock().unwrap().push(request);
        Ok(self.view())
    }
    async fn list(
        &self,
        filter: SessionFilter,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionView>, SessionError> {
        let fits = |view: &SessionView| {
            filter.repository.as_ref().is_none_or(|repository| view.repository == *repository)
                && filter.status.is_none_or(|status| view.status == status)
                && before.is_none_or(|before| view.id < before)
        };
        Ok([self.view()].into_iter().filter(fits).take(limit).collect())
    }
    async fn get(&self, session: SessionId) -> Result<SessionView, SessionError> {
        self.check(session)?;
        Ok(self.view())
    }
    async fn submit(
        &self,
        session: SessionId,
        request: SubmitPrompt,
        key: Option<String>,
    ) -> Result<PromptAccepted, SessionError> {
        self.check(session)?;
        if let Some(accepted) = key.as_ref().and_then(|key| self.keys.lock().unwrap().get(key).cloned()) {
            return Ok(accepted);
        }
        let prompt = PromptId::generate();
        self.append(EventBody::PromptSubmitted { prompt, text: request.text.clone(), author: ada(), request: None });
        self.prompts.send_modify(|prompts| prompts.push((prompt, request)));
        let accepted = PromptAccepted { prompt, seq: self.events.lock().unwrap().len() as u64 };
        self.keys.lock().unwrap().extend(key.map(|key| (key, accepted.clone())));
        Ok(accepted)
    }
    async fn stop(&self, session: SessionId) -> Result<SessionView, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::SandboxFailed, "could not stop the turn")
            .with_source(std::io::Error::other("a secret of the log")))
    }
    async fn events(&self, session: SessionId, after: u64, limit: usize) -> Result<Vec<Event>, SessionError> {
        self.check(session)?;
        self.pages_read.fetch_add(1, Ordering::SeqCst);
        Ok(self.events.lock().unwrap().iter().filter(|event| event.seq > after).take(limit).cloned().collect())
    }
    async fn subscribe(&self, session: SessionId) -> Result<Subscription, SessionError> {
        self.check(session)?;
        let head = self.head.lock().unwrap();
        let head = head.as_ref().ok_or_else(|| SessionError::new(ErrorCode::Unavailable, "the host is stopping"))?;
        Ok(Subscription { head: head.subscribe(), deltas: self.deltas.subscribe() })
    }
    async fn diff(&self, session: SessionId) -> Result<Diff, SessionError> {
        self.check(session)?;
        Ok(Diff { diff: String::new(), source: DiffSource::Branch, truncated: false })
    }
    async fn blob(&self, session: SessionId, _: &str) -> Result<Vec<u8>, SessionError> {
        self.check(session)?;
        Ok(b"<script>alert(1)</script>".to_vec())
    }
    async fn pull_requests(&self, _: Option<PullRequestId>, _: usize) -> Result<Vec<PullRequestView>, SessionError> {
        Ok(Vec::new())
    }
    async fn pull_request(&self, id: PullRequestId) -> Result<(PullRequestView, Diff), SessionError> {
        Err(SessionError::new(ErrorCode::NotFound, format!("there is no pull request `{id}`")))
    }
}

#[async_trait]
impl ProcessService for Fake {
    async fn ports(&self, session: SessionId) -> Result<PortList, SessionError> {
        self.check(session)?;
        Ok(PortList {
            ports: vec![PortView { port: 3000, address: "127.0.0.1".into(), process: Some("node\u{1b}[2J".into()) }],
            truncated: false,
        })
    }
    async fn connect(&self, session: SessionId, _: u16) -> Result<TcpStream, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn start_process(&self, session: SessionId, _: StartProcess) -> Result<ProcessView, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn processes(&self, session: SessionId) -> Result<ProcessList, SessionError> {
        self.check(session)?;
        Ok(ProcessList { processes: Vec::new() })
    }
    async fn process_output(
        &self,
        session: SessionId,
        _: &str,
        _: Option<u64>,
        _: u32,
    ) -> Result<ProcessOutput, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn stop_process(&self, session: SessionId, _: &str) -> Result<ProcessView, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn restart_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError> {
        self.stop_process(session, name).await
    }
    async fn preview_opened(&self, session: SessionId, _: String, _: u16) -> Result<(), SessionError> {
        self.check(session)?;
        Ok(())
    }
    async fn open_terminal(
        &self,
        session: SessionId,
        _: CreateTerminal,
    ) -> Result<protocol::TerminalView, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn terminals(&self, session: SessionId) -> Result<TerminalList, SessionError> {
        self.check(session)?;
        Ok(TerminalList { terminals: Vec::new() })
    }
    async fn view_terminal(&self, session: SessionId, _: &str) -> Result<TerminalView, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn resize_terminal(&self, session: SessionId, _: &str, _: Window) -> Result<(), SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
    async fn close_terminal(&self, session: SessionId, _: &str) -> Result<protocol::TerminalView, SessionError> {
        self.check(session)?;
        Err(SessionError::new(ErrorCode::Conflict, "there is no sandbox that runs"))
    }
}

#[async_trait]
impl Repositories for Fake {
    async fn create(&self, name: &str) -> Result<RepositoryView, ApiFailure> {
        Ok(RepositoryView {
            name: name.to_owned(),
            default_branch: "main".into(),
            clone_url: format!("http://localhost/git/{name}.git"),
        })
    }
    async fn get(&self, name: &str) -> Result<RepositoryView, ApiFailure> {
        if name == "broken" {
            panic!("a defect");
        }
        Repositories::create(self, name).await
    }
    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryView>, ApiFailure> {
        let names = self.names.lock().unwrap().clone();
        let mut page = Vec::new();
        for name in names.iter().filter(|name| after.is_none_or(|after| name.as_str() > after)).take(limit) {
            page.push(Repositories::create(self, name).await?);
        }
        Ok(page)
    }
}

#[async_trait]
impl HealthSource for Fake {
    async fn health(&self) -> Result<Health, ApiFailure> {
        Ok(Health {
            status: "ok".into(),
            version: "0".into(),
            model: "scripted/demo".into(),
            image: "base".into(),
            plugins: Vec::new(),
        })
    }
    async fn plugins(&self) -> Result<PluginList, ApiFailure> {
        let hook = PluginHook {
            hook: "tool.execute.before".into(),
            phase: "mutate".into(),
            priority: 10,
            failure: "hold".into(),
        };
        let after = PluginHook {
            hook: "tool.execute.after".into(),
            phase: "validate".into(),
            failure: "skip".into(),
            priority: 0,
        };
        let plugin =
            |id: &str, hooks| PluginView { id: id.into(), version: "0.1.0".into(), digest: "sha256:0".into(), hooks };
        let refused = RefusedPlugin { reason: "plugin `old` cannot be loaded: it asks for contract 0\u{1b}[2J".into() };
        Ok(PluginList {
            plugins: vec![plugin("policy", vec![hook, after]), plugin("idle", vec![])],
            refused: vec![refused],
        })
    }
}

/// The whole router over a fake.
pub struct TestHost {
    pub fake: Arc<Fake>,
    pub app: Router,
    pub stopping: CancellationToken,
}

impl TestHost {
    pub fn new() -> Self {
        Self::with_limits(ApiLimits { body: 512 * 1024, ..ApiLimits::default() })
    }

    pub fn with_limits(limits: ApiLimits) -> Self {
        let git = Router::new()
            .route("/demo.git/info/refs", get(async || "refs"))
            .route("/demo.git/git-receive-pack", post(async || (StatusCode::FORBIDDEN, "not that branch")));
        Self::over(Arc::new(Fake::default()), git, limits)
    }

    /// A host over what another host left.
    pub fn over(fake: Arc<Fake>, git: Router, limits: ApiLimits) -> Self {
        let stopping = CancellationToken::new();
        let app = router(ApiState {
            sessions: fake.clone(),
            processes: fake.clone(),
            previews: Arc::new(Previews::new(7878, crate::session::Clock::system())),
            repositories: fake.clone(),
            health: fake.clone(),
            git,
            token: ApiToken::parse(TOKEN).unwrap(),
            guard: HostGuard::new("127.0.0.1:7878".parse().unwrap(), &[], &[]),
            limits,
            streams: limits.stream_places(),
            stopping: stopping.clone(),
        });
        Self { fake, app, stopping }
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request with everything that lets it in.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let request = admitted(method, path).header(header::CONTENT_TYPE, "application/json");
        answer(self.send(request.body(Body::from(body.to_owned())).unwrap()).await).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, serde_json::Value) {
        self.ask(Method::GET, path, "").await
    }
}

impl TestHost {
    /// Serves on a real socket; `address` with port 0 takes a free one.
    pub async fn listen(&self, address: &str) -> (SocketAddr, JoinHandle<Result<(), ServeError>>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve((listener, None), self.app.clone(), self.stopping.clone(), Duration::from_secs(10));
        (address, tokio::spawn(server))
    }
}

/// A request that is let in.
pub fn admitted(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost:7878")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
}

/// Status and JSON of a response.
pub async fn answer(response: Response<Body>) -> (StatusCode, serde_json::Value) {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}

/// A stream of events being read.
pub struct Reader {
    pub headers: HeaderMap,
    body: axum::body::BodyDataStream,
    text: String,
}

impl Reader {
    pub async fn open(host: &TestHost, path: &str, last: Option<u64>) -> Self {
        let mut request = admitted(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = host.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let (parts, body) = response.into_parts();
        Self { headers: parts.headers, body: body.into_data_stream(), text: String::new() }
    }

    /// The next frame without its empty line; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let frame = frame.to_owned();
                self.text = rest.to_owned();
                return Some(frame);
            }
            let next = tokio::time::timeout(Duration::from_secs(10), self.body.next()).await;
            let chunk = next.expect("a frame within ten seconds")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    /// The next frames, each as `id` or the name of its event.
    pub async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let frame = self.frame().await.unwrap();
            let name = frame.lines().find_map(|line| line.strip_prefix("id: ").or(line.strip_prefix("event: ")));
            names.push(name.unwrap_or(&frame).to_owned());
        }
        names
    }
}
