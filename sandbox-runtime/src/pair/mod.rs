//! A user namespace with its uid map and the network namespace inside it, made together.
//!
//! A network namespace that another user namespace owns cannot be joined by a sandbox, so both are made by one
//! short-lived helper:
//!
//! ```text
//! worker                          helper
//!   fork ────────────────────────►  unshare(user, network)
//!   ◄──────────────────── Unshared
//!   opens both namespaces, while it is still the helper's user and needs no right to look into other processes
//!   writes uid_map and gid_map
//!   Mapped ──────────────────────►  becomes root of the namespace, sets up lo, address, route, rules
//!   ◄──────── Door(tcp) + fd, Door(dns) + fd, Door(dns over IPv6) + fd, Ready
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

use crate::ids::{Map, Range, WHOLE};
use crate::process;
use crate::step::{Step, failure};

/// The port inside the namespace to which every TCP connection is redirected.
pub(crate) const DOOR_PORT: u16 = nft::TCP_PORT;

/// Longest wait for one message of the helper.
const PATIENCE: Duration = Duration::from_secs(20);

/// The namespaces of a sandbox.
pub(crate) struct Pair {
    pub(crate) user: OwnedFd,
    pub(crate) network: OwnedFd,
    /// The sockets of its door, each with what it is: TCP, DNS, and DNS over IPv6 where the machine has it. None where the
    /// network holds nothing but a loopback that is down.
    pub(crate) door: Vec<(DescriptorKind, OwnedFd)>,
}

/// What a helper is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Namespaces with a door.
    Door,
    /// Namespaces without one.
    Closed,
    /// A user namespace, for its map.
    Map,
}

#[derive(Debug, Serialize, Deserialize)]
enum FromHelper {
    Unshared,
    Door(DescriptorKind),
    Ready,
    Failed(Failure),
}

/// With a byte: an empty message would look like a closed socket.
#[derive(Debug, Serialize, Deserialize)]
struct Mapped(u8);

/// Makes a pair whose ids are those of the range outside, with a door.
pub(crate) fn make(ids: Range) -> Result<Pair, Failure> {
    let pair = help_make(Wanted::Door, &ids.maps(), &ids.maps())?;
    for wanted in [DescriptorKind::DoorTcp, DescriptorKind::DoorDns] {
        if pair.door.iter().all(|(kind, _)| *kind != wanted) {
            return Err(failure(FailureKind::System, "open door", "the namespace helper sent no sockets"));
        }
    }
    Ok(pair)
}

/// [`make`] without a door: no way leads out of the network namespace, nor into it.
pub(crate) fn make_closed(ids: Range) -> Result<Pair, Failure> {
    help_make(Wanted::Closed, &ids.maps(), &ids.maps())
}

/// [`make_closed`] with one user and one group in it, who are `uid` and `gid` outside.
pub(crate) fn make_closed_for(uid: u32, gid: u32) -> Result<Pair, Failure> {
    help_make(Wanted::Closed, &[Map(0, uid, 1)], &[Map(0, gid, 1)])
}

/// [`make_closed`] with the ids of a whole range as they are outside: for who writes files with the ids of an image where no mount
/// can show them otherwise. Namespaces differ in their rights all the same.
pub(crate) fn make_closed_with_same_ids() -> Result<Pair, Failure> {
    // Root of a user namespace is alone in a line of its map, see `standing`.
    let same = [Map(0, 0, 1), Map(1, 1, WHOLE - 1)];
    help_make(Wanted::Closed, &same, &same)
}

/// A user namespace for a mount on which the files of one user and one group appear as those of `target`, and what
/// `target` makes becomes theirs. Nobody else's files can be made or changed through such a mount.
pub(crate) fn map_owner(uid: u32, gid: u32, target: u32) -> Result<OwnedFd, Failure> {
    help_make(Wanted::Map, &[Map(uid, target, 1)], &[Map(gid, target, 1)]).map(|made| made.user)
}

fn help_make(wanted: Wanted, uids: &[Map], gids: &[Map]) -> Result<Pair, Failure> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make socket pair", || "for the namespace helper".to_owned())?;
    let helper =
        process::fork(move || run_helper(theirs, wanted)).step("fork", || "the namespace helper".to_owned())?;
    let made = collect(ours.as_fd(), helper, uids, gids);
    drop(ours);
    if made.is_err() {
        let _ = rustix::process::kill_process(helper, rustix::process::Signal::KILL);
    }
    // The helper ends when its socket closes or by the signal above.
    let _ = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    made
}

fn collect(helper: BorrowedFd<'_>, pid: Pid, uids: &[Map], gids: &[Map]) -> Result<Pair, Failure> {
    let pid = pid.as_raw_nonzero();
    let (mut namespaces, mut door) = (None, Vec::new());
    let namespace = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).step("open namespace", || path)
    };
    loop {
        match wait_for::<FromHelper>(helper)? {
            (FromHelper::Unshared, _) => {
                namespaces = Some((namespace("user")?, namespace("net")?));
                for (file, maps) in [("uid_map", uids), ("gid_map", gids)] {
                    let path = format!("/proc/{pid}/{file}");
                    let line = |Map(inside, outside, count): &Map| format!("{inside} {outside} {count}\n");
                    let map: String = maps.iter().map(line).collect();
                    std::fs::write(&path, &map).step("write id map", || format!("{} to {path}", map.trim()))?;
                }
                socket::send(helper, &Mapped(0), None).map_err(lost)?;
            }
            (FromHelper::Door(kind), descriptor) => door.extend(descriptor.map(|descriptor| (kind, descriptor))),
            (FromHelper::Failed(failed), _) => return Err(failed),
            (FromHelper::Ready, _) => break,
        }
    }
    let missing =
        || failure(FailureKind::System, "make namespaces", "the namespace helper did not say that it has them");
    let (user, network) = namespaces.ok_or_else(missing)?;
    Ok(Pair { user, network, door })
}

/// The helper process. Returns its exit status.
fn run_helper(worker: OwnedFd, wanted: Wanted) -> i32 {
    let prepared = process::become_child(c"ostler-pair").and_then(|()| process::keep_only(vec![worker]));
    let Some(worker) = prepared.ok().and_then(|mut kept| kept.pop()) else { return 1 };
    match help(worker.as_fd(), wanted) {
        Ok(()) => 0,
        Err(failed) => i32::from(socket::send(worker.as_fd(), &FromHelper::Failed(failed), None).is_err()) + 1,
    }
}

fn help(worker: BorrowedFd<'_>, wanted: Wanted) -> Result<(), Failure> {
    let (flags, words) = match wanted {
        Wanted::Door | Wanted::Closed => {
            (UnshareFlags::NEWUSER | UnshareFlags::NEWNET, "a user and a network namespace")
        }
        Wanted::Map => (UnshareFlags::NEWUSER, "a user namespace"),
    };
    // SAFETY: this process has one thread and shares nothing but its descriptors with the worker.
    unsafe { rustix::thread::unshare_unsafe(flags) }.step("unshare", || words.to_owned())?;
    socket::send(worker, &FromHelper::Unshared, None).map_err(lost)?;
    let (Mapped(_), _) = wait_for(worker)?;
    if wanted == Wanted::Door {
        make_door(worker)?;
    }
    socket::send(worker, &FromHelper::Ready, None).map_err(lost)?;
    // Keeps the namespaces alive until the worker has opened them and hangs up.
    let _ = wait_for::<Mapped>(worker);
    Ok(())
}

fn make_door(worker: BorrowedFd<'_>) -> Result<(), Failure> {
    let root = (rustix::process::Gid::ROOT, rustix::process::Uid::ROOT);
    rustix::thread::set_thread_res_gid(root.0, root.0, root.0)
        .and_then(|()| rustix::thread::set_thread_res_uid(root.1, root.1, root.1))
        .step("become root of the namespace", || "setresgid and setresuid".to_owned())?;
    netlink::bring_up_loopback()?;
    let ipv6 = netlink::bring_up_ipv6()?;
    nft::install()?;
    let mut made = vec![(DescriptorKind::DoorTcp, sockets::tcp(ipv6)?), (DescriptorKind::DoorDns, sockets::dns()?)];
    if ipv6 {
        made.push((DescriptorKind::DoorDnsV6, sockets::dns_v6()?));
    }
    for (kind, made) in made {
        socket::send(worker, &FromHelper::Door(kind), Some(made.as_fd())).map_err(lost)?;
    }
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
