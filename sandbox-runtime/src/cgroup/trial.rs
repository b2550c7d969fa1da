//! What the control groups of this machine can do, and trying it: for whoever wants to know before there is a sandbox.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ostler_wire::launcher::Limits;
use ostler_wire::{Failure, FailureKind};
use rustix::process::WaitOptions;

use super::{CONTROLLERS, Cgroups, Gap, Removal, delegation, write};
use crate::process;
use crate::standing::Standing;
use crate::step::{Step, failure};

/// The one group that is made.
const NAME: &str = "trial";

/// Time in which an ended process must have left its group.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A group that is made to try it and taken away again, with what was switched on for it.
pub(crate) struct Trial {
    cgroups: Cgroups,
    /// Controllers that the root of the unified tree gave to its groups before.
    given: Vec<String>,
}

impl Trial {
    /// Finds the control groups. `tag` must be this process's alone.
    pub(crate) fn prepare(tag: &str) -> Result<Self, Failure> {
        let cgroups = Cgroups::detect(tag, Standing::of_this_process())?;
        let given = given(&cgroups);
        Ok(Self { cgroups, given })
    }

    /// Starts a process in a group of its own and limits it, in the order in which a sandbox is.
    pub(crate) fn limit(&self, limits: Limits) -> Result<(), Failure> {
        let group = self.cgroups.make_unified(NAME)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().step("make socket pair", || "of a trial".into())?;
        let child = process::fork_into(group.as_ref().map(AsFd::as_fd), || {
            let done = self.cgroups.enter(NAME).and_then(|leaf| {
                leaf.limit(limits)?;
                leaf.limit_cpu(limits)
            });
            use std::io::Write as _;
            let text = done.err().and_then(|failed| serde_json::to_vec(&failed).ok()).unwrap_or_default();
            i32::from((&theirs).write_all(&text).is_err())
        });
        let child = child.step("fork", || "a process into its control group".to_owned())?;
        let ended = rustix::process::waitpid(Some(child), WaitOptions::empty());
        ended.step("wait", || "for the process in its control group".to_owned())?;
        ours.set_nonblocking(true).step("read", || "what a trial said".to_owned())?;
        let mut said = vec![0; 4096];
        let length = std::io::Read::read(&mut (&ours), &mut said).unwrap_or_default();
        match serde_json::from_slice(&said[..length]) {
            Ok(failed) => Err(failed),
            Err(_) if length > 0 => Err(failure(FailureKind::System, "set limit", "what it said is unreadable")),
            Err(_) => Ok(()),
        }
    }

    /// Takes everything away again, whatever became of it.
    pub(crate) fn undo(&self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        while self.cgroups.is_populated(NAME) || self.cgroups.remove(NAME)? == Removal::Busy {
            self.cgroups.kill(NAME)?;
            if Instant::now() > until {
                return Err(failure(FailureKind::Limit, "remove cgroup", "processes of the trial do not end"));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.cgroups.remove_parents();
        let Some(unified) = &self.cgroups.unified else { return Ok(()) };
        for controller in given(&self.cgroups).iter().filter(|controller| !self.given.contains(controller)) {
            // A host that started meanwhile needs it: then the kernel keeps it.
            let _ = write(&unified.root.join("cgroup.subtree_control"), &format!("-{controller}"));
        }
        Ok(())
    }
}

fn given(cgroups: &Cgroups) -> Vec<String> {
    let file = cgroups.unified.as_ref().map(|unified| unified.root.join("cgroup.subtree_control"));
    let list = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Which hierarchies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None is mounted.
    None,
    /// Version 2 only.
    Unified,
    /// Both versions.
    Hybrid,
    /// Version 1 only.
    Legacy,
}

/// The control groups of a machine as a launcher sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which hierarchies there are.
    pub kind: Kind,
    /// What limits are set with and no hierarchy has.
    pub missing: Vec<&'static str>,
    /// Limits that are done without.
    pub gaps: Vec<Gap>,
}

/// Looks at the mounted hierarchies, as a launcher of this standing would; needs no privileges.
///
/// # Errors
/// When the list of mounts cannot be read.
pub fn summary(standing: Standing) -> std::io::Result<Summary> {
    let mut found = Cgroups::from_mountinfo("", &fs::read_to_string("/proc/self/mountinfo")?);
    if standing == Standing::Namespace {
        found = delegation::only_delegated(found);
    }
    let kind = match (&found.unified, found.legacy.is_empty()) {
        (None, true) => Kind::None,
        (None, false) => Kind::Legacy,
        (Some(_), true) => Kind::Unified,
        (Some(_), false) => Kind::Hybrid,
    };
    let missing = CONTROLLERS.into_iter().filter(|controller| !found.has(controller)).collect();
    Ok(Summary { kind, missing, gaps: found.gaps() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_trial_switched_on_is_switched_off_again() {
        for (given, left) in [(vec![], "-memory"), (vec!["memory".to_owned()], "memory")] {
            let root = tempfile::tempdir().unwrap();
            let table = format!("31 30 0:26 / {} rw - cgroup2 none rw\n", root.path().display());
            let file = root.path().join("cgroup.subtree_control");
            fs::write(&file, "memory").unwrap();
            Trial { cgroups: Cgroups::from_mountinfo("t", &table), given }.undo().unwrap();
            // A fake file keeps what was written over its beginning.
            assert!(fs::read_to_string(&file).unwrap().starts_with(left));
        }
    }
}
