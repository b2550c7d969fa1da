//! Running `git` as a child: clean environment, no hooks, a process group of its own, never longer than a deadline.
//!
//! Owns how git is started and how it is ended. Git ends when its caller loses interest: [`GitChild::end`] asks the whole
//! group to stop, so that git removes its temporary files, and kills it when it does not.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::ForgeError;

/// Time between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(2);

/// How much of git's error output is kept for messages.
const STDERR_TAIL: usize = 2048;

/// Oldest git that keeps what [`SETTINGS`] promise: `core.fsync` came with it.
pub const OLDEST_GIT: (u32, u32) = (2, 36);

/// Settings of every git process; `-c` is stronger than any file and reaches git's own children.
const SETTINGS: &[&str] = &[
    // The host may run as another user than the one that made the repositories (it drops privileges), and git is
    // never led to any folder but one of the forge.
    "safe.directory=*",
    // What a client pushed never runs here, and nothing goes on in the background.
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "receive.autogc=false",
    // A push is acknowledged when it is on the disk: objects in one synced pack, and the reference.
    "core.fsync=all",
    "receive.unpackLimit=1",
    // Objects are checked before they are let in. The exceptions are old mistakes in names and dates that many honest
    // histories hold and that harm nobody.
    "transfer.fsckObjects=true",
    "receive.fsck.zeroPaddedFilemode=ignore",
    "receive.fsck.missingSpaceBeforeDate=ignore",
    "receive.fsck.missingNameBeforeEmail=ignore",
    "receive.fsck.badTimezone=ignore",
    "receive.advertisePushOptions=false",
    "uploadpack.allowFilter=true",
    // Larger files are streamed and never compared: what a client pushed decides how much memory a diff takes.
    "core.bigFileThreshold=16m",
];

/// Most bytes that git takes for one buffer while it reads what a sandbox pushed: a few kilobytes of a pack can stand for
/// gigabytes of a commit. Not for clones and for people's own pushes, whose tables grow with the number of objects.
const PUSHED_ALLOCATION: &str = "128m";

/// A git command on one repository, or on none.
pub(super) fn git(search_path: &OsStr, repository: Option<&Path>, settings: &[String]) -> Command {
    let mut command = Command::new("git");
    command.env_clear();
    for (name, value) in environment(search_path) {
        command.env(name, value);
    }
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    if let Some(repository) = repository {
        command.current_dir(repository);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
}

/// Bounds the memory of a git that reads what a sandbox pushed.
pub(super) fn distrust_input(command: &mut Command) {
    command.env("GIT_ALLOC_LIMIT", PUSHED_ALLOCATION);
}

/// The whole environment of git: nothing of the host's but where programs are found.
fn environment(search_path: &OsStr) -> Vec<(&'static str, &OsStr)> {
    let fixed = [
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        // Later versions of git change both defaults.
        ("GIT_DEFAULT_HASH", "sha1"),
        ("GIT_DEFAULT_REF_FORMAT", "files"),
    ];
    let mut all: Vec<_> = fixed.into_iter().map(|(name, value)| (name, OsStr::new(value))).collect();
    all.push(("PATH", search_path));
    all
}

/// A running git process. It holds its place among the permitted processes until it is gone.
pub(super) struct GitChild {
    child: Child,
    _permit: OwnedSemaphorePermit,
}

impl GitChild {
    /// Starts a command made by [`git`].
    pub(super) fn spawn(mut command: Command, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, _permit: permit })
    }

    /// The process, to take its pipes and to wait for it.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends the process and everything that it started, within a few seconds.
    pub(super) async fn end(mut self) {
        self.signal(Signal::TERM);
        if timeout(GRACE, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            // Killed processes end at once unless they hang in the kernel; then the runtime reaps them later.
            let _ = timeout(GRACE, self.child.wait()).await;
        }
    }

    fn signal(&self, signal: Signal) {
        // The identifier is absent once the process was waited for: no signal can reach a stranger.
        let process = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(process) = process {
            let _ = kill_process_group(process, signal);
        }
    }
}

/// What a finished query of git printed.
pub(super) struct Answer {
    /// How it ended; `None` where it was ended because it had printed `limit` bytes.
    pub(super) status: Option<ExitStatus>,
    /// The first `limit` bytes.
    pub(super) stdout: Vec<u8>,
    /// The end of its error output.
    pub(super) stderr: String,
}

/// Runs a command to its end and returns at most `limit` bytes of its output. Dropping the future kills it.
pub(super) async fn run(
    name: &'static str,
    command: Command,
    permit: OwnedSemaphorePermit,
    limit: usize,
    deadline: Duration,
) -> Result<Answer, ForgeError> {
    let spawn = |source| ForgeError::Spawn { command: name, source };
    let mut git = GitChild::spawn(command, permit).map_err(spawn)?;
    let child = git.child();
    let stdout = child.stdout.take();
    // A task of its own, so that error output never blocks git. It ends when git has closed the pipe.
    let errors = tokio::spawn(tail(child.stderr.take()));
    let work = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(limit as u64 + 1).read_to_end(&mut output).await?;
        }
        // Git that has more to say would wait for a reader for ever.
        let status = if output.len() > limit { None } else { Some(git.child().wait().await?) };
        Ok::<_, io::Error>((output, status))
    };
    let Ok(result) = timeout(deadline, work).await else {
        git.end().await;
        return Err(ForgeError::Deadline { command: name, deadline });
    };
    let (mut stdout, status) = result.map_err(spawn)?;
    if status.is_none() {
        git.end().await;
        stdout.truncate(limit);
        return Ok(Answer { status, stdout, stderr: String::new() });
    }
    let stderr = timeout(GRACE, errors).await.ok().and_then(Result::ok).unwrap_or_default();
    Ok(Answer { status, stdout, stderr })
}

/// Reads a stream to its end and keeps the end of it, as one line of text.
pub(super) async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..read]);
            if kept.len() > 2 * STDERR_TAIL {
                kept.drain(..kept.len() - STDERR_TAIL);
            }
        }
    }
    let start = kept.len().saturating_sub(STDERR_TAIL);
    String::from_utf8_lossy(&kept[start..]).trim().replace('\n', "; ")
}
