//! Filling the new extent of a rewrite.

use std::io;

use bytes::Bytes;
use highwater_protocol::batch::{BatchHeader, BatchView};
use highwater_protocol::frame::{Frame, FrameKind};
use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::is_out_of_space;
use highwater_runtime::plane::{Disk, Durability};

use super::super::Store;
use super::super::round::Op;
use super::super::task::Answer;
use super::output::NoRoom;
use super::{Progress, Rewrite, Step};
use crate::api::{CursorHint, IndexCursor, ReadId, ReadLimits, RewriteAborted, Verdict};
use crate::extent::NO_TIMESTAMP;
use crate::layout::{EXTENT_HEADER_BYTES, ExtentId, Place, SlabId};
use crate::limits::EXTENT_BYTES_MAX;
use crate::mutants::{Mutant, is_planted};
use crate::scan::IndexReader;

impl Store {
    /// Writes the header of the new extent, without an end, as soon as its incarnation is reserved.
    pub(super) fn begin_rewritten_extent(&mut self, disk: &mut dyn Disk, rewrite: &mut Rewrite) -> Progress {
        let incarnation = rewrite.output.as_ref().expect("it has space").extent.incarnation;
        if !self.space.is_reserved(incarnation) {
            // The next flush reserves it, if it is not being reserved.
            return if incarnation.0 < self.space.reserved { Progress::Waits } else { Progress::Paused };
        }
        self.write_rewritten_header(disk, rewrite, Step::Copying)
    }

    /// Writes the header of the new extent, durably. Where it ends is in it once the extent is sealed.
    pub(super) fn write_rewritten_header(
        &mut self,
        disk: &mut dyn Disk,
        rewrite: &mut Rewrite,
        then: Step,
    ) -> Progress {
        let (cluster, store, macs) = (self.config.cluster, self.config.store, self.macs);
        let tp = self.partition(rewrite.slot).expect("it was looked at before each step").tp;
        let extent = &rewrite.output.as_ref().expect("it has space").extent;
        let id: ExtentId = extent.id(cluster, store, tp, &macs).expect("it has a place");
        let mut page = AlignedBuf::new(EXTENT_HEADER_BYTES);
        page.copy_from_slice(&id.to_block());
        self.write_rewrite(disk, rewrite, (0, page.freeze()), Durability::Durable);
        rewrite.step = then;
        Progress::Next
    }

    fn write_rewrite(
        &mut self,
        disk: &mut dyn Disk,
        rewrite: &mut Rewrite,
        (from, data): (u32, Bytes),
        durability: Durability,
    ) {
        let extent = &rewrite.output.as_ref().expect("it has space").extent;
        let Place { slab, at } = extent.place.expect("it has space");
        assert!(
            u64::from(from) + data.len() as u64 <= 1 << rewrite.log2_bytes,
            "a write stays within its extent"
        );
        let place = Place { slab, at: at + u64::from(from) };
        rewrite.ops_left += self.write_to_slab(disk, place, &data, durability, Op::Rewrite { slab });
    }

    /// Makes the frames of the new extent durable.
    pub(super) fn sync_rewrite(&mut self, disk: &mut dyn Disk, rewrite: &mut Rewrite) -> Progress {
        rewrite.step = Step::Ending;
        if is_planted(Mutant::SwapBeforeSync) {
            return Progress::Next;
        }
        let place = rewrite.output.as_ref().and_then(|output| output.extent.place).expect("it has space");
        let token = self.token(Op::RewriteSync { slab: place.slab });
        self.stats.syncs += 1;
        rewrite.ops_left += 1;
        disk.sync(self.space.slabs[&place.slab].file, token);
        Progress::Next
    }

    /// A write or a sync of a rewrite is done.
    pub(in crate::store) fn on_rewrite_done(&mut self, slab: SlabId, result: io::Result<()>) {
        let rewrite = self.rewrite.as_mut().expect("a rewrite waits for its writes");
        rewrite.ops_left -= 1;
        match result {
            Ok(()) => {}
            Err(e) if is_out_of_space(&e) => {
                rewrite.aborted = rewrite.aborted.or(Some(RewriteAborted::NoSpace));
            }
            Err(e) => return self.fail(format!("could not write to {}: {e}", self.slab_path(slab))),
        }
        self.give_up_changed_rewrite();
    }

    /// Goes on with the frames that were read; reads the next ones if there are none, or begins to end the new extent.
    pub(super) fn copy_frames(
        &mut self,
        disk: &mut dyn Disk,
        rewrite: &mut Rewrite,
        bytes: &mut usize,
    ) -> Result<Progress, RewriteAborted> {
        while rewrite.at < rewrite.frames.len() {
            if *bytes == 0 {
                return Ok(Progress::Paused);
            }
            if rewrite.output.as_ref().is_some_and(super::output::Output::is_full) {
                let pages = rewrite.output.as_mut().and_then(super::output::Output::take_pages);
                self.write_rewrite(disk, rewrite, pages.expect("it is full"), Durability::Volatile);
                return Ok(Progress::Next);
            }
            match self.copy_frame(rewrite) {
                Ok(Some(frame_bytes)) => *bytes = bytes.saturating_sub(frame_bytes),
                Ok(None) => {
                    *bytes = 0;
                    return Ok(Progress::Paused);
                }
                Err(NoRoom) => return self.enlarge(rewrite),
            }
        }
        if rewrite.next.index() < rewrite.end.index {
            if *bytes == 0 {
                return Ok(Progress::Paused);
            }
            return self.read_frames(disk, rewrite);
        }
        let log2_min = self.config.limits.extent_bytes_min.ilog2() as u8;
        let output = rewrite.output.as_mut().expect("it has space");
        let rest = output.take_rest();
        output.seal(rewrite.end, log2_min);
        if let Some(rest) = rest {
            self.write_rewrite(disk, rewrite, rest, Durability::Volatile);
        }
        rewrite.step = Step::Syncing;
        Ok(Progress::Next)
    }

    /// Copies the next frame, or what the filter leaves of it. Returns its size; `None`: the filter has not decided.
    fn copy_frame(&self, rewrite: &mut Rewrite) -> Result<Option<usize>, NoRoom> {
        let partition = self.partition(rewrite.slot).expect("it was looked at before each step");
        let output = rewrite.output.as_mut().expect("it has space");
        let frame =
            Frame::parse(&rewrite.frames[rewrite.at..]).expect("a frame that was checked when it was read");
        let header = frame.header();
        let whole = header.frame_bytes();
        let index = LogIndex(header.index.get());
        match (frame.kind(), frame.batch()) {
            (FrameKind::EpochStart, _) => output.push_same(header)?,
            (FrameKind::Configuration, _) if partition.configurations.contains(index) => {
                output.push_configuration(header, frame.payload())?;
            }
            // A later one has replaced it.
            (FrameKind::Configuration, _) if partition.epochs.begins_at(index) => output.push_same(header)?,
            (FrameKind::Batch, Some(batch)) => {
                // What is not committed may be cut off.
                let settled = partition.durable.offset.min(partition.commit_point().offset);
                let (producer, base_offset) =
                    (batch.header().producer_id.get(), batch.header().base_offset());
                let is_last = partition.producers.is_last(producer, base_offset, settled)
                    && !is_planted(Mutant::DropLastOfProducer);
                let ends_log = batch.header().next_offset() >= settled && !is_planted(Mutant::DropLastOfLog);
                rewrite.scratch.clear();
                let kept = match rewrite.filter.filter(&batch, is_last || ends_log, &mut rewrite.scratch) {
                    Verdict::Keep => Some(batch.bytes()),
                    Verdict::Replace => {
                        assert_replaces(&batch, &rewrite.scratch);
                        Some(&rewrite.scratch[..])
                    }
                    Verdict::Drop => None,
                    Verdict::Unfinished => return Ok(None),
                };
                if let Some(kept) = kept {
                    let kept = output.push_batch(index, kept, rewrite.untimed_ms)?;
                    let horizon_ms = rewrite.filter.horizon_ms(&kept).unwrap_or(NO_TIMESTAMP);
                    output.extent.horizon_ms = output.extent.horizon_ms.max(horizon_ms);
                } else if partition.epochs.begins_at(index) {
                    let epoch = LeaderEpoch(header.leader_epoch.get());
                    output.push_epoch_start(index, base_offset, epoch)?;
                }
                rewrite.outcome.batches_before += 1;
            }
            (FrameKind::Padding | FrameKind::Batch | FrameKind::Configuration, _) => {}
        }
        rewrite.at += whole;
        Ok(Some(whole))
    }

    /// What the filter made of the batches needs more space than they did: begins again with twice as much.
    fn enlarge(&mut self, rewrite: &mut Rewrite) -> Result<Progress, RewriteAborted> {
        if u64::from(rewrite.log2_bytes) >= u64::from(EXTENT_BYTES_MAX.ilog2()) {
            return Err(RewriteAborted::TooLarge);
        }
        if let Some(place) = rewrite.output.as_ref().and_then(|output| output.extent.place) {
            self.space.alloc.release(place, rewrite.log2_bytes);
            self.space.trim_due = true;
        }
        rewrite.log2_bytes += 1;
        rewrite.begin_again();
        Ok(Progress::Next)
    }

    fn read_frames(
        &mut self,
        disk: &mut dyn Disk,
        rewrite: &mut Rewrite,
    ) -> Result<Progress, RewriteAborted> {
        let limits =
            ReadLimits { bytes_max: self.config.limits.rewrite_bytes_max, memory_bytes_max: usize::MAX };
        let (slot, up_to) = (rewrite.slot, rewrite.end.index);
        let (id, answer) =
            self.begin_index_read(disk, slot, rewrite.next, limits, up_to, IndexReader::Rewrite);
        let Some(answer) = answer else {
            rewrite.step = Step::Reading(id);
            return Ok(Progress::Waits);
        };
        rewrite.take_answer(answer)?;
        Ok(Progress::Next)
    }

    /// A read of a rewrite is done, perhaps of one that was given up.
    pub(in crate::store) fn on_rewrite_read(&mut self, id: ReadId, answer: Answer) {
        let Some(rewrite) = self.rewrite.as_mut().filter(|rewrite| rewrite.step == Step::Reading(id)) else {
            return;
        };
        if let Err(why) = rewrite.take_answer(answer) {
            rewrite.aborted = rewrite.aborted.or(Some(why));
        }
        self.give_up_changed_rewrite();
    }
}

impl Rewrite {
    /// Takes what a read has brought.
    fn take_answer(&mut self, answer: Answer) -> Result<(), RewriteAborted> {
        self.step = Step::Copying;
        self.at = 0;
        self.frames = Bytes::new();
        match answer {
            Answer::IndexFrames { bytes, next, extent, position, .. } => {
                self.frames = bytes;
                let hint = CursorHint { extent, position, frame_bytes: 0 };
                self.next = IndexCursor { index: next, hint: Some(hint) };
                Ok(())
            }
            // No more frames: an earlier rewrite has dropped them.
            Answer::End => {
                self.next = IndexCursor::at(self.end.index);
                Ok(())
            }
            Answer::Lost | Answer::Damaged { .. } => Err(RewriteAborted::Damaged),
            _ => Err(RewriteAborted::Changed),
        }
    }
}

/// A batch that was made of another one has its place in the log.
fn assert_replaces(batch: &BatchView<'_>, bytes: &[u8]) {
    let place = |header: &BatchHeader| {
        let producer = (header.producer_id.get(), header.producer_epoch.get(), header.base_sequence.get());
        let offsets = (header.base_offset.get(), header.last_offset_delta.get(), header.leader_epoch.get());
        (producer, offsets)
    };
    let header = BatchHeader::parse(bytes).expect("the filter makes batches");
    assert!(place(header) == place(batch.header()), "a batch keeps its offsets, its producer and its epoch");
    assert!(header.batch_bytes() == bytes.len(), "the filter makes one batch of one");
}
