//! Appends: checks, space, tail.

use highwater_protocol::frame::frame_bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_runtime::plane::Disk;

use super::{Phase, Store};
use crate::api::{AppendError, Appended, FramePlacement, PartitionSlot, Payload, ProducerCheck};
use crate::map::{MapRecord, PartitionKey};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{AppendContext, Gaps, Partition, TailState};
use crate::producers::ProducerStamp;

impl Store {
    /// Appends a record batch: sets its base offset and leader epoch and adds it to the tail. A later [`flush`](Self::flush) makes it durable. The
    /// caller has checked the batch; the batch's own checksum is that of its frame.
    pub fn append(
        &mut self,
        _disk: &mut dyn Disk,
        slot: PartitionSlot,
        payload: Payload<'_>,
        epoch: LeaderEpoch,
        wall_ms: i64,
    ) -> Result<Appended, AppendError> {
        let header = &payload.header;
        assert!(header.last_offset_delta.get() >= 0, "the caller has checked the batch's offsets");
        let batch_bytes = header.batch_bytes();
        let partition = self.partition(slot).ok_or(AppendError::Deleted)?;
        self.check_phase(partition)?;
        partition.assert_leads(epoch);
        match partition.producers.check(&ProducerStamp::of(header)) {
            ProducerCheck::New => {}
            // It would not be acknowledged before there is space.
            ProducerCheck::Duplicate { next_offset, .. }
                if partition.stalled && next_offset > partition.durable.offset =>
            {
                return Err(AppendError::StorageFull);
            }
            ProducerCheck::Duplicate { base_offset, next_offset, timestamp } => {
                return Err(AppendError::Duplicate { base_offset, next_offset, timestamp });
            }
            ProducerCheck::OutOfOrder { expected } => return Err(AppendError::OutOfOrder { expected }),
            ProducerCheck::Fenced => return Err(AppendError::Fenced),
        }
        self.check_stall(partition)?;
        self.check_backlog(partition, batch_bytes)?;
        let placement = payload.placement();
        self.ensure_room(slot, batch_bytes, (placement, Gaps::None), epoch, wall_ms)?;
        Ok(self.append_with(slot, wall_ms, |partition, context| partition.push(context, payload, epoch)))
    }

    /// Appends the first frame of a leader's epoch. The frame has an index and no offset.
    pub fn append_epoch_start(
        &mut self,
        _disk: &mut dyn Disk,
        slot: PartitionSlot,
        epoch: LeaderEpoch,
        wall_ms: i64,
    ) -> Result<LogIndex, AppendError> {
        let partition = self.partition(slot).ok_or(AppendError::Deleted)?;
        self.check_phase(partition)?;
        partition.assert_leads(epoch);
        self.check_stall(partition)?;
        self.check_backlog(partition, 0)?;
        self.ensure_room(slot, 0, (FramePlacement::Packed, Gaps::None), epoch, wall_ms)?;
        Ok(self.append_with(slot, wall_ms, |partition, context| partition.push_epoch_start(context, epoch)))
    }

    pub(super) fn append_with<T>(
        &mut self,
        slot: PartitionSlot,
        wall_ms: i64,
        push: impl FnOnce(&mut Partition, &mut AppendContext<'_>) -> T,
    ) -> T {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let (limits, macs) = (&self.config.limits, &self.macs);
        let mut context = AppendContext { limits, budget: &mut self.budget, wall_ms, macs };
        let before = partition.unacked_bytes;
        let result = push(partition, &mut context);
        let bytes = partition.unacked_bytes - before;
        let has_other_producers = partition.producers.len() != partition.producers_counted;
        if !is_planted(Mutant::BoundAfterWrite) {
            self.keep_write_bound(slot, bytes);
        }
        let partition = self.partitions.get_mut(slot.0).expect("as above");
        self.unacked_bytes += bytes;
        self.appended_since_checkpoint += bytes;
        self.stats.frames_appended += 1;
        self.stats.bytes_appended += bytes;
        if !partition.flags.dirty {
            partition.flags.dirty = true;
            self.dirty.push_back(slot);
        }
        if !partition.flags.touched {
            partition.flags.touched = true;
            self.touched.push_back(slot);
        }
        match partition.tail_state {
            TailState::Active | TailState::Reactivating(_) => {}
            TailState::Idle => partition.tail_state = TailState::Active,
            TailState::Clean => {
                let key = PartitionKey::from(partition.tp);
                let seq = self.record(&MapRecord::Reactivated { key });
                self.partitions.get_mut(slot.0).expect("as above").tail_state = TailState::Reactivating(seq);
            }
        }
        if has_other_producers {
            self.count_producers(slot);
        }
        self.evict();
        result
    }

    pub(super) fn check_phase(&self, partition: &Partition) -> Result<(), AppendError> {
        if self.phase != Phase::Open {
            return Err(AppendError::Busy);
        }
        if partition.faulty {
            return Err(AppendError::Faulty);
        }
        if partition.cut.is_some() { Err(AppendError::Busy) } else { Ok(()) }
    }

    /// Returns whether a batch of this size may join those that wait for the disk. One batch may always wait.
    pub(super) fn check_backlog(&self, partition: &Partition, batch_bytes: usize) -> Result<(), AppendError> {
        let limits = &self.config.limits;
        if batch_bytes > limits.payload_bytes_max {
            return Err(AppendError::TooLarge { bytes: batch_bytes, max: limits.payload_bytes_max });
        }
        let bytes = frame_bytes(batch_bytes) as u64;
        let of_partition =
            partition.unacked_bytes > 0 && partition.unacked_bytes + bytes > limits.unacked_bytes_max;
        let of_store = self.unacked_bytes > 0 && self.unacked_bytes + bytes > limits.store_unacked_bytes_max;
        if of_store && !self.stalled.is_empty() {
            // Its memory may not be freed before there is space.
            return Err(AppendError::StorageFull);
        }
        if of_partition || of_store { Err(AppendError::Busy) } else { Ok(()) }
    }

    /// Drops the oldest chunks of the cache while it is over its budget.
    pub(super) fn evict(&mut self) {
        while self.budget.bytes() > self.config.limits.cache_bytes_max {
            let Some((slot, _)) = self.budget.oldest() else { break };
            let partition = self.partitions.get_mut(slot.0);
            let gone = match partition {
                None => self.budget.evict(None, |_| true),
                Some(partition) => {
                    let end = partition.extent_end;
                    self.budget.evict(Some(&mut partition.chunks), |chunk| {
                        (chunk.extent.sequence, chunk.to) <= (end.sequence, end.position)
                    })
                }
            };
            if !gone {
                // This chunk is the only copy in memory of data that the extents lack.
                self.journal.want_write_back();
                break;
            }
        }
        if self.budget.wants_cleaning() {
            let partitions = &self.partitions;
            self.budget.clean(|slot, id| partitions.get(slot.0).is_some_and(|p| p.chunks.holds(id)));
        }
    }
}
