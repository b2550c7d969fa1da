//! Holes of the kernel that no test of ours can try, because only a patched kernel closes them: is this one patched?
//!
//! What leads there is refused in a sandbox (the page of escapes says by what), so that each of these would have to be reached by
//! another way. Numbers are those of the CVE records that the kernel's own CVE team keeps (cve.org, as of September 2026). Not
//! here are CVE-2026-43500 and CVE-2026-43391: their records named no fix for older branches that are still maintained.

use super::finding::Finding;

/// A version: of Linux 6.12.85 it is 6, 12, 85.
type Version = (u32, u32, u32);

struct Hole {
    id: &'static str,
    /// What people call it.
    name: &'static str,
    /// First version that has it.
    since: (u32, u32),
    /// First version of each maintained branch that has the fix.
    fixed: &'static [Version],
    /// First version of Linux from which on every one has it.
    everywhere: (u32, u32),
}

const HOLES: [Hole; 4] = [
    Hole {
        id: "CVE-2026-31431",
        name: "Copy Fail",
        since: (4, 14),
        fixed: &[(6, 1, 170), (6, 6, 137), (6, 12, 85), (6, 18, 22), (6, 19, 12)],
        everywhere: (7, 0),
    },
    Hole {
        id: "CVE-2026-43284",
        name: "Dirty Frag",
        since: (4, 11),
        fixed: &[(6, 1, 172), (6, 6, 138), (6, 12, 87), (6, 18, 28), (7, 0, 5)],
        everywhere: (7, 1),
    },
    Hole {
        id: "CVE-2026-46300",
        name: "Fragnesia",
        since: (3, 9),
        fixed: &[(6, 1, 174), (6, 6, 141), (6, 12, 91), (6, 18, 33), (7, 0, 10)],
        everywhere: (7, 1),
    },
    Hole {
        id: "CVE-2026-43403",
        name: "namespaces of others",
        since: (6, 12),
        fixed: &[(6, 12, 78), (6, 18, 20), (6, 19, 9)],
        everywhere: (7, 0),
    },
];

/// Which version the kernel is by its own words (`/proc/sys/kernel/osrelease`, `/proc/version`). `None` where its number is one
/// that a distribution never changes, such as 6.8.0 for whatever is in it.
fn version(release: &str, words: &str) -> Option<Version> {
    // Debian says it in the words: `... SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)`.
    let said = words.split("Debian ").nth(1).and_then(numbers);
    said.or_else(|| numbers(release).filter(|(_, _, patch)| *patch > 0))
}

fn numbers(text: &str) -> Option<Version> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// Whether a version has the hole, and the first of its branch that has not, where there is one.
fn has(hole: &Hole, (major, minor, patch): Version) -> Option<Option<Version>> {
    let branch = (major, minor);
    if branch < hole.since || branch >= hole.everywhere && !hole.fixed.iter().any(|fixed| (fixed.0, fixed.1) == branch)
    {
        return None;
    }
    let fixed = hole.fixed.iter().copied().find(|fixed| (fixed.0, fixed.1) == branch);
    fixed.is_none_or(|fixed| patch < fixed.2).then_some(fixed)
}

pub(super) fn judge(release: &str, words: &str) -> Finding {
    let Some(version) = version(release, words) else {
        return Finding::skipped(format!(
            "the number of Linux {release} does not tell which fixes its distribution brought into it; ask it about {}",
            HOLES.map(|hole| hole.id).join(", ")
        ));
    };
    let open: Vec<String> = HOLES
        .iter()
        .filter_map(|hole| {
            let fixed = has(hole, version)?.map(|(major, minor, patch)| format!(", fixed in {major}.{minor}.{patch}"));
            Some(format!("{} ({}{})", hole.id, hole.name, fixed.unwrap_or(", never fixed in this branch".into())))
        })
        .collect();
    let (major, minor, patch) = version;
    if open.is_empty() {
        return Finding::ok(format!(
            "Linux {major}.{minor}.{patch} has the fixes of {}",
            HOLES.map(|hole| hole.id).join(", ")
        ));
    }
    Finding::warning(
        format!(
            "Linux {major}.{minor}.{patch} is older than the fixes of {}; a sandbox is refused what leads there, but behind that \
             nothing else stands",
            open.join(", ")
        ),
        "install the newest kernel of your distribution and restart the machine; where the distribution says that it has \
         brought these fixes into this number, nothing is to be done",
    )
}

#[cfg(test)]
pub(super) fn examples() -> Vec<super::Check> {
    let debian = "Linux version 6.1.0-37-amd64 (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)";
    [
        ("6.18.44", ""),
        ("6.12.84-amd64", ""),
        ("6.1.0-37-amd64", debian),
        ("6.14.11", ""),
        ("6.8.0-31-generic", "Ubuntu"),
    ]
    .map(|(release, words)| judge(release, words).of("kernel.holes"))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(release: &str, words: &str) -> Option<Vec<&'static str>> {
        let version = version(release, words)?;
        Some(HOLES.iter().filter(|hole| has(hole, version).is_some()).map(|hole| hole.id).collect())
    }

    #[test]
    fn a_kernel_is_measured_by_the_fixes_of_its_own_branch() {
        let all = HOLES.map(|hole| hole.id).to_vec();
        let (copy, dirty, fragnesia) = (all[0], all[1], all[2]);
        let debian = "Debian 6.1.170-1 (2026-05-01)";
        for (release, words, expected) in [
            ("6.12.84", "", Some(vec![copy, dirty, fragnesia])),
            ("6.12.77-x", "", Some(all.clone())),
            ("6.12.85", "", Some(vec![dirty, fragnesia])),
            ("6.12.91-cloud", "", Some(vec![])),
            ("6.1.0-40-amd64", debian, Some(vec![dirty, fragnesia])),
            ("6.14.11", "", Some(all.clone())),
            ("6.11.0-9-generic", "", None),
            ("7.0.4", "", Some(vec![dirty, fragnesia])),
            ("7.0.10", "", Some(vec![])),
            ("7.1.1", "", Some(vec![])),
            ("8.2.1", "", Some(vec![])),
            ("6.19.12", "", Some(vec![dirty, fragnesia])),
            ("nonsense", "", None),
        ] {
            assert_eq!(open(release, words), expected, "{release}");
        }
    }
}
