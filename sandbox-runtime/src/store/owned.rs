//! Layers with the ids of one range, for where a mount cannot show them so: without root of the machine.
//!
//! ```text
//! owned/<base>-<count>/<diff id hex>       a copy of layers/<hex>, made at its first use in the range
//! owned/<base>-<count>/<diff id hex>.new   half-made: the next sandbox with the range goes on with it, the next launcher removes it
//! ```
//!
//! A range belongs to one sandbox at a time, so there is one who copies. The copy shares the disk's blocks with the layer where
//! the file system can (btrfs, XFS). It is whole or not there: synced, then renamed.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, getxattr, listxattr, mknodat, setxattr, syncfs,
    utimensat,
};

use super::{Store, StoreError};
use crate::fault;
use crate::ids::Range;

/// Most bytes of an extended attribute, from the kernel's `uapi/linux/limits.h`; and of all names.
const LONGEST_ATTRIBUTE: usize = 65_536;

impl Store {
    /// The layer with the ids of the range; it is copied where that was not done before. Only the one who has the range may
    /// ask.
    pub(crate) fn layer_of(&self, ids: Range, layer: &Path) -> Result<PathBuf, StoreError> {
        let name = layer.file_name().unwrap_or_default();
        let folder = self.owned().join(format!("{}-{}", ids.base, ids.count));
        let place = folder.join(name);
        if place.is_dir() {
            return Ok(place);
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(StoreError::io("make directory", &folder))?;
        let mut half_made = place.clone().into_os_string();
        half_made.push(".new");
        let half_made = PathBuf::from(half_made);
        // What a worker that was killed over its time has copied need not be copied again: a layer never changes.
        copy(layer, &half_made, ids)?;
        let folder = File::open(&folder).map_err(StoreError::io("open", &folder))?;
        syncfs(&folder).map_err(|error| StoreError::io("sync", &half_made)(error.into()))?;
        fault::point("owned.unnamed");
        fs::rename(&half_made, &place).map_err(StoreError::io("rename", &half_made))?;
        Ok(place)
    }

    /// Removes copies of layers that are gone, those for ranges that nobody has or will be given, and what was half-made. Nobody may
    /// be copying.
    pub(crate) fn remove_unused_copies(&self, may_be_given: impl Fn(Range) -> bool) -> Result<(), StoreError> {
        let mut unused = Vec::new();
        for folder in entries(&self.owned())? {
            if !range_of(&folder).is_some_and(&may_be_given) {
                unused.push(folder);
                continue;
            }
            let is_of_no_layer =
                |copy: &PathBuf| !copy.file_name().is_some_and(|name| self.root.join("layers").join(name).is_dir());
            unused.extend(entries(&folder)?.into_iter().filter(is_of_no_layer));
        }
        // One that cannot be removed does not keep the others.
        unused.iter().map(|tree| remove(tree)).fold(Ok(()), Result::and)
    }

    fn owned(&self) -> PathBuf {
        self.root.join("owned")
    }
}

/// The range in the name of a folder of copies.
fn range_of(folder: &Path) -> Option<Range> {
    let (base, count) = folder.file_name()?.to_str()?.split_once('-')?;
    Some(Range { base: base.parse().ok()?, count: count.parse().ok()? })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(StoreError::io("list", folder))?,
    };
    listed.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io("list", folder))).collect()
}

/// Under another name first: what is half-removed is never taken for whole.
fn remove(tree: &Path) -> Result<(), StoreError> {
    let going = tree.with_extension("new");
    if going != tree {
        fs::rename(tree, &going).map_err(StoreError::io("rename", tree))?;
    }
    crate::removal::remove(&going).map_err(|error| StoreError::io("remove", tree)(error.into()))
}

/// Copies a tree that nobody changes. Links are copied, never followed.
fn copy(from: &Path, to: &Path, ids: Range) -> Result<(), StoreError> {
    // Where the first name of a file with several went.
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    // A folder's time is set when nothing is added to it any more: those that were found last come first.
    let mut folders = vec![from.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        match fs::create_dir(placed(&folder, from, to)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("make directory", &folder)(error));
            }
            _ => {}
        }
        for entry in entries(&folder)? {
            let found = fs::symlink_metadata(&entry).map_err(StoreError::io("inspect", &entry))?;
            if found.is_dir() {
                folders.push(entry);
                continue;
            }
            let place = placed(&entry, from, to);
            let is_there = begun_with(&place, &found, ids).map_err(StoreError::io("copy", &entry))?;
            if found.nlink() > 1
                && let Some(first) = links.get(&(found.dev(), found.ino()))
            {
                if !is_there {
                    fs::hard_link(first, &place).map_err(StoreError::io("link", &place))?;
                }
                continue;
            }
            if !is_there {
                copy_one(&entry, &found, &place).map_err(StoreError::io("copy", &entry))?;
                give(&entry, &found, &place, ids)?;
            }
            if found.nlink() > 1 {
                links.insert((found.dev(), found.ino()), place);
            }
        }
    }
    for folder in folders.iter().rev() {
        let found = fs::symlink_metadata(folder).map_err(StoreError::io("inspect", folder))?;
        give(folder, &found, &placed(folder, from, to), ids)?;
    }
    Ok(())
}

/// Whether the file was copied before, whole: its time is set last. What is there of one that was not is removed.
fn begun_with(place: &Path, found: &Metadata, ids: Range) -> io::Result<bool> {
    let there = match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    let is_whole = (there.mode(), there.len(), there.mtime(), there.mtime_nsec())
        == (found.mode(), found.len(), found.mtime(), found.mtime_nsec())
        && Some(there.uid()) == ids.outside(found.uid());
    if !is_whole {
        fs::remove_file(place)?;
    }
    Ok(is_whole)
}

fn placed(path: &Path, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(below) if below.as_os_str().is_empty() => to.to_owned(),
        Ok(below) => to.join(below),
        Err(_) => path.to_owned(),
    }
}

fn copy_one(entry: &Path, found: &Metadata, place: &Path) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(entry)?, place);
    }
    if kind.is_fifo() {
        return Ok(mknodat(CWD, place, FileType::Fifo, Mode::RUSR, 0)?);
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a layer holds files, folders, links and pipes only"));
    }
    let mut source = File::open(entry)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut source, &mut target)?;
    }
    Ok(())
}

/// Owner, mode, attributes and time as in the layer, with the ids of the range.
fn give(entry: &Path, found: &Metadata, place: &Path, ids: Range) -> Result<(), StoreError> {
    let (Some(uid), Some(gid)) = (ids.outside(found.uid()), ids.outside(found.gid())) else {
        let (uid, gid, count) = (found.uid(), found.gid(), ids.count);
        return Err(StoreError::NoSuchId { path: entry.to_owned(), uid, gid, count });
    };
    let set = || {
        lchown(place, Some(uid), Some(gid))?;
        if !found.is_symlink() {
            // After the owner, whose change clears set-user-id.
            rustix::fs::chmod(place, Mode::from_raw_mode(found.mode() & 0o7777))?;
            copy_attributes(entry, place)?;
        }
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps {
            last_access: time(found.atime(), found.atime_nsec()),
            last_modification: time(found.mtime(), found.mtime_nsec()),
        };
        utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    };
    set().map_err(StoreError::io("copy", entry))
}

fn copy_attributes(entry: &Path, place: &Path) -> io::Result<()> {
    let mut names = vec![0; LONGEST_ATTRIBUTE];
    let length = listxattr(entry, names.as_mut_slice())?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; LONGEST_ATTRIBUTE];
        let length = getxattr(entry, name, value.as_mut_slice())?;
        setxattr(place, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const IDS: Range = Range { base: 0x7000_0000, count: 4096 };

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::create(root.path()).unwrap();
        let layer = root.path().join("layers/abc");
        fs::create_dir_all(layer.join("etc/deep")).unwrap();
        (root, store, layer)
    }

    #[test]
    fn a_copy_is_the_layer_with_other_owners() {
        let (_root, store, layer) = store();
        fs::write(layer.join("etc/file"), "content").unwrap();
        fs::hard_link(layer.join("etc/file"), layer.join("etc/deep/same")).unwrap();
        symlink("/etc/passwd", layer.join("etc/link")).unwrap();
        mknodat(CWD, layer.join("etc/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        lchown(layer.join("etc/file"), Some(7), Some(65_534)).unwrap();
        fs::set_permissions(layer.join("etc/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        setxattr(layer.join("etc/file"), "user.note", b"kept", XattrFlags::empty()).unwrap();
        File::open(layer.join("etc")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();

        let copy = store.layer_of(IDS, &layer).unwrap();
        let (file, same) = (copy.join("etc/file").metadata().unwrap(), copy.join("etc/deep/same").metadata().unwrap());
        assert_eq!((file.uid(), file.gid()), (IDS.base + 7, IDS.base + 4095));
        assert_eq!((file.mode() & 0o7777, file.ino()), (0o4751, same.ino()));
        assert_eq!(fs::read_to_string(copy.join("etc/file")).unwrap(), "content");
        assert_eq!(fs::read_link(copy.join("etc/link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(copy.join("etc/link").symlink_metadata().unwrap().uid(), IDS.base);
        assert!(copy.join("etc/pipe").metadata().unwrap().file_type().is_fifo());
        assert_eq!(copy.join("etc").metadata().unwrap().mtime(), 0);
        let mut value = [0; 16];
        assert_eq!(getxattr(copy.join("etc/file"), "user.note", &mut value).unwrap(), 4);
        // The second time it is there.
        fs::write(layer.join("etc/later"), "").unwrap();
        assert_eq!(store.layer_of(IDS, &layer).unwrap(), copy);
        assert!(!copy.join("etc/later").exists());
    }

    #[test]
    fn an_id_that_a_sandbox_would_not_have_is_refused_and_no_copy_is_taken_for_whole() {
        let (root, store, layer) = store();
        fs::write(layer.join("etc/file"), "").unwrap();
        lchown(layer.join("etc/file"), Some(5000), Some(0)).unwrap();
        let refused = store.layer_of(IDS, &layer).unwrap_err();
        assert!(matches!(refused, StoreError::NoSuchId { uid: 5000, count: 4096, .. }), "{refused:?}");
        assert!(!root.path().join("owned/1879048192-4096/abc").exists());
    }

    #[test]
    fn a_copy_that_was_broken_off_is_gone_on_with() {
        let (root, store, layer) = store();
        for name in ["a", "b", "c"] {
            fs::write(layer.join("etc").join(name), name.repeat(10)).unwrap();
        }
        fs::hard_link(layer.join("etc/a"), layer.join("etc/deep/a")).unwrap();
        let copy = store.layer_of(IDS, &layer).unwrap();
        let half_made = copy.with_extension("new");
        fs::rename(&copy, &half_made).unwrap();
        // One was being written, one was not begun, a third is whole.
        fs::remove_file(half_made.join("etc/c")).unwrap();
        fs::write(half_made.join("etc/b"), "bb").unwrap();
        let kept = half_made.join("etc/a").metadata().unwrap().ino();
        assert_eq!(store.layer_of(IDS, &layer).unwrap(), copy);
        for name in ["a", "b", "c"] {
            assert_eq!(fs::read_to_string(copy.join("etc").join(name)).unwrap(), name.repeat(10));
        }
        let inodes = ["etc/a", "etc/deep/a"].map(|name| copy.join(name).metadata().unwrap().ino());
        assert_eq!(inodes, [kept, kept]);
        assert_eq!(copy.join("etc/b").metadata().unwrap().uid(), IDS.base);
        drop(root);
    }

    #[test]
    fn what_is_half_made_or_of_a_layer_that_is_gone_is_removed() {
        let (root, store, layer) = store();
        let copy = store.layer_of(IDS, &layer).unwrap();
        let folder = copy.parent().unwrap().to_owned();
        for stale in ["gone", "abc.new"] {
            fs::create_dir_all(folder.join(stale).join("x")).unwrap();
        }
        fs::create_dir_all(root.path().join("owned/7-9/abc")).unwrap();
        store.remove_unused_copies(|range| range == IDS).unwrap();
        assert_eq!(entries(&folder).unwrap(), [copy]);
        assert_eq!(entries(&store.owned()).unwrap(), [folder]);
        drop(root);
    }
}
