//! Limits the idempotent producers that a store remembers over all its partitions: a client can create any number of them in each partition.

use std::collections::BTreeSet;

use super::Store;
use crate::api::PartitionSlot;

/// The number of producers of each partition.
#[derive(Default, Debug)]
pub(super) struct KnownProducers {
    total: usize,
    /// Partitions with producers, those with the most last.
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
    /// Returns the number of remembered idempotent producers over all partitions.
    pub fn known_producers(&self) -> usize {
        self.known_producers.total
    }

    /// Counts the producers that recovery found.
    pub(super) fn count_all_producers(&mut self) {
        let slots: Vec<PartitionSlot> = self.by_tp.values().copied().collect();
        for slot in slots {
            self.count_producers(slot);
        }
    }

    /// Updates the number of a partition's producers. If the store has too many, the partition with the most forgets those that were silent longest:
    /// a client that creates producers without end displaces its own.
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

    /// Removes a deleted partition.
    pub(super) fn uncount_producers(&mut self, slot: PartitionSlot, counted: usize) {
        self.known_producers.change(slot, counted, 0);
    }
}

/// One part in this many of the producers is forgotten at once, so that not every new producer starts a search for the one that was silent longest.
const FORGOTTEN_PART: usize = 16;
