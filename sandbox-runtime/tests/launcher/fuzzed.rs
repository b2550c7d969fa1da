//! A hundred thousand requests that no honest host would send, to a launcher with a living sandbox.
//!
//! The same in every run. What comes: noise, valid requests with bytes changed, valid ones with random fields, descriptors,
//! callers that say half a hello or nothing, hosts that never read an answer, many of them at once. What would end the
//! launcher or the living sandbox by its plain meaning is left out.

use std::collections::VecDeque;
use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ostler_sandbox::client::launcher::{Launcher, LauncherClientError};
use ostler_wire::launcher::{
    Family, Files, FromLauncher, Limits, Message, Reply, RepositoryAccess, Request, ToLauncher,
};
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{MAX_MESSAGE, VERSION};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};

use crate::support::{Bench, LIMITS, done, eventually, processes_where, readable, words};

const REQUESTS: u32 = 100_000;

/// After so many the launcher has grown to its size.
const WARM_UP: u32 = 20_000;

/// Of the first host.
const EPOCH: u64 = 1000;

/// Callers at one time that never say who they are: more than the launcher keeps.
const CALLERS: usize = 12;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// A number near a limit of its type, or any.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(300),
            1 => u64::MAX - self.below(3),
            2 => 1 << self.below(64),
            _ => self.next(),
        }
    }
}

/// Makes requests and what only looks like them.
struct Maker {
    /// The highest that was seen, so that what is said next is looked at.
    epoch: u64,
    chance: Chance,
    image: String,
    ids: Vec<String>,
    living: String,
}

impl Maker {
    fn text(&mut self) -> String {
        let chance = &mut self.chance;
        match chance.below(6) {
            0 => String::new(),
            1 => "../".repeat(chance.below(40) as usize),
            2 => "é\0/".repeat(chance.below(2000) as usize),
            3 => self.image.clone(),
            4 => self.living.clone(),
            _ => self.ids[self.chance.below(self.ids.len() as u64) as usize].clone(),
        }
    }

    fn limits(&mut self) -> Limits {
        if self.chance.one_in(3) {
            return LIMITS;
        }
        let chance = &mut self.chance;
        Limits {
            memory: chance.number(),
            pids: chance.number() as u32,
            cpu_millis: chance.number() as u32,
            cpu_weight: chance.number() as u32,
            io_weight: chance.number() as u32,
            disk: chance.number(),
            files: chance.number(),
        }
    }

    fn valid(&mut self) -> ToLauncher {
        let body = match self.chance.below(10) {
            0 => Request::Hello { version: if self.chance.one_in(2) { VERSION } else { self.chance.next() as u16 } },
            1 | 2 => Request::Create { sandbox: self.text(), image: self.text(), limits: self.limits() },
            3 | 4 => Request::Reclaim { sandbox: self.text() },
            5 | 6 => {
                let files = if self.chance.one_in(2) { Files::Keep } else { Files::Remove };
                Request::Destroy { sandbox: self.text(), files }
            }
            7 => {
                let family = if self.chance.one_in(2) { Family::V4 } else { Family::V6 };
                Request::Mint { sandbox: self.text(), family, count: self.chance.number() as u32 }
            }
            8 => {
                let access = if self.chance.one_in(2) { RepositoryAccess::Read } else { RepositoryAccess::Write };
                Request::OpenRepository { sandbox: self.text(), repository: self.text(), access, limits: self.limits() }
            }
            _ => Request::Shutdown,
        };
        let epoch = if self.chance.one_in(8) { self.chance.number() } else { self.epoch };
        ToLauncher { epoch, id: self.chance.number(), deadline_ms: self.chance.below(200) as u32, body }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let kind = self.chance.below(10);
        if kind == 0 {
            let length = 1 + self.chance.below(400);
            return self.chance.bytes(length);
        }
        if self.chance.one_in(200) {
            let length = MAX_MESSAGE as u64 - 2 + self.chance.below(5);
            return self.chance.bytes(length);
        }
        let valid = self.valid();
        let mut bytes = socket::encode(&valid).unwrap_or_default();
        if kind < 6 && !bytes.is_empty() {
            for _ in 0..=self.chance.below(3) {
                let place = self.chance.below(bytes.len() as u64) as usize;
                match self.chance.below(4) {
                    0 => bytes[place] = self.chance.next() as u8,
                    1 => bytes[place] ^= 1 << self.chance.below(8),
                    2 => bytes.truncate(place.max(1)),
                    _ => bytes.insert(place, 0xff),
                }
            }
        }
        bytes
    }

    /// The next message, if it is none that does by right what this test must not see done.
    fn message(&mut self) -> Option<Vec<u8>> {
        let bytes = self.bytes();
        let meaning = socket_meaning(&bytes);
        let spares = match meaning.map(|message| message.body) {
            Some(Request::Shutdown) => false,
            Some(Request::Destroy { sandbox, .. }) => sandbox != self.living,
            _ => true,
        };
        spares.then_some(bytes)
    }
}

/// What a message means by the launcher's own way of reading it.
fn socket_meaning(bytes: &[u8]) -> Option<ToLauncher> {
    let (message, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(message)
}

#[derive(PartialEq, Eq)]
enum Sent {
    Arrives,
    /// The kernel did not take it, because of its descriptors or its size.
    Refused,
    /// Nobody reads it.
    HungUp,
}

/// Sends a message, waiting for room.
fn send(to: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Sent {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    match sent {
        Ok(_) => Sent::Arrives,
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Sent::HungUp,
        Err(_) => Sent::Refused,
    }
}

fn dial(bench: &Bench) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(&bench.config.socket).unwrap()).unwrap();
    socket
}

fn hello(epoch: u64) -> Vec<u8> {
    let hello = ToLauncher { epoch, id: 1, deadline_ms: 1000, body: Request::Hello { version: VERSION } };
    socket::encode(&hello).unwrap()
}

/// Sends `count` messages that the launcher reads: after one that it hangs up on, there is a new connection. Few answers are read.
fn bombard(bench: &Bench, maker: &mut Maker, count: u32) {
    let mut silent = VecDeque::new();
    let mut sent = 0;
    while sent < count {
        let host = dial(bench);
        let hello = hello(maker.epoch);
        // The rest of what it would say comes after a hello, or in its place.
        let mut goes_on = maker.chance.one_in(20)
            || send(&host, &hello, &[]) == Sent::Arrives && {
                readable(host.as_fd());
                let answer = socket::receive::<FromLauncher>(host.as_fd()).map(|(answer, _)| answer);
                // One that was made of noise said that it is of a later epoch.
                maker.epoch = answer.as_ref().map_or(maker.epoch, |answer| answer.epoch);
                answer.is_ok_and(|answer| matches!(answer.body, Message::Reply(Ok(Reply::Welcome { .. }))))
            };
        while goes_on && sent < count {
            let Some(bytes) = maker.message() else { continue };
            let held = dial_nothing();
            let descriptors = match maker.chance.one_in(50) {
                true => vec![held.as_fd(); 1 + maker.chance.below(4) as usize],
                false => Vec::new(),
            };
            let said = send(&host, &bytes, &descriptors);
            sent += u32::from(said == Sent::Arrives);
            // What cannot be read, or came with a descriptor, is the last that is read.
            goes_on = said == Sent::Refused || said == Sent::Arrives && socket_meaning(&bytes).is_some();
            if maker.chance.one_in(4) {
                let _ = socket::receive::<FromLauncher>(host.as_fd());
            }
            if maker.chance.one_in(2000) {
                break;
            }
        }
        if !goes_on {
            // Who hangs up first is not read to the end.
            wait_for_hang_up(&host);
        }
        if maker.chance.one_in(10) {
            // One that says nothing, or half of a hello, and stays.
            let caller = dial(bench);
            let half = maker.chance.below(3) as usize;
            if half > 0 {
                send(&caller, &hello[..half], &[]);
            }
            silent.push_back(caller);
            silent.drain(..silent.len().saturating_sub(CALLERS));
        }
    }
}

fn wait_for_hang_up(host: &OwnedFd) {
    loop {
        readable(host.as_fd());
        if matches!(socket::receive::<FromLauncher>(host.as_fd()), Err(SocketError::Closed | SocketError::Io(_))) {
            return;
        }
    }
}

/// A descriptor to send along.
fn dial_nothing() -> OwnedFd {
    rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap()
}

fn descriptors(bench: &Bench) -> usize {
    fs::read_dir(format!("/proc/{}/fd", bench.pid())).unwrap().count()
}

/// Memory of the launcher's own, in KiB.
fn memory(bench: &Bench) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", bench.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Children of the launcher that are none of the living sandbox's.
fn other_children(bench: &Bench, living: i32) -> Vec<i32> {
    let parent = bench.pid().to_string();
    let is_child = |status: &str| status.lines().any(|line| line.strip_prefix("PPid:").map(str::trim) == Some(&parent));
    processes_where("status", is_child).into_iter().filter(|pid| *pid != living).collect()
}

/// As an honest host, which goes on from the highest epoch.
async fn connect_after(bench: &Bench, maker: &mut Maker) -> (Launcher, Vec<String>) {
    if let Err(LauncherClientError::Stale { highest, .. }) = Launcher::connect(&bench.config.socket, 0).await {
        maker.epoch = highest;
    }
    bench.connect(maker.epoch).await
}

#[tokio::test]
async fn a_hundred_thousand_hostile_requests_leave_the_launcher_and_a_living_sandbox_as_they_were() {
    let bench = Bench::with(|config| config.most_sandboxes = 6);
    let (launcher, _) = bench.connect(EPOCH).await;
    let living = bench.id(0);
    let started = bench.create(&launcher, &living).await;
    done(&started.control, "write /workspace/note mine");
    let ids = (1..5).map(|number| bench.id(number)).collect();
    let mut maker = Maker {
        epoch: EPOCH,
        chance: Chance(0x0571_e45e_ed00_0001),
        image: bench.image.clone(),
        ids,
        living: living.clone(),
    };

    let mut sizes = Vec::new();
    for count in [WARM_UP, REQUESTS - WARM_UP] {
        bombard(&bench, &mut maker, count);
        // An honest host comes after and finds everything in order.
        let (launcher, others) = connect_after(&bench, &mut maker).await;
        for id in (1..5).map(|number| bench.id(number)).chain(others).filter(|id| *id != living) {
            launcher.destroy(&id, Files::Remove).await.unwrap_or_else(|error| panic!("{}", words(&error)));
        }
        let again = launcher.reclaim(&living).await.unwrap_or_else(|error| panic!("{}", words(&error)));
        assert_eq!(again.info.pid, started.info.pid);
        eventually("no child but the sandbox", || other_children(&bench, started.info.pid).is_empty());
        sizes.push((descriptors(&bench), memory(&bench)));
        drop((again, launcher));
    }
    let [(descriptors_before, memory_before), (descriptors_after, memory_after)] = sizes[..] else { unreachable!() };
    assert!(descriptors_after <= descriptors_before, "{descriptors_before} descriptors became {descriptors_after}");
    assert!(memory_after <= memory_before + 2048, "{memory_before} KiB became {memory_after}");
    assert_eq!(done(&started.control, "read /workspace/note"), "mine");
    let (launcher, _) = connect_after(&bench, &mut maker).await;
    done(&bench.create(&launcher, &bench.id(9)).await.control, "ping");
}
