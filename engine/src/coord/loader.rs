//! Reads the partitions whose groups a coordinator has to restore, a piece at a time.

use highwater_runtime::plane::Disk;
use highwater_storage::{ReadId, ReadLimits, ReadOutcome, ReadResult};

use super::coordinators::{Coordinators, OwnPartition};
use crate::limits::{GROUP_LOAD_BYTES_MAX, GROUP_LOAD_MEMORY_BYTES_MAX};
use crate::partition::{Partition, Partitions, batches_of};

/// The read of a shard's coordinators. There is one at a time.
#[derive(Debug, Default)]
pub(crate) struct GroupLoader {
    /// The disk read in flight.
    reading: Option<Reading>,
    /// Bytes of memory that the next read needs, if more than [`GROUP_LOAD_MEMORY_BYTES_MAX`].
    needs_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    store: usize,
    id: ReadId,
    /// The load that it is for. It may have been given up meanwhile.
    load: u64,
}

impl GroupLoader {
    /// Returns whether a store's read is the coordinators'.
    pub(crate) fn is_reading(&self, store: usize, id: ReadId) -> bool {
        self.reading.is_some_and(|reading| (reading.store, reading.id) == (store, id))
    }

    /// Reads more of the coordinators' partitions. Returns whether the next turn can read on.
    pub(crate) fn load(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        coordinators: &mut Coordinators,
    ) -> bool {
        let Some(load) = coordinators.next_load() else { return false };
        if self.reading.is_some() {
            return false;
        }
        let Some(partition) = partitions.of(load.tp) else {
            coordinators.finish_load();
            return true;
        };
        let (store, slot) = (partition.store, partition.slot);
        let memory_bytes_max = GROUP_LOAD_MEMORY_BYTES_MAX.max(self.needs_bytes);
        let limits = ReadLimits { bytes_max: GROUP_LOAD_BYTES_MAX, memory_bytes_max };
        match partitions.store_mut(store).read(disk, slot, load.cursor, limits, load.end) {
            ReadOutcome::Ready(result) => self.apply(partitions, coordinators, result),
            ReadOutcome::Pending(id) => {
                self.reading = Some(Reading { store, id, load: load.number });
                return false;
            }
        }
        true
    }

    /// Handles the result of the read in flight.
    pub(crate) fn handle_read(
        &mut self,
        partitions: &mut Partitions,
        coordinators: &mut Coordinators,
        result: ReadResult,
    ) {
        let of = self.reading.take().map(|reading| reading.load);
        if coordinators.next_load().map(|load| load.number) == of {
            self.apply(partitions, coordinators, result);
        } else {
            self.needs_bytes = 0;
        }
    }

    fn apply(&mut self, partitions: &mut Partitions, coordinators: &mut Coordinators, result: ReadResult) {
        let needs_bytes = std::mem::take(&mut self.needs_bytes);
        match result {
            ReadResult::Frames(frames) => {
                let batches = frames.bytes.iter().flat_map(|chunk| {
                    batches_of(chunk).map(move |(start, bytes)| &chunk[start..start + bytes])
                });
                coordinators.handle_loaded(batches, frames.next);
            }
            ReadResult::AtEnd | ReadResult::AfterDamage { .. } => coordinators.finish_load(),
            ReadResult::OutOfRange { log_start, .. } => coordinators.seek_load(log_start),
            ReadResult::Damaged { resume_at } => {
                if let Some(load) = coordinators.next_load() {
                    coordinators.seek_load(resume_at);
                    if let Some(id) = partitions.find(load.tp) {
                        partitions.note_damage(id, load.cursor.offset(), resume_at);
                    }
                }
            }
            ReadResult::NeedsMemory(bytes) => self.needs_bytes = bytes.max(needs_bytes * 2),
        }
    }
}

/// Returns a partition of this shard as its coordinators need it. `batch_bytes_max`: maximum bytes of a batch in its store.
pub(crate) fn own_partition(
    partitions: &Partitions,
    partition: &Partition,
    batch_bytes_max: usize,
) -> OwnPartition {
    let bounds = partitions.bounds(partition);
    OwnPartition {
        tp: partition.tp,
        log_start: bounds.log_start,
        end: partition.high_watermark(),
        batch_bytes_max,
        is_damaged: bounds.faulty,
        is_led: partition.check_answers(None).is_ok(),
    }
}
