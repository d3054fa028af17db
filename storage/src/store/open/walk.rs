//! Walks the frames of one extent of a partition, from its beginning or from the last checkpoint.

use std::io;

use bytes::Bytes;
use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::{Frame, FrameKind};
use highwater_protocol::ids::{ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset};
use highwater_runtime::fs::{FileId, is_out_of_space};
use highwater_runtime::plane::Disk;

use super::read_ahead::ReadAhead;
use super::recover::Recovery;
use crate::api::OpenError;
use crate::epochs::Epochs;
use crate::extent::{APPENDED_UNKNOWN, Extent, FIRST_POSITION};
use crate::layout::{EXTENT_HEADER_BYTES, ExtentId, Place, SlabId, slab_name};
use crate::limits::SEARCH_BYTES_MAX;
use crate::map::{CheckpointEntry, ExtentEntry, SealEntry};
use crate::mutants::{Mutant, is_planted};
use crate::partition::Partition;
use crate::position::{ExtentRef, LogPoint, Mark};
use crate::producers::{Appearance, ProducerStamp, UNKNOWN_MS};
use crate::recovery::{Decision, Expectation, ExtentBytes, FrameCondition, Scanned, scan};
use crate::state_log::Seq;

/// How the frames of an extent end.
pub(super) struct Walked {
    pub(super) extent: Extent,
    pub(super) last_epoch: Option<LeaderEpoch>,
    pub(super) decision: Decision,
    /// Damage in it: the offset of the first missing record, and a description.
    pub(super) damage: Option<(Offset, String)>,
    /// The part of it that was read ahead.
    pub(super) read_ahead: Option<ReadAhead>,
}

impl Walked {
    /// An extent of which no frame was read.
    fn unread(extent: Extent) -> Self {
        Self { extent, last_epoch: None, decision: Decision::End, damage: None, read_ahead: None }
    }
}

/// The bytes of one extent, read from its slab.
pub(super) struct SlabBytes<'a> {
    pub(super) disk: &'a mut dyn Disk,
    pub(super) file: FileId,
    pub(super) at: u64,
    pub(super) read_ahead: Option<&'a ReadAhead>,
}

impl ExtentBytes for SlabBytes<'_> {
    fn read_at(&mut self, at: u32, buf: &mut [u8]) -> io::Result<usize> {
        if self.read_ahead.is_some_and(|ahead| ahead.copy_to(at, buf)) {
            return Ok(buf.len());
        }
        self.disk.read_at(self.file, self.at + u64::from(at), buf)
    }
}

impl Recovery<'_> {
    pub(super) fn expectation(
        &self,
        extent: &ExtentEntry,
        start: Mark,
        epoch: Option<LeaderEpoch>,
        durable_hint: LogIndex,
    ) -> Expectation {
        Expectation {
            start,
            epoch,
            has_gaps: extent.has_gaps,
            tag: self.tp.tag(),
            macs: self.macs.of(start.incarnation),
            extent_bytes: 1 << extent.log2_bytes,
            sealed_at: extent.sealed.map(|seal| seal.position),
            durable_hint,
            unacked_bytes_max: SEARCH_BYTES_MAX,
            write_bound: self.write_bounds.of(extent),
        }
    }

    /// Reads the frames of the first of these extents, from the checkpoint on if it is in that extent.
    pub(super) fn walk(
        &mut self,
        partition: &mut Partition,
        behind: &[ExtentEntry],
        checkpoint: Option<&CheckpointEntry>,
    ) -> Result<Walked, OpenError> {
        let entry = &behind[0];
        let mut extent = extent_of(entry);
        let Some(slab) = self.slabs.get(&SlabId(entry.slab)) else {
            return Ok(Walked::unread(extent));
        };
        let read_ahead = self.read_ahead.take(Incarnation(entry.incarnation));
        let file = slab.file;
        let here = checkpoint.filter(|c| c.incarnation == entry.incarnation);
        let start = here.map_or(first_mark(entry), mark_of);
        extent.max_timestamp = here.map_or(extent.max_timestamp, |c| c.max_timestamp);
        let expect = self.expectation(
            entry,
            start,
            partition.epochs.last(),
            LogIndex(checkpoint.map_or(0, |c| c.index)),
        );
        // Where the next extent begins, this one was discarded: the frames that follow are stale.
        let stop = behind.get(1).map_or(u64::MAX, |next| next.base_index);
        let mut stopped: Option<Mark> = None;
        let limits = &self.config.limits;
        let (producers, epochs) = (&mut partition.producers, &mut partition.epochs);
        let configurations = &mut partition.configurations;
        let commit = &mut self.commit;
        let mut last_epoch = None;
        let journaled_to = self.journal.kept_to(extent.incarnation);
        let unproven = &mut self.rewrites.unproven;
        let recorded = entry.sealed.filter(|_| !self.report.map_rebuilt);
        unproven.prove(LogIndex(recorded.map_or(0, |seal| seal.index)));
        let mut visit = |position: u32, frame: &Frame<'_>| {
            let header = frame.header();
            if stopped.is_some() {
                return;
            }
            let (index, offset) = (LogIndex(header.index.get()), Offset(header.base_offset.get()));
            let (at, point) = (Mark { position, index, offset, ..start }, LogPoint { index, offset });
            if frame.kind() != FrameKind::Padding && index.0 >= stop {
                stopped = Some(at);
                return;
            }
            unproven.note(at, LogIndex(header.durable_index()), position < journaled_to);
            let epoch = LeaderEpoch(header.leader_epoch.get());
            // This includes the epoch of padding whose frame is missing: later frames must not have a lower epoch.
            last_epoch = Some(epoch);
            if frame.kind() != FrameKind::Padding {
                note_epoch(epochs, entry, epoch, point);
                commit.note(point, LogIndex(header.commit_index()));
            }
            if frame.kind() == FrameKind::Configuration {
                configurations.note(point.index, Bytes::copy_from_slice(frame.payload()));
            }
            if let Some(batch) = frame.batch() {
                note_batch(&mut extent, position, point, batch.header(), limits.index_interval_bytes);
                let stamp = ProducerStamp::of(batch.header());
                let timestamp = batch.header().max_timestamp.get();
                let seen = Appearance { base_offset: offset, timestamp, now_ms: UNKNOWN_MS };
                if is_planted(Mutant::DedupForgets) {
                    return;
                }
                producers.note(&stamp, seen, commit.known().offset, limits.producers_max);
            }
        };
        let mut bytes = SlabBytes { disk: self.disk, file, at: entry.at, read_ahead: read_ahead.as_ref() };
        let scanned = scan(&expect, &mut bytes, &mut visit);
        let end = stopped.unwrap_or(scanned.end);
        extent.end = end.position;
        extent.end_index = end.index;
        extent.end_offset = end.offset;
        self.report.bytes_scanned += scanned.bytes_read;
        let mut damage = self.note_scan(entry, &scanned, stopped);
        let decision = if stopped.is_some() { Decision::End } else { scanned.decision };
        if let Some(seal) = entry.sealed {
            damage = damage.or_else(|| end_as_sealed(entry, &seal, &mut extent));
            if damage.is_some() {
                let (index, offset) = (LogIndex(seal.index), Offset(seal.offset));
                self.lost.push(extent.end_offset..offset);
                extent.extend_to(Mark { position: seal.position, index, offset, ..end }, seal.max_timestamp);
            }
        }
        if start.position == FIRST_POSITION && self.faults.of(entry).is_none() {
            // Where a rewritten extent ends is in its header: it is compared when that is known.
            self.check_header(entry, file, &mut extent, read_ahead.as_ref())?;
        }
        Ok(Walked { extent, last_epoch, decision, damage, read_ahead })
    }

    /// The results of a scan, other than frames.
    fn note_scan(
        &mut self,
        entry: &ExtentEntry,
        scanned: &Scanned,
        stopped: Option<Mark>,
    ) -> Option<(Offset, String)> {
        let place = format!("{} at {}", slab_name(SlabId(entry.slab)), entry.at);
        for skipped in &scanned.skipped {
            let what =
                format!("{}: {place}: padding at {} is damaged; nothing is missing", self.tp, skipped.from);
            self.report.warnings.push(what);
        }
        if let (Some(first), Some(last)) = (scanned.unreadable.first(), scanned.unreadable.last())
            && self.faults.of(entry).is_none()
        {
            self.report.warnings.push(format!(
                "{}: {place}: {} pages from {first} to {last} cannot be read",
                self.tp,
                scanned.unreadable.len()
            ));
        }
        if scanned.misdirected {
            self.report
                .warnings
                .push(format!("{}: {place}: a frame that belongs elsewhere: the disk wrote astray", self.tp));
        }
        let in_log = |from: &Mark| stopped.is_none_or(|stop| from.position < stop.position);
        let gaps = scanned.gaps.iter().filter(|gap| in_log(&gap.from));
        self.lost.extend(gaps.filter_map(|gap| Some(gap.from.offset..gap.to?.offset)));
        let gap = scanned.gaps.iter().find(|gap| in_log(&gap.from))?;
        if gap.to.is_none() && entry.sealed.is_some_and(|seal| seal.index == gap.from.index.0) {
            // After the last frame there was padding at most.
            let what = format!(
                "{}: {place}: padding at {} is damaged; nothing is missing",
                self.tp, gap.from.position
            );
            self.report.warnings.push(what);
            return None;
        }
        let what = match gap.found {
            FrameCondition::Zero | FrameCondition::Older => "is not there",
            FrameCondition::Unreadable => "cannot be read",
            FrameCondition::NewerVersion => "is of a newer version",
            FrameCondition::Misdirected | FrameCondition::Leftover => "was replaced by another one",
            FrameCondition::Bad | FrameCondition::Valid | FrameCondition::Sealed => "is damaged",
        };
        let why = format!(
            "frame {} at {} of the extent in {place} had been durable and {what}",
            gap.from.index, gap.from.position
        );
        Some((gap.from.offset, why))
    }

    /// Checks the header of an extent whose frames have been read, and rewrites it if it is damaged.
    fn check_header(
        &mut self,
        entry: &ExtentEntry,
        file: FileId,
        extent: &mut Extent,
        read_ahead: Option<&ReadAhead>,
    ) -> Result<(), OpenError> {
        let id = extent.id(self.config.cluster, self.config.store, self.tp, self.macs);
        let id = ExtentId { configured: false, ..id.expect("a recovered extent has a place") };
        let (block, configured) = (id.to_block(), ExtentId { configured: true, ..id }.to_block());
        let mut here = vec![0; EXTENT_HEADER_BYTES];
        let mut bytes = SlabBytes { disk: self.disk, file, at: entry.at, read_ahead };
        let read = bytes.read_at(0, &mut here).is_ok_and(|read| read == here.len());
        if read && (here == block || here == configured) {
            extent.configured = here == configured;
            return Ok(());
        }
        if !extent.has_frames() {
            // It was allocated and never written to.
            extent.header_written = false;
            return Ok(());
        }
        let path = self.config.dir.join(slab_name(SlabId(entry.slab)));
        let written = self.disk.write_at(file, entry.at, &block).and_then(|()| self.disk.sync_file(file));
        let outcome = match written {
            Ok(()) => "written again",
            // The map has its contents; the next start tries again.
            Err(e) if is_out_of_space(&e) => "there is no space on the disk to write it again",
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        self.report.warnings.push(format!(
            "{}: {}: the extent header at {} was damaged; {outcome}",
            self.tp,
            path.display(),
            entry.at
        ));
        Ok(())
    }
}

/// Ends an extent where the map says that it was sealed. Returns the damage if its frames end elsewhere.
fn end_as_sealed(entry: &ExtentEntry, seal: &SealEntry, extent: &mut Extent) -> Option<(Offset, String)> {
    let (end_index, end_offset) = (extent.end_index.0, extent.end_offset.0);
    let ends = (end_index, end_offset) == (seal.index, seal.offset);
    // The last frames of a compacted extent may be missing too.
    let ends_in_gap =
        entry.has_gaps && extent.end == seal.position && end_index <= seal.index && end_offset <= seal.offset;
    if ends || ends_in_gap {
        extent.end = seal.position;
        extent.end_index = LogIndex(seal.index);
        extent.end_offset = Offset(seal.offset);
        return None;
    }
    let why = format!(
        "the extent in {} at {} ends at frame {end_index}, where the map says {}",
        slab_name(SlabId(entry.slab)),
        entry.at,
        seal.index
    );
    Some((Offset(end_offset.min(seal.offset)), why))
}

/// Returns the end of the first of these extents, if the map is enough to know it.
pub(super) fn known_end(
    behind: &[ExtentEntry],
    checkpoint: Option<&CheckpointEntry>,
    trusted: bool,
) -> Option<Walked> {
    let entry = &behind[0];
    let checkpoint = checkpoint?;
    let passed = entry.sequence < checkpoint.sequence || trusted;
    let mut extent = extent_of(entry);
    if let Some(seal) = entry.sealed.filter(|_| passed) {
        extent.end = seal.position;
        extent.end_index = LogIndex(seal.index);
        extent.end_offset = Offset(seal.offset);
    } else if trusted && entry.incarnation == checkpoint.incarnation {
        let mark = mark_of(checkpoint);
        extent.end = mark.position;
        extent.end_index = mark.index;
        extent.end_offset = mark.offset;
        extent.max_timestamp = checkpoint.max_timestamp;
    } else {
        return None;
    }
    Some(Walked::unread(extent))
}

fn extent_of(entry: &ExtentEntry) -> Extent {
    let start = first_mark(entry);
    let reference = ExtentRef { sequence: start.sequence, incarnation: start.incarnation };
    let epoch = LeaderEpoch(entry.leader_epoch);
    let mut extent = Extent::new(reference, entry.log2_bytes, start.point(), epoch, entry.created_ms);
    extent.version = entry.version;
    extent.generation = entry.generation;
    extent.has_gaps = entry.has_gaps;
    extent.place = Some(Place { slab: SlabId(entry.slab), at: entry.at });
    extent.sealed = entry.sealed.is_some();
    extent.seal_recorded = entry.sealed.is_some();
    extent.max_timestamp = entry.sealed.map_or(extent.max_timestamp, |seal| seal.max_timestamp);
    extent.map_seq = Some(Seq(0));
    extent.header_written = true;
    extent
}

pub(super) fn first_mark(extent: &ExtentEntry) -> Mark {
    Mark {
        sequence: ExtentSequence(extent.sequence),
        incarnation: Incarnation(extent.incarnation),
        position: FIRST_POSITION,
        index: LogIndex(extent.base_index),
        offset: Offset(extent.base_offset),
    }
}

pub(super) fn mark_of(checkpoint: &CheckpointEntry) -> Mark {
    Mark {
        sequence: ExtentSequence(checkpoint.sequence),
        incarnation: Incarnation(checkpoint.incarnation),
        position: checkpoint.position,
        index: LogIndex(checkpoint.index),
        offset: Offset(checkpoint.offset),
    }
}

/// Notes the epoch of a frame, and that of the frames which compaction has removed before the first one of an extent.
fn note_epoch(epochs: &mut Epochs, entry: &ExtentEntry, epoch: LeaderEpoch, point: LogPoint) {
    let base = LeaderEpoch(entry.leader_epoch);
    let is_new = epochs.last().is_none_or(|last| last < base);
    if point.index.0 > entry.base_index && is_new && base <= epoch {
        epochs.note(base, first_mark(entry).point());
    }
    epochs.note(epoch, point);
}

fn note_batch(extent: &mut Extent, position: u32, point: LogPoint, batch: &BatchHeader, interval_bytes: u32) {
    extent.note_index(position, point, interval_bytes);
    extent.note_times(batch, APPENDED_UNKNOWN);
    if extent.generation > 0 && batch.has_delete_horizon() {
        extent.horizon_ms = extent.horizon_ms.max(batch.base_timestamp.get());
    }
}
