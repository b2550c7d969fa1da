//! The system call filter of every sandbox: what is not named is not there.
//!
//! Allowed is what build tools, language runtimes, browsers without their own sandbox and databases need; [`calls`] holds it in
//! groups with their reasons. `EPERM` says that a call is refused on purpose. Everything else gives `ENOSYS`, as on a kernel
//! that lacks it, so that programs take their fallback. Calls of another architecture (i386, x32) end the thread, because
//! no other architecture is listed.
//!
//! Where it depends on an argument, allowed and refused values are kept apart: libseccomp knows no precedence between
//! rules, so no two rules of one call with different answers may fit the same arguments. For the same reason no rule
//! compares one argument twice: such comparisons become OR. Where everything but some values is allowed, the upper half of
//! the register is left out, as the kernel does with an `int`: a bit up there must not hide the value (CVE-2019-10063).
//!
//! `SO_ATTACH_FILTER` and its kin stay: they run the same programs as `seccomp`, and those of the other kind need a descriptor
//! that `bpf` does not give.

mod calls;
mod program;

use serde_json::{Value, json};

pub(crate) use program::{load, program};

/// Flags of `clone` that make a namespace: mount, cgroup, uts, ipc, user, pid, network.
const NEW_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Families of sockets besides Unix and netlink.
const INTERNET: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Protocols of IPv4 and IPv6: whatever is usual for the type, ICMP, TCP, UDP, ICMPv6 (the largest). Others load kernel modules
/// (SCTP, L2TP) or are another way to do the same (MPTCP).
const PROTOCOLS: [i32; 5] = [0, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];

/// Execution domains: Linux, 32 bits, the version of old kernels for both, fixed addresses (debuggers and sanitizers want
/// them), and the question which it is, as an `int` and as a `long`.
const PERSONALITIES: [u64; 7] = [0, 0x8, 0x0002_0000, 0x0002_0008, 0x0004_0000, 0xffff_ffff, u64::MAX];

/// Requests to a terminal that type into it, `TIOCSTI` and `TIOCLINUX`. Programs that need them for a prompt have found other
/// ways since kernels can do without.
const TYPING: [u32; 2] = [0x5412, 0x541c];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// Which calls a sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// What programs of all kinds need.
    All,
    /// What a program needs that works on files: no network, no tracing, no shared memory, queues or keys.
    Files,
    /// What the process needs that unpacks an archive, which makes no other process and no socket at all.
    Unpacking,
}

/// The profile, as it would be part of an OCI specification.
pub(super) fn profile(calls: Calls) -> Value {
    let mut rules = Vec::new();
    match calls {
        Calls::All => rules.extend(calls::ALLOWED.iter().map(|(_, names)| allow(names, &[]))),
        Calls::Files => {
            let kept = calls::ALLOWED.iter().filter(|(reason, _)| !calls::NOT_FOR_FILES.contains(reason));
            rules.extend(kept.map(|(_, names)| allow(names, &[])));
        }
        Calls::Unpacking => {
            rules.extend(calls::UNPACKING.iter().map(|(_, names)| allow(names, &[])));
            rules.push(refuse(calls::NOT_FOR_UNPACKING, libc::EPERM, &[]));
        }
    }
    for (_, names) in calls::REFUSED {
        rules.push(refuse(names, libc::EPERM, &[]));
    }
    rules.extend(match calls {
        Calls::All => [processes(), sockets(), requests()].concat(),
        Calls::Files => [processes(), unix_sockets(), requests()].concat(),
        Calls::Unpacking => Vec::new(),
    });
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    })
}

/// Namespaces, limits of other processes, execution domains.
fn processes() -> Vec<Value> {
    let all = NEW_NAMESPACES.iter().sum();
    let mut rules = vec![allow("clone", &[masked(0, all, 0)])];
    rules.extend(NEW_NAMESPACES.map(|flag| refuse("clone", libc::EPERM, &[masked(0, flag, flag)])));
    // PID 1 with fewer descriptors could end nothing any more. 0 is the caller itself.
    rules.push(allow("prlimit64", &[equals(0, 0)]));
    rules.push(refuse("prlimit64", libc::EPERM, &[at_least(0, 1)]));
    rules.extend(PERSONALITIES.map(|usual| allow("personality", &[compare(0, usual, "SCMP_CMP_EQ")])));
    rules
}

/// Families and protocols of sockets.
fn sockets() -> Vec<Value> {
    let mut rules = vec![allow("socket socketpair", &[equals(0, libc::AF_UNIX)])];
    for family in INTERNET {
        rules.extend(PROTOCOLS.map(|protocol| allow("socket", &[equals(0, family), equals(2, protocol)])));
        for other in [equals(2, libc::IPPROTO_DCCP), at_least(2, libc::IPPROTO_ICMPV6 + 1)] {
            rules.push(refuse("socket", libc::EPROTONOSUPPORT, &[equals(0, family), other]));
        }
    }
    // Of netlink only protocol 0, for reading addresses and routes. It is the largest family.
    let netlink = equals(0, libc::AF_NETLINK);
    rules.push(allow("socket", &[netlink.clone(), equals(2, libc::NETLINK_ROUTE)]));
    rules.push(refuse("socket", libc::EPROTONOSUPPORT, &[netlink.clone(), at_least(2, libc::NETLINK_ROUTE + 1)]));
    let allowed = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    for family in (0..libc::AF_NETLINK).filter(|family| !allowed.contains(family)) {
        rules.push(refuse("socket socketpair", libc::EAFNOSUPPORT, &[equals(0, family)]));
    }
    rules.push(refuse("socket socketpair", libc::EAFNOSUPPORT, &[at_least(0, libc::AF_NETLINK + 1)]));
    rules.extend(INTERNET.map(|family| refuse("socketpair", libc::EOPNOTSUPP, &[equals(0, family)])));
    rules.push(refuse("socketpair", libc::EOPNOTSUPP, &[netlink]));
    rules
}

/// Only those between processes of one machine.
fn unix_sockets() -> Vec<Value> {
    let mut rules = vec![allow("socket socketpair", &[equals(0, libc::AF_UNIX)])];
    for other in [equals(0, libc::AF_UNSPEC), at_least(0, libc::AF_UNIX + 1)] {
        rules.push(refuse("socket socketpair", libc::EAFNOSUPPORT, &[other]));
    }
    rules
}

/// Requests to files and terminals.
fn requests() -> Vec<Value> {
    let mut rules: Vec<Value> = none_of(1, &TYPING).into_iter().map(|other| allow("ioctl", &[other])).collect();
    rules.extend(TYPING.map(|typing| refuse("ioctl", libc::EPERM, &[masked(1, u32::MAX.into(), typing.into())])));
    rules
}

/// Comparisons of which exactly one fits each `int` that is not among `values`, and none fits one of these.
///
/// The numbers are the leaves of a binary tree; each comparison is a largest branch without one of `values`.
fn none_of(argument: u32, values: &[u32]) -> Vec<Value> {
    let mut found = Vec::new();
    let mut branches = vec![(0u32, 0u32)];
    while let Some((mask, prefix)) = branches.pop() {
        if !values.iter().any(|value| value & mask == prefix) {
            found.push(masked(argument, mask.into(), prefix.into()));
        } else if mask != u32::MAX {
            let below = 0x8000_0000 >> mask.count_ones();
            branches.extend([(mask | below, prefix), (mask | below, prefix | below)]);
        }
    }
    found
}

fn equals(argument: u32, value: i32) -> Value {
    compare(argument, u64::from(value.cast_unsigned()), "SCMP_CMP_EQ")
}

fn at_least(argument: u32, value: i32) -> Value {
    compare(argument, u64::from(value.cast_unsigned()), "SCMP_CMP_GE")
}

fn compare(argument: u32, value: u64, operation: &str) -> Value {
    json!({"index": argument, "value": value, "op": operation})
}

/// The argument has this value under the mask.
///
/// The OCI specification has the mask in `value` and what it is compared with in `valueTwo`. libcontainer 0.7.0 reads them
/// the other way round (`translate_op` in its `seccomp/mod.rs`), so they are given in its order, which [`program`] reads too.
/// libcontainer loads this only where a test leaves out no new privileges; those tests notice when its order changes.
fn masked(argument: u32, mask: u64, value: u64) -> Value {
    json!({"index": argument, "value": value, "valueTwo": mask, "op": "SCMP_CMP_MASKED_EQ"})
}

fn allow(names: &str, arguments: &[Value]) -> Value {
    json!({"names": split(names), "action": "SCMP_ACT_ALLOW", "args": arguments})
}

fn refuse(names: &str, errno: i32, arguments: &[Value]) -> Value {
    json!({"names": split(names), "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": arguments})
}

fn split(names: &str) -> Vec<&str> {
    names.split_ascii_whitespace().collect()
}

#[cfg(test)]
mod tests;
