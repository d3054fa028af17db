//! Records changes in the map, and takes checkpoints.
//!
//! A checkpoint holds only the durable state, of producers too: a crash may lose the rest, and a retry of a lost batch must not be answered as a
//! duplicate.

use highwater_runtime::plane::Disk;

use super::Store;
use crate::api::PartitionSlot;
use crate::extent::{BoundNeed, Extent, NO_TIMESTAMP, bound_after};
use crate::layout::Place;
use crate::limits::{
    APPENDED_PER_CHECKPOINT_BYTES, BOUNDS_PER_TURN_MAX, CHECKPOINT_PRODUCERS_PER_WORK,
    CHECKPOINT_WORK_PER_TURN_MAX,
};
use crate::map::{
    CheckpointEntry, EpochEntry, ExtentEntry, MapRecord, PartitionEntry, PartitionKey, SealEntry,
};
use crate::partition::{Partition, TailState};
use crate::position::Mark;
use crate::state_log::Seq;

/// How far back to look for extents whose ends are to be recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SealScan {
    /// To the last one that was recorded: in a running store all before it were recorded too.
    UntilRecorded,
    /// All of them: a rebuilt map knows the ends of rewritten extents only.
    All,
}

impl Extent {
    /// Returns its entry in the map. `None` while it has no place on disk. `is_sealed`: the entry says where it ends.
    pub(crate) fn entry(&self, is_sealed: bool) -> Option<ExtentEntry> {
        let Place { slab, at } = self.place?;
        Some(ExtentEntry {
            slab: slab.0,
            at,
            log2_bytes: self.log2_bytes,
            version: self.version,
            sequence: self.sequence.0,
            generation: self.generation,
            incarnation: self.incarnation.0,
            base_index: self.base_index.0,
            base_offset: self.base_offset.0,
            leader_epoch: self.leader_epoch.0,
            has_gaps: self.has_gaps,
            created_ms: self.created_ms,
            sealed: is_sealed.then(|| self.seal_entry()),
        })
    }

    /// Returns its incarnation, and when the last batch without a timestamp was appended to it, if there is one.
    pub(super) fn untimed(&self) -> Option<(u64, i64)> {
        (self.untimed_ms != NO_TIMESTAMP).then_some((self.incarnation.0, self.untimed_ms))
    }

    /// Returns its incarnation and its write bound, if the map has to keep one.
    pub(super) fn write_bound_entry(&self) -> Option<(u64, u32)> {
        let bound = self.write_bound.recorded();
        (!self.seal_recorded && bound < self.bytes()).then_some((self.incarnation.0, bound))
    }

    /// Returns its incarnation, and when its tombstones may all be removed, if that is known.
    pub(super) fn horizon(&self) -> Option<(u64, i64)> {
        (self.horizon_ms != NO_TIMESTAMP).then_some((self.incarnation.0, self.horizon_ms))
    }

    fn seal_entry(&self) -> SealEntry {
        assert!(self.sealed);
        SealEntry {
            position: self.end,
            index: self.end_index.0,
            offset: self.end_offset.0,
            max_timestamp: self.max_timestamp,
        }
    }
}

impl Partition {
    /// Returns the current durable state. `None` if it is unknown: see [`Producers::below`](crate::producers::Producers::below). A faulty partition
    /// keeps its checkpoint, so that every start finds the damage again.
    pub(super) fn durable_checkpoint(&self) -> Option<CheckpointEntry> {
        if self.faulty {
            return None;
        }
        let Mark { sequence, incarnation, .. } = self.durable;
        let extent = self.durable_extent();
        let commit = self.commit_point();
        Some(CheckpointEntry {
            sequence: sequence.0,
            incarnation: incarnation.0,
            position: self.durable.position,
            index: self.durable.index.0,
            offset: self.durable.offset.0,
            // A quorum can have committed frames that are not durable here.
            commit_index: commit.index.min(self.durable.index).0,
            commit_offset: commit.offset.min(self.durable.offset).0,
            last_epoch: self.last_epoch.map(|epoch| epoch.0),
            // The extent's largest timestamp may belong to a batch that is not durable yet. A timestamp that is too large only costs a search.
            max_timestamp: extent.map_or(NO_TIMESTAMP, |extent| extent.max_timestamp),
            epochs: self.epochs.below(self.durable.index).map(EpochEntry::from).collect(),
            producers: self.producers.below(self.durable.offset, commit.offset)?,
        })
    }

    fn is_durable_to_its_end(&self, extent: &Extent) -> bool {
        (extent.sequence, extent.end) <= (self.durable.sequence, self.durable.position)
    }

    /// Returns its entry in a snapshot of the map. `last`: nothing will be written after this.
    pub(super) fn entry(&self, last: bool) -> PartitionEntry {
        let fresh = self.durable_checkpoint();
        let complete =
            fresh.is_some() && (self.tail_state == TailState::Clean || (last && self.flights.is_empty()));
        // A checkpoint implies that every extent before it has an end: after a map was rebuilt no record has said so yet.
        let is_before =
            |extent: &Extent| fresh.is_some() && extent.sealed && self.is_durable_to_its_end(extent);
        let entry = |extent: &Extent| extent.entry(extent.seal_recorded || is_before(extent));
        PartitionEntry {
            key: PartitionKey::from(self.tp),
            log_start: self.log_start.0,
            extents: self.extents.iter().filter_map(entry).collect(),
            checkpoint: fresh.or_else(|| self.checkpoint.as_deref().cloned()),
            complete,
        }
    }
}

impl Store {
    /// Adds a record to the map's log. The next flush writes it.
    pub(super) fn record(&mut self, record: &MapRecord) -> Seq {
        self.state.append(&record.encode())
    }

    /// Starts writing the records added so far, and continues a snapshot if the log is full. Returns whether the snapshot is incomplete.
    pub(super) fn flush_map(&mut self, disk: &mut dyn Disk) -> bool {
        self.raise_due_bounds();
        self.state.flush(disk);
        if self.state.is_stalled() {
            // The disk has no space for a new generation. A timer retries; retrying every turn would use up all of the shard's time.
            return false;
        }
        if self.state.wants_snapshot() {
            self.begin_snapshot(false);
        }
        self.continue_snapshot(disk)
    }

    /// Begins a round of checkpoints if enough was appended since the last one, and takes those of this turn. Returns whether the round continues in
    /// a later turn.
    pub(super) fn continue_checkpoints(&mut self) -> bool {
        if self.appended_since_checkpoint >= self.checkpoint_interval_bytes() {
            self.begin_checkpoints();
        }
        let mut work = CHECKPOINT_WORK_PER_TURN_MAX;
        while work > 0 && self.checkpoints_left > 0 {
            self.checkpoints_left -= 1;
            let Some(slot) = self.touched.pop_front() else { break };
            work = work.saturating_sub(self.checkpoint_work(slot));
            self.checkpoint_touched(slot);
        }
        self.checkpoints_left > 0
    }

    /// Returns the bytes appended between two rounds of checkpoints. A start after a crash reads what follows the last round, so it is little if
    /// few partitions have to be recorded.
    fn checkpoint_interval_bytes(&self) -> u64 {
        let limits = &self.config.limits;
        let checkpoints = self.touched.len() + self.known_producers() / CHECKPOINT_PRODUCERS_PER_WORK;
        let interval = (checkpoints as u64).saturating_mul(APPENDED_PER_CHECKPOINT_BYTES);
        interval.max(limits.checkpoint_bytes_min).min(limits.checkpoint_bytes)
    }

    /// Plans a checkpoint of every partition that was appended to, some of them each turn. Partitions that were not appended to since the last round
    /// become idle, then clean.
    pub(super) fn begin_checkpoints(&mut self) {
        self.appended_since_checkpoint = 0;
        self.stats.checkpoints += 1;
        self.checkpoints_left = self.touched.len();
    }

    /// Returns the work of a checkpoint of a partition. Producers make it larger.
    fn checkpoint_work(&self, slot: PartitionSlot) -> usize {
        1 + self
            .partition(slot)
            .map_or(0, |partition| partition.producers.len() / CHECKPOINT_PRODUCERS_PER_WORK)
    }

    fn checkpoint_touched(&mut self, slot: PartitionSlot) {
        let Some(partition) = self.partition_mut(slot) else { return };
        // The end of a log that only the journal has is not settled: if the journal were lost, the next start would have to search for it.
        let quiet = partition.is_settled() && partition.is_written_back();
        let is_clean = quiet && partition.tail_state == TailState::Idle;
        let taken = self.take_checkpoint(slot, is_clean);
        let partition = self.partition_mut(slot).expect("it was there");
        partition.tail_state = match (taken && quiet, is_clean) {
            (true, true) => TailState::Clean,
            (true, false) => TailState::Idle,
            (false, _) => partition.tail_state,
        };
        partition.flags.touched = !partition.faulty && partition.tail_state != TailState::Clean;
        if partition.flags.touched {
            self.touched.push_back(slot);
        }
    }

    /// Takes a checkpoint of one partition's durable state. Returns `false` if none can be taken now.
    pub(super) fn take_checkpoint(&mut self, slot: PartitionSlot, complete: bool) -> bool {
        self.record_seals_before_checkpoint(slot, SealScan::UntilRecorded);
        let Some(checkpoint) = self.partition(slot).and_then(Partition::durable_checkpoint) else {
            return false;
        };
        self.record_configurations(slot);
        let partition = self.partitions.get_mut(slot.0).expect("it was there");
        partition.checkpoint = Some(Box::new(checkpoint.clone()));
        let key = PartitionKey::from(partition.tp);
        let untimed = partition.durable_extent().and_then(Extent::untimed);
        self.record_untimed(untimed);
        self.record(&MapRecord::Checkpoint { key, checkpoint, complete });
        true
    }

    /// Records the extents of a partition that are complete and durable.
    pub(super) fn record_seals(&mut self, slot: PartitionSlot) {
        self.record_seals_to(slot, |durable| durable, SealScan::UntilRecorded);
    }

    /// The same for a recovered partition.
    pub(super) fn record_all_seals(&mut self, slot: PartitionSlot) {
        self.record_seals_to(slot, |durable| durable, SealScan::All);
    }

    /// Records the extents before that of the next checkpoint. A map with a checkpoint has to have their ends: without one, recovery would read
    /// such an extent and expect the epoch of the checkpoint.
    pub(super) fn record_seals_before_checkpoint(&mut self, slot: PartitionSlot, scan: SealScan) {
        self.record_seals_to(slot, |durable| Mark { position: 0, ..durable }, scan);
    }

    /// Records the extents that end before this mark or there. `to` makes it of the durable end.
    fn record_seals_to(&mut self, slot: PartitionSlot, to: fn(Mark) -> Mark, scan: SealScan) {
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        let to = to(partition.durable);
        let key = PartitionKey::from(partition.tp);
        let mut records = Vec::new();
        let mut untimed = Vec::new();
        for extent in partition.extents.iter_mut().rev() {
            if scan == SealScan::UntilRecorded && extent.seal_recorded && extent.sequence < to.sequence {
                break;
            }
            let complete = (extent.sequence, extent.end) <= (to.sequence, to.position);
            if extent.sealed && complete && !extent.seal_recorded {
                extent.seal_recorded = true;
                untimed.extend(extent.untimed());
                records.push(MapRecord::Sealed {
                    key,
                    incarnation: extent.incarnation.0,
                    seal: extent.seal_entry(),
                });
            }
        }
        self.record_untimed(untimed);
        for record in records.iter().rev() {
            self.record(record);
        }
    }

    pub(super) fn record_untimed(&mut self, untimed: impl IntoIterator<Item = (u64, i64)>) {
        for (incarnation, appended_ms) in untimed {
            self.record(&MapRecord::Untimed { incarnation, appended_ms });
        }
    }

    /// Keeps the write bound ahead of the last extent of a partition, to which a frame of this size was appended.
    pub(super) fn keep_write_bound(&mut self, slot: PartitionSlot, frame_bytes: u64) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let Some(extent) = partition.extents.back() else { return };
        match extent.write_bound.need(&self.config.limits, extent.bytes(), extent.end, frame_bytes) {
            BoundNeed::None => {}
            BoundNeed::Due if partition.flags.bound_due => {}
            BoundNeed::Due => {
                partition.flags.bound_due = true;
                self.bounds_due.push_back(slot);
            }
            BoundNeed::Urgent => self.raise_write_bound(slot, frame_bytes),
        }
    }

    /// Records the write bounds that are due, if something else is recorded too.
    fn raise_due_bounds(&mut self) {
        if !self.state.has_pending() {
            return;
        }
        let limits = self.config.limits;
        for _ in 0..self.bounds_due.len().min(BOUNDS_PER_TURN_MAX) {
            let slot = self.bounds_due.pop_front().expect("as many as were counted");
            let Some(partition) = self.partition_mut(slot) else { continue };
            partition.flags.bound_due = false;
            let is_needed = partition.active().is_some_and(|active| {
                let need = active.write_bound.need(&limits, active.bytes(), active.end, 0);
                need != BoundNeed::None
            });
            if is_needed {
                self.raise_write_bound(slot, 0);
            }
        }
    }

    /// Records how far frames may be written to the last extent of a partition.
    fn raise_write_bound(&mut self, slot: PartitionSlot, frame_bytes: u64) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let extent = partition.extents.back().expect("the caller looked");
        let position = bound_after(&self.config.limits, extent.bytes(), extent.end, frame_bytes);
        let incarnation = extent.incarnation.0;
        let seq = self.record(&MapRecord::WriteBound { incarnation, position });
        let certain = self.state.certain();
        let partition = self.partitions.get_mut(slot.0).expect("as above");
        let extent = partition.extents.back_mut().expect("as above");
        extent.write_bound.raise(position, seq, certain);
    }

    /// Resumes everything that waited for this part of the map to be durable.
    pub(super) fn on_map_durable(&mut self, disk: &mut dyn Disk) {
        let durable = self.state.durable();
        self.settle_space(durable);
        self.journal.settle_releases(durable);
        for slot in std::mem::take(&mut self.waiting_for_map) {
            if let Some(partition) = self.partitions.get_mut(slot.0) {
                partition.flags.waits_for_map = false;
            }
            self.advance(slot);
        }
        while self.promises.front().is_some_and(|(seq, _)| *seq <= durable) {
            let (_, event) = self.promises.pop_front().expect("it was there");
            self.note_replica_state(&event);
            self.push_event(event);
        }
        self.close_if_drained(disk);
    }
}
