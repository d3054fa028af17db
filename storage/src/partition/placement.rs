//! Placement of frames in an extent.
//!
//! - Small frames are packed back to back in the tail. When the tail's buffer has grown to its limit it is padded to a page
//!   boundary and the next frame begins a new one.
//! - A bulk frame begins on a page boundary and the frame after it too, so its pages are written as they came.
//! - A gap is a padding frame; see [`padding_bytes`].

use bytes::Bytes;
use highwater_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use highwater_protocol::frame::{FRAME_HEADER_BYTES, frame_bytes, write_batch_frame, write_padding};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::buf::AlignedBuf;
use zerocopy::IntoBytes as _;

use super::cache::{CacheBudget, Chunk};
use super::padding::padding_bytes;
use super::tail::{Frozen, Tail};
use super::{Partition, Piece};
use crate::api::{Appended, FramePlacement, Payload, PayloadBytes};
use crate::layout::PAGE_BYTES;
use crate::limits::StoreLimits;
use crate::mac::StoreMacs;
use crate::position::LogPoint;
use crate::producers::{Appearance, ProducerStamp};

/// Whether frames may be missing before a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gaps {
    /// It begins where the log ends.
    None,
    /// It comes from another replica, where compaction has removed those before it.
    Allowed,
}

/// The parts of the store that appending a frame needs.
pub(crate) struct AppendContext<'a> {
    pub(crate) limits: &'a StoreLimits,
    pub(crate) budget: &'a mut CacheBudget,
    pub(crate) wall_ms: i64,
    pub(crate) macs: &'a StoreMacs,
}

impl Partition {
    /// Whether the active extent takes a frame of this size.
    pub(crate) fn fits(&self, limits: &StoreLimits, frame_bytes: usize, placement: FramePlacement) -> bool {
        let gap = if self.must_split(limits, frame_bytes, placement) {
            self.tail.as_ref().map_or(0, |tail| padding_bytes(tail.position() as usize))
        } else {
            0
        };
        self.active().is_some_and(|active| gap + frame_bytes <= active.room())
    }

    /// Whether the tail has to end before a frame of this size.
    fn must_split(&self, limits: &StoreLimits, frame_bytes: usize, placement: FramePlacement) -> bool {
        self.tail.as_ref().is_some_and(|tail| {
            let full = tail.is_fresh() && tail.filled() + frame_bytes > limits.chunk_bytes_max;
            full || placement == FramePlacement::OwnPages
        })
    }

    /// Adds a batch, stamped with offset and epoch. It fits.
    pub(crate) fn push(
        &mut self,
        context: &mut AppendContext<'_>,
        payload: Payload<'_>,
        epoch: LeaderEpoch,
    ) -> Appended {
        let Payload { mut header, bytes } = payload;
        header.stamp(self.append_offset, epoch);
        match bytes {
            PayloadBytes::Small(batch) => self.push_small(context, batch, &header),
            PayloadBytes::Bulk(pages) => self.push_bulk(context, pages, &header),
        }
    }

    /// Adds a batch to the tail. Its header there is the stamped one.
    fn push_small(
        &mut self,
        context: &mut AppendContext<'_>,
        batch: &[u8],
        header: &BatchHeader,
    ) -> Appended {
        let (frame_bytes, epoch) = (frame_bytes(batch.len()), header.leader_epoch());
        self.split_tail(context, frame_bytes, FramePlacement::Packed, epoch);
        let place = self.place(context.macs, epoch);
        self.tail_with_room(context.limits, frame_bytes).push_batch(place, header, batch);
        self.note_batch(context, frame_bytes, header)
    }

    /// Adds a frame without payload or offset to the tail. It fits.
    pub(crate) fn push_epoch_start(
        &mut self,
        context: &mut AppendContext<'_>,
        epoch: LeaderEpoch,
    ) -> LogIndex {
        let frame_bytes = frame_bytes(0);
        self.split_tail(context, frame_bytes, FramePlacement::Packed, epoch);
        let (place, offset) = (self.place(context.macs, epoch), self.append_offset);
        self.tail_with_room(context.limits, frame_bytes).push_epoch_start(place, offset, epoch);
        let index = self.append_index;
        self.note_epoch(epoch);
        self.advance_append(frame_bytes, index.next(), self.append_offset);
        index
    }

    /// Adds a configuration to the tail. It fits.
    pub(crate) fn push_configuration(
        &mut self,
        context: &mut AppendContext<'_>,
        payload: Bytes,
        epoch: LeaderEpoch,
    ) -> Appended {
        let frame_bytes = frame_bytes(payload.len());
        self.split_tail(context, frame_bytes, FramePlacement::Packed, epoch);
        let (place, offset) = (self.place(context.macs, epoch), self.append_offset);
        let tail = self.tail_with_room(context.limits, frame_bytes);
        tail.push_configuration(place, offset, epoch, &payload);
        let index = self.append_index;
        self.note_epoch(epoch);
        assert!(self.configurations.are_below(index), "indexes rise along a log");
        self.configurations.note(index, payload);
        self.advance_append(frame_bytes, index.next(), offset);
        Appended { index, base_offset: offset, next_offset: offset }
    }

    /// Adds a batch in pages of its own, whose first bytes are the frame header's. Its header there becomes the stamped one.
    fn push_bulk(
        &mut self,
        context: &mut AppendContext<'_>,
        mut pages: AlignedBuf,
        header: &BatchHeader,
    ) -> Appended {
        let (frame_bytes, epoch) = (frame_bytes(header.batch_bytes()), header.leader_epoch());
        self.split_tail(context, frame_bytes, FramePlacement::OwnPages, epoch);
        assert!(self.tail.is_none());
        let active = self.active().expect("the frame fits");
        let (base, room) = (active.end, active.room());
        assert!((base as usize).is_multiple_of(PAGE_BYTES), "pages of its own begin at a page");
        let gap = padding_bytes(frame_bytes);
        // At the very end of an extent there may be no room for a padding frame: then nothing fits after, and none is needed.
        let gap = if frame_bytes + gap <= room { gap } else { 0 };
        let whole = (frame_bytes + gap).next_multiple_of(PAGE_BYTES);
        pages.grow(whole);
        pages.truncate(whole);

        let from_offset = self.append_offset;
        pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + BATCH_HEADER_BYTES].copy_from_slice(header.as_bytes());
        write_batch_frame(&mut pages[..frame_bytes], header, self.place(context.macs, epoch));
        pages[frame_bytes..].fill(0);
        let appended = self.note_batch(context, frame_bytes, header);
        if gap > 0 {
            let place = self.place(context.macs, epoch);
            write_padding(&mut pages[frame_bytes..frame_bytes + gap], place, self.append_offset, epoch);
            self.advance_append(gap, self.append_index, self.append_offset);
        }
        let frozen = Frozen {
            memory_bytes: pages.len(),
            buf: pages.freeze(),
            base,
            from: base,
            from_offset,
            to: base + (frame_bytes + gap) as u32,
            data_end: base + frame_bytes as u32,
            fresh_bytes: (frame_bytes + gap) as u64,
        };
        self.enqueue(context.budget, &frozen);
        appended
    }

    /// Freezes the content of the tail and queues it. With `carry`, the tail goes on after it in the same page.
    pub(crate) fn freeze_tail(&mut self, budget: &mut CacheBudget, carry: bool) {
        let Some(tail) = self.tail.take() else { return };
        if !tail.is_fresh() {
            // Everything in it is on disk or in flight.
            self.tail = carry.then_some(tail);
            return;
        }
        let (frozen, next) = tail.freeze(self.append_offset, carry);
        self.tail = next;
        self.tail_bytes_last = frozen.buf.len();
        self.enqueue(budget, &frozen);
    }

    fn enqueue(&mut self, budget: &mut CacheBudget, frozen: &Frozen) {
        let extent = self.extents.back().expect("frozen frames lie in an extent");
        let end = extent.end_mark();
        assert!(frozen.to == end.position, "what is frozen ends where the log ends");
        let mut chunk = Chunk::new(extent.reference(), frozen, end.point());
        if extent.has_gaps
            && let Some(before) = self.chunks.end()
        {
            // What is missing before it belongs to it: the chunks have no gaps.
            chunk.base_offset = chunk.base_offset.min(before);
        }
        self.queue.push_back(Piece {
            extent: extent.reference(),
            from: frozen.base,
            data: frozen.buf.clone(),
            end,
            frame_bytes: frozen.fresh_bytes,
        });
        budget.push(self.slot, &mut self.chunks, chunk);
    }

    /// Ends the tail before a frame that does not go into it.
    fn split_tail(
        &mut self,
        context: &mut AppendContext<'_>,
        frame_bytes: usize,
        placement: FramePlacement,
        epoch: LeaderEpoch,
    ) {
        if !self.must_split(context.limits, frame_bytes, placement) {
            return;
        }
        let (place, offset) = (self.place(context.macs, epoch), self.append_offset);
        let tail = self.tail.as_mut().expect("there is a tail to split");
        let gap = padding_bytes(tail.position() as usize);
        if gap > 0 {
            tail.reserve(gap, 0);
            tail.push_padding(gap, place, offset, epoch);
            self.advance_append(gap, self.append_index, self.append_offset);
        }
        self.freeze_tail(context.budget, false);
    }

    fn tail_with_room(&mut self, limits: &StoreLimits, frame_bytes: usize) -> &mut Tail {
        let active = self.active().expect("the frame fits");
        let (position, offset) = (active.end, self.append_offset);
        // As large as the last one, or twice the present one: buffers double until they hold a round.
        let have = self.tail.as_ref().map_or(0, Tail::buffer_bytes);
        let target = self.tail_bytes_last.max(2 * have).next_power_of_two().min(limits.chunk_bytes_max);
        let tail = self.tail.get_or_insert_with(|| Tail::new(position, offset, frame_bytes.max(target)));
        assert!(tail.position() == position, "the tail ends where the log ends");
        tail.reserve(frame_bytes, target);
        tail
    }

    /// Moves the end of the log to where the next frame begins, past those that compaction has removed in the log that it comes from. It fits.
    pub(crate) fn skip_to(
        &mut self,
        context: &mut AppendContext<'_>,
        begin: LogPoint,
        (payload_bytes, placement): (usize, FramePlacement),
    ) {
        if begin == self.append_point() {
            return;
        }
        assert!(self.active().is_some_and(|active| active.has_gaps), "a gap is in an extent that says so");
        // What leaves before the frame ends before the gap: the log does not reach beyond it until the frame is durable.
        let epoch = self.epochs.last().unwrap_or(LeaderEpoch(0));
        self.split_tail(context, frame_bytes(payload_bytes), placement, epoch);
        self.extents.back_mut().expect("it was there").advance(0, begin.index, begin.offset);
        self.append_index = begin.index;
        self.append_offset = begin.offset;
    }

    fn note_batch(
        &mut self,
        context: &AppendContext<'_>,
        frame_bytes: usize,
        header: &BatchHeader,
    ) -> Appended {
        let epoch = header.leader_epoch();
        let (index, base_offset) = (self.append_index, self.append_offset);
        let next_offset = base_offset.plus(i64::from(header.last_offset_delta.get()) + 1);
        let timestamp = header.max_timestamp.get();
        let active = self.extents.back_mut().expect("the frame fits");
        active.note_index(
            active.end,
            LogPoint { index, offset: base_offset },
            context.limits.index_interval_bytes,
        );
        active.note_times(header, context.wall_ms);
        let stamp = ProducerStamp::of(header);
        let seen = Appearance { base_offset, timestamp, now_ms: context.wall_ms };
        let settled = self.durable.offset.min(self.commit_point().offset);
        self.producers.note(&stamp, seen, settled, context.limits.producers_max);
        self.note_epoch(epoch);
        self.advance_append(frame_bytes, index.next(), next_offset);
        Appended { index, base_offset, next_offset }
    }

    /// A frame of this epoch is appended.
    fn note_epoch(&mut self, epoch: LeaderEpoch) {
        self.last_epoch = Some(epoch);
        self.epochs.note(epoch, self.append_point());
    }

    fn advance_append(&mut self, frame_bytes: usize, next_index: LogIndex, next_offset: Offset) {
        self.extents.back_mut().expect("the frame fits").advance(frame_bytes, next_index, next_offset);
        self.append_index = next_index;
        self.append_offset = next_offset;
        self.unacked_bytes += frame_bytes as u64;
    }
}
