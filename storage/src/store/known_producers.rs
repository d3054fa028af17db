//! How many idempotent producers a store remembers, over all its partitions: a client can make as many as it likes, in each of them.

use std::collections::BTreeSet;

use super::Store;
use crate::api::PartitionSlot;

/// The producers of each partition, counted.
#[derive(Default, Debug)]
pub(super) struct KnownProducers {
    total: usize,
    /// Partitions that have any, those with the most last.
    by_count: BTreeSet<(usize, PartitionSlot)>,
}

impl KnownProducers {
    fn change(&mut self, slot: PartitionSlot, before: usize, now: usize) {
        self.total = self.total + now - before;
        self.by_count.remove(&(before, slot));
        if now > 0 {
            self.by_count.insert((now, slot));
        }
    }
}

impl Store {
    /// Idempotent producers that are remembered, over all partitions.
    pub fn known_producers(&self) -> usize {
        self.known_producers.total
    }

    /// A partition knows more or fewer producers than before. If the store knows too many, the partition that knows the most forgets those that
    /// have been silent for longest: whoever makes producers without end displaces their own.
    pub(super) fn count_producers(&mut self, slot: PartitionSlot) {
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        let now = partition.producers.len();
        let before = std::mem::replace(&mut partition.producers_counted, now);
        self.known_producers.change(slot, before, now);
        while self.known_producers.total > self.config.limits.store_producers_max {
            let Some((before, most)) = self.known_producers.by_count.last().copied() else { return };
            let partition = self.partitions.get_mut(most.0).expect("what is counted is there");
            partition.producers.forget_silent(before.div_ceil(FORGOTTEN_PART));
            let now = partition.producers.len();
            partition.producers_counted = now;
            self.known_producers.change(most, before, now);
        }
    }

    /// A partition is gone.
    pub(super) fn uncount_producers(&mut self, slot: PartitionSlot, counted: usize) {
        self.known_producers.change(slot, counted, 0);
    }
}

/// One of so many producers is forgotten at once, so that not every new one has to look for the one that was silent for longest.
const FORGOTTEN_PART: usize = 16;
