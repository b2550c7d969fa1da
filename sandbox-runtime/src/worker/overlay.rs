//! The sandbox's root file system: the image's layers, idmapped and read-only, under an upper of its own.
//!
//! Layers lie on the disk with the ids of the image; each is attached with the id map of the sandbox's user
//! namespace. The upper is a plain directory owned by the sandbox's range. A tree that was used before was
//! written by an attacker until proven otherwise: nothing in it is opened by following a link.
#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ostler_wire::{Failure, FailureKind};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, Uid, chownat, fstatvfs, mkdirat, openat2,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::staging::{LOWER, ROOTFS};
use crate::defence::{Defence, Weakened};
use crate::ids::Range;
use crate::process::last_errno;
use crate::step::{Step, failure};

/// Name of the writable layer beside the record.
pub(crate) const UPPER: &str = "upper";
/// Name of overlayfs' scratch directory beside the record.
pub(super) const WORK: &str = "work";

/// The most layers under one upper; the kernel's own limit is 500.
const MOST_LAYERS: usize = 64;

/// One format everywhere (`userxattr`), and no feature that lets a layer point into another.
const OPTIONS: &str = "userxattr,metacopy=off,index=off,redirect_dir=nofollow";

/// Directories that are mounted over or written to from outside: each must be a real one. What is below `/dev` needs no look,
/// since a file system of its own lies over it; `/etc`, `/run` and all others are opened by nobody outside. Nothing can
/// change between this check and the mounts: no process lives in the tree then, and no other sandbox has it.
const REAL: [&str; 5] = ["dev", "proc", "sys", "tmp", "workspace"];

/// Mounts the overlay at `rootfs` in the current directory (the staging tmpfs). `layers` are top first, `files`
/// holds upper and work, `user` is the user namespace whose map the layers get; without it they bear the sandbox's ids.
pub(super) fn mount(
    layers: &[PathBuf],
    files: &Path,
    user: Option<BorrowedFd<'_>>,
    weakened: &Weakened,
) -> Result<(), Failure> {
    if layers.is_empty() || layers.len() > MOST_LAYERS {
        let words = format!("an image of {} layers; 1 to {MOST_LAYERS} are possible", layers.len());
        return Err(failure(FailureKind::Limit, "mount overlay", words));
    }
    let mut lowers = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let place = format!("{LOWER}/{number}");
        attach(layer, &place, user)?;
        lowers.push(place);
    }
    // Through the descriptor, no character of the store's path needs escaping. It is opened here because an
    // upper must belong to the mount namespace that mounts the overlay.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let files = rustix::fs::open(files, flags, Mode::empty()).step("open", || files.display().to_string())?;
    let here = format!("/proc/self/fd/{}", files.as_raw_fd());
    let options = format!("lowerdir={},upperdir={here}/{UPPER},workdir={here}/{WORK},{OPTIONS}", lowers.join(":"));
    let options =
        CString::new(options).map_err(|_| failure(FailureKind::Invalid, "mount overlay", "a zero byte in a path"))?;
    let mut kept = MountFlags::NOSUID | MountFlags::NODEV;
    kept.set(MountFlags::NOSUID, !weakened.lacks(Defence::NoSuid));
    kept.set(MountFlags::NODEV, !weakened.lacks(Defence::NoDevices));
    rustix::mount::mount("overlay", ROOTFS, "overlay", kept, Some(options.as_c_str()))
        .step("mount overlay", || format!("of {} layers", layers.len()))?;
    for place in lowers {
        // The overlay holds its own reference.
        unmount(&place, UnmountFlags::DETACH).step("detach layer", || place.clone())?;
    }
    let mounted = fstatvfs(open_real(CWD, ROOTFS).step("open", || ROOTFS.to_owned())?)
        .step("inspect overlay", || ROOTFS.to_owned())?;
    if mounted.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(failure(FailureKind::System, "mount overlay", "it came up read-only; see the kernel's log"));
    }
    Ok(())
}

/// Attaches a read-only view of a layer whose ids are mapped by the user namespace, if there is one.
fn attach(layer: &Path, place: &str, user: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, layer, flags).step("clone layer", || layer.display().to_string())?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    change_mount(&tree, set, user).step("map ids of layer", || layer.display().to_string())?;
    rustix::fs::mkdir(place, Mode::from_raw_mode(0o755)).step("make staging directory", || place.to_owned())?;
    move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach layer", || place.to_owned())
}

/// Sets attributes of a mount, with the ids mapped by a user namespace where there is one.
pub(crate) fn change_mount(tree: &OwnedFd, set: u64, user: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: set | if user.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd: user.map_or(0, |user| user.as_raw_fd() as u64),
    };
    // SAFETY: the attributes live until the call returns, and their size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Refuses a tree in which a place that is mounted over is not a directory, and makes the ones that are
/// missing. They belong to the sandbox's root.
pub(super) fn check_tree(ids: Range) -> Result<(), Failure> {
    let root = open_real(CWD, ROOTFS).step("open", || ROOTFS.to_owned())?;
    for name in REAL {
        match open_real(root.as_fd(), name) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                make(&root, name, ids.base).step("make directory", || format!("/{name} in the sandbox"))?
            }
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) => {
                let refused =
                    Err::<(), _>(error).step("check tree", || format!("/{name} must be a directory and no link"));
                return refused.map_err(|refused| Failure { kind: FailureKind::Invalid, ..refused });
            }
            Err(error) => return Err(error).step("check tree", || format!("/{name}")),
        }
    }
    Ok(())
}

fn make(root: &OwnedFd, name: &str, uid_base: u32) -> Result<(), Errno> {
    let mode = if name == "tmp" { 0o1777 } else { 0o755 };
    let umask = rustix::process::umask(Mode::empty());
    let made = mkdirat(root, name, Mode::from_raw_mode(mode));
    rustix::process::umask(umask);
    made?;
    chownat(root, name, Some(Uid::from_raw(uid_base)), Some(Gid::from_raw(uid_base)), AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn open_real(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(directory, name, flags, Mode::empty(), resolve)
}
