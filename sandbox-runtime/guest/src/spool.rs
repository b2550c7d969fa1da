//! What a call has written so far: an anonymous file that the guest owns, counted and capped.
//!
//! The spool is the truth about output; a socket that is attached to a call is a cursor into it. It does not know who
//! reads, and it does not decide what happens to a call that reaches its limit.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// The output of one call.
pub(crate) struct Spool {
    /// Made with the first byte: most calls are short, many are silent.
    file: Option<OwnedFd>,
    length: u64,
    limit: u64,
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
    /// An empty spool that takes at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { file: None, length: 0, limit }
    }

    /// Bytes in it.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds output to the end, as far as the limit allows.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<Appended, Errno> {
        let room = usize::try_from(self.limit - self.length).unwrap_or(usize::MAX);
        let taken = &bytes[..bytes.len().min(room)];
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
            match rustix::io::pwrite(file, bytes, self.length) {
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

    /// Reads from `offset` into `buffer`; 0 at the end.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        match &self.file {
            Some(file) if wanted > 0 => {
                rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[..wanted], offset))
            }
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_gives_back_what_it_took_from_any_offset() {
        let mut spool = Spool::new(100);
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
        let mut spool = Spool::new(4);
        assert_eq!(spool.append(b"1234").unwrap(), Appended::All);
        assert_eq!(spool.append(b"").unwrap(), Appended::All);
        assert_eq!(spool.append(b"5").unwrap(), Appended::UpTo(0));
        assert_eq!(spool.length(), 4);
        let mut spool = Spool::new(4);
        assert_eq!(spool.append(b"123456").unwrap(), Appended::UpTo(4));
    }

    #[test]
    fn an_empty_spool_has_no_file() {
        let mut spool = Spool::new(4);
        assert_eq!(spool.append(b"").unwrap(), Appended::All);
        assert!(spool.file.is_none());
        assert_eq!(spool.read(0, &mut [0; 8]).unwrap(), 0);
    }
}
