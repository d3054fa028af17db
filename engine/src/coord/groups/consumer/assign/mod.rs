//! The assignors: they compute the target assignment of a group.
//!
//! There may be ten thousand members and a hundred thousand topics, all subscribed to by every member. So nothing here iterates over the members of a
//! topic: members with the same subscription form a class ([`Subscriptions`]), and the work is proportional to partitions and classes.
//!
//! An assignment takes as many turns as it needs: each of these state machines runs for a number of units of work, and continues later.

mod loads;
mod range;
mod subscriptions;
mod uniform;

use std::collections::BTreeMap;
use std::ops::Bound;

use highwater_protocol::ids::TopicId;

pub(super) use subscriptions::Subscriptions;

use super::Target;
use super::member::Member;
use crate::counters::Work;

/// The members of a group, by id.
pub(super) type Members = BTreeMap<String, Member>;

/// An assignment strategy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::coord::groups) enum Assignor {
    /// Balances loads as well as the subscriptions allow, with few moves.
    Uniform,
    /// Contiguous ranges per topic; topics with equal partition counts are co-partitioned.
    Range,
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

    /// Starts an assignment for these subscriptions.
    pub(super) fn begin(self, subscriptions: &Subscriptions) -> Plan {
        match self {
            Self::Uniform => Plan::Uniform(Box::new(uniform::Uniform::new(subscriptions))),
            Self::Range => Plan::Range(Box::new(range::Range::new(subscriptions))),
        }
    }
}

/// An assignment in progress.
#[derive(Debug)]
pub(super) enum Plan {
    Uniform(Box<uniform::Uniform>),
    Range(Box<range::Range>),
}

impl Plan {
    /// Continues. Returns whether it is finished. `members` have the previous targets.
    pub(super) fn advance(
        &mut self,
        subscriptions: &Subscriptions,
        members: &Members,
        work: &mut Work,
    ) -> bool {
        match self {
            Self::Uniform(plan) => plan.advance(subscriptions, members, work),
            Self::Range(plan) => plan.advance(subscriptions, work),
        }
    }

    /// Takes the target of each member, in the order of their ids.
    pub(super) fn take_targets(&mut self) -> Vec<Target> {
        match self {
            Self::Uniform(plan) => std::mem::take(&mut plan.targets),
            Self::Range(plan) => std::mem::take(&mut plan.targets),
        }
    }
}

/// Returns the lower bound of a range that continues after this topic.
fn after(last: Option<TopicId>) -> Bound<TopicId> {
    last.map_or(Bound::Unbounded, Bound::Excluded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use highwater_protocol::ids::PartitionIndex;

    use super::*;
    use crate::coord::groups::request::Client;
    use crate::coord::groups::topics::Topics;

    fn indexes(numbers: std::ops::Range<u32>) -> impl Iterator<Item = PartitionIndex> {
        numbers.map(PartitionIndex)
    }

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    /// Assigns to members 0, 1, ... with these subscriptions and current targets. Returns the new targets.
    fn assign(assignor: Assignor, wants: &[&[u8]], has: &[Target], partitions: &[(u8, u32)]) -> Vec<Target> {
        let named =
            wants.iter().map(|wants| (wants.iter().map(|t| format!("t{t}")).collect(), String::new()));
        assign_to(assignor, &named.collect::<Vec<_>>(), has, partitions)
    }

    /// Does the same for members that subscribe to names and an expression.
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
        // Zero-padded ids, which are in the order of their numbers.
        let members: Members = wants
            .iter()
            .enumerate()
            .map(|(n, (names, regex))| {
                let mut member = Member::new(Client { id: String::new(), host: String::new() });
                member.topic_names = Rc::new(names.clone());
                member.topic_regex.clone_from(regex);
                member.target = has.get(n).cloned().unwrap_or_default();
                (format!("{n:05}"), member)
            })
            .collect();
        // However the work is divided, the result is the same.
        let whole = assign_in_slices(assignor, &members, &topics, usize::MAX);
        if wants.len() < 100 {
            assert!(assign_in_slices(assignor, &members, &topics, 1) == whole, "in small slices");
        }
        whole
    }

    fn assign_in_slices(assignor: Assignor, members: &Members, topics: &Topics, units: usize) -> Vec<Target> {
        let mut subscriptions = Subscriptions::new();
        while !subscriptions.advance(members, topics, &mut Work::new(units)) {}
        let mut plan = assignor.begin(&subscriptions);
        while !plan.advance(&subscriptions, members, &mut Work::new(units)) {}
        plan.take_targets()
    }

    fn loads(targets: &[Target]) -> Vec<usize> {
        targets.iter().map(|t| t.values().map(BTreeSet::len).sum()).collect()
    }

    fn all(targets: &[Target]) -> Vec<(TopicId, PartitionIndex)> {
        let mut all: Vec<_> =
            targets.iter().flatten().flat_map(|(t, p)| p.iter().map(move |p| (*t, *p))).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn loads_are_equal_and_every_partition_is_assigned_once() {
        let targets = assign(Assignor::Uniform, &[&[1, 2], &[1, 2], &[1, 2]], &[], &[(1, 5), (2, 3)]);
        let mut loads = loads(&targets);
        loads.sort_unstable();
        assert_eq!(loads, [2, 3, 3]);
        let expected: Vec<_> =
            indexes(0..5).map(|p| (topic(1), p)).chain(indexes(0..3).map(|p| (topic(2), p))).collect();
        assert_eq!(all(&targets), expected);
    }

    #[test]
    fn a_new_member_takes_only_its_share() {
        let two = assign(Assignor::Uniform, &[&[1], &[1]], &[], &[(1, 9)]);
        let three = assign(Assignor::Uniform, &[&[1], &[1], &[1]], &two, &[(1, 9)]);
        assert_eq!(loads(&three), [3, 3, 3]);
        for n in 0..2 {
            assert!(three[n][&topic(1)].is_subset(&two[n][&topic(1)]));
        }
    }

    #[test]
    fn members_get_only_topics_that_they_subscribe_to() {
        let targets = assign(Assignor::Uniform, &[&[1], &[1, 2], &[2]], &[], &[(1, 4), (2, 2)]);
        assert!(!targets[0].contains_key(&topic(2)) && !targets[2].contains_key(&topic(1)));
        assert_eq!(loads(&targets), [2, 2, 2]);
        // The first member had all partitions before the second, which subscribes only to topic 1, joined.
        let before =
            vec![Target::from([(topic(1), indexes(0..4).collect()), (topic(2), indexes(0..2).collect())])];
        let targets = assign(Assignor::Uniform, &[&[1, 2], &[1]], &before, &[(1, 4), (2, 2)]);
        assert_eq!(loads(&targets), [3, 3]);
    }

    #[test]
    fn a_topic_that_does_not_exist_is_left_out() {
        assert_eq!(assign(Assignor::Uniform, &[&[1, 9]], &[], &[(1, 1)])[0].len(), 1);
        assert_eq!(loads(&assign(Assignor::Uniform, &[&[], &[]], &[], &[(1, 1)])), [0, 0]);
    }

    #[test]
    fn range_divides_topics_with_equal_partition_counts_alike() {
        let targets = assign(Assignor::Range, &[&[1, 2], &[1, 2]], &[], &[(1, 3), (2, 3)]);
        for t in [1, 2] {
            assert_eq!(targets[0][&topic(t)], indexes(0..2).collect());
            assert_eq!(targets[1][&topic(t)], indexes(2..3).collect());
        }
        let few = assign(Assignor::Range, &[&[1], &[1], &[1]], &[], &[(1, 2)]);
        assert_eq!(loads(&few), [1, 1, 0]);
    }

    #[test]
    fn a_subscription_by_name_and_by_expression_counts_once() {
        let both = (BTreeSet::from(["t1".to_owned()]), "t.*".to_owned());
        let named = (BTreeSet::from(["t1".to_owned()]), String::new());
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let targets = assign_to(assignor, &[both.clone(), named.clone()], &[], &[(1, 4), (2, 2)]);
            assert_eq!(all(&targets).len(), 6, "every partition once");
            assert_eq!(targets[0][&topic(2)].len(), 2, "the other member does not subscribe to it");
            let of_first = if assignor == Assignor::Range { 2 } else { 1 };
            assert_eq!(targets[0][&topic(1)].len(), of_first, "{assignor:?}");
        }
    }

    #[test]
    fn both_assignors_handle_many_members_that_all_subscribe_to_many_topics() {
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
