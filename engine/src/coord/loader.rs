//! Reads the partitions whose groups a coordinator has to restore, a piece at a time.

use highwater_runtime::plane::Disk;
use highwater_storage::{ReadId, ReadLimits, ReadResult};

use super::coordinators::{Coordinators, OwnPartition};
use crate::limits::{GROUP_LOAD_BYTES_MAX, GROUP_LOAD_MEMORY_BYTES_MAX};
use crate::partition::{Partition, Partitions, PieceReads, batches_of};

/// The read of a shard's coordinators. There is one at a time.
#[derive(Debug, Default)]
pub(crate) struct GroupLoader {
    reads: PieceReads,
    /// The load that the disk read in flight is for. It may have been given up meanwhile.
    load: Option<u64>,
}

impl GroupLoader {
    /// Returns whether a store's read is the coordinators'.
    pub(crate) fn is_reading(&self, store: usize, id: ReadId) -> bool {
        self.reads.is_reading(store, id)
    }

    /// Reads more of the coordinators' partitions. Returns whether the next turn can read on.
    pub(crate) fn load(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        coordinators: &mut Coordinators,
    ) -> bool {
        let Some(load) = coordinators.next_load() else { return false };
        if self.reads.is_busy() {
            return false;
        }
        let Some(id) = partitions.find(load.tp) else {
            coordinators.finish_load();
            return true;
        };
        let limits =
            ReadLimits { bytes_max: GROUP_LOAD_BYTES_MAX, memory_bytes_max: GROUP_LOAD_MEMORY_BYTES_MAX };
        let read = self.reads.read(disk, partitions, id, (load.cursor, load.end), limits);
        let Some(result) = read else {
            self.load = Some(load.number);
            return false;
        };
        self.apply(partitions, coordinators, result);
        true
    }

    /// Handles the result of the read in flight.
    pub(crate) fn handle_read(
        &mut self,
        partitions: &mut Partitions,
        coordinators: &mut Coordinators,
        result: ReadResult,
    ) {
        if coordinators.next_load().map(|load| load.number) == self.load.take() {
            self.apply(partitions, coordinators, result);
        } else {
            self.reads.discard();
        }
    }

    fn apply(&mut self, partitions: &mut Partitions, coordinators: &mut Coordinators, result: ReadResult) {
        self.reads.handle_result(&result);
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
            ReadResult::NeedsMemory(_) => {}
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
