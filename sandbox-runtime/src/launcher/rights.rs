//! What the launcher gives up for itself and everything that it starts: rights that it does not need.
//!
//! It is root, makes namespaces and mounts, and a worker of it walks a tree that an attacker wrote. So of root's capabilities it
//! keeps the ones below, can never have others, and leaves out the parts of the kernel that it has no use for. In a new user
//! namespace its children have every capability, over that namespace alone: what a sandbox keeps of them is in its
//! specification.

use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use ostler_wire::{Failure, FailureKind};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};

use crate::defence::{Defence, Weakened};
use crate::standing::Standing;
use crate::step::{Step, failure};

/// What is kept. Each was left out once, and what is said of it failed then.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN // namespaces, mounts, id maps
    // The upper of a sandbox becomes its own.
    .union(CapabilitySet::CHOWN)
    // Writing and removing in folders of other users.
    .union(CapabilitySet::DAC_OVERRIDE)
    // Looking at a folder of another user without touching its time.
    .union(CapabilitySet::FOWNER)
    // The overlay of a sandbox works with the rights of who mounted it: without this, setgid bits that are set in there get lost.
    .union(CapabilitySet::FSETID)
    // Id maps of more than one's own.
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Kept by root of the machine besides: the nodes that a sandbox's devices are made of.
const OF_THE_MACHINE: CapabilitySet = CapabilitySet::MKNOD;

/// Kept by root of a user namespace besides: for an id map in which the namespace's own root appears, as that of git does there.
/// The kernel asks for it since 5.12, because such a map could make file capabilities valid outside.
const OF_A_NAMESPACE: CapabilitySet = CapabilitySet::SETFCAP;

/// One more than the highest capability that a kernel may have.
const CAPABILITIES: u32 = 64;

/// Calls that neither the launcher nor libcontainer nor any process in a sandbox makes: each reaches much of the kernel, or all
/// of the machine. What is refused here is refused in every sandbox too, whose own filter says with which error.
const REFUSED: [&str; 31] = [
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "userfaultfd",
];

/// Gives up what is not needed, for good. To be called once the launcher has everything that it needs more for, and before it
/// listens to anybody. What a test leaves out of its sandboxes is left out here too: they would inherit it.
pub(super) fn give_up(weakened: &Weakened) -> Result<(), Failure> {
    let shown = || "of the launcher".to_owned();
    let keep = KEPT.union(match Standing::of_this_process() {
        Standing::Machine => OF_THE_MACHINE,
        Standing::Namespace => OF_A_NAMESPACE,
    });
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    // A program that it executes does not become what root is.
    set_capabilities_secure_bits(bits).step("set secure bits", shown)?;
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // An error says that this kernel has no more of them.
        let Ok(has) = capability_is_in_bounding_set(one) else { break };
        if has && !keep.contains(one) {
            remove_capability_from_bounding_set(one).step("give up capability", || format!("number {number}"))?;
        }
    }
    clear_ambient_capability_set().step("clear ambient capabilities", shown)?;
    // In a container it may have less than root has; what then cannot be done fails where it is done.
    let kept = capabilities(None).step("read capabilities", shown)?.permitted.intersection(keep);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("give up capabilities", shown)?;
    if !weakened.lacks(Defence::NoNewPrivileges) {
        set_no_new_privs(true).step("forbid new privileges", shown)?;
    }
    if weakened.lacks(Defence::SystemCallFilter) {
        return Ok(());
    }
    refuse_calls().map_err(|error| failure(FailureKind::System, "refuse system calls", error.to_string()))
}

fn refuse_calls() -> Result<(), libseccomp::error::SeccompError> {
    // Calls of another architecture end the process.
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    // That is set by itself, above.
    filter.set_ctl_nnp(false)?;
    for name in REFUSED {
        filter.add_rule(ScmpAction::Errno(libc::EPERM), ScmpSyscall::from_name(name)?)?;
    }
    filter.load()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_calls_is_in_order_and_known() {
        assert!(REFUSED.is_sorted());
        for name in REFUSED {
            assert!(ScmpSyscall::from_name(name).is_ok(), "{name}");
        }
    }
}
