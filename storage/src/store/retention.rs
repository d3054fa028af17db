//! Retention: moves the start of a log forward, frees the extents before it, and deletes partitions.
//!
//! Freeing an extent only changes the map. Its space is reused once that change is durable. The active extent is never freed; it is sealed first when
//! its partition's configuration requires it. The log of a compacted partition then ends outside all extents, so that the last one is compacted
//! even if nothing is appended any more.

use highwater_protocol::ids::{Incarnation, Offset};
use highwater_runtime::plane::Disk;

use super::Store;
use super::space::wants_roll;
use crate::api::{LogStartError, PartitionSlot, StoreEvent};
use crate::extent::{APPENDED_UNKNOWN, CREATED_UNKNOWN, Extent, FIRST_POSITION};
use crate::limits::RETENTION_PARTITIONS_PER_STEP;
use crate::map::{MapRecord, PartitionKey};
use crate::partition::{Partition, TailState};
use crate::position::Mark;
use crate::state_log::Seq;

impl Store {
    /// Moves the start of a log forward. [`StoreEvent::LogStart`] reports when that is durable; readers see it at once.
    pub fn set_log_start(
        &mut self,
        _disk: &mut dyn Disk,
        slot: PartitionSlot,
        offset: Offset,
    ) -> Result<(), LogStartError> {
        let partition = self.partition_mut(slot).ok_or(LogStartError::Deleted)?;
        let durable_end = partition.durable.offset.min(partition.commit_point().offset);
        if offset > durable_end {
            return Err(LogStartError::BeyondEnd { offset, durable_end });
        }
        let key = PartitionKey::from(partition.tp);
        let seq = if offset > partition.log_start {
            partition.log_start = offset;
            self.record(&MapRecord::LogStart { key, log_start: offset.0 })
        } else {
            self.state.appended()
        };
        let log_start = self.partition(slot).expect("it was there").log_start;
        self.promise(seq, StoreEvent::LogStart { slot, offset: log_start });
        self.free_below_log_start(slot);
        Ok(())
    }

    /// Enforces the retention settings of the partitions, and retries to get space if there was none. Call it from a timer.
    ///
    /// One call handles at most [`RETENTION_PARTITIONS_PER_STEP`] partitions. Returns whether others are left: call it again in a later turn.
    pub fn enforce_retention(&mut self, disk: &mut dyn Disk, wall_ms: i64) -> bool {
        if self.phase != super::Phase::Open {
            return false;
        }
        let silent_ms = self.config.limits.producer_expiry_ms;
        let from = std::mem::take(&mut self.retention_at);
        let to = from.saturating_add(RETENTION_PARTITIONS_PER_STEP).min(self.partitions.entry_count());
        for at in from..to {
            let Some(slot) = self.partitions.key_at(at).map(PartitionSlot) else { continue };
            let Some(partition) = self.partition_mut(slot) else { continue };
            if !partition.producers.is_empty() {
                partition.producers.expire(wall_ms, silent_ms);
                self.count_producers(slot);
            }
            let Some(partition) = self.partition_mut(slot) else { continue };
            if partition.extents.is_empty() {
                continue;
            }
            partition.set_unknown_times(wall_ms);
            self.end_active_extent(slot, wall_ms);
            let partition = self.partition(slot).expect("it was there");
            let cut = retention_cut(partition, wall_ms);
            let tp = partition.tp;
            if cut > partition.log_start {
                self.partition_mut(slot).expect("it was there").log_start = cut;
                let record = MapRecord::LogStart { key: PartitionKey::from(tp), log_start: cut.0 };
                let seq = self.free_below_log_start(slot).unwrap_or_else(|| self.record(&record));
                self.promise(seq, StoreEvent::LogStart { slot, offset: cut });
            }
        }
        if to < self.partitions.entry_count() {
            self.retention_at = to;
            return true;
        }
        if self.is_quiet() {
            // A checkpoint proves to recovery that the last round was durable. Without one, damage to that round would look like a torn write.
            self.begin_checkpoints();
            self.journal.want_write_back();
        }
        self.note_unused_space();
        self.retry_space(disk);
        false
    }

    /// Seals the active extent of a partition to which nothing is being appended, if its configuration requires that.
    fn end_active_extent(&mut self, slot: PartitionSlot, wall_ms: i64) {
        let Some(partition) = self.partition_mut(slot) else { return };
        if partition.is_settled() && (wants_roll(partition, wall_ms) || is_all_expired(partition, wall_ms)) {
            partition.seal_active();
            partition.tail = None;
            self.record_seals(slot);
        }
        let Some(partition) = self.partition(slot).filter(|partition| partition.config.compaction.is_some())
        else {
            return;
        };
        if partition.is_in_sealed_extent() {
            if partition.is_written_back() {
                self.partition_mut(slot).expect("it was there").leave_last_extent();
            } else {
                self.write_back_first(slot);
            }
        }
    }

    /// Returns whether everything appended is durable and the map does not know it yet.
    fn is_quiet(&self) -> bool {
        self.unacked_bytes == 0 && !self.touched.is_empty()
    }

    /// Deletes a partition. [`StoreEvent::Deleted`] reports when that is durable; then its space is reused.
    pub fn delete_partition(&mut self, _disk: &mut dyn Disk, slot: PartitionSlot) {
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        if partition.deleting {
            return;
        }
        partition.deleting = true;
        partition.tail = None;
        partition.queue.clear();
        self.budget.drop_all(&mut partition.chunks);
        let in_flight = partition.flights.iter().map(|flight| flight.piece.frame_bytes).sum();
        self.unacked_bytes -= partition.unacked_bytes - in_flight;
        partition.unacked_bytes = in_flight;
        for flight in &mut partition.flights {
            // No longer needed.
            flight.failed = false;
        }
        let tp = partition.tp;
        self.by_tp.remove(&tp);
        let seq = self.record(&MapRecord::Deleted { key: PartitionKey::from(tp) });
        self.promise(seq, StoreEvent::Deleted { tp });
        // Also if nothing of it waited for the disk: batches for it that wait for space can be rejected now.
        self.push_event(StoreEvent::RoomAvailable);
        self.end_stall(slot);
        self.advance(slot);
    }

    /// Frees the extents of a deleted partition when no write to them is in flight.
    pub(super) fn finish_delete(&mut self, slot: PartitionSlot) {
        let is_written_to =
            |partition: &Partition| !partition.flights.is_empty() || partition.write_back.is_some();
        if self.partitions.get(slot.0).is_none_or(|partition| is_written_to(partition)) {
            return;
        }
        let partition = self.partitions.remove(slot.0).expect("it was there");
        self.uncount_producers(slot, partition.producers_counted);
        let seq = self.state.appended();
        if let Some(need) = partition.journal_need {
            self.journal.release_when_durable(seq, need);
        }
        for extent in partition.extents {
            self.free_extent(seq, &extent);
        }
        for (place, log2_bytes) in self.orphans.forget(partition.tag) {
            self.free_when_durable(seq, place, log2_bytes);
        }
        let durable = self.state.durable();
        self.settle_space(durable);
        self.journal.settle_releases(durable);
    }

    /// Frees the complete extents before the log's start. `None` if there are none.
    pub(super) fn free_below_log_start(&mut self, slot: PartitionSlot) -> Option<Seq> {
        let partition = self.partition_mut(slot).expect("the caller looked");
        let log_start = partition.log_start;
        let committed = partition.commit_point().index;
        // First writes what only the journal has to its extent: a write must not meet another use of the space.
        let written = (partition.extent_end.sequence, partition.extent_end.position);
        let is_below = |extent: &&Extent| {
            extent.seal_recorded
                && extent.end_offset <= log_start
                && extent.end_index <= committed
                && (extent.sequence, extent.end) <= written
        };
        let mut count = partition.extents.iter().take_while(is_below).count();
        // The map has to record where the log continues, and the last batches of producers, without these extents.
        let known = |p: &Partition| p.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index);
        let last = count.checked_sub(1).map(|last| partition.extents[last].end_index.0);
        let resting = partition.tail_state == TailState::Clean;
        if last.is_some_and(|last| last > known(partition)) && !self.take_checkpoint(slot, resting) {
            count = 0;
        }
        let partition = self.partitions.get_mut(slot.0).expect("it was there");
        let freed: Vec<Extent> = partition.extents.drain(..count).collect();
        let behind = freed.last()?.sequence.next();
        let key = PartitionKey::from(partition.tp);
        self.budget.drop_below(&mut partition.chunks, behind);
        let first = partition.extents.front().map_or(partition.append_index, |extent| extent.base_index);
        partition.forget_below(first);
        let incarnations = freed.iter().map(|extent| extent.incarnation.0).collect();
        let seq = self.record(&MapRecord::Freed { key, incarnations, log_start: log_start.0 });
        for extent in &freed {
            self.free_extent(seq, extent);
        }
        Some(seq)
    }

    fn free_extent(&mut self, seq: Seq, extent: &Extent) {
        if let Some(place) = extent.place {
            self.free_when_durable(seq, place, extent.log2_bytes);
        }
    }
}

impl Partition {
    /// Dates what recovery could not date. It was there before now.
    fn set_unknown_times(&mut self, wall_ms: i64) {
        for extent in &mut self.extents {
            if extent.untimed_ms == APPENDED_UNKNOWN {
                extent.untimed_ms = wall_ms;
            }
            if extent.created_ms == CREATED_UNKNOWN {
                extent.created_ms = wall_ms;
            }
        }
    }

    /// Whether the log ends in an extent that takes no more frames, and nothing of it is going to change.
    fn is_in_sealed_extent(&self) -> bool {
        let last = self.extents.back().filter(|last| last.seal_recorded);
        last.is_some_and(|last| last.sequence == self.durable.sequence)
            && !self.faulty
            && self.cut.is_none()
            && self.is_settled()
            && self.commit_point().index == self.durable.index
    }

    /// Moves the ends of the log past its last extent, which may be rewritten then as those before it. The next frame begins another one.
    fn leave_last_extent(&mut self) {
        assert!(self.is_in_sealed_extent() && self.extent_end.index == self.durable.index);
        let sequence = self.durable.sequence.next();
        self.durable = Mark { sequence, incarnation: Incarnation(0), position: 0, ..self.durable };
        self.extent_end = self.durable;
    }
}

fn is_expired(partition: &Partition, extent: &Extent, wall_ms: i64) -> bool {
    partition.config.retention_ms.is_some_and(|ms| extent.newest_ms() < wall_ms.saturating_sub(ms))
}

/// Returns whether retention keeps nothing of the active extent either.
fn is_all_expired(partition: &Partition, wall_ms: i64) -> bool {
    partition.active().is_some_and(Extent::has_frames)
        && partition.extents.iter().all(|extent| is_expired(partition, extent, wall_ms))
}

/// Returns where the log may start by time and by size: whole extents only, from the front. Data that is not durable does not count: a crash may lose
/// it, and durable data would have been deleted in its favour.
fn retention_cut(partition: &Partition, wall_ms: i64) -> Offset {
    let durable_bytes = |extent: &Extent| u64::from(partition.readable_to(extent) - FIRST_POSITION);
    let mut bytes: u64 = partition.extents.iter().map(durable_bytes).sum();
    let mut cut = partition.log_start;
    let committed = partition.commit_point().index;
    let is_settled = |extent: &&Extent| extent.seal_recorded && extent.end_index <= committed;
    for extent in partition.extents.iter().take_while(is_settled) {
        let rest = bytes - u64::from(extent.used_bytes());
        let too_large = partition.config.retention_bytes.is_some_and(|max| rest >= max);
        if !too_large && !is_expired(partition, extent, wall_ms) {
            break;
        }
        bytes = rest;
        cut = cut.max(extent.end_offset);
    }
    cut
}
