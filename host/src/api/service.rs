//! What the API needs of the rest of the host, as traits: the real host implements them by delegation, tests by a
//! fake. Owns no logic.

use async_trait::async_trait;
use ostler_protocol::api::{
    CreateSession, Diff, Health, PluginList, PromptAccepted, PullRequestView, RepositoryView, SessionView, SubmitPrompt,
};
use ostler_protocol::{Event, PullRequestId, SessionId};

use super::ApiFailure;
use crate::session::{SessionError, SessionFilter, Sessions, Subscription};

/// The sessions of a host; the methods mean what they mean on [`Sessions`].
#[async_trait]
pub trait SessionService: Send + Sync + 'static {
    /// See [`Sessions::create`].
    async fn create(&self, request: CreateSession, key: Option<String>) -> Result<SessionView, SessionError>;
    /// See [`Sessions::list`].
    async fn list(
        &self,
        filter: SessionFilter,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionView>, SessionError>;
    /// See [`Sessions::get`].
    async fn get(&self, session: SessionId) -> Result<SessionView, SessionError>;
    /// See [`Sessions::submit`].
    async fn submit(
        &self,
        session: SessionId,
        prompt: SubmitPrompt,
        key: Option<String>,
    ) -> Result<PromptAccepted, SessionError>;
    /// See [`Sessions::stop`].
    async fn stop(&self, session: SessionId) -> Result<SessionView, SessionError>;
    /// See [`Sessions::events`].
    async fn events(&self, session: SessionId, after: u64, limit: usize) -> Result<Vec<Event>, SessionError>;
    /// See [`Sessions::subscribe`].
    async fn subscribe(&self, session: SessionId) -> Result<Subscription, SessionError>;
    /// See [`Sessions::diff`].
    async fn diff(&self, session: SessionId) -> Result<Diff, SessionError>;
    /// See [`Sessions::blob`].
    async fn blob(&self, session: SessionId, digest: &str) -> Result<Vec<u8>, SessionError>;
    /// See [`Sessions::pull_requests`].
    async fn pull_requests(
        &self,
        before: Option<PullRequestId>,
        limit: usize,
    ) -> Result<Vec<PullRequestView>, SessionError>;
    /// See [`Sessions::pull_request`].
    async fn pull_request(&self, id: PullRequestId) -> Result<(PullRequestView, Diff), SessionError>;
}

/// The repositories of the built-in forge. Names were checked before: 1 to 100 characters of `[a-z0-9._-]`,
/// beginning with a letter or digit.
#[async_trait]
pub trait Repositories: Send + Sync + 'static {
    /// Makes an empty repository, or finds the one that is there.
    async fn create(&self, name: &str) -> Result<RepositoryView, ApiFailure>;
    /// One repository; `not_found` where there is none.
    async fn get(&self, name: &str) -> Result<RepositoryView, ApiFailure>;
    /// Repositories by name, at most `limit`, of those after the name `after`.
    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryView>, ApiFailure>;
}

/// What the host says of itself.
#[async_trait]
pub trait HealthSource: Send + Sync + 'static {
    /// The host's parts; an error where it cannot work.
    async fn health(&self) -> Result<Health, ApiFailure>;
    /// Its plugins.
    async fn plugins(&self) -> Result<PluginList, ApiFailure>;
}

#[async_trait]
impl SessionService for Sessions {
    async fn create(&self, request: CreateSession, key: Option<String>) -> Result<SessionView, SessionError> {
        Self::create(self, request, key).await
    }

    async fn list(
        &self,
        filter: SessionFilter,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionView>, SessionError> {
        Self::list(self, filter, before, limit).await
    }

    async fn get(&self, session: SessionId) -> Result<SessionView, SessionError> {
        Self::get(self, session).await
    }

    async fn submit(
        &self,
        session: SessionId,
        prompt: SubmitPrompt,
        key: Option<String>,
    ) -> Result<PromptAccepted, SessionError> {
        Self::submit(self, session, prompt, key).await
    }

    async fn stop(&self, session: SessionId) -> Result<SessionView, SessionError> {
        Self::stop(self, session).await
    }

    async fn events(&self, session: SessionId, after: u64, limit: usize) -> Result<Vec<Event>, SessionError> {
        Self::events(self, session, after, limit).await
    }

    async fn subscribe(&self, session: SessionId) -> Result<Subscription, SessionError> {
        Self::subscribe(self, session).await
    }

    async fn diff(&self, session: SessionId) -> Result<Diff, SessionError> {
        Self::diff(self, session).await
    }

    async fn blob(&self, session: SessionId, digest: &str) -> Result<Vec<u8>, SessionError> {
        Self::blob(self, session, digest).await
    }

    async fn pull_requests(
        &self,
        before: Option<PullRequestId>,
        limit: usize,
    ) -> Result<Vec<PullRequestView>, SessionError> {
        Self::pull_requests(self, before, limit).await
    }

    async fn pull_request(&self, id: PullRequestId) -> Result<(PullRequestView, Diff), SessionError> {
        Self::pull_request(self, id).await
    }
}
