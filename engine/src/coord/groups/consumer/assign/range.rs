//! The range assignor: each topic is cut into runs of partitions, one for each member that wants it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;

use highwater_protocol::ids::TopicId;

use super::wanted::Wanted;
use super::{Target, after};
use crate::coord::groups::limits::{ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER};
use crate::counters::Work;

/// An assignment that is being made.
#[derive(Debug)]
pub(in crate::coord::groups::consumer) struct Range {
    /// The members that were looked at, in the order in which they get their runs: by instance or member id.
    order: BTreeSet<(String, String, usize)>,
    looked_at: usize,
    /// The same in that order, which is their place.
    members: Vec<usize>,
    /// The places of the members of each class, in order.
    classes: Vec<Vec<usize>>,
    /// The last topic that was begun.
    topic: Option<TopicId>,
    cutting: Option<Cutting>,
    pub(super) targets: Vec<Target>,
}

/// A topic that is being cut.
#[derive(Debug)]
struct Cutting {
    topic: TopicId,
    partitions: u32,
    /// By their places.
    subscribers: Vec<usize>,
    /// How many of them have got their run, and the partition that comes next.
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

    /// Goes on. True when it is finished.
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
        // Who comes after as many members as there are partitions gets none, so one more stands for all of them.
        let subscribers = first(of.partitions as usize + 1, &self.classes, &of.classes);
        work.spend(ASSIGN_WORK_PER_ITEM * (1 + of.classes.len() + subscribers.len()));
        Some(Cutting { topic: *topic, partitions: of.partitions, subscribers, served: 0, next: 0 })
    }

    /// Gives members their runs of a topic. True when all have theirs.
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
                let run = (cutting.next..cutting.next + count).collect();
                self.targets[self.members[*place]].insert(cutting.topic, run);
            }
            cutting.next += count;
            cutting.served += 1;
        }
        true
    }
}

/// The first places among those of some classes, each once.
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
