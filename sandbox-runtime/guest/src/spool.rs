//! What a call has written so far: an anonymous file that the guest owns, counted and capped.
//!
//! ```text
//! Overflow::End        0 ═════════════════ length ──── limit │ full: the caller decides
//! Overflow::DropHead   0 ─ ─ ─ lost ─ ─ ─ first ═════ limit ═════ length        a ring in the file
//! ```
//!
//! The spool is the truth about output; a socket that is attached to a call is a cursor into it. It does not know who
//! reads, and it does not decide what happens to a call that reaches its limit.

use std::os::fd::OwnedFd;

use ostler_wire::guest::Overflow;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// The output of one call.
pub(crate) struct Spool {
    /// Made with the first byte: most calls are short, many are silent.
    file: Option<OwnedFd>,
    length: u64,
    limit: u64,
    overflow: Overflow,
}

/// How much of a chunk a spool took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// All of it.
    All,
    /// This many bytes, then the limit was reached.
    UpTo(usize),
}

impl Spool {
    /// An empty spool that holds at most `limit` bytes.
    pub(crate) fn new(limit: u64, overflow: Overflow) -> Self {
        Self { file: None, length: 0, limit, overflow }
    }

    /// Bytes that were put into it.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Position of the first byte that it still has.
    pub(crate) fn first(&self) -> u64 {
        match self.overflow {
            Overflow::End => 0,
            Overflow::DropHead => self.length.saturating_sub(self.limit),
        }
    }

    /// The room that is set aside for a tail; output that is kept from the start takes room as it comes.
    pub(crate) fn reserved(&self) -> u64 {
        match self.overflow {
            Overflow::End => 0,
            Overflow::DropHead => self.limit,
        }
    }

    /// Bytes that it takes from the room that all calls share.
    pub(crate) fn shared(&self) -> u64 {
        match self.overflow {
            Overflow::End => self.length,
            Overflow::DropHead => 0,
        }
    }

    /// Bytes that may be added before one at `cursor` is lost; `None` where none ever is.
    pub(crate) fn before_loss(&self, cursor: u64) -> Option<u64> {
        match self.overflow {
            Overflow::End => None,
            Overflow::DropHead => Some(self.limit.saturating_sub(self.length.saturating_sub(cursor))),
        }
    }

    /// Adds output to the end: all of it to a tail, else as far as the limit allows.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<Appended, Errno> {
        let taken = match self.overflow {
            Overflow::DropHead => bytes,
            Overflow::End => {
                let room = usize::try_from(self.limit - self.length).unwrap_or(usize::MAX);
                &bytes[..bytes.len().min(room)]
            }
        };
        self.write(taken)?;
        Ok(if taken.len() == bytes.len() { Appended::All } else { Appended::UpTo(taken.len()) })
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(memfd_create("spool", MemfdFlags::CLOEXEC)?),
        };
        while !bytes.is_empty() {
            let (position, contiguous) = place(self.overflow, self.limit, self.length);
            let piece = &bytes[..bytes.len().min(contiguous)];
            match rustix::io::pwrite(file, piece, position) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    self.length += count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads from `offset`, which must not be before [`Self::first`], into `buffer`; 0 at the end.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (position, contiguous) = place(self.overflow, self.limit, offset);
        let wanted = buffer.len().min(left).min(contiguous);
        match &self.file {
            Some(file) if wanted > 0 => {
                rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[..wanted], position))
            }
            _ => Ok(0),
        }
    }
}

/// Where the byte at `offset` of the output lies in the file, and how many follow it there without a break.
fn place(overflow: Overflow, limit: u64, offset: u64) -> (u64, usize) {
    match overflow {
        Overflow::End => (offset, usize::MAX),
        Overflow::DropHead => {
            let position = offset % limit.max(1);
            (position, usize::try_from(limit - position).unwrap_or(usize::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_gives_back_what_it_took_from_any_offset() {
        let mut spool = Spool::new(100, Overflow::End);
        assert_eq!(spool.append(b"hello ").unwrap(), Appended::All);
        assert_eq!(spool.append(b"world").unwrap(), Appended::All);
        let mut buffer = [0; 64];
        let count = spool.read(3, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"lo world");
        assert_eq!(spool.read(11, &mut buffer).unwrap(), 0);
        assert_eq!(spool.read(12, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_spool_takes_its_limit_and_not_a_byte_more() {
        let mut spool = Spool::new(4, Overflow::End);
        assert_eq!(spool.append(b"1234").unwrap(), Appended::All);
        assert_eq!(spool.append(b"").unwrap(), Appended::All);
        assert_eq!(spool.append(b"5").unwrap(), Appended::UpTo(0));
        assert_eq!(spool.length(), 4);
        let mut spool = Spool::new(4, Overflow::End);
        assert_eq!(spool.append(b"123456").unwrap(), Appended::UpTo(4));
    }

    #[test]
    fn an_empty_spool_has_no_file() {
        let mut spool = Spool::new(4, Overflow::End);
        assert_eq!(spool.append(b"").unwrap(), Appended::All);
        assert!(spool.file.is_none());
        assert_eq!(spool.read(0, &mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_tail_keeps_the_last_bytes_and_says_where_they_begin() {
        let mut spool = Spool::new(8, Overflow::DropHead);
        let mut written = Vec::new();
        for piece in [&b"abc"[..], b"defgh", b"ij", b"0123456789abcdefXYZ", b"k"] {
            assert_eq!(spool.append(piece).unwrap(), Appended::All);
            written.extend_from_slice(piece);
            assert_eq!(spool.length(), written.len() as u64);
            let mut found = Vec::new();
            let mut buffer = [0; 5];
            loop {
                let count = spool.read(spool.first() + found.len() as u64, &mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                found.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(found, written[written.len().saturating_sub(8)..]);
        }
    }

    #[test]
    fn a_tail_tells_what_may_come_before_a_reader_loses_something() {
        let mut spool = Spool::new(8, Overflow::DropHead);
        spool.append(b"0123456789").unwrap();
        assert_eq!(spool.before_loss(10), Some(8));
        assert_eq!(spool.before_loss(5), Some(3));
        assert_eq!(spool.before_loss(2), Some(0));
        assert_eq!(Spool::new(8, Overflow::End).before_loss(0), None);
    }
}
