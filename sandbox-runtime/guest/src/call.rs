//! One call: its processes, its output, who follows it, and how it ended.
//!
//! ```text
//!            Started            command ended             pipe at its end, or 100 ms over;
//! starting ──────────► running ───────────────► draining ─────────────────────────────────► ended
//!    │ Failed             │ stop, timeout, output limit      if it is being ended: and
//!    ▼                    ▼                                  its supervisor is gone
//!   gone                (ending: see `ending.rs`, beside every state)
//! ```
//!
//! An ended call may still have processes: what the command left in the background goes on, and its output is read
//! and thrown away, because closing the pipe would kill it with SIGPIPE at its next line. This module does no polling and
//! holds no table; it is told what became readable and what time it is.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ostler_wire::Failure;
use ostler_wire::guest::{self, Exec, Exit, ExitCause, Stdio};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::attachment::{Attachment, Served};
use crate::ending::{Asking, Ending, terminate};
use crate::failure::failed;
use crate::link::Ticket;
use crate::processes::Processes;
use crate::spool::{Appended, Spool};
use crate::supervisor::{REPORT, Report, Step, Supervisor};
use crate::typed::Typed;

/// How long output is still awaited after the command ended while something in the background holds the pipe.
const DRAIN: Duration = Duration::from_millis(100);

/// Grace time between SIGTERM and SIGKILL where a limit ends a call.
const LIMIT_GRACE: Duration = Duration::from_secs(2);

/// Reads from one pipe before the others have their turn.
const READS: usize = 4;

/// Reads from the pipe of a call that ends: more than the largest pipe (1 MiB) holds, so that nothing is lost.
const LAST_READS: usize = 32;

/// A row of the table of calls, and the processes behind it.
pub(crate) struct Call {
    pub(crate) id: String,
    /// The row is gone; only its processes are still looked after.
    pub(crate) forgotten: bool,
    starting: Option<Starting>,
    /// `None` once it was waited for: then nothing is left of the call.
    pub(crate) supervisor: Option<Pid>,
    pub(crate) status: Option<OwnedFd>,
    /// A pipe, or the master of a terminal.
    pub(crate) output: Option<OwnedFd>,
    /// What is typed, for a terminal.
    typed: Option<Typed>,
    /// The host's socket, where the command has it.
    pub(crate) piped: Option<OwnedFd>,
    pub(crate) label: String,
    main: Option<Pid>,
    main_ended: Option<MainEnded>,
    pub(crate) started: Instant,
    timeout_at: Option<Instant>,
    ending: Option<Ending>,
    /// Further output is thrown away.
    discard: bool,
    /// There was more output than it may have.
    over_limit: bool,
    exit: Option<Exit>,
    unannounced: bool,
    pub(crate) spool: Spool,
    pub(crate) attached: Option<Attachment>,
}

/// What is needed to answer an `Exec` once it is known whether the program started.
struct Starting {
    to: Ticket,
    program: String,
    cwd: String,
}

struct MainEnded {
    status: i32,
    wall_us: u64,
    drain_until: Instant,
}

/// The answer to an `Exec`, once there is one.
pub(crate) type Answer = (Ticket, Result<Pid, Failure>);

impl Call {
    /// A call whose supervisor was just forked.
    pub(crate) fn new(
        to: Ticket,
        exec: Exec,
        supervisor: Supervisor,
        attached: Option<Attachment>,
        now: Instant,
    ) -> Self {
        let timeout = (exec.timeout_ms > 0).then(|| Duration::from_millis(exec.timeout_ms));
        Self {
            id: exec.call,
            forgotten: false,
            starting: Some(Starting { to, program: exec.argv.into_iter().next().unwrap_or_default(), cwd: exec.cwd }),
            supervisor: Some(supervisor.pid),
            status: Some(supervisor.status),
            output: Some(supervisor.output),
            typed: matches!(exec.stdio, Stdio::Terminal(_)).then(Typed::default),
            piped: supervisor.piped,
            label: exec.label,
            main: None,
            main_ended: None,
            started: now,
            timeout_at: timeout.and_then(|timeout| now.checked_add(timeout)),
            ending: None,
            discard: false,
            over_limit: false,
            exit: None,
            unannounced: false,
            spool: Spool::new(exec.output_limit, exec.overflow),
            attached,
        }
    }

    /// The row as the host sees it.
    pub(crate) fn row(&self) -> guest::Call {
        let (output, first) = (self.spool.length(), self.spool.first());
        guest::Call { call: self.id.clone(), output, first, exit: self.exit }
    }

    /// Whether it has ended; processes may be left in the background.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.is_some()
    }

    /// The command's process while it runs.
    pub(crate) fn main(&self) -> Option<Pid> {
        self.main.filter(|_| self.main_ended.is_none())
    }

    /// Whether nothing of it is left to look after.
    pub(crate) fn is_gone(&self) -> bool {
        self.forgotten && self.supervisor.is_none()
    }

    /// Drops what belongs to a host that has been replaced: its socket, and the event that it waited for.
    pub(crate) fn detach(&mut self) {
        self.attached = None;
        self.unannounced = false;
    }

    /// Follows with a new socket. Of a call that has ended the reply tells the end, so no event follows.
    pub(crate) fn attach(&mut self, attachment: Attachment) {
        self.attached = Some(attachment);
        if self.has_ended() {
            self.unannounced = false;
        }
    }

    /// Begins to end every process of the call; a second reason only shortens the grace time.
    pub(crate) fn end(&mut self, cause: ExitCause, grace: Duration, now: Instant, processes: &Processes) {
        let Some(supervisor) = self.supervisor else { return };
        match &mut self.ending {
            Some(ending) => ending.hasten(grace, now),
            None => {
                let asking = if self.typed.is_some() { Asking::HangUp } else { Asking::Terminate };
                self.ending = Some(Ending::begin(cause, asking, grace, now, processes, supervisor));
            }
        }
    }

    /// Reads the supervisor's reports. Gives the answer to the `Exec` where this decides it.
    pub(crate) fn read_status(&mut self, now: Instant, processes: &Processes) -> Option<Answer> {
        let mut answer = None;
        while let Some(status) = &self.status {
            let mut bytes = [0; REPORT];
            let report = match rustix::io::retry_on_intr(|| rustix::io::read(status, &mut bytes)) {
                Err(Errno::AGAIN) => break,
                Ok(REPORT) => Report::decode(&bytes),
                _ => None,
            };
            match report {
                Some(report) => answer = self.hear(report, now, processes).or(answer),
                None => answer = self.lose_supervisor(now).or(answer),
            }
        }
        answer
    }

    fn hear(&mut self, report: Report, now: Instant, processes: &Processes) -> Option<Answer> {
        match report {
            Report::Started(pid) => {
                self.main = Some(pid);
                if let (Some(_), Some(supervisor)) = (&self.ending, self.supervisor) {
                    // It was being ended before it had begun: the first SIGTERM went past it.
                    terminate(processes, supervisor);
                }
                self.starting.take().map(|starting| (starting.to, Ok(pid)))
            }
            Report::Failed(step, errno) => {
                let starting = self.starting.take()?;
                self.forgotten = true;
                self.close();
                Some((starting.to, Err(starting.failure(step, errno))))
            }
            Report::Exited { status, wall_us } => {
                self.main_ended.get_or_insert(MainEnded { status, wall_us, drain_until: now + DRAIN });
                None
            }
        }
    }

    /// The status pipe is at its end. A supervisor that has said all it had to say may do that; one that has not was
    /// killed, by its own command or for want of memory. Whether the command ran is not known where that came first, so
    /// the call counts as started, by the only process that is known of it, and as killed.
    fn lose_supervisor(&mut self, now: Instant) -> Option<Answer> {
        self.status = None;
        if self.main_ended.is_none() && !self.forgotten {
            let wall_us = u64::try_from(now.duration_since(self.started).as_micros()).unwrap_or(u64::MAX);
            self.main_ended = Some(MainEnded { status: 128 + 9, wall_us, drain_until: now + DRAIN });
        }
        let (starting, supervisor) = (self.starting.take()?, self.supervisor?);
        Some((starting.to, Ok(supervisor)))
    }

    fn close(&mut self) {
        self.attached = None;
        self.output = None;
        self.piped = None;
        self.timeout_at = None;
    }

    /// The terminal, where it is on one that is still open.
    pub(crate) fn terminal(&self) -> Option<&OwnedFd> {
        self.typed.as_ref().and(self.output.as_ref())
    }

    /// Whether output may be read now: not where that would cost a reader what it has not got yet.
    pub(crate) fn takes_output(&self) -> bool {
        self.discard || self.before_loss() > 0
    }

    fn before_loss(&self) -> u64 {
        let cursor = self.attached.as_ref().map(Attachment::cursor);
        cursor.and_then(|cursor| self.spool.before_loss(cursor)).unwrap_or(u64::MAX)
    }

    /// Whether something that was typed waits for the terminal.
    pub(crate) fn has_typed(&self) -> bool {
        self.output.is_some() && self.typed.as_ref().is_some_and(Typed::is_waiting)
    }

    /// Whether more may be typed now.
    pub(crate) fn takes_typing(&self) -> bool {
        self.terminal().is_some() && !self.has_typed() && self.attached.as_ref().is_some_and(Attachment::may_type)
    }

    /// Takes what was typed and hands over what the terminal takes.
    pub(crate) fn type_in(&mut self) {
        let (Some(typed), Some(master)) = (&mut self.typed, &self.output) else { return };
        if let Some(attached) = &mut self.attached {
            typed.take(attached);
        }
        typed.give(master);
    }

    /// The host has closed its end of a socket that the command has: there is nobody left to work for.
    pub(crate) fn abandon(&mut self, now: Instant, processes: &Processes) {
        self.piped = None;
        self.end(ExitCause::Stopped, LIMIT_GRACE, now, processes);
    }

    /// Reads output into the spool and on to who follows. Gives `true` where the limit of the call was reached, or `room`
    /// (what the guest can still hold) used up.
    pub(crate) fn read_output(&mut self, buffer: &mut [u8], room: u64) -> bool {
        let reads = if self.main_ended.is_some() && !self.discard { LAST_READS } else { READS };
        let (before, whole) = (self.spool.shared(), buffer.len());
        for _ in 0..reads {
            let Some(output) = &self.output else { return false };
            let most = usize::try_from(if self.discard { u64::MAX } else { self.before_loss() }).unwrap_or(usize::MAX);
            let buffer = &mut buffer[..most.min(whole)];
            if buffer.is_empty() {
                return false;
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(output, &mut *buffer)) {
                Err(Errno::AGAIN) => return false,
                Ok(0) | Err(_) => self.output = None,
                Ok(_) if self.discard => {}
                Ok(count) => {
                    let offset = self.spool.length();
                    let left = match self.spool.reserved() {
                        0 => room.saturating_sub(self.spool.shared() - before),
                        // A tail has its room already.
                        _ => u64::MAX,
                    };
                    let allowed = usize::try_from(left).map_or(count, |left| count.min(left));
                    let appended = self.spool.append(&buffer[..allowed]);
                    let added = usize::try_from(self.spool.length() - offset).unwrap_or(allowed);
                    if let Some(attached) = &mut self.attached {
                        attached.offer(offset, &buffer[..added]);
                    }
                    if appended != Ok(Appended::All) || allowed < count {
                        self.discard = true;
                        self.over_limit = true;
                        return true;
                    }
                    // A short read has most likely emptied the pipe; asking again would cost a call each time.
                    if count < buffer.len() && self.main_ended.is_none() {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Ends the call because of its output.
    pub(crate) fn end_for_output(&mut self, now: Instant, processes: &Processes) {
        if self.exit.is_none() {
            self.end(ExitCause::OutputLimit, LIMIT_GRACE, now, processes);
        }
    }

    /// Serves who follows.
    pub(crate) fn serve(&mut self, buffer: &mut [u8]) {
        if let Some(attached) = &mut self.attached
            && attached.serve(&self.spool, buffer) == Served::Gone
        {
            self.attached = None;
        }
    }

    /// Whether the socket of who follows must become writable before it gets the rest.
    pub(crate) fn is_behind(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| !attached.is_served(&self.spool))
    }

    /// When [`Self::tick`] has something to do, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().filter(|_| self.supervisor.is_some()).map(Ending::deadline);
        let awaits = self.exit.is_none() && !self.awaits_processes() && self.takes_output();
        let drain = self.main_ended.as_ref().filter(|_| awaits);
        [ending, drain.map(|ended| ended.drain_until), self.timeout_at].into_iter().flatten().min()
    }

    /// Does what is due by the clock.
    pub(crate) fn tick(&mut self, now: Instant, processes: &Processes) {
        if self.main_ended.is_some() {
            self.timeout_at = None;
        }
        if self.timeout_at.is_some_and(|at| now >= at) {
            self.timeout_at = None;
            self.end(ExitCause::Timeout, LIMIT_GRACE, now, processes);
        }
        if let (Some(ending), Some(supervisor)) = (&mut self.ending, self.supervisor) {
            ending.tick(now, processes, supervisor);
        }
    }

    /// Decides whether the call has ended, and gives the event when all of its output has been handed over.
    pub(crate) fn settle(&mut self, now: Instant, buffer: &mut [u8], room: u64) -> Option<guest::Call> {
        if self.exit.is_none() && self.is_complete(now) {
            // Whatever the pipe still holds belongs to the call. Over the limit or not, nothing is left to be ended.
            self.read_output(buffer, room);
            if !self.takes_output() {
                // More may be there, for a reader that must get what it has not got yet first.
                return None;
            }
            self.exit = self.outcome();
            self.discard = true;
            self.unannounced = true;
            self.timeout_at = None;
        }
        if !self.has_ended() || self.is_behind() {
            return None;
        }
        if let Some(attached) = self.attached.take() {
            attached.finish();
        }
        if let Some(piped) = self.piped.take() {
            // What was left in the background may have it, too. A host that is gone is no error.
            let _ = rustix::net::shutdown(&piped, rustix::net::Shutdown::Both);
        }
        std::mem::take(&mut self.unannounced).then(|| self.row())
    }

    fn outcome(&self) -> Option<Exit> {
        let cause = match &self.ending {
            Some(ending) => ending.cause(),
            // Its processes may have ended by themselves before it was noticed.
            None if self.over_limit => ExitCause::OutputLimit,
            None => ExitCause::Exited,
        };
        self.main_ended.as_ref().map(|ended| Exit { cause, status: ended.status, wall_us: ended.wall_us })
    }

    fn is_complete(&self, now: Instant) -> bool {
        let Some(ended) = &self.main_ended else { return false };
        let waited = now >= ended.drain_until && self.takes_output();
        let drained = self.output.is_none() || self.discard || waited;
        drained && !self.awaits_processes()
    }

    fn awaits_processes(&self) -> bool {
        self.ending.is_some() && self.supervisor.is_some()
    }
}

impl Starting {
    fn failure(&self, step: Step, errno: Errno) -> Failure {
        match step {
            Step::Prepare => failed("exec", errno, format!("preparing a process for `{}`", self.program)),
            Step::Directory => failed("chdir", errno, format!("working directory `{}`", self.cwd)),
            Step::Execute => failed("exec", errno, format!("program `{}`", self.program)),
        }
    }
}
