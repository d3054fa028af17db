//! Questions of other shards about partitions of this one.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use highwater_protocol::native::{PartitionDetail, StartAt};
use highwater_runtime::plane::{Plane, ShardIndex};
use highwater_storage::{LogStartError, Slot};

use super::Shard;
use super::partition::PartitionId;
use super::readers::deleted;
use super::search::{Search, Sought};
use crate::limits::PRODUCERS_PER_ANSWER_MAX;
use crate::message::{FoundOffset, Message, Moved, NewStart, Query, QueryAnswer, Ticket};

/// A question that is being worked on.
#[derive(Debug)]
pub(super) struct Work {
    from: ShardIndex,
    ticket: Ticket,
    /// Parts that wait for the disk.
    missing: usize,
    answer: QueryAnswer,
}

/// Names a question that is being worked on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct WorkId(pub(super) u64);

/// A start of a log that is being moved on behalf of a question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    store: usize,
    slot: Slot,
    to: Offset,
    work: WorkId,
    number: u32,
}

/// What became of moving a start.
enum Started {
    /// It is there.
    Already(Offset),
    /// It is durable when the store says so.
    Soon(Moving),
}

impl Shard {
    pub(super) fn on_query(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        query: Query,
    ) {
        self.last_work += 1;
        let id = WorkId(self.last_work);
        let (answer, missing) = match query {
            Query::Offsets(list) => self.find_offsets(id, list),
            Query::LastTimes(list) => self.find_last_times(id, list),
            Query::EpochEnds(list) => (self.find_epoch_ends(list), 0),
            Query::Details(list) => {
                let details =
                    list.into_iter().filter_map(|(n, tp)| self.details(tp).map(|d| (n, d))).collect();
                (QueryAnswer::Details(details), 0)
            }
            Query::Producers(list) => (self.producers(list), 0),
            Query::DeleteRecords(list) => self.move_starts(plane, id, list),
        };
        self.work.insert(id, Work { from, ticket, missing, answer });
        self.finish_work(plane, id);
    }

    fn finish_work(&mut self, plane: &mut dyn Plane<Message>, id: WorkId) {
        if self.work.get(&id).is_none_or(|work| work.missing > 0) {
            return;
        }
        if let Some(Work { from, ticket, answer, .. }) = self.work.remove(&id) {
            plane.post(from, Message::QueryAnswer(ticket, answer));
        }
    }

    fn find_offsets(
        &mut self,
        work: WorkId,
        list: Vec<(u32, TopicPartition, StartAt)>,
    ) -> (QueryAnswer, usize) {
        let mut found: Vec<(u32, FoundOffset)> = Vec::with_capacity(list.len());
        let mut missing = 0;
        for (number, tp, start) in list {
            match self.find_offset(tp, start) {
                Ok(offset) => found.push((number, offset)),
                Err((partition, at)) => {
                    missing += 1;
                    self.searches.add(Search { work, number, partition, sought: Sought::Since(at) });
                }
            }
        }
        (QueryAnswer::Offsets(found), missing)
    }

    /// The records with the largest timestamps.
    fn find_last_times(&mut self, work: WorkId, list: Vec<(u32, TopicPartition)>) -> (QueryAnswer, usize) {
        let mut found = Vec::new();
        let mut missing = 0;
        for (number, tp) in list {
            match self.partitions.find(tp) {
                None => found.push((number, Err(ErrorCode::UnknownTopic))),
                Some(partition) => {
                    missing += 1;
                    self.searches.add(Search { work, number, partition, sought: Sought::Last });
                }
            }
        }
        (QueryAnswer::Offsets(found), missing)
    }

    fn find_epoch_ends(&self, list: Vec<(u32, TopicPartition, i32)>) -> QueryAnswer {
        let end = |tp, epoch| {
            let partition = self.partitions.get(self.partitions.find(tp)?)?;
            // None began before the first.
            if !(0..=partition.epoch.0).contains(&epoch) {
                return None;
            }
            let high_watermark = partition.high_watermark();
            if epoch == partition.epoch.0 {
                return Some((epoch, high_watermark.0));
            }
            let (epoch, end) =
                self.stores[partition.store].store.epoch_end(partition.slot, LeaderEpoch(epoch));
            Some((epoch.0, end.map_or(high_watermark, |end| end.min(high_watermark)).0))
        };
        QueryAnswer::EpochEnds(list.into_iter().map(|(number, tp, epoch)| (number, end(tp, epoch))).collect())
    }

    /// An offset, or where and from when on it has to be searched for.
    fn find_offset(
        &self,
        tp: TopicPartition,
        start: StartAt,
    ) -> Result<FoundOffset, (PartitionId, Timestamp)> {
        let Some(id) = self.partitions.find(tp) else { return Ok(Err(ErrorCode::UnknownTopic)) };
        let Some(partition) = self.partitions.get(id) else { return Ok(Err(ErrorCode::UnknownTopic)) };
        let high_watermark = partition.high_watermark();
        let log_start = self.stores[partition.store].store.bounds(partition.slot).log_start;
        Ok(match start {
            StartAt::Earliest => Ok(Some((log_start, None))),
            StartAt::Latest => Ok(Some((high_watermark, None))),
            StartAt::Offset(at) if (log_start..=high_watermark).contains(&at) => Ok(Some((at, None))),
            StartAt::Offset(_) => Err(ErrorCode::OffsetOutOfRange),
            StartAt::Timestamp(at) => return Err((id, at)),
        })
    }

    /// A part of a question about offsets is known, which had to be searched for.
    pub(super) fn offset_found(
        &mut self,
        plane: &mut dyn Plane<Message>,
        work: WorkId,
        number: u32,
        found: FoundOffset,
    ) {
        if let Some(Work { missing, answer: QueryAnswer::Offsets(list), .. }) = self.work.get_mut(&work) {
            *missing -= 1;
            list.push((number, found));
        }
        self.finish_work(plane, work);
    }

    fn details(&self, tp: TopicPartition) -> Option<PartitionDetail> {
        let partition = self.partitions.get(self.partitions.find(tp)?)?;
        let bounds = self.stores[partition.store].store.bounds(partition.slot);
        Some(PartitionDetail {
            info: self.info(tp.partition, partition.epoch),
            log_start: bounds.log_start,
            high_watermark: partition.high_watermark(),
            bytes: bounds.bytes,
            faulty: bounds.faulty,
        })
    }

    /// The producers of partitions, as far as an answer may have so many.
    fn producers(&self, list: Vec<(u32, TopicPartition)>) -> QueryAnswer {
        let mut left = PRODUCERS_PER_ANSWER_MAX;
        let mut of = |tp| {
            let id = self.partitions.find(tp).ok_or_else(deleted)?;
            let partition = self.partitions.get(id).ok_or_else(deleted)?;
            let store = &self.stores[partition.store].store;
            left = left.checked_sub(store.producer_count(partition.slot)).ok_or_else(|| {
                let text = "the partitions have too many producers for one answer; ask for fewer partitions";
                (ErrorCode::InvalidArgument, text.to_owned())
            })?;
            Ok(store.active_producers(partition.slot).collect())
        };
        QueryAnswer::Producers(list.into_iter().map(|(number, tp)| (number, of(tp))).collect())
    }

    fn move_starts(
        &mut self,
        plane: &mut dyn Plane<Message>,
        work: WorkId,
        list: Vec<NewStart>,
    ) -> (QueryAnswer, usize) {
        let mut outcomes = Vec::with_capacity(list.len());
        let mut missing = 0;
        for new in list {
            match self.move_start(plane, work, new) {
                Ok(Started::Already(start)) => outcomes.push((new.number, Ok(start))),
                Ok(Started::Soon(moving)) => {
                    missing += 1;
                    self.moving.push(moving);
                }
                Err(error) => outcomes.push((new.number, Err(error))),
            }
        }
        (QueryAnswer::DeleteRecords(outcomes), missing)
    }

    /// Moves the start of a partition.
    fn move_start(
        &mut self,
        plane: &mut dyn Plane<Message>,
        work: WorkId,
        NewStart { number, tp, to }: NewStart,
    ) -> Result<Started, (ErrorCode, String)> {
        let partition =
            self.partitions.find(tp).and_then(|id| self.partitions.get(id)).ok_or_else(deleted)?;
        let (index, slot) = (partition.store, partition.slot);
        let high_watermark = partition.high_watermark();
        let to = to.unwrap_or(high_watermark);
        let store = &mut self.stores[index].store;
        if to > high_watermark {
            let text = format!("{}: offset {to} is behind the end, {high_watermark}", partition.name());
            return Err((ErrorCode::OffsetOutOfRange, text));
        }
        let start = store.bounds(slot).log_start;
        if to <= start {
            return Ok(Started::Already(start));
        }
        match store.set_log_start(plane, slot, to) {
            Ok(()) => Ok(Started::Soon(Moving { store: index, slot, to, work, number })),
            Err(error @ LogStartError::BehindEnd { .. }) => {
                Err((ErrorCode::OffsetOutOfRange, format!("{}: {error}", partition.name())))
            }
            Err(_) => Err(deleted()),
        }
    }

    /// The start of a log was moved, durably.
    pub(super) fn on_log_start(
        &mut self,
        plane: &mut dyn Plane<Message>,
        store: usize,
        slot: Slot,
        offset: Offset,
    ) {
        let here = |m: &Moving| m.store == store && m.slot == slot && m.to <= offset;
        self.end_moves(plane, here, &Ok(offset));
    }

    /// A partition is gone: nobody waits for its start to move any more.
    pub(super) fn abandon_moves(&mut self, plane: &mut dyn Plane<Message>, store: usize, slot: Slot) {
        self.end_moves(plane, |m| m.store == store && m.slot == slot, &Err(deleted()));
    }

    fn end_moves(&mut self, plane: &mut dyn Plane<Message>, ends: impl Fn(&Moving) -> bool, outcome: &Moved) {
        for Moving { work: id, number, .. } in self.moving.extract_if(.., |m| ends(m)).collect::<Vec<_>>() {
            if let Some(Work { missing, answer: QueryAnswer::DeleteRecords(outcomes), .. }) =
                self.work.get_mut(&id)
            {
                *missing -= 1;
                outcomes.push((number, outcome.clone()));
            }
            self.finish_work(plane, id);
        }
    }
}
