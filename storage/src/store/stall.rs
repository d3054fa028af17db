//! Waiting for space with what has been appended.
//!
//! Space for records is taken when a slab is made, and writes into it need none. But a file system that copies on write can have none for
//! them: blocks that a copy of the file shares (`cp --reflink`) are written elsewhere. And the map of the store may find none when it is
//! rewritten; nothing in a new extent is durable before that.
//!
//! A partition that meets this stalls:
//!
//! - What has been appended to it stays as it is, in memory and at its offsets, and is written again until that succeeds, in order. So what
//!   a failed write left on the disk is replaced by the same bytes, and no offset ever names another record.
//! - The owner is told ([`StoreEvent::Stalled`]), so that nobody waits for an acknowledgement. What was sent is unknown to its producers
//!   then: it may become durable. A batch that is sent again is still recognised.
//! - Appends are refused until everything is durable. Reads, retention and deletions go on.
//!
//! [`Store::enforce_retention`] tries again, once each time it is called.

use crate::api::{AppendError, PartitionSlot, StoreEvent};
use crate::layout::SlabId;
use crate::partition::{Partition, TailState};

use super::Store;

impl Store {
    /// Whether appends to this partition can only be refused, because what was appended before waits for space or would have to.
    pub(super) fn check_stall(&self, partition: &Partition) -> Result<(), AppendError> {
        let would_wait = self.state.is_stalled() && partition.tail_state == TailState::Clean;
        if partition.stalled || would_wait { Err(AppendError::StorageFull) } else { Ok(()) }
    }

    /// There was no space for a part of a flight.
    pub(super) fn on_flight_failed(&mut self, slot: PartitionSlot, flight: u64, slab: SlabId) {
        let partition = self.partitions.get_mut(slot.0).expect("a partition waits for its writes");
        if partition.deleting {
            return;
        }
        partition.flight_mut(flight).failed = true;
        self.stall(slot);
        self.tell_full(format!(
            "{}: no space for a write into a file that is there; records of partitions that are concerned are refused until space is freed",
            self.slab_path(slab)
        ));
    }

    fn stall(&mut self, slot: PartitionSlot) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        if !std::mem::replace(&mut partition.stalled, true) {
            self.stalled.insert(slot);
            self.push_event(StoreEvent::Stalled { slot });
        }
    }

    /// What waited for space is durable, or nobody needs it any more.
    pub(super) fn end_stall(&mut self, slot: PartitionSlot) {
        if self.stalled.remove(&slot) {
            self.partitions.get_mut(slot.0).expect("it is removed later").stalled = false;
            self.tell_space();
        }
    }

    /// Ends a partition's stall if everything appended to it is durable.
    pub(super) fn end_stall_if_settled(&mut self, slot: PartitionSlot) {
        if self.partition(slot).is_some_and(|partition| partition.stalled && partition.is_settled()) {
            self.end_stall(slot);
        }
    }

    /// Writes what found no space again, with the next round.
    pub(super) fn retry_stalled_writes(&mut self) {
        for slot in &self.stalled {
            let partition = self.partitions.get_mut(slot.0).expect("a deleted partition has no stall");
            if partition.requeue_failed() && !std::mem::replace(&mut partition.flags.dirty, true) {
                self.dirty.push_back(*slot);
            }
        }
    }

    /// The map has found no space, or has been rewritten since: partitions that wait for it stall.
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

    /// Whether something was appended to a partition that is not durable before the map is.
    fn waits_for_map(&self, slot: PartitionSlot) -> bool {
        let Some(partition) = self.partition(slot).filter(|partition| !partition.is_settled()) else {
            return false;
        };
        let durable = self.state.durable();
        let written_to =
            partition.extents.iter().rev().take_while(|e| e.sequence >= partition.durable.sequence);
        matches!(partition.tail_state, TailState::Reactivating(seq) if seq > durable)
            || written_to.into_iter().any(|extent| {
                !self.space.is_reserved(extent.incarnation) || extent.map_seq.is_some_and(|seq| seq > durable)
            })
    }

    /// Tells the owner that the disk is full, once; whoever waits for room is refused.
    pub(super) fn tell_full(&mut self, why: String) {
        let told = std::mem::replace(&mut self.space.is_told, true);
        self.push_event(if told { StoreEvent::RoomAvailable } else { StoreEvent::StorageFull(why) });
    }

    /// Tells the owner that there is space again, if nothing waits for some.
    pub(super) fn tell_space(&mut self) {
        let waits = self.space.full.is_some() || !self.stalled.is_empty() || self.map_stalled;
        if !waits && std::mem::take(&mut self.space.is_told) {
            self.push_event(StoreEvent::SpaceAvailable);
        }
    }
}
