//! Looking up the topics and partitions that a request names, as many as a turn allows.
//!
//! ```text
//!   the request --> which partitions are named twice, if that matters --> each topic, then each of its partitions --> finish
//! ```
//!
//! A request may name a hundred thousand topics, or as many partitions of one. A small request is resolved at once.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::IntoIter;

use highwater_runtime::plane::ConnId;

use super::Call;
use super::names::{Named, find_topic};
use crate::shard::{ClientJob, Context, Work};

/// A request, with what was found of the topics and partitions that it names so far.
pub(super) trait Resolve {
    /// What is wanted of a partition.
    type Partition;

    /// Returns the partition's number, if partitions that are named twice are to be told apart.
    fn index_to_compare(wanted: &Self::Partition) -> Option<i32>;

    /// Takes a topic, of which so many partitions are named. These follow.
    fn topic(&mut self, named: &Named, partitions: usize);

    /// Takes what is wanted of a partition of the last topic. `is_repeated`: the request names it more than once.
    fn partition(&mut self, context: &Context<'_>, named: &Named, wanted: Self::Partition, is_repeated: bool);

    /// Carries out the request, when all is found.
    fn finish(self, context: &mut Context<'_>, call: Call);
}

/// A topic as it is named, and what is wanted of its partitions.
pub(super) struct NamedTopic<P> {
    pub(super) name: String,
    pub(super) partitions: Vec<P>,
}

/// Topics of a request that are looked up.
struct Resolving<R: Resolve> {
    call: Call,
    /// None once it is carried out.
    request: Option<R>,
    /// What is left to compare.
    repeats: Option<Repeats>,
    topics: IntoIter<NamedTopic<R::Partition>>,
    /// The topic that was looked up last, its partitions, and its number among the names.
    named: Option<Named>,
    partitions: IntoIter<R::Partition>,
    name: usize,
}

/// Partitions that are named more than once.
#[derive(Default)]
struct Repeats {
    /// Topics and partitions of the last one of these that were compared.
    compared: (usize, usize),
    names: BTreeMap<String, usize>,
    seen: BTreeSet<(usize, i32)>,
    twice: BTreeSet<(usize, i32)>,
}

/// Looks up what a request names, and has it carried out then.
pub(super) fn resolve<R: Resolve + 'static>(
    context: &mut Context<'_>,
    call: Call,
    topics: Vec<NamedTopic<R::Partition>>,
    request: R,
) where
    R::Partition: 'static,
{
    let mut partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let compares = partitions.next().and_then(R::index_to_compare).is_some() && partitions.next().is_some();
    let job = Resolving {
        call,
        request: Some(request),
        repeats: compares.then(Repeats::default),
        topics: topics.into_iter(),
        named: None,
        partitions: Vec::new().into_iter(),
        name: 0,
    };
    context.begin_job(job);
}

impl Repeats {
    /// Compares on. True when all partitions were.
    fn go_on<P>(
        &mut self,
        topics: &[NamedTopic<P>],
        index: impl Fn(&P) -> Option<i32>,
        work: &mut Work,
    ) -> bool {
        while let Some(topic) = topics.get(self.compared.0) {
            let next = self.names.len();
            let name = *self.names.entry(topic.name.clone()).or_insert(next);
            work.spend(1);
            let left = topic.partitions.get(self.compared.1..).unwrap_or_default();
            for partition in left {
                if work.is_over() {
                    return false;
                }
                work.spend(1);
                self.compared.1 += 1;
                if let Some(index) = index(partition)
                    && !self.seen.insert((name, index))
                {
                    self.twice.insert((name, index));
                }
            }
            self.compared = (self.compared.0 + 1, 0);
            if work.is_over() {
                return false;
            }
        }
        true
    }

    fn number_of(&self, name: &str) -> usize {
        self.names.get(name).copied().unwrap_or_default()
    }
}

impl<R: Resolve> ClientJob for Resolving<R> {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn go_on(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        if let Some(repeats) = &mut self.repeats
            && !repeats.go_on(self.topics.as_slice(), R::index_to_compare, work)
        {
            // Nothing of the topics is taken before all are compared, and nothing compared again after that.
            return false;
        }
        let Some(request) = &mut self.request else { return true };
        while !work.is_over() {
            if let (Some(named), Some(wanted)) = (&self.named, self.partitions.next()) {
                work.spend(1);
                let index = R::index_to_compare(&wanted);
                let is_repeated = self
                    .repeats
                    .as_ref()
                    .zip(index)
                    .is_some_and(|(repeats, index)| repeats.twice.contains(&(self.name, index)));
                request.partition(context, named, wanted, is_repeated);
            } else if let Some(NamedTopic { name, partitions }) = self.topics.next() {
                work.spend(2);
                self.name = self.repeats.as_ref().map_or(0, |repeats| repeats.number_of(&name));
                request.topic(self.named.insert(find_topic(context, &name, [0; 16])), partitions.len());
                self.partitions = partitions.into_iter();
            } else {
                return true;
            }
        }
        self.partitions.len() == 0 && self.topics.len() == 0
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        if let Some(request) = self.request.take() {
            request.finish(context, self.call);
        }
    }
}
