//! Unpacking one layer archive into an empty directory, trusting nothing in it.
//!
//! Every path is resolved beneath the directory by the kernel (`openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`), so that a symbolic link in the archive is never followed. This module owns what an
//! entry may be; it does not know what the tree is for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::StoreError;

/// One more than the largest uid or gid that a sandbox can hold.
const IDS: u64 = 65_536;

/// Longest header that stands for a long name or for attributes: the reader of archives takes it into memory whole. Names
/// have at most 4 KiB and attributes of a file 64 KiB each.
const LONGEST_HEADER: u64 = 1 << 20;

/// Why an entry may not be part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefusal {
    /// The name begins at the root.
    #[error("its path is absolute")]
    Absolute,
    /// The name or the target of a hard link holds `..`.
    #[error("its path holds '..'")]
    Parent,
    /// The name has no last part.
    #[error("its path is empty")]
    Empty,
    /// A directory on the way is a symbolic link or no directory.
    #[error("a parent of it is a symbolic link or not a directory")]
    ThroughLink,
    /// It has an attribute that overlayfs would obey.
    #[error("it carries an attribute of overlayfs")]
    Overlay,
    /// It is a whiteout, which a first layer cannot have.
    #[error("its name begins with '.wh.', which means a deleted file")]
    Whiteout,
    /// It belongs to someone outside the range of a sandbox.
    #[error("its owner or group is over 65535")]
    Owner,
    /// It would replace a directory.
    #[error("a directory of that name came before")]
    OverDirectory,
    /// It is a hard link without a target, or one to something that is not there.
    #[error("the target of the hard link is not in the archive before it")]
    NoTarget,
    /// A name or its attributes, which are read into memory whole, are too long.
    #[error("a header of it is longer than 1 MiB")]
    LongHeader,
    /// A kind of entry that is not known.
    #[error("it is of an unknown type")]
    UnknownType,
}

/// What was left out of a layer on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Device nodes.
    pub devices: u64,
    /// Extended attributes other than `user.*`, such as file capabilities.
    pub attributes: u64,
}

/// Refuses an archive with a header that is too long to be read. To be called before [`unpack`], on a reader of its own.
pub(super) fn check_headers(mut archive: impl Read, name: &Path) -> Result<(), StoreError> {
    let not_a_tar = |source| StoreError::NotATar { path: name.to_owned(), source };
    let mut reader = Archive::new(&mut archive);
    for entry in reader.entries().map_err(not_a_tar)?.raw(true) {
        let entry = entry.map_err(not_a_tar)?;
        let kind = entry.header().entry_type();
        let is_read_whole = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if is_read_whole && entry.header().entry_size().map_err(not_a_tar)? > LONGEST_HEADER {
            let entry = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(StoreError::Entry { entry, source: EntryRefusal::LongHeader });
        }
    }
    Ok(())
}

/// Unpacks `archive` (called `name` in errors) into the empty directory `tree`.
pub(super) fn unpack(mut archive: impl Read, name: &Path, tree: &Path) -> Result<Skipped, StoreError> {
    let not_a_tar = |source| StoreError::NotATar { path: name.to_owned(), source };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(tree, flags, Mode::empty()).map_err(|error| StoreError::io("open", tree)(error.into()))?;
    fchmod(&root, Mode::from_raw_mode(0o755)).map_err(|error| StoreError::io("set mode of", tree)(error.into()))?;
    let mut unpacking = Unpacking { root, tree, directories: BTreeMap::new(), skipped: Skipped::default() };
    let mut reader = Archive::new(&mut archive);
    let mut entries = 0u64;
    for entry in reader.entries().map_err(not_a_tar)? {
        unpacking.add(entry.map_err(not_a_tar)?, name)?;
        entries += 1;
    }
    if entries == 0 {
        return Err(not_a_tar(io::Error::new(io::ErrorKind::UnexpectedEof, "it holds no entry")));
    }
    unpacking.finish_directories()?;
    Ok(unpacking.skipped)
}

struct Unpacking<'a> {
    root: OwnedFd,
    tree: &'a Path,
    /// Owner, mode and time of directories, set when nothing is added to them any more.
    directories: BTreeMap<PathBuf, Attributes>,
    skipped: Skipped,
}

struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
    extended: Vec<(String, Vec<u8>)>,
}

impl Unpacking<'_> {
    fn add(&mut self, mut entry: Entry<'_, impl Read>, archive: &Path) -> Result<(), StoreError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let refuse = |source| StoreError::Entry { entry: String::from_utf8_lossy(&raw).into_owned(), source };
        let path = normal(&raw).map_err(refuse)?;
        let attributes = self.attributes(&mut entry, archive, &refuse)?;
        if kind.is_character_special() || kind.is_block_special() {
            self.skipped.devices += 1;
            return Ok(());
        }
        if kind.is_dir() {
            return self.add_directory(path, attributes, &refuse);
        }
        let last = path.file_name().ok_or(EntryRefusal::Empty).map_err(refuse)?;
        let parent = self.parent(&path, &refuse)?;
        let failed = |error: Errno| StoreError::io("unpack", self.tree.join(&path))(error.into());
        match unlinkat(&parent, last, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Err(refuse(EntryRefusal::OverDirectory)),
            Err(error) => return Err(failed(error)),
        }
        let link = entry.link_name_bytes().map(|bytes| bytes.into_owned());
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let path = self.tree.join(&path);
                self.write_file(&mut entry, &parent, last, &attributes, &path)
            }
            EntryType::Link => {
                let target = normal(&link.unwrap_or_default()).map_err(refuse)?;
                self.hard_link(&target, &parent, last, &refuse)
            }
            EntryType::Symlink => {
                let target = link.filter(|target| !target.is_empty()).ok_or(EntryRefusal::NoTarget).map_err(refuse)?;
                symlinkat(OsStr::from_bytes(&target), &parent, last).map_err(failed)?;
                set_owner_and_time(&parent, last, &attributes).map_err(failed)
            }
            EntryType::Fifo => {
                mknodat(&parent, last, FileType::Fifo, attributes.mode, 0).map_err(failed)?;
                set_owner_and_time(&parent, last, &attributes).map_err(failed)
            }
            _ => Err(refuse(EntryRefusal::UnknownType)),
        }
    }

    fn attributes(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        archive: &Path,
        refuse: &impl Fn(EntryRefusal) -> StoreError,
    ) -> Result<Attributes, StoreError> {
        let not_a_tar = |source| StoreError::NotATar { path: archive.to_owned(), source };
        let mut extended = Vec::new();
        if let Some(extensions) = entry.pax_extensions().map_err(not_a_tar)? {
            for extension in extensions {
                let extension = extension.map_err(not_a_tar)?;
                let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else {
                    continue;
                };
                if name.starts_with("user.overlay.") || name.starts_with("trusted.overlay.") {
                    return Err(refuse(EntryRefusal::Overlay));
                }
                if name.starts_with("user.") {
                    extended.push((name.to_owned(), extension.value_bytes().to_vec()));
                } else {
                    self.skipped.attributes += 1;
                }
            }
        }
        let header = entry.header();
        let (uid, gid) = (header.uid().map_err(not_a_tar)?, header.gid().map_err(not_a_tar)?);
        if uid >= IDS || gid >= IDS {
            return Err(refuse(EntryRefusal::Owner));
        }
        let modified = Timespec { tv_sec: header.mtime().map_err(not_a_tar)? as i64, tv_nsec: 0 };
        Ok(Attributes {
            uid: Uid::from_raw(uid as u32),
            gid: Gid::from_raw(gid as u32),
            mode: Mode::from_raw_mode(header.mode().map_err(not_a_tar)? & 0o7777),
            times: Timestamps { last_access: modified, last_modification: modified },
            extended,
        })
    }

    fn add_directory(
        &mut self,
        path: PathBuf,
        attributes: Attributes,
        refuse: &impl Fn(EntryRefusal) -> StoreError,
    ) -> Result<(), StoreError> {
        if path.file_name().is_some() {
            self.open_directory(&path, refuse)?;
        }
        self.directories.insert(path, attributes);
        Ok(())
    }

    fn parent(&self, path: &Path, refuse: &impl Fn(EntryRefusal) -> StoreError) -> Result<OwnedFd, StoreError> {
        self.open_directory(path.parent().unwrap_or(Path::new("")), refuse)
    }

    /// Opens a directory of the tree, making what is missing of it.
    fn open_directory(&self, path: &Path, refuse: &impl Fn(EntryRefusal) -> StoreError) -> Result<OwnedFd, StoreError> {
        match self.beneath(path) {
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(refuse(EntryRefusal::ThroughLink)),
            opened => return opened.map_err(|error| StoreError::io("open", self.tree.join(path))(error.into())),
        }
        let parent = self.parent(path, refuse)?;
        let last = path.file_name().ok_or(EntryRefusal::Empty).map_err(refuse)?;
        mkdirat(&parent, last, Mode::from_raw_mode(0o755))
            .map_err(|error| StoreError::io("make directory", self.tree.join(path))(error.into()))?;
        self.beneath(path).map_err(|error| StoreError::io("open", self.tree.join(path))(error.into()))
    }

    fn beneath(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn write_file(
        &self,
        content: &mut impl Read,
        parent: &OwnedFd,
        last: &OsStr,
        attributes: &Attributes,
        path: &Path,
    ) -> Result<(), StoreError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |error: Errno| StoreError::io("unpack", path)(error.into());
        let file = openat(parent, last, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let mut file = std::fs::File::from(file);
        io::copy(content, &mut file).map_err(StoreError::io("unpack", path))?;
        set_attributes(file.as_fd(), attributes).map_err(failed)
    }

    fn hard_link(
        &self,
        target: &Path,
        parent: &OwnedFd,
        last: &OsStr,
        refuse: &impl Fn(EntryRefusal) -> StoreError,
    ) -> Result<(), StoreError> {
        let name = target.file_name().ok_or(EntryRefusal::NoTarget).map_err(refuse)?;
        let directory = self.beneath(target.parent().unwrap_or(Path::new("")));
        let directory = directory.map_err(|_| refuse(EntryRefusal::NoTarget))?;
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| refuse(EntryRefusal::NoTarget))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(refuse(EntryRefusal::NoTarget));
        }
        linkat(&directory, name, parent, last, AtFlags::empty())
            .map_err(|error| StoreError::io("link", self.tree.join(target))(error.into()))
    }

    /// Deepest first, so that setting a directory's time is the last change in it.
    fn finish_directories(&self) -> Result<(), StoreError> {
        for (path, attributes) in self.directories.iter().rev() {
            self.beneath(path)
                .and_then(|directory| set_attributes(directory.as_fd(), attributes))
                .map_err(|error| StoreError::io("set owner of", self.tree.join(path))(error.into()))?;
        }
        Ok(())
    }
}

fn set_attributes(file: std::os::fd::BorrowedFd<'_>, attributes: &Attributes) -> Result<(), Errno> {
    // The mode comes after the owner: changing the owner clears set-user-id.
    fchown(file, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(file, attributes.mode)?;
    for (name, value) in &attributes.extended {
        fsetxattr(file, name, value, XattrFlags::empty())?;
    }
    futimens(file, &attributes.times)
}

fn set_owner_and_time(parent: &OwnedFd, last: &OsStr, attributes: &Attributes) -> Result<(), Errno> {
    chownat(parent, last, Some(attributes.uid), Some(attributes.gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(parent, last, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)
}

/// A path of plain names only: `.` is dropped, everything that could lead out is refused.
fn normal(raw: &[u8]) -> Result<PathBuf, EntryRefusal> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) if name.as_bytes().starts_with(b".wh.") => return Err(EntryRefusal::Whiteout),
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(EntryRefusal::Parent),
            Component::RootDir | Component::Prefix(_) => return Err(EntryRefusal::Absolute),
        }
    }
    Ok(path)
}
