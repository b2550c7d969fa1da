//! The host's side of the launcher: starting one, and asking it for sandboxes.
//!
//! ```text
//! callers ── bounded queue of commands ──► one task ── SEQPACKET ──► launcher
//!    ▲            (oneshot reply each)        │
//!    └──────── replies, by request number ────┤
//!    └──────── Died, broadcast ───────────────┘
//! ```
//!
//! One task owns the socket. A request without an answer by its deadline (and a little more, in which the
//! launcher says itself that it gave up) fails; every descriptor that came for it is closed, and a sandbox
//! that becomes ready when nobody waits for it any more is destroyed. This module decides nothing else about
//! sandboxes.
#![expect(unsafe_code, reason = "registering an owned descriptor with tokio is unsafe since 1.54")]

mod error;
mod spawn;
mod task;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use ostler_wire::VERSION;
use ostler_wire::launcher::{Family, Files, Limits, Reply, RepositoryAccess, Request, Sandbox};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc, oneshot};

pub use error::LauncherClientError;
pub use spawn::{Spawned, spawn_launcher};
use task::{Answer, MOST_QUEUED, Pending, Task};

/// Deaths that a slow receiver may leave unread before it misses some.
const MOST_DEATHS: usize = 256;

/// For requests that are answered from the launcher's table.
const QUICK: Duration = Duration::from_secs(10);
/// For ending a sandbox and removing its files.
const SLOW: Duration = Duration::from_secs(60);

/// A sandbox that lives, with what the host needs to work with it.
#[derive(Debug)]
pub struct Started {
    /// Its id, process number and uids.
    pub info: Sandbox,
    /// Control socket of the guest, `SOCK_SEQPACKET`.
    pub control: OwnedFd,
    /// Listener to which every TCP connection of the sandbox is redirected; its original destination is the one
    /// that was meant.
    pub door_tcp: OwnedFd,
    /// UDP socket to which every DNS query of the sandbox over IPv4 is redirected.
    pub door_dns: OwnedFd,
    /// The same over IPv6, where the machine has it.
    pub door_dns_v6: Option<OwnedFd>,
}

/// A sandbox in which git works on a repository.
#[derive(Debug)]
pub struct Opened {
    /// Its id, process number and uids.
    pub info: Sandbox,
    /// Control socket of the guest, `SOCK_SEQPACKET`.
    pub control: OwnedFd,
}

/// A sandbox that ended without being told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Died {
    /// Its id.
    pub sandbox: String,
    /// Which start of it, as in [`Sandbox::instance`].
    pub instance: u64,
    /// Why, in words.
    pub why: String,
}

/// A connection to the launcher. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Launcher {
    commands: mpsc::Sender<Pending>,
    deaths: broadcast::Sender<Died>,
}

impl Launcher {
    /// Connects and says hello as a host of this epoch. Also returns the ids of the sandboxes that live.
    ///
    /// Must be called within a tokio runtime that has I/O and time enabled.
    ///
    /// # Errors
    /// When nobody listens, or the launcher refuses version or epoch. [`LauncherClientError::Stale`] tells which epoch was there.
    pub async fn connect(socket: &Path, epoch: u64) -> Result<(Self, Vec<String>), LauncherClientError> {
        let failed = |source: io::Error| LauncherClientError::Connect { path: socket.to_owned(), source };
        let dialled = dial(socket).map_err(failed)?;
        // SAFETY: the value owns its descriptor, keeps it open and always returns the same one.
        let socket = unsafe { AsyncFd::register(dialled) }.map_err(|error| failed(error.into()))?;
        let (commands, queue) = mpsc::channel(MOST_QUEUED);
        let (deaths, _) = broadcast::channel(MOST_DEATHS);
        tokio::spawn(Task::new(socket, epoch, deaths.clone()).run(queue));
        let launcher = Self { commands, deaths };
        match launcher.ask("hello", Request::Hello { version: VERSION }, QUICK).await? {
            Answer { reply: Reply::Welcome { sandboxes, .. }, .. } => Ok((launcher, sandboxes)),
            _ => Err(LauncherClientError::Unexpected { request: "hello".to_owned() }),
        }
    }

    /// Makes and starts a sandbox, or starts one again whose files were kept.
    ///
    /// `sandbox` is a bare lowercase ULID, `image` the digest of a manifest in the store.
    ///
    /// # Errors
    /// When the launcher refuses or fails, or `deadline` passes; nothing of the sandbox is left then.
    pub async fn create(
        &self,
        sandbox: &str,
        image: &str,
        limits: Limits,
        deadline: Duration,
    ) -> Result<Started, LauncherClientError> {
        let words = format!("create sandbox {sandbox}");
        let request = Request::Create { sandbox: sandbox.to_owned(), image: image.to_owned(), limits };
        self.ask(&words, request, deadline).await?.started(&words)
    }

    /// Makes and starts a sandbox in which git works on one repository of the launcher's forge, at
    /// [`ostler_wire::launcher::REPOSITORY`]. It ends with this connection.
    ///
    /// # Errors
    /// When the launcher refuses or fails, or `deadline` passes; nothing of the sandbox is left then.
    pub async fn open_repository(
        &self,
        sandbox: &str,
        repository: &str,
        access: RepositoryAccess,
        limits: Limits,
        deadline: Duration,
    ) -> Result<Opened, LauncherClientError> {
        let words = format!("open repository {repository}");
        let (sandbox, repository) = (sandbox.to_owned(), repository.to_owned());
        let request = Request::OpenRepository { sandbox, repository, access, limits };
        self.ask(&words, request, deadline).await?.opened(&words)
    }

    /// The descriptors of a living sandbox once more.
    ///
    /// # Errors
    /// When it does not live.
    pub async fn reclaim(&self, sandbox: &str) -> Result<Started, LauncherClientError> {
        let words = format!("reclaim sandbox {sandbox}");
        self.ask(&words, Request::Reclaim { sandbox: sandbox.to_owned() }, QUICK).await?.started(&words)
    }

    /// Ends a sandbox, or removes the files of one that has ended. Returns when nothing of it is left but, with
    /// [`Files::Keep`], its files; where it had ended by itself, with why. One that does not exist is no error.
    ///
    /// # Errors
    /// When it cannot be ended or its files cannot be removed.
    pub async fn destroy(&self, sandbox: &str, files: Files) -> Result<Option<String>, LauncherClientError> {
        let words = format!("destroy sandbox {sandbox}");
        self.ask(&words, Request::Destroy { sandbox: sandbox.to_owned(), files }, SLOW).await?.ended(&words)
    }

    /// TCP sockets made inside the network namespace of a living sandbox; none of them blocks. `count` is 1 to
    /// [`ostler_wire::launcher::MAX_MINTED`].
    ///
    /// # Errors
    /// When the sandbox does not live, or the launcher cannot make them.
    pub async fn mint(&self, sandbox: &str, family: Family, count: u32) -> Result<Vec<OwnedFd>, LauncherClientError> {
        let words = format!("make sockets in sandbox {sandbox}");
        let request = Request::Mint { sandbox: sandbox.to_owned(), family, count };
        self.ask(&words, request, QUICK).await?.minted(&words, count)
    }

    /// Ends every sandbox, keeping their files, and the launcher.
    ///
    /// # Errors
    /// When something cannot be ended; the launcher ends all the same.
    pub async fn shutdown(&self) -> Result<(), LauncherClientError> {
        self.ask("shut down the launcher", Request::Shutdown, SLOW).await?.done("shut down the launcher")
    }

    /// Returns when the connection has ended: the launcher is gone, or broke the protocol. There is no way back to it.
    pub async fn gone(&self) {
        self.commands.closed().await;
    }

    /// Whether [`Self::gone`] would return at once.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.commands.is_closed()
    }

    /// Sandboxes that end by themselves from now on. The channel closes when the connection ends; a receiver
    /// that is too slow is told how many it has missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Died> {
        self.deaths.subscribe()
    }

    async fn ask(&self, words: &str, request: Request, deadline: Duration) -> Result<Answer, LauncherClientError> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { words: words.to_owned(), request, deadline, reply };
        self.commands.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LauncherClientError::Full { request: words.to_owned() },
            mpsc::error::TrySendError::Closed(_) => LauncherClientError::gone(words, "earlier"),
        })?;
        answer.await.unwrap_or_else(|_| Err(LauncherClientError::gone(words, "earlier")))
    }
}

/// Connects without waiting: the backlog of a launcher that lives is never full for long.
fn dial(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
