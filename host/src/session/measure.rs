//! What is counted of a session, from its durable events and nothing else: what nobody will ever see is not counted.
//!
//! Owns when the turn and the question to the model under way began. After a restart of the host that is not known, and their
//! time is not measured; the counts are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ostler_protocol::event::{Summarizer, ToolOutcome, TurnOutcome, Usage, Verdict};
use ostler_protocol::{CallId, EventBody};

use crate::agent::tools;
use crate::telemetry::{label, metrics, seconds};

/// When what is under way began.
pub(super) struct Measure {
    /// The host's default model: the only name that becomes a label, because clients may ask for any.
    known: Option<String>,
    turn: Option<Instant>,
    model: Option<(Instant, String)>,
    /// Tools of the calls that have no result yet.
    calls: HashMap<CallId, String>,
}

impl Measure {
    pub(super) fn new(known: Option<&str>) -> Self {
        Self { known: known.map(str::to_owned), turn: None, model: None, calls: HashMap::new() }
    }

    /// Takes an event that is durable now.
    pub(super) fn note(&mut self, body: &EventBody) {
        let metrics = metrics();
        match body {
            EventBody::PromptSubmitted { .. } => metrics.prompts.add(1, &[]),
            EventBody::TurnStarted { .. } => {
                self.turn = Some(Instant::now());
                metrics.turns_active.add(1, &[]);
            }
            EventBody::TurnFinished { outcome, .. } => self.turn_finished(outcome),
            EventBody::ModelRequested { model, .. } => self.model = Some((Instant::now(), model.clone())),
            EventBody::ModelRetried { .. } => {
                let provider = self.model_ended(Some("retried"));
                metrics.model_retries.add(1, &[label("gen_ai.provider.name", provider)]);
            }
            EventBody::ModelResponded { first_token_ms, usage, calls, .. } => {
                self.calls.extend(calls.iter().map(|call| (call.call, call.tool.clone())));
                self.responded(*first_token_ms, *usage);
            }
            EventBody::ToolFinished { call, outcome, took_ms, .. } => self.tool_finished(*call, *outcome, *took_ms),
            EventBody::ContextCompacted { by, .. } => {
                let by = if *by == Summarizer::Model { "model" } else { "host" };
                metrics.compactions.add(1, &[label("by", by)]);
            }
            EventBody::Decided { hook, verdict, .. } => {
                let labels = [label("hook", hook.clone()), label("verdict", verdict_word(*verdict))];
                metrics.decisions.add(1, &labels);
            }
            EventBody::WorkspaceReady { took_ms, .. } => {
                metrics.workspaces.add(1, &[label("outcome", "ready")]);
                metrics.workspace_duration.record(seconds(Duration::from_millis(*took_ms)), &[]);
            }
            EventBody::WorkspaceLost { cut_off, .. } => {
                let outcome = if cut_off.is_some() { "cut_off" } else { "lost" };
                metrics.workspaces.add(1, &[label("outcome", outcome)]);
            }
            EventBody::PullRequestOpened { .. } => published("opened"),
            EventBody::PullRequestUpdated { .. } => published("updated"),
            EventBody::PublishSkipped { failure: None, .. } => published("nothing"),
            EventBody::PublishSkipped { failure: Some(_), .. } => published("failed"),
            _ => {}
        }
    }

    fn tool_finished(&mut self, call: CallId, outcome: ToolOutcome, took_ms: u64) {
        let tool = self.calls.remove(&call).unwrap_or_default();
        // A model may ask for tools that there are not: their names are its own.
        let known = tools::definitions().into_iter().find(|known| known.name == tool);
        let tool = label("tool", known.map_or("unknown", |known| known.name));
        metrics().tools.add(1, &[tool.clone(), label("outcome", outcome_word(outcome))]);
        metrics().tool_duration.record(seconds(Duration::from_millis(took_ms)), &[tool]);
    }

    fn turn_finished(&mut self, outcome: &TurnOutcome) {
        let word = match outcome {
            TurnOutcome::Done => "done",
            TurnOutcome::Stopped => "stopped",
            TurnOutcome::Halted { .. } => "halted",
            TurnOutcome::Failed { .. } => "failed",
            TurnOutcome::Interrupted => "interrupted",
        };
        if self.model.is_some() {
            self.model_ended(Some(word));
        }
        metrics().turns.add(1, &[label("outcome", word)]);
        if let Some(began) = self.turn.take() {
            metrics().turns_active.add(-1, &[]);
            metrics().turn_duration.record(seconds(began.elapsed()), &[label("outcome", word)]);
        }
    }

    fn responded(&mut self, first_token_ms: u64, usage: Usage) {
        let Some((_, model)) = &self.model else { return };
        let (provider, model) = self.labels_of(model);
        let labels = [label("gen_ai.provider.name", provider), label("gen_ai.request.model", model)];
        metrics().model_first_token.record(seconds(Duration::from_millis(first_token_ms)), &labels);
        for (kind, tokens) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            if let Some(tokens) = tokens {
                let labels = [labels[0].clone(), labels[1].clone(), label("gen_ai.token.type", kind)];
                metrics().model_tokens.record(tokens, &labels);
            }
        }
        self.model_ended(None);
    }

    /// Measures the question under way and returns its provider.
    fn model_ended(&mut self, error: Option<&'static str>) -> String {
        let Some((began, model)) = self.model.take() else { return "unknown".to_owned() };
        let (provider, model) = self.labels_of(&model);
        let mut labels = vec![label("gen_ai.provider.name", provider.clone()), label("gen_ai.request.model", model)];
        labels.extend(error.map(|error| label("error.type", error)));
        metrics().model_duration.record(seconds(began.elapsed()), &labels);
        provider
    }

    /// Provider and name of a model, as labels.
    fn labels_of(&self, model: &str) -> (String, String) {
        let (provider, name) = model.split_once('/').unwrap_or(("unknown", model));
        let name = if self.known.as_deref() == Some(model) { name } else { "other" };
        (provider.to_owned(), name.to_owned())
    }
}

impl Drop for Measure {
    /// A session that is forgotten has no turn under way any more, whatever its log says.
    fn drop(&mut self) {
        if self.turn.is_some() {
            metrics().turns_active.add(-1, &[]);
        }
    }
}

fn published(outcome: &'static str) {
    metrics().pull_requests.add(1, &[label("outcome", outcome)]);
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Rewrite => "rewrite",
        Verdict::Ask => "ask",
        Verdict::Defer => "defer",
        Verdict::Deny => "deny",
        Verdict::Halt => "halt",
    }
}

fn outcome_word(outcome: ToolOutcome) -> &'static str {
    match outcome {
        ToolOutcome::Done => "done",
        ToolOutcome::Failed => "failed",
        ToolOutcome::Denied => "denied",
        ToolOutcome::Stopped => "stopped",
        ToolOutcome::TimedOut => "timed_out",
        ToolOutcome::OutputLimit => "output_limit",
        ToolOutcome::Unknown => "unknown",
    }
}
