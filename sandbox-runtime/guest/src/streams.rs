//! The descriptors of a call: what its command gets as standard streams, and what PID 1 keeps of them.
//!
//! ```text
//!            stdin            stdout             stderr            PID 1 reads     PID 1 watches
//! Merged     /dev/null        pipe               the same pipe     pipe            -
//! Piped      host's socket    host's socket      pipe              pipe            host's socket, for its end
//! Terminal   slave            slave              slave             master          -
//! ```
//!
//! PID 1's ends of pipes and terminals are open files that no process of a call ever holds, so nothing that one does
//! makes them block.

use std::os::fd::OwnedFd;

use ostler_wire::Failure;
use ostler_wire::guest::{Stdio, Window};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::failure::failed;
use crate::sys::{self, Stdin};

/// The streams of a call that is about to start.
pub(crate) struct Streams {
    /// What the command reads.
    pub(crate) stdin: Stdin,
    /// Where it writes.
    pub(crate) stdout: OwnedFd,
    /// Where it complains, where that is another place.
    pub(crate) stderr: Option<OwnedFd>,
    /// What PID 1 reads; a terminal's master takes what is typed, too. Does not block.
    pub(crate) output: OwnedFd,
    /// The host's socket, where the command has it.
    pub(crate) piped: Option<OwnedFd>,
}

impl Streams {
    /// Opens the streams of one kind. `socket` is the host's and goes to the command only where that is what the kind means.
    pub(crate) fn open(stdio: Stdio, socket: &OwnedFd, program: &str) -> Result<Self, Failure> {
        let opened = match stdio {
            Stdio::Merged => merged(),
            Stdio::Piped => piped(socket),
            Stdio::Terminal(window) => terminal(window),
        };
        opened.map_err(|(step, errno)| failed(step, errno, format!("streams for `{program}`")))
    }
}

type Opened = Result<Streams, (&'static str, Errno)>;

fn merged() -> Opened {
    let (output, stdout) = pipe()?;
    Ok(Streams { stdin: Stdin::Inherit, stdout, stderr: None, output, piped: None })
}

fn piped(socket: &OwnedFd) -> Opened {
    let (output, stderr) = pipe()?;
    let duplicate =
        || socket.try_clone().map_err(|error| ("duplicate", Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    let (stdout, kept) = (duplicate()?, duplicate()?);
    // Both ends of the command are this one open file. The host's end is another.
    rustix::io::ioctl_fionbio(&stdout, false).map_err(|errno| ("ioctl", errno))?;
    Ok(Streams { stdin: Stdin::Stdout, stdout, stderr: Some(stderr), output, piped: Some(kept) })
}

fn terminal(window: Window) -> Opened {
    let (output, stdout) = sys::open_terminal().map_err(|errno| ("open terminal", errno))?;
    sys::set_window(&output, window).map_err(|errno| ("set size", errno))?;
    Ok(Streams { stdin: Stdin::Terminal, stdout, stderr: None, output, piped: None })
}

/// The reading end belongs to PID 1 alone and each end has its own flags, so commands cannot change it.
fn pipe() -> Result<(OwnedFd, OwnedFd), (&'static str, Errno)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| ("pipe", errno))?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|errno| ("ioctl", errno))?;
    Ok((reader, writer))
}
