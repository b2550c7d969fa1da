//! How the answers of several plugins become one decision: a join over `halt > deny > defer > ask > rewrite > pass`.
//!
//! Pure: the order in which answers arrive does not matter, an objection is never lost, and one more answer never makes
//! a decision milder.

use ostler_protocol::event::{Reason, Verdict};

/// Under which name the host itself gives reasons.
pub(super) const HOST: &str = "ostler";

/// What one plugin had to say in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Place of the plugin in the order of its phase, and of the phase: reasons of equal weight keep this order.
    pub(super) rank: usize,
    /// Which plugin.
    pub(super) plugin: String,
    /// What it said, or what its failure means.
    pub(super) verdict: Verdict,
    /// Why, where it said so.
    pub(super) reason: Option<String>,
}

/// The decision of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// The strongest verdict; `Pass` where nobody was asked.
    pub(super) verdict: Verdict,
    /// Every reason, that of the strongest verdict first.
    pub(super) reasons: Vec<Reason>,
}

/// Merges answers into the strongest of them, with every reason.
pub(super) fn merge(mut answers: Vec<Answer>) -> Merged {
    let verdict = answers.iter().map(|answer| answer.verdict).max().unwrap_or(Verdict::Pass);
    answers.sort_by(|a, b| b.verdict.cmp(&a.verdict).then(a.rank.cmp(&b.rank)));
    let reasons = answers
        .into_iter()
        .filter_map(|answer| answer.reason.map(|text| Reason { plugin: answer.plugin, text }))
        .collect();
    Merged { verdict, reasons }
}

/// Settles what only a person could settle, on a host that cannot ask one: it is denied, and says why.
pub(super) fn without_approver(mut merged: Merged) -> Merged {
    let what = match merged.verdict {
        Verdict::Ask => "a person would have to approve this",
        Verdict::Defer => "this would have to wait until a person or a plugin lets it go on",
        Verdict::Pass | Verdict::Rewrite | Verdict::Deny | Verdict::Halt => return merged,
    };
    merged.verdict = Verdict::Deny;
    merged.reasons.push(Reason {
        plugin: HOST.to_owned(),
        text: format!("{what}, and this host cannot ask anybody yet: denied"),
    });
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Pass),
            Just(Verdict::Rewrite),
            Just(Verdict::Ask),
            Just(Verdict::Defer),
            Just(Verdict::Deny),
            Just(Verdict::Halt),
        ]
    }

    fn answers() -> impl Strategy<Value = Vec<Answer>> {
        prop::collection::vec((verdict(), prop::option::of("[a-z]{1,6}")), 0..8).prop_map(|list| {
            list.into_iter()
                .enumerate()
                .map(|(rank, (verdict, reason))| Answer { rank, plugin: format!("p{rank}"), verdict, reason })
                .collect()
        })
    }

    #[test]
    fn the_lattice_is_halt_deny_defer_ask_rewrite_pass() {
        let order = [Verdict::Pass, Verdict::Rewrite, Verdict::Ask, Verdict::Defer, Verdict::Deny, Verdict::Halt];
        assert!(order.is_sorted());
    }

    #[test]
    fn nobody_asked_is_a_pass() {
        assert_eq!(merge(Vec::new()), Merged { verdict: Verdict::Pass, reasons: Vec::new() });
    }

    #[test]
    fn what_needs_a_person_is_denied_with_the_reason_why() {
        for verdict in [Verdict::Ask, Verdict::Defer] {
            let merged = without_approver(Merged { verdict, reasons: Vec::new() });
            assert_eq!(merged.verdict, Verdict::Deny);
            assert_eq!(merged.reasons.len(), 1);
            assert!(merged.reasons[0].text.contains("cannot ask anybody yet"), "{merged:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(list in answers(), seed in any::<u64>()) {
            let mut shuffled = list.clone();
            // A shuffle that needs no generator: sort by a hash of rank and seed.
            shuffled.sort_by_key(|answer| (answer.rank as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            prop_assert_eq!(merge(list), merge(shuffled));
        }

        #[test]
        fn an_objection_is_never_lost(list in answers()) {
            let merged = without_approver(merge(list.clone()));
            let objects = |verdict| verdict >= Verdict::Ask;
            prop_assert_eq!(merged.verdict >= Verdict::Deny, list.iter().any(|answer| objects(answer.verdict)));
            let halts = list.iter().any(|answer| answer.verdict == Verdict::Halt);
            prop_assert_eq!(merged.verdict == Verdict::Halt, halts);
        }

        #[test]
        fn one_more_answer_never_makes_it_milder(list in answers(), more in verdict()) {
            let before = without_approver(merge(list.clone())).verdict;
            let mut longer = list;
            longer.push(Answer { rank: longer.len(), plugin: "more".to_owned(), verdict: more, reason: None });
            prop_assert!(without_approver(merge(longer)).verdict >= before);
        }

        #[test]
        fn every_reason_is_kept_and_the_strongest_comes_first(list in answers()) {
            let merged = merge(list.clone());
            let given = list.iter().filter(|answer| answer.reason.is_some()).count();
            prop_assert_eq!(merged.reasons.len(), given);
            let strongest = list.iter().filter(|answer| answer.reason.is_some()).map(|answer| answer.verdict).max();
            let first = merged.reasons.first().map(|reason| {
                list.iter().find(|answer| answer.plugin == reason.plugin).map(|answer| answer.verdict)
            });
            prop_assert_eq!(first, strongest.map(Some));
        }
    }
}
