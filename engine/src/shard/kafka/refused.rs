//! Batches that were refused and will be sent again, by their producers: what was sent behind one must not overtake it.
//! See [`crate::shard::order`].

use std::collections::BTreeMap;

use crate::limits::REFUSED_PRODUCERS_MAX;
use crate::mutants::{Mutant, is_planted};
use crate::shard::connection::ProducerOf;
use crate::shard::order::Stamp;

/// What an owner remembers. If that is too much, it forgets the producer that it has not heard of for the longest time, which most
/// likely has given up.
#[derive(Default)]
pub(super) struct Refused {
    of: BTreeMap<ProducerOf, Entry>,
    /// The producers, those heard of last at the end.
    heard: BTreeMap<u64, ProducerOf>,
    last: u64,
}

struct Entry {
    /// Of the batch that was refused.
    sequence: i32,
    heard: u64,
}

impl Refused {
    /// The refused batch that this one has to wait for, if there is one.
    pub(super) fn in_front_of(&self, (of, sequence): Stamp) -> Option<i32> {
        let refused = self.of.get(&of)?.sequence;
        (sequence.wrapping_sub(refused) > 0 && !is_planted(Mutant::RejectedBatchOvertaken)).then_some(refused)
    }

    /// A batch was refused, for the first time or again.
    pub(super) fn note(&mut self, (of, sequence): Stamp) {
        self.last += 1;
        let heard = self.last;
        let entry = self.of.entry(of).or_insert(Entry { sequence, heard });
        self.heard.remove(&entry.heard);
        entry.heard = heard;
        self.heard.insert(heard, of);
        if self.heard.len() > REFUSED_PRODUCERS_MAX
            && let Some((_, of)) = self.heard.pop_first()
        {
            self.of.remove(&of);
        }
    }

    /// A batch was appended.
    pub(super) fn appended(&mut self, (of, sequence): Stamp) {
        if let Some(entry) = self.of.get(&of)
            && entry.sequence == sequence
        {
            self.heard.remove(&entry.heard);
            self.of.remove(&of);
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionIndex, ProducerId, TopicId, TopicPartition};

    use super::*;

    fn of(producer: i64) -> ProducerOf {
        let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        ProducerOf { tp, producer: ProducerId(producer), epoch: 0 }
    }

    #[test]
    fn what_follows_a_refused_batch_waits_until_that_was_appended() {
        let mut refused = Refused::default();
        refused.note((of(1), 5));
        refused.note((of(1), 7));
        assert_eq!(refused.in_front_of((of(1), 6)), Some(5));
        assert_eq!(refused.in_front_of((of(1), 5)), None, "the one itself, sent again");
        assert_eq!(refused.in_front_of((of(2), 6)), None);
        refused.appended((of(1), 4));
        assert_eq!(refused.in_front_of((of(1), 6)), Some(5));
        refused.appended((of(1), 5));
        assert_eq!(refused.in_front_of((of(1), 6)), None);
        assert!(refused.of.is_empty() && refused.heard.is_empty());
    }

    #[test]
    fn of_too_many_the_one_that_was_silent_longest_is_forgotten() {
        let mut refused = Refused::default();
        let many = REFUSED_PRODUCERS_MAX as i64;
        // The largest first: it is age that counts, not the number.
        for producer in (0..many).rev() {
            refused.note((of(producer), 0));
        }
        refused.note((of(many - 1), 0));
        refused.note((of(many), 0));
        let remembers = |producer| refused.in_front_of((of(producer), 1)).is_some();
        assert!(!remembers(many - 2), "it was the oldest, once the first was heard of again");
        assert!(remembers(many) && remembers(many - 1) && remembers(many - 3) && remembers(0));
        assert_eq!((refused.of.len(), refused.heard.len()), (REFUSED_PRODUCERS_MAX, REFUSED_PRODUCERS_MAX));
    }
}
