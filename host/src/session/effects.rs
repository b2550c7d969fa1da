//! Acts of a session, each in a task of its own that reports back to the actor.
//!
//! A task that panics reports a failure too: no turn waits for ever for an act that is gone. What the acts of a tool
//! call do is in [`super::tool_calls`], what publishing does in [`super::publish`].

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ostler_protocol::event::{Person, ToolCall, ToolOutcome};
use ostler_protocol::{CallId, Delta, ErrorCode, EventBody, SessionId, TurnId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, Death, Message};
use super::services::Services;
use super::state::{Act, Fragment, Identity, Input, ToolResult};
use super::{publish, tool_calls};
use crate::agent::context;
use crate::agent::message::Message as Said;
use crate::agent::model::{ModelError, Response};
use crate::door::DoorEvent;
use crate::forge::{NameError, RepositoryName};
use crate::plugins::{Decision, Generation, Scope, SessionSource, SessionStart};
use crate::workspace::{Purpose, Workspace, chain};

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
    pub(super) deltas: broadcast::Sender<Delta>,
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
        let _ = self.mailbox.send(Message::Input(input)).await;
    }

    /// The link to the sandbox broke: ends what may be left of it, keeps the files, and tells the actor, so that the
    /// next tool gets a new one.
    pub(super) async fn give_up_sandbox(&self) {
        let Some(instance) = self.workspace.as_ref().map(|workspace| workspace.instance()) else { return };
        if let Err(error) = self.services.workspaces.end(self.session).await {
            tracing::error!(session = %self.session, error = %chain(&error), "a broken sandbox could not be ended");
        }
        let why = "the link to it broke".to_owned();
        let _ = self.mailbox.send(Message::Died(Death { instance, why })).await;
    }

    /// Appends an event and waits until it is durable; `false` when the actor is gone.
    pub(super) async fn note(&self, body: EventBody) -> bool {
        let (durable, noted) = oneshot::channel();
        self.mailbox.send(Message::Note { body, durable }).await.is_ok() && noted.await.is_ok()
    }
}

/// Starts an act.
pub(super) fn spawn(actor: &mut Actor, act: Act) {
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
    let work: Pin<Box<dyn Future<Output = Option<Input>> + Send>> = match act {
        Act::StartWorkspace => Box::pin(start_workspace(job.clone())),
        Act::LoadContext { turn } => Box::pin(load_context(job.clone(), turn)),
        Act::RequestModel { turn, step } => {
            Box::pin(request_model(job.clone(), turn, step, actor.state.conversation.clone()))
        }
        Act::DecideTool { turn, call } => Box::pin(tool_calls::decide(job.clone(), turn, call)),
        Act::RunTool { turn, call, tool, arguments } => {
            Box::pin(tool_calls::run(job.clone(), turn, ToolCall { call, tool, arguments }))
        }
        Act::AdoptTool { turn, call } => Box::pin(tool_calls::adopt(job.clone(), turn, call)),
        Act::Publish { turn, author } => {
            let work = publish::Work {
                title: actor.state.title.clone(),
                description: last_answer(&actor.state.conversation),
                published: actor.state.published.clone(),
            };
            Box::pin(publish::publish(Job { author, ..job.clone() }, turn, work))
        }
        Act::Cancel => return,
    };
    // What ended is collected here: the set never holds more than what is under way.
    while actor.acts.try_join_next().is_some() {}
    actor.acts.spawn(supervise(job, last_words, work));
}

/// Does the work and reports how it ended, also where it panicked.
async fn supervise(job: Job, last_words: Option<Input>, work: impl Future<Output = Option<Input>>) {
    let report = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(session = %job.session, "an act panicked");
        last_words
    });
    if let Some(report) = report {
        job.report(report).await;
    }
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

pub(super) fn fragment(fragment: crate::plugins::Fragment) -> Fragment {
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

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
