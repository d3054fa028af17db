//! Batches of a producer stay in order even if one of them is rejected.
//!
//! A log accepts any first sequence number of a producer that it does not know: it may have forgotten it. When the first of several
//! batches in flight is rejected for a reason that passes, the second must not be appended just because the reason has passed
//! meanwhile. The partition's owner remembers what it rejected until that batch is sent again, whichever protocol it came by.

use std::collections::BTreeMap;

use highwater_protocol::ids::{ProducerId, TopicPartition};

use crate::limits::REJECTED_PRODUCERS_MAX;
use crate::mutants::{Mutant, is_planted};

/// One instance of a producer in a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ProducerKey {
    pub(super) tp: TopicPartition,
    pub(super) producer: ProducerId,
    pub(super) epoch: i16,
}

/// A batch's place in the order of its producer: the sequence number of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SequenceStamp {
    pub(super) key: ProducerKey,
    pub(super) sequence: i32,
}

/// Rejected batches that their producers will send again: the first of each producer. Beyond [`REJECTED_PRODUCERS_MAX`] producers the
/// one that was silent longest is forgotten; most likely it has given up.
#[derive(Default)]
pub(super) struct RejectedBatches {
    by_producer: BTreeMap<ProducerKey, Rejected>,
    /// The producers by the time of their last rejection, the latest last.
    by_age: BTreeMap<u64, ProducerKey>,
    last_age: u64,
}

struct Rejected {
    sequence: i32,
    age: u64,
}

impl RejectedBatches {
    /// Returns the sequence of the rejected batch that has to be appended before this one, if there is one.
    pub(super) fn before(&self, stamp: SequenceStamp) -> Option<i32> {
        if self.by_producer.is_empty() {
            return None;
        }
        let rejected = self.by_producer.get(&stamp.key)?.sequence;
        let overtakes =
            stamp.sequence.wrapping_sub(rejected) > 0 && !is_planted(Mutant::RejectedBatchOvertaken);
        overtakes.then_some(rejected)
    }

    /// Notes that a batch was rejected, for the first time or again.
    pub(super) fn note_rejected(&mut self, SequenceStamp { key, sequence }: SequenceStamp) {
        self.last_age += 1;
        let age = self.last_age;
        let entry = self.by_producer.entry(key).or_insert(Rejected { sequence, age });
        self.by_age.remove(&entry.age);
        entry.age = age;
        self.by_age.insert(age, key);
        if self.by_age.len() > REJECTED_PRODUCERS_MAX
            && let Some((_, key)) = self.by_age.pop_first()
        {
            self.by_producer.remove(&key);
        }
    }

    /// Notes that a batch was appended.
    pub(super) fn note_appended(&mut self, SequenceStamp { key, sequence }: SequenceStamp) {
        if let Some(entry) = self.by_producer.get(&key)
            && entry.sequence == sequence
        {
            self.by_age.remove(&entry.age);
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
        SequenceStamp { key: ProducerKey { tp, producer: ProducerId(producer), epoch: 0 }, sequence }
    }

    #[test]
    fn a_batch_after_a_rejected_one_waits_until_that_was_appended() {
        let mut rejected = RejectedBatches::default();
        rejected.note_rejected(stamp(1, 5));
        rejected.note_rejected(stamp(1, 7));
        assert_eq!(rejected.before(stamp(1, 6)), Some(5));
        assert_eq!(rejected.before(stamp(1, 5)), None, "the rejected batch itself, sent again");
        assert_eq!(rejected.before(stamp(2, 6)), None);
        rejected.note_appended(stamp(1, 4));
        assert_eq!(rejected.before(stamp(1, 6)), Some(5));
        rejected.note_appended(stamp(1, 5));
        assert_eq!(rejected.before(stamp(1, 6)), None);
        assert!(rejected.by_producer.is_empty() && rejected.by_age.is_empty());
    }

    #[test]
    fn of_too_many_producers_the_one_that_was_silent_longest_is_forgotten() {
        let mut rejected = RejectedBatches::default();
        let many = REJECTED_PRODUCERS_MAX as i64;
        // The largest first: it is age that counts, not the number.
        for producer in (0..many).rev() {
            rejected.note_rejected(stamp(producer, 0));
        }
        rejected.note_rejected(stamp(many - 1, 0));
        rejected.note_rejected(stamp(many, 0));
        let remembers = |producer| rejected.before(stamp(producer, 1)).is_some();
        assert!(!remembers(many - 2), "it was the oldest, once the first was heard of again");
        assert!(remembers(many) && remembers(many - 1) && remembers(many - 3) && remembers(0));
        let sizes = (rejected.by_producer.len(), rejected.by_age.len());
        assert_eq!(sizes, (REJECTED_PRODUCERS_MAX, REJECTED_PRODUCERS_MAX));
    }
}
