//! One read or search that goes through a partition's extents: its position, its next need, and its answer.

use bytes::Bytes;
use highwater_protocol::ids::{ExtentSequence, Incarnation, LogIndex, Offset, Timestamp};
use highwater_runtime::buf::AlignedBuf;

use crate::api::{PartitionSlot, SearchMemory};
use crate::extent::{Entry, Extent, FIRST_POSITION, NO_TIMESTAMP};
use crate::layout::PAGE_BYTES;
use crate::limits::HELD_BYTES_PER_BYTE_MAX;
use crate::partition::Partition;
use crate::position::ExtentRef;
use crate::scan::{IndexGoal, IndexReader, Lookup, LookupResult, ReadGoal, ScanCursor};

/// Frames of a read up to which it is cut to whole ones of the size seen before. With more, what is read twice is a small part.
const WHOLE_FRAMES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Task {
    pub(super) slot: PartitionSlot,
    pub(super) goal: ReadGoal,
    /// Bytes of memory that one disk read may use.
    pub(super) memory_bytes_max: usize,
    /// Bytes of memory that the decoder of a search may use.
    pub(super) decoder_bytes_max: usize,
    pub(super) cursor: ScanCursor,
    /// The extent it is in.
    pub(super) extent: ExtentRef,
    /// Bytes that the next scan needs at least.
    pub(super) need: usize,
    /// The offset after the frame that it needs them for, if known.
    pub(super) behind: Option<Offset>,
    /// Size of the last scanned frames.
    pub(super) frame_bytes: u32,
    /// Reads are cut to this after one failed.
    pub(super) cautious: Option<usize>,
    /// The read in flight: position and length.
    pub(super) reading: (u32, usize),
    /// What it reads from this position on may not be in the extent yet.
    pub(super) read_limit: u32,
    /// Bytes that were read and not scanned yet, with their position. Only a search keeps them.
    pub(super) read: Option<(Bytes, u32)>,
    /// The batch that is being searched.
    pub(super) lookup: Option<Lookup>,
    /// How often a search for the largest timestamp may begin again.
    pub(super) latest_tries: u8,
}

/// How a drive of a task ended.
#[expect(clippy::large_enum_variant, reason = "taken apart where it is returned")]
pub(super) enum Driven {
    Done(Answer),
    /// It waits for the disk.
    Reading,
    /// The allowed work is done.
    Paused(Task),
}

/// The answer of a task.
pub(super) enum Answer {
    Frames {
        bytes: Bytes,
        memory_bytes: usize,
        next: Offset,
        extent: ExtentRef,
        position: u32,
        frame_bytes: u32,
    },
    NeedsMemory(usize),
    NeedsDecoder(usize),
    Record(Offset, Timestamp),
    /// Frames that were requested by index.
    IndexFrames {
        bytes: Bytes,
        memory_bytes: usize,
        next: LogIndex,
        extent: ExtentRef,
        position: u32,
    },
    /// The position of the frame with an index, and the largest timestamp before it in its extent if that is known.
    Located {
        extent: ExtentRef,
        position: u32,
        offset: Offset,
        max_timestamp: Option<i64>,
    },
    /// The frame with this index is lost.
    Lost,
    End,
    OutOfRange,
    /// The record at an offset is lost. The next offset that can be read.
    Damaged {
        at: Offset,
        resume_at: Offset,
    },
    Deleted,
}

impl Task {
    pub(super) fn new(slot: PartitionSlot, goal: ReadGoal, offset: Offset) -> Self {
        Self {
            slot,
            goal,
            memory_bytes_max: usize::MAX,
            decoder_bytes_max: usize::MAX,
            cursor: ScanCursor {
                offset,
                position: FIRST_POSITION,
                searching: false,
                found: None,
                max_timestamp: None,
                latest: NO_TIMESTAMP,
            },
            extent: ExtentRef { sequence: ExtentSequence(0), incarnation: Incarnation(0) },
            need: 0,
            behind: None,
            frame_bytes: 0,
            cautious: None,
            reading: (0, 0),
            read_limit: 0,
            read: None,
            lookup: None,
            latest_tries: 0,
        }
    }

    /// A search in this memory.
    pub(super) fn searching(
        slot: PartitionSlot,
        goal: ReadGoal,
        offset: Offset,
        SearchMemory { buffer_bytes_max, decoder_bytes_max }: SearchMemory,
    ) -> Self {
        Self { memory_bytes_max: buffer_bytes_max, decoder_bytes_max, ..Self::new(slot, goal, offset) }
    }

    /// Handles the result of a search in a batch. Returns an answer if the task ends with it.
    pub(super) fn on_looked_up(&mut self, found: LookupResult) -> Option<Answer> {
        self.lookup = None;
        match found {
            LookupResult::Record(offset, timestamp) => return Some(Answer::Record(offset, timestamp)),
            LookupResult::Latest(latest) => {
                let latest = latest.map_or(NO_TIMESTAMP, |latest| latest.0);
                self.cursor.latest = self.cursor.latest.max(latest);
            }
            LookupResult::Nothing => {}
            LookupResult::NeedsDecoder(bytes) => return Some(Answer::NeedsDecoder(bytes)),
        }
        None
    }

    /// Restarts from its offset, because its extent is gone. Returns an answer if nothing is left to read.
    pub(super) fn begin_again(&mut self, partition: &Partition) -> Option<Answer> {
        self.read = None;
        if self.cursor.offset < partition.log_start {
            match &mut self.goal {
                ReadGoal::Index(_) => {}
                ReadGoal::Frames { .. } => return Some(Answer::OutOfRange),
                ReadGoal::Time { log_start, .. } | ReadGoal::Latest { log_start, .. } => {
                    *log_start = partition.log_start;
                }
            }
            self.cursor.offset = partition.log_start;
        }
        self.locate(partition)
    }

    /// Moves to the extent, and to the nearest known frame before the goal. Returns an answer if there is no such extent.
    pub(super) fn locate(&mut self, partition: &Partition) -> Option<Answer> {
        if let ReadGoal::Index(goal) = self.goal {
            return self.locate_index(partition, goal);
        }
        let first = partition.extents.partition_point(|extent| extent.end_offset <= self.cursor.offset);
        self.enter(partition, first)
    }

    /// Enters the first extent from this one on that can hold the goal. Returns an answer if there is none, or if records before the goal are lost.
    fn enter(&mut self, partition: &Partition, first: usize) -> Option<Answer> {
        let mut reached = self.cursor.offset;
        let is_readable = |extent: &&Extent| extent.sequence <= partition.durable.sequence;
        for extent in partition.extents.iter().skip(first).take_while(is_readable) {
            let offsets = partition.readable_offsets(extent);
            if offsets.start > reached {
                self.cursor.offset = reached;
                return Some(self.damaged(offsets.start));
            }
            let is_late_enough = match self.goal {
                ReadGoal::Frames { .. } | ReadGoal::Index(_) | ReadGoal::Latest { is_exact: true, .. } => {
                    offsets.end > self.cursor.offset
                }
                ReadGoal::Time { at, .. } => {
                    extent.max_timestamp != NO_TIMESTAMP && extent.max_timestamp >= at.0
                }
                ReadGoal::Latest { .. } => extent.max_timestamp > self.cursor.latest,
            };
            if is_late_enough {
                self.enter_extent(partition, extent);
                return None;
            }
            reached = reached.max(offsets.end);
        }
        if reached < partition.durable.offset {
            self.cursor.offset = reached;
            return Some(self.damaged(partition.durable.offset));
        }
        self.go_back(partition)
    }

    fn enter_extent(&mut self, partition: &Partition, extent: &Extent) {
        if !matches!(self.goal, ReadGoal::Frames { .. }) {
            self.cursor.offset = self.cursor.offset.max(extent.base_offset);
        }
        let mut entry = extent.index.floor_of_offset(self.cursor.offset);
        let later = match self.goal {
            ReadGoal::Frames { .. } | ReadGoal::Index(_) | ReadGoal::Latest { is_exact: true, .. } => None,
            ReadGoal::Time { at, .. } => extent.index.floor_of_timestamp(at.0),
            ReadGoal::Latest { log_start, .. } if extent.base_offset < log_start => None,
            ReadGoal::Latest { .. } => {
                let last = extent.index.floor_of_position(partition.readable_to(extent));
                let before = last.map_or(NO_TIMESTAMP, |entry| entry.max_timestamp_before);
                self.cursor.latest = self.cursor.latest.max(before);
                last
            }
        };
        if let Some(later) = later {
            entry = entry.max_by_position(Some(later));
            self.cursor.offset =
                entry.map_or(self.cursor.offset, |entry| self.cursor.offset.max(entry.offset));
        }
        self.go_to(extent, entry);
    }

    /// Moves to the frame with the requested index. Returns an answer if it is not here.
    fn locate_index(&mut self, partition: &Partition, goal: IndexGoal) -> Option<Answer> {
        let at = partition.extents.partition_point(|extent| extent.end_index <= goal.index);
        let Some(extent) = partition.extents.get(at).filter(|_| goal.index < partition.durable.index) else {
            return Some(Answer::End);
        };
        if goal.index < extent.base_index {
            return Some(if at == 0 { Answer::OutOfRange } else { Answer::Lost });
        }
        self.go_to(extent, extent.index.floor_of_index(goal.index));
        None
    }

    /// Continues with the next extent, in a search by index.
    fn next_by_index(&mut self, partition: &Partition, at: usize, goal: IndexGoal) -> Option<Answer> {
        let extent = &partition.extents[at];
        let is_last = extent.sequence == partition.durable.sequence;
        let end = if is_last { partition.durable.index } else { extent.end_index };
        if goal.index < end {
            // The last frames of a rewritten extent may be missing, unless something else was found in their place.
            if !extent.has_gaps || self.cursor.searching {
                return Some(Answer::Lost);
            }
            self.goal = ReadGoal::Index(IndexGoal { index: end, ..goal });
        }
        let next = partition.extents.get(at + 1).filter(|next| next.sequence <= partition.durable.sequence);
        let Some(next) = next else { return Some(Answer::End) };
        self.go_to(next, None);
        None
    }

    /// Moves to an entry of an extent, or to its first frame.
    fn go_to(&mut self, extent: &Extent, entry: Option<Entry>) {
        self.extent = extent.reference();
        self.cursor.position = entry.map_or(FIRST_POSITION, |entry| entry.position);
        self.cursor.max_timestamp = Some(entry.map_or(NO_TIMESTAMP, |entry| entry.max_timestamp_before));
        self.cursor.searching = false;
        self.cursor.found = None;
        self.need = 0;
    }

    /// Returns who wants the frames that the task reads by index. `None`: it only looks for their position.
    pub(super) fn index_reader(&self) -> Option<IndexReader> {
        match self.goal {
            ReadGoal::Index(goal) => goal.take.map(|take| take.reader),
            _ => None,
        }
    }

    /// The task is at the frame with the requested index.
    pub(super) fn located(&self, offset: Offset) -> Answer {
        let (position, max_timestamp) = (self.cursor.position, self.cursor.max_timestamp);
        Answer::Located { extent: self.extent, position, offset, max_timestamp }
    }

    /// The task is at the end. If it searches for the largest timestamp, it goes back to the record that has it. If no record has it, that one was
    /// removed meanwhile, or a header said too much: then it searches again.
    fn go_back(&mut self, partition: &Partition) -> Option<Answer> {
        let log_start = partition.log_start;
        self.goal = match self.goal {
            // A record without a timestamp does not have the largest one.
            ReadGoal::Latest { .. } if self.cursor.latest >= 0 => {
                ReadGoal::Time { at: Timestamp(self.cursor.latest), log_start }
            }
            ReadGoal::Time { .. } if self.latest_tries > 0 => {
                self.latest_tries -= 1;
                self.cursor.latest = NO_TIMESTAMP;
                ReadGoal::Latest { log_start, is_exact: true }
            }
            _ => return Some(Answer::End),
        };
        self.cursor.offset = log_start;
        self.locate(partition)
    }

    /// Continues after the extent of this number. Returns an answer if there is nothing, or if records are lost between here and there.
    pub(super) fn next_extent(&mut self, partition: &Partition, at: usize) -> Option<Answer> {
        if let ReadGoal::Index(goal) = self.goal {
            return self.next_by_index(partition, at, goal);
        }
        let end = partition.readable_offsets(&partition.extents[at]).end;
        if partition.extents[at].has_gaps && !self.cursor.searching {
            // The last records may be missing.
            self.cursor.offset = self.cursor.offset.max(end);
        }
        if self.cursor.offset < end {
            // Whatever its last bytes were taken for, this extent held more records.
            let found = self.cursor.found.map(|(found, _)| found);
            return Some(self.damaged(found.unwrap_or(end)));
        }
        self.enter(partition, at + 1)
    }

    /// The next records are lost, up to this offset.
    pub(super) fn damaged(&self, resume_at: Offset) -> Answer {
        let at = self.cursor.offset;
        let resume_at = match self.goal {
            ReadGoal::Frames { up_to, .. } => resume_at.min(up_to),
            ReadGoal::Time { .. } | ReadGoal::Latest { .. } | ReadGoal::Index(_) => resume_at,
        };
        assert!(resume_at > at, "damage leads forward: from {at} to {resume_at}");
        Answer::Damaged { at, resume_at }
    }

    /// A read failed: retries with a shorter one, then skips the unreadable bytes.
    pub(super) fn on_unreadable(&mut self) -> Option<Answer> {
        let (from, len) = self.reading;
        let least = self.least_bytes(from);
        if len > least {
            self.cautious = Some((len / 2).next_multiple_of(PAGE_BYTES).max(least).min(len - PAGE_BYTES));
            return None;
        }
        if matches!(self.goal, ReadGoal::Index(_)) {
            return Some(Answer::Lost);
        }
        if let Some(behind) = self.behind {
            return Some(self.damaged(behind));
        }
        tracing::warn!(slot = ?self.slot.0, offset = self.cursor.offset.0, "a page of the log cannot be read");
        self.cursor.searching = true;
        self.cursor.position = from + len as u32;
        self.need = 0;
        None
    }

    /// Returns the length of the shortest useful read from here.
    fn least_bytes(&self, from: u32) -> usize {
        ((self.cursor.position - from) as usize + self.need.max(1)).next_multiple_of(PAGE_BYTES)
    }

    /// Returns the position and length of the next read. Fails with the memory that it would need if that exceeds the limit. `cached_from`: the
    /// position from which on the cache has the extent's frames.
    pub(super) fn range(
        &self,
        extent: &Extent,
        limit: u32,
        cached_from: Option<u32>,
        read_bytes_max: usize,
    ) -> Result<(u32, usize), usize> {
        let position = self.cursor.position;
        let from = position - position % PAGE_BYTES as u32;
        let least = self.least_bytes(from);
        let fits = AlignedBuf::bytes_within(self.memory_bytes_max);
        if least > fits {
            return Err(AlignedBuf::memory_bytes_for(least));
        }
        // What memory has is not read from disk. After damage, frames are looked for wherever they may be.
        let is_orderly = self.cautious.is_none() && !self.cursor.searching;
        let cached_from = cached_from.filter(|cached| is_orderly && *cached > position);
        let most = (limit - from) as usize;
        let wanted = self.wanted_bytes((position - from) as usize, read_bytes_max);
        let to = from + wanted.min(most).min(fits) as u32;
        // Ends at a frame boundary if one is known: half a frame would be read twice.
        let boundary = match cached_from.filter(|cached| *cached <= to) {
            Some(cached) => Some(cached),
            None if self.cautious.is_some() => None,
            None => match extent.index.last_within(position, to) {
                // The entries of an index that was not filled yet may lie far apart.
                Some(boundary) => Some(boundary).filter(|boundary| (boundary - from) as usize >= wanted / 2),
                None => extent.index.next_after(position),
            },
        };
        let len = (boundary.unwrap_or(to) - from) as usize;
        let len = len.max(least).min(most).next_multiple_of(PAGE_BYTES);
        Ok((from, len.min(fits)))
    }

    /// Returns the bytes that the next read should have, from the page of the cursor's position on, which is `before` bytes into it.
    fn wanted_bytes(&self, before: usize, read_bytes_max: usize) -> usize {
        let ReadGoal::Frames { max_bytes, .. } = self.goal else {
            return self.cautious.unwrap_or(read_bytes_max);
        };
        match self.cautious {
            Some(bytes) => bytes,
            None if self.cursor.max_timestamp.is_some() => read_bytes_max,
            // Reading continues where a read ended: as much as is requested, or one frame of the size seen there.
            None => {
                let bytes = max_bytes.min(read_bytes_max);
                let frame_bytes = self.frame_bytes as usize;
                let stride = frame_bytes.max(1).next_multiple_of(PAGE_BYTES);
                match bytes.saturating_sub(before) / stride {
                    0 => bytes.max(before + frame_bytes),
                    // Large frames are read whole, if they are as large as those before.
                    frames if frames <= WHOLE_FRAMES_MAX => before + frames * stride,
                    _ => bytes,
                }
            }
        }
    }
}

trait MaxByPosition {
    fn max_by_position(self, other: Self) -> Self;
}

impl MaxByPosition for Option<Entry> {
    fn max_by_position(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|entry| entry.position)
    }
}

/// Returns frames out of a buffer or chunk that uses `whole_bytes` of memory, and the memory that they hold. They are copied if they are a small part
/// of it, or if all of it exceeds the limit. `None` if they exceed `memory_bytes_max` even so.
pub(super) fn hold(frames: &Bytes, whole_bytes: usize, memory_bytes_max: usize) -> Option<(Bytes, usize)> {
    if whole_bytes <= memory_bytes_max && whole_bytes <= HELD_BYTES_PER_BYTE_MAX * frames.len() {
        Some((frames.clone(), whole_bytes))
    } else if frames.len() <= memory_bytes_max {
        Some((Bytes::copy_from_slice(frames), frames.len()))
    } else {
        None
    }
}
