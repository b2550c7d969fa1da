//! The loop of PID 1: waits for whatever is ready, hands it to who owns it, does what the clock says.
//!
//! ```text
//!        ┌── control socket ──► requests ──► calls, files, workers ──► answers, events ──┐
//!  poll ─┼── children ────────► waitpid                                                  ├──► control socket
//!        ├── status and output pipes of calls ──► spools ──► attached sockets            │
//!        └── pipes of workers ───────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing in it blocks: long work is in workers, sockets and pipes are read and written only as far as they are ready.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ostler_wire::guest::{Event, Reply, Request, ToGuest};
use ostler_wire::{Failure, FailureKind, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::ServeError;
use crate::calls::{Calls, Key, raise_open_files};
use crate::failure::refused;
use crate::files::Workspace;
use crate::link::{Link, Ticket};
use crate::worker::Workers;
use crate::write::Content;
use crate::{list, ports, sys, write};

/// Requests read before everything else has its turn.
const REQUESTS: usize = 16;

/// Rounds of killing at the end, and the wait between two.
const LAST_SWEEPS: u32 = 500;
const LAST_SWEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Everything that PID 1 looks after.
pub(crate) struct Server {
    link: Link,
    children: OwnedFd,
    calls: Calls,
    workers: Workers,
    workspace: Workspace,
    buffer: Vec<u8>,
}

/// What a polled descriptor belongs to.
#[derive(Clone, Copy)]
enum Source {
    Control,
    Children,
    Status(Key),
    Output(Key),
    Attached(Key),
    Piped(Key),
    Worker(Pid),
}

impl Server {
    /// Prepares the process: signals blocked, subreaper, `/proc` and `/dev/null` opened.
    pub(crate) fn new(control: OwnedFd, root: &Path) -> Result<Self, ServeError> {
        let children = sys::child_events().map_err(ServeError::Signals)?;
        // PID 1 is one anyway; this is for a guest that tests run as an ordinary process.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(ServeError::Subreaper)?;
        let calls = Calls::new(raise_open_files()).map_err(ServeError::Table)?;
        let workspace = Workspace::new(root);
        Ok(Self {
            link: Link::new(control),
            children,
            calls,
            workers: Workers::default(),
            workspace,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Serves until the link ends; gives the reason. Everything below this process is dead afterwards.
    pub(crate) fn run(&mut self) -> ServeError {
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
        };
        self.end_everything();
        end
    }

    fn turn(&mut self) -> Result<(), ServeError> {
        let ready = self.wait()?;
        let now = Instant::now();
        for source in ready {
            self.handle(source, now)?;
        }
        let workers = &self.workers;
        for ended in self.calls.tick(now, |pid| workers.has(pid)) {
            self.link.announce(Event::Exited(ended));
        }
        self.workers.tick(now);
        self.link.broken().map_or(Ok(()), |error| Err(ServeError::Link(error)))
    }

    /// Waits until something is ready or due.
    fn wait(&self) -> Result<Vec<Source>, ServeError> {
        let mut sources = vec![Source::Control, Source::Children];
        let mut control = PollFlags::empty();
        control.set(PollFlags::IN, self.link.accepts());
        control.set(PollFlags::OUT, self.link.has_unsent());
        let mut polled = vec![PollFd::new(&self.link, control), PollFd::new(&self.children, PollFlags::IN)];
        for (key, call) in self.calls.iter() {
            if let Some(status) = &call.status {
                sources.push(Source::Status(key));
                polled.push(PollFd::new(status, PollFlags::IN));
            }
            // What nothing is wanted of is left out altogether, because the end of the other side is always told.
            let mut watch = |source, descriptor, wanted: PollFlags| {
                if !wanted.is_empty() {
                    sources.push(source);
                    polled.push(PollFd::from_borrowed_fd(descriptor, wanted));
                }
            };
            let flags = |read: bool, write: bool| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, read);
                flags.set(PollFlags::OUT, write);
                flags
            };
            if let Some(output) = &call.output {
                watch(Source::Output(key), output.as_fd(), flags(call.takes_output(), call.has_typed()));
            }
            if let Some(attached) = &call.attached {
                watch(Source::Attached(key), attached.as_fd(), flags(call.takes_typing(), call.is_behind()));
            }
            if let Some(piped) = &call.piped {
                watch(Source::Piped(key), piped.as_fd(), PollFlags::HUP);
            }
        }
        for (pid, pipe) in self.workers.pipes() {
            sources.push(Source::Worker(pid));
            polled.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
        }
        let deadline = self.calls.deadline().into_iter().chain(self.workers.deadline()).min();
        match poll(&mut polled, deadline.map(until).as_ref()) {
            Ok(_) => Ok(sources
                .into_iter()
                .zip(&polled)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(s, _)| s)
                .collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(ServeError::Poll(error)),
        }
    }

    fn handle(&mut self, source: Source, now: Instant) -> Result<(), ServeError> {
        match source {
            Source::Control => {
                self.link.flush();
                self.requests(now)?;
            }
            Source::Children => self.reap(now)?,
            Source::Status(key) => {
                let answer = self.calls.read_status(key, now);
                self.answer_exec(answer);
            }
            Source::Output(key) => {
                self.calls.type_in(key);
                self.calls.read_output(key, now);
            }
            Source::Attached(key) => {
                self.calls.serve(key);
                self.calls.type_in(key);
            }
            Source::Piped(key) => self.calls.abandon(key, now),
            Source::Worker(pid) => self.workers.read(pid, &mut self.buffer, &mut self.link),
        }
        Ok(())
    }

    fn reap(&mut self, now: Instant) -> Result<(), ServeError> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.children, &mut self.buffer[..])) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(ServeError::Signals(error)),
        }
        while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            if ended.stopped() {
                // A command may stop its supervisor; it must go on, or nothing would be heard of the call any more.
                let _ = kill_process(pid, Signal::CONT);
                continue;
            }
            let answer = self.calls.reaped(pid, ended, now);
            self.answer_exec(answer);
        }
        Ok(())
    }

    fn answer_exec(&mut self, answer: Option<crate::call::Answer>) {
        if let Some((to, result)) = answer {
            self.link.reply(to, result.map(|pid| (Reply::Started { pid: pid.as_raw_pid() }, None)));
        }
    }

    fn requests(&mut self, now: Instant) -> Result<(), ServeError> {
        for _ in 0..REQUESTS {
            if !self.link.accepts() {
                break;
            }
            let Some((message, descriptor)) = self.link.receive().map_err(ServeError::Link)? else { break };
            self.request(message, descriptor, now);
        }
        Ok(())
    }

    fn request(&mut self, message: ToGuest, descriptor: Option<OwnedFd>, now: Instant) {
        let to = Ticket { epoch: message.epoch, id: message.id };
        if let Err(failure) = self.admit(&message) {
            return self.link.refuse(to, failure);
        }
        let result = match message.body {
            Request::Hello { .. } => Ok(self.welcome(to.epoch)),
            Request::Exec(exec) => match self.calls.exec(to, exec, descriptor, now) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Request::Attach { call, offset } => self.calls.attach(&call, offset, descriptor),
            Request::Status { call } => self.calls.status(&call),
            Request::Stop { call, grace_ms } => self.calls.stop(&call, Duration::from_millis(grace_ms.into()), now),
            Request::Signal { call, signal } => self.calls.signal(&call, signal),
            Request::Forget { call } => self.calls.forget(&call),
            Request::Open { path } => {
                let opened = self.workspace.open(&path).map(|(reply, file)| (reply, Some(file)));
                return self.link.reply(to, opened);
            }
            Request::Write { path, mode } => {
                let workspace = &self.workspace;
                let workers = &mut self.workers;
                let started = Content::new(descriptor, mode)
                    .and_then(|content| workers.start(to, now, || write::write(workspace, &path, &content)));
                match started {
                    Ok(()) => return,
                    Err(failure) => Err(failure),
                }
            }
            Request::Resize { call, window } => self.calls.resize(&call, window),
            Request::Read { call, offset, max } => self.calls.read(&call, offset, max),
            Request::Calls { prefix } => Ok(self.calls.list(&prefix, now)),
            Request::Ports => match self.workers.start(to, now, ports::list) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Request::List { path, max } => {
                match self.workers.start(to, now, || list::list(&self.workspace, &path, max)) {
                    Ok(()) => return,
                    Err(failure) => Err(failure),
                }
            }
        };
        self.link.reply(to, result.map(|reply| (reply, None)));
    }

    /// Whether a request comes from the host that counts.
    fn admit(&self, message: &ToGuest) -> Result<(), Failure> {
        let hello = match message.body {
            Request::Hello { version } => Some(version),
            _ => None,
        };
        match self.link.epoch() {
            Some(epoch) if message.epoch < epoch => {
                let detail = format!("epoch {} is over, the current one is {epoch}", message.epoch);
                Err(refused(FailureKind::StaleEpoch, "epoch", detail))
            }
            _ if message.id == 0 => Err(refused(FailureKind::Invalid, "request", "request number 0 is not allowed")),
            _ if hello.is_some_and(|version| version != VERSION) => {
                let detail = format!("this guest speaks version {VERSION}, not {}", hello.unwrap_or_default());
                Err(refused(FailureKind::Invalid, "hello", detail))
            }
            epoch if hello.is_none() && epoch != Some(message.epoch) => {
                Err(refused(FailureKind::Invalid, "hello", format!("epoch {} has not said hello", message.epoch)))
            }
            _ => Ok(()),
        }
    }

    fn welcome(&mut self, epoch: u64) -> Reply {
        if self.link.epoch().is_some_and(|known| known < epoch) {
            self.calls.detach_all();
        }
        self.link.begin(epoch);
        Reply::Welcome { version: VERSION, calls: u32::try_from(self.calls.len()).unwrap_or(u32::MAX) }
    }

    /// Kills until nothing is left. (When PID 1 itself ends, the kernel kills what is left in its namespace.)
    fn end_everything(&mut self) {
        for _ in 0..LAST_SWEEPS {
            let left = self.calls.kill_everything();
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            if !left {
                return;
            }
            // Interrupted or not, the next round looks again.
            let _ = poll(&mut [PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN)], Some(&LAST_SWEEP));
        }
    }
}

fn until(deadline: Instant) -> Timespec {
    // Rounded up, so that the deadline has passed when the wait ends.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(50);
    Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}
