//! Reads: from the cache at once, or else from disk. Searches ([`super::find`]) are driven here too.
//!
//! A read or a search is a task that is driven from buffer to buffer until it has its answer; a buffer is a chunk of the cache or the result of a
//! disk read. Between two disk reads anything may happen to the partition. So a task holds no reference to it, only the incarnation of its extent and
//! its position there, and restarts from its offset if that extent is gone.

use std::io;

use bytes::Bytes;
use highwater_protocol::batch::Work;
use highwater_protocol::ids::Offset;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Disk;

use super::Store;
use super::cached::read_cached;
use super::find::find_result;
use super::task::{Answer, Driven, Task, hold};
use crate::api::{
    Cursor, CursorHint, Frames, PartitionSlot, ReadId, ReadLimits, ReadOutcome, ReadResult, StoreEvent,
};
use crate::extent::Entry;
use crate::scan::{Lookup, ReadGoal, Step, View, Wanted, scan_by_index, scan_by_offset};

impl Store {
    /// Reads durable frames below `up_to`, beginning with the batch that holds the cursor's offset: at least one batch, then more while `limits`
    /// allow.
    pub fn read(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        cursor: Cursor,
        limits: ReadLimits,
        up_to: Offset,
    ) -> ReadOutcome {
        let Some(partition) = self.partition(slot) else { return ReadOutcome::Ready(ReadResult::AtEnd) };
        let (log_start, durable_end) = (partition.log_start, partition.durable.offset);
        if partition.faulty && cursor.offset > partition.append_offset {
            return ReadOutcome::Ready(ReadResult::AfterDamage { end: durable_end });
        }
        if cursor.offset < log_start || cursor.offset > partition.append_offset {
            return ReadOutcome::Ready(ReadResult::OutOfRange { log_start, durable_end });
        }
        let up_to = up_to.min(durable_end);
        if cursor.offset >= up_to {
            return ReadOutcome::Ready(ReadResult::AtEnd);
        }
        if let Some(result) = read_cached(partition, cursor, limits, up_to) {
            self.stats.reads_cached += u64::from(!matches!(result, ReadResult::NeedsMemory(_)));
            return ReadOutcome::Ready(result);
        }
        let goal = ReadGoal::Frames { max_bytes: limits.bytes_max.min(limits.memory_bytes_max), up_to };
        let mut task =
            Task { memory_bytes_max: limits.memory_bytes_max, ..Task::new(slot, goal, cursor.offset) };
        if let Some(hint) = cursor.hint
            && partition.extent(hint.extent).is_some()
        {
            task.extent = hint.extent;
            task.cursor.position = hint.position;
            task.frame_bytes = hint.frame_bytes;
        } else if let Some(answer) = task.locate(partition) {
            return ReadOutcome::Ready(self.read_result(slot, answer));
        }
        let id = self.next_read_id();
        let mut work = Work::MAX;
        match self.drive(disk, id, task, &mut work) {
            Driven::Done(answer) => ReadOutcome::Ready(self.read_result(slot, answer)),
            Driven::Reading => ReadOutcome::Pending(id),
            Driven::Paused(_) => unreachable!("a read is not limited in its work"),
        }
    }

    /// Returns whether a read from here needs no disk.
    pub fn is_cached(&self, slot: PartitionSlot, cursor: Cursor) -> bool {
        self.partition(slot).is_some_and(|partition| partition.chunks.find(cursor.offset).is_some())
    }

    pub(super) fn next_read_id(&mut self) -> ReadId {
        self.reads.next += 1;
        ReadId(self.reads.next)
    }

    fn read_result(&self, slot: PartitionSlot, answer: Answer) -> ReadResult {
        match answer {
            Answer::Frames { bytes, memory_bytes, next, extent, position, frame_bytes } => {
                ReadResult::Frames(Frames {
                    bytes: vec![bytes],
                    memory_bytes,
                    next: Cursor { offset: next, hint: Some(CursorHint { extent, position, frame_bytes }) },
                })
            }
            Answer::End | Answer::Deleted => ReadResult::AtEnd,
            Answer::NeedsMemory(bytes) => ReadResult::NeedsMemory(bytes),
            Answer::Damaged { resume_at, .. } => ReadResult::Damaged { resume_at },
            Answer::OutOfRange => match self.partition(slot) {
                Some(p) => ReadResult::OutOfRange { log_start: p.log_start, durable_end: p.durable.offset },
                None => ReadResult::AtEnd,
            },
            Answer::Record(..)
            | Answer::NeedsDecoder(_)
            | Answer::IndexFrames { .. }
            | Answer::Located { .. }
            | Answer::Lost => {
                unreachable!("a read looks for frames by offset")
            }
        }
    }

    /// Handles a completed disk read.
    pub(super) fn on_read(
        &mut self,
        disk: &mut dyn Disk,
        id: ReadId,
        result: io::Result<(AlignedBuf, usize)>,
    ) {
        let mut task = self.reads.take(id);
        let (from, len) = task.reading;
        let answer = match result {
            Ok((buf, filled)) if filled >= len => {
                self.stats.bytes_read += len as u64;
                let valid = len.min((task.read_limit - from) as usize);
                task.read = Some((buf.freeze().slice(..valid), from));
                None
            }
            _ => task.on_unreadable(),
        };
        self.resume_task(disk, id, task, answer);
        self.start_queued_reads(disk);
    }

    /// Continues a task that waited for the disk, unless it already has its answer.
    pub(super) fn resume_task(
        &mut self,
        disk: &mut dyn Disk,
        id: ReadId,
        task: Task,
        answer: Option<Answer>,
    ) {
        if matches!(task.goal, ReadGoal::Index(_)) {
            return self.drive_index(disk, id, task, answer);
        }
        let slot = task.slot;
        if !matches!(task.goal, ReadGoal::Frames { .. }) {
            match answer {
                Some(answer) => {
                    self.push_event(StoreEvent::Searched { id, result: find_result(&answer) });
                }
                // It continues when it has its turn.
                None => self.reads.paused.push_back((id, task)),
            }
            return;
        }
        let mut work = Work::MAX;
        let answer = match answer {
            Some(answer) => answer,
            None => match self.drive(disk, id, task, &mut work) {
                Driven::Done(answer) => answer,
                Driven::Reading => return,
                Driven::Paused(_) => unreachable!("a read is not limited in its work"),
            },
        };
        let event = StoreEvent::Read { id, result: self.read_result(slot, answer) };
        self.push_event(event);
    }

    /// Drives a task until it has its answer, needs the disk, or no work is left.
    pub(super) fn drive(
        &mut self,
        disk: &mut dyn Disk,
        id: ReadId,
        mut task: Task,
        work: &mut Work,
    ) -> Driven {
        loop {
            if let Some(lookup) = &mut task.lookup {
                let Some(found) = lookup.step(work) else { return Driven::Paused(task) };
                if let Some(answer) = task.on_looked_up(found) {
                    return Driven::Done(answer);
                }
            }
            if *work == 0 {
                return Driven::Paused(task);
            }
            let Some(partition) = self.partition(task.slot) else { return Driven::Done(Answer::Deleted) };
            let Some(at) = partition.extent_at(task.extent) else {
                match task.begin_again(partition) {
                    Some(answer) => return Driven::Done(answer),
                    None => continue,
                }
            };
            let limit = partition.readable_to(&partition.extents[at]);
            if task.cursor.position >= limit {
                task.read = None;
                match task.next_extent(partition, at) {
                    Some(answer) => return Driven::Done(answer),
                    None => continue,
                }
            }
            let position = task.cursor.position;
            if let Some((bytes, from)) = task.read.take() {
                let to = from + bytes.len() as u32;
                if (from..to).contains(&position) && position + task.need.max(1) as u32 <= to {
                    let answer = self.look(&mut task, &bytes, from, None, work);
                    if let Some(answer) = answer {
                        return Driven::Done(answer);
                    }
                    // The result of a read is scanned once; what is left of it is read again together with the next bytes.
                    task.read = Some((bytes, from)).filter(|_| !matches!(task.goal, ReadGoal::Frames { .. }));
                    continue;
                }
            }
            if let Some(chunk) = partition.chunks.at_position(task.extent.sequence, position) {
                let (bytes, from) = (chunk.slice(chunk.base, chunk.to), chunk.base);
                let chunk_bytes = Some(chunk.memory_bytes());
                if let Some(answer) = self.look(&mut task, &bytes, from, chunk_bytes, work) {
                    return Driven::Done(answer);
                }
                continue;
            }
            if !partition.extents[at].place.is_some_and(|place| self.space.slabs.contains_key(&place.slab)) {
                // Its slab is missing.
                if matches!(task.goal, ReadGoal::Index(_)) {
                    return Driven::Done(Answer::Lost);
                }
                task.cursor.position = limit;
                task.cursor.searching = true;
                continue;
            }
            return match self.submit_read(disk, id, task) {
                Ok(()) => Driven::Reading,
                Err(memory_bytes) => Driven::Done(Answer::NeedsMemory(memory_bytes)),
            };
        }
    }

    /// Scans bytes of the task's extent from this position on: the result of a disk read, or a chunk of the cache, which uses `chunk_bytes` of
    /// memory. `None`: continue.
    fn look(
        &mut self,
        task: &mut Task,
        bytes: &Bytes,
        from: u32,
        chunk_bytes: Option<usize>,
        work: &mut Work,
    ) -> Option<Answer> {
        let to = from + bytes.len() as u32;
        let interval = self.config.limits.index_interval_bytes;
        let macs = self.macs.of(task.extent.incarnation);
        let partition = self.partition_mut(task.slot)?;
        let tag = partition.tag;
        let at = partition.extent_at(task.extent)?;
        let limit = partition.readable_to(&partition.extents[at]);
        let offsets = partition.readable_offsets(&partition.extents[at]);
        let extent = &mut partition.extents[at];
        let has_gaps = extent.has_gaps;
        let mut note = |entry: Entry| extent.note_entry(entry, interval);
        let (incarnation, is_chunk) = (task.extent.incarnation, chunk_bytes.is_some());
        let view = View { bytes, from, limit, offsets, incarnation, tag, macs, has_gaps, is_chunk };
        task.need = 0;
        task.behind = None;
        let step = match &task.goal {
            ReadGoal::Index(goal) => scan_by_index(goal, &mut task.cursor, &view, &mut note),
            goal => scan_by_offset(goal, &mut task.cursor, &view, &mut note, work),
        };
        match step {
            Step::Frames { bytes: frames, next, frame_bytes_max } => {
                let whole_bytes = chunk_bytes.unwrap_or(AlignedBuf::memory_bytes_for(bytes.len()));
                let Some((bytes, memory_bytes)) = hold(&frames, whole_bytes, task.memory_bytes_max) else {
                    return Some(Answer::NeedsMemory(frames.len()));
                };
                Some(Answer::Frames {
                    bytes,
                    memory_bytes,
                    next,
                    extent: task.extent,
                    position: task.cursor.position,
                    frame_bytes: frame_bytes_max,
                })
            }
            Step::LookInto(frame) => {
                let (wanted, log_start) = match task.goal {
                    ReadGoal::Time { at, log_start } => (Wanted::Since(at), log_start),
                    ReadGoal::Latest { log_start, .. } => (Wanted::Latest, log_start),
                    ReadGoal::Frames { .. } | ReadGoal::Index(_) => unreachable!("a read takes whole frames"),
                };
                // The buffer of a disk read is held anyway. A chunk may be dropped from the cache meanwhile.
                let held = match chunk_bytes {
                    Some(bytes) => hold(&frame, bytes, task.memory_bytes_max).map(|(frame, _)| frame),
                    None => Some(frame.clone()),
                };
                let Some(held) = held else { return Some(Answer::NeedsMemory(frame.len())) };
                task.lookup = Some(Lookup::new(held, wanted, log_start, task.decoder_bytes_max));
                None
            }
            Step::IndexFrames { bytes: frames, next } => {
                let whole_bytes = chunk_bytes.unwrap_or(AlignedBuf::memory_bytes_for(bytes.len()));
                let Some((bytes, memory_bytes)) = hold(&frames, whole_bytes, task.memory_bytes_max) else {
                    return Some(Answer::NeedsMemory(frames.len()));
                };
                let (extent, position) = (task.extent, task.cursor.position);
                Some(Answer::IndexFrames { bytes, memory_bytes, next, extent, position })
            }
            Step::Located { offset } => Some(task.located(offset)),
            Step::Lost => Some(Answer::Lost),
            Step::End => Some(Answer::End),
            Step::Damaged { resume_at } => Some(task.damaged(resume_at)),
            Step::More { bytes, behind } => {
                assert!(task.cursor.position + bytes as u32 > to, "what is here has been looked at");
                task.need = bytes;
                task.behind = behind;
                None
            }
            Step::EndOfExtent => {
                task.cursor.position = limit;
                None
            }
            Step::Again => None,
        }
    }
}
