//! One read of one partition.

use std::collections::BTreeMap;

use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Disk};
use highwater_storage::{Cursor, Frames, ReadId, ReadLimits, ReadOutcome, ReadResult};

use super::budget::{Account, SendBudget, Wanted};
use super::charge::Charge;
use super::{FetchId, ReaderId};
use crate::partition::{PartitionId, Partitions};

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadFor {
    /// A native client's reader, and its connection.
    Native(ReaderId, ConnId),
    /// A Kafka client's fetch.
    Kafka(FetchId),
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAt {
    pub(crate) partition: PartitionId,
    pub(crate) cursor: Cursor,
    /// Bytes of frames, unless a single one is larger.
    pub(crate) bytes_max: usize,
    /// Bytes of memory that the next frame takes, if that is known to be more than a read is given.
    pub(crate) needs: usize,
    /// Offset after the last record that may be read.
    pub(crate) up_to: Offset,
}

/// The memory that a read is charged to.
pub(crate) struct ReadMemory<'a> {
    pub(crate) budget: &'a mut SendBudget,
    /// That of the connection.
    pub(crate) account: &'a mut Account,
    /// Bytes that the connection holds beside what is charged to it.
    pub(crate) queued: usize,
}

/// What came of a read.
#[derive(Debug)]
pub(crate) enum Found {
    /// At least one batch, and what it is charged.
    Frames(Frames, Charge),
    /// There is nothing to read yet, or the partition is gone.
    AtEnd,
    /// The offset is not in the log.
    OutOfRange {
        /// Where the log starts.
        log_start: Offset,
        /// Where it ends.
        end: Offset,
    },
    /// The frame at the cursor is lost.
    Damaged {
        /// The next offset that can be read.
        resume_at: Offset,
    },
    /// The frame at the cursor takes so many bytes of memory, which is more than the read was given.
    NeedsMemory(usize),
}

/// How a read has begun.
#[derive(Debug)]
pub(crate) enum ReadStep {
    /// It is done.
    Done(Found),
    /// It waits for the disk. [`Reads::handle_done`] ends it.
    Pending,
    /// There is no memory for it. It has not begun.
    NoMemory,
}

/// The reads that wait for the disk, by store and operation. Each is charged until it is done, also when its reader is gone meanwhile.
#[derive(Default, Debug)]
pub(crate) struct Reads(BTreeMap<(usize, ReadId), (ReadFor, Charge)>);

impl Reads {
    /// Reads what is at a cursor, with memory that is reserved for it.
    pub(crate) fn begin(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        memory: ReadMemory<'_>,
        reader: ReadFor,
        at: ReadAt,
    ) -> ReadStep {
        let ReadAt { cursor, bytes_max, up_to, .. } = at;
        let ReadMemory { budget, account, queued } = memory;
        let Some(partition) = partitions.get(at.partition) else { return ReadStep::Done(Found::AtEnd) };
        let (store, slot) = (partition.store, partition.slot);
        let mut charge = None;
        // It takes no memory to see that there is nothing.
        if cursor.offset() < up_to {
            let wanted = Wanted::by_read(partitions.store(store), slot, cursor, bytes_max, at.needs);
            charge = budget.reserve(account, queued, wanted);
            if charge.is_none() {
                return ReadStep::NoMemory;
            }
        }
        let limits = ReadLimits { bytes_max, memory_bytes_max: charge.as_ref().map_or(0, Charge::bytes) };
        match (partitions.store_mut(store).read(disk, slot, cursor, limits, up_to), charge) {
            (ReadOutcome::Ready(result), charge) => ReadStep::Done(Found::new(result, charge)),
            (ReadOutcome::Pending(read), Some(charge)) => {
                self.0.insert((store, read), (reader, charge));
                ReadStep::Pending
            }
            (ReadOutcome::Pending(_), None) => unreachable!("what is read from disk takes memory"),
        }
    }

    /// A store has done a read. Returns whose it is; `None` if it is nobody's here.
    pub(crate) fn handle_done(
        &mut self,
        store: usize,
        id: ReadId,
        result: ReadResult,
    ) -> Option<(ReadFor, Found)> {
        let (reader, charge) = self.0.remove(&(store, id))?;
        Some((reader, Found::new(result, Some(charge))))
    }
}

impl Found {
    fn new(result: ReadResult, charge: Option<Charge>) -> Self {
        match (result, charge) {
            (ReadResult::Frames(frames), Some(mut charge)) => {
                charge.shrink_to(frames.memory_bytes);
                Self::Frames(frames, charge)
            }
            (ReadResult::Frames(_), None) => unreachable!("what is read takes memory"),
            (ReadResult::AtEnd, _) => Self::AtEnd,
            (ReadResult::OutOfRange { log_start, durable_end }, _) => {
                Self::OutOfRange { log_start, end: durable_end }
            }
            (ReadResult::Damaged { resume_at }, _) => Self::Damaged { resume_at },
            (ReadResult::NeedsMemory(bytes), _) => Self::NeedsMemory(bytes),
        }
    }
}
