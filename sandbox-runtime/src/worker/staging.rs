//! A mount namespace of the worker's own, and a tiny root file system in it.
//!
//! ```text
//! tmpfs, 0755, becomes "/"
//!   proc/           the host's, whole: the kernel refuses a new one in a sandbox where it is masked
//!   sys/            the host's, with nothing mounted in it but an empty tmpfs in place of the control groups, so that
//!                   libcontainer finds none to move processes in
//!   dev/            six nodes, the sources of the sandbox's own; the machine's where none can be made
//!   certificates    what the operator trusts, the source of the sandbox's own; only where there is something
//!   bundle/ state/  libcontainer's input and scratch
//!   lower/<n>/      image layers, idmapped; only until the overlay is mounted
//!   rootfs/         the overlay
//! ```
//!
//! After [`Staging::leave_host`] no path of the host's disks exists for this process, libcontainer and the
//! sandbox's set-up, so that a mistake with a path of a hostile tree ends in a tmpfs. No mount reaches the
//! host, and the kernel takes all of it away with the last process.
#![expect(unsafe_code, reason = "unshare of namespaces is unsafe in rustix")]

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ostler_wire::{Failure, FailureKind};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, stat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_bind_recursive, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::UnshareFlags;

use super::overlay::change_mount;
use crate::standing::Standing;
use crate::step::{Step, failure};

/// Where libcontainer finds its specification.
pub(super) const BUNDLE: &str = "/bundle";
/// Where libcontainer keeps its state.
pub(super) const STATE: &str = "/state";
/// The overlay, relative to the tmpfs and absolute after leaving the host.
pub(super) const ROOTFS: &str = "rootfs";
/// The operator's certificates.
pub(super) const CERTIFICATES: &str = "/certificates";
/// Layers, relative to the tmpfs.
pub(super) const LOWER: &str = "lower";

/// Most bytes of certificates: bundles of whole systems have a quarter of it, and the tmpfs must hold it.
const MOST_CERTIFICATES: u64 = 1 << 20;

/// Device nodes: name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Proof that the process works in its own mount namespace, with the tmpfs as current directory.
pub(super) struct Staging(());

/// Enters a new mount namespace and mounts the tmpfs over `mount_point`, which is where the process is then.
pub(super) fn enter(mount_point: &Path) -> Result<Staging, Failure> {
    // SAFETY: this process has one thread and shares neither descriptors nor its directory with another.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .step("unshare", || "a mount namespace".to_owned())?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("make mounts private", || "of the worker".to_owned())?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("ostler", mount_point, "tmpfs", flags, Some(c"mode=0755,size=4m"))
        .step("mount staging", || mount_point.display().to_string())?;
    chdir(mount_point).step("enter staging", || mount_point.display().to_string())?;
    for directory in ["proc", "sys", "dev", BUNDLE, STATE, LOWER, ROOTFS] {
        let directory = directory.trim_start_matches('/');
        rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755))
            .step("make staging directory", || directory.to_owned())?;
    }
    Ok(Staging(()))
}

/// Leaves the machine's root open across executions, for the test of what that would mean.
pub(super) fn leave_host_open() -> Result<(), Failure> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    let root = root.step("open", || "the root of the machine".to_owned())?;
    // It is closed with the process.
    let _ = root.into_raw_fd();
    Ok(())
}

/// Reads the operator's certificates while the host's files can be reached.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = || path.display().to_string();
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_CERTIFICATES + 1).read_to_end(&mut content));
    if read.step("read certificates", shown)? as u64 > MOST_CERTIFICATES {
        let words = format!("{} has more than {MOST_CERTIFICATES} bytes", path.display());
        return Err(failure(FailureKind::Limit, "read certificates", words));
    }
    Ok(content)
}

impl Staging {
    /// Puts the operator's certificates where the sandbox's mount of them comes from.
    pub(super) fn add_certificates(&self, content: &[u8]) -> Result<(), Failure> {
        let place = CERTIFICATES.trim_start_matches('/');
        std::fs::write(place, content)
            .and_then(|()| std::fs::set_permissions(place, Permissions::from_mode(0o444)))
            .step("write certificates", || "into staging".to_owned())
    }

    /// Makes the tmpfs the root of this process and detaches everything else.
    pub(super) fn leave_host(self) -> Result<(), Failure> {
        mount_bind_recursive("/proc", "proc").step("bind", || "/proc into staging".to_owned())?;
        match Standing::of_this_process() {
            Standing::Machine => mount_bind("/sys", "sys").step("bind", || "/sys into staging".to_owned())?,
            Standing::Namespace => mount_new_sys()?,
        }
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV | MountFlags::RDONLY;
        mount("ostler", "sys/fs/cgroup", "tmpfs", flags, Some(c"mode=0555,size=4k"))
            .step("mount", || "an empty tmpfs over the control groups in staging".to_owned())?;
        match Standing::of_this_process() {
            Standing::Machine => make_devices()?,
            Standing::Namespace => bind_devices()?,
        }
        pivot_root(".", ".").step("pivot root", || "into staging".to_owned())?;
        unmount(".", UnmountFlags::DETACH).step("detach", || "the host's file systems".to_owned())?;
        chdir("/").step("enter staging", || "after the pivot".to_owned())
    }
}

/// The machine's can only be had with all that is mounted in it, where libcontainer would find control groups. A new one shows a
/// network namespace, of which the mounter must be root: an empty one of the worker's own, which needs no network.
fn mount_new_sys() -> Result<(), Failure> {
    // SAFETY: this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .step("unshare", || "a network namespace".to_owned())?;
    // Writable, like the machine's: where it is not, the kernel refuses a sandbox one that libcontainer makes read-only later.
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount("ostler", "sys", "sysfs", flags, None).step("mount", || "a new /sys in staging".to_owned())
}

fn make_devices() -> Result<(), Failure> {
    let umask = rustix::process::umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let (mode, number) = (Mode::from_raw_mode(0o666), makedev(major, minor));
        rustix::fs::mknodat(CWD, format!("dev/{name}"), FileType::CharacterDevice, mode, number)
            .step("make device", || format!("/dev/{name} in staging"))?;
    }
    rustix::process::umask(umask);
    Ok(())
}

/// Only root of the machine makes nodes. The machine's own are shared by all sandboxes then, as any user shares them.
fn bind_devices() -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        let (device, place) = (format!("/dev/{name}"), format!("dev/{name}"));
        let found = stat(&device).step("inspect device", || device.clone())?;
        let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
        if !is_device || found.st_rdev != makedev(major, minor) {
            let words = format!("{device} is not the device that it should be");
            return Err(failure(FailureKind::System, "bind device", words));
        }
        std::fs::write(&place, "").step("make device", || format!("{place} in staging"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &device, flags).step("bind device", || device.clone())?;
        change_mount(&tree, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC, None)
            .and_then(|()| move_mount(&tree, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
            .step("bind device", || device.clone())?;
    }
    Ok(())
}
