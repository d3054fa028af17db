//! The page buffer at the end of a partition's log, where small frames are packed.
//!
//! ```text
//!          base (a page boundary)        from             filled
//!           |  carried: on disk or on    |  frames that begin   |
//!           |  its way there, unchanged  |  and end in here     |  not defined
//! ```
//!
//! The buffer has one writer and no readers. At a commit round it is frozen, written and read from; the next buffer begins with a
//! copy of its partial last page, so nothing that is being written is ever changed.

use bytes::Bytes;
use highwater_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use highwater_protocol::frame::{
    FRAME_HEADER_BYTES, FramePlace, frame_bytes, write_batch_frame, write_configuration, write_epoch_start,
    write_padding,
};
use highwater_protocol::ids::{LeaderEpoch, Offset};
use highwater_runtime::buf::AlignedBuf;
use zerocopy::IntoBytes as _;

use crate::layout::PAGE_BYTES;

/// A buffer this many times as large as its content is not kept.
const SPARE_FACTOR_MAX: usize = 4;

/// The writer's buffer.
#[derive(Debug)]
pub(crate) struct Tail {
    buf: AlignedBuf,
    /// Position in the extent of the buffer's first byte.
    base: u32,
    filled: usize,
    /// Position of the first frame that lies wholly in the buffer.
    from: u32,
    from_offset: Offset,
    /// Position after the last frame that is not padding.
    data_end: u32,
    /// Bytes of frames that were in no frozen buffer yet.
    fresh_bytes: u64,
}

/// A tail that has become immutable.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Whole pages.
    pub(crate) buf: Bytes,
    /// Bytes of memory that it holds.
    pub(crate) memory_bytes: usize,
    pub(crate) base: u32,
    pub(crate) from: u32,
    pub(crate) from_offset: Offset,
    pub(crate) to: u32,
    pub(crate) data_end: u32,
    pub(crate) fresh_bytes: u64,
}

impl Tail {
    /// An empty buffer with room for this much, at a page boundary.
    pub(crate) fn new(base: u32, offset: Offset, bytes: usize) -> Self {
        assert!((base as usize).is_multiple_of(PAGE_BYTES));
        Self {
            buf: AlignedBuf::new(bytes),
            base,
            filled: 0,
            from: base,
            from_offset: offset,
            data_end: base,
            fresh_bytes: 0,
        }
    }

    /// A buffer that begins with bytes that are on disk already: the partial page before `position`.
    pub(crate) fn resume(position: u32, offset: Offset, page: &[u8]) -> Self {
        let filled = position as usize % PAGE_BYTES;
        let mut buf = AlignedBuf::new(PAGE_BYTES);
        buf[..filled].copy_from_slice(&page[..filled]);
        Self {
            buf,
            base: position - filled as u32,
            filled,
            from: position,
            from_offset: offset,
            data_end: position,
            fresh_bytes: 0,
        }
    }

    /// Where the next frame goes.
    pub(crate) fn position(&self) -> u32 {
        self.base + self.filled as u32
    }

    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Whether it holds frames that were in no frozen buffer yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh_bytes > 0
    }

    /// Bytes of frames that were in no frozen buffer yet.
    pub(crate) fn fresh_bytes(&self) -> u64 {
        self.fresh_bytes
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buf.len()
    }

    /// Makes room for a frame of this size, and if it has to move, for `target` bytes in all.
    pub(crate) fn reserve(&mut self, frame_bytes: usize, target: usize) {
        let need = self.filled + frame_bytes;
        if need <= self.buf.len() {
            return;
        }
        let mut larger = AlignedBuf::new(need.max(target));
        larger[..self.filled].copy_from_slice(&self.buf[..self.filled]);
        self.buf = larger;
    }

    /// Adds a frame of a batch, with its stamped header in place of its own. The only copy of its bytes between socket and disk.
    pub(crate) fn push_batch(&mut self, place: FramePlace, header: &BatchHeader, batch: &[u8]) {
        let frame = self.extend(frame_bytes(batch.len()));
        let payload = &mut frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch.len()];
        let (stamped, records) = payload.split_at_mut(BATCH_HEADER_BYTES);
        stamped.copy_from_slice(header.as_bytes());
        records.copy_from_slice(&batch[BATCH_HEADER_BYTES..]);
        write_batch_frame(frame, header, place);
        self.data_end = self.position();
    }

    /// Adds the first frame of an epoch.
    pub(crate) fn push_epoch_start(&mut self, place: FramePlace, offset: Offset, epoch: LeaderEpoch) {
        let frame = self.extend(FRAME_HEADER_BYTES);
        let frame = frame.first_chunk_mut().expect("it is as long as that");
        write_epoch_start(frame, place, offset, epoch);
        self.data_end = self.position();
    }

    /// Adds a frame of a configuration.
    pub(crate) fn push_configuration(
        &mut self,
        place: FramePlace,
        offset: Offset,
        epoch: LeaderEpoch,
        payload: &[u8],
    ) {
        let frame = self.extend(frame_bytes(payload.len()));
        frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
        write_configuration(frame, payload.len(), place, offset, epoch);
        self.data_end = self.position();
    }

    /// Adds a padding frame of this many bytes.
    pub(crate) fn push_padding(
        &mut self,
        bytes: usize,
        place: FramePlace,
        offset: Offset,
        epoch: LeaderEpoch,
    ) {
        write_padding(self.extend(bytes), place, offset, epoch);
    }

    fn extend(&mut self, bytes: usize) -> &mut [u8] {
        let at = self.filled;
        self.filled += bytes;
        self.fresh_bytes += bytes as u64;
        &mut self.buf[at..at + bytes]
    }

    /// Makes the buffer immutable. With `carry`, a partial last page is copied to the buffer that goes on after it.
    pub(crate) fn freeze(mut self, end_offset: Offset, carry: bool) -> (Frozen, Option<Self>) {
        assert!(self.filled > 0, "there is something to freeze");
        let whole = self.filled.next_multiple_of(PAGE_BYTES);
        self.buf[self.filled..whole].fill(0);
        let to = self.position();
        let next = (carry && whole != self.filled).then(|| {
            let mut next = Self::resume(to, end_offset, &self.buf[whole - PAGE_BYTES..whole]);
            // When everything of this buffer is in the copy, the next frozen buffer replaces this one for readers.
            if self.from >= next.base {
                next.from = self.from;
                next.from_offset = self.from_offset;
                next.data_end = self.data_end;
            }
            next
        });
        let mut memory_bytes = self.buf.len();
        if memory_bytes >= SPARE_FACTOR_MAX * whole {
            // A buffer made for a larger round. Kept in the cache it would hold memory that nothing is in.
            let mut fitting = AlignedBuf::new(whole);
            fitting.copy_from_slice(&self.buf[..whole]);
            self.buf = fitting;
            memory_bytes = whole;
        }
        self.buf.truncate(whole);
        let frozen = Frozen {
            buf: self.buf.freeze(),
            memory_bytes,
            base: self.base,
            from: self.from,
            from_offset: self.from_offset,
            to,
            data_end: self.data_end,
            fresh_bytes: self.fresh_bytes,
        };
        (frozen, next)
    }
}
