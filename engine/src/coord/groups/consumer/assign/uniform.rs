//! The uniform assignor: every member keeps its partitions; the others go to the members with the smallest load; then members with the largest load
//! pass partitions to those with the smallest, while that makes the loads more equal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::loads::{Loads, Poorest};
use super::wanted::Wanted;
use super::{Members, Target, after};
use crate::coord::groups::limits::{ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER, ASSIGN_WORK_PER_PARTITION};
use crate::counters::Work;

/// An assignment in progress.
#[derive(Debug)]
pub(in crate::coord::groups::consumer) struct Uniform {
    stage: Stage,
    /// The member, and the topic after which the stage continues.
    member: usize,
    topic: Option<TopicId>,
    pub(super) targets: Vec<Target>,
    loads: Loads,
    taken: BTreeMap<TopicId, Taken>,
    /// Topics with unassigned partitions, by the number of their subscribers.
    free: BTreeSet<(usize, TopicId)>,
    giving: Option<Giving>,
    /// The members that have partitions of each topic.
    owners: BTreeMap<TopicId, BTreeSet<usize>>,
    evening: Option<Evening>,
    /// Whether this pass over the topics has moved a partition.
    moved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Members keep the partitions that they have and still subscribe to.
    Keep,
    /// Finds topics with unassigned partitions.
    FindFree,
    /// Assigns these to the members with the smallest load.
    Give,
    FindOwners,
    EvenOut,
    /// Frees memory that is no longer needed, in steps, because freeing much at once takes long.
    Clear,
}

/// A topic with partitions that are being assigned.
#[derive(Debug)]
struct Giving {
    topic: TopicId,
    partitions: u32,
    next: u32,
    poorest: Poorest,
}

/// A topic with partitions that are being moved.
#[derive(Debug)]
struct Evening {
    topic: TopicId,
    richest: BinaryHeap<(usize, Reverse<usize>)>,
    poorest: Poorest,
}

impl Uniform {
    pub(super) fn new(wanted: &Wanted) -> Self {
        Self {
            stage: Stage::Keep,
            member: 0,
            topic: None,
            targets: Vec::new(),
            loads: Loads::new(wanted.classes.len()),
            taken: BTreeMap::new(),
            free: BTreeSet::new(),
            giving: None,
            owners: BTreeMap::new(),
            evening: None,
            moved: false,
        }
    }

    /// Continues. Returns whether it is finished.
    pub(super) fn go_on(&mut self, wanted: &Wanted, members: &Members, work: &mut Work) -> bool {
        loop {
            let (is_over, next) = match self.stage {
                Stage::Keep => (self.keep(wanted, members, work), Stage::FindFree),
                Stage::FindFree => (self.find_free(wanted, work), Stage::Give),
                // Topics with few subscribers first: members with many subscriptions can be served later.
                Stage::Give => (self.give(wanted, work), Stage::FindOwners),
                Stage::FindOwners => (self.find_owners(work), Stage::EvenOut),
                Stage::EvenOut => (self.even_out(wanted, work), Stage::Clear),
                Stage::Clear => return self.clear(work),
            };
            if !is_over {
                return false;
            }
            (self.stage, self.member, self.topic) = (next, 0, None);
        }
    }

    fn keep(&mut self, wanted: &Wanted, members: &Members, work: &mut Work) -> bool {
        while let Some(candidate) = wanted.members.get(self.member) {
            if work.is_over() {
                return false;
            }
            if self.member == self.targets.len() {
                work.spend(ASSIGN_WORK_PER_MEMBER);
                self.targets.push(Target::new());
                self.loads.enter(candidate.classes);
            }
            // Iterates over what they have, which is less than what they subscribe to.
            let from = (after(self.topic), Bound::Unbounded);
            let has = members.get(&candidate.id).into_iter().flat_map(|member| member.target.range(from));
            for (topic, partitions) in has {
                if work.is_over() {
                    return false;
                }
                work.spend(ASSIGN_WORK_PER_ITEM * (1 + partitions.len()));
                self.topic = Some(*topic);
                let Some(of) = wanted.topics.get(topic).filter(|of| of.is_wanted_by(candidate.classes))
                else {
                    continue;
                };
                let taken = self.taken.entry(*topic).or_default();
                let mut keep = |p: &PartitionIndex| p.0 < of.partitions && taken.insert(*p);
                let kept: BTreeSet<_> = partitions.iter().copied().filter(|p| keep(p)).collect();
                if !kept.is_empty() {
                    self.loads.add(self.member, kept.len());
                    self.targets[self.member].insert(*topic, kept);
                }
            }
            self.member += 1;
            self.topic = None;
        }
        true
    }

    fn find_free(&mut self, wanted: &Wanted, work: &mut Work) -> bool {
        for (topic, of) in wanted.topics.range((after(self.topic), Bound::Unbounded)) {
            if work.is_over() {
                return false;
            }
            work.spend(ASSIGN_WORK_PER_ITEM + of.classes.len());
            self.topic = Some(*topic);
            if self.taken.get(topic).map_or(0, |taken| taken.count) < of.partitions {
                let subscribers = of.classes.iter().map(|class| wanted.classes[*class].members.len()).sum();
                self.free.insert((subscribers, *topic));
            }
        }
        true
    }

    /// Assigns partitions to the members with the smallest load.
    fn give(&mut self, wanted: &Wanted, work: &mut Work) -> bool {
        loop {
            if work.is_over() {
                return false;
            }
            let Some(mut giving) = self.giving.take().or_else(|| self.begin_giving(wanted, work)) else {
                return true;
            };
            if !self.give_some(&mut giving, work) {
                self.giving = Some(giving);
            }
        }
    }

    /// Starts the next topic.
    fn begin_giving(&mut self, wanted: &Wanted, work: &mut Work) -> Option<Giving> {
        let (_, topic) = self.free.pop_first()?;
        let of = &wanted.topics[&topic];
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + of.classes.len()));
        let poorest = Poorest::new(&self.loads, &of.classes);
        Some(Giving { topic, partitions: of.partitions, next: 0, poorest })
    }

    /// Assigns partitions of a topic. Returns whether none is left.
    fn give_some(&mut self, giving: &mut Giving, work: &mut Work) -> bool {
        let taken = self.taken.get(&giving.topic);
        while giving.next < giving.partitions {
            if work.is_over() {
                return false;
            }
            let partition = PartitionIndex(giving.next);
            giving.next += 1;
            if taken.is_some_and(|taken| taken.contains(partition)) {
                work.spend(1);
                continue;
            }
            work.spend(ASSIGN_WORK_PER_PARTITION);
            let Some(n) = giving.poorest.find(&self.loads) else { return true };
            self.targets[n].entry(giving.topic).or_default().insert(partition);
            self.loads.add(n, 1);
        }
        true
    }

    fn find_owners(&mut self, work: &mut Work) -> bool {
        while let Some(target) = self.targets.get(self.member) {
            for topic in target.range((after(self.topic), Bound::Unbounded)).map(|(topic, _)| *topic) {
                if work.is_over() {
                    return false;
                }
                work.spend(2 * ASSIGN_WORK_PER_ITEM);
                self.topic = Some(topic);
                self.owners.entry(topic).or_default().insert(self.member);
            }
            work.spend(1);
            self.member += 1;
            self.topic = None;
        }
        true
    }

    /// Runs passes of moves while they move something. Each move makes the loads more equal, so passes end.
    fn even_out(&mut self, wanted: &Wanted, work: &mut Work) -> bool {
        loop {
            if work.is_over() {
                return false;
            }
            let mut evening = match self.evening.take() {
                Some(evening) => evening,
                None if self.loads.are_even() => return true,
                None => match self.begin_evening(wanted, work) {
                    Some(evening) => evening,
                    None if self.moved => {
                        (self.moved, self.topic) = (false, None);
                        continue;
                    }
                    None => return true,
                },
            };
            if !self.even_out_topic(&mut evening, work) {
                self.evening = Some(evening);
            }
        }
    }

    /// Starts the next topic of a pass.
    fn begin_evening(&mut self, wanted: &Wanted, work: &mut Work) -> Option<Evening> {
        let (topic, owners) = self.owners.range((after(self.topic), Bound::Unbounded)).next()?;
        self.topic = Some(*topic);
        let classes = &wanted.topics[topic].classes;
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + owners.len() + classes.len()));
        let richest = owners.iter().map(|n| (self.loads.of(*n), Reverse(*n))).collect();
        Some(Evening { topic: *topic, richest, poorest: Poorest::new(&self.loads, classes) })
    }

    /// Moves partitions of a topic. Returns whether no move would make the loads more equal.
    fn even_out_topic(&mut self, evening: &mut Evening, work: &mut Work) -> bool {
        let topic = evening.topic;
        let owners = self.owners.get_mut(&topic).expect("the topic has an entry");
        loop {
            if work.is_over() {
                return false;
            }
            let Some((load, Reverse(rich))) = evening.richest.pop() else { return true };
            work.spend(ASSIGN_WORK_PER_ITEM);
            if self.loads.of(rich) != load || !owners.contains(&rich) {
                continue;
            }
            let Some(poor) = evening.poorest.find(&self.loads) else { return true };
            if load <= self.loads.of(poor) + 1 {
                return true;
            }
            work.spend(2 * ASSIGN_WORK_PER_PARTITION);
            let of_topic = self.targets[rich].get_mut(&topic).expect("an owner has some");
            let partition = of_topic.pop_last().expect("an owner has some");
            if of_topic.is_empty() {
                self.targets[rich].remove(&topic);
                owners.remove(&rich);
            }
            self.targets[poor].entry(topic).or_default().insert(partition);
            owners.insert(poor);
            self.loads.take(rich);
            self.loads.add(poor, 1);
            evening.richest.extend([rich, poor].map(|n| (self.loads.of(n), Reverse(n))));
            self.moved = true;
        }
    }

    fn clear(&mut self, work: &mut Work) -> bool {
        while !work.is_over()
            && let (Some(_), _) | (_, Some(_)) = (self.owners.pop_first(), self.taken.pop_first())
        {
            work.spend(ASSIGN_WORK_PER_ITEM);
        }
        self.owners.is_empty() && self.taken.is_empty()
    }
}

/// The partitions of a topic that members have kept.
#[derive(Default, Debug)]
struct Taken {
    bits: Vec<u64>,
    count: u32,
}

impl Taken {
    /// Returns false if it was taken before.
    fn insert(&mut self, partition: PartitionIndex) -> bool {
        if self.contains(partition) {
            return false;
        }
        let word = partition.0 as usize / 64;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (partition.0 % 64);
        self.count += 1;
        true
    }

    fn contains(&self, partition: PartitionIndex) -> bool {
        self.bits.get(partition.0 as usize / 64).is_some_and(|word| word & 1 << (partition.0 % 64) != 0)
    }
}
