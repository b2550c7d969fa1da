//! Sockets made inside a sandbox's network namespace, with which the host reaches what listens there.
//!
//! ```text
//! launcher ── fork ──► child: joins the namespaces of PID 1, makes the sockets, sends each, ends
//!     ◄──── socket, socket, … ──┘
//! ```
//!
//! A socket belongs to the namespace that it was made in, wherever its descriptor goes; the host connects it to an address of
//! the sandbox and to nothing else, because there is nothing else. What runs in the sandbox has no part in this: the child is
//! in none of its process namespaces. It does two kinds of system calls that never wait, so the launcher waits for its sockets, but
//! never longer than [`PATIENCE`], and not for its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ostler_wire::launcher::{DescriptorKind, Family, MAX_MINTED, Message, Reply};
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, FailureKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};
use rustix::process::{Signal, kill_process};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

use super::sandboxes::{Phase, RequestKey};
use super::starting::check_id;
use super::state::Launcher;
use crate::process;
use crate::step::{Step, failure};

/// Longest that all sockets of one request may take. Measured: less than 1 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// Descriptors that a host may let wait before it gets no further sockets. What it does not read stays open in the kernel, where no limit
/// of the host's or the launcher's counts it; a full socket holds about 300.
const MOST_WAITING: usize = 64;

/// What the child sends: each socket, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
enum Minted {
    Socket,
    Failed(Failure),
}

impl Launcher {
    /// Answers with as many descriptors as were asked for.
    pub(super) fn mint(&mut self, request: RequestKey, id: &str, family: Family, count: u32) {
        match self.minted(id, family, count) {
            Ok(sockets) => {
                for socket in sockets {
                    let reply = Message::Reply(Ok(Reply::Descriptor(DescriptorKind::Minted)));
                    self.send(request, reply, Some(Rc::new(socket)));
                }
                self.reply(request, Ok(Reply::Done));
            }
            Err(refused) => self.reply(request, Err(refused)),
        }
    }

    fn minted(&self, id: &str, family: Family, count: u32) -> Result<Vec<OwnedFd>, Failure> {
        check_id(id)?;
        if !(1..=MAX_MINTED).contains(&count) {
            let words = format!("{count} sockets; 1 to {MAX_MINTED} are possible");
            return Err(failure(FailureKind::Invalid, "mint", words));
        }
        if self.host.as_ref().is_some_and(|host| host.waiting_descriptors() > MOST_WAITING) {
            let words = format!("{MOST_WAITING} descriptors that were sent before wait to be read");
            return Err(failure(FailureKind::Limit, "mint", words));
        }
        let living = self.sandboxes.get(id).filter(|sandbox| matches!(sandbox.phase, Phase::Living));
        let Some(init) = living.and_then(|sandbox| sandbox.init.as_ref()) else {
            return Err(failure(FailureKind::NotFound, "mint", format!("sandbox {id} does not live")));
        };
        mint(init.descriptor.as_fd(), family, count)
    }
}

fn mint(init: BorrowedFd<'_>, family: Family, count: u32) -> Result<Vec<OwnedFd>, Failure> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make socket pair", || "for minting".to_owned())?;
    let child = process::fork(|| match make(init, family, count, theirs.as_fd()) {
        Ok(()) => 0,
        Err(failed) => i32::from(socket::send(theirs.as_fd(), &Minted::Failed(failed), None).is_err()) + 1,
    })
    .step("fork", || "for minting".to_owned())?;
    drop(theirs);
    let made = collect(ours.as_fd(), count);
    if made.is_err() {
        let _ = kill_process(child, Signal::KILL);
    }
    // It is collected with every other child that has ended.
    made
}

/// The child's part.
fn make(init: BorrowedFd<'_>, family: Family, count: u32, to: BorrowedFd<'_>) -> Result<(), Failure> {
    // The user namespace, too: in it the right to enter the other one is there, whoever the launcher is.
    move_into_thread_name_spaces(init, ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK)
        .step("enter namespaces", || "of the sandbox".to_owned())?;
    let domain = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    for _ in 0..count {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made =
            socket_with(domain, SocketType::STREAM, flags, None).step("make socket", || format!("{family:?}"))?;
        // The socket pair has room for more than the largest number of these.
        let lost = |error: SocketError| failure(FailureKind::System, "mint", format!("handing over a socket: {error}"));
        socket::send(to, &Minted::Socket, Some(made.as_fd())).map_err(lost)?;
    }
    Ok(())
}

fn collect(from: BorrowedFd<'_>, count: u32) -> Result<Vec<OwnedFd>, Failure> {
    let until = Instant::now() + PATIENCE;
    let mut sockets = Vec::new();
    while sockets.len() < count as usize {
        match socket::receive::<Minted>(from) {
            Ok((Minted::Socket, Some(socket))) => sockets.push(socket),
            Ok((Minted::Socket, None)) => {
                return Err(failure(FailureKind::Limit, "mint", "the launcher has no room for another descriptor"));
            }
            Ok((Minted::Failed(failed), _)) => return Err(failed),
            Err(SocketError::NotReady) => wait(from, until)?,
            Err(error) => return Err(failure(FailureKind::System, "mint", format!("the helper was lost: {error}"))),
        }
    }
    Ok(sockets)
}

fn wait(from: BorrowedFd<'_>, until: Instant) -> Result<(), Failure> {
    let Some(left) = until.checked_duration_since(Instant::now()) else {
        return Err(failure(FailureKind::Limit, "mint", format!("no socket within {} s", PATIENCE.as_secs())));
    };
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)], Some(&left)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).step("poll", || "the minting helper".to_owned()),
    }
}
