//! What of a sandbox's limits this machine cannot keep, for the launcher's log and for whoever examines the machine.
//!
//! Without a controller of [`super::CONTROLLERS`] root makes no sandbox at all, an ordinary user does; the others are done
//! without by both.

use std::fs;
use std::path::Path;

use super::{BLKIO, Cgroups, IO};

/// A limit that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// No group of the user's own has the controller of memory.
    Memory,
    /// The same of processes.
    Processes,
    /// The same of processor time.
    Processor,
    /// Swap is in use and the groups do not count it.
    Swap,
    /// Nobody hears of lack of memory in a group of version 1.
    OutOfMemory,
    /// No disk is shared out by weight.
    IoWeight,
}

impl Gap {
    /// What is not kept, as a sentence without its full stop.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Memory => {
                "memory is not limited: without root it needs a control group of the user's own, and a sandbox can use all \
                 memory of the machine"
            }
            Self::Processes => {
                "processes are not limited: without root it needs a control group of the user's own, and a sandbox can use up \
                 all that the user may have"
            }
            Self::Processor => {
                "processor time is not limited: without root it needs a control group of the user's own, and a sandbox can keep \
                 every processor busy"
            }
            Self::Swap => "swap is not limited: a sandbox that is out of memory can use all swap of the machine",
            Self::OutOfMemory => {
                "the kernel does not tell of lack of memory in a group: it ends one process of a sandbox, not the sandbox"
            }
            Self::IoWeight => {
                "disks are not shared out by weight: a sandbox that reads and writes much slows down its neighbours"
            }
        }
    }

    /// What would close it.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Memory | Self::Processes | Self::Processor => {
                "start it in a group of its own: systemd-run --user --scope -p Delegate=yes ostler up"
            }
            Self::Swap => "swapoff -a, or boot with `swapaccount=1`",
            Self::OutOfMemory => {
                "boot with `systemd.unified_cgroup_hierarchy=1`, or with a kernel that has CONFIG_MEMCG_V1"
            }
            Self::IoWeight => "echo bfq > /sys/block/DISK/queue/scheduler, for the disk of the data folder",
        }
    }
}

impl Cgroups {
    /// What is not kept here.
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        self.gaps_with(&swaps, is_shared_out(Path::new("/sys/block")))
    }

    fn gaps_with(&self, swaps: &str, scheduler_has_weights: bool) -> Vec<Gap> {
        let legacy = self.legacy.iter().find(|legacy| legacy.has("memory"));
        let legacy_has = |file: &str| legacy.is_none_or(|legacy| legacy.root.join(file).exists());
        let mut gaps: Vec<Gap> = [("memory", Gap::Memory), ("pids", Gap::Processes), ("cpu", Gap::Processor)]
            .into_iter()
            .filter(|(controller, _)| !self.has(controller))
            .map(|(_, gap)| gap)
            .collect();
        // One line is the heading. In version 2 swap is always counted where the kernel has it.
        if self.has("memory") && swaps.lines().count() > 1 && !legacy_has("memory.memsw.usage_in_bytes") {
            gaps.push(Gap::Swap);
        }
        if !(legacy_has("memory.oom_control") && legacy_has("cgroup.event_control")) {
            gaps.push(Gap::OutOfMemory);
        }
        let cost =
            |root: &Path| fs::read_to_string(root.join("io.cost.qos")).is_ok_and(|text| text.contains("enable=1"));
        let by_cost = self.unified.as_ref().is_some_and(|unified| unified.has(IO) && cost(&unified.root));
        if !(by_cost || scheduler_has_weights && (self.has(BLKIO) || self.has(IO))) {
            gaps.push(Gap::IoWeight);
        }
        gaps
    }
}

/// Whether a disk has the scheduler that knows weights.
fn is_shared_out(disks: &Path) -> bool {
    let disks = fs::read_dir(disks).into_iter().flatten().flatten();
    disks
        .filter_map(|disk| fs::read_to_string(disk.path().join("queue/scheduler")).ok())
        .any(|schedulers| schedulers.contains("[bfq]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gap_is_found_where_it_is_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let legacy = format!("31 30 0:26 / {} rw - cgroup cgroup rw,memory,pids,cpu,blkio\n", root.path().display());
        let legacy = Cgroups::from_mountinfo("t", &legacy);
        let (none, some) = ("Filename Type Size\n", "Filename Type Size\n/dev/sdb partition 8\n");
        assert_eq!(legacy.gaps_with(some, false), [Gap::Swap, Gap::OutOfMemory, Gap::IoWeight]);
        assert_eq!(legacy.gaps_with(none, true), [Gap::OutOfMemory]);
        for file in ["memory.memsw.usage_in_bytes", "memory.oom_control", "cgroup.event_control"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        assert_eq!(legacy.gaps_with(some, true), []);
        let unified = format!("31 30 0:26 / {} rw - cgroup2 none rw\n", root.path().display());
        fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids").unwrap();
        assert_eq!(Cgroups::from_mountinfo("t", &unified).gaps_with(some, false), [Gap::IoWeight]);
        fs::write(root.path().join("io.cost.qos"), "8:0 enable=1 ctrl=auto").unwrap();
        assert_eq!(Cgroups::from_mountinfo("t", &unified).gaps_with(some, false), []);
    }

    #[test]
    fn without_a_group_of_ones_own_nothing_is_limited() {
        let none = Cgroups::from_mountinfo("t", "");
        assert_eq!(none.gaps_with("", false)[..3], [Gap::Memory, Gap::Processes, Gap::Processor]);
    }

    #[test]
    fn the_scheduler_in_brackets_is_the_one_in_use() {
        let disks = tempfile::tempdir().unwrap();
        let queue = disks.path().join("vda/queue");
        fs::create_dir_all(&queue).unwrap();
        for (text, expected) in [("[none] mq-deadline bfq\n", false), ("none mq-deadline [bfq]\n", true)] {
            fs::write(queue.join("scheduler"), text).unwrap();
            assert_eq!(is_shared_out(disks.path()), expected, "{text}");
        }
    }
}
