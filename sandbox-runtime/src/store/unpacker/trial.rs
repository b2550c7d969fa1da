//! For tests: what the process that reads an archive does once somebody else has it. Nothing in a release build.
//!
//! No archive is known that takes it over, so a test says that one did: at the point where it would read the archive it holds
//! still, to be looked at and killed from outside, or tries what an attacker would and writes what came of it into the image,
//! the one place that it has.
#![expect(unsafe_code, reason = "system calls as an attacker makes them")]

use std::ffi::CStr;
use std::fmt::Write as _;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::report::{Done, Report};
use crate::process::last_errno;

/// Where it writes what came of its attempts.
const RESULTS: &str = "attempts";

/// What to do in place of reading the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trial {
    /// Nothing, until it is killed.
    Hold,
    /// What would reach out of the room.
    Attempt,
    /// Take memory without end.
    Fill,
    /// Say that all is done, twice.
    Babble,
}

impl Trial {
    /// Whether a build of this kind may do it.
    pub(super) fn is_possible(trial: Option<Self>, debug_assertions: bool) -> bool {
        debug_assertions || trial.is_none()
    }
}

/// What is to be said after a trial, where there is one.
pub(super) fn of(trial: Option<Trial>, report: BorrowedFd<'_>) -> Option<Report> {
    match trial.filter(|_| cfg!(debug_assertions))? {
        Trial::Hold => loop {
            let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(report, PollFlags::empty())], None);
        },
        Trial::Attempt => write_results(&attempts()),
        Trial::Fill => {
            let mut taken = Vec::new();
            loop {
                taken.push(vec![1u8; 16 << 20]);
            }
        }
        Trial::Babble => {
            let _ = ostler_wire::socket::send(report, &Report::Done(Done::default()), None);
        }
    }
    Some(Report::Done(Done::default()))
}

fn write_results(text: &str) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let written =
        rustix::fs::openat(CWD, RESULTS, flags, Mode::RUSR).map(|file| rustix::io::write(&file, text.as_bytes()));
    // The test that looks for it says that it is not there.
    let _ = written;
}

/// A line for each attempt: what it was, and with what it was refused.
fn attempts() -> String {
    let mut lines = String::new();
    let mut note = |what: &str, result: libc::c_long| {
        let outcome = if result < 0 { std::io::Error::from(last_errno()).to_string() } else { "done".to_owned() };
        let _ = writeln!(lines, "{what}: {outcome}");
    };
    files(&mut note);
    kernel(&mut note);
    lines
}

fn files(note: &mut impl FnMut(&str, libc::c_long)) {
    let (read, create) = (libc::O_RDONLY, libc::O_CREAT | libc::O_WRONLY);
    for (path, flags) in [
        (c"/etc/passwd", read),
        (c"/proc/self/status", read),
        (c"../etc/passwd", read),
        (c"/dev/null", read),
        (c"/new", create),
    ] {
        // SAFETY: the path is a string that ends with a zero byte.
        let result = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
        note(&format!("open {}", path.to_string_lossy()), result);
    }
    let link: (&CStr, &CStr) = (c".", c"link");
    // SAFETY: strings that end with a zero byte, and numbers.
    unsafe {
        libc::syscall(libc::SYS_symlinkat, link.0.as_ptr(), libc::AT_FDCWD, link.1.as_ptr());
        let through = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, link.1.as_ptr(), read, 0);
        note("open a link", through);
        let device = (libc::S_IFCHR | 0o600, libc::makedev(1, 3));
        let made = libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, c"device".as_ptr(), device.0, device.1);
        note("make a device", made);
        let owned = libc::syscall(libc::SYS_fchownat, libc::AT_FDCWD, c"link".as_ptr(), 65_536, 0, 0x100);
        note("give to a uid that the namespace lacks", owned);
    }
}

fn kernel(note: &mut impl FnMut(&str, libc::c_long)) {
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: numbers, null pointers and strings that end with a zero byte. A fork that succeeds ends the child at once.
    unsafe {
        note("an internet socket", libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0));
        note("be of another group", libc::syscall(libc::SYS_setresgid, 1, 1, 1));
        note("a unix socket", libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0));
        let mounted = libc::syscall(libc::SYS_mount, c"x".as_ptr(), c".".as_ptr(), c"tmpfs".as_ptr(), 0, nothing);
        note("mount", mounted);
        note("a user namespace", libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER));
        note("another root", libc::syscall(libc::SYS_chroot, c".".as_ptr()));
        note("trace a process", libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, 2, 0, 0));
        note("end a process", libc::syscall(libc::SYS_kill, 2, 0));
        let forked = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
        if forked == 0 {
            libc::_exit(0)
        }
        note("another process", forked);
        note("execute", libc::syscall(libc::SYS_execve, c"/proc/self/exe".as_ptr(), nothing, nothing));
    }
}
