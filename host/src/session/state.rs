//! What the machine knows and is told, and what it answers: types only.

use std::collections::VecDeque;

use ostler_protocol::api::PromptAccepted;
use ostler_protocol::event::{
    Blob, CutOff, ModelStop, Person, Reason, RequestKey, Summarizer, ToolCall, ToolOutcome, Usage, Verdict,
};
use ostler_protocol::{CallId, DecisionId, ErrorCode, EventBody, PromptId, PullRequestId, SessionId, TurnId};

use super::beside::Beside;
use crate::agent::message::Message;
use crate::door::Bytes;

/// Everything known of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What it is about; `None` before its first event.
    pub session: Option<Identity>,
    /// What the model is told, in order.
    pub conversation: Vec<Message>,
    /// How many messages of the conversation the provider counted last, and how many tokens that were.
    pub counted: Option<(usize, u64)>,
    /// Prompts that wait, oldest first.
    pub queue: VecDeque<Prompt>,
    /// The turn under way.
    pub turn: Option<Turn>,
    /// The turn whose work is being published.
    pub publishing: Option<(TurnId, Person)>,
    /// What is known of the sandbox.
    pub workspace: Workspace,
    /// What runs beside the agent.
    pub beside: Beside,
    /// Whether tools wait for the services of the sandbox. The log does not know it: who supervises them says so.
    pub holds_for_services: bool,
    /// Whether the context of the session (hooks, repository) is in the conversation.
    pub context_loaded: bool,
    /// First line of the first prompt.
    pub title: String,
    /// Its pull request.
    pub pull_request: Option<PullRequestId>,
    /// Commit that was pushed last.
    pub pushed: Option<String>,
    /// Commit that the pull request ends with.
    pub published: Option<String>,
    /// Whether the last turn failed.
    pub failed: bool,
    /// Whether there ever was a workspace: its files then hold work that a clone must not touch.
    pub had_workspace: bool,
    /// Sandboxes whose guest broke the protocol or did not answer.
    pub sandboxes_cut_off: u64,
    /// Sequence number of the last event.
    pub seq: u64,
    /// The last prompts that came with a key, oldest first.
    pub keyed: VecDeque<Keyed>,
    /// What its sandboxes did on the network, all together.
    pub network: Network,
}

/// What the log says of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Events about what was refused or failed.
    pub refusals: usize,
    /// Those about what was allowed and what passed.
    pub passages: usize,
    /// Bytes that passed.
    pub passed: Bytes,
}

/// What a session is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Which.
    pub id: SessionId,
    /// Repository on the forge.
    pub repository: String,
    /// Branch that the work starts from.
    pub base_branch: String,
    /// Commit that the work starts from.
    pub base_commit: String,
    /// Branch that the work goes to.
    pub branch: String,
    /// Who asked for it.
    pub author: Person,
    /// Model that works on it.
    pub model: String,
    /// The key of the request that made it.
    pub request: Option<RequestKey>,
}

/// A request that came with a key, and what it was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyed {
    /// The request.
    pub request: RequestKey,
    /// The answer.
    pub accepted: PromptAccepted,
}

/// A prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Which.
    pub id: PromptId,
    /// What is asked.
    pub text: String,
    /// Who asks.
    pub author: Person,
    /// The key of the request that brought it.
    pub request: Option<RequestKey>,
}

/// A turn under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Which.
    pub id: TurnId,
    /// Who asked; commits are theirs.
    pub author: Person,
    /// Number of the last model request, 0 before the first.
    pub step: u32,
    /// Attempts at the model's next answer that failed in a row.
    pub failed_attempts: u32,
    /// Times in a row that the conversation was compacted without an answer since.
    pub compactions: u32,
    /// Answers in a row that reached the limit on their output.
    pub cut_answers: u32,
    /// Calls that have no result yet, in order; the first is the current one.
    pub calls: VecDeque<ToolCall>,
    /// Where it is.
    pub stage: Stage,
    /// Whether a person asked to stop.
    pub stopping: bool,
}

/// Where a turn is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// The context is being loaded.
    Starting,
    /// The model is being asked.
    Model,
    /// The conversation is being summarized. The log does not know it: after a restart the model is asked again.
    Compacting,
    /// The hooks are deciding about the first call.
    Deciding,
    /// The first call is allowed and waits for the sandbox.
    Waiting {
        /// What it will run with.
        arguments: serde_json::Value,
        /// The decision that allowed it.
        decision: DecisionId,
    },
    /// The first call runs.
    Running,
}

/// What is known of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workspace {
    /// There is none.
    #[default]
    None,
    /// It is being made.
    Starting,
    /// It is there.
    Ready,
}

/// What the hooks decided about a call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDecision {
    /// Name of the decision.
    pub id: DecisionId,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What the call runs with.
    pub arguments: serde_json::Value,
    /// SHA-256 of the canonical arguments.
    pub digest: String,
    /// What the hooks want the model to know.
    pub context: Vec<Fragment>,
}

/// A piece of context and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// A file or a plugin.
    pub source: String,
    /// What it says.
    pub text: String,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    /// How.
    pub outcome: ToolOutcome,
    /// What the model is told.
    pub output: String,
    /// The whole output where `output` is not all of it.
    pub blob: Option<Blob>,
    /// Exit status, for commands.
    pub exit_status: Option<i32>,
    /// Wall time, in milliseconds.
    pub took_ms: u64,
    /// What the hooks decided about the result, where there were any.
    pub decided: Option<EventBody>,
    /// What the hooks want the model to know.
    pub context: Vec<Fragment>,
}

impl ToolResult {
    /// A result of a call that did not run.
    pub fn not_run(outcome: ToolOutcome, output: impl Into<String>) -> Self {
        let output = output.into();
        Self { outcome, output, blob: None, exit_status: None, took_ms: 0, decided: None, context: Vec::new() }
    }
}

/// What the model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// What it wants done, in order.
    pub calls: Vec<ToolCall>,
    /// Time to the first token, in milliseconds.
    pub first_token_ms: u64,
    /// Why it stopped.
    pub stop: ModelStop,
    /// Tokens, as far as the provider said.
    pub usage: Usage,
}

/// How a model that did not answer is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts that are made in all.
    pub of: u32,
    /// Pause before the next one, in milliseconds.
    pub after_ms: u64,
}

/// What takes the place of the beginning of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// Messages that it replaces.
    pub replaced: usize,
    /// The summary.
    pub summary: String,
    /// Who wrote it.
    pub by: Summarizer,
    /// Why it was necessary.
    pub reason: String,
    /// Tokens before, known or estimated.
    pub tokens_before: u64,
    /// Tokens after, estimated.
    pub tokens_after: u64,
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A person asks.
    Prompt(Prompt),
    /// A person wants the turn to stop.
    Stop,
    /// The context was loaded.
    ContextLoaded { turn: TurnId, decided: Option<EventBody>, fragments: Vec<Fragment> },
    /// The model answered.
    ModelResponded { turn: TurnId, step: u32, answer: Answer },
    /// The model did not answer.
    ModelFailed { turn: TurnId, step: u32, code: ErrorCode, message: String, retry: Option<Retry> },
    /// The conversation is too long for the model.
    ContextFull { turn: TurnId, step: u32, reason: String },
    /// The beginning of the conversation was summarized.
    Compacted { turn: TurnId, step: u32, compaction: Compaction },
    /// The hooks decided about a call.
    ToolDecided { turn: TurnId, call: CallId, decision: ToolDecision },
    /// A call ended.
    ToolFinished { turn: TurnId, call: CallId, result: ToolResult },
    /// The sandbox is there.
    WorkspaceReady { took_ms: u64, restored: bool, cloned: Option<String> },
    /// The services of the sandbox are looked after from now on.
    ServicesBegun,
    /// Each service is ready, or will not be soon.
    ServicesSettled,
    /// The sandbox could not be made, or it is gone.
    WorkspaceLost { code: ErrorCode, reason: String, cut_off: Option<CutOff> },
    /// Publishing ended; the events tell how.
    Published { turn: TurnId, events: Vec<EventBody> },
    /// The host restarted; `workspace` says whether the sandbox outlived it.
    Recovered { workspace: Workspace },
}

/// What to do after the events are durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Make a sandbox with the repository in it.
    StartWorkspace,
    /// Load the context of the session.
    LoadContext { turn: TurnId },
    /// Ask the model, after a pause.
    RequestModel { turn: TurnId, step: u32, after_ms: u64 },
    /// Summarize the beginning of the conversation.
    Compact { turn: TurnId, step: u32, reason: String, times: u32 },
    /// Ask the hooks about a call.
    DecideTool { turn: TurnId, call: ToolCall },
    /// Run a call.
    RunTool { turn: TurnId, call: CallId, tool: String, arguments: serde_json::Value },
    /// Find out what became of a call that ran when the host went away.
    AdoptTool { turn: TurnId, call: ToolCall },
    /// Cancel what the turn is doing.
    Cancel,
    /// Commit, push and open a pull request.
    Publish { turn: TurnId, author: Person },
}

/// What follows from an input: events to append as one batch, then acts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Events, in order.
    pub append: Vec<EventBody>,
    /// Acts, in order, after the events are durable.
    pub acts: Vec<Act>,
}
