//! What happened in a session: the log that everyone sees.
//!
//! The log is append-only. A reader that knows an older version skips kinds it does not know
//! ([`EventBody::Unknown`]); a new field must have a default.

use serde::{Deserialize, Serialize};

pub use crate::egress::{EgressProtocol, EgressVerdict};
use crate::processes::ServiceState;
use crate::{CallId, DecisionId, PromptId, PullRequestId, SessionId, TurnId};

/// Version of the event shapes; stored with every session.
pub const EVENT_VERSION: u16 = 1;

/// One line of a session's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Position in the session, from 1 without gaps.
    pub seq: u64,
    /// Milliseconds since the Unix epoch, by the host's clock.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// A person, as git and pull requests name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Person {
    /// Full name, 1 to 200 characters on one line, without `<` and `>`.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 200,
            pattern = "^[^<>\\u0000-\\u001f\\u007f-\\u009f]*[^<>\\s\\u0000-\\u001f\\u007f-\\u009f][^<>\\u0000-\\u001f\\u007f-\\u009f]*$"
        )
    )]
    pub name: String,
    /// E-mail address, at most 254 characters.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 3,
            max_length = 254,
            pattern = "^[^@\\s<>\\u0000-\\u001f\\u007f-\\u009f]+@[^\\s<>\\u0000-\\u001f\\u007f-\\u009f]+$"
        )
    )]
    pub email: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    /// The session exists.
    SessionCreated {
        /// Which.
        session: SessionId,
        /// Repository on the forge.
        repository: String,
        /// Branch that the work starts from.
        base_branch: String,
        /// Commit that the work starts from, 40 hexadecimal digits.
        base_commit: String,
        /// Branch that the work goes to.
        branch: String,
        /// Who asked for it.
        author: Person,
        /// Model that works on it.
        model: String,
        /// Version of the event shapes.
        version: u16,
        /// The key of the request that made it, where it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestKey>,
    },
    /// A person asked the turn under way to stop.
    StopRequested,
    /// A person started a command in the background of the sandbox. (What the agent starts are its tool calls.)
    ProcessStarted {
        /// Name of the command.
        process: String,
        /// Its command line.
        command: String,
        /// Who asked.
        by: Person,
    },
    /// A command in the background of the sandbox ended by itself. (Of one that was stopped, whoever stopped it knows.)
    ProcessEnded {
        /// Name of the command.
        process: String,
        /// Which command of that name, in the sandbox's words.
        run: String,
        /// Exit status, 128 and the signal where one ended it.
        exit_status: i32,
        /// The last of what it wrote.
        output: String,
    },
    /// A service that the repository declares came into another state.
    ServiceChanged {
        /// Name of the service.
        service: String,
        /// The state.
        state: ServiceState,
        /// Why, where that does not go without saying.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// The last of what it wrote, where it ended by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// The decision that allowed its start, where it was started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision: Option<DecisionId>,
    },
    /// What the repository declares about services cannot be used; the workspace goes on without them.
    ServicesRefused {
        /// What is wrong, where, and what would be right.
        reason: String,
    },
    /// A person opened a terminal in the sandbox.
    TerminalOpened {
        /// Name of the terminal.
        terminal: String,
        /// Who asked.
        by: Person,
    },
    /// A port of the sandbox can be seen under an address of its own.
    PreviewOpened {
        /// Name of the preview.
        preview: String,
        /// The port.
        port: u16,
    },
    /// A prompt was accepted.
    PromptSubmitted {
        /// Which.
        prompt: PromptId,
        /// What was asked.
        text: String,
        /// Who asked.
        author: Person,
        /// The key of the request that brought it, where it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestKey>,
    },
    /// A sandbox is being made.
    WorkspaceRequested,
    /// The sandbox runs and holds the repository.
    WorkspaceReady {
        /// Time from request to ready, in milliseconds.
        took_ms: u64,
        /// Whether the files of an earlier sandbox of this session were found again.
        restored: bool,
    },
    /// There is no sandbox: it could not be made, or it ended.
    WorkspaceLost {
        /// Why.
        reason: String,
        /// What its guest did, where the host gave it up for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut_off: Option<CutOff>,
    },
    /// Work on a prompt began.
    TurnStarted {
        /// Which.
        turn: TurnId,
        /// For which prompt.
        prompt: PromptId,
    },
    /// A hook added something to the context.
    ContextAdded {
        /// Where it is from: a file of the repository or a plugin.
        source: String,
        /// What.
        text: String,
    },
    /// The model was asked.
    ModelRequested {
        /// In which turn.
        turn: TurnId,
        /// Number of the request in the turn, from 1.
        step: u32,
        /// Name of the model.
        model: String,
    },
    /// The model did not answer, and is asked again. What it had said so far does not count.
    ModelRetried {
        /// In which turn.
        turn: TurnId,
        /// To which request.
        step: u32,
        /// Number of the attempt that failed, from 1.
        attempt: u32,
        /// Attempts that are made in all.
        of: u32,
        /// Why it failed.
        reason: String,
        /// Pause before the next attempt, in milliseconds.
        after_ms: u64,
    },
    /// The model said something and may have asked for tools.
    ModelResponded {
        /// In which turn.
        turn: TurnId,
        /// To which request.
        step: u32,
        /// What it said.
        text: String,
        /// What it wants done, in order.
        calls: Vec<ToolCall>,
        /// Time to the first token, in milliseconds.
        first_token_ms: u64,
        /// Why it stopped.
        #[serde(default)]
        stop: ModelStop,
        /// Tokens, as far as the provider said.
        #[serde(default, skip_serializing_if = "Usage::is_unknown")]
        usage: Usage,
    },
    /// The conversation became too long for the model: its beginning was replaced by a summary of it.
    ContextCompacted {
        /// In which turn.
        turn: TurnId,
        /// Messages that were replaced, counted from the beginning of the conversation as it was.
        replaced: u64,
        /// What stands in their place.
        summary: String,
        /// Who wrote it.
        by: Summarizer,
        /// Why it was necessary.
        reason: String,
        /// Tokens of the conversation before, as far as they are known or can be estimated.
        tokens_before: u64,
        /// Tokens of the conversation after, estimated.
        tokens_after: u64,
    },
    /// The hooks decided about an effect.
    Decided {
        /// Name of the decision; the effect carries the same one.
        decision: DecisionId,
        /// The hook, such as `tool.execute.before`.
        hook: String,
        /// About which call, for tool hooks.
        call: Option<CallId>,
        /// What was decided.
        verdict: Verdict,
        /// Why, with the plugin that said it.
        reasons: Vec<Reason>,
        /// SHA-256 of the value that was decided about, canonical, after every rewrite.
        digest: String,
    },
    /// A tool began to run.
    ToolStarted {
        /// Which call.
        call: CallId,
        /// Its name.
        tool: String,
        /// What it really runs with, after the hooks.
        arguments: serde_json::Value,
        /// The decision that allowed it.
        decision: DecisionId,
    },
    /// A tool ended, or was never run.
    ToolFinished {
        /// Which call.
        call: CallId,
        /// How.
        outcome: ToolOutcome,
        /// What the model is told: all of it, or head and tail.
        output: String,
        /// The whole output where `output` is not all of it.
        blob: Option<Blob>,
        /// Exit status, for commands.
        exit_status: Option<i32>,
        /// Wall time, in milliseconds.
        took_ms: u64,
    },
    /// Work on a prompt ended.
    TurnFinished {
        /// Which.
        turn: TurnId,
        /// How.
        outcome: TurnOutcome,
    },
    /// The branch was pushed.
    BranchPushed {
        /// Its name.
        branch: String,
        /// Commit, 40 hexadecimal digits.
        commit: String,
    },
    /// A pull request is open.
    PullRequestOpened {
        /// Which.
        pull_request: PullRequestId,
        /// Its number in the repository.
        number: u64,
        /// Its title.
        title: String,
        /// Where it can be read.
        url: String,
        /// The decision that allowed it.
        decision: DecisionId,
    },
    /// A pull request that was open already has new commits.
    PullRequestUpdated {
        /// Which.
        pull_request: PullRequestId,
        /// Its number in the repository.
        number: u64,
        /// Commit that it now ends with, 40 hexadecimal digits.
        commit: String,
        /// Where it can be read.
        url: String,
        /// The decision that allowed it.
        decision: DecisionId,
    },
    /// There is nothing to publish, or publishing failed; the work is still in the workspace.
    PublishSkipped {
        /// Why.
        reason: String,
        /// What kind of failure kept it from being published; absent where there was nothing to publish.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<crate::ErrorCode>,
    },
    /// The sandbox wanted something of the network, and this was decided. The same decision again within half a minute is
    /// counted, and told once more with its number.
    EgressDecided {
        /// The host: a name, or an address where no name was given.
        host: String,
        /// Its port; absent for look-ups.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// What was spoken; absent where that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<EgressProtocol>,
        /// What was decided.
        verdict: EgressVerdict,
        /// The rule that allowed it, or why it came to nothing.
        why: String,
        /// How often, since it was told last.
        times: u64,
    },
    /// Connections of the sandbox to the outside that ended, and what passed since it was told last over those that go on. All
    /// of a session's together are what it has used of its budget.
    EgressTraffic {
        /// The host at their other end.
        host: String,
        /// Its port.
        port: u16,
        /// How many ended.
        connections: u64,
        /// Bytes from the sandbox.
        bytes_up: u64,
        /// Bytes to the sandbox.
        bytes_down: u64,
    },
    /// Something that people should know and that has no kind of its own.
    Notice {
        /// What.
        text: String,
    },
    /// A kind that this reader does not know.
    #[serde(other)]
    Unknown,
}

/// A tool call as the model asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolCall {
    /// Its identifier, given by the host.
    pub call: CallId,
    /// Name of the tool.
    pub tool: String,
    /// Arguments as the model gave them.
    pub arguments: serde_json::Value,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModelStop {
    /// It was done, or waits for its tools.
    #[default]
    Finished,
    /// It reached the limit on its output; no call of such an answer is run.
    OutputLimit,
}

/// Tokens of one request, as the provider counts them; absent where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Tokens of the request, those from the provider's cache included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Tokens of the request that came from the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_tokens: Option<u64>,
}

impl Usage {
    /// Whether the provider said nothing.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Who wrote a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Summarizer {
    /// The model.
    Model,
    /// The host, by listing what happened: the model could not.
    Host,
}

/// What the hooks decided, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nobody objected.
    Pass,
    /// It goes on with other arguments.
    Rewrite,
    /// A person must decide.
    Ask,
    /// Later.
    Defer,
    /// It must not happen.
    Deny,
    /// The whole turn must end.
    Halt,
}

/// Why a plugin said what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// Which plugin.
    pub plugin: String,
    /// In its words.
    pub text: String,
}

/// What the guest of a sandbox did that the host takes from nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CutOff {
    /// It sent what no guest of ours sends.
    BrokeProtocol,
    /// It did not answer in time, or did not end what it should have ended.
    Silent,
}

/// How a tool call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcome {
    /// It ran; a command may still have a non-zero exit status.
    Done,
    /// It could not be run, or its arguments were wrong.
    Failed,
    /// A hook denied it; it never ran.
    Denied,
    /// A person stopped it.
    Stopped,
    /// It ran out of time.
    TimedOut,
    /// It wrote too much and was ended.
    OutputLimit,
    /// The host or the sandbox went away meanwhile; whether it took effect is not known.
    Unknown,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The agent said that it is done.
    Done,
    /// A person stopped it.
    Stopped,
    /// A plugin halted it.
    Halted {
        /// Why.
        reason: String,
    },
    /// It failed.
    Failed {
        /// Kind of failure.
        code: crate::ErrorCode,
        /// What failed and why.
        message: String,
    },
    /// The host went away in the middle; the next prompt goes on from here.
    Interrupted,
}

/// The idempotency key of the request that an event answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RequestKey {
    /// The key, as the client chose it.
    pub key: String,
    /// `sha256:` and 64 hexadecimal digits over the request, to tell a repetition from another request.
    pub digest: String,
}

/// A large text kept apart from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Blob {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Whether even the blob is only the beginning (the output limit was reached).
    pub truncated: bool,
}

/// A piece of text on its way. Volatile: a client that misses it loses nothing, the event that follows
/// holds everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delta {
    /// The model is talking.
    ModelText {
        /// In which turn.
        turn: TurnId,
        /// To which request.
        step: u32,
        /// The next piece.
        text: String,
    },
    /// A tool is writing.
    ToolOutput {
        /// Which call.
        call: CallId,
        /// The next piece, lossily decoded.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_version_without_keys_is_read_and_written_as_it_was() {
        let old = r#"{"type":"prompt_submitted","prompt":"pro_01jd3kq4v5w6x7y8z9a0b1c2d3","text":"go","author":{"name":"A","email":"a@b"}}"#;
        let body: EventBody = serde_json::from_str(old).unwrap();
        assert!(matches!(body, EventBody::PromptSubmitted { request: None, .. }), "{body:?}");
        assert_eq!(serde_json::to_string(&body).unwrap(), old);
        let old = r#"{"type":"session_created","session":"ses_01jd3kq4v5w6x7y8z9a0b1c2d3","repository":"demo","base_branch":"main","base_commit":"0","branch":"ostler/x","author":{"name":"A","email":"a@b"},"model":"m","version":1}"#;
        let body: EventBody = serde_json::from_str(old).unwrap();
        assert!(matches!(body, EventBody::SessionCreated { request: None, .. }), "{body:?}");
        assert_eq!(serde_json::to_string(&body).unwrap(), old);
    }
}
