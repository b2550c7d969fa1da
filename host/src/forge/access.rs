//! Who may do what through git: a value, never a part of an address.

use async_trait::async_trait;
use ostler_protocol::SessionId;

use super::RepositoryName;
use super::push::{PushRequest, RefUpdate};

/// What the clients of one git router may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything, on every repository: a holder of the API token. Whoever mounts the router checks the token.
    Full,
    /// What a sandbox may do behind its door: read one repository and write one branch of it. Other repositories look
    /// as if they did not exist.
    Session {
        /// The session.
        session: SessionId,
        /// Its repository.
        repository: RepositoryName,
        /// Short name of the branch that its work starts from; a push to it is told of pull requests.
        base_branch: String,
        /// Short name of the one branch that it may create, move and force.
        push_branch: String,
    },
}

/// A reference that a push changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The repository.
    pub repository: RepositoryName,
    /// The session that pushed; `None` for a holder of the API token.
    pub session: Option<SessionId>,
    /// Full name of the reference, such as `refs/heads/main`.
    pub reference: String,
    /// What it points at now: 40 lowercase hexadecimal digits; `None` where it was deleted.
    pub commit: Option<String>,
}

/// Told of every reference that a push changed, after it is on the disk and before the client hears that all is done.
#[async_trait]
pub trait PushObserver: Send + Sync + 'static {
    /// Called once for each changed reference. It has 10 s; a slower observer is given up on and the push stays.
    async fn pushed(&self, push: Pushed);
}

/// Sends on a channel. An observer that is gone is no error.
#[async_trait]
impl PushObserver for tokio::sync::mpsc::Sender<Pushed> {
    async fn pushed(&self, push: Pushed) {
        let _ = self.send(push).await;
    }
}

impl Access {
    /// Whether a repository exists for these clients.
    pub(super) fn sees(&self, name: &RepositoryName) -> bool {
        match self {
            Self::Full => true,
            Self::Session { repository, .. } => repository == name,
        }
    }

    /// The session, where there is one.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Full => None,
            Self::Session { session, .. } => Some(*session),
        }
    }

    /// Why a push must not reach git: one reason for each of its updates, in order. `None` lets it through.
    ///
    /// A push is taken whole or not at all, so that no part of a refused one ever has an effect.
    pub(super) fn refusals(&self, push: &PushRequest) -> Option<Vec<String>> {
        let Self::Session { base_branch, push_branch, .. } = self else { return None };
        let only = format!("refs/heads/{push_branch}");
        let base = format!("refs/heads/{base_branch}");
        let reason = |update: &RefUpdate| {
            if update.is_delete() {
                return Some(format!("this session may not delete references; it may push only to {only}"));
            }
            if update.reference == base && update.reference != only {
                return Some(format!("changes reach `{base_branch}` by pull request; push to {only} instead"));
            }
            (update.reference != only).then(|| format!("this session may push only to {only}"))
        };
        let mut reasons: Vec<_> = push.updates.iter().map(reason).collect();
        if let Some(capability) = push.capabilities.iter().find(|name| forbidden(name)) {
            let name = capability.split('=').next().unwrap_or_default();
            reasons = reasons.into_iter().map(|_| Some(format!("this session may not use `{name}`"))).collect();
        } else if push.updates.len() > 1 && reasons.iter().all(Option::is_none) {
            reasons = reasons.into_iter().map(|_| Some("the same reference was named twice".to_owned())).collect();
        }
        if reasons.iter().all(Option::is_none) {
            return None;
        }
        let other = "nothing was updated, because another reference of this push is refused";
        Some(reasons.into_iter().map(|reason| reason.unwrap_or_else(|| other.to_owned())).collect())
    }
}

/// Capabilities that make git read more than commands and a pack.
fn forbidden(capability: &str) -> bool {
    ["push-options", "push-cert"].contains(&capability.split('=').next().unwrap_or_default())
}
