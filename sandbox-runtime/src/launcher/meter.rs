//! How much of the disk a sandbox uses, measured in a child of the launcher.
//!
//! What lies in its upper is walked without following a link and without opening anything but folders. A file that was
//! removed while a process has it open or mapped is in no folder; [`hidden`] finds it in the sandbox's processes. A file
//! with several names counts once. What a walk costs is bounded by what is allowed: it ends when that is exceeded.
//!
//! The sandbox goes on meanwhile, so that a number is about right, and a tree that is being moved about may be missed once.
//! What is only on its way through a socket is not found.

use std::collections::HashSet;
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ostler_wire::Failure;
use ostler_wire::socket::{self, SocketError};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstatfs, openat, statat};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::hidden;
use crate::cgroup::Cgroups;
use crate::ids::Range;
use crate::process;
use crate::step::Step;
use crate::store::Store;
use crate::worker::UPPER;

/// Folders in each other that are looked into: what lies deeper cannot be named by any program in one piece.
pub(super) const DEEPEST: usize = 2048;

/// From the kernel's `uapi/linux/magic.h`.
const OVERLAY: u64 = 0x794c_7630;

/// Room on a disk, used or allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Room {
    pub(super) bytes: u64,
    /// Names of files and folders.
    pub(super) files: u64,
}

impl Room {
    fn exceeds(self, allowed: Self) -> bool {
        self.bytes > allowed.bytes || self.files > allowed.files
    }
}

/// What is to be measured.
pub(super) struct Subject {
    pub(super) sandbox: String,
    pub(super) instance: u64,
    /// Whose its processes are.
    pub(super) ids: Range,
    /// Where the walk may end.
    pub(super) enough: Room,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) sandbox: String,
    pub(super) instance: u64,
    pub(super) used: Room,
    pub(super) beyond: Option<Beyond>,
}

/// What is not allowed however little it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Beyond {
    /// Folders deeper than [`DEEPEST`].
    Depth,
    /// More descriptors than [`hidden::MOST_DESCRIPTORS`].
    Descriptors,
    /// More mapped regions than [`hidden::MOST_MAPPINGS`].
    Mappings,
}

/// Starts a child that measures each in turn and says what it found in a message of [`Measured`].
pub(super) fn start(subjects: &[Subject], store: &Store, cgroups: &Cgroups, report: OwnedFd) -> Result<Pid, Failure> {
    process::fork(|| {
        let kept = process::become_child(c"ostler-meter").and_then(|()| process::keep_only(vec![report]));
        let Some(report) = kept.ok().and_then(|mut kept| kept.pop()) else { return libc::EIO };
        // Neither is needed, both are polite: it may go first, and it works when nobody else wants to.
        let _ = std::fs::write("/proc/self/oom_score_adj", "500");
        let _ = rustix::process::nice(15);
        for subject in subjects {
            let upper = store.sandbox(&subject.sandbox).join(UPPER);
            let Ok(found) = measure(&upper, &processes(subject, cgroups), subject.enough) else { continue };
            let measured = Measured {
                sandbox: subject.sandbox.clone(),
                instance: subject.instance,
                used: found.used,
                beyond: found.beyond,
            };
            if say(report.as_fd(), &measured).is_err() {
                return libc::EPIPE;
            }
        }
        0
    })
    .step("fork", || "a meter of disks".to_owned())
}

/// The processes of a sandbox: by its control group, or by their ids where it has none.
fn processes(subject: &Subject, cgroups: &Cgroups) -> Vec<Pid> {
    if cgroups.can_end() {
        return cgroups.processes(&subject.sandbox);
    }
    process::owned_by(|uid| subject.ids.holds(uid))
}

fn say(report: BorrowedFd<'_>, measured: &Measured) -> Result<(), SocketError> {
    loop {
        match socket::send(report, measured, None) {
            Err(SocketError::NotReady) => {
                // The launcher reads when it comes to it; its death ends this process.
                let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(report, PollFlags::OUT)], None);
            }
            said => return said,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    used: Room,
    beyond: Option<Beyond>,
}

fn measure(upper: &Path, processes: &[Pid], enough: Room) -> Result<Found, Errno> {
    let mut walk = Walk { found: Found::default(), seen: HashSet::new(), enough };
    walk.tree(upper)?;
    if !walk.is_over() {
        walk.removed(processes);
    }
    Ok(walk.found)
}

struct Walk {
    found: Found,
    /// Numbers of files that have more than one name, or none.
    seen: HashSet<u64>,
    enough: Room,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.found.beyond.is_some() || self.found.used.exceeds(self.enough)
    }

    fn tree(&mut self, root: &Path) -> Result<(), Errno> {
        let mut open = vec![Dir::new(folder(CWD, root)?)?];
        loop {
            let depth = open.len();
            let Some(directory) = open.last_mut() else { return Ok(()) };
            // What cannot be read to its end is done with as well.
            let Some(Ok(entry)) = directory.read() else {
                open.pop();
                continue;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(within) = directory.fd() else { continue };
            let is_folder = self.count(within, name);
            if self.is_over() {
                return Ok(());
            }
            if !is_folder {
                continue;
            }
            if depth >= DEEPEST {
                self.found.beyond = Some(Beyond::Depth);
                return Ok(());
            }
            // One that is gone, or is none any more, is counted when it is met again.
            match directory_below(within, name) {
                Ok(below) => open.push(below),
                // So many in each other cannot be held open.
                Err(Errno::MFILE | Errno::NFILE) => {
                    self.found.beyond = Some(Beyond::Depth);
                    return Ok(());
                }
                Err(_) => {}
            }
        }
    }

    /// Counts an entry and says whether it is a folder.
    fn count(&mut self, within: BorrowedFd<'_>, name: &CStr) -> bool {
        let Ok(stat) = statat(within, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.found.used.files += 1;
        if is_folder || stat.st_nlink < 2 || self.seen.insert(stat.st_ino) {
            self.found.used.bytes += stat.st_blocks.cast_unsigned() * 512;
        }
        is_folder
    }

    fn removed(&mut self, processes: &[Pid]) {
        let beyond = hidden::each(processes, |name| {
            self.count_removed(name);
            if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.found.beyond = self.found.beyond.or(beyond);
    }

    fn count_removed(&mut self, name: &Path) {
        // Only a name for what is open: nothing happens to a device or a pipe.
        let Ok(file) = rustix::fs::open(name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { return };
        let Ok(stat) = rustix::fs::fstat(&file) else { return };
        let is_on_disk = || fstatfs(&file).is_ok_and(|kind| kind.f_type.cast_unsigned() == OVERLAY);
        if stat.st_nlink == 0 && is_on_disk() && self.seen.insert(stat.st_ino) {
            self.found.used.files += 1;
            self.found.used.bytes += stat.st_blocks.cast_unsigned() * 512;
        }
    }
}

fn directory_below(within: BorrowedFd<'_>, name: &CStr) -> Result<Dir, Errno> {
    Dir::new(folder(within, name)?)
}

fn folder(within: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    openat(within, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ANY: Room = Room { bytes: u64::MAX, files: u64::MAX };

    fn measured(upper: &Path, enough: Room) -> Found {
        measure(upper, &[], enough).unwrap()
    }

    #[test]
    fn what_is_written_counts_once_and_links_lead_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let (upper, outside) = (place.path().join("upper"), place.path().join("outside"));
        fs::create_dir_all(upper.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![1; 4 << 20]).unwrap();
        let empty = measured(&upper, ANY).used;
        assert_eq!(empty.files, 2);
        fs::write(upper.join("a/b/one"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(upper.join("a/b/one"), upper.join("a/two")).unwrap();
        std::os::unix::fs::symlink(&outside, upper.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("large"), upper.join("a/file")).unwrap();
        let used = measured(&upper, ANY).used;
        assert_eq!(used.files, 6);
        let grown = used.bytes - empty.bytes;
        assert!((1 << 20..(1 << 20) + 65_536).contains(&grown), "{grown}");
        // A hole takes no room.
        let sparse = fs::File::create(upper.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(measured(&upper, ANY).used.bytes - used.bytes < 65_536);
    }

    #[test]
    fn a_walk_ends_when_it_is_enough() {
        let upper = tempfile::tempdir().unwrap();
        for number in 0..50 {
            fs::write(upper.path().join(number.to_string()), "x").unwrap();
        }
        assert_eq!(measured(upper.path(), Room { files: 10, ..ANY }).used.files, 11);
        let bytes = measured(upper.path(), Room { bytes: 8192, ..ANY }).used;
        assert!(bytes.bytes > 8192 && bytes.files < 50, "{bytes:?}");
    }

    #[test]
    fn folders_without_end_are_a_finding_of_their_own() {
        let upper = tempfile::tempdir().unwrap();
        let mut here = folder(CWD, upper.path()).unwrap();
        for _ in 0..DEEPEST {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = folder(here.as_fd(), "d").unwrap();
        }
        let found = measured(upper.path(), ANY);
        assert_eq!(found.beyond, Some(Beyond::Depth));
    }
}
