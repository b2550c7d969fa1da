//! How far is a session? A pure fold over its events: how a prompt ended, and whether anything is left to do.

use ostler_protocol::event::TurnOutcome;
use ostler_protocol::{ErrorCode, EventBody, PromptId, SessionId, TurnId};

use super::{CliError, exit};

/// How a prompt ended, publishing included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A pull request is open or has the new commits.
    Published {
        /// Where it can be read.
        url: String,
    },
    /// Done, and there was nothing to publish.
    NothingToPublish,
    /// Done, and publishing failed.
    NotPublished {
        /// Kind of failure.
        code: ErrorCode,
        /// Why.
        reason: String,
    },
    /// The turn failed.
    Failed {
        /// Kind of failure.
        code: ErrorCode,
        /// Why.
        message: String,
    },
    /// A plugin halted the turn.
    Halted {
        /// Why.
        reason: String,
    },
    /// A person stopped the turn.
    Stopped,
    /// The host went away in the middle of the turn.
    Interrupted,
}

/// What is under way in a session.
#[derive(Debug, Default)]
pub struct Progress {
    waiting: Vec<PromptId>,
    turn: Option<(TurnId, PromptId)>,
    publishing: Option<PromptId>,
    last: Option<(PromptId, Ending)>,
}

impl Progress {
    /// Takes in the next event; gives the prompt that ended with it.
    pub fn note(&mut self, body: &EventBody) -> Option<&(PromptId, Ending)> {
        let ended = match body {
            EventBody::PromptSubmitted { prompt, .. } => {
                self.waiting.push(*prompt);
                return None;
            }
            EventBody::TurnStarted { turn, prompt } => {
                self.waiting.retain(|waiting| waiting != prompt);
                self.turn = Some((*turn, *prompt));
                return None;
            }
            EventBody::TurnFinished { turn, outcome } => self.turn_finished(*turn, outcome)?,
            EventBody::PullRequestOpened { url, .. } | EventBody::PullRequestUpdated { url, .. } => {
                (self.publishing.take()?, Ending::Published { url: url.clone() })
            }
            EventBody::PublishSkipped { failure: None, .. } => (self.publishing.take()?, Ending::NothingToPublish),
            EventBody::PublishSkipped { failure: Some(code), reason } => {
                (self.publishing.take()?, Ending::NotPublished { code: *code, reason: reason.clone() })
            }
            _ => return None,
        };
        self.last = Some(ended);
        self.last.as_ref()
    }

    fn turn_finished(&mut self, turn: TurnId, outcome: &TurnOutcome) -> Option<(PromptId, Ending)> {
        let (_, prompt) = self.turn.take_if(|(current, _)| *current == turn)?;
        let ending = match outcome {
            TurnOutcome::Done => {
                self.publishing = Some(prompt);
                return None;
            }
            TurnOutcome::Stopped => Ending::Stopped,
            TurnOutcome::Halted { reason } => Ending::Halted { reason: reason.clone() },
            TurnOutcome::Failed { code, message } => Ending::Failed { code: *code, message: message.clone() },
            TurnOutcome::Interrupted => Ending::Interrupted,
        };
        Some((prompt, ending))
    }

    /// Whether nothing is left to do.
    pub fn idle(&self) -> bool {
        self.waiting.is_empty() && self.turn.is_none() && self.publishing.is_none()
    }

    /// Whether a turn is done and its work is being published.
    pub fn publishing(&self) -> bool {
        self.publishing.is_some()
    }

    /// How the last prompt ended that has ended.
    pub fn last(&self) -> Option<&Ending> {
        self.last.as_ref().map(|(_, ending)| ending)
    }
}

impl Ending {
    /// The exit of a command that waited for this.
    pub fn result(&self, session: SessionId) -> Result<(), CliError> {
        let (message, exit) = match self {
            Self::Published { .. } | Self::NothingToPublish => return Ok(()),
            Self::NotPublished { code, reason } => (format!("the work was not published: {reason}"), code.exit_code()),
            Self::Failed { code, message } => (format!("the turn failed: {message}"), code.exit_code()),
            Self::Halted { reason } => (format!("a policy halted the turn: {reason}"), exit::REFUSED),
            Self::Stopped => ("the turn was stopped".to_owned(), exit::AGENT),
            Self::Interrupted => ("the host went away in the middle of the turn".to_owned(), exit::HOST),
        };
        Err(CliError::Turn { message, exit, session })
    }
}

#[cfg(test)]
mod tests {
    use ostler_protocol::event::Person;

    use super::*;

    fn submitted(prompt: PromptId) -> EventBody {
        let author = Person { name: "Ada".into(), email: "ada@example.org".into() };
        EventBody::PromptSubmitted { prompt, text: "go".into(), author, request: None }
    }

    fn exit_of(outcome: TurnOutcome) -> u8 {
        let (turn, prompt) = (TurnId::generate(), PromptId::generate());
        let mut progress = Progress::default();
        progress.note(&submitted(prompt));
        progress.note(&EventBody::TurnStarted { turn, prompt });
        progress.note(&EventBody::TurnFinished { turn, outcome });
        progress.last().unwrap().result(SessionId::generate()).unwrap_err().exit_code()
    }

    #[test]
    fn a_prompt_ends_when_its_work_is_published() {
        let (turn, prompt, next) = (TurnId::generate(), PromptId::generate(), PromptId::generate());
        let mut progress = Progress::default();
        assert!(progress.idle());
        for body in [submitted(prompt), submitted(next), EventBody::TurnStarted { turn, prompt }] {
            assert_eq!(progress.note(&body), None);
            assert!(!progress.idle());
        }
        assert_eq!(progress.note(&EventBody::TurnFinished { turn, outcome: TurnOutcome::Done }), None);
        assert!(progress.publishing() && !progress.idle());
        let skipped = EventBody::PublishSkipped { reason: "no change".into(), failure: None };
        assert_eq!(progress.note(&skipped), Some(&(prompt, Ending::NothingToPublish)));
        assert!(!progress.idle(), "the next prompt waits");
        let turn = TurnId::generate();
        progress.note(&EventBody::TurnStarted { turn, prompt: next });
        let ended = progress.note(&EventBody::TurnFinished { turn, outcome: TurnOutcome::Stopped });
        assert_eq!(ended, Some(&(next, Ending::Stopped)));
        assert!(progress.idle());
    }

    #[test]
    fn every_bad_ending_has_its_exit_code() {
        let failed = |code| TurnOutcome::Failed { code, message: "…".into() };
        assert_eq!(exit_of(failed(ErrorCode::ModelFailed)), 7);
        assert_eq!(exit_of(failed(ErrorCode::SandboxFailed)), 6);
        assert_eq!(exit_of(TurnOutcome::Halted { reason: "…".into() }), 5);
        assert_eq!(exit_of(TurnOutcome::Stopped), 7);
        assert_eq!(exit_of(TurnOutcome::Interrupted), 6);
        let refused = Ending::NotPublished { code: ErrorCode::Denied, reason: "…".into() };
        assert_eq!(refused.result(SessionId::generate()).unwrap_err().exit_code(), 5);
    }

    #[test]
    fn events_of_other_turns_end_nothing() {
        let mut progress = Progress::default();
        progress.note(&EventBody::TurnStarted { turn: TurnId::generate(), prompt: PromptId::generate() });
        let other = EventBody::TurnFinished { turn: TurnId::generate(), outcome: TurnOutcome::Done };
        assert_eq!(progress.note(&other), None);
        assert!(!progress.idle() && !progress.publishing());
    }
}
