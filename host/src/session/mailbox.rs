//! What an actor is told, and how it is reached.

use std::sync::Arc;

use ostler_protocol::api::{PromptAccepted, SessionView};
use ostler_protocol::{Delta, EventBody};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::error::SessionError;
use super::state::{Input, Prompt};
use crate::agent::tools::Lost;
use crate::workspace::Workspace;

/// What an actor is told.
pub(super) enum Message {
    /// A person asks.
    Submit { prompt: Prompt, reply: Reply<PromptAccepted> },
    /// A person wants the turn to stop; answered when it has.
    Stop { reply: Reply<SessionView> },
    /// Something that an act brought about.
    Input(Input),
    /// An act brought a workspace.
    Workspace { workspace: Arc<Workspace>, took_ms: u64, restored: bool, cloned: Option<String> },
    /// An event without consequences, such as a step of publishing; answered when it is durable.
    Note { body: EventBody, durable: Reply<()> },
    /// What clients see.
    View { reply: Reply<SessionView> },
    /// The living workspace, if there is one.
    Borrow { reply: Reply<Option<Arc<Workspace>>> },
    /// A sandbox ended by itself.
    Died(Death),
    /// It is time to look whether the log can be written again.
    Wake,
    /// The host stops: leave the session as it is, for the next start to go on.
    Quit,
}

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, SessionError>>;

/// The end of a sandbox that nobody asked for.
pub(super) struct Death {
    /// Which start of the sandbox, see [`Workspace::instance`].
    pub(super) instance: u64,
    /// Why.
    pub(super) lost: Lost,
}

/// How to reach an actor.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) mailbox: mpsc::Sender<Message>,
    pub(super) head: watch::Receiver<u64>,
    pub(super) deltas: broadcast::Sender<Delta>,
}
