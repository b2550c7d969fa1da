//! What the task of one act holds, and how it reports.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_protocol::{CallId, Delta, EventBody, SessionId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::mailbox::{Death, Message};
use super::services::Services;
use super::state::{Fragment, Identity, Input};
use crate::agent::tools::Lost;
use crate::door::Account;
use crate::forge::NameError;
use crate::plugins::{Decision, Generation, Scope};
use crate::workspace::{Purpose, Workspace};

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
    pub(super) async fn give_up_sandbox(&self, seen: Lost) -> Option<String> {
        give_up(self.workspace.as_ref()?, seen, &self.services, &self.mailbox).await
    }

    /// Appends an event and waits until it is durable; `false` when the actor is gone.
    pub(super) async fn note(&self, body: EventBody) -> bool {
        let (durable, noted) = oneshot::channel();
        self.mailbox.send(Message::Note { body, durable }).await.is_ok() && matches!(noted.await, Ok(Ok(())))
    }
}

/// Watches a workspace that nobody may be using: a guest that breaks the protocol meanwhile costs it its sandbox at once.
pub(super) async fn watch(workspace: Weak<Workspace>, services: Arc<Services>, mailbox: mpsc::Sender<Message>) {
    let Some(broken) = workspace.upgrade().map(|workspace| workspace.wait_until_broken()) else { return };
    let Some(seen) = broken.await else { return };
    if let Some(workspace) = workspace.upgrade() {
        give_up(&workspace, seen, &services, &mailbox).await;
    }
}

async fn give_up(
    workspace: &Workspace,
    seen: Lost,
    services: &Services,
    mailbox: &mpsc::Sender<Message>,
) -> Option<String> {
    let instance = workspace.instance();
    let died = services.workspaces.give_up(workspace).await;
    if seen.cut_off.is_some() {
        let (session, died) = (workspace.session(), died.as_deref());
        tracing::warn!(%session, why = seen.why, died, "a sandbox was cut off for what its guest did");
    }
    // That a limit ended it is the better reason, but one that lied is marked whatever ended it.
    let why = died.clone().unwrap_or(seen.why);
    let _ = mailbox.send(Message::Died(Death { instance, lost: Lost { why, cut_off: seen.cut_off } })).await;
    died
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
