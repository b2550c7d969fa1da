//! Who has which range of uids. Pure: no clock, no files.
//!
//! A range belongs to a sandbox from its first making until its files are removed, because its files bear the
//! uids.

use std::collections::BTreeSet;

use crate::ids::{Range, WHOLE};
use crate::standing::Own;

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

    fn gives(self, range: Range) -> bool {
        let offset = range.base.checked_sub(self.first).filter(|offset| offset.is_multiple_of(self.size));
        range.count == self.size && offset.is_some_and(|offset| offset / self.size < self.ranges)
    }
}

/// The ranges of one launcher.
#[derive(Debug)]
pub(super) struct Leases {
    /// What new sandboxes are given.
    blocks: Vec<Block>,
    /// All ids of a namespace, which are nobody else's: an earlier launcher may have cut them otherwise.
    own: Option<Vec<Range>>,
    used: BTreeSet<Range>,
}

impl Leases {
    /// With ids of the machine that are nobody else's.
    pub(super) fn new(block: Block) -> Self {
        Self { blocks: vec![block], own: None, used: BTreeSet::new() }
    }

    /// With those of a user namespace, of which `blocks` are given out.
    pub(super) fn of_namespace(Own { blocks, ids }: Own) -> Self {
        Self { blocks, own: Some(ids), used: BTreeSet::new() }
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
        self.is_ours(range) && self.is_free(range) && self.used.insert(range)
    }

    /// Whether a sandbox has it, or could be given it next.
    pub(super) fn may_be_given(&self, range: Range) -> bool {
        self.used.contains(&range) || self.blocks.iter().any(|block| block.gives(range))
    }

    /// Whether files of a sandbox may bear it: never the ids of the host's own users.
    pub(super) fn is_ours(&self, range: Range) -> bool {
        match &self.own {
            // Root of a namespace is the user, and has no part in it.
            Some(own) => range.base > 0 && range.count > 0 && own.iter().any(|own| own.has(range)),
            None => self.blocks.iter().any(|block| block.gives(range)),
        }
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
        Leases::new(Block::whole(first, ranges))
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
        let blocks = vec![Block { first: 1, size: 100, ranges: 3 }, Block { first: 1000, size: 100, ranges: 1 }];
        let ids = [(0, 1), (1, 399), (1000, 150)].map(|(base, count)| Range { base, count }).into();
        let mut leases = Leases::of_namespace(Own { blocks, ids });
        // Given out when ranges were smaller, or larger.
        assert!(leases.adopt(Range { base: 151, count: 50 }));
        assert!(!leases.adopt(Range { base: 101, count: 100 }), "half of it is another's");
        assert!(leases.adopt(Range { base: 1, count: 50 }));
        // In no block of today's.
        assert!(leases.adopt(Range { base: 310, count: 40 }));
        for foreign in [(0, 1), (0, 50), (380, 100), (500, 10), (1100, 100), (7, 0)] {
            let range = Range { base: foreign.0, count: foreign.1 };
            assert!(!leases.adopt(range), "{range:?} is no range of ours");
        }
        let taken: Vec<u32> = std::iter::from_fn(|| leases.take()).map(|range| range.base).collect();
        assert_eq!(taken, [201, 1000]);
        leases.release(Range { base: 151, count: 50 });
        assert_eq!(leases.take(), Some(Range { base: 101, count: 100 }));
    }
}
