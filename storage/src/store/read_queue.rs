//! Disk reads of a store: few bytes are in flight at a time, and further reads wait in a queue, first come, first served.
//!
//! The limit, [`reads_inflight_bytes_max`](crate::StoreLimits::reads_inflight_bytes_max), is one of memory and of fairness: whoever reads next waits for
//! a few reads, however many others do. How much of these is at the disk at a time, beside writes, is the plane's business. Writes are never queued
//! here. The buffer of a read is allocated when the read starts, not while it is queued.
//!
//! Invariant: a read is queued only while others are in flight. So each completion starts the next ones, and none is forgotten.

use std::collections::{BTreeMap, VecDeque};

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Disk;

use super::round::Op;
use super::task::Task;
use super::{Phase, Store};
use crate::api::ReadId;

/// Unfinished reads and searches.
#[derive(Default, Debug)]
pub(super) struct Reads {
    /// Tasks with a disk read in flight.
    inflight: BTreeMap<ReadId, Task>,
    /// Bytes of these disk reads.
    inflight_bytes: usize,
    /// Tasks whose disk read has not been started.
    queued: VecDeque<(ReadId, Task)>,
    /// Searches that can continue, in turns.
    pub(super) paused: VecDeque<(ReadId, Task)>,
    pub(super) next: u64,
}

impl Reads {
    /// Returns whether no disk read is in flight or queued.
    pub(super) fn is_empty(&self) -> bool {
        self.inflight.is_empty() && self.queued.is_empty()
    }

    /// Removes the task whose disk read has completed.
    pub(super) fn take(&mut self, id: ReadId) -> Task {
        let task = self.inflight.remove(&id).expect("a task waits for its read");
        self.inflight_bytes -= task.reading.1;
        task
    }

    /// Returns whether a read of this many bytes may start beside those in flight.
    fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.inflight.is_empty() || self.inflight_bytes + bytes <= bytes_max
    }
}

impl Store {
    /// Starts the next disk read of a task, or queues it. Fails with the memory in bytes that the read would need if the task may not take
    /// that much.
    pub(super) fn submit_read(&mut self, disk: &mut dyn Disk, id: ReadId, task: Task) -> Result<(), usize> {
        let partition = self.partition(task.slot).expect("the caller looked");
        let extent = partition.extent(task.extent).expect("the caller looked");
        let limit = partition.written_to(extent);
        let cached_from = partition.cached_from(extent);
        let range = task.range(extent, limit, cached_from, self.config.limits.read_bytes_max)?;
        let may_start = self.reads.queued.is_empty() && self.has_room(range.1);
        if may_start {
            self.start_read(disk, id, task, range);
        } else {
            self.reads.queued.push_back((id, task));
        }
        Ok(())
    }

    /// Starts queued reads while there is room for them.
    pub(super) fn start_queued_reads(&mut self, disk: &mut dyn Disk) {
        while self.phase != Phase::Closed
            && let Some((id, task)) = self.reads.queued.pop_front()
        {
            match self.queued_range(&task) {
                Some(range) if self.has_room(range.1) => self.start_read(disk, id, task, range),
                Some(_) => {
                    self.reads.queued.push_front((id, task));
                    return;
                }
                // The log has changed meanwhile: the task finds out what there is now.
                None => self.resume_task(disk, id, task, None),
            }
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.reads.has_room(bytes, self.config.limits.reads_inflight_bytes_max)
    }

    /// Returns the position and length that a queued task reads. `None` if that no longer exists, or is elsewhere.
    fn queued_range(&self, task: &Task) -> Option<(u32, usize)> {
        let partition = self.partition(task.slot)?;
        let extent = partition.extent(task.extent)?;
        let limit = partition.written_to(extent);
        if task.cursor.position >= limit || !self.space.slabs.contains_key(&extent.place?.slab) {
            return None;
        }
        task.range(extent, limit, partition.cached_from(extent), self.config.limits.read_bytes_max).ok()
    }

    fn start_read(&mut self, disk: &mut dyn Disk, id: ReadId, mut task: Task, (from, len): (u32, usize)) {
        let partition = self.partition(task.slot).expect("the caller looked");
        let extent = partition.extent(task.extent).expect("the caller looked");
        let place = extent.place.expect("what is durable has a place");
        task.read_limit = partition.written_to(extent);
        let file = self.space.slabs[&place.slab].file;
        task.reading = (from, len);
        self.reads.inflight_bytes += len;
        self.reads.inflight.insert(id, task);
        self.stats.reads_disk += 1;
        let token = self.token(Op::Read(id));
        disk.read(file, place.at + u64::from(from), AlignedBuf::new(len), token);
    }
}
