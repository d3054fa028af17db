//! The assignors: who is meant to have which partition.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use highwater_protocol::ids::TopicId;

use super::Target;

/// A way to assign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::groups) enum Assignor {
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
    pub(super) wants: Rc<BTreeSet<TopicId>>,
    /// The target so far.
    pub(super) has: &'a Target,
}

impl Assignor {
    pub(in crate::groups) fn from_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|a| a.name() == name)
    }

    pub(in crate::groups) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The target of each candidate, in their order.
    pub(super) fn assign(
        self,
        candidates: &[Candidate<'_>],
        partitions: impl Fn(TopicId) -> Option<u32>,
    ) -> Vec<Target> {
        let mut topics: BTreeMap<TopicId, (u32, Vec<usize>)> = BTreeMap::new();
        for (n, candidate) in candidates.iter().enumerate() {
            for topic in candidate.wants.iter() {
                if let Some(count) = partitions(*topic) {
                    topics.entry(*topic).or_insert_with(|| (count, Vec::new())).1.push(n);
                }
            }
        }
        match self {
            Self::Uniform => uniform(candidates, &topics),
            Self::Range => range(candidates, &topics),
        }
    }
}

/// Topics with their number of partitions and the candidates that want them.
type Wanted = BTreeMap<TopicId, (u32, Vec<usize>)>;

fn range(candidates: &[Candidate<'_>], topics: &Wanted) -> Vec<Target> {
    let mut targets = vec![Target::new(); candidates.len()];
    for (topic, (partitions, subscribers)) in topics {
        let mut order = subscribers.clone();
        // A static member keeps its place when its id changes.
        order.sort_by_key(|n| {
            (candidates[*n].instance.unwrap_or(candidates[*n].member), candidates[*n].member)
        });
        let (each, more) = (partitions / order.len() as u32, partitions % order.len() as u32);
        let mut next = 0;
        for (place, n) in order.into_iter().enumerate() {
            let count = each + u32::from((place as u32) < more);
            if count > 0 {
                targets[n].insert(*topic, (next..next + count).collect());
            }
            next += count;
        }
    }
    targets
}

/// Everybody keeps what they had; the rest goes to whoever has least; then the richest give to the poorest while that evens it out.
fn uniform(candidates: &[Candidate<'_>], topics: &Wanted) -> Vec<Target> {
    let mut targets = vec![Target::new(); candidates.len()];
    let mut load = vec![0_usize; candidates.len()];
    let mut free: Vec<(TopicId, u32)> = Vec::new();
    // From what they have, which is less than what they want: there may be many topics, and members of each.
    let none =
        |(topic, (partitions, _)): (&TopicId, &(u32, Vec<usize>))| (*topic, vec![None; *partitions as usize]);
    let mut owners: BTreeMap<TopicId, Vec<Option<usize>>> = topics.iter().map(none).collect();
    for (n, candidate) in candidates.iter().enumerate() {
        for (topic, partitions) in candidate.has.iter().filter(|(topic, _)| candidate.wants.contains(topic)) {
            let Some(owner) = owners.get_mut(topic) else { continue };
            for partition in partitions {
                if let Some(slot @ None) = owner.get_mut(*partition as usize) {
                    *slot = Some(n);
                }
            }
        }
    }
    for (topic, owner) in &owners {
        for (partition, owner) in (0..).zip(owner) {
            match *owner {
                Some(n) => {
                    targets[n].entry(*topic).or_default().insert(partition);
                    load[n] += 1;
                }
                None => free.push((*topic, partition)),
            }
        }
    }
    // Topics that few want first: those who want many can be served later.
    free.sort_by_key(|(topic, partition)| (topics[topic].1.len(), *topic, *partition));
    for (topic, partition) in free {
        let poorest = topics[&topic].1.iter().min_by_key(|n| load[**n]).expect("somebody wants it");
        targets[*poorest].entry(topic).or_default().insert(partition);
        load[*poorest] += 1;
    }
    while even_out(topics, &mut targets, &mut load) {}
    targets
}

fn is_even(load: &[usize]) -> bool {
    let (least, most) = (load.iter().min(), load.iter().max());
    least.zip(most).is_none_or(|(least, most)| *most <= least + 1)
}

/// One pass of moves. Each makes the loads more even, so that passes come to an end.
fn even_out(topics: &Wanted, targets: &mut [Target], load: &mut [usize]) -> bool {
    let mut moved = false;
    for (topic, (_, subscribers)) in topics {
        if is_even(load) {
            return false;
        }
        let richest = |targets: &[Target], load: &[usize]| {
            let owners =
                subscribers.iter().filter(|n| targets[**n].get(topic).is_some_and(|p| !p.is_empty()));
            owners.copied().max_by_key(|n| load[*n])
        };
        while let Some(rich) = richest(targets, load) {
            let poor = *subscribers.iter().min_by_key(|n| load[**n]).expect("the rich one at least");
            if load[rich] <= load[poor] + 1 {
                break;
            }
            let of_topic = targets[rich].get_mut(topic).expect("filtered above");
            let partition = of_topic.pop_last().expect("filtered above");
            if of_topic.is_empty() {
                targets[rich].remove(topic);
            }
            targets[poor].entry(*topic).or_default().insert(partition);
            load[rich] -= 1;
            load[poor] += 1;
            moved = true;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    /// Assigns to members "0", "1", .. that want these topics and have these targets; gives the targets.
    fn assign(assignor: Assignor, wants: &[&[u8]], has: &[Target], partitions: &[(u8, u32)]) -> Vec<Target> {
        let names: Vec<String> = (0..wants.len()).map(|n| n.to_string()).collect();
        let none = Target::new();
        let candidates: Vec<Candidate<'_>> = wants
            .iter()
            .enumerate()
            .map(|(n, wants)| Candidate {
                member: &names[n],
                instance: None,
                wants: Rc::new(wants.iter().map(|t| topic(*t)).collect()),
                has: has.get(n).unwrap_or(&none),
            })
            .collect();
        assignor.assign(&candidates, |t| partitions.iter().find(|(n, _)| topic(*n) == t).map(|(_, p)| *p))
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
}
