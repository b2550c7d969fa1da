//! The root file system of a sandbox for git: the machine's own programs, read-only, and one repository.
//!
//! ```text
//! tmpfs, read-only, nothing of it can be executed
//!   usr/              the machine's, read-only; without what is mounted below it
//!   bin lib lib64 …   as on the machine: links into usr/, or read-only like it
//!   etc/              passwd and group with one line each
//!   repository/       the bare repository, its owner's files shown as the sandbox's; no link in it is followed, nothing in
//!                     it is executed
//!   dev/ proc/ tmp/   empty, mounted over later
//! ```
//!
//! Nothing else of the machine is there: no `/etc`, `/home`, `/root`, `/var` or other repository. What is in the repository
//! was written by an attacker until proven otherwise; only its folder itself is opened here, by its name and without
//! following a link.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use ostler_wire::launcher::RepositoryAccess;
use ostler_wire::{Failure, FailureKind};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use super::Repository;
use super::overlay::{change_mount, open_real};
use super::staging::ROOTFS;
use crate::step::{Step, failure};

/// Beside `/usr`, where programs and their libraries are looked for.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Folders that are mounted over.
const PLACES: [&str; 6] = ["usr", "etc", "dev", "proc", "tmp", "repository"];

/// Name of the one user and the one group, in files of a line each.
const USER: &str = "git:x:0:0::/nonexistent:/nonexistent\n";
const GROUP: &str = "git:x:0:\n";

/// From the kernel's `uapi/linux/mount.h`; the libc crate has no name for it.
pub(crate) const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

const CLOSED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Lays the tree out at `rootfs` in the current directory (the staging tmpfs). `owner` is a user namespace that maps the
/// repository's owner to the sandbox's root; without it they are the same.
pub(super) fn lay_out(repository: &Repository, owner: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let repository_tree = open_repository(repository)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("ostler", ROOTFS, "tmpfs", flags, Some(c"mode=0755,size=64k,nr_inodes=64"))
        .step("mount root", || "a tmpfs for the machine's programs".to_owned())?;
    for name in PLACES {
        make_folder(name)?;
    }
    for (name, line) in [("passwd", USER), ("group", GROUP)] {
        fs::write(format!("{ROOTFS}/etc/{name}"), line).step("write", || format!("/etc/{name} of the sandbox"))?;
    }
    attach_programs(Path::new("/usr"), "usr")?;
    for name in PROGRAMS {
        add_programs(name)?;
    }
    let mut set = CLOSED | libc::MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;
    if repository.access == RepositoryAccess::Read {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let shown = || repository.folder.clone();
    change_mount(&repository_tree, set, owner).step("map owner of repository", shown)?;
    place(&repository_tree, "repository").step("attach repository", shown)?;
    seal_root()
}

/// A mount of the repository's folder, which must be one of the host's user and no link.
fn open_repository(repository: &Repository) -> Result<OwnedFd, Failure> {
    let shown = || repository.folder.clone();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let forge = rustix::fs::open(&repository.forge, flags, Mode::empty())
        .step("open forge", || repository.forge.display().to_string())?;
    let folder = match open_real(forge.as_fd(), &repository.folder) {
        Err(Errno::NOENT) => {
            let words = format!("the forge has no {}", repository.folder);
            return Err(failure(FailureKind::NotFound, "open repository", words));
        }
        opened => opened.step("open repository", shown)?,
    };
    let found = rustix::fs::fstat(&folder).step("inspect repository", shown)?;
    if (found.st_uid, found.st_gid) != (repository.uid, repository.gid) {
        let words = format!("{} belongs to another user than the host's", repository.folder);
        return Err(failure(FailureKind::Invalid, "open repository", words));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&folder, "", flags).step("clone repository", shown)
}

/// What the machine has at `/name`: a link into `/usr` or a folder.
fn add_programs(name: &str) -> Result<(), Failure> {
    let path = Path::new("/").join(name);
    let found = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.step("inspect", || path.display().to_string())?,
    };
    if found.is_dir() {
        make_folder(name)?;
        return attach_programs(&path, name);
    }
    let target = fs::read_link(&path).step("read link", || path.display().to_string())?;
    // Whatever it points to, it leads nowhere but into the sandbox's own tree.
    symlink(&target, format!("{ROOTFS}/{name}")).step("make link", || format!("/{name} of the sandbox"))
}

fn attach_programs(path: &Path, name: &str) -> Result<(), Failure> {
    let shown = || path.display().to_string();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).step("clone programs", shown)?;
    change_mount(&tree, CLOSED | libc::MOUNT_ATTR_RDONLY, None).step("make programs read-only", shown)?;
    place(&tree, name).step("attach programs", shown)
}

fn seal_root() -> Result<(), Failure> {
    let shown = || "the root of the sandbox".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOTFS, flags, Mode::empty()).step("open", shown)?;
    change_mount(&root, libc::MOUNT_ATTR_RDONLY, None).step("make read-only", shown)
}

fn make_folder(name: &str) -> Result<(), Failure> {
    fs::create_dir(format!("{ROOTFS}/{name}")).step("make directory", || format!("/{name} of the sandbox"))
}

fn place(tree: &OwnedFd, name: &str) -> Result<(), Errno> {
    move_mount(tree, "", CWD, format!("{ROOTFS}/{name}"), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
