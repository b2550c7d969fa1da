//! The OCI specification of a sandbox.
//!
//! Nothing of a request gets in here: every sandbox has the same namespaces, capabilities, mounts and system call filter.
//! Limits are not part of it, see [`crate::cgroup`].

use std::os::fd::{AsRawFd, BorrowedFd};

use ostler_wire::guest::CERTIFICATES;
use serde_json::{Value, json};

use super::{Job, seccomp, staging};

/// Capabilities in the sandbox's own user namespace, bounding, effective and permitted: Docker's set without
/// `NET_RAW`, `MKNOD`, `SYS_CHROOT`, `AUDIT_WRITE` and `SETFCAP`. None are inheritable or ambient.
const CAPABILITIES: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
];

const MASKED: [&str; 12] = [
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
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Open files of one process, where the launcher's own limit allows as many.
const OPEN_FILES: u64 = 65_536;

/// The first to be ended when the machine is out of memory: before the host, after nothing.
const OOM_SCORE: i32 = 500;

/// Builds the specification. The namespaces are joined by descriptor, which libcontainer inherits.
pub(super) fn specification(job: &Job, user: BorrowedFd<'_>, network: BorrowedFd<'_>) -> Value {
    let by_descriptor = |descriptor: BorrowedFd<'_>| format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    json!({
        "ociVersion": "1.0.2",
        "hostname": "ostler",
        "root": {"path": format!("/{}", staging::ROOTFS), "readonly": false},
        "process": process(),
        "mounts": mounts(job.certificates.is_some()),
        "linux": {
            "namespaces": [
                {"type": "user", "path": by_descriptor(user)},
                {"type": "network", "path": by_descriptor(network)},
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
            ],
            "cgroupsPath": job.cgroups.oci_path(&job.record.sandbox),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp::profile(),
        },
    })
}

fn process() -> Value {
    let files =
        rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX).min(OPEN_FILES);
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": ["ostler-guest"],
        "cwd": "/",
        // Without it libcontainer asks the C library for root's home after it has entered the sandbox's root, and the C
        // library loads code from there (as in CVE-2019-14271). The guest itself gets an environment of its own.
        "env": ["HOME=/root"],
        "noNewPrivileges": true,
        "oomScoreAdj": OOM_SCORE,
        "capabilities": {
            "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            "inheritable": [], "ambient": [],
        },
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": files, "hard": files},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_needs_to_look_up_a_home_in_the_sandbox() {
        assert_eq!(process()["env"], json!(["HOME=/root"]));
    }

    #[test]
    fn no_capability_can_be_inherited() {
        let capabilities = &process()["capabilities"];
        assert_eq!((&capabilities["inheritable"], &capabilities["ambient"]), (&json!([]), &json!([])));
        for refused in ["CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT"] {
            assert!(!CAPABILITIES.contains(&refused), "{refused}");
        }
    }
}
