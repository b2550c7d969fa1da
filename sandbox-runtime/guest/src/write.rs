//! Replacing a file of the workspace in one step: a temporary file beside it, synced, then renamed over it.
//!
//! A reader sees the old content or the new one, never a part. A symbolic link at the path is written through where it
//! resolves beneath the workspace. A hard link to the old content keeps the old content.

use std::os::fd::OwnedFd;

use ostler_wire::guest::{MAX_FILE, Reply};
use ostler_wire::{Failure, FailureKind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, mkdirat, openat, readlinkat,
    renameat, sendfile, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::getpid;

use crate::failure::{failed, refused};
use crate::files::{Tree, Workspace, not_regular, outside, unopened};

/// Symbolic links followed before a path counts as a circle.
const MAX_LINKS: u32 = 16;

/// Content that was checked, with the permission bits for a new file.
pub(crate) struct Content {
    file: OwnedFd,
    size: u64,
    mode: u32,
}

/// Where the rename will happen: a directory, a name in it, and what is there now.
struct Target {
    directory: OwnedFd,
    name: String,
    existing: Option<Stat>,
}

impl Content {
    /// Checks what the host sent.
    pub(crate) fn new(file: Option<OwnedFd>, mode: u32) -> Result<Self, Failure> {
        let invalid = |detail: String| refused(FailureKind::Invalid, "write", detail);
        let file = file.ok_or_else(|| invalid("the request brings no content".into()))?;
        let found = fstat(&file).map_err(|errno| failed("stat", errno, "the content of a write"))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(invalid("the content is not a regular file".into()));
        }
        if mode & !0o777 != 0 {
            return Err(invalid(format!("mode {mode:o} holds more than permission bits")));
        }
        let size = u64::try_from(found.st_size).unwrap_or(u64::MAX);
        if size > MAX_FILE {
            return Err(refused(FailureKind::Limit, "write", format!("content of {size} bytes is over {MAX_FILE}")));
        }
        Ok(Self { file, size, mode })
    }
}

/// Writes the file. Parent directories are made; when the write itself fails the path keeps what it had.
pub(crate) fn write(workspace: &Workspace, path: &str, content: &Content) -> Result<Reply, Failure> {
    let tree = workspace.tree()?;
    let target = find(&tree, workspace.relative(path)?, path)?;
    if let Some(existing) = &target.existing
        && FileType::from_raw_mode(existing.st_mode) != FileType::RegularFile
    {
        return Err(not_regular(path));
    }
    let temporary = format!(".ostler-{}.tmp", getpid().as_raw_pid());
    let written = fill(&target, &temporary, content).and_then(|()| {
        renameat(&target.directory, &temporary, &target.directory, &target.name).map_err(|errno| ("rename", errno))
    });
    written.map(|()| Reply::Done).map_err(|(op, errno)| {
        // It may not have been made; a failure here leaves a file whose name says what it is.
        let _ = unlinkat(&target.directory, &temporary, AtFlags::empty());
        failed(op, errno, format!("writing `{path}`"))
    })
}

fn fill(target: &Target, temporary: &str, content: &Content) -> Result<(), (&'static str, Errno)> {
    // One that an earlier worker of the same number left behind when it was killed.
    let _ = unlinkat(&target.directory, temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        openat(&target.directory, temporary, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| ("create", errno))?;
    let mut offset = 0;
    while offset < content.size {
        let left = usize::try_from(content.size - offset).unwrap_or(usize::MAX);
        match sendfile(&file, &content.file, Some(&mut offset), left) {
            Ok(0) => return Err(("copy", Errno::IO)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(("copy", errno)),
        }
    }
    let mode = target.existing.map_or(content.mode, |existing| existing.st_mode & 0o7777);
    if let Some(existing) = target.existing {
        keep_owner(&file, existing).map_err(|errno| ("chown", errno))?;
    }
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(|errno| ("chmod", errno))?;
    fsync(&file).map_err(|errno| ("sync", errno))
}

fn keep_owner(file: &OwnedFd, existing: Stat) -> Result<(), Errno> {
    let new = fstat(file)?;
    if (new.st_uid, new.st_gid) == (existing.st_uid, existing.st_gid) {
        return Ok(());
    }
    fchown(file, Some(Uid::from_raw(existing.st_uid)), Some(Gid::from_raw(existing.st_gid)))
}

/// Follows symbolic links at the end of the path, one by one, to the directory in which the file really lies.
fn find(tree: &Tree, relative: &str, path: &str) -> Result<Target, Failure> {
    let mut current = relative.to_owned();
    for _ in 0..MAX_LINKS {
        let trimmed = current.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
        if matches!(name, "" | "." | "..") || trimmed.len() < current.len() {
            return Err(not_regular(path));
        }
        let directory = make_directories(tree, parent, path)?;
        let existing = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Some(found),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed("stat", errno, format!("`{path}`"))),
        };
        if existing.is_none_or(|found| FileType::from_raw_mode(found.st_mode) != FileType::Symlink) {
            return Ok(Target { directory, name: name.to_owned(), existing });
        }
        let link =
            readlinkat(&directory, name, Vec::new()).map_err(|errno| failed("readlink", errno, format!("`{path}`")))?;
        let link = link.into_string().map_err(|_| {
            refused(FailureKind::Invalid, "readlink", format!("`{path}` is a link to a name that is not UTF-8"))
        })?;
        if link.starts_with('/') {
            return Err(outside(path));
        }
        current = format!("{parent}/{link}");
    }
    Err(failed("resolve", Errno::LOOP, format!("`{path}`")))
}

/// Opens a directory, making what is missing of it one by one.
fn make_directories(tree: &Tree, relative: &str, path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let unopened = |errno| unopened(errno, path);
    let relative = if relative.is_empty() { "." } else { relative };
    match tree.open(relative, flags) {
        Err(Errno::NOENT) => {}
        opened => return opened.map_err(unopened),
    }
    let mut directory = tree.open(".", flags).map_err(unopened)?;
    let mut prefix = String::new();
    for component in relative.split('/').filter(|component| !component.is_empty()) {
        prefix = if prefix.is_empty() { component.to_owned() } else { format!("{prefix}/{component}") };
        directory = match tree.open(&prefix, flags) {
            Err(Errno::NOENT) => {
                match mkdirat(&directory, component, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed("mkdir", errno, format!("`{prefix}` for `{path}`"))),
                }
                tree.open(&prefix, flags)
            }
            opened => opened,
        }
        .map_err(unopened)?;
    }
    Ok(directory)
}
