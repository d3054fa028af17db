//! Cuts logs: truncates the end of a replica's log, or abandons all of it.
//!
//! A follower whose log differs from its leader's truncates the frames that the leader does not have. A follower that has fallen behind the start of
//! its leader's log restarts in the middle. Committed frames are never cut off.
//!
//! A cut takes these steps. Each begins when the previous one is durable:
//!
//! 1. Everything appended becomes durable, and what only the journal has is written to the extents, so that no write is in flight to the part that is cut off. Appends are refused meanwhile.
//! 2. The frame at which the log is to end is located, in memory or on disk.
//! 3. The headers of the extents that are cut off as a whole are rewritten to say that these are given up. Otherwise, if the map is lost, an
//!    extent that outlives the one before it could pass for the rest of a log whose start was deleted.
//! 4. The cut is recorded in the map. The space of the extents is free once that is durable. The log goes on in another extent: frames cut off
//!    in the middle of one remain on disk after its new end, and no position holds two frames in one incarnation.
//!
//! The cut is not durable when the owner is notified, and need not be: nothing appended after it becomes durable before it. After a crash before that
//! the suffix is back, as if the leader's message had not arrived: the suffix is not committed, and the next leader cuts it off again.

use bytes::Bytes;
use highwater_protocol::ids::{Incarnation, LogIndex};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Disk;

use super::Store;
use super::task::{Answer, Driven, Task};
use crate::api::{CutError, PartitionSlot, ReadId, StoreEvent};
use crate::config::CommitRule;
use crate::configurations::{Configuration, Configurations};
use crate::epochs::EpochStart;
use crate::extent::{Extent, NO_TIMESTAMP};
use crate::layout::{EXTENT_HEADER_BYTES, ExtentId};
use crate::limits::CUTS_PER_TURN_MAX;
use crate::map::{ConfigurationEntry, MapRecord, PartitionKey};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Cut, CutGoal, CutStep, Partition, Piece, TailState};
use crate::position::{ExtentRef, LogPoint, Mark};
use crate::producers::Producers;
use crate::scan::{IndexGoal, ReadGoal};

impl Store {
    /// Truncates a log: removes the frames from this index on. [`StoreEvent::Truncated`] reports when it is done. Until then appends are rejected as
    /// [`Busy`](crate::AppendError::Busy).
    pub fn truncate_suffix(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        index: LogIndex,
    ) -> Result<(), CutError> {
        self.check_cut(slot, index)?;
        let end = self.partition(slot).expect("it was there").append_point();
        if index >= end.index {
            self.push_event(StoreEvent::Truncated { slot, end: Ok(end) });
            return Ok(());
        }
        self.begin_cut(disk, slot, CutGoal::Truncate(index));
        Ok(())
    }

    /// Abandons a log and restarts it without frames at `start`. Everything before that is committed, and deleted here. `epochs` are those of the
    /// frames before `start`, and `configuration` is one that is committed, with the index of its frame, which may come later. `None`: the
    /// partition has had none. [`StoreEvent::Started`] reports when it is done; until then appends are rejected.
    pub fn start_at(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        start: LogPoint,
        epochs: Vec<EpochStart>,
        configuration: Option<(LogIndex, Bytes)>,
    ) -> Result<(), CutError> {
        self.check_cut(slot, start.index)?;
        assert!(
            epochs.iter().all(|epoch| epoch.index < start.index),
            "the epochs are those of frames before the start"
        );
        let configuration = configuration.map(|(index, payload)| Configuration { index, payload });
        self.begin_cut(disk, slot, CutGoal::StartAt(start, epochs.into_iter().collect(), configuration));
        Ok(())
    }

    /// Returns whether a log may be cut off at this index.
    fn check_cut(&self, slot: PartitionSlot, index: LogIndex) -> Result<(), CutError> {
        let partition = self.partition(slot).ok_or(CutError::Deleted)?;
        if partition.faulty {
            return Err(CutError::Faulty);
        }
        if partition.cut.is_some() {
            return Err(CutError::Busy);
        }
        // With one replica, everything appended is committed once it is durable.
        let commit = match partition.config.commit {
            CommitRule::OwnDisk => partition.append_index,
            CommitRule::Quorum => partition.commit.index,
        };
        if index < commit && !is_planted(Mutant::TruncateBelowCommit) {
            return Err(CutError::BelowCommit { index, commit });
        }
        Ok(())
    }

    fn begin_cut(&mut self, disk: &mut dyn Disk, slot: PartitionSlot, goal: CutGoal) {
        let partition = self.partition_mut(slot).expect("the caller looked");
        partition.cut = Some(Box::new(Cut { goal, step: CutStep::Settling }));
        self.cuts.push_back(slot);
        self.go_on_cutting(disk);
    }

    /// Takes the next steps of cuts in progress. Called at the end of each turn.
    pub(super) fn go_on_cutting(&mut self, disk: &mut dyn Disk) {
        for _ in 0..self.cuts.len().min(CUTS_PER_TURN_MAX) {
            let slot = self.cuts.pop_front().expect("as many as were counted");
            self.go_on_with_cut(disk, slot);
            if self.partition(slot).is_some_and(|partition| partition.cut.is_some()) {
                self.cuts.push_back(slot);
            }
        }
    }

    fn go_on_with_cut(&mut self, disk: &mut dyn Disk, slot: PartitionSlot) {
        let Some(partition) = self.partition(slot).filter(|partition| partition.is_settled()) else { return };
        if !partition.is_written_back() {
            return self.write_back_first(slot);
        }
        let Some(cut) = &partition.cut else { return };
        match (cut.step, &cut.goal) {
            (CutStep::Locating(_), _) => {}
            (CutStep::GivingUp(end, max_timestamp), _) => self.finish_cut(slot, end, max_timestamp),
            (CutStep::Settling, CutGoal::StartAt(start, ..)) => {
                let end = nowhere(partition, *start);
                self.abandon_after(slot, end, 0);
            }
            (CutStep::Settling, CutGoal::Truncate(index)) => {
                let index = *index;
                match place_of(partition, index) {
                    Some((end, max_timestamp)) => self.abandon_after(slot, end, max_timestamp),
                    None => self.locate_cut(disk, slot, index),
                }
            }
        }
    }

    /// Locates the frame at which the log will end.
    fn locate_cut(&mut self, disk: &mut dyn Disk, slot: PartitionSlot, index: LogIndex) {
        let id = self.next_read_id();
        let partition = self.partition_mut(slot).expect("the caller looked");
        let goal = ReadGoal::Index(IndexGoal { index, take: None });
        let mut task = Task::new(slot, goal, partition.log_start);
        if let Some(cut) = &mut partition.cut {
            cut.step = CutStep::Locating(id);
        }
        let known = task.locate(partition);
        let answer = match known {
            Some(answer) => answer,
            None => match self.drive(disk, id, task, &mut highwater_protocol::batch::Work::MAX.clone()) {
                Driven::Done(answer) => answer,
                Driven::Reading => return,
                Driven::Paused(_) => unreachable!("a cut is not limited in its work"),
            },
        };
        self.on_located(slot, id, &answer);
    }

    /// Handles the frame at which a log will end, or the error that it cannot be located.
    pub(super) fn on_located(&mut self, slot: PartitionSlot, id: ReadId, answer: &Answer) {
        let Some(partition) = self.partition_mut(slot) else { return };
        let Some(Cut { goal: CutGoal::Truncate(index), step: CutStep::Locating(waits_for) }) =
            partition.cut.as_deref()
        else {
            return;
        };
        assert!(*waits_for == id, "one frame is looked for at a time");
        let index = *index;
        let Answer::Located { extent, position, offset, max_timestamp } = *answer else {
            partition.cut = None;
            return self.push_event(StoreEvent::Truncated { slot, end: Err(CutError::Damaged) });
        };
        // Unknown after damaged padding. The timestamp of the extent is late enough.
        let known = partition.extent(extent).map_or(NO_TIMESTAMP, |extent| extent.max_timestamp);
        let ExtentRef { sequence, incarnation } = extent;
        let end = Mark { sequence, incarnation, position, index, offset };
        self.abandon_after(slot, end, max_timestamp.unwrap_or(known));
    }

    /// Marks the extents after a mark as abandoned in their headers, and waits until that is durable.
    fn abandon_after(&mut self, slot: PartitionSlot, end: Mark, max_timestamp: i64) {
        let (cluster, store, macs) = (self.config.cluster, self.config.store, self.macs);
        let partition = self.partition_mut(slot).expect("the caller looked");
        if end.offset < partition.log_start {
            // Deleted frames had been committed, even if no record says so.
            let (index, commit) = (end.index, partition.commit.index.max(end.index.next()));
            partition.cut = None;
            let end = Err(CutError::BelowCommit { index, commit });
            return self.push_event(StoreEvent::Truncated { slot, end });
        }
        if let Some(cut) = &mut partition.cut {
            cut.step = CutStep::GivingUp(end, max_timestamp);
        }
        let kept = partition.extents_up_to(end);
        for extent in partition.extents.range(kept..).filter(|extent| extent.header_written) {
            let Some(id) = extent.id(cluster, store, partition.tp, &macs) else { continue };
            let mut page = AlignedBuf::new(EXTENT_HEADER_BYTES);
            page.copy_from_slice(&ExtentId { abandoned: true, ..id }.to_block());
            partition.queue.push_back(Piece {
                extent: extent.reference(),
                from: 0,
                data: page.freeze(),
                end: partition.durable,
                frame_bytes: 0,
            });
        }
        if partition.queue.is_empty() {
            self.finish_cut(slot, end, max_timestamp);
        } else if !std::mem::replace(&mut partition.flags.dirty, true) {
            self.dirty.push_back(slot);
        }
    }

    /// The part that is cut off can no longer pass for part of a log: records the cut in the map.
    fn finish_cut(&mut self, slot: PartitionSlot, end: Mark, max_timestamp: i64) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let cut = partition.cut.take().expect("the caller looked");
        let dropped = partition.cut_off(end, max_timestamp);
        self.budget.drop_all(&mut partition.chunks);
        let key = PartitionKey::from(partition.tp);
        let untimed = partition.extents.back().and_then(Extent::untimed);
        if let CutGoal::StartAt(start, epochs, configuration) = cut.goal {
            partition.log_start = start.offset;
            partition.commit = start;
            partition.last_epoch = epochs.last();
            partition.epochs = epochs;
            partition.producers = Producers::default();
            let checkpoint = partition.durable_checkpoint().expect("everything is durable");
            partition.checkpoint = Some(Box::new(checkpoint.clone()));
            let base = configuration.iter().map(ConfigurationEntry::from).collect();
            partition.configurations = Configurations::new(configuration, Vec::new());
            let seq = self.record(&MapRecord::StartedWith { key, configuration: base, checkpoint });
            self.free_all(seq, &dropped);
            self.push_event(StoreEvent::Started { slot });
        } else {
            let checkpoint = partition.durable_checkpoint().expect("everything is durable");
            partition.checkpoint = Some(Box::new(checkpoint.clone()));
            let incarnations = dropped.iter().map(|extent| extent.incarnation.0).collect();
            self.record_untimed(untimed);
            self.record_configurations(slot);
            let seq = if is_planted(Mutant::ForgetTruncation) {
                self.state.appended()
            } else {
                self.record(&MapRecord::Truncated { key, incarnations, checkpoint })
            };
            self.free_all(seq, &dropped);
            self.push_event(StoreEvent::Truncated { slot, end: Ok(end.point()) });
        }
        self.count_producers(slot);
        let partition = self.partitions.get_mut(slot.0).expect("as above");
        if !std::mem::replace(&mut partition.flags.touched, true) {
            self.touched.push_back(slot);
        }
    }

    fn free_all(&mut self, seq: crate::state_log::Seq, extents: &[Extent]) {
        for extent in extents {
            if let Some(place) = extent.place {
                self.free_when_durable(seq, place, extent.log2_bytes);
            }
        }
    }
}

impl Partition {
    /// Returns the number of extents that are left when the log ends at a mark.
    fn extents_up_to(&self, end: Mark) -> usize {
        let kept = self.extents.partition_point(|extent| extent.sequence <= end.sequence);
        // A mark outside all extents is before all of them.
        if end.position == 0 { 0 } else { kept }
    }

    /// Ends the log here. Returns the extents that are no longer part of it.
    fn cut_off(&mut self, end: Mark, max_timestamp: i64) -> Vec<Extent> {
        assert!(self.is_settled(), "no write is on its way");
        let kept = self.extents_up_to(end);
        let dropped = self.extents.drain(kept..).collect();
        if let Some(last) = self.extents.back_mut() {
            last.cut_off(end, max_timestamp);
        }
        self.tail = None;
        self.append_index = end.index;
        self.append_offset = end.offset;
        self.durable = end;
        self.extent_end = end;
        self.epochs.truncate(end.index);
        self.configurations.truncate(end.index);
        self.last_epoch = self.epochs.last();
        self.producers.truncate(end.offset);
        self.tail_state = TailState::Active;
        dropped
    }
}

/// Returns where a log ends before this index, and the largest timestamp of its last extent then, if the mark is known without reading frames.
fn place_of(partition: &Partition, index: LogIndex) -> Option<(Mark, i64)> {
    let kept = partition.extents.partition_point(|extent| extent.base_index < index);
    match kept.checked_sub(1).map(|at| &partition.extents[at]) {
        Some(last) if last.end_index == index => Some((last.end_mark(), last.max_timestamp)),
        Some(_) => None,
        None => {
            let first = partition.extents.front();
            let offset = first.map_or(partition.append_offset, |extent| extent.base_offset);
            Some((nowhere(partition, LogPoint { index, offset }), 0))
        }
    }
}

/// Returns a mark outside all extents: the next extent begins there.
fn nowhere(partition: &Partition, point: LogPoint) -> Mark {
    let sequence = partition.extents.back().map_or(partition.durable.sequence, |last| last.sequence);
    let sequence = sequence.max(partition.durable.sequence);
    Mark { sequence, incarnation: Incarnation(0), position: 0, index: point.index, offset: point.offset }
}
