//! What the API needs of the rest of the host, as traits: the real host implements them by delegation, tests by a
//! fake. Owns no logic.

use async_trait::async_trait;
use ostler_protocol::api::{
    CreateSession, Diff, Health, PluginList, PromptAccepted, PullRequestView, RepositoryView, SessionView, SubmitPrompt,
};
use ostler_protocol::processes::{
    self as protocol, CreateTerminal, PortList, ProcessList, ProcessOutput, ProcessView, StartProcess, TerminalList,
    Window,
};
use ostler_protocol::{Event, PullRequestId, SessionId};
use tokio::net::TcpStream;

use super::ApiFailure;
use crate::session::{SessionError, SessionFilter, Sessions, Subscription};
use crate::workspace::TerminalView;

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

/// What runs in the sandboxes of sessions; the methods mean what they mean on [`Sessions`].
#[async_trait]
pub trait ProcessService: Send + Sync + 'static {
    /// See [`Sessions::ports`].
    async fn ports(&self, session: SessionId) -> Result<PortList, SessionError>;
    /// See [`Sessions::connect`].
    async fn connect(&self, session: SessionId, port: u16) -> Result<TcpStream, SessionError>;
    /// See [`Sessions::start_process`].
    async fn start_process(&self, session: SessionId, asked: StartProcess) -> Result<ProcessView, SessionError>;
    /// See [`Sessions::processes`].
    async fn processes(&self, session: SessionId) -> Result<ProcessList, SessionError>;
    /// See [`Sessions::process_output`].
    async fn process_output(
        &self,
        session: SessionId,
        name: &str,
        offset: Option<u64>,
        max: u32,
    ) -> Result<ProcessOutput, SessionError>;
    /// See [`Sessions::stop_process`].
    async fn stop_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError>;
    /// See [`Sessions::restart_process`].
    async fn restart_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError>;
    /// See [`Sessions::preview_opened`].
    async fn preview_opened(&self, session: SessionId, preview: String, port: u16) -> Result<(), SessionError>;
    /// See [`Sessions::open_terminal`].
    async fn open_terminal(
        &self,
        session: SessionId,
        asked: CreateTerminal,
    ) -> Result<protocol::TerminalView, SessionError>;
    /// See [`Sessions::terminals`].
    async fn terminals(&self, session: SessionId) -> Result<TerminalList, SessionError>;
    /// See [`Sessions::view_terminal`].
    async fn view_terminal(&self, session: SessionId, name: &str) -> Result<TerminalView, SessionError>;
    /// See [`Sessions::resize_terminal`].
    async fn resize_terminal(&self, session: SessionId, name: &str, size: Window) -> Result<(), SessionError>;
    /// See [`Sessions::close_terminal`].
    async fn close_terminal(&self, session: SessionId, name: &str) -> Result<protocol::TerminalView, SessionError>;
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

#[async_trait]
impl ProcessService for Sessions {
    async fn ports(&self, session: SessionId) -> Result<PortList, SessionError> {
        Self::ports(self, session).await
    }

    async fn connect(&self, session: SessionId, port: u16) -> Result<TcpStream, SessionError> {
        Self::connect(self, session, port).await
    }

    async fn start_process(&self, session: SessionId, asked: StartProcess) -> Result<ProcessView, SessionError> {
        Self::start_process(self, session, asked).await
    }

    async fn processes(&self, session: SessionId) -> Result<ProcessList, SessionError> {
        Self::processes(self, session).await
    }

    async fn process_output(
        &self,
        session: SessionId,
        name: &str,
        offset: Option<u64>,
        max: u32,
    ) -> Result<ProcessOutput, SessionError> {
        Self::process_output(self, session, name, offset, max).await
    }

    async fn stop_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError> {
        Self::stop_process(self, session, name).await
    }

    async fn restart_process(&self, session: SessionId, name: &str) -> Result<ProcessView, SessionError> {
        Self::restart_process(self, session, name).await
    }

    async fn preview_opened(&self, session: SessionId, preview: String, port: u16) -> Result<(), SessionError> {
        Self::preview_opened(self, session, preview, port).await
    }

    async fn open_terminal(
        &self,
        session: SessionId,
        asked: CreateTerminal,
    ) -> Result<protocol::TerminalView, SessionError> {
        Self::open_terminal(self, session, asked).await
    }

    async fn terminals(&self, session: SessionId) -> Result<TerminalList, SessionError> {
        Self::terminals(self, session).await
    }

    async fn view_terminal(&self, session: SessionId, name: &str) -> Result<TerminalView, SessionError> {
        Self::view_terminal(self, session, name).await
    }

    async fn resize_terminal(&self, session: SessionId, name: &str, size: Window) -> Result<(), SessionError> {
        Self::resize_terminal(self, session, name, size).await
    }

    async fn close_terminal(&self, session: SessionId, name: &str) -> Result<protocol::TerminalView, SessionError> {
        Self::close_terminal(self, session, name).await
    }
}
