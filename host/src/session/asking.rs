//! The part of the machine between a question to the model and its answer. As pure as the rest of it.
//!
//! ```text
//!            ┌── failed, worth another try: pause ──┐
//!            ▼                                      │
//!   ask ─► Model ─┬─ answered ─► calls, or the end ─┤
//!            ▲    └─ context full ─► Compacting ────┘
//!            └── answer cut at its limit: says so ──┘
//! ```
//!
//! Each way around is limited: attempts, summaries and cut answers in a row, requests in a turn.

use ostler_protocol::event::{ModelStop, TurnOutcome};
use ostler_protocol::{ErrorCode, EventBody, TurnId};

use super::beside;
use super::state::{Act, Answer, Compaction, Input, Retry, Stage, State, Step};

/// Model requests in one turn before it is ended as failed.
pub const MAX_STEPS: u32 = 200;

/// Times in a row that a conversation is compacted before its turn is ended as failed.
const MAX_COMPACTIONS: u32 = 3;

/// Answers in a row that may reach the limit on their output before the turn is ended as failed.
const MAX_CUT_ANSWERS: u32 = 3;

impl State {
    /// Takes what the model, or the one who summarizes for it, reports.
    pub(super) fn on_model(&mut self, step: &mut Step, input: Input) {
        match input {
            Input::ModelResponded { turn, step: number, answer } if self.is_asking(turn, number, &Stage::Model) => {
                self.on_answer(step, turn, number, answer);
            }
            Input::ModelFailed { turn, step: number, code, message, retry }
                if self.is_asking(turn, number, &Stage::Model) || self.is_asking(turn, number, &Stage::Compacting) =>
            {
                self.on_model_failed(step, code, message, retry);
            }
            Input::ContextFull { turn, step: number, reason } if self.is_asking(turn, number, &Stage::Model) => {
                self.on_context_full(step, turn, number, reason);
            }
            Input::Compacted { turn, step: number, compaction } if self.is_asking(turn, number, &Stage::Compacting) => {
                self.emit(step, compacted(turn, compaction));
                self.ask_model(step, 0);
            }
            // A late report, of a question that nobody asks any more.
            _ => {}
        }
    }

    fn is_asking(&self, turn: TurnId, number: u32, stage: &Stage) -> bool {
        self.is_at(turn, stage) && self.turn.as_ref().is_some_and(|turn| turn.step == number)
    }

    pub(super) fn ask_model(&mut self, step: &mut Step, after_ms: u64) {
        let Some(turn) = &self.turn else { return };
        let (id, number) = (turn.id, turn.step + 1);
        if number > MAX_STEPS {
            let message = format!("the agent asked the model {MAX_STEPS} times in one turn without an end");
            return self.finish_turn(step, TurnOutcome::Failed { code: ErrorCode::ModelFailed, message });
        }
        if let Some(text) = self.beside.news() {
            self.emit(step, EventBody::ContextAdded { source: beside::SOURCE.into(), text });
        }
        let model = self.session.as_ref().map(|session| session.model.clone()).unwrap_or_default();
        self.emit(step, EventBody::ModelRequested { turn: id, step: number, model });
        step.acts.push(Act::RequestModel { turn: id, step: number, after_ms });
    }

    fn on_answer(&mut self, step: &mut Step, turn: TurnId, number: u32, answer: Answer) {
        let Answer { text, calls, first_token_ms, stop, usage } = answer;
        self.emit(step, EventBody::ModelResponded { turn, step: number, text, calls, first_token_ms, stop, usage });
        if stop != ModelStop::OutputLimit {
            return self.go_on(step);
        }
        let times = self.turn.as_ref().map_or(0, |turn| turn.cut_answers);
        if times >= MAX_CUT_ANSWERS {
            let message = format!("{times} answers of the model in a row reached the limit on their length");
            return self.finish_turn(step, TurnOutcome::Failed { code: ErrorCode::ModelFailed, message });
        }
        let text = "Your last answer reached the limit on its length and broke off; no tool of it was run. Go on where it \
                    broke off, in smaller pieces.";
        self.emit(step, EventBody::ContextAdded { source: "ostler".into(), text: text.into() });
        self.ask_model(step, 0);
    }

    fn on_model_failed(&mut self, step: &mut Step, code: ErrorCode, message: String, retry: Option<Retry>) {
        let Some(turn) = &self.turn else { return };
        let attempt = turn.failed_attempts + 1;
        match retry {
            Some(Retry { of, after_ms }) if attempt < of => {
                let (turn, number) = (turn.id, turn.step);
                let retried = EventBody::ModelRetried { turn, step: number, attempt, of, reason: message, after_ms };
                self.emit(step, retried);
                self.ask_model(step, after_ms);
            }
            _ => {
                let message = if attempt > 1 { format!("{message} (attempt {attempt})") } else { message };
                self.finish_turn(step, TurnOutcome::Failed { code, message });
            }
        }
    }

    fn on_context_full(&mut self, step: &mut Step, turn: TurnId, number: u32, reason: String) {
        let Some(current) = &mut self.turn else { return };
        let times = current.compactions;
        if times >= MAX_COMPACTIONS {
            let message = format!("{reason}; it was compacted {times} times in a row and still does not fit");
            return self.finish_turn(step, TurnOutcome::Failed { code: ErrorCode::ModelFailed, message });
        }
        current.stage = Stage::Compacting;
        step.acts.push(Act::Compact { turn, step: number, reason, times });
    }
}

fn compacted(turn: TurnId, compaction: Compaction) -> EventBody {
    let Compaction { replaced, summary, by, reason, tokens_before, tokens_after } = compaction;
    let replaced = u64::try_from(replaced).unwrap_or(u64::MAX);
    EventBody::ContextCompacted { turn, replaced, summary, by, reason, tokens_before, tokens_after }
}

#[cfg(test)]
#[path = "asking_tests.rs"]
mod tests;
