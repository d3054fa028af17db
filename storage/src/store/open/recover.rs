//! Recovers one partition: walks its extents to the end of its log.
//!
//! The map is trusted about extents before the last checkpoint. From the checkpoint on every frame is read again, which also restores the last
//! batches of producers. Three things can be wrong between the end of an extent and the beginning of the next:
//!
//! - frames are missing that had been durable, as the map or later frames prove: the partition is faulty;
//! - frames are missing that were never acknowledged: what follows them was never acknowledged either, and is discarded;
//! - the map was rebuilt, and all extents before a point are left over from before retention freed them: they are discarded.

use std::collections::BTreeMap;
use std::ops::Range;

use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset, TopicPartition};
use highwater_runtime::plane::Disk;

use super::Slabs;
use super::commit::CommitTracker;
use super::journal::JournalFaults;
use super::read_ahead::{ReadAhead, ReadAheads};
use super::rebuild::Orphans;
use super::slabs::SlabFaults;
use super::unproven::{Rewrites, UnprovenFrames};
use super::walk::{SlabBytes, first_mark, known_end, mark_of};
use crate::api::{OpenError, PartitionFinding, PartitionSlot, RecoveryReport, ReplicaState};
use crate::config::{CommitRule, PartitionConfig, StoreConfig};
use crate::configurations::Configurations;
use crate::extent::{Extent, WriteBound};
use crate::layout::{EXTENT_VERSION, PAGE_BYTES, SlabId, slab_name};
use crate::mac::StoreMacs;
use crate::map::{
    CheckpointEntry, ConfigurationsEntry, ExtentEntry, OrphanEntry, PartitionEntry, ReplicaStateEntry,
    WriteBounds,
};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partition, ReplicaRecord, Tail, TailState};
use crate::position::{LogPoint, Mark};
use crate::recovery::ExtentBytes as _;
use crate::recovery::{Decision, Later, proves_durable};

/// Everything needed to recover a partition.
pub(super) struct Recovery<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) disk: &'a mut dyn Disk,
    pub(super) slabs: &'a Slabs,
    pub(super) faults: &'a SlabFaults,
    pub(super) report: &'a mut RecoveryReport,
    pub(super) tp: TopicPartition,
    pub(super) orphans: &'a Orphans,
    pub(super) macs: &'a StoreMacs,
    /// Whether the checkpoint was written by a version that did not keep where epochs began.
    pub(super) without_epochs: bool,
    /// The state of its replica, and the configurations in its log, as the map has them.
    pub(super) replica: Option<ReplicaStateEntry>,
    pub(super) configurations: Option<&'a ConfigurationsEntry>,
    /// Whether the headers say that the partition had a configuration.
    pub(super) is_configured: bool,
    /// The commit point, according to the frames read so far.
    pub(super) commit: CommitTracker,
    /// When batches without a timestamp were appended, by extent.
    pub(super) untimed: &'a BTreeMap<u64, i64>,
    /// How far extents may have been written.
    pub(super) write_bounds: &'a WriteBounds,
    /// When the tombstones of extents may be removed.
    pub(super) horizons: &'a BTreeMap<u64, i64>,
    pub(super) journal: &'a JournalFaults,
    /// The parts of extents that were read ahead.
    pub(super) read_ahead: &'a mut ReadAheads,
    /// What is to be written again.
    pub(super) rewrites: &'a mut Rewrites,
    /// Records that are missing.
    pub(super) lost: Vec<Range<Offset>>,
}

/// A recovered partition.
pub(super) struct RecoveredPartition {
    pub(super) partition: Partition,
    /// Extents without acknowledged records, and extents that had been freed.
    pub(super) discarded: Vec<ExtentEntry>,
}

impl Recovery<'_> {
    /// Recovers a partition.
    pub(super) fn run(
        mut self,
        slot: PartitionSlot,
        entry: PartitionEntry,
    ) -> Result<RecoveredPartition, OpenError> {
        // Its log ends at its checkpoint.
        let trusted = entry.complete;
        let mut partition = self.begin(slot, &entry);
        self.commit = CommitTracker::new(partition.commit);
        let faults = self.faults;
        let unusable = entry.extents.iter().find_map(|e| Some((e.base_offset, faults.of(e)?)));
        let mut damage = unusable.map(|(at, why)| (partition.log_start.max(Offset(at)), why.clone()));
        let checkpoint = entry.checkpoint.as_ref();
        let proven = checkpoint.map_or(LogIndex(0), |checkpoint| LogIndex(checkpoint.index));
        self.rewrites.unproven = UnprovenFrames::new(proven, partition.log_start);
        let mut discarded = Vec::new();
        let mut truncated = false;
        let mut last = Decision::End;
        let mut read_ahead = None;
        for (at, extent) in entry.extents.iter().enumerate() {
            let behind = &entry.extents[at..];
            let before = partition.extents.back().map(Extent::end_mark);
            if before.is_none() && extent.base_offset > entry.log_start {
                self.lost.push(partition.log_start..Offset(extent.base_offset));
                let why = format!("the first extent begins at offset {}", extent.base_offset);
                damage = damage.or(Some((partition.log_start, why)));
            }
            if let Some(end) = before {
                match self.gap((end, last), behind, checkpoint, partition.epochs.last()) {
                    Gap::None => {}
                    Gap::Missing(why) => {
                        self.lost.push(end.offset..Offset(extent.base_offset));
                        damage = damage.or(Some((end.offset, why)));
                    }
                    // The missing frames may have been in a lost slab. The partition is out of service anyway.
                    Gap::NeverAcknowledged | Gap::FreedBefore if unusable.is_some() => {}
                    Gap::NeverAcknowledged => {
                        discarded.extend_from_slice(behind);
                        truncated = true;
                        break;
                    }
                    Gap::FreedBefore => {
                        discarded.extend_from_slice(&entry.extents[at - partition.extents.len()..at]);
                        partition.extents.clear();
                        partition.forget_below(LogIndex(extent.base_index));
                        partition.log_start = partition.log_start.max(Offset(extent.base_offset));
                    }
                }
                partition.seal_active();
            }
            let walked = if let Some(known) = known_end(behind, checkpoint, trusted) {
                known
            } else {
                self.walk(&mut partition, behind, checkpoint)?
            };
            partition.last_epoch = walked.last_epoch.or(partition.last_epoch);
            damage = damage.or(walked.damage);
            let is_last = behind.len() == 1;
            last = walked.decision;
            read_ahead = walked.read_ahead;
            let mut extent = walked.extent;
            self.note_extent(&behind[0], &mut extent);
            partition.extents.push_back(extent);
            truncated |= is_last && matches!(walked.decision, Decision::Truncate { .. });
        }
        if truncated && !is_planted(Mutant::WriteBeforeStaleTail) {
            // The log continues in another extent. Discarded frames may still be on disk and in the map: if the log continued here and the power
            // failed again, its end could come to lie exactly before them. The map learns of the next extent only after it has learnt which frames
            // were discarded.
            partition.seal_active();
        }
        if damage.is_none() && partition.active().is_some_and(|active| active.version != EXTENT_VERSION) {
            // An older version began it: the next frame goes into another extent.
            partition.seal_active();
        }
        if let Some(last) = partition.extents.back_mut() {
            if let Some(known) = checkpoint.filter(|c| c.incarnation == last.incarnation.0) {
                self.lost.push(last.end_offset..Offset(known.offset));
                last.extend_to(mark_of(known), known.max_timestamp);
            }
            partition.durable = last.end_mark();
        }
        let damage = damage.or(self.orphaned(&partition)).or(self.lost_with_journal(&partition, trusted));
        self.write_again(slot, &partition)?;
        partition.checkpoint = entry.checkpoint.map(Box::new);
        self.finish(&mut partition, trusted, damage, truncated);
        self.resume_tail(&mut partition, read_ahead.as_ref());
        self.report.extents += partition.extents.len();
        Ok(RecoveredPartition { partition, discarded })
    }

    /// Sets what the map knows of an extent and its frames do not say. Notes that it cannot be used.
    fn note_extent(&mut self, entry: &ExtentEntry, extent: &mut Extent) {
        if self.faults.of(entry).is_some() {
            self.report.unusable.insert(extent.incarnation);
            self.lost.push(extent.base_offset..extent.end_offset);
        }
        if !is_planted(Mutant::ForgetBound) {
            extent.write_bound = WriteBound::known(self.write_bounds.of(entry).max(extent.end));
        }
        if let Some(ms) = self.untimed.get(&extent.incarnation.0) {
            extent.untimed_ms = extent.untimed_ms.max(*ms);
        }
        if let Some(ms) = self.horizons.get(&extent.incarnation.0) {
            extent.horizon_ms = extent.horizon_ms.max(*ms);
        }
    }

    /// Returns the partition as the map knows it, without extents.
    fn begin(&mut self, slot: PartitionSlot, entry: &PartitionEntry) -> Partition {
        // Until the owner sets the partition's rule, only frames that were known to be committed before count as committed.
        let config = PartitionConfig { commit: CommitRule::Quorum, ..PartitionConfig::KEEP_ALL };
        let mut partition = Partition::new(slot, self.tp, config);
        partition.log_start = Offset(entry.log_start);
        let state = self.replica.map(ReplicaState::from);
        partition.replica = ReplicaRecord { recorded: state, durable: state };
        if let Some(known) = self.configurations {
            // From the checkpoint on they are found in the frames.
            let end = entry.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index);
            partition.configurations = known.below(LogIndex(end));
        }
        if let Some(checkpoint) = &entry.checkpoint {
            partition.producers.restore(checkpoint.producers.clone());
            partition.last_epoch = checkpoint.last_epoch.map(LeaderEpoch);
            partition.epochs = if self.without_epochs {
                self.epochs_in_front_of(&entry.extents, checkpoint)
            } else {
                checkpoint.epochs()
            };
            partition.commit = LogPoint {
                index: LogIndex(checkpoint.commit_index),
                offset: Offset(checkpoint.commit_offset),
            };
            partition.durable = mark_of(checkpoint);
        }
        partition
    }

    /// Returns the damage that orphaned frames of the partition indicate, if there are any.
    fn orphaned(&self, partition: &Partition) -> Option<(Offset, String)> {
        let orphan = self.orphans.of(self.tp.tag(), LogIndex(0))?;
        let is_beyond = orphan.index >= partition.durable.index.0;
        let at = if is_beyond { partition.durable.offset } else { partition.log_start };
        Some((at, orphan_fault(&orphan)))
    }

    /// Returns the damage that results from losses of the journal, if the log does not have the records otherwise.
    fn lost_with_journal(&self, partition: &Partition, trusted: bool) -> Option<(Offset, String)> {
        let end = partition.durable.offset;
        let lost = self.journal.lost.as_ref().filter(|_| !trusted && !partition.extents.is_empty());
        if let Some(lost) = lost {
            return Some((end, lost.clone()));
        }
        let last = partition.extents.back()?;
        let piece_end = self.journal.missing.get(&last.incarnation.0)?;
        let state = if self.journal.no_space {
            "have no space on the disk yet"
        } else {
            "are damaged in the journal"
        };
        let why = format!("bytes {} to {piece_end} of extent {} {state}", last.end, last.incarnation);
        (last.end < *piece_end).then_some((end, why))
    }

    /// Sets the state that results from the extents that were found, and reports the findings.
    fn finish(
        &mut self,
        partition: &mut Partition,
        trusted: bool,
        damage: Option<(Offset, String)>,
        truncated: bool,
    ) {
        partition.commit = self.commit.found(partition.durable.point());
        if let Some(first) = partition.extents.front().map(|first| first.start_mark().point())
            && first.index > partition.commit.index
        {
            // Frames were deleted before they had been committed.
            partition.commit = first;
        }
        partition.extent_end = partition.durable;
        partition.append_index = partition.durable.index;
        partition.append_offset = partition.durable.offset;
        partition.configurations.forget_below(partition.first_index());
        if self.is_configured && !partition.configurations.has_had_any() {
            partition.configurations = Configurations::lost();
        }
        partition.log_start = partition.log_start.min(partition.durable.offset);
        partition.faulty = damage.is_some();
        partition.tail_state =
            if trusted && !partition.faulty { TailState::Clean } else { TailState::Active };
        if let Some((at, why)) = damage {
            self.report.findings.push((self.tp, PartitionFinding::Faulty { at, why }));
            self.report.lost.push((self.tp, merged(&mut self.lost, partition.log_start)));
        } else if truncated {
            // New frames must not be taken for the lost ones, which a client may have seen with their epoch.
            partition.last_epoch = Some(LeaderEpoch(partition.last_epoch.map_or(0, |last| last.0) + 1));
            self.report
                .findings
                .push((self.tp, PartitionFinding::Truncated { end: partition.durable.offset }));
        }
    }

    /// Classifies the gap between the end of an extent, with this decision about it, and the beginning of the next.
    fn gap(
        &mut self,
        (end, last): (Mark, Decision),
        behind: &[ExtentEntry],
        checkpoint: Option<&CheckpointEntry>,
        epoch: Option<LeaderEpoch>,
    ) -> Gap {
        let next = &behind[0];
        if next.base_index == end.index.0 {
            return Gap::None;
        }
        let missing = format!("frames {} to {} are missing between two extents", end.index, next.base_index);
        if next.base_index < end.index.0 {
            return Gap::Missing(format!(
                "extent {} begins before the end of the one before it",
                next.incarnation
            ));
        }
        let (from, to) = (end.index, LogIndex(next.base_index));
        let orphaned = self.orphans.explains(self.tp.tag(), from, to);
        if orphaned {
            return Gap::Missing(missing);
        }
        if self.report.map_rebuilt {
            // Retention frees from the front. If all extents before frames that know them to have been durable are gone, they were freed, and so were
            // the frames before them. Anything else is an error.
            let lost = last != Decision::End;
            let proven = behind.iter().any(|extent| self.proves(extent, epoch, end.index));
            return if proven && !lost { Gap::FreedBefore } else { Gap::Missing(missing) };
        }
        let known_durable =
            checkpoint.is_some_and(|c| c.index > end.index.0) || behind.iter().any(|e| e.sealed.is_some());
        if known_durable || behind.iter().any(|extent| self.proves(extent, epoch, end.index)) {
            return Gap::Missing(missing);
        }
        Gap::NeverAcknowledged
    }

    /// Returns whether an extent holds a frame that says that the one with this index had been durable. An unreadable extent may.
    fn proves(&mut self, extent: &ExtentEntry, epoch: Option<LeaderEpoch>, index: LogIndex) -> bool {
        let Some(slab) = self.slabs.get(&SlabId(extent.slab)) else { return true };
        if self.faults.of(extent).is_some() {
            return true;
        }
        let expect = self.expectation(extent, first_mark(extent), epoch, LogIndex(0));
        let mut bytes = SlabBytes { disk: self.disk, file: slab.file, at: extent.at, read_ahead: None };
        proves_durable(&expect, &mut bytes, index) == Later::Proven
    }

    /// Reads the partial last page into memory, so that appends continue in it.
    /// `read_ahead`: of the last extent.
    fn resume_tail(&mut self, partition: &mut Partition, read_ahead: Option<&ReadAhead>) {
        let Some(active) = partition.active() else { return };
        let within = active.end as usize % PAGE_BYTES;
        if within == 0 || partition.faulty {
            return;
        }
        let place = active.place.expect("a recovered extent has a place");
        let position = active.end;
        let mut page = vec![0; PAGE_BYTES];
        let read = self.slabs.get(&place.slab).map(|slab| {
            let mut bytes = SlabBytes { disk: self.disk, file: slab.file, at: place.at, read_ahead };
            bytes.read_at(position - within as u32, &mut page)
        });
        if matches!(read, Some(Ok(PAGE_BYTES))) {
            partition.tail = Some(Tail::resume(position, partition.append_offset, &page));
        } else {
            partition.seal_active();
        }
    }
}

/// Returns why a partition with orphaned frames is out of service.
pub(in crate::store) fn orphan_fault(orphan: &OrphanEntry) -> String {
    format!(
        "frames from {} on rest in {} at {}, where the extent's header is damaged and the map of the store was lost",
        orphan.index,
        slab_name(SlabId(orphan.slab)),
        orphan.at
    )
}

/// Returns these ranges from an offset on, in order and without overlaps.
fn merged(ranges: &mut Vec<Range<Offset>>, from: Offset) -> Vec<Range<Offset>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<Offset>> = Vec::new();
    for range in ranges.drain(..) {
        let range = range.start.max(from)..range.end;
        match merged.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

enum Gap {
    None,
    Missing(String),
    NeverAcknowledged,
    FreedBefore,
}
