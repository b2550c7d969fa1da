//! Sending and receiving one message with at most one descriptor over `SOCK_SEQPACKET`.
//!
//! Every call uses `MSG_DONTWAIT`: whether a descriptor blocks is a property of the open file that the
//! other side may share and change, so it is never relied on. Callers wait with `poll` or `AsyncFd`.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_MESSAGE;

/// What can go wrong with one message.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nothing to read, or no room to write, right now.
    #[error("the socket is not ready")]
    NotReady,
    /// The other side is gone.
    #[error("the other side closed the socket")]
    Closed,
    /// The message is too large to be sent.
    #[error("message of {size} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge {
        /// Encoded size in bytes.
        size: usize,
    },
    /// The other side broke the protocol; the link must be dropped.
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    /// The bytes are not a message of the expected type; the link must be dropped.
    #[error("undecodable message")]
    Decode(#[source] postcard::Error),
    /// The value could not be encoded.
    #[error("unencodable message")]
    Encode(#[source] postcard::Error),
    /// The operating system refused.
    #[error("socket operation failed")]
    Io(#[source] rustix::io::Errno),
}

/// Sends one message. Never waits; a full socket gives [`SocketError::NotReady`] and sends nothing.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), SocketError> {
    let bytes = postcard::to_stdvec(message).map_err(SocketError::Encode)?;
    send_bytes(socket, &bytes, descriptor)
}

/// Encodes a message without sending it, checking its size.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, SocketError> {
    let bytes = postcard::to_stdvec(message).map_err(SocketError::Encode)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(SocketError::TooLarge { size: bytes.len() });
    }
    Ok(bytes)
}

/// Sends one encoded message, see [`send`].
pub fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), SocketError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(SocketError::TooLarge { size: bytes.len() });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let list;
    if let Some(descriptor) = descriptor {
        list = [descriptor];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&list)) {
            return Err(SocketError::Violation("no room for a descriptor"));
        }
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(SocketError::NotReady),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(SocketError::Closed),
            Err(error) => return Err(SocketError::Io(error)),
        }
    }
}

/// Room that [`receive_in`] needs: one byte more than the largest message, so that a larger one is seen.
pub const RECEIVE_BUFFER: usize = MAX_MESSAGE + 1;

/// Receives one message and its descriptor, if it has one. Never waits.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(T, Option<OwnedFd>), SocketError> {
    receive_in(socket, &mut vec![0u8; RECEIVE_BUFFER])
}

/// [`receive`] with a buffer that the caller keeps between messages; it should hold [`RECEIVE_BUFFER`] bytes, a
/// message that does not fit is a violation.
pub fn receive_in<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(T, Option<OwnedFd>), SocketError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(SocketError::NotReady),
            Err(rustix::io::Errno::CONNRESET) => return Err(SocketError::Closed),
            Err(error) => return Err(SocketError::Io(error)),
        }
    };
    let mut descriptor = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for each in descriptors {
                if descriptor.replace(each).is_some() {
                    return Err(SocketError::Violation("more than one descriptor"));
                }
            }
        }
    }
    // With none at all it is this process that has no room for one more: the message then counts without it.
    if received.flags.contains(ReturnFlags::CTRUNC) && descriptor.is_some() {
        return Err(SocketError::Violation("more descriptors than fit"));
    }
    if received.bytes == 0 {
        return Err(SocketError::Closed);
    }
    if received.bytes > MAX_MESSAGE || received.flags.contains(ReturnFlags::TRUNC) {
        return Err(SocketError::Violation("message over the size limit"));
    }
    let (message, rest) = postcard::take_from_bytes(&buffer[..received.bytes]).map_err(SocketError::Decode)?;
    if !rest.is_empty() {
        return Err(SocketError::Violation("bytes after the message"));
    }
    Ok((message, descriptor))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn send_raw(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::DONTWAIT).unwrap();
    }

    fn received(socket: &OwnedFd) -> Result<(String, Option<OwnedFd>), SocketError> {
        receive(socket.as_fd())
    }

    #[test]
    fn a_message_arrives_with_its_descriptor() {
        let (left, right) = pair();
        let (given, _keep) = pair();
        send(left.as_fd(), &"hello".to_owned(), Some(given.as_fd())).unwrap();
        let (text, descriptor) = received(&right).unwrap();
        assert_eq!(text, "hello");
        let descriptor = descriptor.unwrap();
        assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let inode = |socket: &OwnedFd| rustix::fs::fstat(socket).unwrap().st_ino;
        assert_eq!(inode(&descriptor), inode(&given));
    }

    #[test]
    fn an_empty_socket_is_not_ready_and_a_dropped_peer_is_closed() {
        let (left, right) = pair();
        assert!(matches!(received(&right), Err(SocketError::NotReady)));
        drop(left);
        assert!(matches!(received(&right), Err(SocketError::Closed)));
        assert!(matches!(send(right.as_fd(), &1u8, None), Err(SocketError::Closed)));
    }

    #[test]
    fn a_full_socket_is_not_ready_and_sends_nothing() {
        let (left, right) = pair();
        let text = "x".repeat(32 * 1024);
        let mut sent = 0;
        while send(left.as_fd(), &text, None).is_ok() {
            sent += 1;
        }
        assert!(matches!(send(left.as_fd(), &text, None), Err(SocketError::NotReady)));
        let mut seen = 0;
        while received(&right).is_ok() {
            seen += 1;
        }
        assert_eq!(seen, sent);
    }

    #[test]
    fn more_than_one_descriptor_is_a_violation() {
        let (left, right) = pair();
        for count in 2..=4 {
            send_raw(&left, b"\x02hi", &vec![left.as_fd(); count]);
            assert!(matches!(received(&right), Err(SocketError::Violation(_))), "{count} descriptors");
        }
    }

    #[test]
    fn oversized_trailing_and_malformed_bytes_are_refused() {
        let (left, right) = pair();
        send_raw(&left, &vec![0; MAX_MESSAGE + 10], &[]);
        assert!(matches!(received(&right), Err(SocketError::Violation("message over the size limit"))));
        send_raw(&left, b"\x02hi!", &[]);
        assert!(matches!(received(&right), Err(SocketError::Violation("bytes after the message"))));
        send_raw(&left, b"\xff\xff\xff\xff", &[]);
        assert!(matches!(received(&right), Err(SocketError::Decode(_))));
        let text = "y".repeat(MAX_MESSAGE);
        assert!(matches!(send(left.as_fd(), &text, None), Err(SocketError::TooLarge { .. })));
    }
}
