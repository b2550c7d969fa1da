//! A mount namespace of the worker's own, and a tiny root file system in it.
//!
//! ```text
//! tmpfs, 0755, becomes "/"
//!   proc/           the host's, whole: the kernel refuses a new one in a sandbox where it is masked
//!   sys/            the host's, with nothing mounted in it but an empty tmpfs in place of the control groups, so that
//!                   libcontainer finds none to move processes in
//!   dev/            six nodes, the sources of the sandbox's own
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
use rustix::fs::{FileType, Mode, OFlags, makedev};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::UnshareFlags;

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
        mount_bind("/sys", "sys").step("bind", || "/sys into staging".to_owned())?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV | MountFlags::RDONLY;
        mount("ostler", "sys/fs/cgroup", "tmpfs", flags, Some(c"mode=0555,size=4k"))
            .step("mount", || "an empty tmpfs over the control groups in staging".to_owned())?;
        let umask = rustix::process::umask(Mode::empty());
        for (name, major, minor) in DEVICES {
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(
                rustix::fs::CWD,
                format!("dev/{name}"),
                FileType::CharacterDevice,
                mode,
                makedev(major, minor),
            )
            .step("make device", || format!("/dev/{name} in staging"))?;
        }
        rustix::process::umask(umask);
        pivot_root(".", ".").step("pivot root", || "into staging".to_owned())?;
        unmount(".", UnmountFlags::DETACH).step("detach", || "the host's file systems".to_owned())?;
        chdir("/").step("enter staging", || "after the pivot".to_owned())
    }
}
