//! Reads of one partition each.

use std::collections::BTreeMap;

use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Disk};
use highwater_storage::{Cursor, Frames, ReadId, ReadLimits, ReadOutcome, ReadResult};

use super::budget::{Account, SendBudget, Wanted};
use super::charge::Charge;
use super::{FetchId, ReaderId};
use crate::partition::{PartitionId, Partitions};

/// The reader that a read is for.
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
    /// Bytes of memory that the next frame needs, if that is known to exceed the usual limit.
    pub(crate) needs: usize,
    /// Offset after the last record that may be read.
    pub(crate) up_to: Offset,
}

/// The memory that a read is charged to.
pub(crate) struct ReadMemory<'a> {
    pub(crate) budget: &'a mut SendBudget,
    /// The connection's account.
    pub(crate) account: &'a mut Account,
    /// Bytes that the connection holds in addition to those charged to it.
    pub(crate) queued: usize,
}

/// The result of a read.
#[derive(Debug)]
pub(crate) enum ChargedRead {
    /// At least one batch, and the charge for its memory.
    Frames(Frames, Charge),
    /// There is nothing to read yet, or the partition was deleted.
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
    /// The frame at the cursor needs this many bytes of memory, more than the read was allowed.
    NeedsMemory(usize),
}

/// The outcome of starting a read.
#[derive(Debug)]
pub(crate) enum ReadStep {
    /// It is done.
    Done(ChargedRead),
    /// It waits for the disk. [`Reads::handle_done`] ends it.
    Pending,
    /// There is no memory for it. It has not begun.
    NoMemory,
}

/// The reads of a shard.
#[derive(Default, Debug)]
pub(crate) struct Reads {
    /// Those that wait for the disk, by store and operation. Each is charged until it is done, even if its reader is removed meanwhile.
    pending: BTreeMap<(usize, ReadId), (ReadFor, Charge)>,
    begun: u64,
}

impl Reads {
    /// Returns the number of times that a partition was read, or found to have nothing more.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// Starts a read at a cursor, and reserves its memory.
    pub(crate) fn begin(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        memory: ReadMemory<'_>,
        reader: ReadFor,
        at: ReadAt,
    ) -> ReadStep {
        let ReadAt { cursor, bytes_max, up_to, .. } = at;
        self.begun += 1;
        let ReadMemory { budget, account, queued } = memory;
        let Some(partition) = partitions.get(at.partition) else { return ReadStep::Done(ChargedRead::AtEnd) };
        let (store, slot) = (partition.store, partition.slot);
        let mut charge = None;
        // Without anything to read, no memory is needed.
        if cursor.offset() < up_to {
            let wanted = Wanted::by_read(partitions.store(store), slot, cursor, bytes_max, at.needs);
            charge = budget.reserve(account, queued, wanted);
            if charge.is_none() {
                return ReadStep::NoMemory;
            }
        }
        let limits = ReadLimits { bytes_max, memory_bytes_max: charge.as_ref().map_or(0, Charge::bytes) };
        match (partitions.store_mut(store).read(disk, slot, cursor, limits, up_to), charge) {
            (ReadOutcome::Ready(result), charge) => ReadStep::Done(ChargedRead::new(result, charge)),
            (ReadOutcome::Pending(read), Some(charge)) => {
                self.pending.insert((store, read), (reader, charge));
                ReadStep::Pending
            }
            (ReadOutcome::Pending(_), None) => unreachable!("what is read from disk takes memory"),
        }
    }

    /// Handles the end of a read in a store. Returns its reader and result; `None` if it is not a read of this component.
    pub(crate) fn handle_done(
        &mut self,
        store: usize,
        id: ReadId,
        result: ReadResult,
    ) -> Option<(ReadFor, ChargedRead)> {
        let (reader, charge) = self.pending.remove(&(store, id))?;
        Some((reader, ChargedRead::new(result, Some(charge))))
    }
}

impl ChargedRead {
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
