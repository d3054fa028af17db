//! Reading: from the cache at once, else from disk. Searches ([`super::find`]) are driven here too.
//!
//! A read or search is a task that is driven from buffer to buffer, be it a chunk of the cache or what a disk read brought, until
//! it knows its answer. Between two disk reads anything may happen to the partition; a task holds no reference to it, only
//! the life of the extent and the position it is at, and begins again from its offset when that extent is gone.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use bytes::Bytes;
use highwater_protocol::batch::Work;
use highwater_protocol::ids::{Incarnation, LeaderEpoch, Offset, Timestamp};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Disk;

use super::Store;
use super::cached::read_cached;
use super::find::find_result;
use super::round::Op;
use crate::api::{Cursor, CursorHint, Frames, ReadId, ReadLimits, ReadOutcome, ReadResult, Slot, StoreEvent};
use crate::examine::{Goal, Scout, Step, View, examine};
use crate::extent::{Extent, FIRST_POSITION, NO_TIMESTAMP};
use crate::index::Entry;
use crate::layout::PAGE_BYTES;
use crate::limits::HELD_BYTES_PER_BYTE_MAX;
use crate::lookup::{Found, Lookup, Wanted};
use crate::partition::Partition;

/// Reads that wait for the disk.
#[derive(Default, Debug)]
pub(super) struct Reads {
    tasks: BTreeMap<ReadId, Task>,
    /// Searches that can go on, in turns.
    pub(super) paused: VecDeque<(ReadId, Task)>,
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) struct Task {
    slot: Slot,
    goal: Goal,
    /// Bytes of memory that one disk read may take.
    memory_bytes_max: usize,
    pub(super) scout: Scout,
    /// The extent it is in.
    incarnation: Incarnation,
    /// How many bytes the next look needs at least.
    need: usize,
    /// The offset behind the frame it needs them for, if known.
    behind: Option<Offset>,
    /// Size of the frames seen last.
    frame_bytes: u32,
    /// Reads are cut to this after one failed.
    cautious: Option<usize>,
    /// What is being read: position and length.
    reading: (u32, usize),
    /// What was read and not looked through yet: the bytes and their position. Only a search keeps them.
    read: Option<(Bytes, u32)>,
    /// A batch that is being looked into.
    lookup: Option<Lookup>,
}

/// How far a task was driven.
#[expect(clippy::large_enum_variant, reason = "taken apart where it is returned")]
pub(super) enum Driven {
    Done(Answer),
    /// It waits for the disk.
    Reading,
    /// The work that was allowed is done.
    Paused(Task),
}

/// The answer of a task.
pub(super) enum Answer {
    Frames {
        bytes: Bytes,
        memory_bytes: usize,
        next: Offset,
        incarnation: Incarnation,
        position: u32,
        frame_bytes: u32,
    },
    NeedsMemory(usize),
    Record(Offset, Timestamp),
    End,
    OutOfRange,
    /// What is at an offset is lost, and the next offset that can be read.
    Damaged {
        at: Offset,
        resume_at: Offset,
    },
    Deleted,
}

impl Store {
    /// Reads durable frames from the batch that holds the cursor's offset on, below `up_to`: at least one batch, then while `limits` allow.
    pub fn read(
        &mut self,
        disk: &mut dyn Disk,
        slot: Slot,
        cursor: Cursor,
        limits: ReadLimits,
        up_to: Offset,
    ) -> ReadOutcome {
        let Some(partition) = self.partition(slot) else { return ReadOutcome::Ready(ReadResult::AtEnd) };
        let (log_start, durable_end) = (partition.log_start, partition.durable.offset);
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
        let goal = Goal::Frames { max_bytes: limits.bytes_max.min(limits.memory_bytes_max), up_to };
        let mut task =
            Task { memory_bytes_max: limits.memory_bytes_max, ..Task::new(slot, goal, cursor.offset) };
        if let Some(hint) = cursor.hint
            && partition.extent(hint.incarnation).is_some()
        {
            task.incarnation = hint.incarnation;
            task.scout.position = hint.position;
            task.frame_bytes = hint.frame_bytes;
        } else if let Some(answer) = task.locate(partition) {
            return ReadOutcome::Ready(self.read_result(slot, answer));
        }
        self.reads.next += 1;
        let id = ReadId(self.reads.next);
        let mut work = Work::MAX;
        match self.drive(disk, id, task, &mut work) {
            Driven::Done(answer) => ReadOutcome::Ready(self.read_result(slot, answer)),
            Driven::Reading => ReadOutcome::Pending(id),
            Driven::Paused(_) => unreachable!("a read is not limited in its work"),
        }
    }

    /// Whether a read from here is answered from memory alone.
    pub fn is_cached(&self, slot: Slot, cursor: Cursor) -> bool {
        self.partition(slot).is_some_and(|partition| partition.chunks.find(cursor.offset).is_some())
    }

    /// The largest epoch up to `epoch` that the log knows, and where it ends: none, if no newer one has begun. An epoch begins with an
    /// extent.
    pub fn epoch_end(&self, slot: Slot, epoch: LeaderEpoch) -> (LeaderEpoch, Option<Offset>) {
        let Some(partition) = self.partition(slot) else { return (epoch, None) };
        let newer = partition.extents.partition_point(|extent| extent.leader_epoch <= epoch);
        let last = newer.checked_sub(1).and_then(|at| partition.extents.get(at));
        let end = partition.extents.get(newer).map(|extent| extent.base_offset);
        (last.map_or(epoch, |extent| extent.leader_epoch), end)
    }

    fn read_result(&self, slot: Slot, answer: Answer) -> ReadResult {
        match answer {
            Answer::Frames { bytes, memory_bytes, next, incarnation, position, frame_bytes } => {
                ReadResult::Frames(Frames {
                    bytes: vec![bytes],
                    memory_bytes,
                    next: Cursor {
                        offset: next,
                        hint: Some(CursorHint { incarnation, position, frame_bytes }),
                    },
                })
            }
            Answer::End | Answer::Deleted => ReadResult::AtEnd,
            Answer::NeedsMemory(bytes) => ReadResult::NeedsMemory(bytes),
            Answer::Damaged { resume_at, .. } => ReadResult::Damaged { resume_at },
            Answer::OutOfRange => match self.partition(slot) {
                Some(p) => ReadResult::OutOfRange { log_start: p.log_start, durable_end: p.durable.offset },
                None => ReadResult::AtEnd,
            },
            Answer::Record(..) => unreachable!("a read looks for frames"),
        }
    }

    /// A disk read is done.
    pub(super) fn on_read(
        &mut self,
        disk: &mut dyn Disk,
        id: ReadId,
        result: io::Result<(AlignedBuf, usize)>,
    ) {
        let mut task = self.reads.tasks.remove(&id).expect("a task waits for its read");
        let (from, len) = task.reading;
        let answer = match result {
            Ok((buf, filled)) if filled >= len => {
                self.stats.bytes_read += len as u64;
                task.read = Some((buf.freeze(), from));
                None
            }
            _ => task.on_unreadable(),
        };
        let slot = task.slot;
        if !matches!(task.goal, Goal::Frames { .. }) {
            match answer {
                Some(answer) => {
                    self.push_event(StoreEvent::Found { id, result: find_result(&answer) });
                }
                // It goes on when it is its turn.
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
                task.lookup = None;
                match found {
                    Found::Record(offset, timestamp) => {
                        return Driven::Done(Answer::Record(offset, timestamp));
                    }
                    Found::Latest(latest) => {
                        task.scout.latest =
                            task.scout.latest.max(latest.map_or(NO_TIMESTAMP, |latest| latest.0));
                    }
                    Found::Nothing => {}
                }
            }
            if *work == 0 {
                return Driven::Paused(task);
            }
            let Some(partition) = self.partition(task.slot) else { return Driven::Done(Answer::Deleted) };
            let Some(at) = partition.extent_at(task.incarnation) else {
                task.read = None;
                if task.scout.offset < partition.log_start {
                    match &mut task.goal {
                        Goal::Frames { .. } => return Driven::Done(Answer::OutOfRange),
                        Goal::Time { log_start, .. } | Goal::Latest { log_start } => {
                            *log_start = partition.log_start;
                        }
                    }
                    task.scout.offset = partition.log_start;
                }
                match task.locate(partition) {
                    Some(answer) => return Driven::Done(answer),
                    None => continue,
                }
            };
            let limit = partition.readable_to(&partition.extents[at]);
            if task.scout.position >= limit {
                task.read = None;
                match task.next_extent(partition, at) {
                    Some(answer) => return Driven::Done(answer),
                    None => continue,
                }
            }
            let position = task.scout.position;
            if let Some((bytes, from)) = task.read.take() {
                let to = from + bytes.len() as u32;
                if (from..to).contains(&position) && position + task.need.max(1) as u32 <= to {
                    let answer = self.look(&mut task, &bytes, from, None, work);
                    if let Some(answer) = answer {
                        return Driven::Done(answer);
                    }
                    // A read is looked through once; what is left of it is read again with what follows.
                    task.read = Some((bytes, from)).filter(|_| !matches!(task.goal, Goal::Frames { .. }));
                    continue;
                }
            }
            if let Some(chunk) = partition.chunks.at_position(task.incarnation, position) {
                let (bytes, from) = (chunk.slice(chunk.base, chunk.to), chunk.base);
                let chunk_bytes = Some(chunk.memory_bytes());
                if let Some(answer) = self.look(&mut task, &bytes, from, chunk_bytes, work) {
                    return Driven::Done(answer);
                }
                continue;
            }
            if !partition.extents[at].place.is_some_and(|place| self.space.slabs.contains_key(&place.slab)) {
                // Its slab is missing.
                task.scout.position = limit;
                task.scout.searching = true;
                continue;
            }
            return match self.submit_read(disk, id, task) {
                Ok(()) => Driven::Reading,
                Err(memory_bytes) => Driven::Done(Answer::NeedsMemory(memory_bytes)),
            };
        }
    }

    /// Looks through bytes of the task's extent, from this position on: those that a disk read brought, or a chunk of the cache that takes
    /// `chunk_bytes` of memory. `None`: go on.
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
        let macs = self.macs.of(task.incarnation);
        let partition = self.partition_mut(task.slot)?;
        let tag = partition.tag;
        let at = partition.extent_at(task.incarnation)?;
        let limit = partition.readable_to(&partition.extents[at]);
        let offsets = partition.readable_offsets(&partition.extents[at]);
        let extent = &mut partition.extents[at];
        let mut note = |entry: Entry| extent.note_entry(entry, interval);
        let is_chunk = chunk_bytes.is_some();
        let view = View { bytes, from, limit, offsets, incarnation: task.incarnation, tag, macs, is_chunk };
        task.need = 0;
        task.behind = None;
        match examine(&task.goal, &mut task.scout, &view, &mut note, work) {
            Step::Frames { bytes: frames, next, frame_bytes_max } => {
                let whole_bytes = chunk_bytes.unwrap_or(AlignedBuf::memory_bytes_for(bytes.len()));
                let Some((bytes, memory_bytes)) = hold(&frames, whole_bytes, task.memory_bytes_max) else {
                    return Some(Answer::NeedsMemory(frames.len()));
                };
                Some(Answer::Frames {
                    bytes,
                    memory_bytes,
                    next,
                    incarnation: task.incarnation,
                    position: task.scout.position,
                    frame_bytes: frame_bytes_max,
                })
            }
            Step::LookInto(frame) => {
                let (wanted, log_start) = match task.goal {
                    Goal::Time { at, log_start } => (Wanted::Since(at), log_start),
                    Goal::Latest { log_start } => (Wanted::Latest, log_start),
                    Goal::Frames { .. } => unreachable!("a read takes whole frames"),
                };
                task.lookup = Some(Lookup::new(frame, wanted, log_start));
                None
            }
            Step::End => Some(Answer::End),
            Step::Damaged { resume_at } => Some(task.damaged(resume_at)),
            Step::More { bytes, behind } => {
                assert!(task.scout.position + bytes as u32 > to, "what is here has been looked at");
                task.need = bytes;
                task.behind = behind;
                None
            }
            Step::EndOfExtent => {
                task.scout.position = limit;
                None
            }
            Step::Again => None,
        }
    }

    /// Starts a disk read, or fails with the memory that it would need.
    fn submit_read(&mut self, disk: &mut dyn Disk, id: ReadId, mut task: Task) -> Result<(), usize> {
        let partition = self.partition(task.slot).expect("the caller looked");
        let extent = partition.extent(task.incarnation).expect("the caller looked");
        let place = extent.place.expect("what is durable has a place");
        let limit = partition.readable_to(extent);
        let (from, len) = task.range(extent, limit, self.config.limits.read_bytes_max)?;
        let file = self.space.slabs[&place.slab].file;
        task.reading = (from, len);
        self.reads.tasks.insert(id, task);
        self.stats.reads_disk += 1;
        let token = self.token(Op::Read(id));
        disk.read(file, place.at + u64::from(from), AlignedBuf::new(len), token);
        Ok(())
    }
}

impl Task {
    pub(super) fn new(slot: Slot, goal: Goal, offset: Offset) -> Self {
        Self {
            slot,
            goal,
            memory_bytes_max: usize::MAX,
            scout: Scout {
                offset,
                position: FIRST_POSITION,
                searching: false,
                found: None,
                max_timestamp: None,
                latest: NO_TIMESTAMP,
            },
            incarnation: Incarnation(0),
            need: 0,
            behind: None,
            frame_bytes: 0,
            cautious: None,
            reading: (0, 0),
            read: None,
            lookup: None,
        }
    }

    /// Goes to the extent and the nearest known frame in front of what it looks for. An answer, if there is no such extent.
    pub(super) fn locate(&mut self, partition: &Partition) -> Option<Answer> {
        let first = partition.extents.partition_point(|extent| extent.end_offset <= self.scout.offset);
        self.enter(partition, first)
    }

    /// Enters the first extent from this one on that can hold what it looks for. An answer, if there is none, or if records are lost
    /// that it would have had to look at before.
    fn enter(&mut self, partition: &Partition, first: usize) -> Option<Answer> {
        let mut reached = self.scout.offset;
        let is_readable = |extent: &&Extent| extent.incarnation <= partition.durable.incarnation;
        for extent in partition.extents.iter().skip(first).take_while(is_readable) {
            let offsets = partition.readable_offsets(extent);
            if offsets.start > reached {
                self.scout.offset = reached;
                return Some(self.damaged(offsets.start));
            }
            let is_late_enough = match self.goal {
                Goal::Frames { .. } => offsets.end > self.scout.offset,
                Goal::Time { at, .. } => extent.max_timestamp != NO_TIMESTAMP && extent.max_timestamp >= at.0,
                Goal::Latest { .. } => extent.max_timestamp > self.scout.latest,
            };
            if is_late_enough {
                self.enter_extent(partition, extent);
                return None;
            }
            reached = reached.max(offsets.end);
        }
        if reached < partition.durable.offset {
            self.scout.offset = reached;
            return Some(self.damaged(partition.durable.offset));
        }
        self.go_back(partition)
    }

    fn enter_extent(&mut self, partition: &Partition, extent: &Extent) {
        if !matches!(self.goal, Goal::Frames { .. }) {
            self.scout.offset = self.scout.offset.max(extent.base_offset);
        }
        let mut entry = extent.index.floor_of_offset(self.scout.offset);
        let later = match self.goal {
            Goal::Frames { .. } => None,
            Goal::Time { at, .. } => extent.index.floor_of_timestamp(at.0),
            Goal::Latest { log_start } if extent.base_offset < log_start => None,
            Goal::Latest { .. } => {
                let last = extent.index.floor_of_position(partition.readable_to(extent));
                let before = last.map_or(NO_TIMESTAMP, |entry| entry.max_timestamp_before);
                self.scout.latest = self.scout.latest.max(before);
                last
            }
        };
        if let Some(later) = later {
            entry = entry.max_by_position(Some(later));
            self.scout.offset = entry.map_or(self.scout.offset, |entry| self.scout.offset.max(entry.offset));
        }
        self.incarnation = extent.incarnation;
        self.scout.position = entry.map_or(FIRST_POSITION, |entry| entry.position);
        self.scout.max_timestamp = Some(entry.map_or(NO_TIMESTAMP, |entry| entry.max_timestamp_before));
        self.scout.searching = false;
        self.scout.found = None;
        self.need = 0;
    }

    /// It is at the end. If it has looked for the latest time, it goes back to the record that has it.
    fn go_back(&mut self, partition: &Partition) -> Option<Answer> {
        let Goal::Latest { .. } = self.goal else { return Some(Answer::End) };
        // What has no timestamp is not the latest.
        if self.scout.latest < 0 {
            return Some(Answer::End);
        }
        self.goal = Goal::Time { at: Timestamp(self.scout.latest), log_start: partition.log_start };
        self.scout.offset = partition.log_start;
        self.locate(partition)
    }

    /// Goes on after the extent of this number. An answer, if there is nothing, or if records are lost between here and there.
    fn next_extent(&mut self, partition: &Partition, at: usize) -> Option<Answer> {
        let end = partition.readable_offsets(&partition.extents[at]).end;
        if self.scout.offset < end {
            // Whatever its last bytes were taken for: this extent held more records.
            let found = self.scout.found.map(|(found, _)| found);
            return Some(self.damaged(found.unwrap_or(end)));
        }
        self.enter(partition, at + 1)
    }

    /// What is next is lost, up to this offset.
    fn damaged(&self, resume_at: Offset) -> Answer {
        let at = self.scout.offset;
        let resume_at = match self.goal {
            Goal::Frames { up_to, .. } => resume_at.min(up_to),
            Goal::Time { .. } | Goal::Latest { .. } => resume_at,
        };
        assert!(resume_at > at, "damage leads forward: from {at} to {resume_at}");
        Answer::Damaged { at, resume_at }
    }

    /// A read failed: try a shorter one, then go round what cannot be read.
    fn on_unreadable(&mut self) -> Option<Answer> {
        let (from, len) = self.reading;
        let least = self.least_bytes(from);
        if len > least {
            self.cautious = Some((len / 2).next_multiple_of(PAGE_BYTES).max(least).min(len - PAGE_BYTES));
            return None;
        }
        if let Some(behind) = self.behind {
            return Some(self.damaged(behind));
        }
        tracing::warn!(slot = ?self.slot.0, offset = self.scout.offset.0, "a page of the log cannot be read");
        self.scout.searching = true;
        self.scout.position = from + len as u32;
        self.need = 0;
        None
    }

    /// The shortest read from here that is of any use.
    fn least_bytes(&self, from: u32) -> usize {
        ((self.scout.position - from) as usize + self.need.max(1)).next_multiple_of(PAGE_BYTES)
    }

    /// What to read next: position and length. Fails with the memory that it would need if that is more than it may take.
    fn range(&self, extent: &Extent, limit: u32, read_bytes_max: usize) -> Result<(u32, usize), usize> {
        let position = self.scout.position;
        let from = position - position % PAGE_BYTES as u32;
        let least = self.least_bytes(from);
        let most = (limit - from) as usize;
        let fits = AlignedBuf::bytes_within(self.memory_bytes_max);
        if least > fits {
            return Err(AlignedBuf::memory_bytes_for(least));
        }
        let wanted = match (self.cautious, self.goal) {
            (Some(bytes), _) => bytes,
            (None, Goal::Frames { max_bytes, .. }) if self.scout.max_timestamp.is_none() => {
                // Reading on from where a read ended: as much as is wanted, or one frame of the kind seen there.
                max_bytes.min(read_bytes_max).max((position - from) as usize + self.frame_bytes as usize)
            }
            _ => read_bytes_max,
        };
        let to = from + wanted.min(most).min(fits) as u32;
        // End at a frame boundary if one is known: half a frame is read twice.
        let boundary = extent.index.last_within(position, to).or_else(|| extent.index.next_after(position));
        let len = match boundary {
            Some(boundary) if self.cautious.is_none() => (boundary - from) as usize,
            _ => (to - from) as usize,
        };
        let len = len.max(least).min(most).next_multiple_of(PAGE_BYTES);
        Ok((from, len.min(fits)))
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

/// Frames out of a buffer or chunk that takes `whole_bytes` of memory, and what holding them takes: they are copied if they are a small part of
/// it, or if all of it is more than may be held. `None`: they take more than `memory_bytes_max` even so.
pub(super) fn hold(frames: &Bytes, whole_bytes: usize, memory_bytes_max: usize) -> Option<(Bytes, usize)> {
    if whole_bytes <= memory_bytes_max && whole_bytes <= HELD_BYTES_PER_BYTE_MAX * frames.len() {
        Some((frames.clone(), whole_bytes))
    } else if frames.len() <= memory_bytes_max {
        Some((Bytes::copy_from_slice(frames), frames.len()))
    } else {
        None
    }
}
