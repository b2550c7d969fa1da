//! Unpacking one layer archive into an empty directory, trusting nothing in it.
//!
//! It runs in the confined process of [`super::unpacker`]. Every path is resolved beneath the directory by the kernel (`openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`), so that a symbolic link in the archive is never followed. This module owns what an
//! entry may be; it does not know what the tree is for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tar::{Archive, Entry, EntryType};

use super::unpacker::{Done, Problem, UnpackStep};

/// One more than the largest uid or gid that a sandbox can hold.
const IDS: u64 = 65_536;

/// Longest header that stands for a long name or for attributes: the reader of archives takes it into memory whole. Names
/// have at most 4 KiB and attributes of a file 64 KiB each.
const LONGEST_HEADER: u64 = 1 << 20;

/// Why an entry may not be part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Device nodes.
    pub devices: u64,
    /// Extended attributes other than `user.*`, such as file capabilities.
    pub attributes: u64,
}

/// Refuses an archive with a header that is too long to be read. To be called before [`unpack`], on a reader of its own.
pub(super) fn check_headers(mut archive: impl Read) -> Result<(), Problem> {
    let mut reader = Archive::new(&mut archive);
    for entry in reader.entries().map_err(Problem::of_archive)?.raw(true) {
        let entry = entry.map_err(Problem::of_archive)?;
        let kind = entry.header().entry_type();
        let is_read_whole = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if is_read_whole && entry.header().entry_size().map_err(Problem::of_archive)? > LONGEST_HEADER {
            return Err(Problem::of_entry(&entry.path_bytes(), EntryRefusal::LongHeader));
        }
    }
    Ok(())
}

/// Unpacks `archive` into the current directory, which is empty: at most so many bytes of files, and so many names.
pub(super) fn unpack(mut archive: impl Read, bytes: u64, entries: u64) -> Result<Done, Problem> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = openat(CWD, ".", flags, Mode::empty()).map_err(refused(UnpackStep::Open, ""))?;
    fchmod(&root, Mode::from_raw_mode(0o755)).map_err(refused(UnpackStep::SetMode, ""))?;
    let mut unpacking = Unpacking {
        root,
        directories: BTreeMap::new(),
        done: Done::default(),
        bytes_left: bytes,
        entries_left: entries,
    };
    let mut reader = Archive::new(&mut archive);
    for entry in reader.entries().map_err(Problem::of_archive)? {
        unpacking.add(entry.map_err(Problem::of_archive)?)?;
    }
    if unpacking.entries_left == entries {
        return Err(Problem::of_archive(io::Error::new(io::ErrorKind::UnexpectedEof, "it holds no entry")));
    }
    unpacking.finish_directories()?;
    Ok(unpacking.done)
}

struct Unpacking {
    root: OwnedFd,
    /// Owner, mode and time of directories, set when nothing is added to them any more.
    directories: BTreeMap<PathBuf, Attributes>,
    done: Done,
    bytes_left: u64,
    entries_left: u64,
}

struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
}

/// Names and values of extended attributes.
type Extended = Vec<(String, Vec<u8>)>;

impl Unpacking {
    fn add(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), Problem> {
        self.count_name()?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let refuse = |why| Problem::of_entry(&raw, why);
        let path = normal(&raw).map_err(refuse)?;
        let (attributes, extended) = self.attributes(&mut entry, &refuse)?;
        if kind.is_character_special() || kind.is_block_special() {
            self.done.skipped.devices += 1;
            return Ok(());
        }
        if kind.is_dir() {
            return self.add_directory(path, attributes, &extended, &refuse);
        }
        let last = path.file_name().ok_or(EntryRefusal::Empty).map_err(refuse)?;
        let parent = self.parent(&path, &refuse)?;
        let failed = |error: Errno| refused(UnpackStep::Unpack, &path)(error);
        match unlinkat(&parent, last, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Err(refuse(EntryRefusal::OverDirectory)),
            Err(error) => return Err(failed(error)),
        }
        let link = entry.link_name_bytes().map(|bytes| bytes.into_owned());
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&parent, last, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
                let file = self.fill(File::from(file), &mut entry, &path)?;
                set_extended(file.as_fd(), &extended).map_err(failed)?;
                set_attributes(file.as_fd(), &attributes).map_err(failed)
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

    fn count_name(&mut self) -> Result<(), Problem> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or(Problem::TooMany)?;
        Ok(())
    }

    fn attributes(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        refuse: &impl Fn(EntryRefusal) -> Problem,
    ) -> Result<(Attributes, Extended), Problem> {
        let mut extended = Vec::new();
        if let Some(extensions) = entry.pax_extensions().map_err(Problem::of_archive)? {
            for extension in extensions {
                let extension = extension.map_err(Problem::of_archive)?;
                let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else {
                    continue;
                };
                if name.starts_with("user.overlay.") || name.starts_with("trusted.overlay.") {
                    return Err(refuse(EntryRefusal::Overlay));
                }
                if name.starts_with("user.") {
                    extended.push((name.to_owned(), extension.value_bytes().to_vec()));
                } else {
                    self.done.skipped.attributes += 1;
                }
            }
        }
        let header = entry.header();
        let number = |found: io::Result<u64>| found.map_err(Problem::of_archive);
        let (uid, gid) = (number(header.uid())?, number(header.gid())?);
        if uid >= IDS || gid >= IDS {
            return Err(refuse(EntryRefusal::Owner));
        }
        let modified = Timespec { tv_sec: number(header.mtime())? as i64, tv_nsec: 0 };
        let attributes = Attributes {
            uid: Uid::from_raw(uid as u32),
            gid: Gid::from_raw(gid as u32),
            mode: Mode::from_raw_mode(header.mode().map_err(Problem::of_archive)? & 0o7777),
            times: Timestamps { last_access: modified, last_modification: modified },
        };
        Ok((attributes, extended))
    }

    fn add_directory(
        &mut self,
        path: PathBuf,
        attributes: Attributes,
        extended: &Extended,
        refuse: &impl Fn(EntryRefusal) -> Problem,
    ) -> Result<(), Problem> {
        let directory = self.open_directory(&path, refuse)?;
        set_extended(directory.as_fd(), extended).map_err(refused(UnpackStep::Unpack, &path))?;
        self.directories.insert(path, attributes);
        Ok(())
    }

    fn parent(&mut self, path: &Path, refuse: &impl Fn(EntryRefusal) -> Problem) -> Result<OwnedFd, Problem> {
        self.open_directory(path.parent().unwrap_or(Path::new("")), refuse)
    }

    /// Opens a directory of the tree, making what is missing of it.
    fn open_directory(&mut self, path: &Path, refuse: &impl Fn(EntryRefusal) -> Problem) -> Result<OwnedFd, Problem> {
        match self.beneath(path) {
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(refuse(EntryRefusal::ThroughLink)),
            opened => return opened.map_err(refused(UnpackStep::Open, path)),
        }
        let parent = self.parent(path, refuse)?;
        let last = path.file_name().ok_or(EntryRefusal::Empty).map_err(refuse)?;
        self.count_name()?;
        mkdirat(&parent, last, Mode::from_raw_mode(0o755)).map_err(refused(UnpackStep::MakeDirectory, path))?;
        self.beneath(path).map_err(refused(UnpackStep::Open, path))
    }

    fn beneath(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn fill(&mut self, mut file: File, content: &mut impl Read, path: &Path) -> Result<File, Problem> {
        // One more than allowed, so that more than allowed is seen.
        let mut content = content.take(self.bytes_left.saturating_add(1));
        let bytes =
            io::copy(&mut content, &mut file).map_err(|error| Problem::of_system(UnpackStep::Unpack, path, &error))?;
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Problem::TooLarge)?;
        self.done.bytes += bytes;
        Ok(file)
    }

    fn hard_link(
        &self,
        target: &Path,
        parent: &OwnedFd,
        last: &OsStr,
        refuse: &impl Fn(EntryRefusal) -> Problem,
    ) -> Result<(), Problem> {
        let name = target.file_name().ok_or(EntryRefusal::NoTarget).map_err(refuse)?;
        let directory = self.beneath(target.parent().unwrap_or(Path::new("")));
        let directory = directory.map_err(|_| refuse(EntryRefusal::NoTarget))?;
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| refuse(EntryRefusal::NoTarget))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(refuse(EntryRefusal::NoTarget));
        }
        linkat(&directory, name, parent, last, AtFlags::empty()).map_err(refused(UnpackStep::Link, target))
    }

    /// Deepest first, so that setting a directory's time is the last change in it.
    fn finish_directories(&self) -> Result<(), Problem> {
        for (path, attributes) in self.directories.iter().rev() {
            self.beneath(path)
                .and_then(|directory| set_attributes(directory.as_fd(), attributes))
                .map_err(refused(UnpackStep::SetOwner, path))?;
        }
        Ok(())
    }
}

fn refused(step: UnpackStep, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Problem {
    move |error| Problem::of_system(step, path, &error.into())
}

/// To be called while the file is still the caller's own: afterwards it may not be written to.
fn set_extended(file: BorrowedFd<'_>, extended: &Extended) -> Result<(), Errno> {
    extended.iter().try_for_each(|(name, value)| fsetxattr(file, name, value, XattrFlags::empty()))
}

fn set_attributes(file: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), Errno> {
    // The mode comes after the owner: changing the owner clears set-user-id.
    fchown(file, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(file, attributes.mode)?;
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
