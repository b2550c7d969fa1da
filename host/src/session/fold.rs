//! The state as a fold over events: what a restarted host knows is what the log says.

use ostler_protocol::api::{PromptAccepted, REMEMBERED_KEYS};
use ostler_protocol::event::{EgressVerdict, ModelStop, RequestKey, ToolCall, TurnOutcome, Usage};
use ostler_protocol::{EventBody, PromptId};

use super::state::{Identity, Keyed, Prompt, Stage, State, Turn, Workspace};
use crate::agent::compaction;
use crate::agent::message::Message;
use crate::door::Bytes;

/// Longest title, in characters.
const TITLE_LENGTH: usize = 80;

impl State {
    /// Takes one event of the log.
    pub fn apply(&mut self, body: &EventBody) {
        self.seq += 1;
        self.beside.apply(body);
        match body {
            EventBody::SessionCreated { .. } => self.apply_created(body),
            EventBody::PromptSubmitted { prompt, text, author, request } => {
                self.remember(request.as_ref(), *prompt);
                if self.title.is_empty() {
                    self.title = title(text);
                }
                // The key has done its duty once it is remembered.
                let (text, author) = (text.clone(), author.clone());
                self.queue.push_back(Prompt { id: *prompt, text, author, request: None });
            }
            EventBody::TurnStarted { turn, prompt } => {
                let position = self.queue.iter().position(|queued| queued.id == *prompt);
                let Some(prompt) = position.and_then(|position| self.queue.remove(position)) else { return };
                self.failed = false;
                self.conversation.push(Message::User { text: prompt.text });
                let calls = std::collections::VecDeque::new();
                let (id, author, stage) = (*turn, prompt.author, Stage::Starting);
                let (step, failed_attempts, compactions, cut_answers) = (0, 0, 0, 0);
                let stopping = false;
                self.turn =
                    Some(Turn { id, author, step, failed_attempts, compactions, cut_answers, calls, stage, stopping });
            }
            EventBody::TurnFinished { turn, outcome } => {
                if let Some(finished) = self.turn.take() {
                    self.publishing = (*outcome == TurnOutcome::Done).then_some((*turn, finished.author));
                }
                self.failed = matches!(outcome, TurnOutcome::Failed { .. } | TurnOutcome::Halted { .. });
            }
            EventBody::StopRequested => self.with_turn(|turn| turn.stopping = true),
            EventBody::ContextAdded { source, text } => {
                self.conversation.push(Message::Context { source: source.clone(), text: text.clone() });
            }
            EventBody::ModelRequested { step, .. } => {
                self.context_loaded = true;
                self.with_turn(|turn| (turn.step, turn.stage) = (*step, Stage::Model));
            }
            EventBody::ModelRetried { attempt, .. } => self.with_turn(|turn| turn.failed_attempts = *attempt),
            EventBody::ModelResponded { text, calls, stop, usage, .. } => {
                self.apply_response(text, calls, *stop, *usage);
            }
            EventBody::ContextCompacted { replaced, summary, .. } => {
                let replaced = usize::try_from(*replaced).unwrap_or(usize::MAX);
                self.conversation = compaction::apply(&self.conversation, replaced, summary);
                self.counted = None;
                self.with_turn(|turn| turn.compactions += 1);
            }
            EventBody::ToolStarted { call, arguments, .. } => self.with_turn(|turn| {
                turn.stage = Stage::Running;
                // From here on the call is what the hooks made of it.
                if let Some(current) = turn.calls.front_mut().filter(|current| current.call == *call) {
                    current.arguments = arguments.clone();
                }
            }),
            EventBody::ToolFinished { call, outcome, output, exit_status, .. } => {
                self.conversation.push(Message::Tool {
                    call: *call,
                    outcome: *outcome,
                    output: output.clone(),
                    exit_status: *exit_status,
                });
                self.with_turn(|turn| {
                    turn.calls.retain(|open| open.call != *call);
                    turn.stage = Stage::Deciding;
                });
            }
            EventBody::WorkspaceRequested => self.workspace = Workspace::Starting,
            EventBody::WorkspaceReady { .. } => (self.workspace, self.had_workspace) = (Workspace::Ready, true),
            EventBody::WorkspaceLost { cut_off, .. } => {
                self.workspace = Workspace::None;
                self.sandboxes_cut_off += u64::from(cut_off.is_some());
            }
            EventBody::PullRequestOpened { pull_request, .. } | EventBody::PullRequestUpdated { pull_request, .. } => {
                self.pull_request = Some(*pull_request);
                self.published = self.pushed.clone();
                self.publishing = None;
            }
            EventBody::PublishSkipped { .. } => self.publishing = None,
            EventBody::BranchPushed { commit, .. } => self.pushed = Some(commit.clone()),
            EventBody::EgressDecided { verdict: EgressVerdict::Allowed, .. } => self.network.passages += 1,
            EventBody::EgressDecided { .. } => self.network.refusals += 1,
            EventBody::EgressTraffic { bytes_up, bytes_down, .. } => {
                self.network.passages += 1;
                let Bytes { up, down } = &mut self.network.passed;
                (*up, *down) = (up.saturating_add(*bytes_up), down.saturating_add(*bytes_down));
            }
            EventBody::Decided { .. } | EventBody::Notice { .. } | EventBody::Unknown => {}
            EventBody::ProcessStarted { .. }
            | EventBody::ProcessEnded { .. }
            | EventBody::ServiceChanged { .. }
            | EventBody::ServicesRefused { .. }
            | EventBody::TerminalOpened { .. }
            | EventBody::PreviewOpened { .. } => {}
        }
    }

    fn apply_created(&mut self, body: &EventBody) {
        let EventBody::SessionCreated {
            session,
            repository,
            base_branch,
            base_commit,
            branch,
            author,
            model,
            request,
            ..
        } = body
        else {
            return;
        };
        self.session = Some(Identity {
            id: *session,
            repository: repository.clone(),
            base_branch: base_branch.clone(),
            base_commit: base_commit.clone(),
            branch: branch.clone(),
            author: author.clone(),
            model: model.clone(),
            request: request.clone(),
        });
    }

    /// Keeps the answer to a keyed prompt, and only so many of them.
    fn remember(&mut self, request: Option<&RequestKey>, prompt: PromptId) {
        let Some(request) = request.cloned() else { return };
        if self.keyed.len() == REMEMBERED_KEYS {
            self.keyed.pop_front();
        }
        self.keyed.push_back(Keyed { request, accepted: PromptAccepted { prompt, seq: self.seq } });
    }

    /// What a request with this key was answered, where the session still knows it.
    pub fn keyed(&self, key: &str) -> Option<&Keyed> {
        self.keyed.iter().rev().find(|keyed| keyed.request.key == key)
    }

    fn apply_response(&mut self, text: &str, calls: &[ToolCall], stop: ModelStop, usage: Usage) {
        self.conversation.push(Message::Assistant { text: text.to_owned(), calls: calls.to_vec() });
        if let Some(input) = usage.input_tokens {
            self.counted = Some((self.conversation.len(), input.saturating_add(usage.output_tokens.unwrap_or(0))));
        }
        self.with_turn(|turn| {
            (turn.failed_attempts, turn.compactions) = (0, 0);
            turn.cut_answers = if stop == ModelStop::OutputLimit { turn.cut_answers + 1 } else { 0 };
            turn.calls = calls.iter().cloned().collect();
            turn.stage = Stage::Deciding;
        });
    }

    fn with_turn(&mut self, change: impl FnOnce(&mut Turn)) {
        if let Some(turn) = &mut self.turn {
            change(turn);
        }
    }
}

/// Marks that turn the direction of text around.
fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn title(prompt: &str) -> String {
    // It becomes a commit message and the title of a pull request: nothing in it may steer a terminal.
    let plain: String = prompt.chars().filter(|c| *c == '\n' || !(c.is_control() || is_bidirectional(*c))).collect();
    let line = plain.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("Work");
    if line.chars().count() <= TITLE_LENGTH {
        return line.to_owned();
    }
    let cut: String = line.chars().take(TITLE_LENGTH - 1).collect();
    format!("{}…", cut.trim_end())
}
