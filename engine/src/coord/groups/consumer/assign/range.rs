//! The range assignor: each topic is divided into contiguous ranges of partitions, one for each subscriber.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;

use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::wanted::Wanted;
use super::{Target, after};
use crate::coord::groups::limits::{ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER};
use crate::counters::Work;

/// An assignment in progress.
#[derive(Debug)]
pub(in crate::coord::groups::consumer) struct Range {
    /// The members read so far, in the order in which they get their ranges: by instance id or member id.
    order: BTreeSet<(String, String, usize)>,
    looked_at: usize,
    /// All members in that order. The position here is a member's place.
    members: Vec<usize>,
    /// The places of the members of each class, in order.
    classes: Vec<Vec<usize>>,
    /// The last topic that was started.
    topic: Option<TopicId>,
    cutting: Option<Cutting>,
    pub(super) targets: Vec<Target>,
}

/// A topic that is being divided.
#[derive(Debug)]
struct Cutting {
    topic: TopicId,
    partitions: u32,
    /// The places of its subscribers.
    subscribers: Vec<usize>,
    /// Number of subscribers that have their range, and the next partition to assign.
    served: usize,
    next: u32,
}

impl Range {
    pub(super) fn new(wanted: &Wanted) -> Self {
        Self {
            order: BTreeSet::new(),
            looked_at: 0,
            members: Vec::new(),
            classes: vec![Vec::new(); wanted.classes.len()],
            topic: None,
            cutting: None,
            targets: vec![Target::new(); wanted.members.len()],
        }
    }

    /// Continues. Returns whether it is finished.
    pub(super) fn go_on(&mut self, wanted: &Wanted, work: &mut Work) -> bool {
        while let Some(candidate) = wanted.members.get(self.looked_at) {
            if work.is_over() {
                return false;
            }
            work.spend(ASSIGN_WORK_PER_MEMBER);
            // A static member keeps its place when its id changes.
            let key = candidate.instance.as_ref().unwrap_or(&candidate.id).clone();
            self.order.insert((key, candidate.id.clone(), self.looked_at));
            self.looked_at += 1;
        }
        while let Some((.., member)) = self.order.pop_first() {
            work.spend(ASSIGN_WORK_PER_ITEM);
            let (named, matched) = wanted.members[member].classes;
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
            let Some(mut cutting) = self.cutting.take().or_else(|| self.begin_topic(wanted, work)) else {
                return true;
            };
            if !self.cut(&mut cutting, work) {
                self.cutting = Some(cutting);
            }
        }
    }

    fn begin_topic(&mut self, wanted: &Wanted, work: &mut Work) -> Option<Cutting> {
        let (topic, of) = wanted.topics.range((after(self.topic), Bound::Unbounded)).next()?;
        self.topic = Some(*topic);
        // Subscribers beyond the number of partitions get none, so one more stands for all of them.
        let subscribers = first(of.partitions as usize + 1, &self.classes, &of.classes);
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + of.classes.len() + subscribers.len()));
        Some(Cutting { topic: *topic, partitions: of.partitions, subscribers, served: 0, next: 0 })
    }

    /// Assigns ranges of a topic to its subscribers. Returns whether all have theirs.
    fn cut(&mut self, cutting: &mut Cutting, work: &mut Work) -> bool {
        let count = cutting.subscribers.len() as u32;
        let Some(each) = cutting.partitions.checked_div(count) else { return true };
        let more = (cutting.partitions % count) as usize;
        while let Some(place) = cutting.subscribers.get(cutting.served) {
            if work.is_over() {
                return false;
            }
            let count = each + u32::from(cutting.served < more);
            work.spend(ASSIGN_WORK_PER_ITEM * (1 + count as usize));
            if count > 0 {
                let run = (cutting.next..cutting.next + count).map(PartitionIndex).collect();
                self.targets[self.members[*place]].insert(cutting.topic, run);
            }
            cutting.next += count;
            cutting.served += 1;
        }
        true
    }
}

/// Returns the first places of some classes, each place once.
fn first(count: usize, classes: &[Vec<usize>], of: &[usize]) -> Vec<usize> {
    let mut heads: BinaryHeap<Reverse<(usize, usize, usize)>> =
        of.iter().filter_map(|class| Some(Reverse((*classes[*class].first()?, *class, 0)))).collect();
    let mut found: Vec<usize> = Vec::new();
    while found.len() < count
        && let Some(Reverse((place, class, at))) = heads.pop()
    {
        if found.last() != Some(&place) {
            found.push(place);
        }
        if let Some(next) = classes[class].get(at + 1) {
            heads.push(Reverse((*next, class, at + 1)));
        }
    }
    found
}
