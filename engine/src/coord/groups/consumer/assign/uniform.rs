//! The uniform assignor: everybody keeps what they had; the rest goes to whoever has least; then the richest give to the poorest while
//! that evens it out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::iter;

use highwater_protocol::ids::TopicId;

use super::{Candidate, Target};
use crate::coord::groups::consumer::subscription::Subscriptions;

pub(super) fn assign(candidates: &[Candidate<'_>], wanted: &Subscriptions<'_>) -> Vec<Target> {
    let mut assignment = Assignment::new(wanted, candidates.len());
    let mut free = assignment.keep(candidates);
    // Topics that few want first: those who want many can be served later.
    let subscribers = |topic: &TopicId| -> usize {
        wanted.topics[topic].1.iter().map(|class| wanted.classes[*class].len()).sum()
    };
    free.sort_by_cached_key(|(topic, _)| (subscribers(topic), *topic));
    for (topic, partitions) in free {
        assignment.give(topic, partitions);
    }
    let mut owners = assignment.owners();
    while assignment.even_out(&mut owners) {}
    assignment.targets
}

struct Assignment<'a> {
    wanted: &'a Subscriptions<'a>,
    targets: Vec<Target>,
    loads: Loads<'a>,
}

impl<'a> Assignment<'a> {
    fn new(wanted: &'a Subscriptions<'a>, members: usize) -> Self {
        Self { wanted, targets: vec![Target::new(); members], loads: Loads::new(wanted, members) }
    }

    /// Lets members keep what they have and still want. Gives the partitions of each topic that are free.
    fn keep(&mut self, candidates: &[Candidate<'_>]) -> Vec<(TopicId, Vec<u32>)> {
        // From what they have, which is less than what they want.
        let mut taken: BTreeMap<TopicId, BTreeSet<u32>> = BTreeMap::new();
        for (n, candidate) in candidates.iter().enumerate() {
            for (topic, partitions) in candidate.has {
                let Some((count, _)) = self.wanted.topics.get(topic) else { continue };
                if !self.wanted.wants[n].contains(*topic) {
                    continue;
                }
                let of_topic = taken.entry(*topic).or_default();
                let kept: BTreeSet<u32> =
                    partitions.iter().copied().filter(|p| p < count && of_topic.insert(*p)).collect();
                if !kept.is_empty() {
                    self.loads.add(n, kept.len());
                    self.targets[n].insert(*topic, kept);
                }
            }
        }
        let nothing = BTreeSet::new();
        let free = self.wanted.topics.iter().filter_map(|(topic, (count, _))| {
            let taken = taken.get(topic).unwrap_or(&nothing);
            let free: Vec<u32> = (0..*count).filter(|p| !taken.contains(p)).collect();
            (!free.is_empty()).then_some((*topic, free))
        });
        free.collect()
    }

    /// Gives partitions of a topic to those who have least.
    fn give(&mut self, topic: TopicId, partitions: Vec<u32>) {
        let mut poorest = Poorest::new(&self.loads, &self.wanted.topics[&topic].1);
        for partition in partitions {
            let Some(n) = poorest.find(&self.loads) else { return };
            self.targets[n].entry(topic).or_default().insert(partition);
            self.loads.add(n, 1);
        }
    }

    /// Who has partitions of each topic.
    fn owners(&self) -> BTreeMap<TopicId, BTreeSet<usize>> {
        let mut owners: BTreeMap<TopicId, BTreeSet<usize>> = BTreeMap::new();
        for (n, target) in self.targets.iter().enumerate() {
            for topic in target.keys() {
                owners.entry(*topic).or_default().insert(n);
            }
        }
        owners
    }

    /// One pass of moves. Each makes the loads more even, so that passes come to an end.
    fn even_out(&mut self, owners: &mut BTreeMap<TopicId, BTreeSet<usize>>) -> bool {
        let mut moved = false;
        for (topic, owners) in owners {
            if self.loads.are_even() {
                return false;
            }
            let mut richest: BinaryHeap<(usize, Reverse<usize>)> =
                owners.iter().map(|n| (self.loads.of[*n], Reverse(*n))).collect();
            let mut poorest = Poorest::new(&self.loads, &self.wanted.topics[topic].1);
            while let Some((load, Reverse(rich))) = richest.pop() {
                if self.loads.of[rich] != load || !owners.contains(&rich) {
                    continue;
                }
                let Some(poor) = poorest.find(&self.loads) else { break };
                if load <= self.loads.of[poor] + 1 {
                    break;
                }
                let of_topic = self.targets[rich].get_mut(topic).expect("an owner has some");
                let partition = of_topic.pop_last().expect("an owner has some");
                if of_topic.is_empty() {
                    self.targets[rich].remove(topic);
                    owners.remove(&rich);
                }
                self.targets[poor].entry(*topic).or_default().insert(partition);
                owners.insert(poor);
                self.loads.take(rich);
                self.loads.add(poor, 1);
                richest.extend([rich, poor].map(|n| (self.loads.of[n], Reverse(n))));
                moved = true;
            }
        }
        moved
    }
}

/// How many partitions each member has, and who has fewest.
struct Loads<'a> {
    of: Vec<usize>,
    all: BTreeSet<(usize, usize)>,
    by_class: Vec<BTreeSet<(usize, usize)>>,
    classes_of: &'a [(usize, Option<usize>)],
}

impl<'a> Loads<'a> {
    fn new(wanted: &'a Subscriptions<'a>, members: usize) -> Self {
        let by_class = wanted.classes.iter().map(|members| members.iter().map(|n| (0, *n)).collect());
        Self {
            of: vec![0; members],
            all: (0..members).map(|n| (0, n)).collect(),
            by_class: by_class.collect(),
            classes_of: &wanted.classes_of,
        }
    }

    fn add(&mut self, n: usize, more: usize) {
        self.set(n, self.of[n] + more);
    }

    fn take(&mut self, n: usize) {
        self.set(n, self.of[n] - 1);
    }

    fn set(&mut self, n: usize, load: usize) {
        let before = std::mem::replace(&mut self.of[n], load);
        self.all.remove(&(before, n));
        self.all.insert((load, n));
        let (named, matched) = self.classes_of[n];
        for class in iter::once(named).chain(matched) {
            self.by_class[class].remove(&(before, n));
            self.by_class[class].insert((load, n));
        }
    }

    fn are_even(&self) -> bool {
        let (least, most) = (self.all.first(), self.all.last());
        least.zip(most).is_none_or(|(least, most)| most.0 <= least.0 + 1)
    }
}

/// The member with the least load among some classes, again and again. Loads grow meanwhile; one that shrinks is noticed later, which
/// only means that another pass finds it.
struct Poorest(BinaryHeap<Reverse<(usize, usize, usize)>>);

impl Poorest {
    fn new(loads: &Loads<'_>, classes: &[usize]) -> Self {
        Self(classes.iter().filter_map(|class| Self::head(loads, *class)).collect())
    }

    fn head(loads: &Loads<'_>, class: usize) -> Option<Reverse<(usize, usize, usize)>> {
        loads.by_class[class].first().map(|(load, n)| Reverse((*load, *n, class)))
    }

    /// Who that is now.
    fn find(&mut self, loads: &Loads<'_>) -> Option<usize> {
        loop {
            let Reverse((load, n, class)) = *self.0.peek()?;
            if loads.by_class[class].first() == Some(&(load, n)) {
                return Some(n);
            }
            self.0.pop();
            self.0.extend(Self::head(loads, class));
        }
    }
}
