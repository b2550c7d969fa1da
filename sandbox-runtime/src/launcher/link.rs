//! Connections: who may connect, and a bounded queue towards the one host.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ostler_wire::launcher::{FromLauncher, Message};
use ostler_wire::socket::{self, SocketError};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{Shutdown, shutdown};

use crate::process;

/// Messages that may wait for a slow host; one that lets more gather is dropped.
const MOST_QUEUED: usize = 4096;

/// Connections that may have ended with something unread in them, and stay open at their other end.
pub(super) const MOST_DEPARTED: usize = 8;

/// Time in which a caller must say hello.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Callers that may be undecided at one time.
pub(super) const MOST_CALLERS: usize = 8;

/// Someone who has connected and not said hello yet.
pub(super) struct Caller {
    pub(super) socket: OwnedFd,
    pub(super) until: Instant,
}

impl Caller {
    /// Takes a connection if its other end belongs to root or the host's user.
    pub(super) fn admit(socket: OwnedFd, host_uid: u32) -> Option<Self> {
        let peer = socket_peercred(&socket).ok()?;
        let uid = peer.uid.as_raw();
        (uid == 0 || uid == host_uid).then(|| Self { socket, until: Instant::now() + HELLO_WITHIN })
    }
}

/// The connection to the host.
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) socket: OwnedFd,
    queue: VecDeque<(Vec<u8>, Option<Rc<OwnedFd>>)>,
}

/// The connection is of no use any more.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl Link {
    pub(super) fn new(number: u64, socket: OwnedFd) -> Self {
        Self { number, socket, queue: VecDeque::new() }
    }

    /// Queues a message and sends what can be sent without waiting.
    pub(super) fn send(
        &mut self,
        epoch: u64,
        id: u64,
        body: Message,
        descriptor: Option<Rc<OwnedFd>>,
    ) -> Result<(), Broken> {
        let encoded = socket::encode(&FromLauncher { epoch, id, body }).map_err(|error| Broken(error.to_string()))?;
        if self.queue.len() >= MOST_QUEUED {
            return Err(Broken(format!("the host lets {MOST_QUEUED} messages wait")));
        }
        self.queue.push_back((encoded, descriptor));
        self.flush()
    }

    /// Sends what can be sent without waiting.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        while let Some((bytes, descriptor)) = self.queue.front() {
            match socket::send_bytes(self.socket.as_fd(), bytes, descriptor.as_deref().map(AsFd::as_fd)) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(SocketError::NotReady) => return Ok(()),
                Err(error) => return Err(Broken(error.to_string())),
            }
        }
        Ok(())
    }

    /// Descriptors that wait because the host does not read.
    pub(super) fn waiting_descriptors(&self) -> usize {
        self.queue.iter().filter(|(_, descriptor)| descriptor.is_some()).count()
    }

    /// The socket of a connection that has ended, where the other end is still open and has not read everything: what was sent
    /// to it, descriptors too, stays until it is read or closed.
    pub(super) fn into_unread(self) -> Option<OwnedFd> {
        if process::unread(&self.socket) == 0 {
            return None;
        }
        let _ = shutdown(&self.socket, Shutdown::Both);
        Some(self.socket)
    }

    pub(super) fn wants_to_send(&self) -> bool {
        !self.queue.is_empty()
    }
}
