//! Acts of a session, each in a task of its own that reports back to the actor.
//!
//! A task that panics reports a failure too: no turn waits for ever for an act that is gone.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ostler_protocol::event::{Person, ToolCall, ToolOutcome};
use ostler_protocol::{CallId, Delta, ErrorCode, EventBody, SessionId, TurnId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Message};
use super::publish;
use super::services::Services;
use super::state::{Act, Fragment, Identity, Input, ToolDecision, ToolResult};
use crate::agent::message::Message as Said;
use crate::agent::model::{ModelError, Response};
use crate::agent::tools::{self, HandsError, ToolOutput};
use crate::agent::{context, output};
use crate::door::DoorEvent;
use crate::forge::{NameError, RepositoryName};
use crate::plugins::{Decision, Effect, Generation, Scope, SessionSource, SessionStart, ToolAfter, ToolBefore};
use crate::workspace::{Purpose, TurnHands, Workspace, chain};

/// Refusals of the network that one sandbox may add to the log of its session.
const MAX_REFUSALS: usize = 200;

/// What a task of one act holds.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) session: SessionId,
    pub(super) services: Arc<Services>,
    pub(super) identity: Identity,
    pub(super) author: Person,
    pub(super) generation: Generation,
    pub(super) cancel: CancellationToken,
    pub(super) workspace: Option<Arc<Workspace>>,
    /// Whether the session ever had a workspace, so that its files hold work.
    had_workspace: bool,
    deltas: broadcast::Sender<Delta>,
    mailbox: mpsc::Sender<Message>,
}

impl Job {
    /// Where the work is done and for whom, as the hooks see it.
    pub(super) fn scope(&self) -> Scope {
        Scope {
            session: self.session,
            ancestors: Vec::new(),
            repository: self.identity.repository.clone(),
            base_branch: self.identity.base_branch.clone(),
            branch: self.identity.branch.clone(),
            author: self.author.clone(),
        }
    }

    /// Reports to the actor; it may be gone, and then nobody waits for the report.
    async fn report(&self, input: Input) {
        let _ = self.mailbox.send(Message::Input { input, durable: None }).await;
    }

    /// The link to the sandbox broke: ends what may be left of it, keeps the files, and tells the actor, so that the
    /// next tool gets a new one.
    async fn give_up_sandbox(&self) {
        if let Err(error) = self.services.workspaces.end(self.session).await {
            tracing::error!(session = %self.session, error = %chain(&error), "a broken sandbox could not be ended");
        }
        let why = "the link to it broke".to_owned();
        let _ = self.mailbox.send(Message::Died { why }).await;
    }

    /// Appends an event and waits until it is durable; `false` when the actor is gone.
    pub(super) async fn note(&self, body: EventBody) -> bool {
        let (durable, noted) = oneshot::channel();
        self.mailbox.send(Message::Note { body, durable }).await.is_ok() && noted.await.is_ok()
    }
}

/// Starts an act.
pub(super) fn spawn(actor: &Actor, act: Act) {
    let Some(identity) = actor.state.session.clone() else { return };
    let author = actor.state.turn.as_ref().map_or_else(|| identity.author.clone(), |turn| turn.author.clone());
    let job = Job {
        session: actor.session,
        services: Arc::clone(&actor.services),
        identity,
        author,
        generation: actor.generation.clone(),
        cancel: actor.cancel.clone(),
        workspace: actor.workspace.clone(),
        had_workspace: actor.state.had_workspace,
        deltas: actor.deltas.clone(),
        mailbox: actor.mailbox.clone(),
    };
    let last_words = match &act {
        Act::RequestModel { turn, step } => {
            let (turn, step, message) = (*turn, *step, "the model's task ended unexpectedly".to_owned());
            Some(Input::ModelFailed { turn, step, code: ErrorCode::Internal, message })
        }
        Act::DecideTool { turn, call: ToolCall { call, .. } }
        | Act::RunTool { turn, call, .. }
        | Act::AdoptTool { turn, call: ToolCall { call, .. } } => {
            let text = "the task of this call ended unexpectedly; whether it took effect is not known";
            let result = ToolResult::not_run(ToolOutcome::Unknown, text);
            Some(Input::ToolFinished { turn: *turn, call: *call, result })
        }
        Act::LoadContext { turn } => Some(Input::ContextLoaded { turn: *turn, decided: None, fragments: Vec::new() }),
        Act::StartWorkspace => {
            let reason = "the task that makes the sandbox ended unexpectedly".to_owned();
            Some(Input::WorkspaceLost { code: ErrorCode::Internal, reason })
        }
        Act::Publish { turn, .. } => {
            let reason = "the task that publishes ended unexpectedly".to_owned();
            Some(Input::Published {
                turn: *turn,
                events: vec![EventBody::PublishSkipped { reason, failure: Some(ErrorCode::Internal) }],
            })
        }
        Act::Cancel => None,
    };
    match act {
        Act::StartWorkspace => supervise(job.clone(), last_words, start_workspace(job)),
        Act::LoadContext { turn } => supervise(job.clone(), last_words, load_context(job, turn)),
        Act::RequestModel { turn, step } => {
            let messages = actor.state.conversation.clone();
            supervise(job.clone(), last_words, request_model(job, turn, step, messages));
        }
        Act::DecideTool { turn, call } => supervise(job.clone(), last_words, decide_tool(job, turn, call)),
        Act::RunTool { turn, call, tool, arguments } => {
            supervise(job.clone(), last_words, run_tool(job, turn, call, tool, arguments));
        }
        Act::AdoptTool { turn, call } => supervise(job.clone(), last_words, adopt_tool(job, turn, call)),
        Act::Publish { turn, author } => {
            let work = publish::Work {
                title: actor.state.title.clone(),
                description: last_answer(&actor.state.conversation),
                used_tools: used_tools(&actor.state.conversation),
            };
            let job = Job { author, ..job };
            supervise(job.clone(), last_words, publish::publish(job, turn, work));
        }
        Act::Cancel => {}
    }
}

fn supervise(job: Job, last_words: Option<Input>, work: impl Future<Output = Option<Input>> + Send + 'static) {
    tokio::spawn(async move {
        let report = match tokio::spawn(work).await {
            Ok(report) => report,
            Err(error) => {
                tracing::error!(session = %job.session, %error, "an act ended unexpectedly");
                last_words
            }
        };
        if let Some(report) = report {
            job.report(report).await;
        }
    });
}

/// Makes events of what a sandbox wanted from the network and was refused. Ends with the workspace.
pub(super) async fn follow_refusals(mut refusals: broadcast::Receiver<DoorEvent>, mailbox: mpsc::Sender<Message>) {
    for number in 1..=MAX_REFUSALS {
        let text = match refusals.recv().await {
            Ok(_) if number == MAX_REFUSALS => {
                "further refusals of the network stand only in the host's log".to_owned()
            }
            Ok(refused) => refused.to_string(),
            Err(broadcast::error::RecvError::Lagged(missed)) => format!("{missed} more refusals of the network"),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let (durable, noted) = oneshot::channel();
        let note = Message::Note { body: EventBody::Notice { text }, durable };
        if mailbox.send(note).await.is_err() || noted.await.is_err() {
            return;
        }
    }
}

/// What the workspace of a session is for.
pub(super) fn purpose(identity: &Identity) -> Result<Purpose, NameError> {
    Ok(Purpose {
        session: identity.id,
        repository: identity.repository.parse()?,
        base_branch: identity.base_branch.clone(),
        base_commit: identity.base_commit.clone(),
        branch: identity.branch.clone(),
    })
}

async fn start_workspace(job: Job) -> Option<Input> {
    let purpose = match purpose(&job.identity) {
        Ok(purpose) => purpose,
        Err(error) => return Some(Input::WorkspaceLost { code: ErrorCode::Internal, reason: chain(&error) }),
    };
    match job.services.workspaces.start(&purpose, job.had_workspace).await {
        Ok(ready) => {
            let took_ms = milliseconds(ready.took);
            let (workspace, restored) = (ready.workspace, ready.restored);
            let handed = job.mailbox.send(Message::Workspace { workspace, took_ms, restored }).await;
            if handed.is_err()
                && let Err(error) = job.services.workspaces.end(job.session).await
            {
                tracing::error!(session = %job.session, error = %chain(&error), "a sandbox that nobody wants stays");
            }
            None
        }
        Err(error) => Some(Input::WorkspaceLost { code: error.code(), reason: chain(&error) }),
    }
}

async fn load_context(job: Job, turn: TurnId) -> Option<Input> {
    let identity = &job.identity;
    let mut fragments = Vec::new();
    if let Ok(name) = identity.repository.parse::<RepositoryName>() {
        let (file, max) = (context::INSTRUCTIONS_FILE, context::MAX_INSTRUCTIONS);
        match job.services.forge.read_file(&name, &identity.base_commit, file, max).await {
            Ok(Some(found)) => {
                fragments.push(Fragment { source: file.into(), text: String::from_utf8_lossy(&found).into_owned() });
            }
            Ok(None) => {}
            Err(error) => fragments.push(Fragment {
                source: "ostler".into(),
                text: format!("the repository's {file} could not be read: {}", chain(&error)),
            }),
        }
    }
    let event = SessionStart { scope: job.scope(), source: SessionSource::New };
    let decision = job.generation.session_start(event).await;
    let decided = decided(&decision, None);
    fragments.extend(decision.context.into_iter().map(fragment));
    Some(Input::ContextLoaded { turn, decided: Some(decided), fragments })
}

async fn request_model(job: Job, turn: TurnId, step: u32, messages: Vec<Said>) -> Option<Input> {
    let failed = |code, message| Some(Input::ModelFailed { turn, step, code, message });
    let name = &job.identity.model;
    let Some(model) = job.services.models.get(name) else {
        let names = job.services.models.names().join(", ");
        return failed(ErrorCode::ModelFailed, format!("this host has no model `{name}`; it has: {names}"));
    };
    let identity = &job.identity;
    let request = context::request(&messages, &identity.repository, &identity.branch, &identity.base_branch);
    let (pieces, mut received) = mpsc::channel::<String>(256);
    let deltas = job.deltas.clone();
    let forward = tokio::spawn(async move {
        while let Some(text) = received.recv().await {
            // Nobody listening is no error: deltas are volatile.
            let _ = deltas.send(Delta::ModelText { turn, step, text });
        }
    });
    let answer: Result<Response, ModelError> = tokio::select! {
        answer = model.respond(request, pieces) => answer,
        () = job.cancel.cancelled() => return failed(ErrorCode::ModelFailed, "the turn was cancelled".to_owned()),
    };
    // The sender is gone with the answer, so this ends; it keeps the last piece before the event that replaces it.
    let _ = forward.await;
    match answer {
        Ok(Response { text, calls, first_token_ms }) => {
            let calls = calls
                .into_iter()
                .map(|(tool, arguments)| ToolCall { call: CallId::generate(), tool, arguments })
                .collect();
            Some(Input::ModelResponded { turn, step, text, calls, first_token_ms })
        }
        Err(error) => failed(error.code(), chain(&error)),
    }
}

async fn decide_tool(job: Job, turn: TurnId, call: ToolCall) -> Option<Input> {
    let ToolCall { call, tool, arguments } = call;
    let event = ToolBefore {
        scope: job.scope(),
        turn,
        call,
        effect: effect(&tool),
        tool,
        arguments,
        working_directory: ostler_sandbox::wire::guest::WORKSPACE.into(),
    };
    let decision = job.generation.tool_execute_before(event).await;
    let decision = ToolDecision {
        id: decision.id,
        verdict: decision.verdict,
        reasons: decision.reasons,
        arguments: decision.value,
        digest: decision.digest,
        context: decision.context.into_iter().map(fragment).collect(),
    };
    Some(Input::ToolDecided { turn, call, decision })
}

fn hands(job: &Job) -> Option<TurnHands> {
    let workspace = job.workspace.clone()?;
    Some(TurnHands::new(workspace, job.author.clone(), job.cancel.clone(), job.deltas.clone()))
}

async fn run_tool(job: Job, turn: TurnId, call: CallId, tool: String, arguments: serde_json::Value) -> Option<Input> {
    let began = Instant::now();
    let output = match hands(&job) {
        Some(hands) => tools::run(&hands, call, &tool, &arguments).await,
        None => ToolOutput::failed("there is no sandbox to run this in"),
    };
    if output.outcome == ToolOutcome::Unknown {
        job.give_up_sandbox().await;
    }
    let ended = Ended { turn, call, tool, arguments, ran: output, took: began.elapsed() };
    let result = tool_result(&job, ended).await;
    Some(Input::ToolFinished { turn, call, result })
}

async fn adopt_tool(job: Job, turn: TurnId, wanted: ToolCall) -> Option<Input> {
    let ToolCall { call, tool, arguments } = wanted;
    let began = Instant::now();
    let unknown = |text: &str| ToolOutput { outcome: ToolOutcome::Unknown, ..ToolOutput::done(text) };
    let hands = hands(&job);
    let adopted = match &hands {
        Some(hands) => hands.adopt(call).await,
        None => Err(HandsError::Gone("there is no sandbox".into())),
    };
    let output = match adopted {
        Ok(Some(output)) => output,
        // The guest answers in order and remembers every command, so one that it does not know never reached it. The
        // other tools may be done twice, except an edit, which would not find what it replaced.
        Ok(None) if tool != "edit_file" => match &hands {
            Some(hands) => tools::run(hands, call, &tool, &arguments).await,
            None => unknown("there is no sandbox"),
        },
        Ok(None) => unknown(
            "the host went away while this was done and the sandbox has no record of it; whether it took effect is not \
             known",
        ),
        Err(error) => unknown(&format!("the host went away while this was done: {error}; its outcome is not known")),
    };
    let ended = Ended { turn, call, tool, arguments, ran: output, took: began.elapsed() };
    let result = tool_result(&job, ended).await;
    Some(Input::ToolFinished { turn, call, result })
}

/// A call that ended, before the hooks saw its output.
struct Ended {
    turn: TurnId,
    call: CallId,
    tool: String,
    arguments: serde_json::Value,
    ran: ToolOutput,
    took: Duration,
}

/// Keeps a long output, asks the hooks about what the model will see.
async fn tool_result(job: &Job, ended: Ended) -> ToolResult {
    let Ended { turn, call, tool, arguments, ran, took } = ended;
    let (mut text, cut) = output::preview(&ran.bytes);
    let mut blob = None;
    if cut || ran.truncated {
        let (blobs, bytes) = (job.services.blobs.clone(), ran.bytes);
        let kept = bytes.len() as u64;
        match tokio::task::spawn_blocking(move || blobs.put(&bytes)).await {
            Ok(Ok(digest)) => {
                blob = Some(ostler_protocol::event::Blob { digest, bytes: kept, truncated: ran.truncated });
            }
            Ok(Err(error)) => text.push_str(&format!("\n(only this part could be kept: {})", chain(&error))),
            Err(_) => text.push_str("\n(only this part could be kept)"),
        }
    }
    let (outcome, exit_status) = (ran.outcome, ran.exit_status);
    let event = ToolAfter { scope: job.scope(), turn, call, tool, arguments, outcome, exit_status, output: text, took };
    let decision = job.generation.tool_execute_after(event).await;
    ToolResult {
        outcome: ran.outcome,
        decided: Some(decided(&decision, Some(call))),
        context: decision.context.into_iter().map(fragment).collect(),
        output: decision.value,
        blob,
        exit_status: ran.exit_status,
        took_ms: milliseconds(took),
    }
}

/// What kind of thing a tool does, for hooks that care about kinds.
fn effect(tool: &str) -> Effect {
    match tool {
        "read_file" | "list_files" | "search" => Effect::Read,
        "write_file" | "edit_file" => Effect::Write,
        _ => Effect::Execute,
    }
}

fn fragment(fragment: crate::plugins::Fragment) -> Fragment {
    Fragment { source: fragment.source, text: fragment.text }
}

/// The event of a decision.
pub(super) fn decided<T>(decision: &Decision<T>, call: Option<CallId>) -> EventBody {
    EventBody::Decided {
        decision: decision.id,
        hook: decision.hook.to_owned(),
        call,
        verdict: decision.verdict,
        reasons: decision.reasons.clone(),
        digest: decision.digest.clone(),
    }
}

fn last_answer(conversation: &[Said]) -> String {
    let answers = conversation.iter().rev();
    let texts = answers.filter_map(|message| match message {
        Said::Assistant { text, .. } if !text.trim().is_empty() => Some(text.trim().to_owned()),
        _ => None,
    });
    texts.into_iter().next().unwrap_or_default()
}

/// Whether a tool ran since the last prompt.
fn used_tools(conversation: &[Said]) -> bool {
    let turn = conversation.iter().rev().take_while(|message| !matches!(message, Said::User { .. }));
    turn.into_iter().any(|message| matches!(message, Said::Tool { .. }))
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
