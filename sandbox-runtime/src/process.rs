//! Forking in a process that has one thread, and giving a child only what it needs.
//!
//! libcontainer clones without exec, so the launcher and its workers must never have a second thread; with
//! that rule kept, a plain `fork` leaves the child with a consistent heap. This module owns the `unsafe` of
//! forking and of moving descriptors. It does not decide which processes exist.
#![expect(unsafe_code, reason = "fork, dup3, close_range and clearenv have no safe wrapper")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use rustix::process::Pid;

/// From the kernel's `uapi/linux/sched.h`; the constant of `libc` overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Exit status of a child that panicked.
const PANICKED: i32 = 101;

/// Runs `child` in a forked process, which ends with the status that it returns and never returns from here.
///
/// The caller must be single-threaded, see [`is_single_threaded`].
pub(crate) fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: the process has one thread, so the child's copy of every lock and of the heap is consistent.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        become_status(child)
    }
    Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(last_errno)
}

/// [`fork`] into a control group of the unified tree, which costs nothing, unlike moving a process there.
pub(crate) fn fork_into(group: Option<BorrowedFd<'_>>, child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    let Some(group) = group else { return fork(child) };
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.as_raw_fd() as u64,
    };
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything and goes on here. The process has one
    // thread, so the copies of its locks are free. What the C library's own fork does besides (handlers, of which there are
    // none, and its note of the thread's number, which only `abort` reads) is not needed.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    if pid == 0 {
        become_status(child)
    }
    i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| pid > 0).ok_or_else(last_errno)
}

/// Runs the child's part and ends the process.
fn become_status(child: impl FnOnce() -> i32) -> ! {
    let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
    // SAFETY: ends the child without running the parent's exit handlers or destructors.
    unsafe { libc::_exit(status) }
}

/// Whether this process has exactly one thread.
pub(crate) fn is_single_threaded() -> std::io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task")?.count() == 1)
}

/// Whether a process has not ended. One that has but was not waited for has.
pub(crate) fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state comes after the name, which may hold anything.
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// The processes whose user `is_theirs` says yes to. One whose first thread has ended looks ended, and need not be.
pub(crate) fn owned_by(is_theirs: impl Fn(u32) -> bool) -> Vec<Pid> {
    let is_owned = |pid: &Pid| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
        uid.is_some_and(&is_theirs)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter(is_owned).collect()
}

/// The children of this process, which has one thread.
pub(crate) fn children() -> Vec<Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Gives a fresh child the signal state that a program expects: nothing blocked, `SIGPIPE` not ignored, and
/// names it. The child dies with its parent.
pub(crate) fn become_child(name: &std::ffi::CStr) -> Result<(), Errno> {
    // SAFETY: the set is initialised by sigemptyset before it is used; no handler is installed.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    rustix::thread::set_name(name)?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
}

/// Moves `descriptors` to 3, 4, … in order, puts `/dev/null` on 0, 1 and 2, and closes every other one.
///
/// The first of them survives an exec, the others do not.
pub(crate) fn keep_only(descriptors: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Errno> {
    const FIRST: RawFd = 3;
    let count = RawFd::try_from(descriptors.len()).map_err(|_| Errno::MFILE)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    let mut sources = vec![null];
    sources.extend(descriptors);
    let mut high = Vec::with_capacity(sources.len());
    for source in &sources {
        // SAFETY: plain descriptor duplication above the range that is written below.
        high.push(check(unsafe { libc::fcntl(source.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST + count) })?);
    }
    // What the caller's owners refer to is closed or replaced below; they must not close it again.
    sources.into_iter().for_each(std::mem::forget);
    // SAFETY: every owner of a descriptor in this process was forgotten or is never dropped, because the child
    // ends by _exit; the new descriptors get exactly one owner each.
    unsafe {
        for standard in 0..FIRST {
            check(libc::dup3(high[0], standard, 0))?;
        }
        let mut kept = Vec::with_capacity(high.len() - 1);
        for (target, source) in (FIRST..).zip(&high[1..]) {
            check(libc::dup3(*source, target, if target == FIRST { 0 } else { libc::O_CLOEXEC }))?;
            kept.push(OwnedFd::from_raw_fd(target));
        }
        let first_unwanted = u32::try_from(FIRST + count).map_err(|_| Errno::MFILE)?;
        close_from(first_unwanted)?;
        Ok(kept)
    }
}

/// Closes every descriptor from `first` on.
///
/// # Safety
/// No owner of such a descriptor may be used or dropped afterwards.
pub(crate) unsafe fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: see above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) as i32 }).map(drop)
}

/// Closes everything above the standard descriptors and empties the environment, in a process that has just
/// been executed and owns nothing yet.
pub(crate) fn forget_inheritance() -> Result<(), Errno> {
    // SAFETY: called first thing in the launcher process, single-threaded, before anything is opened.
    unsafe {
        close_from(3)?;
        libc::clearenv();
    }
    Ok(())
}

/// Lets a Unix socket take no descriptors, where the kernel can (6.16). Who sends one chooses how long it takes to close it
/// (`SO_LINGER`), and the launcher has one thread. Elsewhere nothing changes. Returns whether the kernel can.
pub(crate) fn refuse_descriptors(socket: &OwnedFd) -> bool {
    // From the kernel's `uapi/asm-generic/socket.h`.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value and its size belong together and outlive the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), size) };
    result == 0
}

/// Bytes that were sent over a Unix socket and not read yet, with what the kernel needs to hold them. None are left when the other
/// end is closed.
pub(crate) fn unread(socket: &OwnedFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// The errno of the last failed C library call.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Turns a C result into a Rust one.
pub(crate) fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}
