//! The few system calls that no safe wrapper offers: fork, spawn, signal mask and descriptor, closing ranges.
//!
//! All `unsafe` code of the guest's library is here. It owns nothing and decides nothing; the callers are
//! [`crate::supervisor`], [`crate::worker`] and the start of the program.

#![expect(unsafe_code, reason = "fork, posix_spawn, signalfd and close_range have no safe wrapper")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

/// Which side of a [`fork`] this is.
pub(crate) enum Forked {
    /// The caller, with its new child.
    Parent(Pid),
    /// The new child. It must end with [`exit`] and never return into the caller's loop.
    Child,
}

/// Copies the process. The guest has one thread, so the child may allocate and run any code.
pub(crate) fn fork() -> Result<Forked, Errno> {
    // SAFETY: the guest is single-threaded, so no lock can be held by a thread that the child lacks. (Tests call
    // this in a process that was itself forked from a threaded one; glibc resets its allocator's locks there.)
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        number => Pid::from_raw(number.max(0)).map(Forked::Parent).ok_or_else(last_errno),
    }
}

/// Ends the process at once, without destructors or exit handlers: the only way out of a forked child.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Starts a program that inherits the caller's standard streams, directory and limits, in a process group of its own, with
/// no signal blocked or ignored. The caller's memory is shared until the exec (as with vfork), never copied.
pub(crate) fn spawn(program: &CStr, arguments: &[CString], environment: &[CString]) -> Result<Pid, Errno> {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    let mut attributes = MaybeUninit::<libc::posix_spawnattr_t>::uninit();
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut pid = 0;
    let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
    // SAFETY: each object is initialised by its init call before use and lives until `posix_spawn` has returned; the
    // two vectors end with a null pointer and point to strings that outlive the call.
    let error = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        // Not `sigfillset`, which leaves out the two that glibc uses itself; those would then start out ignored.
        ptr::write_bytes(all.as_mut_ptr(), 0xff, 1);
        let error = libc::posix_spawnattr_init(attributes.as_mut_ptr());
        if error != 0 {
            return Err(Errno::from_raw_os_error(error));
        }
        libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), flags as libc::c_short);
        libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), none.as_ptr());
        libc::posix_spawnattr_setsigdefault(attributes.as_mut_ptr(), all.as_ptr());
        let error = libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            ptr::null(),
            attributes.as_ptr(),
            arguments.as_ptr().cast(),
            environment.as_ptr().cast(),
        );
        libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
        error
    };
    if error != 0 {
        return Err(Errno::from_raw_os_error(error));
    }
    Pid::from_raw(pid.max(0)).ok_or(Errno::SRCH)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Blocks every signal and returns a descriptor that becomes readable when a child ends.
///
/// Blocked signals reach neither PID 1 nor its supervisors; [`spawn`] unblocks them for the commands.
pub(crate) fn child_events() -> Result<OwnedFd, Errno> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut child = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are initialised by sigfillset and sigemptyset before use; the new descriptor has no other owner.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigemptyset(child.as_mut_ptr());
        libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) != 0 {
            return Err(last_errno());
        }
        let descriptor = libc::signalfd(-1, child.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(last_errno());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Closes every descriptor from 3 up but `keep`. Only for a forked child that ends with [`exit`]: values that own one of
/// the closed descriptors must never be dropped afterwards.
pub(crate) fn close_all_but(keep: BorrowedFd<'_>) -> Result<(), Errno> {
    let keep = keep.as_raw_fd().unsigned_abs();
    if keep > 3 {
        close_range(3, keep - 1)?;
    }
    close_range(keep.max(2) + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: closes descriptors of a process that never touches them again, see the callers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Takes the control socket from its fixed number and closes every descriptor above it.
///
/// Called once, by `main`, before anything else owns a descriptor.
pub fn take_control() -> Result<OwnedFd, Errno> {
    let number = ostler_wire::guest::CONTROL_FD;
    close_range(number.unsigned_abs() + 1, u32::MAX)?;
    // SAFETY: the launcher leaves the socket on this number and nothing else in this program owns it yet; that it is open
    // is checked before it is used.
    let control = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(control),
        Err(error) => {
            // It is not open: there is nothing to close.
            std::mem::forget(control);
            Err(error)
        }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
