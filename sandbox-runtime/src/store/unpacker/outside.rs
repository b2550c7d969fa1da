//! The import's side: starts the process that reads the archive, waits for its report and its end, and believes neither.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ostler_wire::Failure;
use ostler_wire::socket::{self, SocketError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::report::{Done, Report, plain};
use super::room::MEMORY;
use super::{Plan, Task, Trial};
use crate::defence::Weakened;
use crate::ids::WHOLE;
use crate::launcher::UID_FIRST;
use crate::store::StoreError;

/// The range below that of the first sandbox.
const UID_BASE: u32 = UID_FIRST - WHOLE;

/// Longest wait for the end of a process that was killed: what it has begun to write must come to the disk first.
const ENDING: Duration = Duration::from_secs(60);

/// How often an archive may become its own size, where nothing else is said; only bombs become more.
const RATIO: u64 = 100;
/// However small an archive is, it may become this.
const LEAST: u64 = 1 << 30;
/// However large it is, no more than this.
const MOST: u64 = 64 << 30;

/// What an archive may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all of its files. Without a number: a hundred times the archive, but at least 1 GiB and at most 64 GiB.
    pub bytes: Option<u64>,
    /// Files, folders and everything else that has a name.
    pub entries: u64,
    /// Time for unpacking, and as much for decompressing.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: None, entries: 2_000_000, time: Duration::from_secs(30 * 60) }
    }
}

impl Bounds {
    pub(in crate::store) fn bytes_of(&self, archive: u64) -> u64 {
        self.bytes.unwrap_or_else(|| archive.saturating_mul(RATIO).clamp(LEAST, MOST))
    }
}

/// How to start the process that reads archives, and what they may take.
#[derive(Clone, Debug)]
pub struct Unpacker {
    /// A program that ends up in [`super::run`] with its last argument.
    pub program: PathBuf,
    /// What the program is told before that argument.
    pub verb: String,
    /// What an archive may take.
    pub bounds: Bounds,
    /// First of 65,536 uids that nobody on the machine has.
    pub uid_base: u32,
    /// Defences to leave out. For tests: a build without debug assertions refuses to.
    pub weakened: Weakened,
    /// What to do in place of reading the archive. For tests, too.
    pub trial: Option<Trial>,
}

impl Unpacker {
    /// With the usual bounds.
    #[must_use]
    pub fn new(program: PathBuf, verb: &str) -> Self {
        Self {
            program,
            verb: verb.to_owned(),
            bounds: Bounds::default(),
            uid_base: UID_BASE,
            weakened: Weakened::default(),
            trial: None,
        }
    }

    /// Decompresses `packed` into the empty file `into`. Errors speak of `archive`.
    pub(in crate::store) fn decompress(
        &self,
        packed: File,
        archive: &Path,
        into: &Path,
        bytes: u64,
    ) -> Result<Done, StoreError> {
        self.perform(Task::Decompress(into.to_owned()), packed, archive, into, bytes)
    }

    /// Unpacks `tar` into the empty folder `into`. Errors speak of `archive`.
    pub(in crate::store) fn unpack(
        &self,
        tar: File,
        archive: &Path,
        into: &Path,
        bytes: u64,
    ) -> Result<Done, StoreError> {
        self.perform(Task::Unpack(into.to_owned()), tar, archive, into, bytes)
    }

    fn perform(&self, task: Task, content: File, archive: &Path, into: &Path, bytes: u64) -> Result<Done, StoreError> {
        let plan = Plan {
            task,
            place: into.parent().unwrap_or(Path::new("/")).to_owned(),
            uid_base: self.uid_base,
            bytes,
            entries: self.bounds.entries,
            seconds: self.bounds.time.as_secs() + 1,
            weakened: self.weakened.clone(),
            trial: self.trial,
        };
        let path = archive.to_owned();
        let (mut child, ours) = self.start(&plan, content).map_err(StoreError::io("start a process for", archive))?;
        let heard = listen(&mut child, ours.as_fd(), Instant::now() + self.bounds.time);
        match heard {
            // It hangs in a disk, it may be for ever: whoever comes after this process collects it.
            Heard::TooLate => drop(child.try_wait()),
            // Nobody is at the other end any more, or it was told to end: this only collects it.
            _ => drop(child.wait()),
        }
        match heard {
            Heard::Report(Report::Done(done)) => Ok(done),
            Heard::Report(Report::Failed(problem)) => {
                Err(problem.into_error(archive, into, bytes, self.bounds.entries))
            }
            Heard::Report(Report::NotBegun(source)) => Err(StoreError::NotConfined { path, source: readable(source) }),
            Heard::Report(Report::Ended { how }) => Err(StoreError::Ended { path, how: ending(&plain(&how)) }),
            Heard::Nothing => Err(StoreError::Ended { path, how: "without a word; it was killed".to_owned() }),
            Heard::Nonsense => {
                Err(StoreError::Ended { path, how: "by us: it said what such a process does not say".to_owned() })
            }
            Heard::TooLate => Err(StoreError::TooLong { path, time: self.bounds.time }),
            Heard::Lost(source) => Err(StoreError::io("wait for the process that unpacks", path)(source.into())),
        }
    }

    fn start(&self, plan: &Plan, content: File) -> std::io::Result<(Child, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let argument = serde_json::to_string(plan)?;
        let mut command = Command::new(&self.program);
        // Whatever is in this process's environment, the other one has no use for it.
        command.arg(&self.verb).arg(argument).env_clear().current_dir("/");
        command.stdin(content).stdout(theirs).stderr(Stdio::null());
        Ok((command.spawn()?, ours))
    }
}

/// What came over the socket until everybody at its other end was gone.
enum Heard {
    Report(Report),
    Nothing,
    Nonsense,
    TooLate,
    Lost(Errno),
}

/// Returns when no process is left that can change anything, or when it should long have been so.
fn listen(child: &mut Child, socket: BorrowedFd<'_>, until: Instant) -> Heard {
    let mut heard = Heard::Nothing;
    let mut until = until;
    let mut is_killed = false;
    loop {
        match socket::receive::<Report>(socket) {
            Ok((report, None)) if matches!(heard, Heard::Nothing) => {
                heard = Heard::Report(report);
                continue;
            }
            Err(SocketError::Closed) => return heard,
            Err(SocketError::NotReady) => {}
            // A second report, a descriptor, bytes that are none.
            _ => heard = Heard::Nonsense,
        }
        let is_late = Instant::now() >= until;
        if is_late && is_killed {
            return Heard::TooLate;
        }
        if is_late {
            heard = Heard::TooLate;
        }
        if !is_killed && matches!(heard, Heard::Nonsense | Heard::TooLate) {
            // What reads the archive ends with its parent.
            let _ = child.kill();
            (is_killed, until) = (true, Instant::now() + ENDING);
        }
        if let Err(error) = wait(socket, until) {
            let _ = child.kill();
            return Heard::Lost(error);
        }
    }
}

fn wait(socket: BorrowedFd<'_>, until: Instant) -> Result<(), Errno> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&left)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is known of the reasons for an end.
fn ending(how: &str) -> String {
    let is = |signal: i32| how == format!("signal {signal}");
    // Aborting is one of these: the first process of a namespace does not die of its own SIGABRT.
    let why = if [libc::SIGABRT, libc::SIGSEGV, libc::SIGILL, libc::SIGTRAP].into_iter().any(is) {
        format!(": it wanted more than {} MiB of memory, or has a defect", MEMORY >> 20)
    } else if is(libc::SIGKILL) {
        ": killed, by somebody or because the machine had no memory left".to_owned()
    } else {
        String::new()
    };
    format!("by {how}{why}")
}

fn readable(failure: Failure) -> Failure {
    Failure { op: plain(&failure.op), detail: plain(&failure.detail), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_may_become_a_hundred_times_its_size_within_reason() {
        let usual = Bounds::default();
        assert_eq!(usual.bytes_of(0), 1 << 30);
        assert_eq!(usual.bytes_of(100 << 20), 10_000 << 20);
        assert_eq!(usual.bytes_of(u64::MAX), 64 << 30);
        assert_eq!(Bounds { bytes: Some(5), ..usual }.bytes_of(1 << 40), 5);
    }
}
