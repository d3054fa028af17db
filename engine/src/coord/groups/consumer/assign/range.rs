//! The range assignor: each topic is divided into contiguous ranges of partitions, one for each subscriber.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::subscriptions::Subscriptions;
use super::{Target, after};
use crate::coord::groups::limits::{ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER};
use crate::counters::Work;

/// An assignment in progress.
#[derive(Debug)]
pub(in crate::coord::groups::consumer) struct Range {
    /// The members sorted so far, in the order in which they get their ranges: by instance id or member id.
    order: BTreeSet<(String, String, usize)>,
    /// Number of members that have been added to `order`.
    sorted: usize,
    /// The indexes of the members, in that order. The position in this list is the *rank* of a member.
    members: Vec<usize>,
    /// The ranks of the members of each class, in ascending order.
    classes: Vec<Vec<usize>>,
    /// The last topic that was started.
    topic: Option<TopicId>,
    split: Option<Split>,
    pub(super) targets: Vec<Target>,
}

/// A topic that is being divided.
#[derive(Debug)]
struct Split {
    topic: TopicId,
    partitions: u32,
    /// The ranks of its subscribers.
    subscribers: Vec<usize>,
    /// Number of subscribers that have their range, and the next partition to assign.
    served: usize,
    next: u32,
}

impl Range {
    pub(super) fn new(subscriptions: &Subscriptions) -> Self {
        Self {
            order: BTreeSet::new(),
            sorted: 0,
            members: Vec::new(),
            classes: vec![Vec::new(); subscriptions.classes.len()],
            topic: None,
            split: None,
            targets: vec![Target::new(); subscriptions.members.len()],
        }
    }

    /// Continues. Returns whether it is finished.
    pub(super) fn advance(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> bool {
        while let Some(candidate) = subscriptions.members.get(self.sorted) {
            if work.is_over() {
                return false;
            }
            work.spend(ASSIGN_WORK_PER_MEMBER);
            // A static member keeps its rank when its id changes.
            let key = candidate.instance.as_ref().unwrap_or(&candidate.id).clone();
            self.order.insert((key, candidate.id.clone(), self.sorted));
            self.sorted += 1;
        }
        while let Some((.., member)) = self.order.pop_first() {
            work.spend(ASSIGN_WORK_PER_ITEM);
            let (named, matched) = subscriptions.members[member].classes;
            for class in [Some(named), matched].into_iter().flatten() {
                self.classes[class].push(self.members.len());
            }
            self.members.push(member);
            if work.is_over() {
                return false;
            }
        }
        loop {
            if work.is_over() {
                return false;
            }
            let Some(mut split) = self.split.take().or_else(|| self.begin_topic(subscriptions, work)) else {
                return true;
            };
            if !self.assign_ranges(&mut split, work) {
                self.split = Some(split);
            }
        }
    }

    fn begin_topic(&mut self, subscriptions: &Subscriptions, work: &mut Work) -> Option<Split> {
        let (topic, of) = subscriptions.topics.range((after(self.topic), Bound::Unbounded)).next()?;
        self.topic = Some(*topic);
        // Only the first subscribers get a partition. One more than that is enough to compute the size of the ranges.
        let subscribers = lowest_ranks(of.partitions as usize + 1, &self.classes, &of.classes);
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + of.classes.len() + subscribers.len()));
        Some(Split { topic: *topic, partitions: of.partitions, subscribers, served: 0, next: 0 })
    }

    /// Assigns ranges of a topic to its subscribers. Returns whether all have theirs.
    fn assign_ranges(&mut self, split: &mut Split, work: &mut Work) -> bool {
        let count = split.subscribers.len() as u32;
        let Some(size) = split.partitions.checked_div(count) else { return true };
        let larger = (split.partitions % count) as usize;
        while let Some(rank) = split.subscribers.get(split.served) {
            if work.is_over() {
                return false;
            }
            let count = size + u32::from(split.served < larger);
            work.spend(ASSIGN_WORK_PER_ITEM * (1 + count as usize));
            if count > 0 {
                let range = (split.next..split.next + count).map(PartitionIndex).collect();
                self.targets[self.members[*rank]].insert(split.topic, range);
            }
            split.next += count;
            split.served += 1;
        }
        true
    }
}

/// Returns the `count` lowest ranks in some classes, without duplicates.
fn lowest_ranks(count: usize, classes: &[Vec<usize>], of: &[usize]) -> Vec<usize> {
    let mut heads: BinaryHeap<Reverse<(usize, usize, usize)>> =
        of.iter().filter_map(|class| Some(Reverse((*classes[*class].first()?, *class, 0)))).collect();
    let mut found: Vec<usize> = Vec::new();
    while found.len() < count
        && let Some(Reverse((rank, class, at))) = heads.pop()
    {
        if found.last() != Some(&rank) {
            found.push(rank);
        }
        if let Some(next) = classes[class].get(at + 1) {
            heads.push(Reverse((*next, class, at + 1)));
        }
    }
    found
}
