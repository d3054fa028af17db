//! The assignors: who is meant to have which partition.
//!
//! There may be ten thousand members and a hundred thousand topics, each wanted by all of them. So nothing here goes through the members
//! of a topic: members who want the same are a class ([`Subscriptions`]), and work is in proportion to partitions and classes.

mod range;
mod uniform;

use super::Target;
use super::subscription::Subscriptions;

/// A way to assign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::coord::groups) enum Assignor {
    /// The same number for everybody as nearly as subscriptions allow, and as few moves as possible.
    Uniform,
    /// Of each topic a run of partitions for each member; topics with as many partitions are cut alike.
    Range,
}

/// A member, to an assignor.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) member: &'a str,
    pub(super) instance: Option<&'a str>,
    /// The target so far.
    pub(super) has: &'a Target,
}

impl Assignor {
    pub(in crate::coord::groups) fn from_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|a| a.name() == name)
    }

    pub(in crate::coord::groups) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The target of each candidate, in their order, which is also that of the subscriptions.
    pub(super) fn assign(self, candidates: &[Candidate<'_>], wanted: &Subscriptions<'_>) -> Vec<Target> {
        match self {
            Self::Uniform => uniform::assign(candidates, wanted),
            Self::Range => range::assign(candidates, wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use highwater_protocol::ids::TopicId;

    use super::*;
    use crate::coord::groups::topics::Topics;

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    /// Assigns to members "0", "1", .. that want these topics and have these targets; gives the targets.
    fn assign(assignor: Assignor, wants: &[&[u8]], has: &[Target], partitions: &[(u8, u32)]) -> Vec<Target> {
        let named =
            wants.iter().map(|wants| (wants.iter().map(|t| format!("t{t}")).collect(), String::new()));
        assign_to(assignor, &named.collect::<Vec<_>>(), has, partitions)
    }

    /// The same to members that want these names and what this expression matches.
    fn assign_to(
        assignor: Assignor,
        wants: &[(BTreeSet<String>, String)],
        has: &[Target],
        partitions: &[(u8, u32)],
    ) -> Vec<Target> {
        let mut topics = Topics::default();
        for (n, count) in partitions {
            topics.insert(topic(*n), &format!("t{n}"), *count);
        }
        for (_, regex) in wants {
            topics.patterns().want(regex);
        }
        while topics.match_some(&mut { usize::MAX }) {}
        let members: Vec<String> = (0..wants.len()).map(|n| n.to_string()).collect();
        let none = Target::new();
        let candidates: Vec<Candidate<'_>> = members
            .iter()
            .enumerate()
            .map(|(n, member)| Candidate { member, instance: None, has: has.get(n).unwrap_or(&none) })
            .collect();
        let wanted = Subscriptions::new(&topics, wants.iter().map(|(names, regex)| (names, regex.as_str())));
        assignor.assign(&candidates, &wanted)
    }

    fn loads(targets: &[Target]) -> Vec<usize> {
        targets.iter().map(|t| t.values().map(BTreeSet::len).sum()).collect()
    }

    fn all(targets: &[Target]) -> Vec<(TopicId, u32)> {
        let mut all: Vec<_> =
            targets.iter().flatten().flat_map(|(t, p)| p.iter().map(move |p| (*t, *p))).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn everybody_gets_as_much_and_every_partition_is_assigned_once() {
        let targets = assign(Assignor::Uniform, &[&[1, 2], &[1, 2], &[1, 2]], &[], &[(1, 5), (2, 3)]);
        let mut loads = loads(&targets);
        loads.sort_unstable();
        assert_eq!(loads, [2, 3, 3]);
        let expected: Vec<_> = (0..5).map(|p| (topic(1), p)).chain((0..3).map(|p| (topic(2), p))).collect();
        assert_eq!(all(&targets), expected);
    }

    #[test]
    fn a_newcomer_takes_only_its_share() {
        let two = assign(Assignor::Uniform, &[&[1], &[1]], &[], &[(1, 9)]);
        let three = assign(Assignor::Uniform, &[&[1], &[1], &[1]], &two, &[(1, 9)]);
        assert_eq!(loads(&three), [3, 3, 3]);
        for n in 0..2 {
            assert!(three[n][&topic(1)].is_subset(&two[n][&topic(1)]));
        }
    }

    #[test]
    fn those_who_want_different_topics_get_only_these() {
        let targets = assign(Assignor::Uniform, &[&[1], &[1, 2], &[2]], &[], &[(1, 4), (2, 2)]);
        assert!(!targets[0].contains_key(&topic(2)) && !targets[2].contains_key(&topic(1)));
        assert_eq!(loads(&targets), [2, 2, 2]);
        // It had all of topic 1 before somebody came who wants nothing else.
        let before = vec![Target::from([(topic(1), (0..4).collect()), (topic(2), (0..2).collect())])];
        let targets = assign(Assignor::Uniform, &[&[1, 2], &[1]], &before, &[(1, 4), (2, 2)]);
        assert_eq!(loads(&targets), [3, 3]);
    }

    #[test]
    fn a_topic_nobody_has_partitions_of_is_left_out() {
        assert_eq!(assign(Assignor::Uniform, &[&[1, 9]], &[], &[(1, 1)])[0].len(), 1);
        assert_eq!(loads(&assign(Assignor::Uniform, &[&[], &[]], &[], &[(1, 1)])), [0, 0]);
    }

    #[test]
    fn range_cuts_topics_of_the_same_size_alike() {
        let targets = assign(Assignor::Range, &[&[1, 2], &[1, 2]], &[], &[(1, 3), (2, 3)]);
        for t in [1, 2] {
            assert_eq!(targets[0][&topic(t)], BTreeSet::from([0, 1]));
            assert_eq!(targets[1][&topic(t)], BTreeSet::from([2]));
        }
        let few = assign(Assignor::Range, &[&[1], &[1], &[1]], &[], &[(1, 2)]);
        assert_eq!(loads(&few), [1, 1, 0]);
    }

    #[test]
    fn names_and_expressions_are_counted_once_for_a_member_that_has_both() {
        let both = (BTreeSet::from(["t1".to_owned()]), "t.*".to_owned());
        let named = (BTreeSet::from(["t1".to_owned()]), String::new());
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let targets = assign_to(assignor, &[both.clone(), named.clone()], &[], &[(1, 4), (2, 2)]);
            assert_eq!(all(&targets).len(), 6, "every partition once");
            assert_eq!(targets[0][&topic(2)].len(), 2, "the other one does not want it");
            let of_first = if assignor == Assignor::Range { 2 } else { 1 };
            assert_eq!(targets[0][&topic(1)].len(), of_first, "{assignor:?}");
        }
    }

    #[test]
    fn many_members_who_all_want_many_topics_are_served_by_both() {
        let wants: Vec<_> =
            (0..2_000).map(|n| (BTreeSet::from([format!("t{n}")]), "t.*".to_owned())).collect();
        let partitions: Vec<(u8, u32)> = (0..=255).map(|t| (t, 20)).collect();
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let targets = assign_to(assignor, &wants, &[], &partitions);
            assert_eq!(all(&targets).len(), 256 * 20);
            let again = assign_to(assignor, &wants, &targets, &partitions);
            assert!(again == targets, "{assignor:?}: nothing moves without a reason");
        }
        let targets = assign_to(Assignor::Uniform, &wants, &[], &partitions);
        let loads = loads(&targets);
        assert!(
            loads.iter().all(|load| (2..=3).contains(load)),
            "{:?}..{:?}",
            loads.iter().min(),
            loads.iter().max()
        );
    }
}
