//! Partitions whose appended records wait for disk space.
//!
//! Space for records is allocated when a slab is created, so writes into a slab need none. But a copy-on-write file system may have no space for
//! them: it writes blocks that a copy of the file shares (`cp --reflink`) elsewhere. A rewrite of the store's map may find no space either, and
//! nothing in a new extent is durable before that.
//!
//! Then the partition stalls:
//!
//! - Its appended records stay in memory at their offsets and are written again, in order, until that succeeds. So the same bytes
//!   replace what a failed write left on the disk, and no offset ever names another record.
//! - The owner is notified ([`StoreEvent::Stalled`]), so that no client waits for an acknowledgement. Whether these records become durable
//!   is unknown to their producers. A batch that is sent again is recognised.
//! - Appends are rejected until everything is durable. Reads, retention and deletions continue.
//!
//! A start stalls partitions too, if it finds frames that may not be durable and no space to write them again ([`super::open`]).
//!
//! Each call of [`Store::enforce_retention`] retries once.

use crate::api::{AppendError, PartitionSlot, StoreEvent};
use crate::partition::{Partition, TailState};

use super::Store;

impl Store {
    /// Returns whether appends to this partition have to be rejected, because earlier ones wait for space or this one would have to.
    pub(super) fn check_stall(&self, partition: &Partition) -> Result<(), AppendError> {
        let would_wait = self.state.is_stalled() && partition.tail_state == TailState::Clean;
        if partition.stalled || would_wait || self.journal.is_stalled() {
            Err(AppendError::StorageFull)
        } else {
            Ok(())
        }
    }

    /// Handles that there was no space for a part of a flight.
    pub(super) fn on_flight_failed(&mut self, slot: PartitionSlot, flight: u64, path: &str) {
        let partition = self.partitions.get_mut(slot.0).expect("a partition waits for its writes");
        if partition.deleting {
            return;
        }
        partition.flight_mut(flight).failed = true;
        self.stall(slot);
        self.tell_full(format!(
            "{path}: no space for a write into a file that is there; records of partitions that are concerned are refused until space is freed"
        ));
    }

    pub(super) fn stall(&mut self, slot: PartitionSlot) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        if !std::mem::replace(&mut partition.stalled, true) {
            self.stalled.insert(slot);
            self.push_event(StoreEvent::Stalled { slot });
        }
    }

    /// Ends a stall: what waited for space is durable, or no longer needed.
    pub(super) fn end_stall(&mut self, slot: PartitionSlot) {
        if self.stalled.remove(&slot) {
            let partition = self.partitions.get_mut(slot.0).expect("it is removed later");
            (partition.stalled, partition.flags.written_again) = (false, false);
            self.tell_space();
        }
    }

    /// Ends a partition's stall if everything appended to it is durable.
    pub(super) fn end_stall_if_settled(&mut self, slot: PartitionSlot) {
        if self.partition(slot).is_some_and(|partition| partition.stalled && partition.is_settled()) {
            self.end_stall(slot);
        }
    }

    /// Queues failed writes again, for the next round.
    pub(super) fn retry_stalled_writes(&mut self) {
        for slot in &self.stalled {
            let partition = self.partitions.get_mut(slot.0).expect("a deleted partition has no stall");
            let Some(entries) = partition.requeue_failed() else { continue };
            for entry in entries {
                self.journal.release(entry);
            }
            if !std::mem::replace(&mut partition.flags.dirty, true) {
                self.dirty.push_back(*slot);
            }
        }
    }

    /// Stalls the partitions that wait for the map if it has found no space; reports space if the map has been rewritten since.
    pub(super) fn follow_map_stall(&mut self) {
        let is_stalled = self.state.is_stalled();
        if std::mem::replace(&mut self.map_stalled, is_stalled) == is_stalled {
            return;
        }
        if !is_stalled {
            return self.tell_space();
        }
        let waiting = self.touched.iter().copied().filter(|slot| self.waits_for_map(*slot));
        for slot in waiting.collect::<Vec<_>>() {
            self.stall(slot);
        }
        self.tell_full(format!(
            "{}: no space to rewrite the map of the store; records that need it are refused until space is freed",
            self.config.dir.display()
        ));
    }

    /// Returns whether data was appended to a partition that is not durable before the map is.
    fn waits_for_map(&self, slot: PartitionSlot) -> bool {
        let Some(partition) = self.partition(slot).filter(|partition| !partition.is_settled()) else {
            return false;
        };
        let durable = self.state.durable();
        let written_to =
            partition.extents.iter().rev().take_while(|e| e.sequence >= partition.durable.sequence);
        matches!(partition.tail_state, TailState::Reactivating(seq) if seq > durable)
            || written_to.into_iter().any(|extent| {
                !self.space.is_reserved(extent.incarnation)
                    || extent.map_seq.is_some_and(|seq| seq > durable)
                    || extent.write_bound.writable_to(durable) < extent.end
            })
    }

    /// Notifies the owner once that the disk is full. Appends that wait for space are rejected.
    pub(super) fn tell_full(&mut self, why: String) {
        let told = std::mem::replace(&mut self.space.is_told, true);
        self.push_event(if told { StoreEvent::RoomAvailable } else { StoreEvent::StorageFull(why) });
    }

    /// Notifies the owner that there is space again, if nothing waits for it any more.
    pub(super) fn tell_space(&mut self) {
        let waits = self.space.full.is_some()
            || !self.stalled.is_empty()
            || self.map_stalled
            || self.journal.is_stalled();
        if !waits && std::mem::take(&mut self.space.is_told) {
            self.push_event(StoreEvent::SpaceAvailable);
        }
    }
}
