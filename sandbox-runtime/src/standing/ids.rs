//! Reading id maps and `/etc/subuid`, and sharing out ids. Pure.

use ostler_wire::{Failure, FailureKind};

use crate::ids::{Map, Range, WHOLE};
use crate::launcher::Block;
use crate::step::failure;

/// Ids without which no image can be kept: it may have each id of a whole range.
pub(crate) const NEEDED: u32 = WHOLE;

/// Whole ranges are given out where there are at least so many; otherwise smaller ones.
const ENOUGH: u32 = 16;

/// Ids of a sandbox where there are few: those of the system and its packages, a thousand users, and room.
const SMALL: u32 = 4096;

/// One line of a map: ids inside, ids outside, how many.
type Row = (u32, u32, u32);

fn rows(map: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?))
    };
    map.lines().filter_map(row).collect()
}

/// Whether a map is that of the machine itself.
pub(super) fn is_everything(map: &str) -> bool {
    rows(map) == [(0, 0, u32::MAX)]
}

/// What is both a uid and a gid. A range never crosses from one line of a map into another: the kernel refuses to map it again.
pub(super) fn both(uids: &str, gids: &str) -> Vec<Range> {
    let extents = |map: &str| -> Vec<Range> {
        rows(map).into_iter().map(|(inside, _, count)| Range { base: inside, count }).collect()
    };
    let gids = extents(gids);
    extents(uids).into_iter().flat_map(|uids| gids.iter().filter_map(move |gids| intersect(uids, *gids))).collect()
}

/// Whether what bears ids of the old map bears the same ones of the machine by the new one.
pub(crate) fn goes_on(old: &str, new: &str) -> bool {
    let new = rows(new);
    rows(old).into_iter().enumerate().all(|(number, (inside, outside, count))| {
        let found = new.get(number);
        found.is_some_and(|found| (found.0, found.1) == (inside, outside) && found.2 >= count)
    })
}

/// The ids to be shared out.
pub(super) fn blocks(both: &[Range]) -> Result<Vec<Block>, Failure> {
    // Layers lie on the disk with the ids of their image; beyond those no sandbox shares an id with them.
    let whole = shared_out(both, WHOLE, WHOLE);
    let blocks = if total(&whole) >= ENOUGH { whole } else { shared_out(both, 1, SMALL) };
    if both.iter().map(|extent| extent.count).sum::<u32>() < NEEDED || total(&blocks) == 0 {
        let words = format!("this user namespace has fewer than {NEEDED} uids or gids");
        return Err(failure(FailureKind::System, "share out ids", words));
    }
    Ok(blocks)
}

fn total(blocks: &[Block]) -> u32 {
    blocks.iter().map(|block| block.ranges).sum()
}

/// Ranges of `size` ids from `first` on. Id 0 is never among them: it is the user's own.
fn shared_out(extents: &[Range], first: u32, size: u32) -> Vec<Block> {
    let block = |extent: &Range| {
        let first = extent.base.max(first);
        let left = extent.end().saturating_sub(u64::from(first));
        let ranges = u32::try_from(left / u64::from(size)).unwrap_or(0);
        (ranges > 0).then_some(Block { first, size, ranges })
    };
    extents.iter().filter_map(block).collect()
}

fn intersect(one: Range, other: Range) -> Option<Range> {
    let (base, end) = (one.base.max(other.base), one.end().min(other.end()));
    let count = end.checked_sub(u64::from(base)).filter(|count| *count > 0)?;
    Some(Range { base, count: u32::try_from(count).unwrap_or(u32::MAX) })
}

/// What `/etc/subuid` or `/etc/subgid` gives a user: first id and count of each line.
pub(super) fn subordinate(table: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let whose = fields.next()?;
        let is_theirs = Some(whose) == name || whose == number;
        let (first, count) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        (is_theirs && count > 0).then_some((first, count))
    };
    table.lines().filter_map(line).collect()
}

/// Name of a user in `/etc/passwd`.
pub(super) fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    let number = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    })
}

/// The ids of an ordinary user: its own and those that it was given.
pub(super) struct Subordinate {
    own: u32,
    others: Vec<(u32, u32)>,
}

impl Subordinate {
    pub(super) fn new(own: u32, others: Vec<(u32, u32)>) -> Self {
        Self { own, others }
    }

    /// The map of a namespace in which the user is 0 and the others follow without a gap.
    fn maps(&self) -> Vec<Map> {
        let mut maps = vec![Map(0, self.own, 1)];
        let mut inside = 1_u32;
        for (first, count) in &self.others {
            let count = (*count).min(u32::MAX - 1 - inside);
            maps.push(Map(inside, *first, count));
            inside += count;
        }
        maps
    }

    /// The arguments of `newuidmap` after the process.
    pub(super) fn arguments(&self) -> Vec<String> {
        self.maps()
            .iter()
            .flat_map(|Map(inside, outside, count)| [inside, outside, count].map(u32::to_string))
            .collect()
    }

    /// The map as the kernel shows it.
    pub(super) fn as_table(&self) -> String {
        self.maps().iter().map(|Map(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_map_is_told_from_others() {
        assert!(is_everything("         0          0 4294967295\n"));
        assert!(!is_everything("0 1000 1\n1 100000 65536\n"));
        assert!(!is_everything(""));
    }

    #[test]
    fn few_ids_make_many_small_ranges_and_many_make_whole_ones() {
        let blocks = |uids: &str, gids: &str| blocks(&both(uids, gids));
        let usual = "0 1000 1\n1 100000 65536\n";
        assert_eq!(blocks(usual, usual).unwrap(), [Block { first: 1, size: SMALL, ranges: 16 }]);
        let many = "0 1000 1\n1 100000 6553600\n";
        assert_eq!(blocks(many, many).unwrap(), [Block { first: WHOLE, size: WHOLE, ranges: 99 }]);
        let gids = "0 1000 1\n1 100000 65536\n65537 300000 65536\n";
        assert_eq!(blocks(many, gids).unwrap().len(), 2, "no range crosses from one line into the next");
        let refused = blocks("0 1000 1\n1 100000 1000\n", usual).unwrap_err();
        assert!(refused.detail.contains("fewer than 65536"), "{refused}");
    }

    #[test]
    fn a_map_goes_on_where_each_id_of_before_is_still_the_same_one_of_the_machine() {
        let old = "0 1000 1\n1 100000 65536\n";
        for new in [old, "0 1000 1\n1 100000 131072\n", "0 1000 1\n1 100000 65536\n65537 300000 65536\n"] {
            assert!(goes_on(old, new), "{new}");
        }
        for new in ["0 1000 1\n1 100001 65536\n", "0 1000 1\n1 100000 65535\n", "0 1001 1\n1 100000 65536\n", ""] {
            assert!(!goes_on(old, new), "{new}");
        }
    }

    #[test]
    fn the_ids_of_a_user_are_found_by_name_and_by_number() {
        let table = "ann:100000:65536\n1000:300000:10\nbob:5:6\nann:bad:1\n# ann:1:2\n";
        assert_eq!(subordinate(table, Some("ann"), 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(subordinate(table, None, 7), []);
        assert_eq!(name_of("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/x\n", 1000), Some("ann"));
        let ids = Subordinate::new(1000, vec![(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ids.arguments().join(" "), "0 1000 1 1 100000 65536 65537 300000 10");
    }
}
