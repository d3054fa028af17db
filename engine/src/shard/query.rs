//! Answers queries of other shards about partitions of this one, in pieces.

use std::vec::IntoIter;

use highwater_protocol::ids::{LeaderEpoch, TopicPartition};
use highwater_runtime::plane::{Plane, ShardIndex};

use super::Shard;
use super::search::{Search, SearchNeeds, SearchOrigin, SearchTarget};
use super::work::Job;
use crate::api::{
    ApiError, EpochEnd, FoundEpochEnd, FoundOffset, InEpoch, LocatedOffset, NewStart, OffsetSpec,
    PartitionAnswer, PartitionDetails, PartitionQuery, Ticket,
};
use crate::counters::Work;
use crate::limits::PRODUCERS_PER_ANSWER_MAX;
use crate::message::Message;
use crate::partition::{LogStartMove, LogStartOutcome, PartitionId};

/// A query that is being answered.
#[derive(Debug)]
pub(super) struct OpenQuery {
    from: ShardIndex,
    ticket: Ticket,
    /// Number of items without an answer.
    missing: usize,
    answer: PartitionAnswer,
}

/// Identifies a query that is being answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct QueryId(pub(super) u64);

/// The items of a query that have not been handled.
struct QueryJob {
    query: QueryId,
    items: QueryItems,
}

enum QueryItems {
    Offsets(IntoIter<(u32, (InEpoch, OffsetSpec))>),
    EpochEnds(IntoIter<(u32, (InEpoch, LeaderEpoch))>),
    Details(IntoIter<(u32, TopicPartition)>),
    ProducerCounts(IntoIter<(u32, TopicPartition)>),
    DeleteRecords(IntoIter<(u32, NewStart)>),
}

impl QueryItems {
    fn len(&self) -> usize {
        match self {
            Self::Offsets(list) => list.len(),
            Self::Details(list) | Self::ProducerCounts(list) => list.len(),
            Self::EpochEnds(list) => list.len(),
            Self::DeleteRecords(list) => list.len(),
        }
    }
}

impl Job for QueryJob {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if shard.answer_parts(plane, &mut self, work) { None } else { Some(self) }
    }
}

impl Shard {
    pub(super) fn on_query(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        request: PartitionQuery,
    ) {
        self.last_query += 1;
        let query = QueryId(self.last_query);
        let (answer, items) = match request {
            PartitionQuery::Offsets(list) => {
                (PartitionAnswer::Offsets(Vec::new()), QueryItems::Offsets(list.into_iter()))
            }
            PartitionQuery::EpochEnds(list) => {
                (PartitionAnswer::EpochEnds(Vec::new()), QueryItems::EpochEnds(list.into_iter()))
            }
            PartitionQuery::Details(list) => {
                (PartitionAnswer::Details(Vec::new()), QueryItems::Details(list.into_iter()))
            }
            PartitionQuery::DeleteRecords(list) => {
                (PartitionAnswer::DeleteRecords(Vec::new()), QueryItems::DeleteRecords(list.into_iter()))
            }
            PartitionQuery::ProducerCounts(list) => {
                (PartitionAnswer::ProducerCounts(Vec::new()), QueryItems::ProducerCounts(list.into_iter()))
            }
            // Not split: the limit of an answer bounds the work.
            PartitionQuery::Producers(list) => {
                (self.describe_producers(list), QueryItems::Details(Vec::new().into_iter()))
            }
        };
        self.queries.insert(query, OpenQuery { from, ticket, missing: items.len(), answer });
        self.begin_job(plane, QueryJob { query, items });
        self.finish_query(plane, query);
    }

    /// Handles items of a query while there is `work` left. Returns whether none is left.
    fn answer_parts(
        &mut self,
        plane: &mut dyn Plane<Message>,
        QueryJob { query: id, items }: &mut QueryJob,
        work: &mut Work,
    ) -> bool {
        let id = *id;
        let count = items.len().min(work.left());
        work.spend(count);
        for _ in 0..count {
            match items {
                QueryItems::Offsets(list) => {
                    let Some((number, (of, spec))) = list.next() else { break };
                    match self.find_offset(of, spec) {
                        Ok(found) => self.offset_found(plane, id, number, found),
                        Err((partition, target)) => {
                            let origin = SearchOrigin::Query { query: id, number };
                            self.searches.add(Search {
                                origin,
                                partition,
                                target,
                                needs: SearchNeeds::default(),
                            });
                        }
                    }
                }
                QueryItems::EpochEnds(list) => {
                    let Some((number, (of, epoch))) = list.next() else { break };
                    let end = self.find_epoch_end(of, epoch);
                    if let Some(OpenQuery { missing, answer: PartitionAnswer::EpochEnds(ends), .. }) =
                        self.queries.get_mut(&id)
                    {
                        *missing -= 1;
                        ends.push((number, end));
                    }
                }
                QueryItems::Details(list) => {
                    let Some((number, tp)) = list.next() else { break };
                    let detail = self.details(tp, plane.wall_clock_ms());
                    if let Some(OpenQuery { missing, answer: PartitionAnswer::Details(details), .. }) =
                        self.queries.get_mut(&id)
                    {
                        *missing -= 1;
                        details.extend(detail.map(|detail| (number, detail)));
                    }
                }
                QueryItems::ProducerCounts(list) => {
                    let Some((number, tp)) = list.next() else { break };
                    let count = self.partitions.of(tp).map(|partition| {
                        self.partitions.store(partition.store).producer_count(partition.slot)
                    });
                    if let Some(OpenQuery {
                        missing, answer: PartitionAnswer::ProducerCounts(counts), ..
                    }) = self.queries.get_mut(&id)
                    {
                        *missing -= 1;
                        counts.extend(count.map(|count| (number, count)));
                    }
                }
                QueryItems::DeleteRecords(list) => {
                    let Some((number, NewStart { tp, to })) = list.next() else { break };
                    let id = LogStartMove { query: id.0, number };
                    self.partitions.move_log_start(plane, tp, to, id);
                }
            }
        }
        self.route_partition_events(plane);
        self.finish_query(plane, id);
        items.len() == 0
    }

    fn finish_query(&mut self, plane: &mut dyn Plane<Message>, id: QueryId) {
        if self.queries.get(&id).is_none_or(|query| query.missing > 0) {
            return;
        }
        if let Some(OpenQuery { from, ticket, answer, .. }) = self.queries.remove(&id) {
            plane.post(from, Message::PartitionAnswer(ticket, answer));
        }
    }

    /// Returns the largest epoch that is not above this one, and its end; `None` below the first epoch.
    fn find_epoch_end(&self, InEpoch { tp, known }: InEpoch, epoch: LeaderEpoch) -> FoundEpochEnd {
        let (_, partition) = self.partitions.answering(tp, known)?;
        if !(LeaderEpoch(0)..=partition.epoch()).contains(&epoch) {
            return Ok(None);
        }
        // Not the high watermark: records that a consumer has read may be waiting for disk space since the start of the broker.
        let log_end = self.partitions.bounds(partition).append_end;
        if epoch == partition.epoch() {
            return Ok(Some(EpochEnd { epoch, end: log_end }));
        }
        let found = self.partitions.store(partition.store).epoch_end(partition.slot, epoch);
        let end = found.end.map_or(log_end, |end| end.offset.min(log_end));
        Ok(Some(EpochEnd { epoch: found.epoch, end }))
    }

    /// Finds an offset, or returns the partition and the target to search for.
    fn find_offset(
        &self,
        InEpoch { tp, known }: InEpoch,
        spec: OffsetSpec,
    ) -> Result<FoundOffset, (PartitionId, SearchTarget)> {
        let (id, partition) = match self.partitions.answering(tp, known) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let end = partition.high_watermark();
        let start = self.partitions.bounds(partition).log_start;
        let at = |offset| Some(LocatedOffset { offset, timestamp: None, epoch: partition.epoch() });
        Ok(match spec {
            OffsetSpec::Earliest => Ok(at(start)),
            OffsetSpec::Latest => Ok(at(end)),
            OffsetSpec::At(offset) => self.partitions.check_offset(partition, offset).map(|()| at(offset)),
            OffsetSpec::Since(since) => return Err((id, SearchTarget::Since(since))),
            OffsetSpec::MaxTimestamp => return Err((id, SearchTarget::Last)),
        })
    }

    /// Adds an offset to the answer of a query.
    pub(super) fn offset_found(
        &mut self,
        plane: &mut dyn Plane<Message>,
        query: QueryId,
        number: u32,
        found: FoundOffset,
    ) {
        if let Some(OpenQuery { missing, answer: PartitionAnswer::Offsets(list), .. }) =
            self.queries.get_mut(&query)
        {
            *missing -= 1;
            list.push((number, found));
        }
        self.finish_query(plane, query);
    }

    fn details(&self, tp: TopicPartition, wall_ms: i64) -> Option<PartitionDetails> {
        let partition = self.partitions.of(tp)?;
        let bounds = self.partitions.bounds(partition);
        Some(PartitionDetails {
            epoch: partition.epoch(),
            log_start: bounds.log_start,
            high_watermark: partition.high_watermark(),
            bytes: bounds.bytes,
            faulty: bounds.faulty,
            compaction: self.partitions.compaction_details(partition, wall_ms),
        })
    }

    /// Returns the producers of partitions, up to the limit of each and that of an answer.
    fn describe_producers(&self, list: Vec<(u32, (TopicPartition, usize))>) -> PartitionAnswer {
        let mut left = PRODUCERS_PER_ANSWER_MAX;
        let mut of = |(tp, max)| {
            let (_, partition) = self.partitions.answering(tp, None)?;
            let store = self.partitions.store(partition.store);
            let count = store.producer_count(partition.slot);
            if count > max {
                return Err(ApiError::TooManyProducers);
            }
            left = left.checked_sub(count).ok_or(ApiError::TooManyProducers)?;
            Ok(store.active_producers(partition.slot).collect())
        };
        PartitionAnswer::Producers(list.into_iter().map(|(number, tp)| (number, of(tp))).collect())
    }

    /// Adds the outcome of a move of a log start to the answer of a query.
    pub(super) fn log_start_moved(
        &mut self,
        plane: &mut dyn Plane<Message>,
        LogStartMove { query, number }: LogStartMove,
        outcome: LogStartOutcome,
    ) {
        let query = QueryId(query);
        if let Some(OpenQuery { missing, answer: PartitionAnswer::DeleteRecords(outcomes), .. }) =
            self.queries.get_mut(&query)
        {
            *missing -= 1;
            outcomes.push((number, outcome));
        }
        self.finish_query(plane, query);
    }
}
