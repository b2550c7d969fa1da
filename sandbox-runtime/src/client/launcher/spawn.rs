//! Starting a launcher and waiting until it listens. Needs no runtime.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;

use super::{LauncherClientError, dial};
use crate::process;

/// How a launcher begins to say that another one has its directory, see [`crate::launcher::LauncherError::Held`].
const HELD: &str = "another launcher (process";

/// The most of a log file that is shown in an error, in bytes.
const LOG_TAIL: usize = 2000;

/// Whether a launcher was started or already there.
#[derive(Debug)]
pub enum Spawned {
    /// One was started. It goes on when the handle is dropped.
    New(Child),
    /// One listens at the socket already, of an earlier host.
    Running,
}

/// Starts a launcher unless one listens at `socket` already, and waits until it listens, at most `within`.
///
/// `command` runs a program that ends up in [`crate::launcher::run`] with a configuration of the same socket;
/// its standard streams are set here, standard error to the end of the file `log`. Needs no runtime.
///
/// # Errors
/// When it cannot be run, ends before it listens, or takes too long; the end of its log is in the error.
pub fn spawn_launcher(
    mut command: Command,
    socket: &Path,
    log: &Path,
    within: Duration,
) -> Result<Spawned, LauncherClientError> {
    let until = Instant::now() + within;
    loop {
        match dial(socket) {
            Ok(connected) if listener_lives(&connected) => return Ok(Spawned::Running),
            // Killed, but a process that it had just forked has not closed the socket yet.
            Ok(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            _ => break,
        }
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| LauncherClientError::Start { program: program.clone(), source };
    let errors = File::options().create(true).append(true).open(log).map_err(failed)?;
    let start = errors.metadata().map_err(failed)?.len();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().map_err(failed)?;
    let said = child.stdout.take().map(|output| said_ready(&output, within)).transpose().map_err(failed)?.flatten();
    match said {
        Some(true) => Ok(Spawned::New(child)),
        Some(false) => {
            let status = child.wait().map_err(failed)?;
            let log = tail(log, start);
            // Another was starting at the same time, such as that of a host that was killed: it listens in a moment.
            if log.contains(HELD) && wait_for_listener(socket, until) {
                return Ok(Spawned::Running);
            }
            Err(LauncherClientError::EndedEarly { status, log })
        }
        None => {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            Err(LauncherClientError::NotReady { seconds: within.as_secs(), log: tail(log, start) })
        }
    }
}

/// Waits until somebody who lives listens at the socket.
fn wait_for_listener(socket: &Path, until: Instant) -> bool {
    while Instant::now() < until {
        if dial(socket).is_ok_and(|connected| listener_lives(&connected)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Whether the process that listens at the other end has not ended; assumed where that cannot be told.
fn listener_lives(connected: &OwnedFd) -> bool {
    socket_peercred(connected).map_or(true, |listener| process::lives(listener.pid))
}

/// `true` when the launcher said that it is ready, `false` when it ended, `None` when it did neither in time.
fn said_ready(output: &impl AsFd, within: Duration) -> io::Result<Option<bool>> {
    let until = Instant::now() + within;
    let mut seen = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; 64];
        match rustix::io::read(output, &mut buffer)? {
            0 => return Ok(Some(false)),
            length => seen.extend(&buffer[..length]),
        }
        if seen.starts_with(b"ready\n") {
            return Ok(Some(true));
        }
    }
}

/// The last lines that were written to the log since `start`.
fn tail(log: &Path, start: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let new = bytes.get(start as usize..).unwrap_or_default();
    let end = &new[new.len().saturating_sub(LOG_TAIL)..];
    let text = String::from_utf8_lossy(end);
    if text.trim().is_empty() { "nothing".to_owned() } else { text.trim().replace('\n', "; ") }
}
