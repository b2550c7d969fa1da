//! Workspaces: a sandbox with the session's repository in it, and what may be done to it.
//!
//! Owns the sandbox of a session from its making to its end, the identity under which commands run, and the scripts
//! that clone, diff, commit and push. Does not know events: the session's actor translates.

mod background;
mod connect;
mod error;
mod hands;
mod repository;
mod services;
mod terminals;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ostler_protocol::{CallId, SessionId};
use ostler_sandbox::client::{Deadlines, Guest, GuestError, Launcher, LauncherClientError, Started};
use ostler_sandbox::fault;
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::guest::Port;
use ostler_sandbox::wire::launcher::{Files, Limits};

use tokio::sync::OnceCell;

use crate::agent::tools::Lost;
use crate::config::SandboxLimits;
use crate::door::{Account, Door, DoorEvent, DoorOptions, DoorSockets, Outside};
use crate::forge::{Access, Forge, RepositoryName};

pub use background::{Background, Begun};
pub use connect::ConnectError;
use error::cut_off;
pub use error::{WorkspaceError, chain};
pub use hands::TurnHands;
pub use repository::{Commit, GIT_HOST, Published, commit_message};
pub use services::{Admission, FILE as SERVICES_FILE, Known, News, Overseer, ServiceError, ServiceStatus, supervise};
pub use terminals::{Terminal, TerminalView};

/// Time that a sandbox may take to start.
const CREATE_DEADLINE: Duration = Duration::from_secs(60);

/// The limits of every sandbox in the launcher's units.
#[must_use]
pub fn limits(chosen: SandboxLimits) -> Limits {
    Limits {
        memory: chosen.memory.0,
        pids: chosen.pids,
        cpu_millis: chosen.cpus.millis,
        cpu_weight: chosen.cpu_weight,
        io_weight: chosen.io_weight,
        disk: chosen.disk.0,
        files: chosen.files.into(),
    }
}

/// Makes workspaces. Cheap to clone.
#[derive(Clone)]
pub struct Workspaces {
    inner: Arc<Inner>,
}

struct Inner {
    launcher: Launcher,
    image: String,
    limits: Limits,
    epoch: u64,
    forge: Forge,
    /// What lies beyond the doors.
    outside: Outside,
    /// Sandboxes that outlived the host before this one and were not claimed yet.
    living: Mutex<HashSet<String>>,
}

/// What a workspace is for.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// Whose it is; also the name of the sandbox.
    pub session: SessionId,
    /// What the session has used of the network so far.
    pub account: Arc<Account>,
    /// Repository in it.
    pub repository: RepositoryName,
    /// Branch that the work starts from.
    pub base_branch: String,
    /// Commit that the work starts from.
    pub base_commit: String,
    /// Branch that the work goes to; the only one that may be pushed.
    pub branch: String,
}

/// A living workspace. The sandbox lives on when this is dropped; [`Workspaces::end`] ends it.
pub struct Workspace {
    purpose: Purpose,
    instance: u64,
    guest: Guest,
    door: Door,
    sockets: connect::Sockets,
    terminals: terminals::Terminals,
    /// Set once nothing more is wanted of the sandbox: why it had ended by itself, where it had.
    given_up: OnceCell<Option<String>>,
    services: services::Desk,
}

impl Workspace {
    /// The TCP ports on which something listens in the sandbox, and whether there are more.
    pub async fn ports(&self) -> Result<(Vec<Port>, bool), GuestError> {
        self.guest.ports().await
    }

    /// Whose it is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.purpose.session
    }

    /// Which start of the sandbox this is; news of an earlier one are about another.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Lets the sandbox drop what it knows of commands that ended. One that it does not know is no error, nor is a broken
    /// link, which shows at its next use.
    pub async fn forget(&self, calls: Vec<CallId>) {
        for call in calls {
            let _ = self.guest.forget(&call.to_string()).await;
        }
    }

    /// Waits until the guest has broken the protocol, which it may do at any time, and gives how. Ends without it when the
    /// link ends otherwise.
    pub fn wait_until_broken(&self) -> impl Future<Output = Option<Lost>> + Send + use<> {
        let lost = self.guest.wait_until_lost();
        async move {
            let error = GuestError::Link(lost.await);
            let cut_off = cut_off(&error)?;
            Some(Lost { why: chain(&error), cut_off: Some(cut_off) })
        }
    }

    /// Whether the repository declares a service of this name.
    #[must_use]
    pub fn is_service(&self, name: &str) -> bool {
        self.services.is_service(name)
    }

    /// The declared services, in the order in which they are started.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceStatus> {
        self.services.list()
    }

    /// Starts a declared service, again where it runs, and waits until it was started. `by` says for whom.
    pub async fn restart_service(&self, name: &str, by: &str) -> Result<(), ServiceError> {
        self.services.ask(name, services::Wish::Restart, by).await
    }

    /// Ends a declared service and waits until it has ended; it stays so.
    pub async fn stop_service(&self, name: &str, by: &str) -> Result<(), ServiceError> {
        self.services.ask(name, services::Wish::Stop, by).await
    }

    /// Stops the declared services in reverse order, as far as that is possible in time, before the sandbox ends.
    pub async fn end_services(&self, limit: Duration) {
        self.services.end(limit).await;
    }

    /// What the sandbox does on the network. Ends with the workspace.
    #[must_use]
    pub fn network(&self) -> tokio::sync::broadcast::Receiver<DoorEvent> {
        self.door.events()
    }
}

/// A workspace that was started.
pub struct Ready {
    /// It.
    pub workspace: Arc<Workspace>,
    /// Whether the files of an earlier sandbox were found again.
    pub restored: bool,
    /// Commit that the files are those of, where they were made anew.
    pub cloned: Option<String>,
    /// Time from request to ready.
    pub took: Duration,
}

impl Workspaces {
    /// Makes workspaces from `image` through `launcher`. `living` are the sandboxes that the launcher still has.
    #[must_use]
    pub fn new(
        launcher: Launcher,
        image: String,
        limits: Limits,
        epoch: u64,
        forge: Forge,
        outside: Outside,
        living: impl IntoIterator<Item = String>,
    ) -> Self {
        let living = Mutex::new(living.into_iter().collect());
        Self { inner: Arc::new(Inner { launcher, image, limits, epoch, forge, outside, living }) }
    }

    /// Starts a sandbox and puts the repository in it; nothing of it is left when this fails. Where the session
    /// `had_workspace` and its files are found again, nothing is cloned into them: they hold work. Where they are not, it goes
    /// on from what it has pushed.
    pub async fn start(&self, purpose: &Purpose, had_workspace: bool) -> Result<Ready, WorkspaceError> {
        let began = Instant::now();
        let sandbox = purpose.session.bare();
        let launcher = &self.inner.launcher;
        let create = || launcher.create(&sandbox, &self.inner.image, self.inner.limits, CREATE_DEADLINE);
        let failed = |source| WorkspaceError::Create { source };
        let started = match create().await {
            // One of this session that nobody could take up again, or that is still ending: it has no other owner.
            Err(LauncherClientError::Refused { source, .. }) if source.kind == FailureKind::Exists => {
                tracing::warn!(%sandbox, "ending a sandbox that its session had lost");
                self.end(purpose.session).await?;
                create().await.map_err(failed)?
            }
            created => created.map_err(failed)?,
        };
        fault::point("workspace.made");
        let restored = started.info.restored;
        match self.open(purpose, started, restored, had_workspace).await {
            Ok((workspace, cloned)) => {
                let restored = restored && cloned.is_none();
                fault::point("workspace.filled");
                Ok(Ready { workspace: Arc::new(workspace), restored, cloned, took: began.elapsed() })
            }
            Err(error) => {
                let files = if restored { Files::Keep } else { Files::Remove };
                if let Err(second) = launcher.destroy(&sandbox, files).await {
                    tracing::error!(%sandbox, error = &second as &dyn std::error::Error, "a sandbox could not be ended");
                }
                Err(error)
            }
        }
    }

    async fn open(
        &self,
        purpose: &Purpose,
        started: Started,
        restored: bool,
        had_workspace: bool,
    ) -> Result<(Workspace, Option<String>), WorkspaceError> {
        let workspace = self.connect(purpose, started).await?;
        if restored && had_workspace {
            workspace.remove_stale_locks().await?;
            return Ok((workspace, None));
        }
        let cloned = workspace.clone_repository(had_workspace).await?;
        Ok((workspace, cloned))
    }

    async fn connect(&self, purpose: &Purpose, started: Started) -> Result<Workspace, WorkspaceError> {
        let instance = started.info.instance;
        let access = Access::Session {
            session: purpose.session,
            repository: purpose.repository.clone(),
            base_branch: purpose.base_branch.clone(),
            push_branch: purpose.branch.clone(),
        };
        let sockets = DoorSockets { tcp: started.door_tcp, dns: started.door_dns, dns_v6: started.door_dns_v6 };
        let (services, outside) = (Door::services(self.inner.forge.clone(), access), self.inner.outside.clone());
        let whose = (purpose.session, Arc::clone(&purpose.account));
        let door = Door::open(sockets, whose, services, outside, DoorOptions::default())
            .map_err(|source| WorkspaceError::Door { source })?;
        let guest = Guest::connect(started.control, self.inner.epoch, Deadlines::default())
            .await
            .map_err(|source| WorkspaceError::Guest { doing: "greet the guest", source })?;
        let sockets = connect::Sockets::new(self.inner.launcher.clone(), purpose.session.bare());
        Ok(Workspace {
            purpose: purpose.clone(),
            instance,
            guest,
            door,
            sockets,
            terminals: terminals::Terminals::default(),
            given_up: OnceCell::new(),
            services: services::Desk::new(),
        })
    }

    /// Takes up the sandbox of a session that outlived an earlier host; `None` where there is none.
    pub async fn reclaim(&self, purpose: &Purpose) -> Result<Option<Arc<Workspace>>, WorkspaceError> {
        let sandbox = purpose.session.bare();
        if !self.claim(&sandbox) {
            return Ok(None);
        }
        let started =
            self.inner.launcher.reclaim(&sandbox).await.map_err(|source| WorkspaceError::Reclaim { source })?;
        Ok(Some(Arc::new(self.connect(purpose, started).await?)))
    }

    /// Ends a sandbox that outlived an earlier host and that its session knows nothing of: it was still being filled. Its
    /// files are kept, for [`Self::start`] to finish.
    pub async fn abandon(&self, session: SessionId) -> Result<(), WorkspaceError> {
        if self.claim(&session.bare()) {
            self.end(session).await?;
        }
        Ok(())
    }

    /// Whether the sandbox outlived an earlier host and nobody has asked before.
    fn claim(&self, sandbox: &str) -> bool {
        self.inner.living.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox)
    }

    /// Ends the sandbox of a session and keeps its files for the next one. One that does not live is no error. Where it had ended
    /// by itself, gives why.
    pub async fn end(&self, session: SessionId) -> Result<Option<String>, WorkspaceError> {
        let sandbox = session.bare();
        self.inner.launcher.destroy(&sandbox, Files::Keep).await.map_err(|source| WorkspaceError::End { source })
    }

    /// Ends a sandbox that is of no use any more, once whoever asks: a second time it may be its successor's turn. Gives why it
    /// had ended by itself, where it had.
    pub async fn give_up(&self, workspace: &Workspace) -> Option<String> {
        let session = workspace.purpose.session;
        let ending = async || {
            self.end(session).await.unwrap_or_else(|error| {
                tracing::error!(%session, error = %chain(&error), "a broken sandbox could not be ended");
                None
            })
        };
        workspace.given_up.get_or_init(ending).await.clone()
    }

    /// Ends sandboxes that no session of this host claims.
    pub async fn end_unclaimed(&self, known: impl Fn(&str) -> bool) -> Result<(), WorkspaceError> {
        let unclaimed: Vec<String> = {
            let living = self.inner.living.lock().unwrap_or_else(PoisonError::into_inner);
            living.iter().filter(|sandbox| !known(sandbox)).cloned().collect()
        };
        for sandbox in unclaimed {
            tracing::warn!(%sandbox, "ending a sandbox that belongs to no session");
            self.inner
                .launcher
                .destroy(&sandbox, Files::Keep)
                .await
                .map_err(|source| WorkspaceError::End { source })?;
        }
        Ok(())
    }

    /// The launcher's news about sandboxes that ended by themselves.
    #[must_use]
    pub fn deaths(&self) -> tokio::sync::broadcast::Receiver<ostler_sandbox::client::Died> {
        self.inner.launcher.events()
    }
}
