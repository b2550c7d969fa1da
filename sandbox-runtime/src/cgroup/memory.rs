//! Lack of memory in a sandbox: hearing of it, and what there is to say of it.
//!
//! In version 2 the kernel ends the whole group, so that its first process ends like any other; afterwards the group tells
//! why. In version 1 it ends one process. There an eventfd becomes readable when the group is out of memory, which is just
//! before the kernel has chosen: whether it ended something is in the count of `memory.oom_control`.
//!
//! Sources: Documentation/admin-guide/cgroup-v1/memory.rst, section 10, and cgroup-v2.rst of the kernel.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use ostler_wire::Failure;
use rustix::event::{EventfdFlags, eventfd};

use super::{Cgroups, write};
use crate::step::Step;

/// The kernel ended a process of a sandbox because there was no memory left in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory {
    /// The most that the sandbox used, in bytes.
    pub(crate) used: u64,
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
        let (group, counts, peak) = match (self.legacy_memory(sandbox), &self.unified) {
            (Some(group), _) => (group, "memory.oom_control", "memory.max_usage_in_bytes"),
            (None, Some(unified)) => (unified.root.join(&self.parent).join(sandbox), "memory.events", "memory.peak"),
            (None, None) => return None,
        };
        let counts = fs::read_to_string(group.join(counts)).ok()?;
        let killed = counts.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse::<u64>().ok()?;
        // Before 6.5 there is no peak to read; then what is used now is the next best.
        let used = [peak, "memory.current"].iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
        let used = used.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        (killed > 0).then_some(OutOfMemory { used })
    }

    /// The sandbox's group in the hierarchy of version 1 that counts memory, where there is one.
    fn legacy_memory(&self, sandbox: &str) -> Option<PathBuf> {
        let legacy = self.legacy.iter().find(|legacy| legacy.has("memory"))?;
        Some(legacy.root.join(&self.parent).join(sandbox))
    }
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
            fs::write(group.join(peak), "4096\n").unwrap();
            for (text, expected) in [
                ("oom 3\noom_kill 0\noom_group_kill 0\n", None),
                ("under_oom 0\noom_kill 2\n", Some(OutOfMemory { used: 4096 })),
            ] {
                fs::write(group.join(counts), text).unwrap();
                assert_eq!(cgroups.out_of_memory("one"), expected, "{counts}: {text}");
            }
        }
    }
}
