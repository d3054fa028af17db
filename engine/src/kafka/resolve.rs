//! Looks up the topics and partitions that a request names, in slices.
//!
//! ```text
//!   the request --> which partitions are named twice, if that matters --> each topic, then each of its partitions --> finish
//! ```
//!
//! A request may name a hundred thousand topics, or as many partitions of one. A small request is resolved at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::vec::IntoIter;

use highwater_net::kafka::wire::Uuid;
use highwater_runtime::plane::ConnId;

use super::Call;
use super::names::Named;
use crate::meta::Metadata;
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
pub(crate) struct NamedTopic<P> {
    name: String,
    id: Uuid,
    partitions: Vec<P>,
}

impl<P> NamedTopic<P> {
    /// A topic that is named by its id, unless that is zero.
    pub(crate) fn new(name: &str, id: Uuid, partitions: Vec<P>) -> Self {
        Self { name: name.to_owned(), id, partitions }
    }
}

/// Topics and partitions that a request names, in their order: a topic is looked up, and then come its partitions.
pub(crate) struct LookUp<P> {
    topics: IntoIter<NamedTopic<P>>,
    partitions: IntoIter<P>,
}

/// What comes next of a request.
pub(crate) enum LookedUp<P> {
    /// A topic, of which so many partitions follow.
    Topic(Named, usize),
    /// What is wanted of a partition of the last topic.
    Partition(P),
}

impl<P> LookUp<P> {
    pub(crate) fn new(topics: Vec<NamedTopic<P>>) -> Self {
        Self { topics: topics.into_iter(), partitions: Vec::new().into_iter() }
    }

    /// What comes next, unless that was all.
    pub(crate) fn next(&mut self, metadata: Option<&Arc<Metadata>>, work: &mut Work) -> Option<LookedUp<P>> {
        if let Some(wanted) = self.partitions.next() {
            work.spend(1);
            return Some(LookedUp::Partition(wanted));
        }
        let NamedTopic { name, id, partitions } = self.topics.next()?;
        work.spend(2);
        self.partitions = partitions.into_iter();
        Some(LookedUp::Topic(Named::find(metadata, &name, id), self.partitions.len()))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.partitions.len() == 0 && self.topics.len() == 0
    }
}

/// Topics of a request that are looked up.
struct Resolving<R: Resolve> {
    call: Call,
    request: R,
    /// What is left to compare.
    repeats: Option<Repeats>,
    wanted: LookUp<R::Partition>,
    /// The topic that was looked up last, and its number among the names.
    named: Option<Named>,
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
        request,
        repeats: compares.then(Repeats::default),
        wanted: LookUp::new(topics),
        named: None,
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
            && !repeats.go_on(self.wanted.topics.as_slice(), R::index_to_compare, work)
        {
            // Nothing of the topics is taken before all are compared, and nothing compared again after that.
            return false;
        }
        while !work.is_over() {
            match self.wanted.next(context.metadata, work) {
                None => return true,
                Some(LookedUp::Topic(named, partitions)) => {
                    self.name = self.repeats.as_ref().map_or(0, |repeats| repeats.number_of(named.name()));
                    self.request.topic(self.named.insert(named), partitions);
                }
                Some(LookedUp::Partition(wanted)) => {
                    let Some(named) = &self.named else { continue };
                    let index = R::index_to_compare(&wanted);
                    let is_repeated = self
                        .repeats
                        .as_ref()
                        .zip(index)
                        .is_some_and(|(repeats, index)| repeats.twice.contains(&(self.name, index)));
                    self.request.partition(context, named, wanted, is_repeated);
                }
            }
        }
        self.wanted.is_done()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        self.request.finish(context, self.call);
    }
}
