//! Who has which range of uids. Pure: no clock, no files.
//!
//! A range belongs to a sandbox from its first making until its files are removed, because its files bear the
//! uids.

use std::collections::BTreeSet;

use crate::pair::RANGE;

/// The ranges of one launcher.
#[derive(Debug)]
pub(super) struct Leases {
    first: u32,
    ranges: u32,
    used: BTreeSet<u32>,
}

impl Leases {
    pub(super) fn new(first: u32, ranges: u32) -> Self {
        // A range that would end beyond the last valid uid is left out.
        let fitting = (u32::MAX - 1).saturating_sub(first) / RANGE;
        Self { first, ranges: ranges.min(fitting), used: BTreeSet::new() }
    }

    /// The lowest free range.
    pub(super) fn take(&mut self) -> Option<u32> {
        let base = (0..self.ranges).map(|number| self.first + number * RANGE).find(|base| !self.used.contains(base))?;
        self.used.insert(base);
        Some(base)
    }

    /// Marks a range as used by files that exist. `false` if another has it, or it is none of ours.
    pub(super) fn adopt(&mut self, base: u32) -> bool {
        self.is_range(base) && self.used.insert(base)
    }

    /// Whether uids begin here: never those of the host's own users.
    fn is_range(&self, base: u32) -> bool {
        let offset = base.checked_sub(self.first);
        offset.is_some_and(|offset| offset % RANGE == 0 && offset / RANGE < self.ranges)
    }

    pub(super) fn release(&mut self, base: u32) {
        self.used.remove(&base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_leases_share_a_range_until_one_is_released() {
        let mut leases = Leases::new(0x7000_0000, 2);
        assert!(leases.adopt(0x7000_0000));
        assert!(!leases.adopt(0x7000_0000), "it is taken");
        for foreign in [0, 1, 1000, 0x7000_0001, 0x7002_0000, u32::MAX] {
            assert!(!leases.adopt(foreign), "{foreign:#x} is no range of ours");
        }
        assert_eq!((leases.take(), leases.take()), (Some(0x7001_0000), None));
        leases.release(0x7000_0000);
        assert_eq!(leases.take(), Some(0x7000_0000));
    }

    #[test]
    fn a_range_beyond_the_last_uid_is_never_leased() {
        let mut leases = Leases::new(u32::MAX - RANGE - 10, 5);
        assert_eq!((leases.take(), leases.take()), (Some(u32::MAX - RANGE - 10), None));
    }
}
