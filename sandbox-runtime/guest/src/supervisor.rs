//! The small process between PID 1 and a command: it starts the command and collects everything that descends from it.
//!
//! It is a subreaper, so a descendant that is orphaned, even one that called `setsid`, stays below it and can be found
//! when the call is stopped. It ends when nothing is left below it, which is how PID 1 knows.
//!
//! ```text
//! PID 1 ── fork ──► supervisor ── posix_spawn ──► command ──► …
//!   ▲  status pipe: Started │ Failed, then Exited │
//!   └────────── streams, see `streams.rs` ────────┘
//! ```
//!
//! Neither the supervisor nor the command gets a session of its own, only the command a process group: the kernel makes a
//! scheduling group for each session (`sched_autogroup`), and waking across groups made a short call five times slower on
//! a busy machine. A command on a terminal is the exception: it must lead a session to control its terminal.
//!
//! The supervisor shares its uid with the command, so the command may kill or stop it. Nothing here relies on it being
//! honest: PID 1 does the killing, and takes a supervisor that vanishes for a call that was killed.

use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use ostler_wire::guest::Exec;
use ostler_wire::{Failure, FailureKind};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus, getpid, set_child_subreaper, setrlimit, wait};

use crate::failure::{failed, refused};
use crate::streams::Streams;
use crate::sys::{self, Forked, Stdin};

/// Where programs are searched when the environment of the call names no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// PID 1's side of a new supervisor.
pub(crate) struct Supervisor {
    /// Its process.
    pub(crate) pid: Pid,
    /// Its reports; does not block.
    pub(crate) status: OwnedFd,
    /// What the command writes; does not block.
    pub(crate) output: OwnedFd,
    /// The host's socket, where the command has it.
    pub(crate) piped: Option<OwnedFd>,
}

/// What a supervisor tells PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command runs.
    Started(Pid),
    /// It could not be started; nothing was left behind.
    Failed(Step, Errno),
    /// The command itself ended; what it left in the background may go on.
    Exited {
        /// Exit status, 128 + signal where a signal ended it.
        status: i32,
        /// From start to end, in microseconds.
        wall_us: u64,
    },
}

/// The step at which a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Preparing the supervisor.
    Prepare,
    /// Entering the working directory.
    Directory,
    /// Finding or executing the program.
    Execute,
}

/// Size of an encoded [`Report`]; far below what a pipe writes in one piece.
pub(crate) const REPORT: usize = 16;

impl Report {
    fn encode(self) -> [u8; REPORT] {
        let (tag, value, extra) = match self {
            Self::Started(pid) => (0, pid.as_raw_pid(), 0),
            Self::Failed(Step::Prepare, errno) => (1, errno.raw_os_error(), 0),
            Self::Failed(Step::Directory, errno) => (2, errno.raw_os_error(), 0),
            Self::Failed(Step::Execute, errno) => (3, errno.raw_os_error(), 0),
            Self::Exited { status, wall_us } => (4, status, wall_us),
        };
        let mut bytes = [0; REPORT];
        bytes[..4].copy_from_slice(&u32::to_ne_bytes(tag));
        bytes[4..8].copy_from_slice(&i32::to_ne_bytes(value));
        bytes[8..].copy_from_slice(&u64::to_ne_bytes(extra));
        bytes
    }

    /// `None` for bytes that no supervisor writes.
    pub(crate) fn decode(bytes: &[u8; REPORT]) -> Option<Self> {
        let (head, extra) = bytes.split_at(8);
        let (tag, value) = head.split_at(4);
        let tag = u32::from_ne_bytes(tag.try_into().ok()?);
        let value = i32::from_ne_bytes(value.try_into().ok()?);
        let wall_us = u64::from_ne_bytes(extra.try_into().ok()?);
        let step = match tag {
            // A negative number is none to `from_raw`.
            0 => return Pid::from_raw(value.max(0)).map(Self::Started),
            1 => Step::Prepare,
            2 => Step::Directory,
            3 => Step::Execute,
            4 => return Some(Self::Exited { status: value, wall_us }),
            _ => return None,
        };
        (1..4096).contains(&value).then(|| Self::Failed(step, Errno::from_raw_os_error(value)))
    }
}

/// Checks what can be checked without a process. The call's identifier and limits are the caller's business.
pub(crate) fn check(exec: &Exec) -> Result<(), Failure> {
    let invalid = |detail: String| Err(refused(FailureKind::Invalid, "exec", detail));
    if exec.argv.first().is_none_or(String::is_empty) {
        return invalid("the argument list names no program".into());
    }
    if !exec.cwd.starts_with('/') {
        return invalid(format!("working directory `{}` is not absolute", exec.cwd));
    }
    if let Some((name, _)) = exec.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        return invalid(format!("`{name}` is no name of an environment variable"));
    }
    let pairs = exec.env.iter().flat_map(|(name, value)| [name, value]);
    if exec.argv.iter().chain(pairs).chain([&exec.cwd]).any(|text| text.contains('\0')) {
        return invalid("an argument, environment variable or directory holds a zero byte".into());
    }
    Ok(())
}

/// Forks a supervisor for a checked request. Returns at once; what becomes of the command comes as [`Report`]s.
///
/// `null` is `/dev/null`, `files` the limit of open files that commands get.
pub(crate) fn start(exec: &Exec, streams: Streams, null: BorrowedFd<'_>, files: Rlimit) -> Result<Supervisor, Failure> {
    let name = exec.argv.first().map_or("", String::as_str);
    let step = |op: &'static str| move |errno| failed(op, errno, format!("starting `{name}`"));
    let (status, status_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(step("pipe"))?;
    // The reading end belongs to PID 1 alone and each end has its own flags, so commands cannot change it.
    rustix::io::ioctl_fionbio(&status, true).map_err(step("ioctl"))?;
    match sys::fork().map_err(step("fork"))? {
        Forked::Parent(pid) => Ok(Supervisor { pid, status, output: streams.output, piped: streams.piped }),
        Forked::Child => supervise(exec, status_writer.as_fd(), &streams, null, files),
    }
}

fn supervise(exec: &Exec, status: BorrowedFd<'_>, streams: &Streams, null: BorrowedFd<'_>, files: Rlimit) -> ! {
    let started = Instant::now();
    let main = match prepare(streams, null, status, files)
        .map_err(|errno| (Step::Prepare, errno))
        .and_then(|()| rustix::process::chdir(exec.cwd.as_str()).map_err(|errno| (Step::Directory, errno)))
        .and_then(|()| execute(exec, streams.stdin).map_err(|errno| (Step::Execute, errno)))
    {
        Ok(main) => main,
        Err((step, errno)) => {
            report(status, Report::Failed(step, errno));
            sys::exit(1);
        }
    };
    report(status, Report::Started(main));
    release();
    collect(status, main, started)
}

/// Makes this process the subreaper of what it will start, with the call's streams and no other descriptor but `status`.
fn prepare(streams: &Streams, null: BorrowedFd<'_>, status: BorrowedFd<'_>, files: Rlimit) -> Result<(), Errno> {
    set_child_subreaper(Some(getpid()))?;
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(&streams.stdout)?;
    rustix::stdio::dup2_stderr(streams.stderr.as_ref().unwrap_or(&streams.stdout))?;
    sys::close_all_but(status)?;
    setrlimit(Resource::Nofile, files)
}

/// Lets go of the output, whose end must mean that the command's processes closed it, and of the directory.
fn release() {
    // Failures leave this process holding a descriptor or directory until it ends: a later end of file, nothing lost.
    let stdin = rustix::stdio::stdin();
    let _ = rustix::stdio::dup2_stdout(stdin);
    let _ = rustix::stdio::dup2_stderr(stdin);
    let _ = rustix::process::chdir("/");
}

/// Waits for everything below; reports the end of the command itself.
fn collect(status: BorrowedFd<'_>, main: Pid, started: Instant) -> ! {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, ended))) if pid == main => {
                let wall_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                report(status, Report::Exited { status: exit_status(ended), wall_us });
            }
            Ok(_) | Err(Errno::INTR) => {}
            // No child is left.
            Err(_) => sys::exit(0),
        }
    }
}

/// The status of an ended process as shells give it: 128 + signal where a signal ended it.
pub(crate) fn exit_status(ended: WaitStatus) -> i32 {
    match (ended.exit_status(), ended.terminating_signal()) {
        (Some(status), _) => status,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

fn report(status: BorrowedFd<'_>, report: Report) {
    // A pipe takes so few bytes at once or not at all; when PID 1 is gone nobody is left to tell.
    let _ = rustix::io::retry_on_intr(|| rustix::io::write(status, &report.encode()));
}

fn execute(exec: &Exec, stdin: Stdin) -> Result<Pid, Errno> {
    // Zero bytes were refused by `check`.
    let text = |text: &str| CString::new(text).map_err(|_: NulError| Errno::INVAL);
    let arguments = exec.argv.iter().map(|each| text(each)).collect::<Result<Vec<_>, _>>()?;
    let environment =
        exec.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>()?;
    let program = exec.argv.first().ok_or(Errno::INVAL)?;
    if program.contains('/') {
        return sys::spawn(&text(program)?, &arguments, &environment, stdin);
    }
    let path = exec.env.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    let mut refusal = Errno::NOENT;
    for directory in path.split(':') {
        let candidate = text(&format!("{}/{program}", if directory.is_empty() { "." } else { directory }))?;
        // Looking first is cheaper than a spawn that fails.
        let tried = accessat(CWD, candidate.as_c_str(), Access::EXEC_OK, AtFlags::empty())
            .and_then(|()| sys::spawn(&candidate, &arguments, &environment, stdin));
        match tried {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            // As `execvp` does: another directory may hold one that may be executed.
            Err(Errno::ACCESS) => refusal = Errno::ACCESS,
            other => return other,
        }
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use ostler_wire::guest::{Overflow, Stdio};

    use super::*;

    fn exec() -> Exec {
        Exec {
            call: "c".into(),
            argv: vec!["true".into()],
            env: vec![("A".into(), "b=c".into())],
            cwd: "/".into(),
            timeout_ms: 0,
            output_limit: 1,
            overflow: Overflow::End,
            stdio: Stdio::Merged,
            label: String::new(),
        }
    }

    #[test]
    fn reports_survive_the_pipe() {
        let pid = Pid::from_raw(77).unwrap();
        for sent in [
            Report::Started(pid),
            Report::Failed(Step::Prepare, Errno::MFILE),
            Report::Failed(Step::Directory, Errno::NOENT),
            Report::Failed(Step::Execute, Errno::ACCESS),
            Report::Exited { status: 137, wall_us: u64::MAX },
        ] {
            assert_eq!(Report::decode(&sent.encode()), Some(sent));
        }
    }

    #[test]
    fn bytes_that_no_supervisor_writes_are_no_report() {
        let forged = |tag: u32, value: i32| {
            let mut bytes = [0; REPORT];
            bytes[..4].copy_from_slice(&tag.to_ne_bytes());
            bytes[4..8].copy_from_slice(&value.to_ne_bytes());
            Report::decode(&bytes)
        };
        for (tag, value) in [(0, 0), (0, -1), (1, 0), (2, 5000), (3, -2), (5, 1)] {
            assert_eq!(forged(tag, value), None, "tag {tag}, value {value}");
        }
    }

    #[test]
    fn a_malformed_request_is_refused_before_anything_starts() {
        assert_eq!(check(&exec()), Ok(()));
        let broken = [
            Exec { argv: vec![], ..exec() },
            Exec { argv: vec![String::new()], ..exec() },
            Exec { argv: vec!["a".into(), "b\0c".into()], ..exec() },
            Exec { env: vec![("A=B".into(), "c".into())], ..exec() },
            Exec { env: vec![("".into(), "c".into())], ..exec() },
            Exec { env: vec![("A".into(), "c\0".into())], ..exec() },
            Exec { cwd: "workspace".into(), ..exec() },
            Exec { cwd: String::new(), ..exec() },
        ];
        for each in broken {
            assert_eq!(check(&each).map_err(|failure| failure.kind), Err(FailureKind::Invalid), "{each:?}");
        }
    }
}
