//! Examples of requests and answers: values of the wire types, so that none can be wrong in its shape. Tests send the
//! requests to a real host and compare the answers with the schemas.

use ostler_protocol::api::{
    CaughtUp, CreateSession, Diff, DiffSource, EventPage, Health, PluginHook, PluginList, PluginView, PromptAccepted,
    PullRequestDetail, PullRequestList, PullRequestState, PullRequestView, RepositoryList, RepositoryView, SessionList,
    SessionStatus, SessionView, SubmitPrompt,
};
use ostler_protocol::event::{Person, TurnOutcome};
use ostler_protocol::processes::{
    CreatePreview, CreateTerminal, PortList, PortView, PreviewList, PreviewView, ProcessList, ProcessOutput,
    ProcessView, ServiceState, ServiceView, StartProcess, TerminalList, TerminalView, Window,
};
use ostler_protocol::{Delta, Event, EventBody, PromptId, PullRequestId, SessionId, TurnId};
use ulid::Ulid;

/// When the examples happened, in milliseconds since the Unix epoch.
pub(in crate::api) const AT_MS: u64 = 1_790_000_000_000;

/// The number of a request.
pub(in crate::api) const REQUEST_ID: &str = "req_01ky0a5q00000000000000000z";

/// The key of a request.
pub(in crate::api) const KEY: &str = "5f0c7b1e-7d0a-4f39-9b1c-2f7a5c1f0e55";

/// The digest of a blob.
pub(in crate::api) const DIGEST: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

/// A commit.
pub(in crate::api) const COMMIT: &str = "5e1f3a2b4c6d7e8f90a1b2c3d4e5f60718293a4b";

pub(in crate::api) const fn ulid(number: u128) -> Ulid {
    Ulid::from_parts(AT_MS, number)
}

pub(in crate::api) const fn session_id() -> SessionId {
    SessionId::from_ulid(ulid(1))
}

pub(in crate::api) const fn prompt_id() -> PromptId {
    PromptId::from_ulid(ulid(2))
}

pub(in crate::api) const fn turn_id() -> TurnId {
    TurnId::from_ulid(ulid(3))
}

pub(in crate::api) const fn pull_request_id() -> PullRequestId {
    PullRequestId::from_ulid(ulid(5))
}

pub(in crate::api) fn branch() -> String {
    format!("ostler/{}", session_id().bare())
}

pub(in crate::api) fn person() -> Person {
    Person { name: "Ada Example".into(), email: "ada@example.org".into() }
}

pub(in crate::api) fn create_session() -> CreateSession {
    CreateSession { repository: "demo".into(), branch: Some("main".into()), author: person(), model: None }
}

pub(in crate::api) fn submit_prompt() -> SubmitPrompt {
    SubmitPrompt { text: "Make the failing test pass".into(), author: None }
}

pub(in crate::api) fn prompt_accepted() -> PromptAccepted {
    PromptAccepted { prompt: prompt_id(), seq: 2 }
}

pub(in crate::api) fn session() -> SessionView {
    SessionView {
        id: session_id(),
        repository: "demo".into(),
        base_branch: "main".into(),
        branch: branch(),
        author: person(),
        status: SessionStatus::Working,
        model: "scripted/demo".into(),
        title: "Make the failing test pass".into(),
        head_seq: 3,
        pull_request: None,
        sandboxes_cut_off: 0,
        created_at_ms: AT_MS,
        updated_at_ms: AT_MS + 12,
    }
}

pub(in crate::api) fn new_session() -> SessionView {
    SessionView { status: SessionStatus::Idle, title: String::new(), head_seq: 1, updated_at_ms: AT_MS, ..session() }
}

pub(in crate::api) fn stopped_session() -> SessionView {
    SessionView { status: SessionStatus::Idle, head_seq: 9, updated_at_ms: AT_MS + 4_000, ..session() }
}

pub(in crate::api) fn sessions() -> SessionList {
    SessionList { sessions: vec![session()], next_cursor: Some(cursor(&format!("sessions {}", session_id()))) }
}

pub(in crate::api) fn events() -> EventPage {
    let bodies = [
        EventBody::PromptSubmitted { prompt: prompt_id(), text: submit_prompt().text, author: person(), request: None },
        EventBody::TurnStarted { turn: turn_id(), prompt: prompt_id() },
        EventBody::TurnFinished { turn: turn_id(), outcome: TurnOutcome::Done },
    ];
    let events = (2..).zip(bodies).map(|(seq, body)| Event { seq, at_ms: AT_MS + seq, body }).collect();
    EventPage { events, head_seq: 4 }
}

/// The frames of a stream as text: events, the marker, a delta, a sign of life.
pub(in crate::api) fn stream() -> String {
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let events = events().events.into_iter().take(2);
    let mut text: String =
        events.map(|event| format!("id: {}\ndata: {}\n\n", event.seq, json(serde_json::to_string(&event)))).collect();
    text += &format!("event: caught_up\ndata: {}\n\n", json(serde_json::to_string(&CaughtUp { seq: 3 })));
    text += &format!("event: delta\ndata: {}\n\n: alive\n\n", json(serde_json::to_string(&delta())));
    text
}

pub(in crate::api) fn delta() -> Delta {
    Delta::ModelText { turn: turn_id(), step: 1, text: "I run the ".into() }
}

pub(in crate::api) fn diff() -> Diff {
    let diff =
        "diff --git a/value.py b/value.py\n--- a/value.py\n+++ b/value.py\n@@ -1 +1 @@\n-VALUE = 1\n+VALUE = 2\n";
    Diff { diff: diff.into(), source: DiffSource::Workspace, truncated: false }
}

pub(in crate::api) fn pull_request() -> PullRequestView {
    PullRequestView {
        id: pull_request_id(),
        number: 1,
        repository: "demo".into(),
        title: "Make the failing test pass".into(),
        body: "VALUE is 2 now.".into(),
        base: "main".into(),
        head: branch(),
        head_commit: COMMIT.into(),
        author: person(),
        session: session_id(),
        state: PullRequestState::Open,
        url: format!("http://127.0.0.1:7878/v1/pull-requests/{}", pull_request_id()),
        created_at_ms: AT_MS + 9_000,
    }
}

pub(in crate::api) fn pull_requests() -> PullRequestList {
    PullRequestList { pull_requests: vec![pull_request()], next_cursor: None }
}

pub(in crate::api) fn pull_request_detail() -> PullRequestDetail {
    PullRequestDetail { pull_request: pull_request(), diff: Diff { source: DiffSource::Branch, ..diff() } }
}

pub(in crate::api) fn repository() -> RepositoryView {
    RepositoryView {
        name: "demo".into(),
        default_branch: "main".into(),
        clone_url: "http://127.0.0.1:7878/git/demo.git".into(),
    }
}

pub(in crate::api) fn repositories() -> RepositoryList {
    RepositoryList { repositories: vec![repository()], next_cursor: None }
}

pub(in crate::api) fn plugins() -> PluginList {
    let hook = PluginHook {
        hook: "tool.execute.before".into(),
        phase: "validate".into(),
        priority: 0,
        failure: "closed".into(),
    };
    let plugin = PluginView { id: "policy".into(), version: "0.1.0".into(), digest: DIGEST.into(), hooks: vec![hook] };
    PluginList { plugins: vec![plugin], refused: Vec::new() }
}

pub(in crate::api) fn health() -> Health {
    Health {
        status: "ok".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        model: "scripted/demo".into(),
        image: "base".into(),
        plugins: vec!["policy".into()],
    }
}

fn cursor(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("1 {text}"))
}

/// The name of a preview.
pub(in crate::api) const PREVIEW: &str = "p3000-5f0c7b1e7d";

pub(in crate::api) fn ports() -> PortList {
    let port = PortView { port: 3000, address: "127.0.0.1".into(), process: Some("node".into()) };
    PortList { ports: vec![port], truncated: false }
}

pub(in crate::api) fn start_process() -> StartProcess {
    StartProcess { name: Some("web".into()), command: "while sleep 1; do date; done".into(), author: None }
}

pub(in crate::api) fn process() -> ProcessView {
    ProcessView {
        name: "web".into(),
        command: start_process().command,
        exit_status: None,
        age_ms: 12,
        written: 0,
        kept_from: 0,
        service: None,
    }
}

pub(in crate::api) fn stopped_process() -> ProcessView {
    ProcessView { exit_status: Some(143), age_ms: 8200, written: 232, ..process() }
}

pub(in crate::api) fn service() -> ProcessView {
    let service = ServiceView { state: ServiceState::Ready, why: None, restarts: 0 };
    let (name, command) = ("database".to_owned(), "exec postgres -D /tmp/data".to_owned());
    ProcessView { name, command, service: Some(service), age_ms: 4100, written: 812, ..process() }
}

pub(in crate::api) fn processes() -> ProcessList {
    ProcessList { processes: vec![service(), process()] }
}

pub(in crate::api) fn process_output() -> ProcessOutput {
    let output = "Mon Sep 21 14:13:20 UTC 2026\n".to_owned();
    ProcessOutput { offset: 0, next_offset: 29, written: 29, output, exit_status: None }
}

pub(in crate::api) fn create_preview() -> CreatePreview {
    CreatePreview { port: 3000 }
}

pub(in crate::api) fn preview() -> PreviewView {
    let key = "0f".repeat(32);
    PreviewView {
        id: PREVIEW.into(),
        session: session_id(),
        port: 3000,
        url: format!("http://{PREVIEW}.localhost:7878/?ostler_preview={key}"),
        expires_at_ms: AT_MS + 8 * 3_600_000,
    }
}

pub(in crate::api) fn previews() -> PreviewList {
    PreviewList { previews: vec![preview()] }
}

pub(in crate::api) fn create_terminal() -> CreateTerminal {
    CreateTerminal { name: Some("main".into()), window: Window { rows: 40, columns: 120 }, author: None }
}

pub(in crate::api) fn terminal() -> TerminalView {
    TerminalView { name: "main".into(), exit_status: None, age_ms: 0 }
}

pub(in crate::api) fn closed_terminal() -> TerminalView {
    TerminalView { exit_status: Some(129), age_ms: 93_000, ..terminal() }
}

pub(in crate::api) fn terminals() -> TerminalList {
    TerminalList { terminals: vec![terminal()] }
}
