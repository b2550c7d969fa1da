//! Ranges of uids and gids: which ones a sandbox has, and how they appear in it.
//!
//! Numbers are those of the launcher's own user namespace. Pure: what a machine gives is found out elsewhere.

use serde::{Deserialize, Serialize};

/// Uids and gids of a sandbox, where there are enough for that.
pub(crate) const WHOLE: u32 = 65_536;

/// What systems call `nobody` and `nogroup`: the last id but one of a whole range.
const NOBODY: u32 = 65_534;

/// The uids and gids of one sandbox: `count` from `base` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Range {
    /// What the sandbox's root is outside.
    pub(crate) base: u32,
    pub(crate) count: u32,
}

/// Ids inside a user namespace, ids outside, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Map(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Range {
    /// A range as large as a sandbox wants it.
    pub(crate) const fn whole(base: u32) -> Self {
        Self { base, count: WHOLE }
    }

    /// One past the last.
    pub(crate) fn end(self) -> u64 {
        u64::from(self.base) + u64::from(self.count)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        u64::from(self.base) < other.end() && u64::from(other.base) < self.end()
    }

    /// Whether all of the other lies in this one.
    pub(crate) fn has(self, other: Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    pub(crate) fn holds(self, outside: u32) -> bool {
        self.base <= outside && u64::from(outside) < self.end()
    }

    /// How the range appears in the sandbox: from 0 on. In a smaller one the last id is `nobody`, whom packages want to find.
    pub(crate) fn maps(self) -> Vec<Map> {
        if self.count >= WHOLE || self.count < 2 {
            return vec![Map(0, self.base, self.count)];
        }
        let last = self.count - 1;
        vec![Map(0, self.base, last), Map(NOBODY, self.base + last, 1)]
    }

    /// What an id of an image is outside; `None` where the sandbox does not have it.
    pub(crate) fn outside(self, inside: u32) -> Option<u32> {
        self.maps().into_iter().find_map(|Map(first, outside, count)| {
            let offset = inside.checked_sub(first)?;
            (offset < count).then_some(outside + offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_range_has_its_first_ids_and_nobody() {
        let small = Range { base: 1000, count: 4096 };
        let seen = [0, 4094, 4095, 65_533, NOBODY, 65_535].map(|inside| small.outside(inside));
        assert_eq!(seen, [Some(1000), Some(5094), None, None, Some(5095), None]);
        let whole = Range::whole(0x7000_0000);
        assert_eq!((whole.outside(0), whole.outside(65_535)), (Some(0x7000_0000), Some(0x7000_ffff)));
        assert_eq!((whole.outside(65_536), whole.maps().len()), (None, 1));
    }

    #[test]
    fn ranges_overlap_where_they_share_an_id() {
        let [one, next, within] =
            [Range { base: 10, count: 10 }, Range { base: 20, count: 1 }, Range { base: 19, count: 1 }];
        assert!(one.overlaps(within) && within.overlaps(one) && !one.overlaps(next) && !next.overlaps(one));
        assert!(Range { base: u32::MAX, count: 1 }.holds(u32::MAX));
    }
}
