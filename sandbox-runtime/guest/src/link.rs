//! The control socket: messages in, answers and events out, and which host they belong to.
//!
//! It owns the highest epoch seen and a bounded queue of what the socket did not take yet. While that queue is long no
//! further request is read, so a host that does not listen cannot make the guest grow. It does not know what messages mean.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ostler_wire::guest::{Event, FromGuest, Message, Reply, ToGuest};
use ostler_wire::socket::{self, RECEIVE_BUFFER, SocketError};
use ostler_wire::{Failure, FailureKind};

use crate::failure::refused;

/// Unsent messages above which no request is read. Events and the workers' answers may still be added: at most one for
/// each call and worker.
const BACKLOG: usize = 64;

/// Which request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Epoch of the request.
    pub(crate) epoch: u64,
    /// Its number.
    pub(crate) id: u64,
}

/// The guest's side of the control socket.
pub(crate) struct Link {
    socket: OwnedFd,
    /// `None` before the first accepted `Hello`.
    epoch: Option<u64>,
    unsent: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    buffer: Vec<u8>,
    /// Why the link ended, where that was found while sending.
    broken: Option<SocketError>,
}

impl Link {
    /// Takes the socket; no host is known yet.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, epoch: None, unsent: VecDeque::new(), buffer: vec![0; RECEIVE_BUFFER], broken: None }
    }

    /// The highest epoch seen, `None` before the first accepted `Hello`.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Begins a new host: what an older one was still to be told is dropped.
    pub(crate) fn begin(&mut self, epoch: u64) {
        if self.epoch != Some(epoch) {
            self.unsent.clear();
        }
        self.epoch = Some(epoch);
    }

    /// Whether the next request may be read.
    pub(crate) fn accepts(&self) -> bool {
        self.unsent.len() < BACKLOG
    }

    /// Whether something waits for room in the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next request, if one is there.
    pub(crate) fn receive(&mut self) -> Result<Option<(ToGuest, Option<OwnedFd>)>, SocketError> {
        match socket::receive_in(self.socket.as_fd(), &mut self.buffer) {
            Ok(received) => Ok(Some(received)),
            Err(SocketError::NotReady) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers a request, unless the host that asked has been followed by another one.
    pub(crate) fn reply(&mut self, to: Ticket, result: Result<(Reply, Option<OwnedFd>), Failure>) {
        if self.epoch.is_some_and(|epoch| epoch > to.epoch) {
            return;
        }
        let (body, descriptor) = match result {
            Ok((reply, descriptor)) => (Ok(reply), descriptor),
            Err(failure) => (Err(failure), None),
        };
        self.push(to, Message::Reply(body), descriptor);
    }

    /// Refuses a request of a host that is not, or no longer, the current one.
    pub(crate) fn refuse(&mut self, to: Ticket, failure: Failure) {
        self.push(to, Message::Reply(Err(failure)), None);
    }

    /// Tells the current host of something that happened; without one nobody is told.
    pub(crate) fn announce(&mut self, event: Event) {
        if let Some(epoch) = self.epoch {
            self.push(Ticket { epoch, id: 0 }, Message::Event(event), None);
        }
    }

    /// Passes on an answer that a worker encoded.
    pub(crate) fn forward(&mut self, to: Ticket, bytes: Vec<u8>) {
        if self.epoch == Some(to.epoch) {
            self.unsent.push_back((bytes, None));
            self.flush();
        }
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) {
        while let Some((bytes, descriptor)) = self.unsent.front() {
            match socket::send_bytes(self.socket.as_fd(), bytes, descriptor.as_ref().map(AsFd::as_fd)) {
                Ok(()) => {
                    self.unsent.pop_front();
                }
                Err(SocketError::NotReady) => return,
                Err(error) => {
                    self.unsent.clear();
                    self.broken = Some(error);
                    return;
                }
            }
        }
    }

    /// Why the link cannot be used any more, found while sending.
    pub(crate) fn broken(&mut self) -> Option<SocketError> {
        self.broken.take()
    }

    fn push(&mut self, to: Ticket, body: Message, descriptor: Option<OwnedFd>) {
        self.unsent.push_back((encode(to, body), descriptor));
        self.flush();
    }
}

/// Encodes an answer; one that is too large becomes a refusal, which never is.
pub(crate) fn encode(to: Ticket, body: Message) -> Vec<u8> {
    let message = |body| FromGuest { epoch: to.epoch, id: to.id, body };
    socket::encode(&message(body)).unwrap_or_else(|error| {
        let failure = refused(FailureKind::Limit, "answer", format!("the answer cannot be sent: {error}"));
        socket::encode(&message(Message::Reply(Err(failure)))).unwrap_or_default()
    })
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
