//! The OCI specification of a sandbox.
//!
//! Nothing of a request gets in here: every sandbox has the same namespaces, capabilities, mounts and system call filter.
//! Limits are not part of it, see [`crate::cgroup`].

use std::os::fd::{AsRawFd, BorrowedFd};

use ostler_wire::guest::CERTIFICATES;
use serde_json::{Value, json};

use super::{Job, seccomp, staging};
use crate::defence::{Defence, Weakened};

/// Capabilities in the sandbox's own user namespace, bounding, effective and permitted: what installing packages and
/// running services need. None are inheritable or ambient.
///
/// Of Docker's fourteen, `NET_RAW`, `MKNOD`, `SYS_CHROOT`, `AUDIT_WRITE`, `SETPCAP` and `SETFCAP` are missing: nothing that
/// builds software needs them, and packages that want file capabilities (ping, mtr) fall back to a setuid bit, which no new
/// privileges makes void.
const CAPABILITIES: [&str; 8] = [
    // Unpacking archives and packages.
    "CAP_CHOWN",
    // Root writes where it is not the owner, as in the home of a service's user.
    "CAP_DAC_OVERRIDE",
    // Packages set modes and times of files that they gave away.
    "CAP_FOWNER",
    // Without it the setgid bits of packages (crontab, /usr/local) are lost in silence.
    "CAP_FSETID",
    // Ending a service that runs as another user.
    "CAP_KILL",
    // Web servers on ports 80 and 443.
    "CAP_NET_BIND_SERVICE",
    // apt becomes `_apt`, runuser and su become postgres.
    "CAP_SETGID",
    "CAP_SETUID",
];

/// What a sandbox may not have, for the test of what it would mean.
const ALL_CAPABILITIES: [&str; 15] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
];

/// Docker's list and, after it, what only tells about the machine: the kernel's parameters, addresses and counters of its
/// work, the firmware's names and numbers, what its file systems count. What is left to be seen is listed in the book's threat model.
const MASKED: [&str; 23] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/proc/cmdline",
    "/proc/kallsyms",
    "/proc/schedstat",
    "/proc/softirqs",
    "/sys/devices/virtual/dmi",
    "/sys/fs/btrfs",
    "/sys/fs/ext4",
    "/sys/fs/xfs",
    "/sys/hypervisor",
    "/sys/kernel/notes",
    "/sys/kernel/vmcoreinfo",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Open files of one process, where the launcher's own limit allows as many.
const OPEN_FILES: u64 = 65_536;

/// The first to be ended when the machine is out of memory: before the host, after nothing.
const OOM_SCORE: i32 = 500;

/// Whether the filter of system calls is libcontainer's to load, which compiles it anew each time. Who may get new privileges
/// must load it while it still has some, and that is before the last step, which loads ours.
pub(super) fn has_filter(weakened: &Weakened) -> bool {
    weakened.lacks(Defence::NoNewPrivileges)
}

/// What a sandbox is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The hands of an agent.
    Workspace,
    /// Git on one repository.
    Git,
}

impl Kind {
    fn of(job: &Job) -> Self {
        if job.repository.is_some() { Self::Git } else { Self::Workspace }
    }

    fn capabilities(self) -> &'static [&'static str] {
        match self {
            Self::Workspace => &CAPABILITIES,
            Self::Git => &[],
        }
    }

    fn calls(self) -> seccomp::Calls {
        match self {
            Self::Workspace => seccomp::Calls::All,
            Self::Git => seccomp::Calls::Files,
        }
    }

    fn mounts(self, certificates: bool) -> Value {
        match self {
            Self::Workspace => mounts(certificates),
            Self::Git => few_mounts(),
        }
    }
}

/// Which system calls a sandbox has.
pub(super) fn calls(job: &Job) -> seccomp::Calls {
    Kind::of(job).calls()
}

/// Builds the specification. The namespaces are joined by descriptor, which libcontainer inherits.
pub(super) fn specification(job: &Job, user: BorrowedFd<'_>, network: BorrowedFd<'_>) -> Value {
    let by_descriptor = |descriptor: BorrowedFd<'_>| format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let lacks = |defence| job.weakened.lacks(defence);
    let kind = Kind::of(job);
    let mut namespaces = vec![
        json!({"type": "user", "path": by_descriptor(user)}),
        json!({"type": "pid"}),
        json!({"type": "mount"}),
        json!({"type": "uts"}),
        json!({"type": "cgroup"}),
    ];
    if !lacks(Defence::OwnIpc) {
        namespaces.push(json!({"type": "ipc"}));
    }
    if !lacks(Defence::OwnNetwork) {
        namespaces.push(json!({"type": "network", "path": by_descriptor(network)}));
    }
    let mut specification = json!({
        "ociVersion": "1.0.2",
        "hostname": "ostler",
        "root": {"path": format!("/{}", staging::ROOTFS), "readonly": false},
        "process": process(&job.weakened, kind),
        "mounts": kind.mounts(job.certificates.is_some()),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": job.cgroups.oci_path(&job.record.sandbox),
            "maskedPaths": if lacks(Defence::MaskedPaths) { Vec::new() } else { masked() },
            "readonlyPaths": if lacks(Defence::ReadOnlyPaths) { &[] } else { READ_ONLY.as_slice() },
        },
    });
    if has_filter(&job.weakened) && !lacks(Defence::SystemCallFilter) {
        specification["linux"]["seccomp"] = seccomp::profile(kind.calls());
    }
    if lacks(Defence::OwnNetwork)
        && let Some(mounts) = specification["mounts"].as_array_mut()
    {
        mounts.retain(|mount| mount["destination"] != "/sys");
    }
    specification
}

/// With the counters of heat, which tell what else a processor does and have a folder for each.
fn masked() -> Vec<String> {
    let processors = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let counters = processors.map(|processor| processor.path().join("thermal_throttle")).filter(|path| path.exists());
    let counters = counters.filter_map(|path| path.into_os_string().into_string().ok());
    MASKED.into_iter().map(str::to_owned).chain(counters).collect()
}

fn process(weakened: &Weakened, kind: Kind) -> Value {
    let files =
        rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX).min(OPEN_FILES);
    let lacks = |defence| weakened.lacks(defence);
    let few: &[&str] = if lacks(Defence::FewCapabilities) { &ALL_CAPABILITIES } else { kind.capabilities() };
    let inherited: &[&str] = if lacks(Defence::NoInheritance) { &CAPABILITIES } else { &[] };
    // Without it libcontainer asks the C library for root's home after it has entered the sandbox's root, and the C
    // library loads code from there (as in CVE-2019-14271). The guest itself gets an environment of its own.
    let environment: &[&str] = if lacks(Defence::KnownHome) { &[] } else { &["HOME=/root"] };
    let mut process = json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": ["ostler-guest"],
        "cwd": "/",
        "env": environment,
        "noNewPrivileges": true,
        "oomScoreAdj": OOM_SCORE,
        "capabilities": {
            "bounding": few, "effective": few, "permitted": few, "inheritable": inherited, "ambient": [],
        },
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": files, "hard": files},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
    });
    if lacks(Defence::NoNewPrivileges) {
        // With `false` libcontainer loads the filter when it may not any more.
        process["noNewPrivileges"] = Value::Null;
    }
    process
}

fn mounts(certificates: bool) -> Value {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "dev",
         "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=64"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=256m"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    if certificates {
        // After `/dev`, which is fresh: there is no tree of a sandbox in which the place could be a link.
        mounts.push(json!({"destination": CERTIFICATES, "type": "none", "source": staging::CERTIFICATES,
             "options": ["bind", "ro", "nosuid", "noexec", "nodev"]}));
    }
    mounts.into()
}

/// What git needs beside the programs and the repository. What it writes into `/tmp` counts as memory.
fn few_mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "dev",
         "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmp",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_needs_to_look_up_a_home_in_the_sandbox() {
        assert_eq!(process(&Weakened::default(), Kind::Workspace)["env"], json!(["HOME=/root"]));
    }

    /// Whatever a host asks for, a specification is the same but for the place of its control group: in its request there
    /// is nothing that could be another mount, kernel parameter, device or hook.
    #[test]
    fn a_specification_takes_nothing_from_a_request() {
        let folder = tempfile::tempdir().unwrap();
        let job = |sandbox: &str, memory: u64| Job {
            record: crate::worker::record::Record::new(
                sandbox.to_owned(),
                "kernel.core_pattern=|/x".to_owned(),
                crate::ids::Range::whole(65_536),
            ),
            repository: None,
            limits: ostler_wire::launcher::Limits {
                memory,
                pids: 7,
                cpu_millis: 9,
                cpu_weight: 1,
                io_weight: 1,
                disk: 1,
                files: 1,
            },
            store: crate::store::Store::create(folder.path()).unwrap(),
            cgroups: crate::cgroup::Cgroups::detect("tests", crate::standing::Standing::Machine).unwrap(),
            mount_point: "/somewhere".into(),
            weakened: Weakened::default(),
            certificates: None,
        };
        let null = std::fs::File::open("/dev/null").unwrap();
        let null = std::os::fd::AsFd::as_fd(&null);
        let made = |job: &Job| {
            let mut made = specification(job, null, null);
            made["linux"].as_object_mut().unwrap().remove("cgroupsPath");
            made
        };
        let one = made(&job("one+kernel.sysrq=1", 1));
        assert_eq!(one, made(&job("other", u64::MAX)));
        for absent in ["sysctl", "devices", "resources", "rootfsPropagation"] {
            assert!(one["linux"].get(absent).is_none(), "{absent}");
        }
        assert!(one.get("hooks").is_none());
    }

    #[test]
    fn no_capability_can_be_inherited() {
        let capabilities = &process(&Weakened::default(), Kind::Workspace)["capabilities"];
        assert_eq!((&capabilities["inheritable"], &capabilities["ambient"]), (&json!([]), &json!([])));
        for refused in
            ["CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE"]
        {
            assert!(!CAPABILITIES.contains(&refused), "{refused}");
        }
    }
}
