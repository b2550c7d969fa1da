//! Paths of the workspace: resolved by the kernel beneath one directory, never by string comparison alone.
//!
//! Every path is opened with `openat2` and `RESOLVE_BENEATH` from a descriptor of the workspace, so that neither `..` nor a
//! symbolic link, however it is swapped meanwhile, leads outside. Absolute paths are taken when they name the
//! workspace itself; absolute symbolic links are not followed, wherever they point. This module opens; writing is in
//! [`crate::write`], listing in [`crate::list`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ostler_wire::guest::Reply;
use ostler_wire::{Failure, FailureKind};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use crate::failure::{failed, refused};

/// Longest path of a request, in bytes; the kernel's own limit.
const MAX_PATH: usize = 4095;

/// Tries of an open that the kernel gave up because something was renamed meanwhile.
const TRIES: u32 = 16;

/// Where the workspace lies.
pub(crate) struct Workspace {
    path: PathBuf,
}

/// The workspace, opened.
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Workspace {
    /// The workspace at an absolute path, which need not exist yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Opens the workspace's directory.
    pub(crate) fn tree(&self) -> Result<Tree, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.path, flags, Mode::empty())
            .map_err(|errno| failed("open", errno, format!("workspace `{}`", self.path.display())))?;
        Ok(Tree { root })
    }

    /// The path relative to the workspace, `.` for the workspace itself.
    pub(crate) fn relative<'a>(&self, path: &'a str) -> Result<&'a str, Failure> {
        if path.len() > MAX_PATH || path.contains('\0') {
            return Err(refused(
                FailureKind::Invalid,
                "resolve",
                format!("a path has at most {MAX_PATH} bytes and no zero byte"),
            ));
        }
        let relative = match Path::new(path).strip_prefix(&self.path) {
            Ok(rest) => rest.to_str().unwrap_or("."),
            Err(_) if path.starts_with('/') => return Err(outside(path)),
            Err(_) => path,
        };
        Ok(if relative.is_empty() { "." } else { relative })
    }

    /// Opens a regular file for reading.
    pub(crate) fn open(&self, path: &str) -> Result<(Reply, OwnedFd), Failure> {
        let relative = self.relative(path)?;
        // Not blocking: opening a fifo would otherwise wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.tree()?.open(relative, flags).map_err(|errno| unopened(errno, path))?;
        let found = fstat(&file).map_err(|errno| failed("stat", errno, format!("`{path}`")))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(not_regular(path));
        }
        let size = u64::try_from(found.st_size).unwrap_or(0);
        Ok((Reply::Opened { size, mode: found.st_mode & 0o7777 }, file))
    }
}

impl Tree {
    /// Opens beneath the workspace, close-on-exec.
    pub(crate) fn open(&self, relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            tries += 1;
            match openat2(&self.root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => {}
                opened => return opened,
            }
        }
    }
}

/// The refusal of a path that could not be opened.
pub(crate) fn unopened(errno: Errno, path: &str) -> Failure {
    match errno {
        Errno::XDEV => outside(path),
        // What a socket or a device without a driver says.
        Errno::NXIO | Errno::NODEV => not_regular(path),
        _ => failed("open", errno, format!("`{path}`")),
    }
}

/// The refusal of a path that leads out of the workspace.
pub(crate) fn outside(path: &str) -> Failure {
    refused(FailureKind::Outside, "resolve", format!("`{path}` leads outside the workspace"))
}

/// The refusal of a directory, fifo, socket or device where a regular file is wanted.
pub(crate) fn not_regular(path: &str) -> Failure {
    refused(FailureKind::Invalid, "open", format!("`{path}` is not a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_taken_below_the_workspace_only() {
        let workspace = Workspace::new(Path::new("/workspace"));
        for (path, relative) in [
            ("a/b", "a/b"),
            ("", "."),
            ("/workspace", "."),
            ("/workspace/", "."),
            ("/workspace/a", "a"),
            ("//workspace//a/../b", "a/../b"),
            ("../a", "../a"),
        ] {
            assert_eq!(workspace.relative(path).unwrap(), relative, "{path}");
        }
        for path in ["/", "/etc/passwd", "/workspacex/a", "/workspace2"] {
            assert_eq!(workspace.relative(path).unwrap_err().kind, FailureKind::Outside, "{path}");
        }
        for path in ["a\0b".to_owned(), "a".repeat(5000)] {
            assert_eq!(workspace.relative(&path).unwrap_err().kind, FailureKind::Invalid);
        }
    }
}
