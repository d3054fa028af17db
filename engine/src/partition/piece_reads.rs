//! Reads of a log by the broker itself, which restores what it keeps there a piece at a time.

use highwater_protocol::ids::Offset;
use highwater_runtime::plane::Disk;
use highwater_storage::{Cursor, ReadId, ReadLimits, ReadOutcome, ReadResult};

use super::{PartitionId, Partitions};

/// The read of one such reader. There is one at a time.
#[derive(Debug, Default)]
pub(crate) struct PieceReads {
    /// The disk read in flight: its store, and its id in that store.
    in_flight: Option<(usize, ReadId)>,
    /// Bytes of memory that the next read needs, if more than its limit.
    needs_bytes: usize,
}

impl PieceReads {
    /// Returns whether a disk read is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns whether a store's read is this one.
    pub(crate) fn is_reading(&self, store: usize, id: ReadId) -> bool {
        self.in_flight == Some((store, id))
    }

    /// Reads a piece of a partition's log before `end`. `None`: it comes from the disk later.
    pub(crate) fn read(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        id: PartitionId,
        (cursor, end): (Cursor, Offset),
        limits: ReadLimits,
    ) -> Option<ReadResult> {
        assert!(!self.is_busy(), "one read at a time");
        let partition = partitions.get(id)?;
        let (store, slot) = (partition.store, partition.slot);
        let memory_bytes_max = limits.memory_bytes_max.max(self.needs_bytes);
        let limits = ReadLimits { memory_bytes_max, ..limits };
        match partitions.store_mut(store).read(disk, slot, cursor, limits, end) {
            ReadOutcome::Ready(result) => Some(result),
            ReadOutcome::Pending(id) => {
                self.in_flight = Some((store, id));
                None
            }
        }
    }

    /// Handles a result. After [`ReadResult::NeedsMemory`], the next read may take more.
    pub(crate) fn handle_result(&mut self, result: &ReadResult) {
        self.in_flight = None;
        let before = std::mem::take(&mut self.needs_bytes);
        if let ReadResult::NeedsMemory(bytes) = result {
            self.needs_bytes = (*bytes).max(before * 2);
        }
    }

    /// Handles that the result of the read in flight has come, and that nobody wants it any more.
    pub(crate) fn discard(&mut self) {
        *self = Self::default();
    }
}
