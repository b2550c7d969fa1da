//! What a host types into a terminal: a little of it is held until the terminal takes it.
//!
//! More is taken from the socket only once nothing is held, so a program that does not read holds up only who types.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::attachment::Attachment;

/// Bytes taken from the socket at once.
const CHUNK: usize = 4096;

/// Input on its way to a terminal.
#[derive(Default)]
pub(crate) struct Typed {
    held: Vec<u8>,
}

impl Typed {
    /// Whether something waits for the terminal.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes what came over the socket, where nothing is held.
    pub(crate) fn take(&mut self, from: &mut Attachment) {
        if self.held.is_empty() {
            let mut bytes = [0; CHUNK];
            let count = from.receive(&mut bytes);
            self.held.extend_from_slice(&bytes[..count]);
        }
    }

    /// Hands over what the terminal takes.
    pub(crate) fn give(&mut self, master: impl AsFd) {
        while !self.held.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(master.as_fd(), &self.held)) {
                Ok(0) | Err(Errno::AGAIN) => return,
                Ok(count) => drop(self.held.drain(..count)),
                // Nobody has the other side open any more.
                Err(_) => self.held.clear(),
            }
        }
    }
}
