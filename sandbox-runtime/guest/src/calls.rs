//! The table of calls: it outlives the host that asked, is bounded, and answers every request about a call.
//!
//! It owns the calls, the room for their output, and `/proc`. It does not poll and does not know the control socket:
//! the server tells it what is readable and sends what it returns.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ostler_wire::guest::{
    self, Exec, ExitCause, Listed, MAX_CALL_ID, MAX_LABEL, MAX_OUTPUT, MAX_PIECE, MAX_TAIL, MAX_TAILS, MIN_TAIL,
    Overflow, Reply, Stdio, Window,
};
use ostler_wire::{Failure, FailureKind, MAX_MESSAGE};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitStatus, getpid, getrlimit, kill_process_group, pidfd_open,
    pidfd_send_signal,
};

use crate::attachment::{Attachment, stream_socket};
use crate::call::{Answer, Call};
use crate::failure::{failed, refused};
use crate::link::Ticket;
use crate::processes::Processes;
use crate::streams::Streams;
use crate::{supervisor, sys};

/// Most rows; an ended one is forgotten, oldest first, when another is needed.
pub const MAX_CALLS: usize = 256;

/// Most calls with living processes, forgotten ones that left something in the background included.
pub const MAX_LIVING: usize = 256;

/// Bytes moved at once.
const BUFFER: usize = 64 * 1024;

/// Time between two searches for orphans.
const ORPHAN_SWEEP: Duration = Duration::from_millis(5);

/// Encoded bytes of a row in a listing beside its texts, and of the message beside its rows; rounded up.
const ROW_OVERHEAD: usize = 64;
const LISTING_OVERHEAD: usize = 64;

/// A call's place in the table; later calls have higher ones.
pub(crate) type Key = u64;

/// All calls.
pub(crate) struct Calls {
    calls: BTreeMap<Key, Call>,
    last: Key,
    processes: Processes,
    null: OwnedFd,
    /// Limit of open files for commands; the guest's own was raised.
    files: Rlimit,
    buffer: Vec<u8>,
    /// When to look for processes whose supervisor was killed.
    orphans_at: Option<Instant>,
}

impl Calls {
    /// An empty table. `files` is the limit of open files that commands get.
    pub(crate) fn new(files: Rlimit) -> Result<Self, Failure> {
        let processes = Processes::open().map_err(|errno| failed("open", errno, "/proc"))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed("open", errno, "/dev/null"))?;
        Ok(Self { calls: BTreeMap::new(), last: 0, processes, null, files, buffer: vec![0; BUFFER], orphans_at: None })
    }

    /// Rows in the table.
    pub(crate) fn len(&self) -> usize {
        self.calls.values().filter(|call| !call.forgotten).count()
    }

    /// Every call with its place, forgotten ones included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Call)> {
        self.calls.iter().map(|(key, call)| (*key, call))
    }

    /// Drops what belongs to a host that has been replaced.
    pub(crate) fn detach_all(&mut self) {
        self.calls.values_mut().for_each(Call::detach);
    }

    /// Starts a call. `Ok` means that the answer comes later, from [`Self::read_status`].
    pub(crate) fn exec(
        &mut self,
        to: Ticket,
        exec: Exec,
        socket: Option<OwnedFd>,
        now: Instant,
    ) -> Result<(), Failure> {
        let refuse = |kind, detail: String| Err(refused(kind, "exec", detail));
        check_names_and_limits(&exec)?;
        if self.find(&exec.call).is_ok() {
            return refuse(FailureKind::Exists, format!("call `{}` exists already", exec.call));
        }
        supervisor::check(&exec)?;
        let socket = stream_socket(socket)?;
        if self.calls.values().filter(|call| call.supervisor.is_some()).count() >= MAX_LIVING {
            return refuse(FailureKind::Limit, format!("{MAX_LIVING} calls have living processes"));
        }
        if self.len() >= MAX_CALLS && !self.forget_oldest(|_| true) {
            return refuse(FailureKind::Limit, format!("{MAX_CALLS} calls are running"));
        }
        if exec.overflow == Overflow::DropHead {
            self.reserve(exec.output_limit)?;
        }
        let streams = Streams::open(exec.stdio, &socket, exec.argv.first().map_or("", String::as_str))?;
        let supervisor = supervisor::start(&exec, streams, self.null.as_fd(), self.files)?;
        let attached = match exec.stdio {
            Stdio::Piped => None,
            Stdio::Merged | Stdio::Terminal(_) => Some(Attachment::new(Some(socket), 0)?),
        };
        self.last += 1;
        self.calls.insert(self.last, Call::new(to, exec, supervisor, attached, now));
        Ok(())
    }

    /// Follows a call from an offset of its output.
    pub(crate) fn attach(&mut self, id: &str, offset: u64, socket: Option<OwnedFd>) -> Result<Reply, Failure> {
        let call = self.find_mut(id)?;
        let attachment = Attachment::new(socket, offset)?;
        if offset > call.spool.length() {
            let detail = format!("offset {offset} is after the end of the output at {}", call.spool.length());
            return Err(refused(FailureKind::Invalid, "attach", detail));
        }
        call.attach(attachment);
        Ok(Reply::Call(call.row()))
    }

    /// What is known of a call.
    pub(crate) fn status(&self, id: &str) -> Result<Reply, Failure> {
        let key = self.find(id)?;
        self.calls.get(&key).map(|call| Reply::Call(call.row())).ok_or_else(|| unknown(id))
    }

    /// Ends every process of a call; of one that has ended, those that it left in the background.
    pub(crate) fn stop(&mut self, id: &str, grace: Duration, now: Instant) -> Result<Reply, Failure> {
        let key = self.find(id)?;
        if let Some(call) = self.calls.get_mut(&key) {
            call.end(ExitCause::Stopped, grace, now, &self.processes);
        }
        Ok(Reply::Done)
    }

    /// Sends a signal to a call's main process.
    pub(crate) fn signal(&self, id: &str, number: i32) -> Result<Reply, Failure> {
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| refused(FailureKind::Invalid, "signal", format!("{number} is no signal number")))?;
        let key = self.find(id)?;
        let call = self.calls.get(&key).ok_or_else(|| unknown(id))?;
        if let Some(group) = call.terminal().and_then(sys::foreground) {
            let words =
                |errno| failed("signal", errno, format!("signal {number} to the foreground of terminal `{id}`"));
            return kill_process_group(group, signal).map(|()| Reply::Done).map_err(words);
        }
        let (Some(main), Some(supervisor)) = (call.main(), call.supervisor) else {
            return Err(refused(FailureKind::NotFound, "signal", format!("the program of call `{id}` does not run")));
        };
        // The descriptor is taken before the parent is compared, so a recycled number cannot slip in between.
        let gone = |errno| failed("signal", errno, format!("signal {number} to the program of call `{id}`"));
        let process = pidfd_open(main, PidfdFlags::empty()).map_err(gone)?;
        if !self.processes.is_child(main, supervisor) {
            return Err(gone(Errno::SRCH));
        }
        pidfd_send_signal(&process, signal).map(|()| Reply::Done).map_err(gone)
    }

    /// Drops an ended call and its output. What it left in the background goes on.
    pub(crate) fn forget(&mut self, id: &str) -> Result<Reply, Failure> {
        let call = self.find_mut(id)?;
        if !call.has_ended() {
            return Err(refused(FailureKind::Invalid, "forget", format!("call `{id}` still runs")));
        }
        forget(call);
        self.clean();
        Ok(Reply::Done)
    }

    /// Sets the size of a terminal.
    pub(crate) fn resize(&mut self, id: &str, window: Window) -> Result<Reply, Failure> {
        let call = self.find_mut(id)?;
        let Some(master) = call.terminal() else {
            return Err(refused(FailureKind::Invalid, "resize", format!("call `{id}` has no open terminal")));
        };
        let failed = |errno| failed("resize", errno, format!("terminal of call `{id}`"));
        sys::set_window(master, window).map(|()| Reply::Done).map_err(failed)
    }

    /// A piece of what is kept of a call's output.
    pub(crate) fn read(&self, id: &str, offset: u64, max: u32) -> Result<Reply, Failure> {
        let key = self.find(id)?;
        let call = self.calls.get(&key).ok_or_else(|| unknown(id))?;
        let row = call.row();
        if offset > row.output {
            let detail = format!("offset {offset} is after the end of the output at {}", row.output);
            return Err(refused(FailureKind::Invalid, "read", detail));
        }
        let offset = offset.max(row.first);
        let mut bytes = vec![0; max.min(MAX_PIECE) as usize];
        let mut filled = 0;
        // A tail lies in two pieces.
        while filled < bytes.len() {
            let count = call
                .spool
                .read(offset + filled as u64, &mut bytes[filled..])
                .map_err(|errno| failed("read", errno, format!("the output of call `{id}`")))?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        bytes.truncate(filled);
        Ok(Reply::Output { row, offset, bytes })
    }

    /// The calls whose identifiers begin with `prefix`, as many as fit one message.
    pub(crate) fn list(&self, prefix: &str, now: Instant) -> Reply {
        let listed = self.calls.values().filter(|call| !call.forgotten && call.id.starts_with(prefix));
        let mut room = MAX_MESSAGE - LISTING_OVERHEAD;
        let (mut calls, mut truncated) = (Vec::new(), false);
        for call in listed {
            let needed = call.id.len() + call.label.len() + ROW_OVERHEAD;
            if needed > room {
                truncated = true;
                break;
            }
            room -= needed;
            let age_ms = u64::try_from(now.duration_since(call.started).as_millis()).unwrap_or(u64::MAX);
            calls.push(Listed { row: call.row(), label: call.label.clone(), age_ms });
        }
        Reply::Calls { calls, truncated }
    }

    /// Takes and hands on what is typed into a terminal.
    pub(crate) fn type_in(&mut self, key: Key) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.type_in();
        }
    }

    /// Ends a call whose host has closed its end of the command's socket.
    pub(crate) fn abandon(&mut self, key: Key, now: Instant) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.abandon(now, &self.processes);
        }
    }

    /// Hears a supervisor; gives the answer to the `Exec` where this decides it.
    pub(crate) fn read_status(&mut self, key: Key, now: Instant) -> Option<Answer> {
        self.calls.get_mut(&key).and_then(|call| call.read_status(now, &self.processes))
    }

    /// Reads a command's output.
    pub(crate) fn read_output(&mut self, key: Key, now: Instant) {
        let room = self.make_room();
        if let Some(call) = self.calls.get_mut(&key)
            && call.read_output(&mut self.buffer, room)
        {
            call.end_for_output(now, &self.processes);
        }
    }

    /// Serves a reader whose socket has room.
    pub(crate) fn serve(&mut self, key: Key) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.serve(&mut self.buffer);
        }
    }

    /// Takes note that a child of PID 1 was waited for. Gives the answer to an `Exec` where this decides it.
    pub(crate) fn reaped(&mut self, pid: Pid, ended: WaitStatus, now: Instant) -> Option<Answer> {
        let call = self.calls.values_mut().find(|call| call.supervisor == Some(pid))?;
        let answer = call.read_status(now, &self.processes);
        call.supervisor = None;
        if ended.signaled() {
            // Killed by its own command: what was below it is now a child of PID 1 and belongs to no call any more.
            self.orphans_at = Some(now);
        }
        answer
    }

    /// Does what is due by the clock and gives the calls that ended. `spared` are children of PID 1 that are no calls.
    pub(crate) fn tick(&mut self, now: Instant, spared: impl Fn(Pid) -> bool) -> Vec<guest::Call> {
        self.sweep_orphans(now, spared);
        let room = self.make_room();
        let mut ended = Vec::new();
        for call in self.calls.values_mut() {
            call.tick(now, &self.processes);
            ended.extend(call.settle(now, &mut self.buffer, room));
        }
        self.clean();
        ended
    }

    /// When [`Self::tick`] has something to do, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.calls.values().filter_map(Call::deadline).chain(self.orphans_at).min()
    }

    fn sweep_orphans(&mut self, now: Instant, spared: impl Fn(Pid) -> bool) {
        if self.orphans_at.is_none_or(|at| now < at) {
            return;
        }
        let calls = &self.calls;
        let spared = |pid| spared(pid) || calls.values().any(|call| call.supervisor == Some(pid));
        let found = self.processes.signal_descendants_but(getpid(), Signal::KILL, spared);
        self.orphans_at = (found != Ok(0)).then_some(now + ORPHAN_SWEEP);
    }

    /// Ends everything below the guest, whoever it belongs to, and says whether something was left.
    pub(crate) fn kill_everything(&self) -> bool {
        self.processes.signal_descendants(getpid(), Signal::KILL).is_ok_and(|found| found > 0)
    }

    /// Bytes of output that can still be kept; forgets old calls where a buffer's worth does not fit.
    fn make_room(&mut self) -> u64 {
        loop {
            let held: u64 = self.calls.values().map(|call| call.spool.shared()).sum();
            let room = MAX_OUTPUT.saturating_sub(held);
            if room >= BUFFER as u64 * 32 || !self.forget_oldest(|call| call.spool.shared() > 0) {
                return room;
            }
        }
    }

    /// Sets room aside for a tail; forgets old tails where it does not fit, and none where that would not help.
    fn reserve(&mut self, wanted: u64) -> Result<(), Failure> {
        let reserved = |calls: &BTreeMap<Key, Call>, counts: fn(&Call) -> bool| -> u64 {
            calls.values().filter(|call| counts(call)).map(|call| call.spool.reserved()).sum()
        };
        let running = reserved(&self.calls, |call| !call.has_ended());
        if running + wanted > MAX_TAILS {
            let detail = format!("running calls keep {running} bytes of output, {MAX_TAILS} are possible");
            return Err(refused(FailureKind::Limit, "exec", detail));
        }
        while reserved(&self.calls, |_| true) + wanted > MAX_TAILS {
            if !self.forget_oldest(|call| call.spool.reserved() > 0) {
                return Err(refused(FailureKind::Limit, "exec", "no room for another tail of output"));
            }
        }
        Ok(())
    }

    /// Forgets, of the calls that have ended and hold what is wanted, the oldest that nobody follows; where each is
    /// followed, the oldest.
    fn forget_oldest(&mut self, holds: impl Fn(&Call) -> bool) -> bool {
        let ended = || self.calls.iter().filter(|(_, call)| call.has_ended() && !call.forgotten && holds(call));
        let oldest = ended().find(|(_, call)| call.attached.is_none()).or_else(|| ended().next()).map(|(key, _)| *key);
        let Some(call) = oldest.and_then(|key| self.calls.get_mut(&key)) else { return false };
        forget(call);
        self.clean();
        true
    }

    fn clean(&mut self) {
        self.calls.retain(|_, call| !call.is_gone());
    }

    fn find(&self, id: &str) -> Result<Key, Failure> {
        let found = self.calls.iter().find(|(_, call)| !call.forgotten && call.id == id);
        found.map(|(key, _)| *key).ok_or_else(|| unknown(id))
    }

    fn find_mut(&mut self, id: &str) -> Result<&mut Call, Failure> {
        let found = self.calls.values_mut().find(|call| !call.forgotten && call.id == id);
        found.ok_or_else(|| unknown(id))
    }
}

/// The limit of open files as it was, after raising the guest's own as far as it may: each call needs a few.
pub(crate) fn raise_open_files() -> Rlimit {
    let found = getrlimit(Resource::Nofile);
    let wanted = 4096.min(found.maximum.unwrap_or(u64::MAX));
    if found.current.is_some_and(|current| current < wanted) {
        // Where this is refused the table fills earlier, with an error that says so.
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: found.maximum });
    }
    found
}

fn forget(call: &mut Call) {
    call.forgotten = true;
    call.attached = None;
    call.spool = crate::spool::Spool::new(0, Overflow::End);
}

fn check_names_and_limits(exec: &Exec) -> Result<(), Failure> {
    let refuse = |kind, detail: String| Err(refused(kind, "exec", detail));
    if exec.call.is_empty() || exec.call.len() > MAX_CALL_ID {
        let detail = format!("a call identifier has 1 to {MAX_CALL_ID} bytes, not {}", exec.call.len());
        return refuse(FailureKind::Invalid, detail);
    }
    if exec.label.len() > MAX_LABEL {
        return refuse(
            FailureKind::Invalid,
            format!("a label has at most {MAX_LABEL} bytes, not {}", exec.label.len()),
        );
    }
    match exec.overflow {
        Overflow::End if exec.output_limit > MAX_OUTPUT => {
            refuse(FailureKind::Limit, format!("output limit of {} bytes is over {MAX_OUTPUT}", exec.output_limit))
        }
        Overflow::DropHead if !(MIN_TAIL..=MAX_TAIL).contains(&exec.output_limit) => {
            let detail = format!("a tail of {} bytes is not within {MIN_TAIL} to {MAX_TAIL}", exec.output_limit);
            refuse(FailureKind::Limit, detail)
        }
        _ => Ok(()),
    }
}

fn unknown(id: &str) -> Failure {
    refused(FailureKind::NotFound, "find call", format!("no call `{id}` is known here"))
}
