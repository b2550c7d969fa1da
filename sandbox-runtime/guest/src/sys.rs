//! The few system calls that no safe wrapper offers: fork, spawn, signal mask and descriptor, closing ranges, terminals.
//!
//! All `unsafe` code of the guest's library is here. It owns nothing and decides nothing; the callers are
//! [`crate::supervisor`], [`crate::worker`] and the start of the program.

#![expect(unsafe_code, reason = "fork, posix_spawn, signalfd, close_range and terminals have no safe wrapper here")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use ostler_wire::guest::Window;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

/// What a spawned program gets as its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// The caller's.
    Inherit,
    /// The caller's standard output, for reading too.
    Stdout,
    /// The terminal that is the caller's standard output; it becomes the controlling one of a new session.
    Terminal,
}

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

/// Starts a program that inherits the caller's standard streams but for `stdin`, directory and limits, in a process group
/// of its own, with no signal blocked or ignored. The caller's memory is shared until the exec (as with vfork), never
/// copied.
pub(crate) fn spawn(
    program: &CStr,
    arguments: &[CString],
    environment: &[CString],
    stdin: Stdin,
) -> Result<Pid, Errno> {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    let mut attributes = MaybeUninit::<libc::posix_spawnattr_t>::uninit();
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut actions = MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
    let mut pid = 0;
    // A leader of a session leads a process group already, and may not be told to.
    let group = if stdin == Stdin::Terminal { POSIX_SPAWN_SETSID } else { libc::POSIX_SPAWN_SETPGROUP };
    let flags = group | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
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
        let error = prepare_stdin(actions.as_mut_ptr(), stdin);
        if error != 0 {
            libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
            return Err(Errno::from_raw_os_error(error));
        }
        libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), flags as libc::c_short);
        libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), none.as_ptr());
        libc::posix_spawnattr_setsigdefault(attributes.as_mut_ptr(), all.as_ptr());
        let error = libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            actions.as_ptr(),
            attributes.as_ptr(),
            arguments.as_ptr().cast(),
            environment.as_ptr().cast(),
        );
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
        error
    };
    if error != 0 {
        return Err(Errno::from_raw_os_error(error));
    }
    Pid::from_raw(pid.max(0)).ok_or(Errno::SRCH)
}

/// From `spawn.h`; the libc crate has no name for it.
const POSIX_SPAWN_SETSID: libc::c_int = 0x80;

/// Says what a spawned program gets as its standard input. Gives an errno, 0 where there is none; then nothing needs to be
/// destroyed.
///
/// # Safety
/// `actions` must be valid for writes. It is initialised where the result is 0.
unsafe fn prepare_stdin(actions: *mut libc::posix_spawn_file_actions_t, stdin: Stdin) -> libc::c_int {
    // SAFETY: the object is initialised before it is used; the path is a literal.
    unsafe {
        let error = libc::posix_spawn_file_actions_init(actions);
        if error != 0 {
            return error;
        }
        let error = match stdin {
            Stdin::Inherit => 0,
            Stdin::Stdout => libc::posix_spawn_file_actions_adddup2(actions, 1, 0),
            // The first terminal that the leader of a session opens becomes its controlling one. Not by its name in
            // `/dev/pts`, where a command may have put something else.
            Stdin::Terminal => {
                libc::posix_spawn_file_actions_addopen(actions, 0, c"/proc/self/fd/1".as_ptr(), libc::O_RDWR, 0)
            }
        };
        if error != 0 {
            libc::posix_spawn_file_actions_destroy(actions);
        }
        error
    }
}

/// Opens a new terminal: its master, which does not block, and its slave.
///
/// What lies at `/dev/ptmx` may have been put there by a command; whatever is no master of a terminal is refused.
pub(crate) fn open_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int that outlives the call; TIOCGPTPEER takes open flags and gives a new descriptor,
    // which has no other owner. Neither does anything to a descriptor that is no master.
    let slave = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) != 0 {
            return Err(last_errno());
        }
        let slave = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if slave < 0 {
            return Err(last_errno());
        }
        OwnedFd::from_raw_fd(slave)
    };
    Ok((master, slave))
}

/// Sets the size of a terminal; its foreground is sent SIGWINCH by the kernel.
pub(crate) fn set_window(master: &OwnedFd, window: Window) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize that outlives the call.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The process group in the foreground of a terminal; `None` where there is none.
pub(crate) fn foreground(master: &OwnedFd) -> Option<Pid> {
    let mut group: libc::pid_t = 0;
    // SAFETY: TIOCGPGRP writes a pid_t that outlives the call.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) };
    // 1 would be the guest's own group, and 0 is none.
    if result == 0 && group > 1 { Pid::from_raw(group) } else { None }
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
