//! The acts around the model: asking it, and summarizing a conversation that is too long for it.
//!
//! ```text
//!  request ─► too long? ─► ContextFull        compact ─► the model's summary ─┬─► Compacted
//!     └─► pause ─► one attempt ─► ModelResponded          fails: the host's ──┘
//!                      └─ failed ─► ModelFailed, with the pause before the next one where that may help
//! ```
//!
//! One act is one attempt: whether there is another is the machine's decision, and an event.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use ostler_protocol::event::{Summarizer, ToolCall};
use ostler_protocol::{CallId, Delta, ErrorCode, TurnId};
use tokio::sync::mpsc;

use super::job::Job;
use super::state::{Answer, Compaction, Input, Retry, State};
use crate::agent::message::Message as Said;
use crate::agent::model::{self, Limits, Model, ModelError, Response};
use crate::agent::{compaction, context};
use crate::workspace::chain;

/// The first pause between two attempts; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, also where a provider wants a longer one: the turn then fails, and says so.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A conversation as the session holds it.
#[derive(Clone)]
pub(super) struct Conversation {
    messages: Vec<Said>,
    counted: Option<(usize, u64)>,
    failed_attempts: u32,
    compactions: u32,
}

impl Conversation {
    pub(super) fn of(state: &State) -> Self {
        let turn = state.turn.as_ref();
        Self {
            messages: state.conversation.clone(),
            counted: state.counted,
            failed_attempts: turn.map_or(0, |turn| turn.failed_attempts),
            compactions: turn.map_or(0, |turn| turn.compactions),
        }
    }

    fn tokens(&self) -> u64 {
        compaction::tokens(&self.messages, self.counted)
    }
}

/// One attempt at an answer.
pub(super) async fn request(
    job: Job,
    turn: TurnId,
    step: u32,
    pause: Duration,
    conversation: Conversation,
) -> Option<Input> {
    let failed = |code, message| Some(Input::ModelFailed { turn, step, code, message, retry: None });
    let identity = &job.identity;
    let model = match job.services.models.get(&identity.model) {
        Ok(model) => model,
        Err(error) => return failed(ErrorCode::ModelFailed, error.to_string()),
    };
    let limits = model.limits();
    if let Some(reason) = overlong(&conversation, limits) {
        return Some(Input::ContextFull { turn, step, reason });
    }
    let messages = &conversation.messages;
    let request = context::request(messages, &identity.repository, &identity.branch, &identity.base_branch);
    let (pieces, received) = mpsc::channel::<String>(256);
    let forward = tokio::spawn(forward(received, job.clone(), turn, step));
    let asked = async {
        tokio::time::sleep(pause).await;
        model.respond(request, pieces).await
    };
    let answer = tokio::select! {
        answer = asked => answer,
        () = job.cancel.cancelled() => return failed(ErrorCode::ModelFailed, "the turn was cancelled".to_owned()),
    };
    // The sender is gone with the answer, so this ends; it keeps the last piece before the event that replaces it.
    let _ = forward.await;
    match answer {
        Ok(response) => Some(Input::ModelResponded { turn, step, answer: named(response) }),
        Err(error @ ModelError::ContextFull { .. }) => Some(Input::ContextFull { turn, step, reason: chain(&error) }),
        Err(error) => {
            let (retry, more) = again(&error, conversation.failed_attempts, limits);
            let message = format!("{}{more}", chain(&error));
            Some(Input::ModelFailed { turn, step, code: error.code(), message, retry })
        }
    }
}

/// Why a conversation is not even tried, where it would leave no room for an answer. Once in a row: after that the
/// provider's count decides, not our estimate.
fn overlong(conversation: &Conversation, limits: Limits) -> Option<String> {
    let tokens = conversation.tokens();
    if conversation.compactions > 0 || !compaction::is_too_long(tokens, limits) {
        return None;
    }
    if compaction::replaceable(&conversation.messages, tokens, limits, 0) == 0 {
        return None;
    }
    let context = limits.context_tokens.unwrap_or_default();
    Some(format!("the conversation has about {tokens} tokens, the model's context holds {context}"))
}

async fn forward(mut received: mpsc::Receiver<String>, job: Job, turn: TurnId, step: u32) {
    while let Some(text) = received.recv().await {
        // Nobody listening is no error: deltas are volatile.
        let _ = job.deltas.send(Delta::ModelText { turn, step, text });
    }
}

fn named(response: Response) -> Answer {
    let Response { text, calls, stop, usage, first_token_ms } = response;
    let calls = calls.into_iter().map(|(tool, arguments)| ToolCall { call: CallId::generate(), tool, arguments });
    Answer { text, calls: calls.collect(), first_token_ms, stop, usage }
}

/// Whether and when another attempt is worth it, and what to add to the error where the pause would be too long.
fn again(error: &ModelError, failed_before: u32, limits: Limits) -> (Option<Retry>, String) {
    let of = limits.max_attempts;
    let pause = match error.retry() {
        model::Retry::No => return (None, String::new()),
        model::Retry::After(pause) if pause > LONGEST_PAUSE => {
            let seconds = pause.as_secs();
            return (None, format!("; it wants to be asked again in {seconds} s, which is too long to wait for"));
        }
        model::Retry::After(pause) => pause,
        model::Retry::Soon => Duration::ZERO,
    };
    // At least our own pause, with some chance in it: many sessions meet the same limit at once.
    let mut backoff = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE / 2)
        .with_max_times(usize::MAX)
        .with_jitter()
        .build();
    let own = backoff.nth(usize::try_from(failed_before.min(16)).unwrap_or(16));
    let pause = pause.max(own.unwrap_or(LONGEST_PAUSE));
    (Some(Retry { of, after_ms: super::job::milliseconds(pause) }), String::new())
}

/// Replaces the beginning of a conversation by a summary.
pub(super) async fn compact(
    job: Job,
    turn: TurnId,
    step: u32,
    reason: String,
    times: u32,
    conversation: Conversation,
) -> Option<Input> {
    let failed = |message| Some(Input::ModelFailed { turn, step, code: ErrorCode::ModelFailed, message, retry: None });
    let model = match job.services.models.get(&job.identity.model) {
        Ok(model) => model,
        Err(error) => return failed(error.to_string()),
    };
    let (limits, tokens_before) = (model.limits(), conversation.tokens());
    let messages = &conversation.messages;
    let replaced = compaction::replaceable(messages, tokens_before, limits, times);
    if replaced == 0 {
        return failed(format!("{reason}; nothing of it can be left out"));
    }
    let summary = tokio::select! {
        summary = summarize(model.as_ref(), &messages[..replaced], limits) => summary,
        () = job.cancel.cancelled() => return failed("the turn was cancelled".to_owned()),
    };
    let (summary, by) = match summary {
        Ok(summary) => (summary, Summarizer::Model),
        Err(error) => {
            tracing::warn!(session = %job.session, error = %chain(&error), "the model could not summarize");
            (compaction::host_summary(&messages[..replaced]), Summarizer::Host)
        }
    };
    let tokens_after = compaction::tokens(&compaction::apply(messages, replaced, &summary), None);
    let compaction = Compaction { replaced, summary, by, reason, tokens_before, tokens_after };
    Some(Input::Compacted { turn, step, compaction })
}

async fn summarize(model: &dyn Model, replaced: &[Said], limits: Limits) -> Result<String, ModelError> {
    // Nobody watches the pieces of a summary.
    let (pieces, _) = mpsc::channel(1);
    let Response { text, .. } = model.respond(compaction::request(replaced, limits), pieces).await?;
    if text.trim().is_empty() {
        return Err(ModelError::Declined { reason: "it had nothing to say about the conversation".into() });
    }
    Ok(compaction::limited(text.trim(), compaction::MAX_SUMMARY))
}
