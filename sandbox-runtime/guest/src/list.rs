//! Listing a directory of the workspace: the first names in order, as many as were asked for and as fit one message.
//!
//! Memory is bounded however many names the directory holds.

use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;

use ostler_wire::guest::{Entry, EntryKind, MAX_ENTRIES, Reply};
use ostler_wire::{Failure, MAX_MESSAGE};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};

use crate::failure::failed;
use crate::files::{Workspace, unopened};

/// Encoded bytes of an entry beside its name: length, kind, size.
const ENTRY_OVERHEAD: usize = 3 + 1 + 10;

/// What a message holds beside the entries, rounded up.
const MESSAGE_OVERHEAD: usize = 64;

/// Lists a directory.
pub(crate) fn list(workspace: &Workspace, path: &str, max: u32) -> Result<Reply, Failure> {
    let directory = workspace
        .tree()?
        .open(workspace.relative(path)?, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| unopened(errno, path))?;
    let (names, mut truncated) = first_names(&directory, max.min(MAX_ENTRIES) as usize)
        .map_err(|errno| failed("read directory", errno, format!("`{path}`")))?;
    let mut room = MAX_MESSAGE - MESSAGE_OVERHEAD;
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        let entry = entry(&directory, name);
        let needed = entry.name.len() + ENTRY_OVERHEAD;
        if needed > room {
            truncated = true;
            break;
        }
        room -= needed;
        entries.push(entry);
    }
    Ok(Reply::Listing { entries, truncated })
}

/// The `max` smallest names in order, and whether there are more.
fn first_names(directory: &OwnedFd, max: usize) -> rustix::io::Result<(Vec<Vec<u8>>, bool)> {
    let mut smallest = BinaryHeap::new();
    let mut truncated = false;
    for found in Dir::read_from(directory)? {
        let name = found?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        smallest.push(name);
        if smallest.len() > max {
            truncated = true;
            smallest.pop();
        }
    }
    Ok((smallest.into_sorted_vec(), truncated))
}

/// A name that vanished meanwhile, or that may not be looked at, is listed as something else.
fn entry(directory: &OwnedFd, name: Vec<u8>) -> Entry {
    let found = statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).ok();
    let kind = match found.map(|found| FileType::from_raw_mode(found.st_mode)) {
        Some(FileType::RegularFile) => EntryKind::File,
        Some(FileType::Directory) => EntryKind::Directory,
        Some(FileType::Symlink) => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    let size =
        found.filter(|_| kind == EntryKind::File).and_then(|found| u64::try_from(found.st_size).ok()).unwrap_or(0);
    Entry { name: String::from_utf8_lossy(&name).into_owned(), kind, size }
}
