//! Reads from the chunks in memory.

use highwater_protocol::frame::FrameHeader;
use highwater_protocol::ids::Offset;
use zerocopy::FromBytes;

use super::task::hold;
use crate::api::{Cursor, CursorHint, Frames, ReadLimits, ReadResult};
use crate::partition::{Chunk, Partition};

/// Answers a read from frozen chunks alone. Nothing is checked, and only slices that are a small part of a chunk are copied. `None` if the offset is
/// older than the cache.
pub(super) fn read_cached(
    partition: &Partition,
    cursor: Cursor,
    limits: ReadLimits,
    up_to: Offset,
) -> Option<ReadResult> {
    let first = partition.chunks.find(cursor.offset)?;
    let mut frames = Frames { bytes: Vec::new(), memory_bytes: 0, next: cursor };
    let (mut taken, mut largest) = (0, 0);
    let mut at = first;
    while let Some(chunk) = partition.chunks.get(at) {
        let readable = partition.readable_to(partition.extent(chunk.extent)?);
        let end = chunk.data_end.min(readable);
        let mut walk = ChunkWalk { chunk, end, position: chunk.from, offset: chunk.base_offset };
        if at == first {
            walk.skip_to(cursor);
        }
        let (from, mut to) = (walk.position, walk.position);
        let memory_left = limits.memory_bytes_max - frames.memory_bytes;
        let mut bytes_max = limits.bytes_max.saturating_sub(taken);
        if chunk.memory_bytes() > memory_left {
            bytes_max = bytes_max.min(memory_left);
        }
        let whole = chunk.next_offset <= up_to && end == chunk.data_end && (end - from) as usize <= bytes_max;
        let mut done = false;
        if whole && walk.offset < chunk.next_offset {
            to = end;
            walk.position = chunk.to;
            walk.offset = chunk.next_offset;
        } else if walk.offset < chunk.next_offset {
            while let Some((next, bytes, is_batch)) = walk.peek() {
                let some = taken > 0 || to > from;
                if next > up_to || (some && (walk.position - from + bytes) as usize > bytes_max) {
                    break;
                }
                walk.position += bytes;
                walk.offset = next;
                if is_batch {
                    to = walk.position;
                    largest = largest.max(bytes);
                }
            }
            done = walk.offset < chunk.next_offset;
        }
        if to > from {
            let slice = chunk.slice(from, to);
            let Some((bytes, memory_bytes)) = hold(&slice, chunk.memory_bytes(), memory_left) else {
                return Some(ReadResult::NeedsMemory(slice.len()));
            };
            taken += bytes.len();
            frames.memory_bytes += memory_bytes;
            frames.bytes.push(bytes);
            let hint = CursorHint { extent: chunk.extent, position: walk.position, frame_bytes: largest };
            frames.next = Cursor { offset: walk.offset, hint: Some(hint) };
        }
        if done || taken >= limits.bytes_max {
            break;
        }
        at += 1;
    }
    Some(if frames.bytes.is_empty() { ReadResult::AtEnd } else { ReadResult::Frames(frames) })
}

/// Steps over the frames of a chunk. The store wrote them itself, so nothing is checked.
struct ChunkWalk<'a> {
    chunk: &'a Chunk,
    end: u32,
    position: u32,
    offset: Offset,
}

impl ChunkWalk<'_> {
    /// Returns the offset after the current frame, its size, and whether it is a batch.
    fn peek(&self) -> Option<(Offset, u32, bool)> {
        if self.position >= self.end {
            return None;
        }
        let bytes = &self.chunk.buf[(self.position - self.chunk.base) as usize..];
        let (header, _) = FrameHeader::ref_from_prefix(bytes).expect("a chunk holds whole frames");
        let next = Offset(header.next_offset());
        Some((next, header.frame_bytes() as u32, next.0 > header.base_offset.get()))
    }

    /// Advances to the frame that holds the cursor's offset.
    fn skip_to(&mut self, cursor: Cursor) {
        if let Some(hint) = cursor.hint
            && hint.extent == self.chunk.extent
            && (self.chunk.from..self.chunk.to).contains(&hint.position)
        {
            self.position = hint.position;
            self.offset = cursor.offset;
            return;
        }
        while let Some((next, bytes, _)) = self.peek() {
            if next > cursor.offset {
                break;
            }
            self.position += bytes;
            self.offset = next;
        }
    }
}
