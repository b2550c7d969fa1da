//! The launcher's one table and what follows from a child's end or the clock.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ostler_wire::launcher::{DescriptorKind, Event, Files, Message, Reply};
use ostler_wire::{Failure, FailureKind};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::LauncherConfig;
use super::disk::{self, Disk};
use super::leases::Leases;
use super::link::{Caller, Link};
use super::sandboxes::{Because, Phase, RequestKey, Sandbox, Waiting};
use super::setup::{Listener, Lock};
use crate::cgroup::Cgroups;
use crate::step::failure;
use crate::store::Store;
use crate::worker::record::Record;

/// How often something that is only to be noticed by looking is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Everything that the launcher holds.
pub(super) struct Launcher {
    pub(super) config: LauncherConfig,
    pub(super) store: Store,
    pub(super) cgroups: Cgroups,
    pub(super) guest: OwnedFd,
    pub(super) signals: OwnedFd,
    pub(super) listener: Listener,
    /// Held until the process ends.
    pub(super) lock: Lock,

    pub(super) leases: Leases,
    /// Sandboxes without processes whose files are kept.
    pub(super) kept: BTreeMap<String, Record>,
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) waiting: VecDeque<Waiting>,
    /// Number of the last start of a sandbox.
    pub(super) last_instance: u64,
    /// Why the ones whose files are kept ended, where they did by themselves.
    pub(super) last_words: BTreeMap<String, String>,
    pub(super) disk: Disk,

    pub(super) callers: Vec<Caller>,
    pub(super) host: Option<Link>,
    /// Of connections that have ended, what their other end has not read: see [`super::link::MOST_DEPARTED`].
    pub(super) departed: Vec<OwnedFd>,
    pub(super) links: u64,
    /// Highest epoch seen.
    pub(super) epoch: u64,
    /// Since when there is no host.
    pub(super) alone_since: Option<Instant>,
    pub(super) stopping: Option<Stopping>,
}

/// The launcher is to end.
pub(super) struct Stopping {
    pub(super) request: Option<RequestKey>,
    pub(super) until: Instant,
}

impl Launcher {
    /// Answers a request, if the one who asked is still there.
    pub(super) fn reply(&mut self, request: RequestKey, answer: Result<Reply, Failure>) {
        self.send(request, Message::Reply(answer), None);
    }

    pub(super) fn send(&mut self, request: RequestKey, body: Message, descriptor: Option<Rc<OwnedFd>>) {
        let Some(host) = self.host.as_mut().filter(|host| host.number == request.link) else { return };
        if let Err(broken) = host.send(request.epoch, request.id, body, descriptor) {
            self.lose_host(&broken.0);
        }
    }

    /// The descriptors and then the sandbox itself.
    pub(super) fn hand_over(&mut self, request: RequestKey, id: &str) {
        let Some(sandbox) = self.sandboxes.get(id) else { return };
        let (Some(sockets), Some(init)) = (&sandbox.sockets, &sandbox.init) else { return };
        let descriptors = [
            (DescriptorKind::Control, Some(Rc::clone(&sockets.control))),
            (DescriptorKind::DoorTcp, sockets.door_tcp.clone()),
            (DescriptorKind::DoorDns, sockets.door_dns.clone()),
            (DescriptorKind::DoorDnsV6, sockets.door_dns_v6.clone()),
        ];
        let ready = ostler_wire::launcher::Sandbox {
            sandbox: id.to_owned(),
            instance: sandbox.instance,
            pid: init.pid.as_raw_nonzero().get(),
            uid_base: sandbox.record.ids().base,
            restored: sandbox.restored,
        };
        // What serves git has no door.
        for (kind, descriptor) in descriptors.into_iter().filter(|(_, descriptor)| descriptor.is_some()) {
            self.send(request, Message::Reply(Ok(Reply::Descriptor(kind))), descriptor);
        }
        self.reply(request, Ok(Reply::Ready(ready)));
    }

    pub(super) fn announce(&mut self, event: Event) {
        let epoch = self.epoch;
        let Some(link) = self.host.as_ref().map(|host| host.number) else { return };
        self.send(RequestKey { link, id: 0, epoch }, Message::Event(event), None);
    }

    /// The host is gone: what it was having made is of no use to the next one.
    pub(super) fn lose_host(&mut self, why: &str) {
        let Some(host) = self.host.take() else { return };
        self.departed.extend(host.into_unread());
        log(&format!("the host is gone: {why}"));
        self.alone_since = Some(Instant::now());
        self.waiting.clear();
        let starting: Vec<String> = self.with_phase(|phase| matches!(phase, Phase::Starting { .. }));
        for id in starting {
            self.fail(&id, failure(FailureKind::System, "create", "the host that asked is gone"));
        }
        self.end_services();
    }

    pub(super) fn with_phase(&self, wanted: impl Fn(&Phase) -> bool) -> Vec<String> {
        self.sandboxes.iter().filter(|(_, sandbox)| wanted(&sandbox.phase)).map(|(id, _)| id.clone()).collect()
    }

    /// Collects every child that has ended.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if !self.has_ended(pid, status) {
                // A worker may have ended, and its PID 1 after it, before its last report was read.
                self.read_reports();
                self.has_ended(pid, status);
            }
        }
    }

    /// Whether the process was one that is known.
    fn has_ended(&mut self, pid: Pid, status: WaitStatus) -> bool {
        let is = |known: &Option<Pid>| *known == Some(pid);
        let found = self.sandboxes.iter().find_map(|(id, sandbox)| {
            let init = sandbox.init.as_ref().map(|init| init.pid);
            let role = if is(&sandbox.worker) {
                Role::Worker
            } else if is(&init) {
                Role::Init
            } else if is(&sandbox.remover) {
                Role::Remover
            } else {
                return None;
            };
            Some((id.clone(), role))
        });
        let Some((id, role)) = found else { return disk::meter_ended(self, pid, status) };
        match role {
            Role::Worker => self.worker_ended(&id, status),
            Role::Init => self.init_ended(&id, status),
            Role::Remover => self.remover_ended(&id, status),
        }
        true
    }

    fn init_ended(&mut self, id: &str, status: WaitStatus) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.init = None;
        if matches!(sandbox.phase, Phase::Living) {
            let reached = self.out_of_memory(id).map(|reached| reached.to_string());
            let why = reached.unwrap_or_else(|| format!("its first process {}", in_words(status)));
            self.end(id, Because::Died { why }, Files::Keep);
        } else {
            self.advance(id);
        }
    }

    /// Does what is due by the clock.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        self.callers.retain(|caller| caller.until > now);
        let late = |waiting: &Waiting| waiting.deadline <= now;
        let (expired, waiting) = std::mem::take(&mut self.waiting).into_iter().partition::<VecDeque<_>, _>(late);
        self.waiting = waiting;
        for waiting in expired {
            let words = "no worker became free before the deadline";
            self.reply(waiting.request, Err(failure(FailureKind::Limit, "create", words)));
        }
        for id in self.with_phase(|phase| matches!(phase, Phase::Starting { deadline, .. } if *deadline <= now)) {
            self.fail(&id, failure(FailureKind::Limit, "create", "the deadline passed before the sandbox was ready"));
        }
        for id in self.with_phase(|phase| matches!(phase, Phase::Ending(_))) {
            self.advance(&id);
        }
        self.look_at_memory(now);
        self.look_at_disk(now);
        self.start_waiting();
        if self.stopping.is_none() && self.alone_since.is_some_and(|since| since + self.config.grace <= now) {
            log("no host within the grace time: ending everything");
            self.stop(None);
        }
    }

    /// How long nothing needs to be done.
    pub(super) fn pause(&self) -> Duration {
        let now = Instant::now();
        let looking = self.sandboxes.values().any(|sandbox| {
            let ending = matches!(sandbox.phase, Phase::Ending(_));
            sandbox.is_suspected() || ending && !sandbox.has_processes() && sandbox.remover.is_none()
        });
        let deadlines = self.sandboxes.values().filter_map(Sandbox::deadline);
        let waiting = self.waiting.iter().map(|waiting| waiting.deadline);
        let callers = self.callers.iter().map(|caller| caller.until);
        let grace = self.alone_since.map(|since| since + self.config.grace);
        let stopping = self.stopping.as_ref().map(|stopping| stopping.until);
        let next =
            deadlines.chain(waiting).chain(callers).chain(grace).chain(stopping).chain(self.disk.deadline()).min();
        let pause = next.map_or(Duration::from_secs(60), |next| next.saturating_duration_since(now));
        // A deadline that has passed and is being worked off is not waited for in a busy loop.
        let pause = pause.max(Duration::from_millis(1));
        if looking { pause.min(LOOK_AGAIN) } else { pause }
    }

    /// Begins to end everything and then the launcher.
    pub(super) fn stop(&mut self, request: Option<RequestKey>) {
        self.stop_measuring();
        self.stopping = Some(Stopping { request, until: Instant::now() + Duration::from_secs(20) });
        for waiting in std::mem::take(&mut self.waiting) {
            self.reply(waiting.request, Err(failure(FailureKind::System, "create", "the launcher is shutting down")));
        }
        for id in self.with_phase(|phase| matches!(phase, Phase::Starting { .. })) {
            self.fail(&id, failure(FailureKind::System, "create", "the launcher is shutting down"));
        }
        for id in self.with_phase(|phase| matches!(phase, Phase::Living)) {
            self.end(&id, Because::Asked, Files::Keep);
        }
    }

    /// Whether the launcher may exit now; answers the one who asked for it.
    pub(super) fn is_finished(&mut self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let (request, over_time) = (stopping.request, stopping.until <= Instant::now());
        if !self.sandboxes.is_empty() && !over_time {
            return false;
        }
        if let Some(request) = request {
            let left = self.sandboxes.len();
            let words = format!("{left} sandboxes did not end in time");
            let answer = if left == 0 { Ok(Reply::Done) } else { Err(failure(FailureKind::Limit, "shut down", words)) };
            self.reply(request, answer);
        }
        true
    }

    /// The last things before the process ends.
    pub(super) fn leave(&mut self) {
        if let Some(host) = &mut self.host {
            let _ = host.flush();
        }
        self.listener.remove();
        self.lock.forget();
    }

    pub(super) fn guest(&self) -> std::io::Result<OwnedFd> {
        self.guest.as_fd().try_clone_to_owned()
    }
}

enum Role {
    Worker,
    Init,
    Remover,
}

/// How a process ended.
pub(super) fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended with status {:#x}", status.as_raw()),
    }
}

/// One line on standard error, which the host keeps in a file.
pub(super) fn log(line: &str) {
    use std::io::Write as _;
    // A full disk must not end the launcher.
    let _ = writeln!(std::io::stderr(), "launcher: {line}");
}
