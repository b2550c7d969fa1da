//! The stream socket over which a host follows a call's output: a cursor into the spool, and the way in for what is typed.
//!
//! The socket was made by the host. Every send uses `MSG_DONTWAIT`, so a reader that does not read holds up only itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ostler_wire::{Failure, FailureKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketType, recv, send, shutdown, sockopt};

use crate::failure::refused;
use crate::spool::Spool;

/// Chunks sent to one reader before the others have their turn.
const CHUNKS: usize = 4;

/// A host's socket and how far it has been served.
pub(crate) struct Attachment {
    socket: OwnedFd,
    cursor: u64,
    /// Nothing more is typed.
    silent: bool,
}

/// What came of serving a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It has everything that is there.
    All,
    /// More is there; wait until the socket has room.
    Part,
    /// It will not read any more.
    Gone,
}

impl Attachment {
    /// Accepts a stream socket that is to be served from `cursor`.
    pub(crate) fn new(socket: Option<OwnedFd>, cursor: u64) -> Result<Self, Failure> {
        stream_socket(socket).map(|socket| Self { socket, cursor, silent: false })
    }

    /// How far it has been served.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the host may still type something.
    pub(crate) fn may_type(&self) -> bool {
        !self.silent
    }

    /// Takes what the host typed; 0 where there is nothing.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> usize {
        match rustix::io::retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)) {
            Ok((count, _)) if count > 0 => count,
            Err(Errno::AGAIN) => 0,
            Ok(_) | Err(_) => {
                self.silent = true;
                0
            }
        }
    }

    /// Whether everything in the spool has been handed over.
    pub(crate) fn is_served(&self, spool: &Spool) -> bool {
        self.cursor >= spool.length()
    }

    /// Hands bytes over that were just added to the spool at `offset`, without reading them back. Does nothing for a
    /// reader that is behind.
    pub(crate) fn offer(&mut self, offset: u64, bytes: &[u8]) {
        if self.cursor == offset
            && !bytes.is_empty()
            && let Ok(count) = self.send(bytes)
        {
            self.cursor += count as u64;
        }
    }

    /// Hands over what the socket takes.
    pub(crate) fn serve(&mut self, spool: &Spool, buffer: &mut [u8]) -> Served {
        for _ in 0..CHUNKS {
            if self.is_served(spool) {
                return Served::All;
            }
            self.cursor = self.cursor.max(spool.first());
            let sent = spool.read(self.cursor, buffer).and_then(|count| self.send(&buffer[..count]));
            match sent {
                Ok(0) => return Served::Gone,
                Ok(count) => self.cursor += count as u64,
                Err(Errno::AGAIN) => return Served::Part,
                Err(_) => return Served::Gone,
            }
        }
        if self.is_served(spool) { Served::All } else { Served::Part }
    }

    /// Tells the reader that nothing more will come.
    pub(crate) fn finish(self) {
        // Not only dropped: a process being forked may hold a copy for a moment. A reader that is gone is no error.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
    }
}

/// A descriptor that is a stream socket, as the host must send with a call.
pub(crate) fn stream_socket(socket: Option<OwnedFd>) -> Result<OwnedFd, Failure> {
    let invalid = |detail| refused(FailureKind::Invalid, "attach", detail);
    let socket = socket.ok_or_else(|| invalid("the request brings no socket for the output"))?;
    match sockopt::socket_type(&socket) {
        Ok(SocketType::STREAM) => Ok(socket),
        _ => Err(invalid("the descriptor for the output is no stream socket")),
    }
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
