//! The task that owns a guest's control socket: requests out, answers and events in.
//!
//! ```text
//! callers ── bounded channel of Ask ──► task ──► socket
//!    ▲                                   │
//!    └── oneshot per answer and per end ─┘ ◄── socket
//! ```
//!
//! A guest is hostile after its first command: an answer that does not fit its request, or comes from the future, ends the
//! link. The task ends when every handle is gone or the link is lost, and tells everybody who waits why.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ostler_wire::guest::{Call, Event, FromGuest, Listed, MAX_LABEL, MAX_PORTS, Message, Reply, Request, ToGuest};
use ostler_wire::socket::{self, RECEIVE_BUFFER, SocketError};
use ostler_wire::{Failure, MAX_MESSAGE, VERSION};
use rustix::fs::{FileType, fstat};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

use super::error::{GuestError, LinkLost};

/// Requests that wait for the task, and messages that wait for the socket, before callers have to.
pub(super) const QUEUE: usize = 64;

/// Requests without an answer at a time. More than a well-behaved guest keeps unanswered for longer than a moment.
const MAX_PENDING: usize = 1024;

/// Messages of no use that a guest may send: answers to older hosts or to who has given up, ends of calls that nobody follows.
/// An honest one sends few, each of them once.
const MOST_USELESS: u32 = 4096;

/// Messages handled before requests have their turn.
const MESSAGES: usize = 64;

/// A request on its way.
pub(super) struct Ask {
    pub(super) what: &'static str,
    pub(super) body: Request,
    pub(super) descriptor: Option<OwnedFd>,
    /// Where to tell the end of the call that is started or followed.
    pub(super) end: Option<oneshot::Sender<Call>>,
    pub(super) answer: oneshot::Sender<Result<Answer, GuestError>>,
}

/// An accepted request's answer.
pub(super) type Answer = (Reply, Option<OwnedFd>);

/// The reason for which a link ended, once it has.
pub(super) type Lost = watch::Receiver<Option<LinkLost>>;

struct Pending {
    what: &'static str,
    expected: Expected,
    /// Told once the answer is there: of a refused request it must hear nothing.
    end: Option<oneshot::Sender<Call>>,
    answer: oneshot::Sender<Result<Answer, GuestError>>,
}

/// What an answer must look like.
#[derive(Debug)]
enum Expected {
    Started { call: String },
    Row { call: String },
    Opened,
    Listing { max: usize },
    Output { call: String, offset: u64, max: usize },
    Calls { prefix: String },
    Ports,
    Done,
}

/// The task's state.
pub(super) struct Link {
    socket: AsyncFd<OwnedFd>,
    epoch: u64,
    last: u64,
    asks: mpsc::Receiver<Ask>,
    unsent: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    pending: HashMap<u64, Pending>,
    ends: HashMap<String, oneshot::Sender<Call>>,
    /// Ends that are to come of calls whose follower went away: as many are no offence.
    unfollowed: u32,
    useless: u32,
    /// Counts the ends of calls that nobody follows.
    exits: watch::Sender<u64>,
    buffer: Vec<u8>,
    lost: watch::Sender<Option<LinkLost>>,
}

/// A descriptor of a guest, which sends files and nothing else.
enum Sent {
    Nothing,
    File(OwnedFd),
    /// Closed by now, or soon.
    Socket,
}

/// Who made a socket decides how long it takes to close it (`SO_LINGER`), so one is closed where nobody waits.
fn sort(descriptor: Option<OwnedFd>) -> Sent {
    let Some(descriptor) = descriptor else { return Sent::Nothing };
    if fstat(&descriptor).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket) {
        tokio::task::spawn_blocking(move || drop(descriptor));
        return Sent::Socket;
    }
    Sent::File(descriptor)
}

/// Says hello and waits for the welcome; what was meant for older hosts is thrown away.
pub(super) async fn greet(socket: &AsyncFd<OwnedFd>, epoch: u64) -> Result<Result<(), Failure>, LinkLost> {
    let hello = ToGuest { epoch, id: 1, body: Request::Hello { version: VERSION } };
    while attempt(socket, Interest::WRITABLE, |fd| socket::send(fd, &hello, None))?.is_none() {
        socket.writable().await.map_err(broken)?.retain_ready();
    }
    loop {
        socket.readable().await.map_err(broken)?.retain_ready();
        let Some((message, descriptor)) = attempt(socket, Interest::READABLE, socket::receive::<FromGuest>)? else {
            continue;
        };
        let sent = sort(descriptor);
        match message {
            FromGuest { epoch: found, .. } if found < epoch => {}
            FromGuest { epoch: found, .. } if found > epoch => return Err(LinkLost::Superseded { epoch: found }),
            _ if !matches!(sent, Sent::Nothing) => return Err(LinkLost::Violation("a descriptor before the welcome")),
            FromGuest { id: 1, body: Message::Reply(Ok(Reply::Welcome { version: VERSION, .. })), .. } => {
                return Ok(Ok(()));
            }
            FromGuest { id: 1, body: Message::Reply(Err(failure)), .. } => return Ok(Err(failure)),
            // A host that connects a second time in its epoch finds what its first link left.
            FromGuest { id: 0, .. } => {}
            _ => return Err(LinkLost::Violation("the answer to hello is no welcome")),
        }
    }
}

/// One operation on the socket, `None` where it must wait first.
fn attempt<T>(
    socket: &AsyncFd<OwnedFd>,
    interest: Interest,
    operation: impl FnOnce(BorrowedFd<'_>) -> Result<T, SocketError>,
) -> Result<Option<T>, SocketError> {
    let done = socket.try_io(interest, |descriptor| match operation(descriptor.as_fd()) {
        // Makes tokio wait for the next edge.
        Err(SocketError::NotReady) => Err(std::io::ErrorKind::WouldBlock.into()),
        done => Ok(done),
    });
    match done {
        Ok(done) => done.map(Some),
        Err(_) => Ok(None),
    }
}

impl Link {
    /// The task's state after a welcome.
    pub(super) fn new(
        socket: AsyncFd<OwnedFd>,
        epoch: u64,
        asks: mpsc::Receiver<Ask>,
        lost: watch::Sender<Option<LinkLost>>,
        exits: watch::Sender<u64>,
    ) -> Self {
        Self {
            socket,
            epoch,
            last: 1,
            asks,
            unsent: VecDeque::new(),
            pending: HashMap::new(),
            ends: HashMap::new(),
            unfollowed: 0,
            useless: 0,
            exits,
            buffer: vec![0; RECEIVE_BUFFER],
            lost,
        }
    }

    /// Serves until the link ends.
    pub(super) async fn run(mut self) {
        let Err(reason) = self.serve().await else { return };
        tracing::debug!(%reason, "the link to a guest ended");
        // Set before the waiting callers wake up because their senders are dropped.
        self.lost.send_replace(Some(reason));
    }

    async fn serve(&mut self) -> Result<(), LinkLost> {
        loop {
            let accepts = self.unsent.len() < QUEUE;
            tokio::select! {
                ask = self.asks.recv(), if accepts => match ask {
                    Some(ask) => self.accept(ask)?,
                    None => return Err(LinkLost::Closed),
                },
                guard = self.socket.readable() => {
                    guard.map_err(broken)?.retain_ready();
                    self.receive()?;
                }
                guard = self.socket.writable(), if !self.unsent.is_empty() => {
                    guard.map_err(broken)?.retain_ready();
                    self.flush()?;
                }
            }
        }
    }

    fn accept(&mut self, ask: Ask) -> Result<(), LinkLost> {
        let Ask { what, body, descriptor, end, answer } = ask;
        if answer.is_closed() {
            // Its deadline passed while it waited: nobody would know that it was begun.
            return Ok(());
        }
        if self.pending.len() >= MAX_PENDING / 2 {
            self.pending.retain(|_, pending| !pending.answer.is_closed());
        }
        if self.pending.len() >= MAX_PENDING {
            let _ = answer.send(Err(GuestError::Busy { what }));
            return Ok(());
        }
        let expected = Expected::of(&body);
        self.last += 1;
        let bytes = match socket::encode(&ToGuest { epoch: self.epoch, id: self.last, body }) {
            Ok(bytes) => bytes,
            Err(SocketError::TooLarge { size }) => {
                let _ = answer.send(Err(GuestError::TooLarge { what, size, limit: MAX_MESSAGE }));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.pending.insert(self.last, Pending { what, expected, end, answer });
        self.unsent.push_back((bytes, descriptor));
        self.flush()
    }

    fn flush(&mut self) -> Result<(), LinkLost> {
        while let Some((bytes, descriptor)) = self.unsent.front() {
            let descriptor = descriptor.as_ref().map(AsFd::as_fd);
            if attempt(&self.socket, Interest::WRITABLE, |fd| socket::send_bytes(fd, bytes, descriptor))?.is_none() {
                break;
            }
            self.unsent.pop_front();
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), LinkLost> {
        for _ in 0..MESSAGES {
            let buffer = &mut self.buffer;
            let received = attempt(&self.socket, Interest::READABLE, |fd| socket::receive_in::<FromGuest>(fd, buffer))?;
            let Some((message, descriptor)) = received else { break };
            let descriptor = match sort(descriptor) {
                Sent::Nothing => None,
                Sent::File(file) => Some(file),
                Sent::Socket => return Err(LinkLost::Violation("a socket")),
            };
            self.hear(message, descriptor)?;
        }
        Ok(())
    }

    fn hear(&mut self, message: FromGuest, descriptor: Option<OwnedFd>) -> Result<(), LinkLost> {
        if message.epoch < self.epoch {
            return self.useless();
        }
        if message.epoch > self.epoch {
            return Err(LinkLost::Superseded { epoch: message.epoch });
        }
        match message.body {
            Message::Event(Event::Exited(call)) => {
                if message.id != 0 || descriptor.is_some() || call.exit.is_none() {
                    return Err(LinkLost::Violation("a malformed event"));
                }
                // A call of an earlier host that nobody follows has no entry.
                let Some(end) = self.ends.remove(&call.call) else {
                    self.exits.send_modify(|count| *count = count.wrapping_add(1));
                    let Some(left) = self.unfollowed.checked_sub(1) else { return self.useless() };
                    self.unfollowed = left;
                    return Ok(());
                };
                if end.send(call).is_err() {
                    self.exits.send_modify(|count| *count = count.wrapping_add(1));
                }
                Ok(())
            }
            Message::Reply(result) => self.answer(message.id, result, descriptor),
        }
    }

    /// Counts a message that is thrown away: a flood of them would cost this host a processor.
    fn useless(&mut self) -> Result<(), LinkLost> {
        self.useless += 1;
        if self.useless > MOST_USELESS {
            return Err(LinkLost::Violation("a flood of messages that nobody waits for"));
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, result: Result<Reply, Failure>, descriptor: Option<OwnedFd>) -> Result<(), LinkLost> {
        let Some(Pending { what, expected, end, answer }) = self.pending.remove(&id) else {
            // Late: whoever asked has given up.
            let asked = (2..=self.last).contains(&id);
            return if asked { self.useless() } else { Err(LinkLost::Violation("an answer that nobody asked for")) };
        };
        let reply = match result {
            Ok(reply) if expected.fits(&reply, descriptor.is_some()) => reply,
            Ok(_) => return Err(LinkLost::Violation("an answer that does not fit its request")),
            Err(_) if descriptor.is_some() => return Err(LinkLost::Violation("a refusal with a descriptor")),
            Err(failure) => {
                let _ = answer.send(Err(GuestError::Refused { what, failure }));
                return Ok(());
            }
        };
        // A row that tells the end is followed by no event.
        if let (Some(end), Some(call)) = (end, expected.call())
            && !matches!(&reply, Reply::Call(row) if row.exit.is_some())
        {
            let before = self.ends.len();
            self.ends.retain(|_, end| !end.is_closed());
            self.unfollowed = self.unfollowed.saturating_add((before - self.ends.len()) as u32);
            self.ends.insert(call.to_owned(), end);
        }
        // Whoever asked may have stopped waiting.
        let _ = answer.send(Ok((reply, descriptor)));
        Ok(())
    }
}

impl Expected {
    fn of(request: &Request) -> Self {
        match request {
            Request::Exec(exec) => Self::Started { call: exec.call.clone() },
            Request::Attach { call, .. } | Request::Status { call } => Self::Row { call: call.clone() },
            Request::Open { .. } => Self::Opened,
            Request::List { max, .. } => Self::Listing { max: usize::try_from(*max).unwrap_or(usize::MAX) },
            Request::Hello { .. }
            | Request::Stop { .. }
            | Request::Signal { .. }
            | Request::Forget { .. }
            | Request::Resize { .. }
            | Request::Write { .. } => Self::Done,
            Request::Read { call, offset, max } => {
                let max = usize::try_from(*max).unwrap_or(usize::MAX);
                Self::Output { call: call.clone(), offset: *offset, max }
            }
            Request::Calls { prefix } => Self::Calls { prefix: prefix.clone() },
            Request::Ports => Self::Ports,
        }
    }

    fn call(&self) -> Option<&str> {
        match self {
            Self::Started { call } | Self::Row { call } => Some(call),
            _ => None,
        }
    }

    fn fits(&self, reply: &Reply, has_descriptor: bool) -> bool {
        let fits = match (self, reply) {
            (Self::Started { .. }, Reply::Started { pid }) => *pid > 0,
            (Self::Row { call }, Reply::Call(row)) => row.call == *call && row.first <= row.output,
            (Self::Calls { prefix }, Reply::Calls { calls, .. }) => calls.iter().all(|listed| {
                let Listed { row, label, .. } = listed;
                row.call.starts_with(prefix) && row.first <= row.output && label.len() <= MAX_LABEL
            }),
            (Self::Output { call, offset, max }, Reply::Output { row, offset: from, bytes }) => {
                let end = from.checked_add(bytes.len() as u64);
                row.call == *call && from >= offset && bytes.len() <= *max && end.is_some_and(|end| end <= row.output)
            }
            (Self::Ports, Reply::Ports { ports, .. }) => ports.len() <= MAX_PORTS,
            (Self::Opened, Reply::Opened { .. }) => return has_descriptor,
            (Self::Listing { max }, Reply::Listing { entries, .. }) => {
                entries.len() <= *max && entries.iter().all(|entry| is_file_name(&entry.name))
            }
            (Self::Done, Reply::Done) => true,
            _ => false,
        };
        fits && !has_descriptor
    }
}

/// Whether a name can be one in a directory: a hostile one must not smuggle in a path.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

fn broken(error: std::io::Error) -> LinkLost {
    let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
    LinkLost::Socket(Arc::new(SocketError::Io(errno)))
}
