//! A guest for tests: its serve loop in a forked process, as an ordinary process with a workspace of its own.
//!
//! No container and no root is needed. Also used by the tests of the client in `ostler-sandbox`.

#![expect(unsafe_code, reason = "the guest needs a process of its own, which must not run the test harness")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

/// Longest wait for anything in a test. Reached only where something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A guest process. Dropping it closes the link and waits for the guest to end.
pub struct GuestProcess {
    pub pid: Pid,
    /// The host's end of the control socket; the launcher keeps a duplicate like this one.
    pub control: Option<OwnedFd>,
    pub root: tempfile::TempDir,
}

impl GuestProcess {
    /// Starts a guest over an empty workspace.
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("workspace");
        std::fs::create_dir(&path).unwrap();
        let (control, guest) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        // SAFETY: the child runs only the guest's loop, which takes no lock that another thread of the harness may hold,
        // and leaves with `_exit`.
        let pid = match unsafe { libc::fork() } {
            0 => serve(guest, &path),
            pid => Pid::from_raw(pid).unwrap(),
        };
        Self { pid, control: Some(control), root }
    }

    /// The path of the workspace.
    pub fn workspace(&self) -> std::path::PathBuf {
        self.root.path().join("workspace")
    }

    /// Closes the link and waits until the guest has ended; gives its exit status.
    pub fn close(&mut self) -> Option<i32> {
        self.control = None;
        self.ended()
    }

    /// Waits until the guest has ended; gives its exit status.
    pub fn ended(&self) -> Option<i32> {
        await_end(self.pid);
        waitpid(Some(self.pid), WaitOptions::empty()).unwrap().unwrap().1.exit_status()
    }
}

impl Drop for GuestProcess {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            // Ends the link even where a duplicate is still open somewhere.
            let _ = rustix::net::shutdown(&control, rustix::net::Shutdown::Both);
        }
        if !std::thread::panicking() {
            let _ = pidfd_open(self.pid, PidfdFlags::empty())
                .map(|process| wait_for(process.as_fd(), PollFlags::IN, PATIENCE));
        }
        if matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(None)) {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}

fn serve(control: OwnedFd, root: &Path) -> ! {
    let number = control.as_raw_fd().unsigned_abs();
    // SAFETY: closes what the harness's threads have open in this copy of the process, which never returns to them.
    unsafe {
        if number > 3 {
            libc::syscall(libc::SYS_close_range, 3, number - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, number + 1, u32::MAX, 0);
    }
    let served = std::panic::catch_unwind(|| ostler_guest::serve(control, root));
    let status = match served {
        Ok(ostler_guest::ServeError::Link(ostler_wire::socket::SocketError::Closed)) => 0,
        Ok(ostler_guest::ServeError::Link(_)) => 1,
        Ok(_) => 2,
        Err(_) => 3,
    };
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Waits until a descriptor is ready; `false` when the time is over.
pub fn wait_for(descriptor: BorrowedFd<'_>, flags: PollFlags, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().try_into().unwrap(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll failed: {error}"),
        }
    }
}

/// Waits until a process has ended (it may still be a zombie).
pub fn await_end(pid: Pid) {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => assert!(wait_for(process.as_fd(), PollFlags::IN, PATIENCE), "process {pid:?} still lives"),
        Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("pidfd_open failed: {error}"),
    }
}

/// Whether a process lives at this moment.
pub fn lives(pid: Pid) -> bool {
    pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|process| !wait_for(process.as_fd(), PollFlags::IN, Duration::ZERO))
}
