//! The pure core of a session: `(State, Input) -> Step`. No I/O, no clock, no randomness, no async.
//!
//! ```text
//!             Prompt                      ModelResponded(calls)
//!   Idle ───────────────► Starting ─► Model ───────────────► Deciding ─► Waiting ─► Running
//!    ▲                                  ▲  │ no calls           │ denied    (workspace)  │
//!    │                                  └──┼────────────────────┴────────────────────────┘
//!    │                                     ▼                     next call, or next model request
//!    └───────────────── Publishing ◄── turn finished (done)
//! ```
//!
//! What happens between a question to the model and its answer is in [`super::asking`].
//!
//! A step says what to append; the actor makes that durable, then performs the acts. Everything that must
//! survive a crash is a fold over events ([`State::apply`]); what is not (which act is under way) is found again by
//! [`Input::Recovered`].

use ostler_protocol::api::SessionStatus;
use ostler_protocol::event::{CutOff, Reason, ToolCall, ToolOutcome, TurnOutcome, Verdict};
use ostler_protocol::{CallId, ErrorCode, EventBody, PromptId, TurnId};

use super::state::{Act, Fragment, Input, Prompt, Stage, State, Step, ToolDecision, ToolResult, Turn, Workspace};
use crate::agent::message::Message;

/// Prompts that may wait behind the turn under way.
pub const MAX_QUEUE: usize = 32;

impl State {
    /// What clients see.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        match (&self.turn, &self.publishing, self.failed) {
            (Some(_), _, _) | (None, Some(_), _) => SessionStatus::Working,
            (None, None, true) => SessionStatus::Failed,
            (None, None, false) => SessionStatus::Idle,
        }
    }

    /// Takes an input: changes the state and says what must be appended and done.
    pub fn step(&mut self, input: Input) -> Step {
        let mut step = Step::default();
        match input {
            Input::Prompt(prompt) => self.on_prompt(&mut step, prompt),
            Input::Stop => self.on_stop(&mut step),
            Input::ContextLoaded { turn, decided, fragments } => self.on_context(&mut step, turn, decided, fragments),
            Input::ModelResponded { .. }
            | Input::ModelFailed { .. }
            | Input::ContextFull { .. }
            | Input::Compacted { .. } => self.on_model(&mut step, input),
            Input::ToolDecided { turn, call, decision } => self.on_decided(&mut step, turn, call, decision),
            Input::ToolFinished { turn, call, result } => self.on_tool_finished(&mut step, turn, call, result),
            Input::WorkspaceReady { took_ms, restored, cloned } => {
                let lost = self.had_workspace && !restored;
                self.emit(&mut step, EventBody::WorkspaceReady { took_ms, restored });
                if lost {
                    self.tell_of_loss(&mut step, cloned);
                }
                self.start_waiting_call(&mut step);
                self.publish(&mut step);
            }
            Input::WorkspaceLost { code, reason, cut_off } => self.on_workspace_lost(&mut step, code, reason, cut_off),
            Input::ServicesBegun => self.holds_for_services = true,
            Input::ServicesSettled => {
                self.holds_for_services = false;
                self.start_waiting_call(&mut step);
            }
            Input::Published { turn, events } => {
                if self.publishing.as_ref().is_some_and(|(publishing, _)| *publishing == turn) {
                    for event in events {
                        self.emit(&mut step, event);
                    }
                    self.publishing = None;
                    self.start_next_turn(&mut step);
                }
            }
            Input::Recovered { workspace } => self.on_recovered(&mut step, workspace),
        }
        step
    }

    pub(super) fn emit(&mut self, step: &mut Step, body: EventBody) {
        self.apply(&body);
        step.append.push(body);
    }

    pub(super) fn is_at(&self, turn: TurnId, stage: &Stage) -> bool {
        self.turn.as_ref().is_some_and(|current| current.id == turn && current.stage == *stage && !current.stopping)
    }

    fn on_prompt(&mut self, step: &mut Step, prompt: Prompt) {
        let Prompt { id, text, author, request } = prompt;
        self.emit(step, EventBody::PromptSubmitted { prompt: id, text, author, request });
        if self.turn.is_none() && self.publishing.is_none() {
            self.start_next_turn(step);
        }
    }

    fn start_next_turn(&mut self, step: &mut Step) {
        let Some(prompt) = self.queue.front().map(|prompt| prompt.id) else { return };
        let turn = turn_of(prompt);
        self.emit(step, EventBody::TurnStarted { turn, prompt });
        self.want_workspace(step);
        if self.context_loaded {
            self.ask_model(step, 0);
        } else {
            step.acts.push(Act::LoadContext { turn });
        }
    }

    fn want_workspace(&mut self, step: &mut Step) {
        if self.workspace == Workspace::None {
            self.emit(step, EventBody::WorkspaceRequested);
            step.acts.push(Act::StartWorkspace);
        }
    }

    fn on_context(&mut self, step: &mut Step, turn: TurnId, decided: Option<EventBody>, fragments: Vec<Fragment>) {
        if !self.is_at(turn, &Stage::Starting) {
            return;
        }
        if let Some(decided) = decided {
            self.emit(step, decided);
        }
        for fragment in fragments {
            self.emit(step, EventBody::ContextAdded { source: fragment.source, text: fragment.text });
        }
        self.context_loaded = true;
        self.ask_model(step, 0);
    }

    /// After a model's answer or a call's end: the next call, the next model request, or the end.
    pub(super) fn go_on(&mut self, step: &mut Step) {
        let Some(turn) = &self.turn else { return };
        if turn.stopping {
            return self.finish_turn(step, TurnOutcome::Stopped);
        }
        match turn.calls.front() {
            Some(call) => {
                step.acts.push(Act::DecideTool { turn: turn.id, call: call.clone() });
            }
            None if matches!(self.conversation.last(), Some(Message::Assistant { .. })) => {
                self.finish_turn(step, TurnOutcome::Done);
            }
            None => self.ask_model(step, 0),
        }
    }

    fn on_decided(&mut self, step: &mut Step, turn: TurnId, call: CallId, decision: ToolDecision) {
        if !self.is_at(turn, &Stage::Deciding) || self.current_call() != Some(call) {
            return;
        }
        let ToolDecision { id, verdict, reasons, arguments, digest, context } = decision;
        let refusal = refusal(&reasons);
        self.emit(
            step,
            EventBody::Decided {
                decision: id,
                hook: "tool.execute.before".into(),
                call: Some(call),
                verdict,
                reasons,
                digest,
            },
        );
        for fragment in context {
            self.emit(step, EventBody::ContextAdded { source: fragment.source, text: fragment.text });
        }
        match verdict {
            Verdict::Pass | Verdict::Rewrite => {
                if let Some(turn) = &mut self.turn {
                    turn.stage = Stage::Waiting { arguments, decision: id };
                }
                self.want_workspace(step);
                self.start_waiting_call(step);
            }
            Verdict::Halt => {
                self.end_call(step, call, ToolResult::not_run(ToolOutcome::Denied, refusal.clone()));
                self.finish_turn(step, TurnOutcome::Halted { reason: refusal });
            }
            Verdict::Ask | Verdict::Defer | Verdict::Deny => {
                self.end_call(step, call, ToolResult::not_run(ToolOutcome::Denied, refusal));
                self.go_on(step);
            }
        }
    }

    fn start_waiting_call(&mut self, step: &mut Step) {
        if self.workspace != Workspace::Ready || self.holds_for_services {
            return;
        }
        let Some(turn) = &self.turn else { return };
        let Stage::Waiting { arguments, decision } = turn.stage.clone() else { return };
        let Some(ToolCall { call, tool, .. }) = turn.calls.front().cloned() else { return };
        let id = turn.id;
        self.emit(step, EventBody::ToolStarted { call, tool: tool.clone(), arguments: arguments.clone(), decision });
        step.acts.push(Act::RunTool { turn: id, call, tool, arguments });
    }

    fn on_tool_finished(&mut self, step: &mut Step, turn: TurnId, call: CallId, result: ToolResult) {
        let current = self.turn.as_ref().is_some_and(|current| current.id == turn);
        if !current || self.current_call() != Some(call) {
            return;
        }
        self.end_call(step, call, result);
        self.go_on(step);
    }

    fn end_call(&mut self, step: &mut Step, call: CallId, result: ToolResult) {
        let ToolResult { outcome, output, blob, exit_status, took_ms, decided, context } = result;
        if let Some(decided) = decided {
            self.emit(step, decided);
        }
        self.emit(step, EventBody::ToolFinished { call, outcome, output, blob, exit_status, took_ms });
        for fragment in context {
            self.emit(step, EventBody::ContextAdded { source: fragment.source, text: fragment.text });
        }
    }

    fn on_stop(&mut self, step: &mut Step) {
        let Some(turn) = &self.turn else { return };
        if turn.stopping {
            // What runs may have been taken up by another host since: say it again.
            step.acts.push(Act::Cancel);
            return;
        }
        let running = turn.stage == Stage::Running;
        self.emit(step, EventBody::StopRequested);
        step.acts.push(Act::Cancel);
        // A running tool is ended by its own act, which reports what it left behind.
        if !running {
            self.finish_turn(step, TurnOutcome::Stopped);
        }
    }

    fn on_workspace_lost(&mut self, step: &mut Step, code: ErrorCode, reason: String, cut_off: Option<CutOff>) {
        if self.workspace == Workspace::None {
            return;
        }
        let starting = self.workspace == Workspace::Starting;
        self.emit(step, EventBody::WorkspaceLost { reason: reason.clone(), cut_off });
        // A sandbox that cannot be made ends the turn; one that died under a running tool is reported by the tool.
        if starting && self.turn.is_some() {
            step.acts.push(Act::Cancel);
            let message = format!("the workspace could not be made: {reason}");
            self.finish_turn(step, TurnOutcome::Failed { code, message });
        } else if starting && self.publishing.is_some() {
            let reason = format!("the workspace could not be made: {reason}; its files are kept");
            self.emit(step, EventBody::PublishSkipped { reason, failure: Some(code) });
            self.start_next_turn(step);
        }
    }

    /// The files of the session are not those of before: people and the model must know.
    fn tell_of_loss(&mut self, step: &mut Step, cloned: Option<String>) {
        let place = if self.pushed.is_some() { "the end of the session's branch" } else { "where the session began" };
        let from = cloned.map(|commit| format!(" ({commit})")).unwrap_or_default();
        let text = format!(
            "the workspace's earlier files were not found: it begins again at {place}{from}; what was not pushed is lost"
        );
        self.emit(step, EventBody::Notice { text: text.clone() });
        self.emit(step, EventBody::ContextAdded { source: "ostler".into(), text });
    }

    pub(super) fn finish_turn(&mut self, step: &mut Step, outcome: TurnOutcome) {
        let Some(turn) = &self.turn else { return };
        let id = turn.id;
        let open: Vec<CallId> = turn.calls.iter().map(|call| call.call).collect();
        for call in open {
            self.end_call(step, call, ToolResult::not_run(ToolOutcome::Stopped, "not run: the turn ended before it"));
        }
        let done = outcome == TurnOutcome::Done;
        self.emit(step, EventBody::TurnFinished { turn: id, outcome });
        if done && self.had_workspace {
            return self.publish(step);
        }
        if done {
            // No tool can have run.
            self.emit(step, EventBody::PublishSkipped { reason: "nothing was changed".into(), failure: None });
        }
        self.start_next_turn(step);
    }

    /// Publishes what waits for it, from the workspace, which is made again where it is gone: its files were kept.
    fn publish(&mut self, step: &mut Step) {
        if self.turn.is_some() {
            return;
        }
        let Some((turn, author)) = self.publishing.clone() else { return };
        if self.workspace == Workspace::Ready {
            step.acts.push(Act::Publish { turn, author });
        } else {
            self.want_workspace(step);
        }
    }

    fn on_recovered(&mut self, step: &mut Step, workspace: Workspace) {
        if self.workspace != Workspace::None && workspace == Workspace::None {
            self.emit(step, EventBody::WorkspaceLost { reason: "it did not outlive the host".into(), cut_off: None });
        } else {
            self.workspace = workspace;
        }
        if self.publishing.is_some() {
            return self.publish(step);
        }
        let Some(turn) = self.turn.clone() else { return self.start_next_turn(step) };
        if turn.stopping {
            if turn.stage == Stage::Running {
                self.adopt(step, &turn);
                step.acts.push(Act::Cancel);
            } else {
                self.finish_turn(step, TurnOutcome::Stopped);
            }
            return;
        }
        match turn.stage {
            Stage::Starting => {
                self.want_workspace(step);
                step.acts.push(Act::LoadContext { turn: turn.id });
            }
            Stage::Model | Stage::Compacting => {
                self.want_workspace(step);
                step.acts.push(Act::RequestModel { turn: turn.id, step: turn.step, after_ms: 0 });
            }
            Stage::Deciding | Stage::Waiting { .. } => {
                self.want_workspace(step);
                if let Some(current) = &mut self.turn {
                    current.stage = Stage::Deciding;
                }
                self.go_on(step);
            }
            Stage::Running => self.adopt(step, &turn),
        }
    }

    fn adopt(&mut self, step: &mut Step, turn: &Turn) {
        let Some(open) = turn.calls.front().cloned() else { return };
        let call = open.call;
        if self.workspace == Workspace::Ready {
            step.acts.push(Act::AdoptTool { turn: turn.id, call: open });
        } else {
            let text = "the host and the sandbox went away while this ran; whether it took effect is not known";
            self.end_call(step, call, ToolResult::not_run(ToolOutcome::Unknown, text));
            self.go_on(step);
        }
    }

    fn current_call(&self) -> Option<CallId> {
        self.turn.as_ref()?.calls.front().map(|call| call.call)
    }
}

/// A turn has the number of its prompt: nothing needs to be drawn by chance in here.
fn turn_of(prompt: PromptId) -> TurnId {
    TurnId::from_ulid(prompt.ulid())
}

fn refusal(reasons: &[Reason]) -> String {
    let reasons: Vec<String> = reasons.iter().map(|reason| format!("{} ({})", reason.text, reason.plugin)).collect();
    if reasons.is_empty() { "denied".into() } else { format!("denied: {}", reasons.join("; ")) }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
