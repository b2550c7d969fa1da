//! Sessions: the one way in which anything else reads or changes one.
//!
//! ```text
//!  api ──Sessions──► actor (one task per session, the only writer)
//!                      │  state.step(input) -> Step                machine.rs, fold.rs: pure
//!                      │  append, then answer, then act            actor.rs
//!                      ▼
//!                    effects.rs: workspace, model, tools, publish ──Input──► back to the actor
//! ```
//!
//! Owns the life of sessions. Does not know HTTP, SQL or WIT.

mod actor;
mod asking;
mod beside;
mod effects;
mod egress;
mod error;
mod fold;
mod job;
mod keys;
mod log;
mod machine;
mod mailbox;
mod measure;
mod model_calls;
mod processes;
mod publish;
mod registry;
mod services;
mod state;
mod supervision;
mod tool_calls;

use std::sync::Arc;

use ostler_protocol::api::{
    CreateSession, Diff, DiffSource, PromptAccepted, PullRequestView, SessionStatus, SessionView, SubmitPrompt,
};
use ostler_protocol::{Delta, ErrorCode, Event, PullRequestId, SessionId};
use tokio::sync::{broadcast, watch};

use self::error::{forge_error, name_error, store_error, unknown};
use self::mailbox::{Death, Message};
use self::registry::Registry;
use ostler_sandbox::client::Died;

use crate::agent::tools::Lost;
use crate::forge::RepositoryName;
use crate::workspace::chain;

pub use crate::store::SessionFilter;
pub use error::SessionError;
pub use machine::MAX_QUEUE;
pub use services::{Clock, Services};

/// Most of a diff that is sent, in bytes.
const MAX_DIFF: usize = 4 * 1024 * 1024;

/// Every session of this host. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    registry: Arc<Registry>,
}

/// What a reader of a session's events holds: read with [`Sessions::events`] up to `head`, wait for `head` to grow,
/// show `deltas` in between.
pub struct Subscription {
    /// Sequence number of the last durable event; changes when there are more. Closed when the host stops.
    pub head: watch::Receiver<u64>,
    /// Volatile pieces of text; a slow reader loses some and that is no error.
    pub deltas: broadcast::Receiver<Delta>,
}

impl Sessions {
    /// Sessions over `services`.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { registry: Arc::new(Registry::new(services)) }
    }

    /// After a start: brings the index up to date with the logs, goes on with turns that an earlier host left, and ends
    /// sandboxes that belong to nobody. Then follows the news of the launcher in the background.
    pub async fn recover(&self) -> Result<(), SessionError> {
        let services = &self.registry.services;
        let deaths = services.workspaces.deaths();
        let ids = services.logs.all().await.map_err(store_error)?;
        for &session in &ids {
            // One session that cannot be read must not keep the others from starting.
            let folded = match log::fold(services, session).await {
                Ok(Some(folded)) => folded,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%session, error = %chain(&error), "the session cannot be read");
                    continue;
                }
            };
            let working = folded.state.status() == SessionStatus::Working || !folded.state.queue.is_empty();
            let (created, updated) = (folded.created_at_ms, folded.updated_at_ms);
            let view = log::view(session, &folded.state, folded.head, created, updated);
            services.index.put_session(view).await.map_err(store_error)?;
            if let Some(request) = folded.state.session.as_ref().and_then(|identity| identity.request.clone()) {
                services.index.put_key(request, session).await.map_err(store_error)?;
            }
            if working && let Err(error) = self.registry.handle(session).await {
                tracing::error!(%session, error = %chain(&error), "the session cannot go on");
            }
        }
        let known = |sandbox: &str| ids.iter().any(|session| session.bare() == sandbox);
        if let Err(error) = services.workspaces.end_unclaimed(known).await {
            tracing::warn!(error = %chain(&error), "sandboxes that belong to nobody could not be ended");
        }
        tokio::spawn(follow_deaths(Arc::clone(&self.registry), deaths));
        Ok(())
    }

    /// Before the host ends its sandboxes: every session stops where it is and is not told of their end, so that the
    /// next start goes on as after a crash.
    pub async fn quiesce(&self) {
        self.registry.quiesce().await;
    }

    /// Makes a session. Durable when it returns. Repeated with the same key, it finds the session that the first request
    /// made, as it is now.
    pub async fn create(&self, request: CreateSession, key: Option<String>) -> Result<SessionView, SessionError> {
        self.registry.create(request, key).await
    }

    /// The newest sessions that fit the filter, newest first, at most `limit`, of those older than `before`.
    pub async fn list(
        &self,
        filter: SessionFilter,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionView>, SessionError> {
        self.registry.services.index.sessions(filter, before, limit).await.map_err(store_error)
    }

    /// One session.
    pub async fn get(&self, session: SessionId) -> Result<SessionView, SessionError> {
        self.registry.view(session).await
    }

    /// Accepts a prompt. Durable when it returns; the agent starts at once or when the prompts before it are done.
    /// Repeated with the same key, it is answered as the first time and does nothing, as long as the session remembers
    /// the key ([`ostler_protocol::api::REMEMBERED_KEYS`]).
    pub async fn submit(
        &self,
        session: SessionId,
        prompt: SubmitPrompt,
        key: Option<String>,
    ) -> Result<PromptAccepted, SessionError> {
        self.registry.submit(session, prompt, key).await
    }

    /// Stops the turn under way, if there is one. Returns when it has ended (within a second).
    pub async fn stop(&self, session: SessionId) -> Result<SessionView, SessionError> {
        self.registry.stop(session).await
    }

    /// Events after `after`, at most `limit`.
    pub async fn events(&self, session: SessionId, after: u64, limit: usize) -> Result<Vec<Event>, SessionError> {
        let handle = self.registry.handle(session).await?;
        let mut events = self.registry.services.logs.read(session, after, limit).await.map_err(store_error)?;
        // An event on the disk that the actor has not announced yet comes with the next read: nobody sees an event
        // beyond the head that others are told.
        let head = *handle.head.borrow();
        events.retain(|event| event.seq <= head);
        Ok(events)
    }

    /// Subscribes to a session.
    pub async fn subscribe(&self, session: SessionId) -> Result<Subscription, SessionError> {
        let handle = self.registry.handle(session).await?;
        Ok(Subscription { head: handle.head.clone(), deltas: handle.deltas.subscribe() })
    }

    /// What the session changed so far.
    pub async fn diff(&self, session: SessionId) -> Result<Diff, SessionError> {
        if let Some(workspace) = self.registry.borrow(session).await? {
            let (diff, truncated) = workspace
                .diff(MAX_DIFF)
                .await
                .map_err(|error| SessionError::new(error.code(), chain(&error)).with_source(error))?;
            return Ok(Diff { diff, source: DiffSource::Workspace, truncated });
        }
        let view = self.get(session).await?;
        self.branch_diff(session, &view.repository, &view.branch).await
    }

    async fn branch_diff(&self, session: SessionId, repository: &str, branch: &str) -> Result<Diff, SessionError> {
        let services = &self.registry.services;
        let base = log::fold(services, session).await?.and_then(|folded| folded.state.session);
        let base = base.map(|identity| identity.base_commit).ok_or_else(|| unknown(session))?;
        let name = repository.parse::<RepositoryName>().map_err(name_error)?;
        let diff = services.forge.diff(&name, &base, branch, MAX_DIFF).await;
        match diff {
            Ok((diff, truncated)) => Ok(Diff { diff, source: DiffSource::Branch, truncated }),
            // A branch that was never pushed differs in nothing.
            Err(error) if error.code() == ErrorCode::NotFound => {
                Ok(Diff { diff: String::new(), source: DiffSource::Branch, truncated: false })
            }
            Err(error) => Err(forge_error(error)),
        }
    }

    /// The whole output of a tool call whose event holds only head and tail.
    pub async fn blob(&self, session: SessionId, digest: &str) -> Result<Vec<u8>, SessionError> {
        let missing = || SessionError::new(ErrorCode::NotFound, format!("session {session} has no blob {digest}"));
        if !self.names_blob(session, digest).await? {
            return Err(missing());
        }
        let blobs = self.registry.services.blobs.clone();
        let owned = digest.to_owned();
        let read = tokio::task::spawn_blocking(move || blobs.get(&owned)).await;
        match read {
            Ok(found) => found.map_err(store_error)?.ok_or_else(missing),
            Err(error) => Err(SessionError::new(ErrorCode::Internal, "the blob could not be read").with_source(error)),
        }
    }

    /// Whether an event of the session names the blob: a digest from another session opens nothing.
    async fn names_blob(&self, session: SessionId, digest: &str) -> Result<bool, SessionError> {
        const PAGE: usize = 500;
        let mut after = 0;
        loop {
            let events = self.events(session, after, PAGE).await?;
            let Some(last) = events.last() else { return Ok(false) };
            after = last.seq;
            let named = events.iter().any(|event| {
                matches!(&event.body, ostler_protocol::EventBody::ToolFinished { blob: Some(blob), .. } if blob.digest == digest)
            });
            if named {
                return Ok(true);
            }
        }
    }

    /// The newest pull requests, newest first, at most `limit`, of those older than `before`.
    pub async fn pull_requests(
        &self,
        before: Option<PullRequestId>,
        limit: usize,
    ) -> Result<Vec<PullRequestView>, SessionError> {
        self.registry.services.index.pull_requests(before, limit).await.map_err(store_error)
    }

    /// One pull request and its diff against its base.
    pub async fn pull_request(&self, id: PullRequestId) -> Result<(PullRequestView, Diff), SessionError> {
        let found = self.registry.services.index.pull_request(id).await.map_err(store_error)?;
        let pull = found.ok_or_else(|| {
            SessionError::new(ErrorCode::NotFound, format!("there is no pull request {id}"))
                .with_hint("`ostler pr list` lists them")
        })?;
        let diff = self.branch_diff(pull.session, &pull.repository, &pull.head).await?;
        Ok((pull, diff))
    }
}

/// Tells actors that their sandbox died.
async fn follow_deaths(registry: Arc<Registry>, mut deaths: broadcast::Receiver<Died>) {
    loop {
        match deaths.recv().await {
            Ok(died) => {
                let Ok(session) = format!("{}_{}", SessionId::PREFIX, died.sandbox).parse::<SessionId>() else {
                    continue;
                };
                if let Some(handle) = registry.running(session) {
                    let lost = Lost { why: died.why, cut_off: None };
                    let _ = handle.mailbox.send(Message::Died(Death { instance: died.instance, lost })).await;
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "news of the launcher were missed");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
