//! The system call filter of every sandbox: conservative, from the first process on.
//!
//! What is not named is allowed; what is named here reaches kernel code that no build or test needs and that
//! has let processes out of containers before. (A default-deny profile has its own issue.) No rule
//! compares one argument twice: libseccomp joins such comparisons by OR. Calls of another architecture (i386, x32) end
//! the thread, because no other architecture is listed.
//!
//! `EPERM` says that a call is refused on purpose, `ENOSYS` makes programs take their fallback.

use serde_json::{Value, json};

/// Mounting, other namespaces, keys, kernel programs, handles, modules, clocks: refused on purpose.
const REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// Calls with a fallback in every program that uses them.
const ABSENT: &[&str] = &["clone3", "io_uring_enter", "io_uring_register", "io_uring_setup"];

/// Flags of `clone` that make a namespace: mount, cgroup, uts, ipc, user, pid, network.
const NEW_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Socket families that a sandbox may use: Unix, IPv4, IPv6, and netlink (the largest) for reading routes.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The profile as part of an OCI specification.
pub(super) fn profile() -> Value {
    let mut rules = vec![refuse(REFUSED, libc::EPERM), refuse(ABSENT, libc::ENOSYS)];
    // Limits of other processes: PID 1 with fewer descriptors could end nothing any more. 0 is the caller itself.
    rules.push(refuse_with(&["prlimit64"], libc::EPERM, json!([at_least(0, 1)])));
    for flag in NEW_NAMESPACES {
        let with_flag = json!([{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]);
        rules.push(refuse_with(&["clone"], libc::EPERM, with_flag));
    }
    // Every family up to the largest allowed one by name, all above it as one range.
    let unwanted = (0..libc::AF_NETLINK).filter(|family| !FAMILIES.contains(family)).map(|family| equals(0, family));
    for comparison in unwanted.chain([at_least(0, libc::AF_NETLINK + 1)]) {
        rules.push(refuse_with(&["socket", "socketpair"], libc::EAFNOSUPPORT, json!([comparison])));
    }
    // Of netlink only protocol 0, routing.
    let other_netlink = json!([equals(0, libc::AF_NETLINK), at_least(2, 1)]);
    rules.push(refuse_with(&["socket"], libc::EPROTONOSUPPORT, other_netlink));
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [ARCHITECTURE], "syscalls": rules})
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

fn equals(argument: u32, value: i32) -> Value {
    json!({"index": argument, "value": value, "op": "SCMP_CMP_EQ"})
}

fn at_least(argument: u32, value: i32) -> Value {
    json!({"index": argument, "value": value, "op": "SCMP_CMP_GE"})
}

fn refuse(names: &[&str], errno: i32) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno})
}

fn refuse_with(names: &[&str], errno: i32, arguments: Value) -> Value {
    let mut rule = refuse(names, errno);
    rule["args"] = arguments;
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_one_that_the_runtime_reads() {
        let parsed: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(profile()).unwrap();
        assert!(parsed.syscalls().as_ref().is_some_and(|rules| rules.len() > 20));
    }

    #[test]
    fn no_rule_compares_one_argument_twice() {
        for rule in profile()["syscalls"].as_array().unwrap() {
            let mut indexes: Vec<u64> = rule["args"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|argument| argument["index"].as_u64().unwrap())
                .collect();
            let all = indexes.len();
            indexes.dedup();
            assert_eq!(indexes.len(), all, "{rule}");
        }
    }
}
