//! Whether files that are to be used again are still in use from before.
//!
//! Processes and mounts of a sandbox end with it, but not what somebody outside holds: a guest can send its host any
//! descriptor, such as one of its root folder, and a host that was taken over can keep it. Through it the old overlay lives on,
//! and changes files of the new one, also between the check of the tree and the mounts in it. The kernel allows two overlays with one
//! upper, with a warning in its log, because `index=off` asks it to; with `index=on` it refuses with `EBUSY`. So an overlay is
//! tried that has only its scratch directory in common with the old one, and an index, and is taken away at once.
//!
//! Where the file system of the store has no file handles there is no index, and nothing is noticed; ext4, XFS, btrfs and tmpfs
//! have them.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ostler_wire::{Failure, FailureKind};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::overlay::WORK;
use crate::step::{Step, failure};

/// Folder beside the upper for the time of a trial.
const TRIAL: &str = "trial";

/// Longest wait: an honest host may still read a file that it asked for before the end.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Returns when no overlay uses `files` any more. The current directory is the staging tmpfs.
pub(super) fn wait_until_gone(files: &Path) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_once(files) {
            Err(Errno::BUSY) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
            Err(Errno::BUSY) => {
                let words = "somebody still holds a file or folder of its former life open: the sandbox starts when it is closed";
                return Err(failure(FailureKind::Exists, "use files again", words));
            }
            tried => return tried.step("use files again", || files.display().to_string()),
        }
    }
}

fn try_once(files: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let files = rustix::fs::open(files, flags, Mode::empty())?;
    let clear = || {
        // What a worker that was killed has left, and what this one makes.
        for name in ["trial/lower", "trial/upper", TRIAL, "work/index"] {
            match unlinkat(&files, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    clear()?;
    for name in [TRIAL, "trial/lower", "trial/upper"] {
        mkdirat(&files, name, Mode::RWXU)?;
    }
    let here = format!("/proc/self/fd/{}", files.as_raw_fd());
    let options =
        format!("userxattr,index=on,lowerdir={here}/{TRIAL}/lower,upperdir={here}/{TRIAL}/upper,workdir={here}/{WORK}");
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    fs::create_dir_all(TRIAL).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let tried = mount("overlay", TRIAL, "overlay", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .and_then(|()| unmount(TRIAL, UnmountFlags::empty()));
    clear()?;
    tried
}
