//! Looks up the topics and partitions that a request names, in slices.
//!
//! ```text
//!   the request --> find duplicate partitions, if the request rejects them --> look up each topic and its partitions --> finish
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
use crate::context::{ClientJob, Context};
use crate::counters::Work;
use crate::meta::Metadata;

/// A request whose topics and partitions are being looked up, with the results so far.
pub(super) trait Resolve {
    /// The request's entry for a partition.
    type Partition;

    /// Returns the partition's index if the request has to find duplicates, otherwise `None`.
    fn index_to_compare(partition: &Self::Partition) -> Option<i32>;

    /// Adds a topic. Its partitions, of which there are `partitions`, follow.
    fn topic(&mut self, named: &Named, partitions: usize);

    /// Adds a partition of the last topic. `is_repeated`: the request has it more than once.
    fn partition(
        &mut self,
        context: &Context<'_>,
        named: &Named,
        partition: Self::Partition,
        is_repeated: bool,
    );

    /// Carries out the request after everything was looked up.
    fn finish(self, context: &mut Context<'_>, call: Call);
}

/// A topic of a request, with the entries for its partitions.
pub(crate) struct NamedTopic<P> {
    name: String,
    id: Uuid,
    partitions: Vec<P>,
}

impl<P> NamedTopic<P> {
    /// Creates a topic that is identified by `id`, or by `name` if the id is zero.
    pub(crate) fn new(name: &str, id: Uuid, partitions: Vec<P>) -> Self {
        Self { name: name.to_owned(), id, partitions }
    }
}

/// Looks up the topics of a request in order. Each topic is followed by its partitions.
pub(crate) struct TopicLookup<P> {
    topics: IntoIter<NamedTopic<P>>,
    partitions: IntoIter<P>,
}

/// The next item of a [`TopicLookup`].
pub(crate) enum LookupItem<P> {
    /// A topic, and the number of its partitions, which follow.
    Topic(Named, usize),
    /// The entry for a partition of the last topic.
    Partition(P),
}

impl<P> TopicLookup<P> {
    pub(crate) fn new(topics: Vec<NamedTopic<P>>) -> Self {
        Self { topics: topics.into_iter(), partitions: Vec::new().into_iter() }
    }

    /// Returns the next item, or `None` at the end.
    pub(crate) fn next(
        &mut self,
        metadata: Option<&Arc<Metadata>>,
        work: &mut Work,
    ) -> Option<LookupItem<P>> {
        if let Some(partition) = self.partitions.next() {
            work.spend(1);
            return Some(LookupItem::Partition(partition));
        }
        let NamedTopic { name, id, partitions } = self.topics.next()?;
        work.spend(2);
        self.partitions = partitions.into_iter();
        Some(LookupItem::Topic(Named::find(metadata, &name, id), self.partitions.len()))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.partitions.len() == 0 && self.topics.len() == 0
    }
}

/// Looks up the topics of a request, a slice per turn.
struct ResolveJob<R: Resolve> {
    call: Call,
    request: R,
    /// The search for duplicates, if the request needs it.
    duplicates: Option<Duplicates>,
    lookup: TopicLookup<R::Partition>,
    /// The topic that was looked up last, and the number of its name.
    named: Option<Named>,
    name: usize,
}

/// Finds partitions that a request has more than once.
#[derive(Default)]
struct Duplicates {
    /// Number of topics that were compared, and of partitions of the next topic.
    compared: (usize, usize),
    names: BTreeMap<String, usize>,
    seen: BTreeSet<(usize, i32)>,
    repeated: BTreeSet<(usize, i32)>,
}

/// Looks up the topics and partitions of a request, then carries it out.
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
    let job = ResolveJob {
        call,
        request,
        duplicates: compares.then(Duplicates::default),
        lookup: TopicLookup::new(topics),
        named: None,
        name: 0,
    };
    context.begin_job(job);
}

impl Duplicates {
    /// Compares more partitions. Returns true when all have been compared.
    fn run_slice<P>(
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
                    self.repeated.insert((name, index));
                }
            }
            self.compared = (self.compared.0 + 1, 0);
            if work.is_over() {
                return false;
            }
        }
        true
    }

    fn name_number(&self, name: &str) -> usize {
        self.names.get(name).copied().unwrap_or_default()
    }
}

impl<R: Resolve> ClientJob for ResolveJob<R> {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        if let Some(duplicates) = &mut self.duplicates
            && !duplicates.run_slice(self.lookup.topics.as_slice(), R::index_to_compare, work)
        {
            // No topic is looked up before all are compared, and none is compared again after that.
            return false;
        }
        while !work.is_over() {
            match self.lookup.next(context.metadata, work) {
                None => return true,
                Some(LookupItem::Topic(named, partitions)) => {
                    self.name =
                        self.duplicates.as_ref().map_or(0, |duplicates| duplicates.name_number(named.name()));
                    self.request.topic(self.named.insert(named), partitions);
                }
                Some(LookupItem::Partition(partition)) => {
                    let Some(named) = &self.named else { continue };
                    let index = R::index_to_compare(&partition);
                    let is_repeated =
                        self.duplicates.as_ref().zip(index).is_some_and(|(duplicates, index)| {
                            duplicates.repeated.contains(&(self.name, index))
                        });
                    self.request.partition(context, named, partition, is_repeated);
                }
            }
        }
        self.lookup.is_done()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        self.request.finish(context, self.call);
    }
}
