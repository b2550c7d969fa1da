//! The host's client of a guest: runs programs, follows their output, reads and writes files of the workspace.
//!
//! [`Guest`] is a handle; a task of its own owns the control socket ([`link`]). Every wait has a deadline but
//! [`Running::exit`], which ends with the link. The guest is not trusted: answers are checked against their
//! requests, files are read within bounds and on the blocking pool, and output comes over sockets that this host made.
//!
//! It keeps no table of calls: the guest does, so that a restarted host finds them ([`Guest::attach`],
//! [`Guest::status`]).

mod error;
mod file;
mod link;
mod running;

use std::os::fd::OwnedFd;
use std::time::Duration;

use ostler_wire::guest::{Call, Entry, Exec, Listed, MAX_FILE, Port, Reply, Request, Window};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use error::{GuestError, LinkLost};
pub use file::FileContent;
use link::{Answer, Ask, Link, Lost, QUEUE};
use running::End;
pub use running::{Ended, Running};

use super::registered::register;
use crate::process::refuse_descriptors;

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the welcome.
    pub hello: Duration,
    /// For an answer that needs no disk: everything but the next.
    pub answer: Duration,
    /// For opening, reading, writing and listing. The guest itself gives up on a write or listing after 60 s.
    pub file: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { hello: Duration::from_secs(5), answer: Duration::from_secs(15), file: Duration::from_secs(70) }
    }
}

/// A handle of a connected guest. The link is let go when the last handle and the last [`Running`] are dropped; the guest
/// and its calls go on.
#[derive(Clone, Debug)]
pub struct Guest {
    asks: mpsc::Sender<Ask>,
    lost: Lost,
    exits: watch::Receiver<u64>,
    deadlines: Deadlines,
}

/// A directory's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by name.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub truncated: bool,
}

/// A piece of a call's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The call when it was read.
    pub row: Call,
    /// Position of the first byte: higher than was asked for where what came before is lost.
    pub offset: u64,
    /// The bytes; none at the end of what is there.
    pub bytes: Vec<u8>,
}

impl Guest {
    /// Says hello over a guest's control socket and starts the task that owns it from now on.
    ///
    /// `epoch` must not be lower than that of any host before. A socket that an earlier host used may hold messages for it;
    /// they are discarded. The launcher may keep a duplicate of `control`, but nobody else may read from it.
    ///
    /// # Errors
    /// [`GuestError::Refused`] where the guest has seen a higher epoch or speaks another version, [`GuestError::Link`] and
    /// [`GuestError::Deadline`] where it is gone or silent.
    pub async fn connect(control: OwnedFd, epoch: u64, deadlines: Deadlines) -> Result<Self, GuestError> {
        const WHAT: &str = "say hello";
        let socket =
            register(control).map_err(|source| GuestError::Local { step: "register the control socket", source })?;
        timeout(deadlines.hello, link::greet(&socket, epoch))
            .await
            .map_err(|_| GuestError::Deadline { what: WHAT, after: deadlines.hello })?
            .map_err(GuestError::Link)?
            .map_err(|failure| GuestError::Refused { what: WHAT, failure })?;
        let (asks, receiver) = mpsc::channel(QUEUE);
        let (ended, lost) = watch::channel(None);
        let (counter, exits) = watch::channel(0);
        tokio::spawn(Link::new(socket, epoch, receiver, ended, counter).run());
        Ok(Self { asks, lost, exits, deadlines })
    }

    /// Waits until the link is lost and gives the reason, also where nothing is asked of the guest meanwhile. Keeps no link.
    pub fn wait_until_lost(&self) -> impl Future<Output = LinkLost> + Send + use<> {
        let mut lost = self.lost.clone();
        async move {
            let reason = lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            reason.unwrap_or(LinkLost::Closed)
        }
    }

    /// Runs a program. What [`Running::output`] is for depends on [`Exec::stdio`]. A second one with the same [`Exec::call`] is refused until the first is forgotten.
    ///
    /// After [`GuestError::Deadline`] or [`GuestError::Link`] it may run: ask for its [`Self::status`]. Dropping the
    /// future does not stop it either.
    ///
    /// # Errors
    /// [`GuestError::Refused`] names a program or working directory that cannot be used; nothing was started then.
    pub async fn exec(&self, exec: Exec) -> Result<Running, GuestError> {
        let call = exec.call.clone();
        let (mut running, reply) = self.follow("start a program", call, Request::Exec(exec)).await?;
        if let Reply::Started { pid } = reply {
            running.pid = Some(pid);
        }
        Ok(running)
    }

    /// Runs a program that nobody follows: what it writes is kept as [`Exec::overflow`] says, and [`Self::exits`] changes when
    /// it ends, however soon.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub async fn start(&self, exec: Exec) -> Result<(), GuestError> {
        const WHAT: &str = "start a program";
        let (_, theirs) = stream()?;
        // Nobody waits for this end from the beginning: one that were let go later could have been told already.
        let (end, _) = oneshot::channel();
        let send = self.send(WHAT, Request::Exec(exec), Some(theirs), Some(end));
        within(WHAT, self.deadlines.answer, send).await.map(|_| ())
    }

    /// Follows a call that this or an earlier host started, from a byte of its output on. Whoever followed it before gets no
    /// more. Works for ended calls too: their output comes once more.
    ///
    /// # Errors
    /// [`GuestError::Refused`] where the call is not known or has less output.
    pub async fn attach(&self, call: &str, offset: u64) -> Result<Running, GuestError> {
        let request = Request::Attach { call: call.to_owned(), offset };
        let (mut running, reply) = self.follow("attach to a call", call.to_owned(), request).await?;
        running.first = offset;
        Ok(match reply {
            Reply::Call(row) => running.attached(row),
            _ => running,
        })
    }

    /// What the guest knows of a call.
    ///
    /// # Errors
    /// [`GuestError::Refused`] with [`ostler_wire::FailureKind::NotFound`]: it was never started here, or is forgotten.
    pub async fn status(&self, call: &str) -> Result<Call, GuestError> {
        match self.ask("tell about a call", Request::Status { call: call.to_owned() }, None).await?.0 {
            Reply::Call(row) => Ok(row),
            _ => Err(self.mismatch()),
        }
    }

    /// Ends every process of a call: SIGTERM now, SIGKILL after `grace` until none is left. Returns at once; the end is told
    /// by [`Running::exit`]. Of an ended call, what it left in the background is ended.
    pub async fn stop(&self, call: &str, grace: Duration) -> Result<(), GuestError> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.done("stop a call", Request::Stop { call: call.to_owned(), grace_ms }).await
    }

    /// Sends a signal to the main process of a call.
    pub async fn signal(&self, call: &str, signal: i32) -> Result<(), GuestError> {
        self.done("signal a call", Request::Signal { call: call.to_owned(), signal }).await
    }

    /// Sets the size of a call's terminal.
    ///
    /// # Errors
    /// [`GuestError::Refused`] where the call is not known or has no open terminal.
    pub async fn resize(&self, call: &str, window: Window) -> Result<(), GuestError> {
        self.done("resize a terminal", Request::Resize { call: call.to_owned(), window }).await
    }

    /// A piece of what is kept of a call's output, without following it; whoever follows it goes on doing so. No more than
    /// `max` bytes, nor than [`ostler_wire::guest::MAX_PIECE`].
    ///
    /// # Errors
    /// [`GuestError::Refused`] where the call is not known or has less output.
    pub async fn read_output(&self, call: &str, offset: u64, max: u32) -> Result<Piece, GuestError> {
        let request = Request::Read { call: call.to_owned(), offset, max };
        match self.ask("read the output of a call", request, None).await?.0 {
            Reply::Output { row, offset, bytes } => Ok(Piece { row, offset, bytes }),
            _ => Err(self.mismatch()),
        }
    }

    /// The calls whose identifiers begin with `prefix`, oldest first, and whether there are more than one message holds.
    pub async fn calls(&self, prefix: &str) -> Result<(Vec<Listed>, bool), GuestError> {
        match self.ask("list calls", Request::Calls { prefix: prefix.to_owned() }, None).await?.0 {
            Reply::Calls { calls, truncated } => Ok((calls, truncated)),
            _ => Err(self.mismatch()),
        }
    }

    /// Changes whenever calls ended that nobody follows; which ones, [`Self::calls`] tells. Closed when the link is lost.
    #[must_use]
    pub fn exits(&self) -> watch::Receiver<u64> {
        self.exits.clone()
    }

    /// The TCP ports on which something in the sandbox listens, and whether there are more. The names of processes are
    /// theirs to choose. The port to which the door redirects connections is not among them.
    pub async fn ports(&self) -> Result<(Vec<Port>, bool), GuestError> {
        match within("list ports", self.deadlines.file, self.send("list ports", Request::Ports, None, None)).await?.0 {
            Reply::Ports { mut ports, truncated } => {
                ports.retain(|port| port.port != crate::pair::DOOR_PORT);
                Ok((ports, truncated))
            }
            _ => Err(self.mismatch()),
        }
    }

    /// Drops an ended call and its output from the guest's table.
    pub async fn forget(&self, call: &str) -> Result<(), GuestError> {
        self.done("forget a call", Request::Forget { call: call.to_owned() }).await
    }

    /// Reads at most `max` bytes of a regular file of the workspace, from its start.
    ///
    /// # Errors
    /// [`GuestError::Refused`] where the path is not there, leads outside, or is no regular file.
    pub async fn read_file(&self, path: &str, max: u64) -> Result<FileContent, GuestError> {
        const WHAT: &str = "read a file";
        let read = async {
            let request = Request::Open { path: path.to_owned() };
            match self.send(WHAT, request, None, None).await? {
                (Reply::Opened { .. }, Some(file)) => file::read(file, path.to_owned(), max).await,
                _ => Err(self.mismatch()),
            }
        };
        within(WHAT, self.deadlines.file, read).await
    }

    /// Replaces or makes a regular file of the workspace in one step, with the parent directories that are missing.
    /// `mode` counts for a new file; an existing one keeps its own.
    ///
    /// # Errors
    /// [`GuestError::TooLarge`] over [`MAX_FILE`]; [`GuestError::Refused`] where the path leads outside, or what is there
    /// is no regular file, or the disk is full: the file is as it was then.
    pub async fn write_file(&self, path: &str, content: &[u8], mode: u32) -> Result<(), GuestError> {
        const WHAT: &str = "write a file";
        let limit = usize::try_from(MAX_FILE).unwrap_or(usize::MAX);
        if content.len() > limit {
            return Err(GuestError::TooLarge { what: WHAT, size: content.len(), limit });
        }
        let write = async {
            let file = file::sealed(content.to_vec()).await?;
            self.send(WHAT, Request::Write { path: path.to_owned(), mode }, Some(file), None).await
        };
        within(WHAT, self.deadlines.file, write).await.map(|_| ())
    }

    /// Lists a directory of the workspace; `""` is the workspace itself. Gives at most `max` entries, and no more than one
    /// message holds.
    pub async fn list(&self, path: &str, max: u32) -> Result<Listing, GuestError> {
        const WHAT: &str = "list a directory";
        let request = Request::List { path: path.to_owned(), max };
        match within(WHAT, self.deadlines.file, self.send(WHAT, request, None, None)).await? {
            (Reply::Listing { entries, truncated }, _) => Ok(Listing { entries, truncated }),
            _ => Err(self.mismatch()),
        }
    }

    async fn follow(&self, what: &'static str, call: String, request: Request) -> Result<(Running, Reply), GuestError> {
        let (output, theirs) = stream()?;
        let (end, awaited) = oneshot::channel();
        let send = self.send(what, request, Some(theirs), Some(end));
        let (reply, _) = within(what, self.deadlines.answer, send).await?;
        Ok((Running::new(call, output, End::Awaited(awaited), self.clone()), reply))
    }

    async fn done(&self, what: &'static str, request: Request) -> Result<(), GuestError> {
        self.ask(what, request, None).await.map(|_| ())
    }

    async fn ask(
        &self,
        what: &'static str,
        request: Request,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, GuestError> {
        within(what, self.deadlines.answer, self.send(what, request, descriptor, None)).await
    }

    /// Hands a request to the task and waits for the answer; the callers add the deadline.
    async fn send(
        &self,
        what: &'static str,
        body: Request,
        descriptor: Option<OwnedFd>,
        end: Option<oneshot::Sender<Call>>,
    ) -> Result<Answer, GuestError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { what, body, descriptor, end, answer };
        self.asks.send(ask).await.map_err(|_| self.lost())?;
        answered.await.map_err(|_| self.lost())?
    }

    fn lost(&self) -> GuestError {
        GuestError::Link(self.lost.borrow().clone().unwrap_or(LinkLost::Closed))
    }

    /// For answers of the wrong kind, which the task has already refused to pass on.
    fn mismatch(&self) -> GuestError {
        GuestError::Link(LinkLost::Violation("an answer that does not fit its request"))
    }
}

/// Both ends of a socket for the output of a call, ours first.
fn stream() -> Result<(UnixStream, OwnedFd), GuestError> {
    let pair = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = OwnedFd::from(ours);
        // What runs in the sandbox may have the other end; who sends a descriptor chooses how long it takes to close it.
        refuse_descriptors(&ours);
        Ok((UnixStream::from_std(ours.into())?, OwnedFd::from(theirs)))
    };
    pair().map_err(|source| GuestError::Local { step: "make a socket for the output", source })
}

async fn within<T>(
    what: &'static str,
    after: Duration,
    work: impl Future<Output = Result<T, GuestError>>,
) -> Result<T, GuestError> {
    timeout(after, work).await.map_err(|_| GuestError::Deadline { what, after })?
}
