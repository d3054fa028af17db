//! A coordinator's writes to one partition of the groups' topic: changes wait for a batch, the batch is appended, and appended batches wait for the
//! high watermark.
//!
//! ```text
//!   push --> pending --(one batch at a time)--> appending --> undurable --(high watermark)--> durable
//!                                                  ^ |
//!                                          retry --+ +--> rejected: blocked
//! ```
//!
//! Batches are appended one at a time, so the next batch never overtakes a rejected one.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::{Offset, Timestamp, TopicPartition};

use super::groups::GroupBatch;
use crate::limits::GROUP_BATCH_BYTES_MAX;

/// See the module's doc.
#[derive(Debug)]
pub(super) struct PartitionLog {
    pub(super) tp: TopicPartition,
    batch_bytes_max: usize,
    /// Changes of groups, with their sequence numbers.
    pending: VecDeque<(u64, GroupBatch)>,
    appending: Option<Appending>,
    /// The end offset of each appended batch, with the sequence numbers of its changes.
    undurable: VecDeque<(Offset, Vec<u64>)>,
}

#[derive(Debug)]
struct Appending {
    batch: Bytes,
    /// The number of records.
    count: u32,
    /// The sequence numbers of the changes whose last record is in the batch.
    numbers: Vec<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Ready to be appended.
    Ready,
    /// The append is in flight.
    Sent,
    /// The append was rejected, for example because the disk is full.
    Blocked,
}

impl PartitionLog {
    /// Creates the log of a partition whose store accepts batches of up to `batch_bytes_max` bytes.
    pub(super) fn new(tp: TopicPartition, batch_bytes_max: usize) -> Self {
        let batch_bytes_max = batch_bytes_max.min(GROUP_BATCH_BYTES_MAX);
        Self { tp, batch_bytes_max, pending: VecDeque::new(), appending: None, undurable: VecDeque::new() }
    }

    /// Adds a change at the end.
    pub(super) fn push(&mut self, number: u64, change: GroupBatch) {
        self.pending.push_back((number, change));
    }

    /// Returns the next batch to append, if none is being appended.
    pub(super) fn poll_append(&mut self, wall_ms: i64) -> Option<Bytes> {
        if self.appending.is_none() && !self.pending.is_empty() {
            self.appending = Some(self.next_batch(wall_ms));
        }
        let appending = self.appending.as_mut().filter(|appending| appending.state == State::Ready)?;
        appending.state = State::Sent;
        Some(appending.batch.clone())
    }

    /// Builds a batch from the first changes that fit. A change is split only if it alone exceeds the limit: the order of its records makes every
    /// prefix of them safe.
    fn next_batch(&mut self, wall_ms: i64) -> Appending {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        let mut numbers = Vec::new();
        while let Some((number, change)) = self.pending.front_mut() {
            if !builder.is_empty() && builder.bytes() + change.bytes() > self.batch_bytes_max {
                break;
            }
            let mut taken = 0;
            for (key, value) in &change.records {
                let entry = NewRecord::new(Timestamp(wall_ms), Some(key), value.as_deref());
                if taken > 0 && builder.bytes_with(&entry) > self.batch_bytes_max {
                    break;
                }
                builder.append(&entry).expect("a group's record is far smaller than the largest batch");
                taken += 1;
            }
            if taken < change.records.len() {
                change.records.drain(..taken);
                break;
            }
            numbers.push(*number);
            self.pending.pop_front();
        }
        let count = builder.count();
        let batch = builder.finish(BatchProducer::NONE).map_or_else(Bytes::new, BytesMut::freeze);
        Appending { batch, count, numbers, state: State::Ready }
    }

    /// Handles the append of the batch at this offset.
    pub(super) fn handle_appended(&mut self, base_offset: Offset) {
        if let Some(Appending { numbers, count, .. }) = self.appending.take() {
            self.undurable.push_back((Offset(base_offset.0 + i64::from(count)), numbers));
        }
    }

    /// Handles the rejection of the batch. [`Self::retry`] makes it ready again.
    pub(super) fn handle_rejected(&mut self) {
        if let Some(appending) = &mut self.appending {
            appending.state = State::Blocked;
        }
    }

    /// Makes a rejected batch ready to be appended again.
    pub(super) fn retry(&mut self) {
        if let Some(appending) = self.appending.as_mut().filter(|appending| appending.state == State::Blocked)
        {
            appending.state = State::Ready;
        }
    }

    /// Returns whether there is a batch to append.
    pub(super) fn is_ready(&self) -> bool {
        self.appending.as_ref().map_or(!self.pending.is_empty(), |appending| appending.state == State::Ready)
    }

    /// Returns whether a rejected batch waits for [`Self::retry`].
    pub(super) fn is_blocked(&self) -> bool {
        self.appending.as_ref().is_some_and(|appending| appending.state == State::Blocked)
    }

    /// Removes and returns the sequence numbers of the changes that are durable with this high watermark.
    pub(super) fn take_durable(&mut self, high_watermark: Offset) -> impl Iterator<Item = u64> {
        let count = self.undurable.partition_point(|(end, _)| *end <= high_watermark);
        self.undurable.drain(..count).flat_map(|(_, numbers)| numbers)
    }

    /// Returns the sequence numbers of all changes that are not durable.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let appending = self.appending.iter().flat_map(|appending| &appending.numbers);
        let undurable = self.undurable.iter().flat_map(|(_, numbers)| numbers);
        self.pending.iter().map(|(number, _)| number).chain(appending).chain(undurable).copied()
    }

    /// Returns whether all changes are durable.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.appending.is_none() && self.undurable.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::batch::BatchView;
    use highwater_protocol::ids::{PartitionIndex, TopicId};

    use super::*;

    fn log() -> PartitionLog {
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        PartitionLog::new(tp, usize::MAX)
    }

    fn change(key: u8, records: usize, value_bytes: usize) -> GroupBatch {
        let record = (vec![key], Some(vec![0; value_bytes]));
        GroupBatch { group: "g".into(), records: vec![record; records] }
    }

    /// Returns the keys of a batch's records.
    fn keys(batch: &Bytes) -> Vec<u8> {
        let view = BatchView::parse(batch).expect("a batch");
        let mut scratch = Vec::new();
        let records = view.records(&mut scratch).expect("records").map(|record| record.expect("a record"));
        records.map(|record| record.key.expect("a key")[0]).collect()
    }

    #[test]
    fn changes_are_durable_once_the_high_watermark_reaches_the_end_of_their_batch() {
        let mut log = log();
        log.push(5, change(1, 2, 10));
        log.push(7, change(2, 1, 10));
        let batch = log.poll_append(0).expect("a batch");
        assert_eq!(keys(&batch), [1, 1, 2]);
        log.push(8, change(3, 1, 10));
        assert_eq!(log.poll_append(0), None, "one batch at a time");
        log.handle_appended(Offset(100));
        assert_eq!(keys(&log.poll_append(0).expect("the next one")), [3]);
        log.handle_appended(Offset(103));
        assert_eq!(log.take_durable(Offset(102)).count(), 0);
        assert!(log.take_durable(Offset(103)).eq([5_u64, 7]));
        assert!(!log.is_idle());
        assert!(log.take_durable(Offset(104)).eq([8_u64]));
        assert!(log.is_idle());
    }

    #[test]
    fn a_rejected_batch_is_retried_before_the_next_one() {
        let mut log = log();
        log.push(1, change(1, 1, 10));
        let first = log.poll_append(0).expect("a batch");
        log.push(2, change(2, 1, 10));
        log.handle_rejected();
        assert!(log.is_blocked() && !log.is_ready());
        assert_eq!(log.poll_append(0), None, "it is blocked");
        log.retry();
        assert_eq!(log.poll_append(0), Some(first));
        log.handle_appended(Offset(0));
        assert_eq!(keys(&log.poll_append(0).expect("the next one")), [2]);
    }

    #[test]
    fn a_batch_has_as_many_changes_as_fit_and_only_a_change_larger_than_a_batch_is_split() {
        let mut log = log();
        let large = GROUP_BATCH_BYTES_MAX / 4;
        log.push(1, change(1, 1, 10));
        log.push(2, change(2, 5, large));
        log.push(3, change(3, 1, 10));
        let mut next = |base| {
            let batch = log.poll_append(0).expect("a batch");
            log.handle_appended(Offset(base));
            keys(&batch)
        };
        assert_eq!(next(0), [1]);
        assert_eq!(next(1), [2; 3]);
        assert_eq!(next(4), [2, 2, 3], "the rest of the large change, and the next one");
        assert!(log.take_durable(Offset(4)).eq([1_u64]), "the large change is durable after its last record");
        assert!(log.take_durable(Offset(7)).eq([2_u64, 3]));
    }
}
