//! What the task of one act holds, and how it reports.

use std::sync::Arc;
use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_protocol::{CallId, Delta, EventBody, SessionId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::mailbox::{Death, Message};
use super::services::Services;
use super::state::{Fragment, Identity, Input};
use crate::door::Account;
use crate::forge::NameError;
use crate::plugins::{Decision, Generation, Scope};
use crate::workspace::{Purpose, Workspace, chain};

/// What a task of one act holds.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) session: SessionId,
    pub(super) services: Arc<Services>,
    pub(super) identity: Identity,
    pub(super) author: Person,
    pub(super) generation: Generation,
    pub(super) cancel: CancellationToken,
    pub(super) workspace: Option<Arc<Workspace>>,
    /// Whether the session ever had a workspace, so that its files hold work.
    pub(super) had_workspace: bool,
    /// What the session has used of the network.
    pub(super) account: Arc<Account>,
    pub(super) deltas: broadcast::Sender<Delta>,
    pub(super) mailbox: mpsc::Sender<Message>,
}

impl Job {
    /// Where the work is done and for whom, as the hooks see it.
    pub(super) fn scope(&self) -> Scope {
        Scope {
            session: self.session,
            ancestors: Vec::new(),
            repository: self.identity.repository.clone(),
            base_branch: self.identity.base_branch.clone(),
            branch: self.identity.branch.clone(),
            author: self.author.clone(),
        }
    }

    /// Reports to the actor; it may be gone, and then nobody waits for the report.
    pub(super) async fn report(&self, input: Input) {
        let _ = self.mailbox.send(Message::Input(input)).await;
    }

    /// The sandbox is of no use any more, as was `seen` from here: ends what may be left of it, keeps the files, and tells the
    /// actor, so that the next tool gets a new one. Gives why it had ended by itself, where it had.
    pub(super) async fn give_up_sandbox(&self, seen: String) -> Option<String> {
        let instance = self.workspace.as_ref()?.instance();
        let died = self.services.workspaces.end(self.session).await.unwrap_or_else(|error| {
            tracing::error!(session = %self.session, error = %chain(&error), "a broken sandbox could not be ended");
            None
        });
        let why = died.clone().unwrap_or(seen);
        let _ = self.mailbox.send(Message::Died(Death { instance, why })).await;
        died
    }

    /// Appends an event and waits until it is durable; `false` when the actor is gone.
    pub(super) async fn note(&self, body: EventBody) -> bool {
        let (durable, noted) = oneshot::channel();
        self.mailbox.send(Message::Note { body, durable }).await.is_ok() && matches!(noted.await, Ok(Ok(())))
    }
}

/// What the workspace of a session is for.
pub(super) fn purpose(identity: &Identity, account: Arc<Account>) -> Result<Purpose, NameError> {
    Ok(Purpose {
        session: identity.id,
        account,
        repository: identity.repository.parse()?,
        base_branch: identity.base_branch.clone(),
        base_commit: identity.base_commit.clone(),
        branch: identity.branch.clone(),
    })
}

pub(super) fn fragment(fragment: crate::plugins::Fragment) -> Fragment {
    Fragment { source: fragment.source, text: fragment.text }
}

/// The event of a decision.
pub(super) fn decided<T>(decision: &Decision<T>, call: Option<CallId>) -> EventBody {
    EventBody::Decided {
        decision: decision.id,
        hook: decision.hook.to_owned(),
        call,
        verdict: decision.verdict,
        reasons: decision.reasons.clone(),
        digest: decision.digest.clone(),
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
