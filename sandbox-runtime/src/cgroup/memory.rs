//! Lack of memory in a sandbox: hearing of it, and what there is to say of it.
//!
//! In version 2 the kernel ends the whole group, so that its first process ends like any other; afterwards the group tells
//! why. In version 1 it ends one process. There an eventfd becomes readable when the group is out of memory, which is just
//! before the kernel has chosen: whether it ended something is in the count of `memory.oom_control`.
//!
//! Sources: Documentation/admin-guide/cgroup-v1/memory.rst, section 10, and cgroup-v2.rst of the kernel.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ostler_wire::Failure;
use rustix::event::{EventfdFlags, eventfd};

use super::{Cgroups, write};
use crate::step::Step;

/// The largest piece that the kernel takes at a time: a huge page.
const PIECE: u64 = 2 << 20;

/// The kernel ended a process of a sandbox because there was no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfMemory {
    /// It reached its limit.
    Sandbox {
        /// The most that it used, in bytes.
        used: u64,
    },
    /// The whole machine had none left.
    Machine,
}

impl Cgroups {
    /// Becomes readable when the sandbox is out of memory; `None` where the kernel ends all of it by itself. Readable also
    /// when its group is taken away.
    pub(crate) fn watch_memory(&self, sandbox: &str) -> Result<Option<OwnedFd>, Failure> {
        let Some(group) = self.legacy_memory(sandbox) else { return Ok(None) };
        let shown = || group.display().to_string();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).step("make event", shown)?;
        let control = File::open(group.join("memory.oom_control")).step("watch memory", shown)?;
        // The kernel keeps what it needs of the second descriptor.
        let asked = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        write(&group.join("cgroup.event_control"), &asked).step("watch memory", shown)?;
        Ok(Some(event))
    }

    /// Whether the kernel ended a process of the sandbox for lack of memory since the sandbox was made.
    pub(crate) fn out_of_memory(&self, sandbox: &str) -> Option<OutOfMemory> {
        let legacy = self.legacy_memory(sandbox);
        let (group, counts, peak) = match (&legacy, &self.unified) {
            (Some(group), _) => (group.clone(), "memory.oom_control", "memory.max_usage_in_bytes"),
            (None, Some(unified)) => (unified.root.join(&self.parent).join(sandbox), "memory.events", "memory.peak"),
            (None, None) => return None,
        };
        let counts = fs::read_to_string(group.join(counts)).ok()?;
        let count = |name: &str| counts.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        // Counts whoever was short of memory.
        if count("oom_kill ").unwrap_or_default() == 0 {
            return None;
        }
        // Before 6.5 there is no peak to read; then what is used now is the next best.
        let used = [peak, "memory.current"].iter().find_map(|file| number(&group.join(file))).unwrap_or_default();
        let at_limit = match &legacy {
            // Newer kernels count no failures in version 1; a group that was at its limit had used all but a piece of it.
            Some(group) => number(&group.join("memory.limit_in_bytes")).is_none_or(|limit| used + PIECE >= limit),
            None => count("oom ") != Some(0),
        };
        Some(if at_limit { OutOfMemory::Sandbox { used } } else { OutOfMemory::Machine })
    }

    /// The sandbox's group in the hierarchy of version 1 that counts memory, where there is one.
    fn legacy_memory(&self, sandbox: &str) -> Option<PathBuf> {
        let legacy = self.legacy.iter().find(|legacy| legacy.has("memory"))?;
        Some(legacy.root.join(&self.parent).join(sandbox))
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_was_ended_is_lack_of_memory() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display();
        for (table, counts, peak) in [
            (format!("31 30 0:26 / {shown} rw - cgroup2 none rw\n"), "memory.events", "memory.peak"),
            (
                format!("31 30 0:26 / {shown} rw - cgroup cgroup rw,memory\n"),
                "memory.oom_control",
                "memory.max_usage_in_bytes",
            ),
        ] {
            let cgroups = Cgroups::from_mountinfo("t", &table);
            let group = root.path().join("ostler-t/one");
            fs::create_dir_all(&group).unwrap();
            assert_eq!(cgroups.out_of_memory("one"), None, "nothing can be read");
            fs::write(group.join("memory.limit_in_bytes"), "8000000\n").unwrap();
            for (at_limit, used, killed, expected) in [
                (3, 8_000_000, 0, None),
                (3, 7_000_000, 2, Some(OutOfMemory::Sandbox { used: 7_000_000 })),
                (0, 4_000_000, 1, Some(OutOfMemory::Machine)),
            ] {
                let text = format!("oom {at_limit}\noom_kill {killed}\noom_group_kill 0\n");
                fs::write(group.join(counts), &text).unwrap();
                fs::write(group.join(peak), format!("{used}\n")).unwrap();
                assert_eq!(cgroups.out_of_memory("one"), expected, "{counts}: {text}");
            }
        }
    }
}
