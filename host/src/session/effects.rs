//! Acts of a session, each in a task of its own that reports back to the actor.
//!
//! A task that panics reports a failure too: no turn waits for ever for an act that is gone. What the acts of a tool
//! call do is in [`super::tool_calls`], those around the model are in [`super::model_calls`], what publishing does in [`super::publish`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ostler_protocol::event::{ToolCall, ToolOutcome};
use ostler_protocol::{ErrorCode, EventBody, SessionId, TurnId};
use tracing::Span;

use super::job::{Job, decided, fragment, milliseconds, purpose};
use super::mailbox::Message;
use super::model_calls::{self, Conversation};
use super::state::{Act, Fragment, Input, State, ToolResult};
use super::{publish, tool_calls};
use crate::agent::context;
use crate::agent::message::Message as Said;
use crate::forge::RepositoryName;
use crate::plugins::{SessionSource, SessionStart};
use crate::workspace::chain;

/// The work of an act, which reports by itself; `None` for one that is nothing to wait for.
pub(super) fn work(job: Job, act: Act, state: &State) -> Option<BoxFuture<'static, ()>> {
    let last_words = match &act {
        Act::RequestModel { turn, step, .. } | Act::Compact { turn, step, .. } => {
            let (turn, step, message) = (*turn, *step, "the model's task ended unexpectedly".to_owned());
            Some(Input::ModelFailed { turn, step, code: ErrorCode::Internal, message, retry: None })
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
            Some(Input::WorkspaceLost { code: ErrorCode::Internal, reason, cut_off: None })
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
    let work: BoxFuture<'static, Option<Input>> = match act {
        Act::StartWorkspace => Box::pin(start_workspace(job.clone())),
        Act::LoadContext { turn } => Box::pin(load_context(job.clone(), turn)),
        Act::RequestModel { turn, step, after_ms } => {
            let pause = Duration::from_millis(after_ms);
            Box::pin(model_calls::request(job.clone(), turn, step, pause, Conversation::of(state)))
        }
        Act::Compact { turn, step, reason, times } => {
            Box::pin(model_calls::compact(job.clone(), turn, step, reason, times, Conversation::of(state)))
        }
        Act::DecideTool { turn, call } => Box::pin(tool_calls::decide(job.clone(), turn, call)),
        Act::RunTool { turn, call, tool, arguments } => {
            Box::pin(tool_calls::run(job.clone(), turn, ToolCall { call, tool, arguments }))
        }
        Act::AdoptTool { turn, call } => Box::pin(tool_calls::adopt(job.clone(), turn, call)),
        Act::Publish { turn, author } => {
            let work = publish::Work {
                title: state.title.clone(),
                description: last_answer(&state.conversation),
                published: state.published.clone(),
            };
            Box::pin(publish::publish(Job { author, ..job.clone() }, turn, work))
        }
        Act::Cancel => return None,
    };
    Some(Box::pin(supervise(job, last_words, work)))
}

/// The span of an act, in the words of OpenTelemetry where it has some.
pub(super) fn span(act: &Act, session: SessionId) -> Span {
    match act {
        Act::StartWorkspace => tracing::info_span!("workspace", %session),
        Act::LoadContext { turn } => tracing::info_span!("context", %session, %turn),
        Act::RequestModel { turn, step, .. } => tracing::info_span!("chat", %session, %turn, step),
        Act::Compact { turn, step, .. } => tracing::info_span!("compact", %session, %turn, step),
        Act::DecideTool { turn, call } => {
            tracing::info_span!("hooks", %session, %turn, call = %call.call, tool = call.tool)
        }
        Act::RunTool { turn, call, tool, .. } => {
            tracing::info_span!("execute_tool", %session, %turn, %call, tool)
        }
        Act::AdoptTool { turn, call } => {
            tracing::info_span!("adopt_tool", %session, %turn, call = %call.call, tool = call.tool)
        }
        Act::Publish { turn, .. } => tracing::info_span!("publish", %session, %turn),
        Act::Cancel => Span::none(),
    }
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

async fn start_workspace(job: Job) -> Option<Input> {
    let purpose = match purpose(&job.identity, Arc::clone(&job.account)) {
        Ok(purpose) => purpose,
        Err(error) => {
            return Some(Input::WorkspaceLost { code: ErrorCode::Internal, reason: chain(&error), cut_off: None });
        }
    };
    match job.services.workspaces.start(&purpose, job.had_workspace).await {
        Ok(ready) => {
            let took_ms = milliseconds(ready.took);
            let (workspace, restored, cloned) = (ready.workspace, ready.restored, ready.cloned);
            let handed = job.mailbox.send(Message::Workspace { workspace, took_ms, restored, cloned }).await;
            if handed.is_err()
                && let Err(error) = job.services.workspaces.end(job.session).await
            {
                tracing::error!(session = %job.session, error = %chain(&error), "a sandbox that nobody wants stays");
            }
            None
        }
        Err(error) => {
            let (code, cut_off) = (error.code(), error.cut_off());
            Some(Input::WorkspaceLost { code, reason: chain(&error), cut_off })
        }
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

fn last_answer(conversation: &[Said]) -> String {
    let answers = conversation.iter().rev();
    let texts = answers.filter_map(|message| match message {
        Said::Assistant { text, .. } if !text.trim().is_empty() => Some(text.trim().to_owned()),
        _ => None,
    });
    texts.into_iter().next().unwrap_or_default()
}
