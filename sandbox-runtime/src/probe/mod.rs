//! Whether this machine lets a launcher do its work: each thing is really tried, with the launcher's own code, and taken
//! back.
//!
//! ```text
//!  who asks ── exec ──► probe (one thread) ── fork ──► one child per attempt
//!     ◄── a line of JSON per attempt ──┘      ◄── outcome, or nothing in time
//! ```
//!
//! Mounts and namespaces end with the children. Files lie in one folder, which the probe makes and removes; the control
//! group of a trial is removed too. Owns no judgement: what an outcome means for a host is said by who asks.

mod attempts;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ostler_wire::launcher::Limits;
use ostler_wire::socket::{self, SocketError};
use ostler_wire::{Failure, FailureKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::cgroup::trial::Trial;
use crate::launcher::LauncherError;
use crate::process;
use crate::standing;
use crate::step::{Step, failure};

pub use crate::cgroup::Gap;
pub use crate::cgroup::trial::{Kind, Summary, summary as control_groups};

/// Longest time of one attempt. All of them usually take less than half a second.
const ATTEMPT: Duration = Duration::from_secs(2);

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// Every namespace of a sandbox.
    Namespaces,
    /// The door: loopback, address, route, nftables, sockets, in a network namespace.
    Door,
    /// The root file system: idmapped layers under an overlay.
    Overlay,
    /// A process started in a control group of its own and limited.
    Limits,
    /// A filter of system calls.
    Seccomp,
    /// The guest, executed from a sealed memory file.
    Guest,
}

impl Attempt {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 6] = [Self::Namespaces, Self::Door, Self::Overlay, Self::Limits, Self::Seccomp, Self::Guest];

    /// Whether it is tried as root, or as root of a user namespace.
    #[must_use]
    pub fn needs_root(self) -> bool {
        !matches!(self, Self::Seccomp | Self::Guest)
    }
}

/// What is to be tried and with what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In this order.
    pub attempts: Vec<Attempt>,
    /// A folder on the file system that sandboxes will lie on. A folder is made in it and removed.
    pub place: PathBuf,
    /// Limits as a sandbox would get them.
    pub limits: Limits,
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub attempt: Attempt,
    /// The step that was refused, if one was.
    pub refused: Option<Failure>,
}

/// Tries what the plan says and writes a line of JSON for each as soon as it is known.
///
/// Must be called in a freshly executed process without threads.
///
/// # Errors
/// When the process has threads. What cannot be tried is an outcome.
pub fn run(plan: &Plan, mut out: impl Write) -> Result<(), LauncherError> {
    match process::is_single_threaded() {
        Ok(true) => {}
        _ => return Err(LauncherError::Threads),
    }
    // Ctrl-C at the terminal ends who asks; the probe still takes away what it made. A leader of a session stays in it.
    let _ = rustix::process::setsid();
    // In a namespace of one's own, other users cannot be told apart any more.
    let place = trusted(&plan.place);
    let become_root =
        || if plan.attempts.iter().any(|attempt| attempt.needs_root()) { standing::become_root() } else { Ok(()) };
    let rights = become_root();
    for attempt in &plan.attempts {
        let may = if attempt.needs_root() { rights.clone() } else { Ok(()) };
        let refused = may.and_then(|()| attempt_one(*attempt, plan, &place)).err();
        let line = serde_json::to_string(&Outcome { attempt: *attempt, refused });
        // Nobody may be listening any more; what was begun is taken away all the same.
        let _ = line.map_err(std::io::Error::from).and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    }
    Ok(())
}

fn attempt_one(attempt: Attempt, plan: &Plan, place: &Result<PathBuf, Failure>) -> Result<(), Failure> {
    match attempt {
        Attempt::Namespaces => in_child(attempts::namespaces),
        Attempt::Door => in_child(attempts::door),
        Attempt::Seccomp => in_child(attempts::seccomp),
        Attempt::Guest => in_child_that_becomes_another(attempts::guest()?),
        Attempt::Overlay => {
            let scratch = Scratch::make(place.as_ref().map_err(Clone::clone)?)?;
            let tried = in_child(|| attempts::overlay(&scratch.0));
            tried.and(scratch.remove())
        }
        Attempt::Limits => {
            let trial = Trial::prepare(&format!("doctor-{}", std::process::id()))?;
            let tried = in_child(|| trial.limit(plan.limits));
            tried.and(trial.undo())
        }
    }
}

/// A folder of the probe's own.
struct Scratch(PathBuf);

impl Scratch {
    fn make(place: &Path) -> Result<Self, Failure> {
        let path = place.join(format!(".ostler-doctor-{}", std::process::id()));
        // Open to be walked through: a namespace has no rights over folders of the host.
        let made = std::fs::DirBuilder::new().mode(0o755).create(&path);
        made.step("make directory", || path.display().to_string())?;
        Ok(Self(path))
    }

    fn remove(self) -> Result<(), Failure> {
        std::fs::remove_dir_all(&self.0).step("remove directory", || self.0.display().to_string())
    }
}

fn trusted(place: &Path) -> Result<PathBuf, Failure> {
    let place = place.canonicalize().step("find directory", || place.display().to_string())?;
    ours_alone(&place).map(|()| place)
}

/// Root works by path below this folder: nobody else may exchange a part of the path meanwhile. Otherwise nothing is tried, which
/// [`FailureKind::Outside`] says.
fn ours_alone(place: &Path) -> Result<(), Failure> {
    for folder in place.ancestors() {
        let found = std::fs::metadata(folder).step("inspect directory", || folder.display().to_string())?;
        let theirs = found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw();
        // The group of a user that is this one's own has nobody else in it.
        let is_private = found.gid() == rustix::process::getegid().as_raw() && found.uid() == found.gid();
        let others = if is_private { 0o002 } else { 0o022 };
        let writable = found.mode() & others != 0 && found.mode() & 0o1000 == 0;
        if theirs || writable {
            let why = format!("{} belongs to others, or others may write to it", folder.display());
            return Err(failure(FailureKind::Outside, "trust directory", why));
        }
    }
    Ok(())
}

/// Runs `work` in a forked child.
fn in_child(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let (ours, theirs) = pair()?;
    let child = process::fork(move || {
        let kept = process::become_child(c"ostler-probe").and_then(|()| process::keep_only(vec![theirs]));
        let Some(report) = kept.ok().and_then(|mut kept| kept.pop()) else { return 1 };
        i32::from(socket::send(report.as_fd(), &work().err(), None).is_err())
    });
    let child = child.step("fork", || "a child of the probe".to_owned())?;
    match outcome(&ours, child) {
        Some(refused) => refused.map_or(Ok(()), Err),
        None => Err(failure(FailureKind::System, "try", "the process that tried it ended without a word")),
    }
}

/// Lets a forked child become the guest. A report that closes without a word is what is wanted.
fn in_child_that_becomes_another(guest: OwnedFd) -> Result<(), Failure> {
    let (ours, theirs) = pair()?;
    let child = process::fork(move || {
        let kept = process::become_child(c"ostler-probe").and_then(|()| process::keep_only(vec![guest, theirs]));
        let Ok([guest, report]) = kept.map(<[OwnedFd; 2]>::try_from).unwrap_or_else(|_| Err(Vec::new())) else {
            return 1;
        };
        let refused = Some(crate::worker::trial::execute(&guest));
        i32::from(socket::send(report.as_fd(), &refused, None).is_err())
    });
    let child = child.step("fork", || "a child of the probe".to_owned())?;
    outcome(&ours, child).flatten().map_or(Ok(()), Err)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step("make socket pair", || "for a child of the probe".to_owned())
}

/// What the child said, `None` where it ended without a word. A child that takes too long is ended.
fn outcome(from: &OwnedFd, child: Pid) -> Option<Option<Failure>> {
    let until = Instant::now() + ATTEMPT;
    let said = loop {
        match socket::receive::<Option<Failure>>(from.as_fd()) {
            Ok((said, _)) => break Some(said),
            Err(SocketError::NotReady) => {}
            Err(_) => break None,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let words = format!("it did not end within {} s", ATTEMPT.as_secs());
            break Some(Some(failure(FailureKind::Limit, "try", words)));
        }
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // An interrupted wait is waited again.
        let _ = rustix::event::poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&left));
    };
    // It has nothing more to say. One that became the guest ends by itself, and sooner so.
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    said
}

/// Whether a socket can refuse descriptors (kernel 6.16), which keeps a peer from delaying who closes them.
#[must_use]
pub fn can_refuse_descriptors() -> bool {
    pair().is_ok_and(|(socket, _)| process::refuse_descriptors(&socket))
}

pub use attempts::clock_is_synchronised;
