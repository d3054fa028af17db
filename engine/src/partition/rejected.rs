//! Batches of a producer stay in order even if one of them is rejected.
//!
//! A log accepts any first sequence number of a producer that it does not know, because it may have forgotten the producer. When the first of
//! several batches in flight is rejected for a transient reason, the second must not be appended only because that reason has passed meanwhile.
//! So the partition's owner remembers a rejected batch until it is sent again, whichever protocol it came by. A batch that the shard of its
//! connection rejects because it does not know the partition is remembered there (`shard/kafka/unrouted.rs`).

use std::collections::BTreeMap;

use highwater_protocol::batch::BatchProducer;
use highwater_protocol::ids::{ProducerId, TopicPartition};

use crate::limits::REJECTED_PRODUCERS_MAX;
use crate::mutants::{Mutant, is_planted};

/// One epoch of a producer in a partition. `P` identifies the partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ProducerKey<P = TopicPartition> {
    pub(crate) partition: P,
    pub(crate) producer: ProducerId,
    pub(crate) epoch: i16,
}

/// A batch's place in the order of its producer: the sequence number of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SequenceStamp<P = TopicPartition> {
    pub(crate) key: ProducerKey<P>,
    pub(crate) sequence: i32,
}

impl<P> SequenceStamp<P> {
    /// Creates the stamp of a batch of `producer` in a partition.
    pub(crate) fn new(partition: P, producer: BatchProducer) -> Self {
        let BatchProducer { id, epoch, sequence } = producer;
        Self { key: ProducerKey { partition, producer: id, epoch }, sequence }
    }
}

/// The first rejected batch of each producer, which the producer will send again. Beyond [`REJECTED_PRODUCERS_MAX`] producers the one that was
/// silent longest is forgotten; most likely it has given up.
pub(crate) struct RejectedBatches<P = TopicPartition> {
    by_producer: BTreeMap<ProducerKey<P>, Rejected>,
    /// The producers by the time of their last rejection, the latest last.
    by_age: BTreeMap<u64, ProducerKey<P>>,
    last_age: u64,
}

struct Rejected {
    sequence: i32,
    age: u64,
}

impl<P> Default for RejectedBatches<P> {
    fn default() -> Self {
        Self { by_producer: BTreeMap::new(), by_age: BTreeMap::new(), last_age: 0 }
    }
}

impl<P: Clone + Ord> RejectedBatches<P> {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    /// Returns the sequence of the rejected batch that has to be appended before this one, if there is one.
    pub(crate) fn before(&self, stamp: &SequenceStamp<P>) -> Option<i32> {
        if self.by_producer.is_empty() {
            return None;
        }
        let rejected = self.by_producer.get(&stamp.key)?.sequence;
        let overtakes =
            stamp.sequence.wrapping_sub(rejected) > 0 && !is_planted(Mutant::RejectedBatchOvertaken);
        overtakes.then_some(rejected)
    }

    /// Notes that a batch was rejected, for the first time or again. Of several, the first in the producer's order counts, which may be rejected
    /// after a later one.
    pub(crate) fn note_rejected(&mut self, SequenceStamp { key, sequence }: SequenceStamp<P>) {
        self.last_age += 1;
        let age = self.last_age;
        let entry = self.by_producer.entry(key.clone()).or_insert(Rejected { sequence, age });
        self.by_age.remove(&entry.age);
        entry.age = age;
        if sequence.wrapping_sub(entry.sequence) < 0 {
            entry.sequence = sequence;
        }
        self.by_age.insert(age, key);
        if self.by_age.len() > REJECTED_PRODUCERS_MAX
            && let Some((_, key)) = self.by_age.pop_first()
        {
            self.by_producer.remove(&key);
        }
    }

    /// Notes that a batch was appended. It may have been rejected before; returns whether it was the first that was.
    pub(crate) fn note_accepted(&mut self, SequenceStamp { key, sequence }: &SequenceStamp<P>) -> bool {
        let Some(entry) = self.by_producer.get(key).filter(|entry| entry.sequence == *sequence) else {
            return false;
        };
        self.by_age.remove(&entry.age);
        self.by_producer.remove(key);
        true
    }

    /// Forgets producers in the order of their keys, from `first` until the first whose partition is not gone.
    pub(crate) fn forget(&mut self, first: &ProducerKey<P>, is_gone: impl Fn(&P) -> bool) {
        while let Some((key, entry)) = self.by_producer.range(first..).next()
            && is_gone(&key.partition)
        {
            self.by_age.remove(&entry.age);
            let key = key.clone();
            self.by_producer.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionIndex, TopicId};

    use super::*;

    fn stamp(producer: i64, sequence: i32) -> SequenceStamp {
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        SequenceStamp::new(tp, BatchProducer { id: ProducerId(producer), epoch: 0, sequence })
    }

    #[test]
    fn a_batch_after_a_rejected_one_waits_until_that_was_appended() {
        let mut rejected = RejectedBatches::default();
        rejected.note_rejected(stamp(1, 5));
        rejected.note_rejected(stamp(1, 7));
        assert_eq!(rejected.before(&stamp(1, 6)), Some(5));
        assert_eq!(rejected.before(&stamp(1, 5)), None, "the rejected batch itself, sent again");
        assert_eq!(rejected.before(&stamp(2, 6)), None);
        rejected.note_accepted(&stamp(1, 4));
        assert_eq!(rejected.before(&stamp(1, 6)), Some(5));
        rejected.note_accepted(&stamp(1, 5));
        assert_eq!(rejected.before(&stamp(1, 6)), None);
        assert!(rejected.by_producer.is_empty() && rejected.by_age.is_empty());
    }

    #[test]
    fn a_batch_rejected_after_a_later_one_is_still_the_first_that_the_others_wait_for() {
        let mut rejected = RejectedBatches::default();
        rejected.note_rejected(stamp(1, i32::MIN + 5));
        rejected.note_rejected(stamp(1, i32::MAX));
        assert_eq!(rejected.before(&stamp(1, i32::MIN)), Some(i32::MAX));
        assert!(!rejected.note_accepted(&stamp(1, i32::MIN + 5)));
        assert!(rejected.note_accepted(&stamp(1, i32::MAX)));
        assert_eq!(rejected.before(&stamp(1, i32::MIN)), None);
    }

    #[test]
    fn above_the_limit_of_producers_the_longest_idle_one_is_evicted() {
        let mut rejected = RejectedBatches::default();
        let many = REJECTED_PRODUCERS_MAX as i64;
        // In descending order, so that age and producer id differ.
        for producer in (0..many).rev() {
            rejected.note_rejected(stamp(producer, 0));
        }
        rejected.note_rejected(stamp(many - 1, 0));
        rejected.note_rejected(stamp(many, 0));
        let remembers = |producer| rejected.before(&stamp(producer, 1)).is_some();
        assert!(!remembers(many - 2), "it was the oldest after the first had been rejected again");
        assert!(remembers(many) && remembers(many - 1) && remembers(many - 3) && remembers(0));
        let sizes = (rejected.by_producer.len(), rejected.by_age.len());
        assert_eq!(sizes, (REJECTED_PRODUCERS_MAX, REJECTED_PRODUCERS_MAX));
    }

    #[test]
    fn only_the_producers_of_a_deleted_partition_are_forgotten() {
        let mut rejected = RejectedBatches::default();
        let of = |partition: u32, producer: i64, sequence| {
            SequenceStamp::new(partition, BatchProducer { id: ProducerId(producer), epoch: 0, sequence })
        };
        for partition in 0..3 {
            for producer in [i64::MIN, 0, i64::MAX] {
                rejected.note_rejected(of(partition, producer, 0));
            }
        }
        let first = ProducerKey { partition: 1, producer: ProducerId(i64::MIN), epoch: i16::MIN };
        rejected.forget(&first, |partition| *partition == 1);
        for partition in 0..3 {
            for producer in [i64::MIN, 0, i64::MAX] {
                assert_eq!(rejected.before(&of(partition, producer, 1)).is_some(), partition != 1);
            }
        }
        assert_eq!((rejected.by_producer.len(), rejected.by_age.len()), (6, 6));
    }
}
