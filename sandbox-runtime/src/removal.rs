//! Removing trees that somebody hostile wrote: no symbolic link is followed, and however deep folders lie in each other,
//! neither descriptors nor stack run out over it.
//!
//! It owns the way of removing. When, and in which process, is for its callers to say.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Folders in each other that are held open while a tree is removed; what lies deeper is moved up first.
const HELD: usize = 64;

/// Removes a tree of any depth, or a file. The top folder is one that nobody else can change.
pub(crate) fn remove(tree: &Path) -> Result<(), Errno> {
    if !fs::symlink_metadata(tree).is_ok_and(|found| found.is_dir()) {
        return unlinkat(CWD, tree, AtFlags::empty());
    }
    let mut moved = 0;
    loop {
        empty(folder(CWD, tree)?, &mut moved)?;
        match unlinkat(CWD, tree, AtFlags::REMOVEDIR) {
            // What was moved up meanwhile is next.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done,
        }
    }
}

/// Removes what is in a folder, but for what is too deep, which is in the folder itself then.
fn empty(top: OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    let mut levels = vec![(Dir::read_from(&top)?, None::<CString>)];
    loop {
        let depth = levels.len();
        let Some((level, _)) = levels.last_mut() else { return Ok(()) };
        let Some(entry) = level.read().transpose()? else {
            let Some((_, Some(name))) = levels.pop() else { return Ok(()) };
            let Some((above, _)) = levels.last() else { return Ok(()) };
            let again = enter_or_remove(above.fd()?, &name)?;
            levels.extend(again.map(|again| (again, Some(name))));
            continue;
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let within = level.fd()?;
        match unlinkat(within, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            done => {
                done?;
                continue;
            }
        }
        if depth < HELD {
            let below = enter_or_remove(within, name)?;
            levels.extend(below.map(|below| (below, Some(name.to_owned()))));
        } else if unlinkat(within, name, AtFlags::REMOVEDIR).is_err() {
            *moved += 1;
            renameat(within, name, &top, format!("moved.{moved}"))?;
        }
    }
}

/// Removes a folder that is empty, and opens one that is not.
fn enter_or_remove(within: BorrowedFd<'_>, name: &CStr) -> Result<Option<Dir>, Errno> {
    match unlinkat(within, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Dir::new(folder(within, name)?).map(Some),
        done => done.map(|()| None),
    }
}

fn folder(within: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(within, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_of_any_depth_is_removed_and_what_its_links_lead_to_is_not() {
        // In memory: a disk that is told of every removed block takes its time.
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let (tree, outside) = (place.path().join("tree"), place.path().join("outside"));
        fs::create_dir_all(tree.join("upper/a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "mine").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("upper/link")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), tree.join("upper/a/b/link")).unwrap();
        for wide in 0..3 {
            let mut here = folder(CWD, tree.join("upper")).unwrap();
            // More than a process has descriptors, and than a stack has room for.
            for level in 0..20_000 {
                let name = if level == 0 { format!("d{wide}") } else { "d".to_owned() };
                mkdirat(&here, &name, Mode::RWXU).unwrap();
                here = folder(here.as_fd(), &name).unwrap();
                if level % 50 == 0 {
                    openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
                    mkdirat(&here, "beside", Mode::empty()).unwrap();
                }
            }
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
        assert_eq!(remove(&tree), Err(Errno::NOENT));
        fs::write(&tree, "a file").unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
