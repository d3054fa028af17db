//! The uniform assignor. Every member keeps its partitions. Unassigned ones are placed on the members with the smallest load. Then partitions move from
//! members with the largest load to those with the smallest, as long as that makes the loads more equal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::loads::{LeastLoaded, Loads};
use super::subscriptions::Subscriptions;
use super::{Members, Target, after};
use crate::coord::groups::limits::{ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER, ASSIGN_WORK_PER_PARTITION};
use crate::counters::Work;

/// An assignment in progress.
#[derive(Debug)]
pub(in crate::coord::groups::consumer) struct Uniform {
    stage: Stage,
    /// The member at which the stage continues, and the topic after which it does.
    member: usize,
    topic: Option<TopicId>,
    pub(super) targets: Vec<Target>,
    loads: Loads,
    taken: BTreeMap<TopicId, Taken>,
    /// Topics with unassigned partitions, by the number of their subscribers.
    free: BTreeSet<(usize, TopicId)>,
    placing: Option<Placing>,
    /// The members that have partitions of each topic.
    owners: BTreeMap<TopicId, BTreeSet<usize>>,
    balancing: Option<Balancing>,
    /// Whether this pass over the topics has moved a partition.
    moved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Members keep the partitions that they have and still subscribe to.
    Keep,
    /// Finds topics with unassigned partitions.
    FindFree,
    /// Places these partitions on the members with the smallest load.
    Place,
    FindOwners,
    Balance,
    /// Frees memory that is no longer needed, in steps, because freeing much at once takes long.
    Clear,
}

/// A topic whose unassigned partitions are being placed.
#[derive(Debug)]
struct Placing {
    topic: TopicId,
    partitions: u32,
    next: u32,
    least_loaded: LeastLoaded,
}

/// A topic whose partitions are being moved.
#[derive(Debug)]
struct Balancing {
    topic: TopicId,
    most_loaded: BinaryHeap<(usize, Reverse<usize>)>,
    least_loaded: LeastLoaded,
}

impl Uniform {
    pub(super) fn new(subscriptions: &Subscriptions) -> Self {
        Self {
            stage: Stage::Keep,
            member: 0,
            topic: None,
            targets: Vec::new(),
            loads: Loads::new(subscriptions.classes.len()),
            taken: BTreeMap::new(),
            free: BTreeSet::new(),
            placing: None,
            owners: BTreeMap::new(),
            balancing: None,
            moved: false,
        }
    }

    /// Continues. Returns whether it is finished.
    pub(super) fn advance(
        &mut self,
        subscriptions: &Subscriptions,
        members: &Members,
        work: &mut Work,
    ) -> bool {
        loop {
            let (is_over, next) = match self.stage {
                Stage::Keep => (self.keep(subscriptions, members, work), Stage::FindFree),
                Stage::FindFree => (self.find_free(subscriptions, work), Stage::Place),
                // Topics with few subscribers first: there are more members to place the others on.
                Stage::Place => (self.place(subscriptions, work), Stage::FindOwners),
                Stage::FindOwners => (self.find_owners(work), Stage::Balance),
                Stage::Balance => (self.balance(subscriptions, work), Stage::Clear),
                Stage::Clear => return self.clear(work),
            };
            if !is_over {
                return false;
            }
            (self.stage, self.member, self.topic) = (next, 0, None);
        }
    }

    fn keep(&mut self, subscriptions: &Subscriptions, members: &Members, work: &mut Work) -> bool {
        while let Some(candidate) = subscriptions.members.get(self.member) {
            if work.is_over() {
                return false;
            }
            if self.member == self.targets.len() {
                work.spend(ASSIGN_WORK_PER_MEMBER);
                self.targets.push(Target::new());
                self.loads.push(candidate.classes);
            }
            // Iterates over the partitions that they have, which are fewer than those that they subscribe to.
            let from = (after(self.topic), Bound::Unbounded);
            let has = members.get(&candidate.id).into_iter().flat_map(|member| member.target.range(from));
            for (topic, partitions) in has {
                if work.is_over() {
                    return false;
                }
                work.spend(ASSIGN_WORK_PER_ITEM * (1 + partitions.len()));
                self.topic = Some(*topic);
                let Some(of) =
                    subscriptions.topics.get(topic).filter(|of| of.is_subscribed_by(candidate.classes))
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

    fn find_free(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> bool {
        for (topic, of) in subscriptions.topics.range((after(self.topic), Bound::Unbounded)) {
            if work.is_over() {
                return false;
            }
            work.spend(ASSIGN_WORK_PER_ITEM + of.classes.len());
            self.topic = Some(*topic);
            if self.taken.get(topic).map_or(0, |taken| taken.count) < of.partitions {
                let subscribers =
                    of.classes.iter().map(|class| subscriptions.classes[*class].members.len()).sum();
                self.free.insert((subscribers, *topic));
            }
        }
        true
    }

    /// Places unassigned partitions on the members with the smallest load.
    fn place(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> bool {
        loop {
            if work.is_over() {
                return false;
            }
            let Some(mut placing) = self.placing.take().or_else(|| self.begin_placing(subscriptions, work))
            else {
                return true;
            };
            if !self.place_some(&mut placing, work) {
                self.placing = Some(placing);
            }
        }
    }

    /// Starts the next topic.
    fn begin_placing(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> Option<Placing> {
        let (_, topic) = self.free.pop_first()?;
        let of = &subscriptions.topics[&topic];
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + of.classes.len()));
        let least_loaded = LeastLoaded::new(&self.loads, &of.classes);
        Some(Placing { topic, partitions: of.partitions, next: 0, least_loaded })
    }

    /// Places partitions of a topic. Returns whether none is left.
    fn place_some(&mut self, placing: &mut Placing, work: &mut Work) -> bool {
        let taken = self.taken.get(&placing.topic);
        while placing.next < placing.partitions {
            if work.is_over() {
                return false;
            }
            let partition = PartitionIndex(placing.next);
            placing.next += 1;
            if taken.is_some_and(|taken| taken.contains(partition)) {
                work.spend(1);
                continue;
            }
            work.spend(ASSIGN_WORK_PER_PARTITION);
            let Some(n) = placing.least_loaded.find(&self.loads) else { return true };
            self.targets[n].entry(placing.topic).or_default().insert(partition);
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

    /// Runs passes over the topics until one moves nothing. Each move makes the loads more equal, so there is a last pass.
    fn balance(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> bool {
        loop {
            if work.is_over() {
                return false;
            }
            let mut balancing = match self.balancing.take() {
                Some(balancing) => balancing,
                None if self.loads.are_balanced() => return true,
                None => match self.begin_balancing(subscriptions, work) {
                    Some(balancing) => balancing,
                    None if self.moved => {
                        (self.moved, self.topic) = (false, None);
                        continue;
                    }
                    None => return true,
                },
            };
            if !self.balance_topic(&mut balancing, work) {
                self.balancing = Some(balancing);
            }
        }
    }

    /// Starts the next topic of a pass.
    fn begin_balancing(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> Option<Balancing> {
        let (topic, owners) = self.owners.range((after(self.topic), Bound::Unbounded)).next()?;
        self.topic = Some(*topic);
        let classes = &subscriptions.topics[topic].classes;
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + owners.len() + classes.len()));
        let most_loaded = owners.iter().map(|n| (self.loads.of(*n), Reverse(*n))).collect();
        Some(Balancing { topic: *topic, most_loaded, least_loaded: LeastLoaded::new(&self.loads, classes) })
    }

    /// Moves partitions of a topic. Returns whether no move would make the loads more equal.
    fn balance_topic(&mut self, balancing: &mut Balancing, work: &mut Work) -> bool {
        let topic = balancing.topic;
        let owners = self.owners.get_mut(&topic).expect("the topic has an entry");
        loop {
            if work.is_over() {
                return false;
            }
            let Some((load, Reverse(from_member))) = balancing.most_loaded.pop() else { return true };
            work.spend(ASSIGN_WORK_PER_ITEM);
            if self.loads.of(from_member) != load || !owners.contains(&from_member) {
                continue;
            }
            let Some(to_member) = balancing.least_loaded.find(&self.loads) else { return true };
            if load <= self.loads.of(to_member) + 1 {
                return true;
            }
            work.spend(2 * ASSIGN_WORK_PER_PARTITION);
            let of_topic =
                self.targets[from_member].get_mut(&topic).expect("an owner has partitions of the topic");
            let partition = of_topic.pop_last().expect("an owner has partitions of the topic");
            if of_topic.is_empty() {
                self.targets[from_member].remove(&topic);
                owners.remove(&from_member);
            }
            self.targets[to_member].entry(topic).or_default().insert(partition);
            owners.insert(to_member);
            self.loads.take(from_member);
            self.loads.add(to_member, 1);
            balancing.most_loaded.extend([from_member, to_member].map(|n| (self.loads.of(n), Reverse(n))));
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
    /// Returns false if the partition was taken already.
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
