//! Searches by time, in turns: a search may have to decompress batches and read many of them.

use highwater_protocol::batch::Work;
use highwater_protocol::ids::Timestamp;
use highwater_runtime::plane::Disk;

use super::Store;
use super::task::{Answer, Driven, Task};
use crate::api::{FindOutcome, FindResult, PartitionSlot, ReadId, SearchMemory, StoreEvent};
use crate::extent::{Extent, NO_TIMESTAMP};
use crate::limits::LATEST_TRIES_MAX;
use crate::scan::ReadGoal;

/// Work that one search does before the next has its turn.
const SEARCH_SLICE: Work = 100_000;

impl Store {
    /// Finds the first durable record at or after a timestamp. Searches until `work` is used up; [`Store::continue_searches`] does the rest. A search
    /// holds one buffer or cached chunk at a time, and a decoder for compressed records, in no more memory than it is allowed.
    pub fn find_time(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        at: Timestamp,
        memory: SearchMemory,
        work: &mut Work,
    ) -> FindOutcome {
        let Some(partition) = self.partition(slot) else { return FindOutcome::Ready(FindResult::None) };
        let log_start = partition.log_start;
        let goal = ReadGoal::Time { at, log_start };
        let mut task = Task::searching(slot, goal, log_start, memory);
        let known = task.locate(partition);
        self.find(disk, task, known, work)
    }

    /// Finds the first of the durable records with the largest timestamp.
    ///
    /// The timestamps of an extent include records below the log's start and records that are not durable. Such an extent is searched, if possible
    /// from its last index entry on, unless another one is later anyway. If the record is gone when it is looked for, because its extent was rewritten
    /// meanwhile, the search begins again, and looks at every record. For `memory` and `work` see [`Store::find_time`].
    pub fn find_last(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        memory: SearchMemory,
        work: &mut Work,
    ) -> FindOutcome {
        let Some(partition) = self.partition(slot) else { return FindOutcome::Ready(FindResult::None) };
        let (log_start, durable_end) = (partition.log_start, partition.durable.offset);
        let goal = ReadGoal::Latest { log_start, is_exact: false };
        let mut task = Task::searching(slot, goal, log_start, memory);
        task.latest_tries = LATEST_TRIES_MAX;
        let whole = |extent: &&Extent| extent.base_offset >= log_start && extent.end_offset <= durable_end;
        let times = partition.extents.iter().filter(whole).map(|extent| extent.max_timestamp);
        task.cursor.latest = times.max().unwrap_or(NO_TIMESTAMP);
        let known = task.locate(partition);
        self.find(disk, task, known, work)
    }

    /// Begins a search, unless its result is known.
    fn find(
        &mut self,
        disk: &mut dyn Disk,
        task: Task,
        known: Option<Answer>,
        work: &mut Work,
    ) -> FindOutcome {
        if let Some(answer) = known {
            return FindOutcome::Ready(find_result(&answer));
        }
        self.reads.next += 1;
        let id = ReadId(self.reads.next);
        match self.drive(disk, id, task, work) {
            Driven::Done(answer) => return FindOutcome::Ready(find_result(&answer)),
            Driven::Reading => {}
            Driven::Paused(task) => self.reads.paused.push_back((id, task)),
        }
        FindOutcome::Pending(id)
    }

    /// Continues searches in turns until `work` is used up. [`StoreEvent::Searched`] reports their results. Returns whether some can continue: call
    /// it again in the next turn.
    pub fn continue_searches(&mut self, disk: &mut dyn Disk, work: &mut Work) -> bool {
        while *work > 0 {
            let Some((id, task)) = self.reads.paused.pop_front() else { return false };
            let slice = SEARCH_SLICE.min(*work);
            let mut left = slice;
            match self.drive(disk, id, task, &mut left) {
                Driven::Done(answer) => {
                    self.push_event(StoreEvent::Searched { id, result: find_result(&answer) });
                }
                Driven::Reading => {}
                Driven::Paused(task) => self.reads.paused.push_back((id, task)),
            }
            // A search that costs nothing takes a turn too.
            *work = work.saturating_sub((slice - left).max(1));
        }
        !self.reads.paused.is_empty()
    }
}

pub(super) fn find_result(answer: &Answer) -> FindResult {
    match answer {
        Answer::Record(offset, timestamp) => FindResult::At(*offset, *timestamp),
        Answer::Damaged { at, resume_at } => FindResult::Damaged { at: *at, resume_at: *resume_at },
        Answer::NeedsMemory(bytes) => FindResult::NeedsMemory(*bytes),
        Answer::NeedsDecoder(bytes) => FindResult::NeedsDecoder(*bytes),
        Answer::End | Answer::OutOfRange | Answer::Deleted => FindResult::None,
        Answer::Frames { .. } | Answer::IndexFrames { .. } | Answer::Located { .. } | Answer::Lost => {
            unreachable!("a search looks for a record")
        }
    }
}
