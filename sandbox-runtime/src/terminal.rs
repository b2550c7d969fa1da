//! Keeps a process that gave up its privileges from typing into the terminal that it was started in.
//!
//! A host that root started keeps root's terminal, for Ctrl-C. Where the kernel has not switched it off
//! (`dev.tty.legacy_tiocsti`, since 6.2), whoever holds a terminal can put characters into its input, and root's shell reads
//! them when the host has ended. A host that was taken over must not be able to.

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError};

/// Requests of `ioctl` that put characters into a terminal's input: `TIOCSTI`, and `TIOCLINUX`, which pastes the selection
/// of a console.
const TYPING: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// From here on, this thread and everything that it starts gets `EPERM` for typing into a terminal. Needs no privileges
/// once no new ones can be had.
///
/// # Errors
/// When the kernel or the library refuses the filter.
pub fn forbid_typing() -> Result<(), SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    let ioctl = ScmpSyscall::from_name("ioctl")?;
    for request in TYPING {
        // The kernel looks at 32 bits of it.
        let is_typing = ScmpArgCompare::new(1, ScmpCompareOp::MaskedEqual(u32::MAX.into()), request);
        filter.add_rule_conditional(ScmpAction::Errno(libc::EPERM), ioctl, &[is_typing])?;
    }
    filter.load()
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "the calls that must be refused")]

    use std::os::fd::AsRawFd;

    #[test]
    fn typing_is_refused_and_other_requests_are_not() {
        // A filter belongs to the thread that loads it.
        let refused = std::thread::spawn(|| {
            let null = std::fs::File::open("/dev/null").unwrap();
            let ask = |request: u64| {
                let letter = b'x';
                // SAFETY: the descriptor is open and the letter outlives the call.
                let result = unsafe { libc::ioctl(null.as_raw_fd(), request, &raw const letter) };
                (result, std::io::Error::last_os_error().raw_os_error())
            };
            assert_eq!(ask(libc::TIOCSTI), (-1, Some(libc::ENOTTY)), "what it is without the filter");
            super::forbid_typing().unwrap();
            assert_eq!(ask(libc::FIONREAD), (-1, Some(libc::ENOTTY)));
            [ask(libc::TIOCSTI), ask(libc::TIOCLINUX), ask(libc::TIOCSTI | 1 << 32)]
        });
        assert_eq!(refused.join().unwrap(), [(-1, Some(libc::EPERM)); 3]);
    }
}
