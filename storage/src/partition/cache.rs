//! The tail cache: frozen chunks, kept as they were written, from which readers at the end of a log are served.
//!
//! The chunks of a partition are a contiguous end of its log. Over the store's budget the oldest of all goes first, whichever
//! partition it belongs to, but never one that the extents do not have durably: it is the only copy, or the journal has
//! the other.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::ids::{ExtentSequence, LogIndex, Offset};

use super::tail::Frozen;
use crate::api::PartitionSlot;
use crate::position::{ExtentRef, LogPoint};

/// A frozen piece of an extent.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    id: u64,
    pub(crate) extent: ExtentRef,
    /// Position of the first byte of `buf`.
    pub(crate) base: u32,
    /// Positions of its frames: those that lie wholly in `buf`.
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Where the last frame that is not padding ends.
    pub(crate) data_end: u32,
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    /// Index after its last frame.
    pub(crate) next_index: LogIndex,
    pub(crate) buf: Bytes,
    memory_bytes: u64,
}

impl Chunk {
    pub(crate) fn new(extent: ExtentRef, frozen: &Frozen, next: LogPoint) -> Self {
        assert!(frozen.base <= frozen.from && frozen.from <= frozen.data_end && frozen.data_end <= frozen.to);
        Self {
            id: 0,
            extent,
            base: frozen.base,
            from: frozen.from,
            to: frozen.to,
            data_end: frozen.data_end,
            base_offset: frozen.from_offset,
            next_offset: next.offset,
            next_index: next.index,
            buf: frozen.buf.clone(),
            memory_bytes: frozen.memory_bytes as u64,
        }
    }

    /// Bytes of memory that it takes, and any slice of it keeps from being freed.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes as usize
    }

    /// The bytes between two positions.
    pub(crate) fn slice(&self, from: u32, to: u32) -> Bytes {
        self.buf.slice((from - self.base) as usize..(to - self.base) as usize)
    }
}

/// The chunks of one partition, oldest first, without gaps.
#[derive(Default, Debug)]
pub(crate) struct Chunks {
    chunks: VecDeque<Chunk>,
}

impl Chunks {
    /// The chunk that holds the frame of this offset, by its number.
    pub(crate) fn find(&self, offset: Offset) -> Option<usize> {
        let first = self.chunks.front()?;
        if offset < first.base_offset {
            return None;
        }
        let at = self.chunks.partition_point(|chunk| chunk.next_offset <= offset);
        (at < self.chunks.len()).then_some(at)
    }

    /// The chunk that holds the frame at this position.
    pub(crate) fn at_position(&self, sequence: ExtentSequence, position: u32) -> Option<&Chunk> {
        let at =
            self.chunks.partition_point(|chunk| (chunk.extent.sequence, chunk.to) <= (sequence, position));
        let chunk = self.chunks.get(at)?;
        (chunk.extent.sequence == sequence && chunk.from <= position).then_some(chunk)
    }

    /// The position from which on the frames of an extent are here, unless all of them are in older extents or none is.
    pub(crate) fn first_position(&self, sequence: ExtentSequence) -> Option<u32> {
        self.chunks.front().filter(|first| first.extent.sequence == sequence).map(|first| first.from)
    }

    /// The offset after the last chunk.
    pub(crate) fn end(&self) -> Option<Offset> {
        self.chunks.back().map(|last| last.next_offset)
    }

    /// The index after the last chunk.
    pub(crate) fn end_index(&self) -> Option<LogIndex> {
        self.chunks.back().map(|last| last.next_index)
    }

    /// The chunks, beginning with the last.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().rev()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Chunk> {
        self.chunks.get(at)
    }

    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.memory_bytes).sum()
    }
}

/// The order in which chunks were frozen, and the sum of their sizes.
#[derive(Default, Debug)]
pub(crate) struct CacheBudget {
    queue: VecDeque<(PartitionSlot, u64)>,
    bytes: u64,
    next_id: u64,
    live: usize,
}

/// Entries of the queue that may stand for nothing before it is cleaned up.
const STALE_ENTRIES_MAX: usize = 1024;

impl CacheBudget {
    /// Adds a chunk after the others of its partition. If it holds everything that the last one does, it replaces it.
    pub(crate) fn push(&mut self, slot: PartitionSlot, chunks: &mut Chunks, mut chunk: Chunk) {
        self.bytes += chunk.memory_bytes;
        if let Some(last) = chunks.chunks.back_mut() {
            let contiguous = last.extent.sequence < chunk.extent.sequence
                || last.to == chunk.from
                || last.from == chunk.from;
            assert!(
                contiguous && last.next_offset >= chunk.base_offset,
                "chunks are a contiguous end of the log"
            );
            if last.extent == chunk.extent && last.from >= chunk.from {
                self.bytes -= last.memory_bytes;
                chunk.id = last.id;
                *last = chunk;
                return;
            }
        }
        chunk.id = self.next_id;
        self.next_id += 1;
        self.live += 1;
        self.queue.push_back((slot, chunk.id));
        chunks.chunks.push_back(chunk);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The partition whose chunk is the oldest of all.
    pub(crate) fn oldest(&self) -> Option<(PartitionSlot, u64)> {
        self.queue.front().copied()
    }

    /// Takes the oldest entry off the queue, and its chunk if it is still there. `false`, with nothing changed, if it may not go.
    pub(crate) fn evict(&mut self, chunks: Option<&mut Chunks>, may_go: impl FnOnce(&Chunk) -> bool) -> bool {
        let Some((_, id)) = self.queue.front().copied() else { return false };
        if let Some(chunks) = chunks
            && let Some(first) = chunks.chunks.front()
            && first.id == id
        {
            if !may_go(first) {
                return false;
            }
            self.drop_front(chunks);
        }
        self.queue.pop_front();
        true
    }

    /// Drops the chunks of extents that are freed: all before this place in the chain.
    pub(crate) fn drop_below(&mut self, chunks: &mut Chunks, sequence: ExtentSequence) {
        while chunks.chunks.front().is_some_and(|chunk| chunk.extent.sequence < sequence) {
            self.drop_front(chunks);
        }
    }

    /// Drops all chunks of a partition.
    pub(crate) fn drop_all(&mut self, chunks: &mut Chunks) {
        self.bytes -= chunks.bytes();
        self.live -= chunks.chunks.len();
        chunks.chunks.clear();
    }

    /// Whether so many entries of the queue stand for nothing that it should be cleaned up.
    pub(crate) fn wants_cleaning(&self) -> bool {
        self.queue.len() > 2 * self.live + STALE_ENTRIES_MAX
    }

    /// Keeps the entries for which this is true.
    pub(crate) fn clean(&mut self, is_live: impl Fn(PartitionSlot, u64) -> bool) {
        self.queue.retain(|(slot, id)| is_live(*slot, *id));
    }

    fn drop_front(&mut self, chunks: &mut Chunks) {
        let chunk = chunks.chunks.pop_front().expect("the caller looked");
        self.bytes -= chunk.memory_bytes;
        self.live -= 1;
    }
}

impl Chunks {
    /// Whether a chunk of this number is here.
    pub(crate) fn holds(&self, id: u64) -> bool {
        self.chunks.binary_search_by_key(&id, |chunk| chunk.id).is_ok()
    }
}
