//! Reads of one partition each.

use std::collections::BTreeMap;

use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{ConnId, Disk, Instant};
use highwater_storage::{Cursor, Frames, ReadId, ReadLimits, ReadOutcome, ReadResult};

use super::ahead::{AheadId, AheadState, Consumer, ReadAhead};
use super::budget::{Account, MemoryRequest, SendBudget};
use super::charge::Charge;
use crate::limits::READ_AHEAD_TIME_MAX;
use crate::partition::{FetchId, PartitionId, Partitions, ReaderId};

/// The reader that a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadFor {
    /// A native client's reader, and its connection.
    Native(ReaderId, ConnId),
    /// A Kafka client's fetch.
    Kafka(FetchId),
    /// A read-ahead for a later fetch.
    Ahead(AheadId),
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
    /// The connection, if read-ahead is used for it.
    pub(crate) consumer: Option<Consumer>,
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
        /// The start of the log.
        log_start: Offset,
        /// The end of the log.
        end: Offset,
    },
    /// The offset is after the end of a damaged log.
    AfterDamage {
        /// The end of the log.
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
    /// The read is done.
    Done(ChargedRead),
    /// The disk read is in flight. [`Reads::handle_done`] ends it.
    Pending,
    /// There is not enough memory, and the read has not begun.
    NoMemory,
}

/// The reads of a shard.
#[derive(Default, Debug)]
pub(crate) struct Reads {
    /// The disk reads in flight, by store and operation. Each is charged until it is done, even if its reader is removed meanwhile.
    pending: BTreeMap<(usize, ReadId), (ReadFor, Charge)>,
    ahead: ReadAhead,
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
        let ReadMemory { budget, account, queued, consumer } = memory;
        let Some(partition) = partitions.get(at.partition) else { return ReadStep::Done(ChargedRead::AtEnd) };
        let (store, slot) = (partition.store, partition.slot);
        let mut charge = None;
        // At the end of the log, no memory is needed.
        if cursor.offset() < up_to {
            let request = MemoryRequest::for_read(partitions.store(store), slot, cursor, bytes_max, at.needs);
            charge = budget.reserve(account, queued, request);
            if charge.is_none() && consumer.is_some_and(|consumer| self.ahead.forget(consumer)) {
                charge = budget.reserve(account, queued, request);
            }
            while charge.is_none() && budget.is_short_of(account, queued, request) && self.ahead.drop_oldest()
            {
                charge = budget.reserve(account, queued, request);
            }
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
            (ReadOutcome::Pending(_), None) => unreachable!("a disk read reserves memory"),
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
        let read = ChargedRead::new(result, Some(charge));
        if let ReadFor::Ahead(id) = reader {
            // The later fetch finds any other result again.
            let frames =
                if let ChargedRead::Frames(frames, charge) = read { Some((frames, charge)) } else { None };
            self.ahead.handle_done(id, frames);
            return None;
        }
        Some((reader, read))
    }

    /// Starts the read-ahead of the records that a connection will probably fetch, if they are on disk and memory is spare. Returns whether there is a
    /// read-ahead of them, in flight or done.
    pub(crate) fn begin_ahead(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        memory: ReadMemory<'_>,
        now: Instant,
        at: ReadAt,
    ) -> bool {
        let ReadAt { cursor, bytes_max, up_to, .. } = at;
        let ReadMemory { budget, account, queued, consumer } = memory;
        let (Some(partition), Some(consumer)) = (partitions.get(at.partition), consumer) else {
            return false;
        };
        let (store, slot) = (partition.store, partition.slot);
        if cursor.offset() >= up_to || partitions.store(store).is_cached(slot, cursor) {
            return false;
        }
        if self.ahead.has(consumer, at.partition, cursor.offset()) {
            return true;
        }
        let request = MemoryRequest::for_read(partitions.store(store), slot, cursor, bytes_max, at.needs);
        let Some(charge) = budget.reserve_spare(account, queued, request) else { return false };
        let limits = ReadLimits { bytes_max, memory_bytes_max: charge.bytes() };
        match partitions.store_mut(store).read(disk, slot, cursor, limits, up_to) {
            ReadOutcome::Pending(read) => {
                let id = self.ahead.add(consumer, at.partition, cursor.offset(), now, (store, read));
                self.pending.insert((store, read), (ReadFor::Ahead(id), charge));
                true
            }
            // The later fetch finds this result again.
            ReadOutcome::Ready(_) => false,
        }
    }

    /// Returns the bytes of frames that were read ahead for a connection from this offset, if the read is done.
    pub(crate) fn bytes_ahead(
        &self,
        consumer: Consumer,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<usize> {
        self.ahead.bytes(consumer, partition, offset)
    }

    /// Passes the read-ahead from this offset to a fetch, unless it has more than `bytes_max` bytes, in which case it is dropped.
    pub(crate) fn take_ahead(
        &mut self,
        consumer: Consumer,
        partition: PartitionId,
        offset: Offset,
        bytes_max: usize,
        fetch: FetchId,
    ) -> Option<ReadStep> {
        if self.ahead.bytes(consumer, partition, offset).is_some_and(|bytes| bytes > bytes_max) {
            self.ahead.take(consumer, partition, offset);
        }
        match self.ahead.take(consumer, partition, offset)? {
            AheadState::Read(frames, charge) => Some(ReadStep::Done(ChargedRead::Frames(frames, charge))),
            AheadState::Reading { store, read } => {
                let (reader, _) = self.pending.get_mut(&(store, read))?;
                *reader = ReadFor::Kafka(fetch);
                Some(ReadStep::Pending)
            }
        }
    }

    /// Drops the read-aheads of a closed connection.
    pub(crate) fn forget_ahead(&mut self, consumer: Consumer) {
        self.ahead.forget(consumer);
    }

    /// Drops all read-aheads, because others wait for memory.
    pub(crate) fn drop_ahead(&mut self) {
        while self.ahead.drop_oldest() {}
    }

    /// Drops expired read-aheads. Returns whether any are left.
    pub(crate) fn expire_ahead(&mut self, now: Instant) -> bool {
        self.ahead.expire(now, READ_AHEAD_TIME_MAX);
        !self.ahead.is_empty()
    }
}

impl ChargedRead {
    fn new(result: ReadResult, charge: Option<Charge>) -> Self {
        match (result, charge) {
            (ReadResult::Frames(frames), Some(mut charge)) => {
                charge.shrink_to(frames.memory_bytes);
                Self::Frames(frames, charge)
            }
            (ReadResult::Frames(_), None) => unreachable!("a read of frames reserves memory"),
            (ReadResult::AtEnd, _) => Self::AtEnd,
            (ReadResult::OutOfRange { log_start, durable_end }, _) => {
                Self::OutOfRange { log_start, end: durable_end }
            }
            (ReadResult::AfterDamage { end }, _) => Self::AfterDamage { end },
            (ReadResult::Damaged { resume_at }, _) => Self::Damaged { resume_at },
            (ReadResult::NeedsMemory(bytes), _) => Self::NeedsMemory(bytes),
        }
    }
}
