//! A user namespace with its uid map and the network namespace inside it, made together.
//!
//! A network namespace that another user namespace owns cannot be joined by a sandbox, so both are made by one
//! short-lived helper:
//!
//! ```text
//! worker                          helper
//!   fork ────────────────────────►  unshare(user, network)
//!   ◄──────────────────── Unshared
//!   writes uid_map and gid_map
//!   Mapped ──────────────────────►  becomes root of the namespace, sets up lo, address, route, rules
//!   ◄──────── Door(tcp) + fd, Door(dns) + fd, Ready
//!   opens both namespaces
//!   closes the socket ───────────►  exits
//! ```
//!
//! This module owns the pair and the door's sockets until they are handed over. It decides nothing about what
//! passes the door: that is the host's egress proxy.
#![expect(unsafe_code, reason = "unshare of namespaces is unsafe in rustix")]

pub(crate) mod netlink;
mod nft;
mod sockets;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ostler_wire::launcher::DescriptorKind;
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, FailureKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::process;
use crate::step::{Step, failure};

/// The port inside the namespace to which every TCP connection is redirected.
pub(crate) const DOOR_PORT: u16 = nft::TCP_PORT;

/// Uids and gids of one sandbox.
pub(crate) const RANGE: u32 = 65_536;

/// Longest wait for one message of the helper.
const PATIENCE: Duration = Duration::from_secs(20);

/// The namespaces of a sandbox and the sockets of its door.
pub(crate) struct Pair {
    pub(crate) user: OwnedFd,
    pub(crate) network: OwnedFd,
    pub(crate) door_tcp: OwnedFd,
    pub(crate) door_dns: OwnedFd,
}

#[derive(Debug, Serialize, Deserialize)]
enum FromHelper {
    Unshared,
    Door(DescriptorKind),
    Ready,
    Failed(Failure),
}

/// Not a unit: an empty message would look like a closed socket.
#[derive(Debug, Serialize, Deserialize)]
struct Mapped {
    uid_base: u32,
}

/// Makes a pair whose uid 0 is `uid_base` on the host.
pub(crate) fn make(uid_base: u32) -> Result<Pair, Failure> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make socket pair", || "for the namespace helper".to_owned())?;
    let helper = process::fork(move || run_helper(theirs)).step("fork", || "the namespace helper".to_owned())?;
    let made = collect(ours.as_fd(), helper, uid_base);
    drop(ours);
    if made.is_err() {
        let _ = rustix::process::kill_process(helper, rustix::process::Signal::KILL);
    }
    // The helper ends when its socket closes or by the signal above.
    let _ = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    made
}

fn collect(helper: BorrowedFd<'_>, pid: Pid, uid_base: u32) -> Result<Pair, Failure> {
    let pid = pid.as_raw_nonzero();
    let (mut door_tcp, mut door_dns) = (None, None);
    loop {
        match wait_for::<FromHelper>(helper)? {
            (FromHelper::Unshared, _) => {
                for file in ["uid_map", "gid_map"] {
                    let path = format!("/proc/{pid}/{file}");
                    let map = format!("0 {uid_base} {RANGE}\n");
                    std::fs::write(&path, &map).step("write id map", || format!("{} to {path}", map.trim()))?;
                }
                socket::send(helper, &Mapped { uid_base }, None).map_err(lost)?;
            }
            (FromHelper::Door(DescriptorKind::DoorTcp), descriptor) => door_tcp = descriptor,
            (FromHelper::Door(DescriptorKind::DoorDns), descriptor) => door_dns = descriptor,
            (FromHelper::Door(DescriptorKind::Control | DescriptorKind::Minted), _) => {}
            (FromHelper::Failed(failed), _) => return Err(failed),
            (FromHelper::Ready, _) => break,
        }
    }
    let namespace = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).step("open namespace", || path)
    };
    let missing = || failure(FailureKind::System, "open door", "the namespace helper sent no sockets");
    Ok(Pair {
        user: namespace("user")?,
        network: namespace("net")?,
        door_tcp: door_tcp.ok_or_else(missing)?,
        door_dns: door_dns.ok_or_else(missing)?,
    })
}

/// The helper process. Returns its exit status.
fn run_helper(worker: OwnedFd) -> i32 {
    let prepared = process::become_child(c"ostler-pair").and_then(|()| process::keep_only(vec![worker]));
    let Some(worker) = prepared.ok().and_then(|mut kept| kept.pop()) else { return 1 };
    match help(worker.as_fd()) {
        Ok(()) => 0,
        Err(failed) => i32::from(socket::send(worker.as_fd(), &FromHelper::Failed(failed), None).is_err()) + 1,
    }
}

fn help(worker: BorrowedFd<'_>) -> Result<(), Failure> {
    // SAFETY: this process has one thread and shares nothing but its descriptors with the worker.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }
        .step("unshare", || "a user and a network namespace".to_owned())?;
    socket::send(worker, &FromHelper::Unshared, None).map_err(lost)?;
    let (Mapped { .. }, _) = wait_for(worker)?;
    let root = (rustix::process::Gid::ROOT, rustix::process::Uid::ROOT);
    rustix::thread::set_thread_res_gid(root.0, root.0, root.0)
        .and_then(|()| rustix::thread::set_thread_res_uid(root.1, root.1, root.1))
        .step("become root of the namespace", || "setresgid and setresuid".to_owned())?;
    netlink::bring_up_loopback()?;
    nft::install()?;
    for (kind, made) in [(DescriptorKind::DoorTcp, sockets::tcp()?), (DescriptorKind::DoorDns, sockets::dns()?)] {
        socket::send(worker, &FromHelper::Door(kind), Some(made.as_fd())).map_err(lost)?;
    }
    socket::send(worker, &FromHelper::Ready, None).map_err(lost)?;
    // Keeps the namespaces alive until the worker has opened them and hangs up.
    let _ = wait_for::<Mapped>(worker);
    Ok(())
}

/// Waits for one message, at most [`PATIENCE`].
fn wait_for<T: serde::de::DeserializeOwned>(from: BorrowedFd<'_>) -> Result<(T, Option<OwnedFd>), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match socket::receive(from) {
            Err(SocketError::NotReady) => {}
            received => return received.map_err(lost),
        }
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            return Err(failure(FailureKind::Limit, "make namespaces", "the namespace helper did not answer in time"));
        };
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).step("poll", || "the namespace helper".to_owned()),
        }
    }
}

fn lost(error: SocketError) -> Failure {
    failure(FailureKind::System, "make namespaces", format!("the namespace helper was lost: {error}"))
}
