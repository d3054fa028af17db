//! The extent that takes the place of others, while its frames are put together. Pure: the store writes the pages.

use bytes::Bytes;
use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FramePlace, frame_bytes, write_batch_frame, write_configuration,
    write_epoch_start,
};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::buf::AlignedBuf;

use crate::extent::{Extent, FIRST_POSITION};
use crate::layout::PAGE_BYTES;
use crate::limits::StoreLimits;
use crate::mac::ExtentMacs;
use crate::mutants::{Mutant, is_planted};
use crate::position::LogPoint;

/// A new extent and those of its pages that were not handed to the disk.
#[derive(Debug)]
pub(super) struct Output {
    /// The extent, as far as it has frames.
    pub(super) extent: Extent,
    macs: ExtentMacs,
    tag: u32,
    interval_bytes: u32,
    /// Bytes of a write.
    write_bytes: usize,
    /// Pages from `base` on. The last one may be filled in part.
    buf: AlignedBuf,
    base: u32,
    /// Batches in it.
    pub(super) batches: u64,
}

/// The frame does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoRoom;

impl Output {
    /// `extent` has no frames yet.
    pub(super) fn new(mut extent: Extent, macs: ExtentMacs, tag: u32, limits: &StoreLimits) -> Self {
        extent.has_gaps = !is_planted(Mutant::ForgetGapFlag);
        Self {
            extent,
            macs,
            tag,
            interval_bytes: limits.index_interval_bytes,
            write_bytes: limits.rewrite_bytes_max,
            buf: AlignedBuf::new(0),
            base: FIRST_POSITION,
            batches: 0,
        }
    }

    fn place(&self, index: LogIndex) -> FramePlace {
        FramePlace {
            incarnation: self.extent.incarnation,
            index,
            // What is rewritten is committed, and so is everything before it.
            durable_index: index,
            commit_index: index,
            partition_tag: self.tag,
            mac: self.macs.at(self.extent.end),
        }
    }

    /// Adds a batch, whose offsets and epoch are stamped. Returns its header. `untimed_ms`: when it was appended at the latest, if it has no timestamp.
    pub(super) fn push_batch(
        &mut self,
        index: LogIndex,
        batch: &[u8],
        untimed_ms: i64,
    ) -> Result<BatchHeader, NoRoom> {
        let header = *BatchHeader::parse(batch).expect("a batch that was read, or that a filter made");
        let bytes = frame_bytes(batch.len());
        let place = self.place(index);
        let frame = self.room(bytes)?;
        frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch.len()].copy_from_slice(batch);
        write_batch_frame(frame, &header, place);
        let point = LogPoint { index, offset: header.base_offset() };
        self.extent.note_index(self.extent.end, point, self.interval_bytes);
        self.extent.note_times(&header, untimed_ms);
        self.extent.advance(bytes, index.next(), header.next_offset());
        self.batches += 1;
        Ok(header)
    }

    /// Adds the first frame of a leader's epoch.
    pub(super) fn push_epoch_start(
        &mut self,
        index: LogIndex,
        next_offset: Offset,
        epoch: LeaderEpoch,
    ) -> Result<(), NoRoom> {
        let place = self.place(index);
        let frame = self.room(FRAME_HEADER_BYTES)?;
        let frame = frame.first_chunk_mut().expect("it has this length");
        write_epoch_start(frame, place, next_offset, epoch);
        self.extent.advance(FRAME_HEADER_BYTES, index.next(), next_offset);
        Ok(())
    }

    /// Adds the frame of an epoch start that was read.
    pub(super) fn push_same(&mut self, header: &FrameHeader) -> Result<(), NoRoom> {
        let epoch = LeaderEpoch(header.leader_epoch.get());
        self.push_epoch_start(LogIndex(header.index.get()), Offset(header.base_offset.get()), epoch)
    }

    /// Adds the frame of a configuration that was read.
    pub(super) fn push_configuration(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), NoRoom> {
        let (index, offset) = (LogIndex(header.index.get()), Offset(header.base_offset.get()));
        let (place, bytes) = (self.place(index), frame_bytes(payload.len()));
        let frame = self.room(bytes)?;
        frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
        write_configuration(frame, payload.len(), place, offset, LeaderEpoch(header.leader_epoch.get()));
        self.extent.advance(bytes, index.next(), offset);
        Ok(())
    }

    /// The bytes of the next frame.
    fn room(&mut self, bytes: usize) -> Result<&mut [u8], NoRoom> {
        if bytes > self.extent.room() {
            return Err(NoRoom);
        }
        let from = (self.extent.end - self.base) as usize;
        if from + bytes > self.buf.len() {
            self.buf.grow((from + bytes).max(2 * self.buf.len().min(self.write_bytes)));
        }
        Ok(&mut self.buf[from..from + bytes])
    }

    fn filled(&self) -> usize {
        (self.extent.end - self.base) as usize
    }

    /// Whether there is enough for a write.
    pub(super) fn is_full(&self) -> bool {
        self.filled() >= self.write_bytes
    }

    /// Takes the whole pages, with their position. `None`: there are none. The last frame goes on in a copy of its page.
    pub(super) fn take_pages(&mut self) -> Option<(u32, Bytes)> {
        let whole = self.filled() - self.filled() % PAGE_BYTES;
        self.take(whole)
    }

    /// Takes everything, with its position, and fills the last page with zero bytes. `None`: there is nothing.
    pub(super) fn take_rest(&mut self) -> Option<(u32, Bytes)> {
        let (filled, whole) = (self.filled(), self.filled().next_multiple_of(PAGE_BYTES));
        self.buf[filled..whole].fill(0);
        self.take(whole)
    }

    fn take(&mut self, bytes: usize) -> Option<(u32, Bytes)> {
        if bytes == 0 {
            return None;
        }
        let rest = self.filled().saturating_sub(bytes);
        let mut next = AlignedBuf::new(rest);
        next[..rest].copy_from_slice(&self.buf[bytes..bytes + rest]);
        let mut pages = std::mem::replace(&mut self.buf, next);
        pages.truncate(bytes);
        let from = self.base;
        self.base += bytes as u32;
        Some((from, pages.freeze()))
    }

    /// Ends the extent where those that it replaces end, and leaves it no more space than its frames take, but at least `log2_min`.
    pub(super) fn seal(&mut self, end: LogPoint, log2_min: u8) {
        let extent = &mut self.extent;
        assert!(extent.end_index <= end.index && extent.end_offset <= end.offset);
        extent.end_index = end.index;
        extent.end_offset = end.offset;
        extent.sealed = true;
        extent.seal_recorded = true;
        let log2 = extent.end.next_power_of_two().ilog2() as u8;
        extent.log2_bytes = log2.max(log2_min).min(extent.log2_bytes);
    }
}
