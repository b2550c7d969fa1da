//! Limits, written into the open directories of a sandbox's groups.
//!
//! | Limit | version 1 | unified |
//! |---|---|---|
//! | memory | `memory.limit_in_bytes`, `memory.memsw.limit_in_bytes` | `memory.max`, `memory.swap.max`, `memory.oom.group` |
//! | processes | `pids.max` | `pids.max` |
//! | processor time | `cpu.cfs_period_us`, `cpu.cfs_quota_us`, `cpu.shares` | `cpu.max`, `cpu.weight` |
//! | disks | `blkio.bfq.weight`, `blkio.weight` | `io.weight`, `io.bfq.weight` |
//! | devices | `devices.deny`, `devices.allow` | none: see [`super::DEVICES`] |
//!
//! Without room for more memory the kernel ends all of a sandbox in version 2 (`memory.oom.group`); in version 1 it ends one
//! process, and [`super::memory`] tells the launcher, which ends the others.
//!
//! Sources: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use ostler_wire::Failure;
use ostler_wire::launcher::Limits;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{BLKIO, DEVICES, IO};
use crate::step::Step;

/// Period over which CPU time is shared out, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// What may be opened, read and written: null, zero, full, random, urandom, tty, ptmx and every pseudo-terminal.
/// Nodes can be made of nothing.
const ALLOWED_DEVICES: [&str; 8] =
    ["c 1:3 rw", "c 1:5 rw", "c 1:7 rw", "c 1:8 rw", "c 1:9 rw", "c 5:0 rw", "c 5:2 rw", "c 136:* rw"];

/// The groups of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    pub(super) unified: Option<Group>,
    pub(super) legacy: Vec<Group>,
}

/// One group: a directory that stays open when the process can no longer see the hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    directory: File,
    path: PathBuf,
    controllers: Vec<String>,
}

/// What to do about a file that this kernel or machine does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Skip,
    Fail,
}

impl Leaf {
    /// Sends SIGKILL to every process in the groups; where the kernel does it at once, the caller is among them. Works where the
    /// hierarchies cannot be seen.
    pub(crate) fn kill(&self) {
        if let Some(unified) = &self.unified
            && unified.set("cgroup.kill", 1, Absent::Fail).is_ok()
        {
            return;
        }
        for group in self.unified.iter().chain(&self.legacy) {
            for pid in group.processes().into_iter().filter(|pid| *pid != rustix::process::getpid()) {
                // One that has ended meanwhile is what is wanted.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Sets the limits on memory, processes and devices, and the weights. To be called before anything enters the sandbox's
    /// root.
    pub(crate) fn limit(&self, limits: Limits) -> Result<(), Failure> {
        self.limit_legacy(limits)?;
        let Limits { memory, pids, cpu_weight, io_weight, .. } = limits;
        let Some(group) = &self.unified else { return Ok(()) };
        if group.has("memory") {
            group.set("memory.max", memory, Absent::Fail)?;
            group.set("memory.swap.max", 0, Absent::Skip)?;
            group.set("memory.oom.group", 1, Absent::Fail)?;
        }
        if group.has("pids") {
            group.set("pids.max", pids, Absent::Fail)?;
        }
        if group.has("cpu") {
            group.set("cpu.weight", cpu_weight, Absent::Fail)?;
        }
        if group.has(IO) {
            group.set("io.weight", io_weight, Absent::Skip)?;
            group.set("io.bfq.weight", io_weight, Absent::Skip)?;
        }
        Ok(())
    }

    fn limit_legacy(&self, limits: Limits) -> Result<(), Failure> {
        let Limits { memory, pids, cpu_weight, io_weight, .. } = limits;
        for group in &self.legacy {
            if group.has("memory") {
                group.set("memory.limit_in_bytes", memory, Absent::Fail)?;
                // Memory and swap together: none of it can be swap. Absent where the kernel does not count swap.
                group.set("memory.memsw.limit_in_bytes", memory, Absent::Skip)?;
            }
            if group.has("pids") {
                group.set("pids.max", pids, Absent::Fail)?;
            }
            if group.has("cpu") {
                // 1024 is what 100 is in version 2; the kernel refuses less than 2.
                group.set("cpu.shares", (u64::from(cpu_weight) * 1024 / 100).max(2), Absent::Fail)?;
            }
            if group.has(BLKIO) {
                // The one of BFQ, and the one of kernels before 5.0, whose least is 10.
                group.set("blkio.bfq.weight", io_weight, Absent::Skip)?;
                group.set("blkio.weight", io_weight.max(10), Absent::Skip)?;
            }
            if group.has(DEVICES) {
                group.set("devices.deny", "a", Absent::Fail)?;
                for device in ALLOWED_DEVICES {
                    group.set("devices.allow", device, Absent::Fail)?;
                }
            }
        }
        Ok(())
    }

    /// Sets the limit on processor time. To be called when the sandbox is made and before its first process runs: what makes
    /// it is in the same groups and would wait.
    pub(crate) fn limit_cpu(&self, limits: Limits) -> Result<(), Failure> {
        let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1000;
        for group in self.legacy.iter().filter(|group| group.has("cpu")) {
            group.set("cpu.cfs_period_us", CPU_PERIOD_US, Absent::Fail)?;
            group.set("cpu.cfs_quota_us", quota, Absent::Fail)?;
        }
        match self.unified.as_ref().filter(|group| group.has("cpu")) {
            Some(group) => group.set("cpu.max", format!("{quota} {CPU_PERIOD_US}"), Absent::Fail),
            None => Ok(()),
        }
    }
}

impl Group {
    pub(super) fn open(path: &Path, controllers: Vec<String>) -> Result<Self, Failure> {
        let directory = File::open(path).step("open cgroup", || path.display().to_string())?;
        Ok(Self { directory, path: path.to_owned(), controllers })
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|found| found == controller)
    }

    fn processes(&self) -> Vec<Pid> {
        let opened = openat(&self.directory, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = String::new();
        let read = opened.map_err(Into::into).and_then(|file| File::from(file).read_to_string(&mut text));
        let lines = if read.is_ok() { text.lines() } else { "".lines() };
        lines.filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
    }

    fn set(&self, file: &str, value: impl std::fmt::Display, absent: Absent) -> Result<(), Failure> {
        let shown = || format!("{value} to {}", self.path.join(file).display());
        match openat(&self.directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if absent == Absent::Skip => Ok(()),
            opened => {
                let mut file = File::from(opened.step("set limit", shown)?);
                file.write_all(value.to_string().as_bytes()).step("set limit", shown)
            }
        }
    }
}
