//! System calls tried with arguments that do no harm, each in a child of its own, and how the kernel answered.

use crate::json::Json;
use crate::{ended, raw, spawn};

/// A pointer that leads nowhere and an unlikely descriptor.
const NOWHERE: i64 = 1;
const NO_DESCRIPTOR: i64 = 987;

/// Name, number on x86-64, arguments. Where a call is allowed, the arguments make it fail or do nothing.
const CALLS: &[(&str, i64, &[i64])] = &[
    ("acct", 163, &[NOWHERE]),
    ("add_key", 248, &[NOWHERE, NOWHERE, NOWHERE]),
    ("adjtimex", 159, &[NOWHERE]),
    ("bpf", 321, &[99, NOWHERE, 0]),
    ("cachestat", 451, &[NO_DESCRIPTOR, NOWHERE, NOWHERE, 0]),
    ("chroot", 161, &[NOWHERE]),
    ("clock_adjtime", 305, &[0, NOWHERE]),
    ("clock_settime", 227, &[0, NOWHERE]),
    ("clone with a new user namespace", 56, &[0x1000_0000]),
    ("clone with a new mount namespace", 56, &[0x0002_0000]),
    ("clone with a new network namespace", 56, &[0x4000_0000]),
    ("clone3", 435, &[NOWHERE, 0]),
    ("delete_module", 176, &[NOWHERE, 0]),
    ("fanotify_init", 300, &[0x8000_0000, 0]),
    ("finit_module", 313, &[NO_DESCRIPTOR, NOWHERE, 0]),
    ("fsconfig", 431, &[NO_DESCRIPTOR, 0, NOWHERE, 0]),
    ("fsmount", 432, &[NO_DESCRIPTOR, 0, 0]),
    ("fsopen", 430, &[NOWHERE, 0]),
    ("fspick", 433, &[NO_DESCRIPTOR, NOWHERE, 0]),
    ("get_mempolicy", 239, &[NOWHERE, 0, 0, 0, 0]),
    ("init_module", 175, &[NOWHERE, 0, NOWHERE]),
    ("io_uring_setup", 425, &[0, NOWHERE]),
    ("ioperm", 173, &[0, 1, 1]),
    ("iopl", 172, &[3]),
    ("kcmp", 312, &[1, 1, 0, 0, 0]),
    ("kexec_file_load", 320, &[NO_DESCRIPTOR, NO_DESCRIPTOR, 0, 0, 0]),
    ("kexec_load", 246, &[0, 0, 0, 0]),
    ("keyctl", 250, &[99, 0, 0, 0]),
    ("listmount", 458, &[NOWHERE, NOWHERE, 0, 0]),
    ("lookup_dcookie", 212, &[0, NOWHERE, 0]),
    ("mbind", 237, &[0, 0, 99, 0, 0, 0]),
    ("memfd_secret", 447, &[0xff]),
    ("migrate_pages", 256, &[0, 0, 0, 0]),
    ("modify_ldt", 154, &[99, 0, 0]),
    ("mount", 165, &[NOWHERE, NOWHERE, NOWHERE, 0, 0]),
    ("mount_setattr", 442, &[NO_DESCRIPTOR, NOWHERE, 0, NOWHERE, 0]),
    ("move_mount", 429, &[NO_DESCRIPTOR, NOWHERE, NO_DESCRIPTOR, NOWHERE, 0]),
    ("move_pages", 279, &[1, 0, 0, 0, 0, 0]),
    ("name_to_handle_at", 303, &[NO_DESCRIPTOR, NOWHERE, NOWHERE, NOWHERE, 0]),
    ("open_by_handle_at", 304, &[NO_DESCRIPTOR, NOWHERE, 0]),
    ("open_tree", 428, &[NO_DESCRIPTOR, NOWHERE, 0]),
    ("perf_event_open", 298, &[NOWHERE, 0, 0, 0, 0]),
    ("personality of another system", 135, &[0x0001_0000]),
    ("pidfd_getfd", 438, &[NO_DESCRIPTOR, 0, 0]),
    ("pivot_root", 155, &[NOWHERE, NOWHERE]),
    ("process_madvise", 440, &[NO_DESCRIPTOR, 0, 0, 0, 0]),
    ("quotactl", 179, &[-1, NOWHERE, 0, 0]),
    ("reboot", 169, &[0, 0, 0, 0]),
    ("request_key", 249, &[NOWHERE, NOWHERE, 0, 0]),
    ("set_mempolicy", 238, &[99, 0, 0]),
    ("setdomainname", 171, &[NOWHERE, 1]),
    ("sethostname", 170, &[NOWHERE, 1]),
    ("setns", 308, &[NO_DESCRIPTOR, 0]),
    ("settimeofday", 164, &[NOWHERE, 0]),
    ("socket of AF_ALG", 41, &[38, 5, 0]),
    ("socket of AF_BLUETOOTH", 41, &[31, 3, 0]),
    ("socket of AF_KEY", 41, &[15, 3, 2]),
    ("socket of AF_PACKET", 41, &[17, 3, 0]),
    ("socket of AF_RXRPC", 41, &[33, 2, 2]),
    ("socket of AF_TIPC", 41, &[30, 2, 0]),
    ("socket of AF_VSOCK", 41, &[40, 1, 0]),
    ("socket of AF_XDP", 41, &[44, 3, 0]),
    ("socket of NETLINK_NETFILTER", 41, &[16, 3, 12]),
    ("socket of NETLINK_XFRM", 41, &[16, 3, 6]),
    ("socket of SCTP", 41, &[2, 1, 132]),
    ("raw socket", 41, &[2, 3, 1]),
    ("statmount", 457, &[NOWHERE, NOWHERE, 0, 0]),
    ("swapoff", 168, &[NOWHERE]),
    ("swapon", 167, &[NOWHERE, 0]),
    ("syslog", 103, &[99, 0, 0]),
    ("TIOCSTI", 16, &[NO_DESCRIPTOR, 0x5412, NOWHERE]),
    ("umount2", 166, &[NOWHERE, 0]),
    ("unshare of the user namespace", 272, &[0x1000_0000]),
    ("unshare of the mount namespace", 272, &[0x0002_0000]),
    ("userfaultfd", 323, &[1]),
    ("vhangup", 153, &[]),
    ("vmsplice", 278, &[NO_DESCRIPTOR, NOWHERE, 0, 0]),
];

/// The answer to each: the number of the error, 0, or the signal that ended the child.
pub fn read() -> Json {
    Json::object(CALLS.iter().map(|(name, number, arguments)| {
        let mut values = [0; 7];
        values[0] = *number;
        values[1..=arguments.len()].copy_from_slice(arguments);
        (*name, answer(spawn(move || raw(values))))
    }))
}

fn answer(child: i32) -> Json {
    let status = ended(child);
    if status & 0x7f == 0 { Json::Number(i64::from((status >> 8) & 0xff)) } else { Json::text(format!("signal {}", status & 0x7f)) }
}
