//! Where an archive is unpacked: namespaces of its own and a root with one folder in it.
//!
//! ```text
//! tmpfs, read-only, becomes "/"
//!   target/   the folder to fill: no device, no setuid program and no link in it means anything, nothing in it is executed;
//!             what uid 0 of the namespace makes belongs to uid 0 on the disk
//! ```
//!
//! Without root of the machine ids are the same inside and outside, since no mount can map them, and so the user's own and those of
//! an image can be given to files of the folder. Who decompresses has no folder at all. No uid of the machine's users is in the namespace, the network is a loopback that is
//! down, and no path leads to the machine. What [`Room::confine`] leaves is what unpacking needs.
#![expect(unsafe_code, reason = "unshare of namespaces is unsafe in rustix")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ostler_wire::{Failure, FailureKind};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::process::{Gid, Resource, Rlimit, Uid, chdir, fchdir, pivot_root, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, ThreadNameSpaceType, UnshareFlags, capability_is_in_bounding_set,
    clear_ambient_capability_set, move_into_thread_name_spaces, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

use super::{Plan, Task};
use crate::defence::Defence;
use crate::ids::Range;
use crate::pair::{self, Pair};
use crate::standing::Standing;
use crate::step::{Step, failure};
use crate::worker::seccomp::{self, Calls};
use crate::worker::{MOUNT_ATTR_NOSYMFOLLOW, change_mount};

/// The folder to fill, which the process is in.
const TARGET: &str = "/target";

/// Memory beyond that of the program itself: what is kept of every folder until the end is most of it.
pub(super) const MEMORY: u64 = 512 << 20;

/// Each was left out once, and what is said of it failed then.
const KEPT: CapabilitySet = CapabilitySet::CHOWN // files of others than root
    // Modes and times of files that have another owner already.
    .union(CapabilitySet::FOWNER)
    // Setgid bits of files whose group is another one already.
    .union(CapabilitySet::FSETID);

/// One more than the highest capability that a kernel may have.
const CAPABILITIES: u32 = 64;

/// The root, of which nothing is left to be decided, and the filter.
pub(super) struct Room {
    filter: &'static [libc::sock_filter],
    /// Bytes of address space that the process may have.
    memory: u64,
}

impl Room {
    /// Goes there with this process, which can have no child but one in a new process namespace from then on.
    pub(super) fn enter(plan: &Plan) -> Result<Self, Failure> {
        let filter = seccomp::program(Calls::Unpacking)?;
        let memory = address_space()? + MEMORY;
        let namespaces = match Standing::of_this_process() {
            Standing::Machine => pair::make_closed(Range::whole(plan.uid_base))?,
            Standing::Namespace => pair::make_closed_with_same_ids()?,
        };
        leave_mounts()?;
        let target = match &plan.task {
            Task::Unpack(folder) => Some(open_target(folder, &namespaces)?),
            Task::Decompress(_) => None,
        };
        match &target {
            Some(target) if plan.weakened.lacks(Defence::OwnRoot) => {
                fchdir(target).step("enter target", || "beside the machine's root".to_owned())?;
            }
            target => lay_out(&plan.place, target.as_ref())?,
        }
        join(&namespaces)?;
        Ok(Self { filter, memory })
    }

    /// Leaves this process nothing but what unpacking needs, for good.
    pub(super) fn confine(&self, plan: &Plan) -> Result<(), Failure> {
        let limits = [
            (Resource::As, self.memory),
            // One more than allowed is written before it is noticed.
            (Resource::Fsize, plan.bytes.saturating_add(1)),
            (Resource::Cpu, plan.seconds),
            (Resource::Nofile, 64),
            (Resource::Nproc, 1),
            (Resource::Core, 0),
        ];
        for (resource, most) in limits {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            setrlimit(resource, limit).step("set limit", || format!("{resource:?} to {most}"))?;
        }
        if !plan.weakened.lacks(Defence::FewCapabilities) {
            give_up_capabilities()?;
        }
        set_no_new_privs(true).step("forbid new privileges", || "of what reads the archive".to_owned())?;
        if plan.weakened.lacks(Defence::SystemCallFilter) {
            return Ok(());
        }
        seccomp::load(self.filter).step("load filter", || "of what reads the archive".to_owned())
    }
}

/// Bytes of address space of this process, before it does anything.
fn address_space() -> Result<u64, Failure> {
    let shown = || "/proc/self/statm".to_owned();
    let text = std::fs::read_to_string("/proc/self/statm").step("read", shown)?;
    let pages: Option<u64> = text.split(' ').next().and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| failure(FailureKind::System, "read", shown()))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The folder as a mount through which uid 0 of the namespace is uid 0 on the disk.
fn open_target(folder: &Path, namespaces: &Pair) -> Result<OwnedFd, Failure> {
    let shown = || folder.display().to_string();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, folder, flags).step("clone target", shown)?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;
    let user = Standing::of_this_process().can_map_mounts().then(|| namespaces.user.as_fd());
    change_mount(&tree, set, user).step("map ids of target", shown)?;
    Ok(tree)
}

/// A mount namespace of this process's own. It belongs to the user namespace that the import is in: whatever rights this process has
/// in its own later, there it can mount nothing.
fn leave_mounts() -> Result<(), Failure> {
    // SAFETY: this process has one thread and shares neither descriptors nor its directory with another.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.step("unshare", || "a mount namespace".to_owned())?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("make mounts private", || "of the unpacker".to_owned())
}

/// A root that holds the target and nothing else.
fn lay_out(place: &Path, target: Option<&OwnedFd>) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("ostler", place, "tmpfs", flags, Some(c"mode=0755,size=16k,nr_inodes=4"))
        .step("mount root", || place.display().to_string())?;
    chdir(place).step("enter root", || place.display().to_string())?;
    if let Some(target) = target {
        let name = TARGET.trim_start_matches('/');
        let shown = || "the target".to_owned();
        rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)).step("make directory", shown)?;
        move_mount(target, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", shown)?;
    }
    pivot_root(".", ".").step("pivot root", || "into the unpacker's".to_owned())?;
    unmount(".", UnmountFlags::DETACH).step("detach", || "the machine's file systems".to_owned())?;
    chdir("/").step("enter root", || "after the pivot".to_owned())?;
    let shown = || "the unpacker's root".to_owned();
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    change_mount(&root.step("open", shown)?, libc::MOUNT_ATTR_RDONLY, None).step("make read-only", shown)?;
    target.map_or(Ok(()), |_| chdir(TARGET)).step("enter target", || TARGET.to_owned())
}

/// Makes this process uid 0 of the namespaces.
fn join(namespaces: &Pair) -> Result<(), Failure> {
    let shown = || "of the unpacker".to_owned();
    move_into_thread_name_spaces(namespaces.user.as_fd(), ThreadNameSpaceType::USER)
        .and_then(|()| move_into_thread_name_spaces(namespaces.network.as_fd(), ThreadNameSpaceType::NETWORK))
        .step("enter namespaces", shown)?;
    let others = UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    // SAFETY: this process has one thread and shares nothing with another.
    unsafe { unshare_unsafe(others) }.step("unshare", || "process, IPC, host name, control groups".to_owned())?;
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT))
        .and_then(|()| set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .step("become root of the namespace", shown)?;
    // Becoming somebody else takes back that the end of the import is the end of this process.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).step("end with import", shown)
}

fn give_up_capabilities() -> Result<(), Failure> {
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // An error says that this kernel has no more of them.
        let Ok(has) = capability_is_in_bounding_set(one) else { break };
        if has && !KEPT.contains(one) {
            remove_capability_from_bounding_set(one).step("give up capability", || format!("number {number}"))?;
        }
    }
    let shown = || "of what reads the archive".to_owned();
    clear_ambient_capability_set().step("clear ambient capabilities", shown)?;
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("give up capabilities", shown)
}
