//! Recovering one partition: walking its extents to where its log ends.
//!
//! Extents in front of the last checkpoint are taken as the map tells. From the checkpoint on every frame is read again, which also
//! brings back what producers sent last. Where one extent ends and the next begins, three things can be wrong:
//!
//! - frames are missing that had been durable (the map knows, or frames behind them prove it): the partition is faulty;
//! - frames are missing that nobody was told of: what lies behind them was never acknowledged either, and is given up;
//! - the map was rebuilt, and a whole run of extents in front is left over from before retention freed it: it is given up.

use std::collections::BTreeMap;
use std::io;

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::{Frame, FrameKind};
use highwater_protocol::ids::{Incarnation, LeaderEpoch, LogIndex, Offset, TopicPartition};
use highwater_runtime::fs::is_out_of_space;
use highwater_runtime::plane::{Disk, FileId};

use super::Slabs;
use super::rebuild::Orphans;
use super::slabs::SlabFaults;
use crate::api::Slot;
use crate::config::{PartitionConfig, StoreConfig};
use crate::expect::{Expectation, ExtentBytes, Mark};
use crate::extent::{APPENDED_UNKNOWN, Extent, FIRST_POSITION};
use crate::layout::{EXTENT_HEADER_BYTES, ExtentId, PAGE_BYTES, Place, SlabId, slab_name};
use crate::limits::SEARCH_BYTES_MAX;
use crate::mac::StoreMacs;
use crate::map::{CheckpointEntry, ExtentEntry, OrphanEntry, PartitionEntry};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partition, Rest};
use crate::producers::{Appearance, ProducerStamp, UNKNOWN_MS};
use crate::recovery::{Decision, Found as FoundThere, Later, Scanned, proves_durable, scan};
use crate::report::{OpenError, PartitionFinding, RecoveryReport};
use crate::state_log::Seq;
use crate::tail::Tail;

/// What recovering a partition needs.
pub(super) struct Recovery<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) disk: &'a mut dyn Disk,
    pub(super) slabs: &'a Slabs,
    pub(super) faults: &'a SlabFaults,
    pub(super) report: &'a mut RecoveryReport,
    pub(super) tp: TopicPartition,
    pub(super) orphans: &'a Orphans,
    pub(super) macs: &'a StoreMacs,
    /// When batches without a timestamp were appended, by extent.
    pub(super) untimed: &'a BTreeMap<u64, i64>,
}

/// A recovered partition.
pub(super) struct Found {
    pub(super) partition: Partition,
    /// Extents of which nothing was acknowledged, or that were freed before.
    pub(super) discarded: Vec<ExtentEntry>,
}

/// How the frames of an extent end.
struct Walked {
    extent: Extent,
    last_epoch: Option<LeaderEpoch>,
    decision: Decision,
    /// Damage in it: offset of the first missing record, and what was found.
    damage: Option<(Offset, String)>,
}

/// The bytes of one extent, read from its slab.
struct SlabBytes<'a> {
    disk: &'a mut dyn Disk,
    file: FileId,
    at: u64,
}

impl ExtentBytes for SlabBytes<'_> {
    fn read_at(&mut self, at: u32, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(self.file, self.at + u64::from(at), buf)
    }
}

impl Recovery<'_> {
    /// Recovers a partition. `trusted`: its checkpoint is where its log ends.
    pub(super) fn run(
        mut self,
        slot: Slot,
        entry: PartitionEntry,
        trusted: bool,
    ) -> Result<Found, OpenError> {
        let mut partition = Partition::new(slot, self.tp, PartitionConfig::KEEP_ALL);
        partition.log_start = Offset(entry.log_start);
        if let Some(checkpoint) = &entry.checkpoint {
            partition.producers.restore(checkpoint.producers.clone());
            partition.last_epoch = checkpoint.last_epoch.map(LeaderEpoch);
            partition.durable = mark_of(checkpoint);
        }
        let faults = self.faults;
        let unusable = entry.extents.iter().find_map(|e| Some((e.base_offset, faults.of(e)?)));
        let mut damage = unusable.map(|(at, why)| (partition.log_start.max(Offset(at)), why.clone()));
        let checkpoint = entry.checkpoint.as_ref();
        let mut discarded = Vec::new();
        let mut truncated = false;
        let mut last = Decision::End;
        for (at, extent) in entry.extents.iter().enumerate() {
            let behind = &entry.extents[at..];
            let before = partition.extents.back().map(Extent::end_mark);
            if before.is_none() && extent.base_offset > entry.log_start {
                let why = format!("the first extent begins at offset {}", extent.base_offset);
                damage = damage.or(Some((partition.log_start, why)));
            }
            if let Some(end) = before {
                match self.gap((end, last), behind, checkpoint) {
                    Gap::None => {}
                    Gap::Missing(why) => damage = damage.or(Some((end.offset, why))),
                    // What is missing may be what was lost with a slab. The partition is out of service anyway.
                    Gap::NeverAcknowledged | Gap::FreedBefore if unusable.is_some() => {}
                    Gap::NeverAcknowledged => {
                        discarded.extend_from_slice(behind);
                        truncated = true;
                        break;
                    }
                    Gap::FreedBefore => {
                        discarded.extend_from_slice(&entry.extents[at - partition.extents.len()..at]);
                        partition.extents.clear();
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
            let mut extent = walked.extent;
            if let Some(ms) = self.untimed.get(&extent.incarnation.0) {
                extent.untimed_ms = extent.untimed_ms.max(*ms);
            }
            partition.extents.push_back(extent);
            truncated |= is_last && matches!(walked.decision, Decision::Truncate { .. });
        }
        if truncated && !is_planted(Mutant::WriteBeforeStaleTail) {
            // The log goes on in another extent. What was given up may still be on disk and in the map: if the log went on here and
            // the power failed again, it could come to lie exactly in front of it. The map learns of the next extent only after
            // it has learnt what was given up.
            partition.seal_active();
        }
        let takes_frames = |active: &Extent| self.macs.of(active.incarnation).is_some();
        if damage.is_none() && partition.active().is_some_and(|active| !takes_frames(active)) {
            // Begun by a version whose frames had no codes: what comes next goes into another extent.
            partition.seal_active();
        }
        if let Some(last) = partition.extents.back_mut() {
            if let Some(known) = checkpoint.filter(|c| c.incarnation == last.incarnation.0) {
                last.extend_to(mark_of(known), known.max_timestamp);
            }
            partition.durable = last.end_mark();
        }
        if let Some(orphan) = self.orphans.of(self.tp.tag(), LogIndex(0)) {
            let behind = orphan.index >= partition.durable.index.0;
            let at = if behind { partition.durable.offset } else { partition.log_start };
            damage = damage.or(Some((at, orphan_fault(&orphan))));
        }
        partition.append_index = partition.durable.index;
        partition.append_offset = partition.durable.offset;
        partition.log_start = partition.log_start.min(partition.durable.offset);
        partition.checkpoint = entry.checkpoint.map(Box::new);
        partition.faulty = damage.is_some();
        partition.rest = if trusted && !partition.faulty { Rest::Resting } else { Rest::Awake };
        self.resume_tail(&mut partition);
        if let Some((at, why)) = damage {
            self.report.findings.push((self.tp, PartitionFinding::Faulty { at, why }));
        } else if truncated {
            // What comes next must not be taken for what is gone: somebody may have seen that, and of its epoch.
            partition.last_epoch = Some(LeaderEpoch(partition.last_epoch.map_or(0, |last| last.0) + 1));
            self.report
                .findings
                .push((self.tp, PartitionFinding::Truncated { end: partition.durable.offset }));
        }
        Ok(Found { partition, discarded })
    }

    /// What is wrong between the end of an extent, which was decided like this, and the beginning of the next.
    fn gap(
        &mut self,
        (end, last): (Mark, Decision),
        behind: &[ExtentEntry],
        checkpoint: Option<&CheckpointEntry>,
    ) -> Gap {
        let next = &behind[0];
        if next.base_index == end.index.0 {
            return Gap::None;
        }
        let missing = format!("frames {} to {} are missing between two extents", end.index, next.base_index);
        if next.base_index < end.index.0 {
            return Gap::Missing(format!(
                "extent {} begins in front of the end of the one before it",
                next.incarnation
            ));
        }
        let (from, to) = (end.index, LogIndex(next.base_index));
        let orphaned = self.orphans.explains(self.tp.tag(), from, to);
        if orphaned {
            return Gap::Missing(missing);
        }
        if self.report.map_rebuilt {
            // Retention frees from the front: a whole run of extents that is gone, in front of frames that know it to have been durable, was
            // freed, and so was what lies in front of it. Anything else is not guessed at.
            let lost = last != Decision::End;
            let proven = behind.iter().any(|extent| self.proves(extent, end.index));
            return if proven && !lost { Gap::FreedBefore } else { Gap::Missing(missing) };
        }
        let known_durable =
            checkpoint.is_some_and(|c| c.index > end.index.0) || behind.iter().any(|e| e.sealed.is_some());
        if known_durable || behind.iter().any(|extent| self.proves(extent, end.index)) {
            return Gap::Missing(missing);
        }
        Gap::NeverAcknowledged
    }

    /// Whether an extent holds a frame that says that the one with this index had been durable. What cannot be read may.
    fn proves(&mut self, extent: &ExtentEntry, index: LogIndex) -> bool {
        let Some(slab) = self.slabs.get(&SlabId(extent.slab)) else { return true };
        if self.faults.of(extent).is_some() {
            return true;
        }
        let expect = self.expectation(extent, first_mark(extent), LogIndex(0));
        let mut bytes = SlabBytes { disk: self.disk, file: slab.file, at: extent.at };
        proves_durable(&expect, &mut bytes, index) == Later::Proven
    }

    fn expectation(&self, extent: &ExtentEntry, start: Mark, durable_hint: LogIndex) -> Expectation {
        Expectation {
            start,
            tag: self.tp.tag(),
            macs: self.macs.of(start.incarnation),
            extent_bytes: 1 << extent.log2_bytes,
            sealed_at: extent.sealed.map(|seal| seal.position),
            durable_hint,
            unacked_bytes_max: SEARCH_BYTES_MAX,
        }
    }

    /// Reads the frames of the first of these extents, from the checkpoint on if that is in it.
    fn walk(
        &mut self,
        partition: &mut Partition,
        behind: &[ExtentEntry],
        checkpoint: Option<&CheckpointEntry>,
    ) -> Result<Walked, OpenError> {
        let entry = &behind[0];
        let mut extent = extent_of(entry);
        let Some(slab) = self.slabs.get(&SlabId(entry.slab)) else {
            return Ok(Walked { extent, last_epoch: None, decision: Decision::End, damage: None });
        };
        let file = slab.file;
        let here = checkpoint.filter(|c| c.incarnation == entry.incarnation);
        let start = here.map_or(first_mark(entry), mark_of);
        extent.max_timestamp = here.map_or(extent.max_timestamp, |c| c.max_timestamp);
        let expect = self.expectation(entry, start, LogIndex(checkpoint.map_or(0, |c| c.index)));
        // Where the next extent begins, this one was given up: what lies behind is stale.
        let stop = behind.get(1).map_or(u64::MAX, |next| next.base_index);
        let mut stopped: Option<Mark> = None;
        let limits = &self.config.limits;
        let producers = &mut partition.producers;
        let mut visit = |position: u32, frame: &Frame<'_>| {
            let header = frame.header();
            if stopped.is_some() {
                return;
            }
            if frame.kind() != FrameKind::Padding && header.index.get() >= stop {
                let (index, offset) = (LogIndex(header.index.get()), Offset(header.base_offset.get()));
                stopped = Some(Mark { incarnation: Incarnation(entry.incarnation), position, index, offset });
                return;
            }
            if let Some(batch) = frame.batch() {
                let offset = Offset(header.base_offset.get());
                note_batch(&mut extent, position, offset, batch.header(), limits.index_interval_bytes);
                let stamp = ProducerStamp::of(batch.header());
                let timestamp = batch.header().max_timestamp.get();
                let seen = Appearance { base_offset: offset, timestamp, now_ms: UNKNOWN_MS };
                if is_planted(Mutant::DedupForgets) {
                    return;
                }
                producers.note(&stamp, seen, Offset(i64::MAX), limits.producers_max);
            }
        };
        let mut bytes = SlabBytes { disk: self.disk, file, at: entry.at };
        let scanned = scan(&expect, &mut bytes, &mut visit);
        let end = stopped.unwrap_or(scanned.end);
        extent.end = end.position;
        extent.end_index = end.index;
        extent.end_offset = end.offset;
        self.report.bytes_scanned += scanned.bytes_read;
        let mut damage = self.note_scan(entry, &scanned, stopped);
        if start.position == FIRST_POSITION && self.faults.of(entry).is_none() {
            self.check_header(entry, file, &mut extent)?;
        }
        let decision = if stopped.is_some() { Decision::End } else { scanned.decision };
        if let Some(seal) = entry.sealed.filter(|_| damage.is_none()) {
            if (end.index.0, end.offset.0) == (seal.index, seal.offset) {
                extent.end = seal.position;
            } else {
                let why = format!(
                    "the extent in {} at {} ends at frame {}, where the map says {}",
                    slab_name(SlabId(entry.slab)),
                    entry.at,
                    end.index,
                    seal.index
                );
                damage = Some((end.offset.min(Offset(seal.offset)), why));
            }
        }
        if let Some(seal) = entry.sealed.filter(|_| damage.is_some()) {
            let (index, offset) = (LogIndex(seal.index), Offset(seal.offset));
            extent.extend_to(Mark { position: seal.position, index, offset, ..end }, seal.max_timestamp);
        }
        Ok(Walked { extent, last_epoch: scanned.last_epoch, decision, damage })
    }

    /// What a scan found besides frames.
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
        let gap = scanned.gaps.iter().find(|gap| in_log(&gap.from))?;
        if gap.to.is_none() && entry.sealed.is_some_and(|seal| seal.index == gap.from.index.0) {
            // Behind the last frame there was padding at most.
            let what = format!(
                "{}: {place}: padding at {} is damaged; nothing is missing",
                self.tp, gap.from.position
            );
            self.report.warnings.push(what);
            return None;
        }
        let what = match gap.found {
            FoundThere::Zero | FoundThere::Older => "is not there",
            FoundThere::Unreadable => "cannot be read",
            FoundThere::NewerVersion => "is of a newer version",
            FoundThere::Misdirected => "was replaced by another one",
            FoundThere::Bad | FoundThere::Valid | FoundThere::Sealed => "is damaged",
        };
        let why = format!(
            "frame {} at {} of the extent in {place} had been durable and {what}",
            gap.from.index, gap.from.position
        );
        Some((gap.from.offset, why))
    }

    /// Looks at the header of an extent whose frames have been read, and writes it again if it is damaged.
    fn check_header(
        &mut self,
        entry: &ExtentEntry,
        file: FileId,
        extent: &mut Extent,
    ) -> Result<(), OpenError> {
        let id = ExtentId {
            cluster: self.config.cluster,
            store: self.config.store,
            place: Place { slab: SlabId(entry.slab), at: entry.at },
            log2_bytes: entry.log2_bytes,
            incarnation: extent.incarnation,
            tp: self.tp,
            base_index: extent.base_index,
            base_offset: extent.base_offset,
            leader_epoch: extent.leader_epoch,
            macs: self.macs.of(extent.incarnation).map(|_| *self.macs),
        };
        let block = id.to_block();
        let mut here = vec![0; EXTENT_HEADER_BYTES];
        if self.disk.read_at(file, entry.at, &mut here).is_ok_and(|read| read == here.len()) && here == block
        {
            return Ok(());
        }
        if !extent.has_frames() {
            // It was allocated and not written to yet.
            extent.header_written = false;
            return Ok(());
        }
        let path = self.config.dir.join(slab_name(SlabId(entry.slab)));
        let written = self.disk.write_at(file, entry.at, &block).and_then(|()| self.disk.sync_file(file));
        let outcome = match written {
            Ok(()) => "written again",
            // The map knows what it says; the next start tries again.
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

    /// Brings the partial last page into memory, so that appends go on in it.
    fn resume_tail(&mut self, partition: &mut Partition) {
        let Some(active) = partition.active() else { return };
        let within = active.end as usize % PAGE_BYTES;
        if within == 0 || partition.faulty {
            return;
        }
        let place = active.place.expect("a recovered extent has a place");
        let position = active.end;
        let mut page = vec![0; PAGE_BYTES];
        let at = place.at + u64::from(position) - within as u64;
        let read = self.slabs.get(&place.slab).map(|slab| self.disk.read_at(slab.file, at, &mut page));
        if matches!(read, Some(Ok(PAGE_BYTES))) {
            partition.tail = Some(Tail::resume(position, partition.append_offset, &page));
        } else {
            partition.seal_active();
        }
    }
}

/// Why a partition with orphaned frames is out of service.
pub(in crate::store) fn orphan_fault(orphan: &OrphanEntry) -> String {
    format!(
        "frames from {} on rest in {} at {}, where the extent's header is damaged and the map of the store was lost",
        orphan.index,
        slab_name(SlabId(orphan.slab)),
        orphan.at
    )
}

enum Gap {
    None,
    Missing(String),
    NeverAcknowledged,
    FreedBefore,
}

/// The end of the first of these extents, if the map's word for it is enough.
fn known_end(behind: &[ExtentEntry], checkpoint: Option<&CheckpointEntry>, trusted: bool) -> Option<Walked> {
    let entry = &behind[0];
    let checkpoint = checkpoint?;
    let passed = entry.incarnation < checkpoint.incarnation || trusted;
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
    Some(Walked { extent, last_epoch: None, decision: Decision::End, damage: None })
}

fn extent_of(entry: &ExtentEntry) -> Extent {
    let mut extent = Extent::new(
        Incarnation(entry.incarnation),
        entry.log2_bytes,
        LogIndex(entry.base_index),
        Offset(entry.base_offset),
        LeaderEpoch(entry.leader_epoch),
        entry.created_ms,
    );
    extent.place = Some(Place { slab: SlabId(entry.slab), at: entry.at });
    extent.sealed = entry.sealed.is_some();
    extent.seal_recorded = entry.sealed.is_some();
    extent.max_timestamp = entry.sealed.map_or(extent.max_timestamp, |seal| seal.max_timestamp);
    extent.map_seq = Some(Seq(0));
    extent.header_written = true;
    extent
}

fn first_mark(extent: &ExtentEntry) -> Mark {
    Mark {
        incarnation: Incarnation(extent.incarnation),
        position: FIRST_POSITION,
        index: LogIndex(extent.base_index),
        offset: Offset(extent.base_offset),
    }
}

fn mark_of(checkpoint: &CheckpointEntry) -> Mark {
    Mark {
        incarnation: Incarnation(checkpoint.incarnation),
        position: checkpoint.position,
        index: LogIndex(checkpoint.index),
        offset: Offset(checkpoint.offset),
    }
}

fn note_batch(extent: &mut Extent, position: u32, offset: Offset, batch: &BatchHeader, interval_bytes: u32) {
    extent.note_index(position, offset, interval_bytes);
    extent.note_times(batch.max_timestamp.get(), APPENDED_UNKNOWN);
}
