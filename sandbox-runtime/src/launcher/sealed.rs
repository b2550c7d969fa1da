//! Programs in memory that nobody can change: the guest, and the launcher itself.
//!
//! A process in a sandbox that comes to hold the launcher's or a worker's program open, as in CVE-2019-5736, could write to it
//! and be root at the next start. So the launcher runs from a copy: `/proc/self/exe` of it and of all its workers is a
//! sealed memory file, which goes with the last of them.
#![expect(unsafe_code, reason = "execveat has no safe wrapper")]

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};

use ostler_wire::{Failure, FailureKind};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

use crate::step::{Step, failure};

/// The program of this process.
const OWN: &str = "/proc/self/exe";

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// A sealed copy of the guest, so that what runs as PID 1 cannot be changed by anyone.
pub(crate) fn seal(program: &[u8]) -> Result<OwnedFd, Failure> {
    let memory = unsealed(program)?;
    add_seals(&memory)?;
    Ok(memory)
}

/// A copy of the guest without seals, for tests of what they are for.
pub(super) fn unsealed(program: &[u8]) -> Result<OwnedFd, Failure> {
    if !program.starts_with(b"\x7fELF") {
        return Err(failure(FailureKind::Invalid, "seal guest", "the guest is no ELF program"));
    }
    copy(c"ostler-guest", program)
}

/// Executes this program again, from a sealed copy of it and with the same arguments, unless that is what runs already.
pub(super) fn run_from_memory() -> Result<(), Failure> {
    let own = File::open(OWN).step("open", || OWN.to_owned())?;
    if is_sealed(&own) {
        return Ok(());
    }
    let program = copy(c"ostler-launcher", own)?;
    add_seals(&program)?;
    if !is_sealed(&program) {
        // It would find itself unsealed again and again.
        return Err(failure(FailureKind::System, "seal launcher", "the kernel does not say that the copy is sealed"));
    }
    let [arguments, environment] = [words("/proc/self/cmdline")?, words("/proc/self/environ")?];
    let [arguments_list, environment_list] = [&arguments, &environment]
        .map(|words| words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>());
    // SAFETY: both arrays end with a null pointer and point to strings that live until the call returns, if it does.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments_list.as_ptr(),
            environment_list.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(std::io::Error::last_os_error()).step("execute the launcher from memory", || OWN.to_owned())
}

fn is_sealed(program: &impl std::os::fd::AsFd) -> bool {
    // A file of a disk has no seals to ask for.
    fcntl_get_seals(program).is_ok_and(|seals| seals.contains(SEALS))
}

fn copy(name: &CStr, mut program: impl Read) -> Result<OwnedFd, Failure> {
    let shown = || name.to_string_lossy().into_owned();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create(name, flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag, and make every memory file executable.
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    };
    let mut memory = File::from(memory.step("make memory file", shown)?);
    std::io::copy(&mut program, &mut memory).step("copy program", shown)?;
    Ok(memory.into())
}

fn add_seals(memory: &OwnedFd) -> Result<(), Failure> {
    fcntl_add_seals(memory, SEALS).step("seal program", || "in memory".to_owned())
}

/// The strings of a file in which each ends with a zero byte.
fn words(file: &str) -> Result<Vec<CString>, Failure> {
    let bytes = fs::read(file).step("read", || file.to_owned())?;
    let words = bytes.split_inclusive(|byte| *byte == 0).filter_map(|word| CStr::from_bytes_with_nul(word).ok());
    Ok(words.map(CStr::to_owned).collect())
}
