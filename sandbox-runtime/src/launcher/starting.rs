//! From a create to a living sandbox.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ostler_wire::launcher::{DescriptorKind, Files, Limits};
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, FailureKind};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitStatus};

use super::limits;
use super::running;
use super::sandboxes::{Because, Init, Phase, Purpose, RequestKey, Sandbox, Sockets, Waiting};
use super::state::{Launcher, in_words};
use crate::ids::Range;
use crate::process;
use crate::standing::Standing;
use crate::step::{Step, failure};
use crate::store::ImageId;
use crate::worker::record::Record;
use crate::worker::{self, Descriptors, Job, Report};

/// Messages of one worker that are read at one time.
const MOST_REPORTS: usize = 8;

/// Creates that may wait for a worker.
const MOST_WAITING: usize = 256;

/// The longest that a create may take, whatever the host is ready to wait.
const LONGEST: Duration = Duration::from_secs(300);

impl Launcher {
    pub(super) fn create(
        &mut self,
        request: RequestKey,
        sandbox: String,
        purpose: Purpose,
        limits: Limits,
        wait: Duration,
    ) {
        match self.admit(&sandbox, &purpose, limits) {
            Err(refused) => self.reply(request, Err(refused)),
            Ok(()) => {
                let deadline = Instant::now() + wait.min(LONGEST);
                self.waiting.push_back(Waiting { request, sandbox, purpose, limits, deadline });
                self.start_waiting();
            }
        }
    }

    fn admit(&self, id: &str, purpose: &Purpose, limits: Limits) -> Result<(), Failure> {
        check_id(id)?;
        let refuse = |kind, words: String| Err(failure(kind, "create", words));
        match purpose {
            Purpose::Workspace(image) if ImageId::parse(image).is_none() => {
                let words = format!("image {image:?} is not sha256: and 64 hexadecimal digits");
                return refuse(FailureKind::Invalid, words);
            }
            Purpose::Git(_) if self.kept.contains_key(id) => {
                return refuse(FailureKind::Exists, format!("{id} is the name of a workspace"));
            }
            Purpose::Workspace(_) | Purpose::Git(_) => {}
        }
        let allowed = match purpose {
            Purpose::Workspace(_) => self.config.most_of_workspaces,
            Purpose::Git(_) => self.config.most_of_git,
        };
        limits::check(limits, allowed)?;
        if self.sandboxes.contains_key(id) || self.waiting.iter().any(|waiting| waiting.sandbox == id) {
            return refuse(FailureKind::Exists, format!("sandbox {id} exists already"));
        }
        if self.stopping.is_some() {
            return refuse(FailureKind::System, "the launcher is shutting down".to_owned());
        }
        if self.sandboxes.len() + self.waiting.len() >= self.config.most_sandboxes {
            return refuse(FailureKind::Limit, format!("{} sandboxes live already", self.config.most_sandboxes));
        }
        if self.waiting.len() >= MOST_WAITING {
            return refuse(FailureKind::Limit, format!("{MOST_WAITING} creates wait already"));
        }
        Ok(())
    }

    /// Starts workers for what waits, as many as may run.
    pub(super) fn start_waiting(&mut self) {
        let starting = |sandbox: &&Sandbox| matches!(sandbox.phase, Phase::Starting { .. });
        while self.sandboxes.values().filter(starting).count() < self.config.most_workers {
            // Two hosts' gits never work on the same files; what is left of the other ends in a moment.
            let may_start = |waiting: &Waiting| {
                matches!(waiting.purpose, Purpose::Workspace(_)) || !self.has_service_of_another(waiting.request.link)
            };
            let Some(next) = self.waiting.iter().position(may_start) else { return };
            let Some(waiting) = self.waiting.remove(next) else { return };
            let request = waiting.request;
            if let Err(failed) = self.start(waiting) {
                self.reply(request, Err(failed));
            }
        }
    }

    fn start(&mut self, waiting: Waiting) -> Result<(), Failure> {
        let Waiting { request, sandbox: id, purpose, limits, deadline } = waiting;
        let pair = |what: &str| {
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("make socket pair", || format!("for the {what} of {id}"))
        };
        let (control, guest_end) = pair("control socket")?;
        let (report, worker_end) = pair("worker")?;
        let guest = self.guest().step("duplicate", || "the guest program".to_owned())?;
        let kept = self.kept.remove(&id);
        let restored = kept.is_some();
        let (image, repository) = match purpose {
            Purpose::Workspace(image) => (image, None),
            Purpose::Git(repository) => (String::new(), Some(repository)),
        };
        let service_of = repository.is_some().then_some(request.link);
        let record = match kept {
            Some(record) => record,
            None => Record::new(id.clone(), image, self.ids_for(repository.as_ref())?),
        };
        let job = Job {
            record: record.clone(),
            repository,
            limits,
            store: self.store.clone(),
            cgroups: self.cgroups.clone(),
            mount_point: self.config.state.clone(),
            weakened: self.config.weakened.clone(),
            certificates: self.config.certificates.clone(),
        };
        let descriptors = Descriptors { control: guest_end, report: worker_end, guest };
        let forked = self.cgroups.make_unified(&id).and_then(|group| {
            process::fork_into(group.as_ref().map(AsFd::as_fd), || worker::run(&job, descriptors))
                .step("fork", || format!("a worker for {id}"))
        });
        let worker = match forked {
            Ok(worker) => worker,
            Err(failed) => {
                let _ = self.cgroups.remove(&id);
                self.put_back(record, restored);
                return Err(failed);
            }
        };
        self.last_instance += 1;
        self.last_words.remove(&id);
        let sandbox = Sandbox {
            record,
            instance: self.last_instance,
            restored,
            limits,
            allowed: None,
            memory: None,
            service_of,
            phase: Phase::Starting { request, deadline },
            sockets: Some(Sockets { control: Rc::new(control), door_tcp: None, door_dns: None, door_dns_v6: None }),
            report: Some(report),
            worker: Some(worker),
            init: None,
            remover: None,
        };
        self.sandboxes.insert(id, sandbox);
        Ok(())
    }

    /// Uids and gids for a new sandbox: a range of its own. What cannot be shown as another's is worked on by its owner.
    fn ids_for(&mut self, repository: Option<&worker::Repository>) -> Result<Range, Failure> {
        if let Some(repository) = repository.filter(|_| !Standing::of_this_process().can_map_mounts()) {
            return Ok(Range { base: repository.uid, count: 1 });
        }
        let exhausted = || failure(FailureKind::Limit, "lease uids", "every range of uids is in use");
        self.leases.take().ok_or_else(exhausted)
    }

    fn put_back(&mut self, record: Record, restored: bool) {
        if restored {
            self.kept.insert(record.sandbox.clone(), record);
        } else {
            self.leases.release(record.ids());
        }
    }

    /// Reads what workers have sent.
    pub(super) fn read_reports(&mut self) {
        let ids: Vec<String> =
            self.sandboxes.iter().filter(|(_, s)| s.report.is_some()).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.read_report(&id);
        }
    }

    pub(super) fn read_report(&mut self, id: &str) {
        // Three sockets of the door, one start or failure: a worker has no more to say.
        for _ in 0..MOST_REPORTS {
            let Some(report) = self.sandboxes.get(id).and_then(|sandbox| sandbox.report.as_ref()) else { return };
            match socket::receive::<Report>(report.as_fd()) {
                Ok((report, descriptor)) => self.reported(id, report, descriptor),
                Err(SocketError::NotReady) => return,
                Err(_) => {
                    // What becomes of the worker is told by its exit status.
                    if let Some(sandbox) = self.sandboxes.get_mut(id) {
                        sandbox.report = None;
                    }
                }
            }
        }
    }

    fn reported(&mut self, id: &str, report: Report, descriptor: Option<OwnedFd>) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        match (report, descriptor) {
            (Report::Door(kind), Some(descriptor)) => {
                let Some(sockets) = &mut sandbox.sockets else { return };
                let place = match kind {
                    DescriptorKind::DoorTcp => &mut sockets.door_tcp,
                    DescriptorKind::DoorDns => &mut sockets.door_dns,
                    DescriptorKind::DoorDnsV6 => &mut sockets.door_dns_v6,
                    DescriptorKind::Control | DescriptorKind::Minted => return,
                };
                *place = Some(Rc::new(descriptor));
            }
            (Report::Started { pid }, Some(descriptor)) => {
                // Once: what a worker has made shares its socket until it executes the guest.
                let Some(pid) = Pid::from_raw(pid).filter(|_| sandbox.init.is_none()) else { return };
                sandbox.init = Some(Init { pid, descriptor });
                if !self.cgroups.can_end()
                    && let Err(failed) = running::note(&self.config.state, id, pid)
                {
                    // It is ended like one that could not be made: the next launcher could not end it.
                    return self.fail(id, failed);
                }
                // One that is ending already was over time while this was on its way: it is killed anyway.
                if let Phase::Starting { request, .. } = sandbox.phase {
                    sandbox.phase = Phase::Living;
                    self.watch_memory(id);
                    self.hand_over(request, id);
                    self.start_waiting();
                }
            }
            (Report::Failed(failed), _) => self.fail(id, failed),
            (Report::Door(_) | Report::Started { .. }, None) => {
                self.fail(id, failure(FailureKind::System, "create", "the worker's report lacks its descriptor"));
            }
        }
    }

    pub(super) fn worker_ended(&mut self, id: &str, status: WaitStatus) {
        self.read_report(id);
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.worker = None;
        if sandbox.init.is_none() && !self.cgroups.can_end() {
            self.end_orphans();
        }
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        if matches!(sandbox.phase, Phase::Starting { .. }) {
            let reached = self.out_of_memory(id).map(|reached| format!(": {reached}")).unwrap_or_default();
            let words = format!("the worker {} before the sandbox was ready{reached}", in_words(status));
            self.fail(id, failure(FailureKind::System, "create", words));
        } else {
            self.advance(id);
        }
    }

    /// Without control groups: what a worker had begun when it ended is a child of the launcher now, and unknown to it.
    fn end_orphans(&mut self) {
        // One that another worker has started and that is not read yet is no orphan.
        self.read_reports();
        let known = |pid: Pid| {
            let is = |known: Option<Pid>| known == Some(pid);
            self.sandboxes.values().any(|sandbox| {
                let init = sandbox.init.as_ref().map(|init| init.pid);
                is(sandbox.worker) || is(init) || is(sandbox.remover)
            })
        };
        // Of the launcher's own helpers some are in no table; they have a name. A child of a worker has libcontainer's.
        let is_helper = |pid: &Pid| {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
            matches!(name.trim(), "ostler-remover" | "ostler-meter" | "ostler-launcher")
        };
        for pid in process::children().into_iter().filter(|pid| !known(*pid) && !is_helper(pid)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Ends a sandbox that cannot be made. Its create is answered when nothing of it is left.
    pub(super) fn fail(&mut self, id: &str, failed: Failure) {
        let Some(sandbox) = self.sandboxes.get(id) else { return };
        let Phase::Starting { request, .. } = sandbox.phase else { return };
        let files = if sandbox.restored { Files::Keep } else { Files::Remove };
        self.end(id, Because::Failed { request, failure: failed }, files);
    }
}

/// Bare lowercase ULID: 26 characters of Crockford's alphabet, usable as a file and cgroup name.
pub(super) fn check_id(id: &str) -> Result<(), Failure> {
    let allowed =
        |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
    if id.len() == 26 && id.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = id.chars().take(64).collect();
    Err(failure(
        FailureKind::Invalid,
        "check sandbox id",
        format!("{shown:?} is no bare lowercase ULID of 26 characters"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_lowercase_ulid_is_a_sandbox() {
        assert!(check_id("01j9zq3m8v5w7x2y4t6r8p0nab").is_ok());
        for id in [
            "",
            "..",
            "01J9ZQ3M8V5W7X2Y4T6R8P0NAB",
            "01j9zq3m8v5w7x2y4t6r8p0na",
            "01j9zq3m8v5w7x2y4t6r8p0na/",
            "01j9zq3m8v5w7x2y4t6r8p0nai",
        ] {
            assert_eq!(check_id(id).unwrap_err().kind, FailureKind::Invalid, "{id}");
        }
    }
}
