//! What an idle sandbox costs in memory.
//!
//! The figure is what it adds, all counted: the guest's proportional share, what launcher and host grew by, and what the
//! sandbox's control group is charged with in user memory. The guest's own pages are in the group as well and so
//! counted twice: the figure is an upper bound. Kernel memory of the group has a line of its own.

use std::fs;

use anyhow::{Context, Result};
use ostler_sandbox::client::{Deadlines, Guest};
use ostler_tests::runtime::{DEADLINE, LIMITS, Runtime, new_id};

use crate::record::Record;

/// Sandboxes that are idle at one time.
const IDLE: usize = 50;

const MIB: f64 = 1024.0 * 1024.0;

/// Runs the suite.
pub async fn run() -> Result<Vec<Record>> {
    let runtime = Runtime::prepare()?;
    let (launcher, _) = runtime.connect(1).await?;
    let host = std::process::id();
    let own = runtime.launcher_pid().context("the launcher runs")?;
    let before = [pss(host)?, pss(own)?];
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let started = launcher.create(&new_id(), &runtime.image, LIMITS, DEADLINE).await?;
        let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
        // Whoever holds a sandbox holds its door.
        idle.push((started.info.pid, guest, started.door_tcp, started.door_dns));
    }
    let grown = [pss(host)? - before[0], pss(own)? - before[1]];
    let shared = grown.iter().map(|bytes| bytes.max(0.0)).sum::<f64>() / IDLE as f64;
    let (mut all, mut guests, mut kernel) = (Vec::new(), Vec::new(), Vec::new());
    for (pid, ..) in &idle {
        let pid = u32::try_from(*pid)?;
        let group = Group::of(pid)?;
        let guest = pss(pid)?;
        all.push((guest + shared + group.user) / MIB);
        guests.push(guest / MIB);
        kernel.push(group.kernel / MIB);
    }
    runtime.shut_down(launcher).await?;
    Ok(vec![
        Record::values("sandbox", "memory_idle", "MiB", "p50 <= 4", all),
        Record::values("sandbox", "memory_idle_guest", "MiB", "reported", guests),
        Record::values("sandbox", "memory_idle_kernel", "MiB", "reported", kernel),
    ])
}

/// The proportional share of a process in memory, in bytes.
fn pss(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let kibibytes =
        text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kibibytes.map(|kibibytes: f64| kibibytes * 1024.0).with_context(|| format!("{path} has no Pss"))
}

/// What a control group is charged with, in bytes.
struct Group {
    user: f64,
    kernel: f64,
}

impl Group {
    /// The group of a process in version 1, where that has the memory controller, else in version 2.
    fn of(pid: u32) -> Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = |wanted: &str| {
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                (controllers == wanted).then(|| fields.next()).flatten()
            })
        };
        if let Some(path) = path("memory") {
            let read = |file: &str| number(&format!("/sys/fs/cgroup/memory{path}/{file}"));
            let kernel = read("memory.kmem.usage_in_bytes")?;
            return Ok(Self { user: read("memory.usage_in_bytes")? - kernel, kernel });
        }
        let folder = format!("/sys/fs/cgroup{}", path("").context("a process has a control group")?);
        let stat = fs::read_to_string(format!("{folder}/memory.stat"))?;
        let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel ")?.parse().ok());
        let kernel = kernel.context("memory.stat has no kernel memory")?;
        Ok(Self { user: number(&format!("{folder}/memory.current"))? - kernel, kernel })
    }
}

fn number(path: &str) -> Result<f64> {
    Ok(fs::read_to_string(path).with_context(|| path.to_owned())?.trim().parse()?)
}
