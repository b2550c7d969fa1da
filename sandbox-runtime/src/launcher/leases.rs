//! Who has which range of uids. Pure: no clock, no files.
//!
//! A range belongs to a sandbox from its first making until its files are removed, because its files bear the
//! uids.

use std::collections::BTreeSet;

use crate::ids::{Range, WHOLE};

/// Ids that lie together, to be given out in ranges of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) first: u32,
    /// Ids of a range.
    pub(crate) size: u32,
    pub(crate) ranges: u32,
}

impl Block {
    /// Ranges of the usual size; one that would end beyond the last valid uid is left out.
    pub(super) fn whole(first: u32, ranges: u32) -> Self {
        let fitting = (u32::MAX - 1).saturating_sub(first) / WHOLE;
        Self { first, size: WHOLE, ranges: ranges.min(fitting) }
    }

    fn range(self, number: u32) -> Range {
        Range { base: self.first + number * self.size, count: self.size }
    }

    /// Whether the range is one of these, in this size or in one that an earlier launcher gave out.
    fn has(self, range: Range) -> bool {
        let all = Range { base: self.first, count: self.size.saturating_mul(self.ranges) };
        let inside = range.base >= all.base && range.end() <= all.end() && range.count > 0;
        inside && (range.base - self.first).is_multiple_of(range.count)
    }
}

/// The ranges of one launcher.
#[derive(Debug)]
pub(super) struct Leases {
    blocks: Vec<Block>,
    used: BTreeSet<Range>,
}

impl Leases {
    pub(super) fn new(blocks: Vec<Block>) -> Self {
        Self { blocks, used: BTreeSet::new() }
    }

    /// The lowest free range.
    pub(super) fn take(&mut self) -> Option<Range> {
        let all = self.blocks.iter().flat_map(|block| (0..block.ranges).map(|number| block.range(number)));
        let range = all.into_iter().find(|range| self.is_free(*range))?;
        self.used.insert(range);
        Some(range)
    }

    /// Marks a range as used by files that exist. `false` if another has it, or it is none of ours: never those of the host's
    /// own users.
    pub(super) fn adopt(&mut self, range: Range) -> bool {
        self.blocks.iter().any(|block| block.has(range)) && self.is_free(range) && self.used.insert(range)
    }

    /// The neighbours are enough to look at: no two that are used overlap.
    fn is_free(&self, range: Range) -> bool {
        let before = self.used.range(..=range).next_back();
        let after = self.used.range(range..).next();
        before.into_iter().chain(after).all(|used| !used.overlaps(range))
    }

    pub(super) fn release(&mut self, range: Range) {
        self.used.remove(&range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(first: u32, ranges: u32) -> Leases {
        Leases::new(vec![Block::whole(first, ranges)])
    }

    #[test]
    fn no_two_leases_share_a_range_until_one_is_released() {
        let mut leases = leases(0x7000_0000, 2);
        assert!(leases.adopt(Range::whole(0x7000_0000)));
        assert!(!leases.adopt(Range::whole(0x7000_0000)), "it is taken");
        for foreign in [0, 1, 1000, 0x7000_0001, 0x7002_0000, u32::MAX] {
            assert!(!leases.adopt(Range::whole(foreign)), "{foreign:#x} is no range of ours");
        }
        assert_eq!((leases.take(), leases.take()), (Some(Range::whole(0x7001_0000)), None));
        leases.release(Range::whole(0x7000_0000));
        assert_eq!(leases.take(), Some(Range::whole(0x7000_0000)));
    }

    #[test]
    fn a_range_beyond_the_last_uid_is_never_leased() {
        let mut leases = leases(u32::MAX - WHOLE - 10, 5);
        assert_eq!((leases.take(), leases.take()), (Some(Range::whole(u32::MAX - WHOLE - 10)), None));
    }

    #[test]
    fn ranges_of_another_size_keep_their_ids_to_themselves() {
        let mut leases =
            Leases::new(vec![Block { first: 1, size: 100, ranges: 3 }, Block { first: 1000, size: 100, ranges: 1 }]);
        // Given out when ranges were smaller, or larger.
        assert!(leases.adopt(Range { base: 151, count: 50 }));
        assert!(!leases.adopt(Range { base: 101, count: 100 }), "half of it is another's");
        assert!(leases.adopt(Range { base: 1, count: 50 }));
        let taken: Vec<u32> = std::iter::from_fn(|| leases.take()).map(|range| range.base).collect();
        assert_eq!(taken, [201, 1000]);
        leases.release(Range { base: 151, count: 50 });
        assert_eq!(leases.take(), Some(Range { base: 101, count: 100 }));
    }
}
