//! Reads by index: the frames that another replica lacks.
//!
//! Frames that are not durable are read from the chunks of the tail cache. A chunk is what a commit round takes: it never changes, and its frames
//! stay in the log unless a crash loses them, or the log is cut off there.

use highwater_protocol::batch::Work;
use highwater_protocol::frame::{FrameHeader, FrameKind};
use highwater_protocol::ids::LogIndex;
use highwater_runtime::plane::Disk;
use zerocopy::FromBytes as _;

use super::Store;
use super::task::{Answer, Driven, Task, hold};
use crate::api::{
    CursorHint, IndexCursor, IndexRead, IndexReadOutcome, PartitionSlot, ReadId, ReadLimits, StoreEvent,
};
use crate::extent::FIRST_POSITION;
use crate::partition::{Chunk, Partition};
use crate::scan::{IndexGoal, IndexReader, ReadGoal, Take};

impl Store {
    /// Returns whether the frame with this index, or the frames just before it, are in memory: a read from there begins without the disk.
    pub fn is_index_cached(&self, slot: PartitionSlot, index: LogIndex) -> bool {
        let Some(partition) = self.partition(slot) else { return false };
        if index >= partition.durable.index {
            return true;
        }
        let at = partition.extents.partition_point(|extent| extent.end_index <= index);
        partition.extents.get(at).is_some_and(|extent| {
            let entry = extent.index.floor_of_index(index);
            let position = entry.map_or(FIRST_POSITION, |entry| entry.position);
            partition.chunks.at_position(extent.sequence, position).is_some()
        })
    }

    /// Returns the index after the last frame that may be sent to another replica: commit rounds have taken all frames before it.
    pub fn frozen_index(&self, slot: PartitionSlot) -> LogIndex {
        self.partition(slot).map_or(LogIndex(0), |partition| {
            partition.chunks.end_index().unwrap_or(LogIndex(0)).max(partition.durable.index)
        })
    }

    /// Reads frames for another replica, beginning at an index: durable ones like [`read_from_index`](Self::read_from_index), and after them those that
    /// commit rounds have taken, from memory. A read ends where these begin.
    pub fn read_for_replica(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        cursor: IndexCursor,
        limits: ReadLimits,
    ) -> IndexReadOutcome {
        match self.partition(slot) {
            Some(partition) if (partition.durable.index..=partition.append_index).contains(&cursor.index) => {
                IndexReadOutcome::Ready(read_frozen(partition, cursor.index, limits))
            }
            _ => self.read_from_index(disk, slot, cursor, limits, LogIndex(u64::MAX)),
        }
    }

    /// Reads durable frames of every kind below `up_to`, beginning at an index: at least one, then more while `limits` allow.
    pub fn read_from_index(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        cursor: IndexCursor,
        limits: ReadLimits,
        up_to: LogIndex,
    ) -> IndexReadOutcome {
        let Some(partition) = self.partition(slot) else { return IndexReadOutcome::Ready(IndexRead::AtEnd) };
        let (first, end) = (partition.first_index(), partition.durable.index);
        if cursor.index < first || cursor.index > partition.append_index {
            return IndexReadOutcome::Ready(IndexRead::OutOfRange { first, end });
        }
        let up_to = up_to.min(end);
        if cursor.index >= up_to {
            return IndexReadOutcome::Ready(IndexRead::AtEnd);
        }
        let (id, answer) = self.begin_index_read(disk, slot, cursor, limits, up_to, IndexReader::Owner);
        match answer {
            Some(answer) => IndexReadOutcome::Ready(self.index_result(slot, answer)),
            None => IndexReadOutcome::Pending(id),
        }
    }

    /// Begins a read of frames below `up_to`, which are durable. An answer, if it does not have to wait for the disk.
    pub(super) fn begin_index_read(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        cursor: IndexCursor,
        limits: ReadLimits,
        up_to: LogIndex,
        reader: IndexReader,
    ) -> (ReadId, Option<Answer>) {
        let id = self.next_read_id();
        let Some(partition) = self.partition(slot) else { return (id, Some(Answer::Deleted)) };
        let take = Take { max_bytes: limits.bytes_max.min(limits.memory_bytes_max), up_to, reader };
        let goal = ReadGoal::Index(IndexGoal { index: cursor.index, take: Some(take) });
        let mut task =
            Task { memory_bytes_max: limits.memory_bytes_max, ..Task::new(slot, goal, partition.log_start) };
        if let Some(hint) = cursor.hint
            && partition.extent(hint.extent).is_some()
        {
            task.extent = hint.extent;
            task.cursor.position = hint.position;
        } else if let Some(answer) = task.locate(partition) {
            return (id, Some(answer));
        }
        match self.drive(disk, id, task, &mut Work::MAX.clone()) {
            Driven::Done(answer) => (id, Some(answer)),
            Driven::Reading => (id, None),
            Driven::Paused(_) => unreachable!("a read is not limited in its work"),
        }
    }

    fn index_result(&self, slot: PartitionSlot, answer: Answer) -> IndexRead {
        match answer {
            Answer::IndexFrames { bytes, memory_bytes, next, extent, position } => IndexRead::Frames {
                bytes,
                memory_bytes,
                next: IndexCursor {
                    index: next,
                    hint: Some(CursorHint { extent, position, frame_bytes: 0 }),
                },
            },
            Answer::NeedsMemory(bytes) => IndexRead::NeedsMemory(bytes),
            Answer::OutOfRange => match self.partition(slot) {
                Some(p) => IndexRead::OutOfRange { first: p.first_index(), end: p.durable.index },
                None => IndexRead::AtEnd,
            },
            Answer::Lost | Answer::Damaged { .. } => IndexRead::Damaged,
            Answer::End | Answer::Deleted => IndexRead::AtEnd,
            Answer::Frames { .. } | Answer::Record(..) | Answer::NeedsDecoder(_) | Answer::Located { .. } => {
                unreachable!("a read by index looks for frames by index")
            }
        }
    }

    /// Handles a completed disk read of a task that reads by index. It continues, or has this answer.
    pub(super) fn drive_index(&mut self, disk: &mut dyn Disk, id: ReadId, task: Task, known: Option<Answer>) {
        let (slot, reader) = (task.slot, task.index_reader());
        let answer = match known {
            Some(answer) => answer,
            None => match self.drive(disk, id, task, &mut Work::MAX.clone()) {
                Driven::Done(answer) => answer,
                Driven::Reading => return,
                Driven::Paused(_) => unreachable!("a read is not limited in its work"),
            },
        };
        match reader {
            Some(IndexReader::Owner) => {
                let result = self.index_result(slot, answer);
                self.push_event(StoreEvent::ReadByIndex { id, result });
            }
            Some(IndexReader::Rewrite) => self.on_rewrite_read(id, answer),
            None => self.on_located(slot, id, &answer),
        }
    }
}

/// Reads frames from the chunk in memory that has the one with an index.
fn read_frozen(partition: &Partition, index: LogIndex, limits: ReadLimits) -> IndexRead {
    let first_index = |chunk: &Chunk| header_at(chunk, chunk.from).map(|header| LogIndex(header.index.get()));
    let mut chunks = partition.chunks.newest_first();
    let chunk = chunks.find(|chunk| first_index(chunk).is_some_and(|first| first <= index));
    let Some(chunk) = chunk.filter(|chunk| index < chunk.next_index) else {
        return IndexRead::AtEnd;
    };
    let (mut begin, mut end, mut next) = (chunk.from, chunk.from, index);
    while let Some(header) = header_at(chunk, end) {
        let (at, frame_end) = (LogIndex(header.index.get()), end + header.frame_bytes() as u32);
        let is_too_much = next > index && (frame_end - begin) as usize > limits.bytes_max;
        if is_too_much {
            break;
        }
        end = frame_end;
        if at < index {
            begin = end;
        } else if header.kind != FrameKind::Padding as u8 {
            next = at.next();
        }
    }
    let frames = chunk.slice(begin, end);
    match hold(&frames, chunk.memory_bytes(), limits.memory_bytes_max) {
        Some((bytes, memory_bytes)) => IndexRead::Frames { bytes, memory_bytes, next: IndexCursor::at(next) },
        None => IndexRead::NeedsMemory(frames.len()),
    }
}

/// Returns the header of the frame at a position of a chunk. The store wrote it itself, so nothing is checked.
fn header_at(chunk: &Chunk, position: u32) -> Option<&FrameHeader> {
    let bytes = chunk.buf.get((position - chunk.base) as usize..(chunk.data_end - chunk.base) as usize)?;
    FrameHeader::ref_from_prefix(bytes).ok().map(|(header, _)| header)
}
