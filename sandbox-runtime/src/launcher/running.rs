//! Which first processes run, written down where no control group could tell it to the next launcher.
//!
//! ```text
//! <state>/running/<sandbox>   number, start time and boot of its PID 1; there as long as the sandbox is
//! ```
//!
//! A number alone may be another process's by now: with its start time, in one run of the machine, it is nobody else's. The end of a
//! PID 1 is the end of everything in its namespace.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ostler_wire::{Failure, FailureKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::state::log;
use crate::step::{Step, failure};

/// Time in which killed processes must be gone.
const PATIENCE: Duration = Duration::from_secs(10);

fn folder(state: &Path) -> PathBuf {
    state.join("running")
}

/// Writes down that `init` is the first process of a sandbox.
pub(super) fn note(state: &Path, sandbox: &str, init: Pid) -> Result<(), Failure> {
    let folder = folder(state);
    let shown = || format!("the first process of {sandbox}");
    let text = identity(init).ok_or_else(|| failure(FailureKind::System, "identify", shown()))?;
    // As a whole: half of it would be nobody's identity.
    let half = folder.join(format!(".{sandbox}"));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&half, text))
        .and_then(|()| fs::rename(&half, folder.join(sandbox)))
        .step("write down", shown)
}

/// Takes back what [`note`] wrote, if it did.
pub(super) fn forget(state: &Path, sandbox: &str) {
    match fs::remove_file(folder(state).join(sandbox)) {
        Err(error) if error.kind() != ErrorKind::NotFound => log(&format!("{sandbox} stays written down: {error}")),
        _ => {}
    }
}

/// Ends the first processes that an earlier launcher has written down and that still run.
pub(super) fn end_noted(state: &Path) -> Result<(), Failure> {
    let folder = folder(state);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.step("list", || folder.display().to_string())?,
    };
    for entry in entries {
        let path = entry.step("list", || folder.display().to_string())?.path();
        let text = fs::read_to_string(&path).step("read", || path.display().to_string())?;
        end(&text, &path)?;
        fs::remove_file(&path).step("remove", || path.display().to_string())?;
    }
    Ok(())
}

/// Ends the process that `text` is the identity of.
fn end(text: &str, path: &Path) -> Result<(), Failure> {
    let Some(pid) = text.split(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else {
        return Ok(());
    };
    let shown = || format!("process {} of {}", pid.as_raw_nonzero(), path.display());
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Looked at after it was opened: whoever has the number from now on is not who the descriptor means.
    if identity(pid).as_deref() != Some(text) {
        return Ok(());
    }
    match pidfd_send_signal(&descriptor, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error).step("end leftovers", shown),
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failure(FailureKind::Limit, "end leftovers", format!("{} does not end", shown())));
        }
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error).step("wait", shown),
        }
    }
}

/// Number, start time in ticks since the start of the machine, and which start that was.
fn identity(pid: Pid) -> Option<String> {
    let number = pid.as_raw_nonzero();
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name before may hold anything; the third field comes after it, the start time is the twenty-second.
    let start = stat.rsplit_once(") ")?.1.split(' ').nth(19)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{number} {start} {}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_was_written_down_is_ended_and_whoever_has_its_number_is_not() {
        let state = tempfile::tempdir().unwrap();
        let mut children: Vec<_> = (0..2).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect();
        let [noted, another] = [0, 1].map(|number: usize| Pid::from_child(&children[number]));
        note(state.path(), "one", noted).unwrap();
        // The same number at another time.
        let text = identity(another).unwrap();
        let mut fields = text.split(' ');
        let other = format!("{} 1 {}", fields.next().unwrap(), fields.nth(1).unwrap());
        fs::write(folder(state.path()).join("two"), other).unwrap();
        end_noted(state.path()).unwrap();
        assert!(children[0].wait().unwrap().code().is_none(), "killed");
        assert!(children[1].try_wait().unwrap().is_none(), "another process with the number lives on");
        children[1].kill().unwrap();
        children[1].wait().unwrap();
        assert_eq!(fs::read_dir(folder(state.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_has_ended_by_itself_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        end_noted(state.path()).unwrap();
        note(state.path(), "one", rustix::process::getpid()).unwrap();
        forget(state.path(), "one");
        forget(state.path(), "one");
        fs::write(folder(state.path()).join("two"), "no number").unwrap();
        end_noted(state.path()).unwrap();
        assert_eq!(fs::read_dir(folder(state.path())).unwrap().count(), 0);
    }
}
