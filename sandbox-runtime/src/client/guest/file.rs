//! Reading a file that a guest opened, and packing content for it: bounded, and never on an async thread.
//!
//! The descriptor comes from a hostile place. What it is, is asked of the kernel and not of the guest; it is read with
//! `pread` and never mapped (a file that shrinks would kill the host).

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, MemfdFlags, SealFlags, fcntl_add_seals, fstat, fstatfs, memfd_create};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::error::GuestError;

/// Reads at a time in this process, so that files which do not answer cannot use up the blocking pool.
static READS: Semaphore = Semaphore::const_new(16);

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Magic numbers of the file systems that a workspace may lie on: overlay, tmpfs, ext2 to ext4, XFS, btrfs, F2FS, ZFS,
/// bcachefs (`linux/magic.h` and the projects' own headers). Others, FUSE and procfs above all, are read from by running
/// code of somebody's choice.
const FILE_SYSTEMS: [u32; 8] =
    [0x794c_7630, 0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e];

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// Its bytes from the start.
    pub bytes: Vec<u8>,
    /// Its size in bytes when it was opened.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// Whether there is more than was asked for.
    pub truncated: bool,
}

/// Reads at most `max` bytes from a descriptor of a guest.
pub(super) async fn read(file: OwnedFd, path: String, max: u64) -> Result<FileContent, GuestError> {
    let permit = READS.acquire().await.map_err(|_| GuestError::Busy { what: "read a file" })?;
    on_blocking_pool(move || {
        // Held until the read has ended, even where nobody waits for it any more.
        let _permit = permit;
        read_now(&file, &path, max)
    })
    .await?
}

fn read_now(file: &OwnedFd, path: &str, max: u64) -> Result<FileContent, GuestError> {
    let failed = |source| GuestError::Read { path: path.to_owned(), source };
    let unreadable = |why| Err(GuestError::Unreadable { path: path.to_owned(), why });
    let found = fstat(file).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return unreadable("it is not a regular file");
    }
    let system = fstatfs(file).map_err(failed)?;
    // Magic numbers have 32 bits, whatever the width and sign of the field.
    if !FILE_SYSTEMS.contains(&(system.f_type as u32)) {
        return unreadable("it lies on a file system that the host does not read from");
    }
    let size = u64::try_from(found.st_size).unwrap_or(0);
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(usize::MAX).min(max).min(CHUNK));
    // One byte more than asked for tells whether there is more.
    let mut chunk = vec![0; CHUNK.min(max.saturating_add(1))];
    while bytes.len() <= max {
        let wanted = chunk.len().min((max - bytes.len()).saturating_add(1));
        match rustix::io::pread(file.as_fd(), &mut chunk[..wanted], bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    let truncated = bytes.len() > max;
    bytes.truncate(max);
    Ok(FileContent { bytes, size, mode: found.st_mode & 0o7777, truncated })
}

/// Puts content into a memfd that nobody can change any more.
pub(super) async fn sealed(content: Vec<u8>) -> Result<OwnedFd, GuestError> {
    let made = on_blocking_pool(move || -> std::io::Result<OwnedFd> {
        let file = memfd_create("content", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&content)?;
        let file = OwnedFd::from(file);
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(file)
    });
    made.await?.map_err(|source| GuestError::Local { step: "put content into a memfd", source })
}

async fn on_blocking_pool<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, GuestError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| GuestError::Local { step: "run on the blocking pool", source: std::io::Error::other(error) })
}
