//! Bodies of the HTTP API under `/v1`.

use serde::{Deserialize, Serialize};

use crate::event::{Event, Person};
use crate::{PromptId, PullRequestId, SessionId};

/// Longest prompt, in bytes.
pub const MAX_PROMPT: usize = 256 * 1024;

/// Longest name of a repository, in characters.
pub const MAX_REPOSITORY: usize = 100;

/// Longest name of a branch, in characters.
pub const MAX_BRANCH: usize = 200;

/// Longest name of a model, in characters.
pub const MAX_MODEL: usize = 200;

/// Largest page of a list.
pub const MAX_PAGE: usize = 200;

/// Page of a list where none is named.
pub const DEFAULT_PAGE: usize = 50;

/// Largest page of events, and the one that is sent where none is named.
pub const MAX_EVENTS: usize = 500;

/// Longest idempotency key, in characters.
pub const MAX_IDEMPOTENCY_KEY: usize = 128;

/// Keys of prompts that a session remembers, the last ones.
pub const REMEMBERED_KEYS: usize = 128;

/// What a session is to be about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Repository on the forge, such as `demo`.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::openapi::RepositoryName))]
    pub repository: String,
    /// Branch to start from, a name that git accepts; the repository's default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 200,
            pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
        )
    )]
    pub branch: Option<String>,
    /// Who asks: author of the commits and of the pull request.
    pub author: Person,
    /// Model, such as `scripted/demo`; the host's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 200,
            pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"
        )
    )]
    pub model: Option<String>,
}

/// What an agent is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitPrompt {
    /// What to do: 1 to 262144 bytes of UTF-8 that are not only blanks.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 262144, pattern = "^[^\\u0000]*[^\\u0000\\s][^\\u0000]*$")
    )]
    pub text: String,
    /// Who asks; the session's author when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Person>,
}

/// A prompt that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromptAccepted {
    /// Which.
    pub prompt: PromptId,
    /// Sequence number of its event; it is durable.
    pub seq: u64,
}

/// A session as lists and `GET /v1/sessions/{session}` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// Which.
    pub id: SessionId,
    /// Repository on the forge.
    pub repository: String,
    /// Branch that the work starts from.
    pub base_branch: String,
    /// Branch that the work goes to.
    pub branch: String,
    /// Who asked for it.
    pub author: Person,
    /// What it is doing.
    pub status: SessionStatus,
    /// Model.
    pub model: String,
    /// First line of its first prompt, empty before.
    pub title: String,
    /// Sequence number of its last event.
    pub head_seq: u64,
    /// Its pull request, once open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestId>,
    /// How many of its sandboxes were given up because their guest broke the protocol or did not answer.
    #[serde(default)]
    pub sandboxes_cut_off: u64,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Waiting for a prompt.
    Idle,
    /// A turn is under way.
    Working,
    /// The last turn failed; a prompt goes on.
    Failed,
}

/// A page of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionList {
    /// Newest first.
    pub sessions: Vec<SessionView>,
    /// Where the next page begins, to be sent as `cursor`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullRequestView {
    /// Which.
    pub id: PullRequestId,
    /// Number in its repository, from 1.
    pub number: u64,
    /// Repository.
    pub repository: String,
    /// Title.
    pub title: String,
    /// Description.
    pub body: String,
    /// Branch that it wants to be merged into.
    pub base: String,
    /// Branch that it wants merged.
    pub head: String,
    /// Commit of `head` when it was opened or last pushed.
    pub head_commit: String,
    /// Person it is opened as.
    pub author: Person,
    /// Session that made it.
    pub session: SessionId,
    /// State.
    pub state: PullRequestState,
    /// Where it can be read.
    pub url: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// State of a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PullRequestState {
    /// Waiting for review.
    Open,
    /// Merged.
    Merged,
    /// Closed without a merge.
    Closed,
}

/// A page of pull requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullRequestList {
    /// Newest first.
    pub pull_requests: Vec<PullRequestView>,
    /// Where the next page begins, to be sent as `cursor`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A difference, as git shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Diff {
    /// Unified diff of the workspace (or of the pushed branch where there is no workspace) against the base
    /// commit.
    pub diff: String,
    /// Where it was read.
    pub source: DiffSource,
    /// Whether the diff was cut at the limit.
    pub truncated: bool,
}

/// Where a diff was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiffSource {
    /// The living workspace, with changes that are not committed.
    Workspace,
    /// The pushed branch.
    Branch,
}

/// A repository of the built-in forge. It is filled by a git push to `clone_url` with the API token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RepositoryView {
    /// Its name: 1 to 100 characters of `[a-z0-9._-]`, beginning with a letter or digit.
    pub name: String,
    /// Branch that a session starts from by default.
    pub default_branch: String,
    /// Smart-HTTP address on this host.
    pub clone_url: String,
}

/// A page of repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RepositoryList {
    /// By name.
    pub repositories: Vec<RepositoryView>,
    /// Where the next page begins, to be sent as `cursor`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A pull request with its difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullRequestDetail {
    /// The pull request; its fields stand beside `diff`.
    #[serde(flatten)]
    pub pull_request: PullRequestView,
    /// Its branch against its base.
    pub diff: Diff,
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// The next events in order; empty at the end of the log.
    pub events: Vec<Event>,
    /// Sequence number of the session's last event when the page was read.
    pub head_seq: u64,
}

/// Data of the `caught_up` marker in a stream of events: everything durable when the stream began was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CaughtUp {
    /// Sequence number of the last event that was sent.
    pub seq: u64,
}

/// The plugins of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginList {
    /// Those that take part, in the order in which the host was given them.
    pub plugins: Vec<PluginView>,
    /// Those that could not be loaded and that the host does without, because they say that they are not required.
    pub refused: Vec<RefusedPlugin>,
}

/// A plugin that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginView {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// `sha256:` and the digest of its component.
    pub digest: String,
    /// Where it takes part.
    pub hooks: Vec<PluginHook>,
}

/// A part that a plugin takes in a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginHook {
    /// Name of the hook, such as `tool.execute.before`.
    pub hook: String,
    /// `mutate` or `validate`.
    pub phase: String,
    /// Higher comes first in the mutate phase.
    pub priority: i32,
    /// What it means when the plugin fails: `skip`, `hold` or `closed`.
    pub failure: String,
}

/// A plugin that could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedPlugin {
    /// Which, and what is wrong with it.
    pub reason: String,
}

/// The host answers and knows its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Always `ok`; a host that cannot work answers with an error instead.
    pub status: String,
    /// Version of the host.
    pub version: String,
    /// Default model.
    pub model: String,
    /// Name of the environment's image.
    pub image: String,
    /// Loaded plugins, by id.
    pub plugins: Vec<String>,
}
