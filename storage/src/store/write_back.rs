//! Writes to the extents what only the journal has: large writes that no client waits for, then one sync for each slab.
//!
//! The bytes come from the cache, which keeps them until the extents have them. One batch is in flight at a time. It takes the partitions that have
//! waited longest, so that the oldest entries of the journal are released first and each partition has gathered as much as possible.
//!
//! A batch begins when half of the journal is in use, when the cache is full of data that the extents lack, when the store is idle or being closed,
//! and for single partitions when their next step waits for it: a large append, or a cut.

use std::collections::BTreeSet;

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{Disk, Durability};

use super::round::Op;
use super::{Phase, Store};
use crate::api::PartitionSlot;
use crate::config::StoreConfig;
use crate::extent::{Extent, FIRST_POSITION};
use crate::layout::{EXTENT_HEADER_BYTES, PAGE_BYTES, Place, SlabId};
use crate::limits::{WRITE_BACK_BYTES_MAX, WRITE_BACK_PARTITIONS_MAX};
use crate::mac::StoreMacs;
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partition, WriteBack};

/// A batch of write-backs.
#[derive(Debug, Default)]
pub(super) struct WriteBackBatch {
    partitions: Vec<PartitionSlot>,
    writes_left: u32,
    syncs_left: u32,
    slabs: BTreeSet<SlabId>,
    failed: bool,
}

/// A write to an extent.
struct ExtentWrite {
    slab: SlabId,
    at: u64,
    data: AlignedBuf,
}

impl Store {
    /// A partition's next step waits for what the journal has of it.
    pub(super) fn write_back_first(&mut self, slot: PartitionSlot) {
        let Some(partition) = self.partition_mut(slot).filter(|p| p.journal_need.is_some()) else { return };
        if !std::mem::replace(&mut partition.flags.urgent, true) {
            self.journal.urgent.push_back(slot);
        }
    }

    /// Begins a batch, if one is due and none is in flight.
    pub(super) fn continue_write_back(&mut self, disk: &mut dyn Disk) {
        if !self.journal.may_write_back() {
            return;
        }
        if self.phase == Phase::Draining {
            self.journal.want_write_back();
        }
        let is_due = self.journal.is_write_back_due();
        let mut batch = WriteBackBatch::default();
        let mut bytes = 0;
        while bytes < WRITE_BACK_BYTES_MAX && batch.partitions.len() < WRITE_BACK_PARTITIONS_MAX {
            let urgent = self.journal.urgent.pop_front();
            let next = urgent.or_else(|| if is_due { self.journal.journaled.pop_front() } else { None });
            let Some(slot) = next else { break };
            bytes += self.begin_write_back(disk, slot, &mut batch);
        }
        if !batch.partitions.is_empty() {
            self.journal.write_back = Some(batch);
        }
    }

    /// Writes what only the journal has of one partition to its extents. Returns the number of bytes.
    fn begin_write_back(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        batch: &mut WriteBackBatch,
    ) -> usize {
        let Some(partition) = self.partitions.get_mut(slot.0).filter(|partition| !partition.deleting) else {
            return 0;
        };
        (partition.flags.journaled, partition.flags.urgent) = (false, false);
        let Some(need) = partition.journal_need.take() else { return 0 };
        assert!(partition.write_back.is_none(), "one batch is on its way");
        partition.write_back = Some(WriteBack { need, end: partition.durable });
        let writes = partition.writes_for_extents(&self.config, &self.macs);
        batch.partitions.push(slot);
        let mut bytes = 0;
        for ExtentWrite { slab, at, data } in writes {
            bytes += data.len();
            batch.slabs.insert(slab);
            let place = Place { slab, at };
            batch.writes_left +=
                self.write_to_slab(disk, place, &data.freeze(), Durability::Volatile, Op::WriteBack { slab });
        }
        bytes
    }

    /// Handles a completed write of the batch.
    pub(super) fn on_write_back(&mut self, disk: &mut dyn Disk, no_space: bool) {
        let batch = self.journal.write_back.as_mut().expect("a batch waits for its writes");
        batch.failed |= no_space;
        batch.writes_left -= 1;
        if batch.writes_left > 0 {
            return;
        }
        if batch.failed {
            return self.give_batch_back();
        }
        if is_planted(Mutant::TrimBeforeSync) {
            return self.finish_batch();
        }
        let slabs = std::mem::take(&mut batch.slabs);
        batch.syncs_left = slabs.len() as u32;
        for slab in slabs {
            let token = self.token(Op::WriteBackSync { slab });
            self.stats.syncs += 1;
            disk.sync(self.space.slabs[&slab].file, token);
        }
    }

    /// Handles a completed sync of the batch.
    pub(super) fn on_write_back_synced(&mut self, no_space: bool) {
        let batch = self.journal.write_back.as_mut().expect("a batch waits for its syncs");
        batch.failed |= no_space;
        batch.syncs_left -= 1;
        if batch.syncs_left > 0 {
            return;
        }
        if batch.failed { self.give_batch_back() } else { self.finish_batch() }
    }

    /// The extents have everything in the batch.
    fn finish_batch(&mut self) {
        let batch = self.journal.write_back.take().expect("the caller looked");
        for slot in batch.partitions {
            let partition =
                self.partitions.get_mut(slot.0).expect("it is not removed while it is written to");
            let WriteBack { need, end } = partition.write_back.take().expect("it is in the batch");
            let from = partition.extent_end.sequence;
            partition.extent_end = end;
            for extent in partition.extents.iter_mut().filter(|e| (from..=end.sequence).contains(&e.sequence))
            {
                extent.header_journaled = false;
            }
            self.journal.release(need);
            if !self.finish_delete_if_due(slot) {
                self.free_below_log_start(slot);
                self.note_journaled(slot);
            }
        }
        if self.journal.is_stalled() {
            self.journal.set_stalled(false);
            self.tell_space();
        }
        self.evict();
    }

    /// There was no space for a part of the batch: all of it is written again later. A sync proves nothing about a failed write.
    fn give_batch_back(&mut self) {
        let batch = self.journal.write_back.take().expect("the caller looked");
        for slot in batch.partitions {
            let partition =
                self.partitions.get_mut(slot.0).expect("it is not removed while it is written to");
            let WriteBack { need, .. } = partition.write_back.take().expect("it is in the batch");
            if let Some(later) = partition.journal_need.replace(need) {
                self.journal.release(later);
            }
            if !self.finish_delete_if_due(slot) {
                self.note_journaled(slot);
            }
        }
        self.journal.set_stalled(true);
        // Partitions that wait for it now wait for space.
        let waiting = self.dirty.iter().copied();
        let waiting = waiting.filter(|slot| self.partition(*slot).is_some_and(Partition::has_work));
        for slot in waiting.collect::<Vec<_>>() {
            self.stall(slot);
        }
        self.tell_full(format!(
            "{}: no space for a write into a file that is there; records are refused until space is freed",
            self.config.dir.display()
        ));
    }

    /// Continues the deletion of a partition that waited for its write-back. Returns whether it is one.
    fn finish_delete_if_due(&mut self, slot: PartitionSlot) -> bool {
        let is_due = self.partitions.get(slot.0).is_some_and(|partition| partition.deleting);
        if is_due {
            self.finish_delete(slot);
        }
        is_due
    }
}

impl Partition {
    /// Returns the pages between the end of the extents and the durable end, from the cache.
    fn writes_for_extents(&self, config: &StoreConfig, macs: &StoreMacs) -> Vec<ExtentWrite> {
        let from = self.extents.partition_point(|extent| extent.sequence < self.extent_end.sequence);
        let extents =
            self.extents.range(from..).take_while(|extent| extent.sequence <= self.durable.sequence);
        extents.filter_map(|extent| self.write_for_extent(extent, config, macs)).collect()
    }

    fn write_for_extent(
        &self,
        extent: &Extent,
        config: &StoreConfig,
        macs: &StoreMacs,
    ) -> Option<ExtentWrite> {
        let is_first = extent.sequence == self.extent_end.sequence;
        let start = if is_first { self.extent_end.position.max(FIRST_POSITION) } else { FIRST_POSITION };
        let end = self.readable_to(extent);
        if start >= end {
            return None;
        }
        let page = start - start % PAGE_BYTES as u32;
        let base = if extent.header_journaled { 0 } else { page };
        let mut data = AlignedBuf::new((end - base) as usize);
        if extent.header_journaled {
            let id = extent.id(config.cluster, config.store, self.tp, macs).expect("it is written to");
            data[..EXTENT_HEADER_BYTES].copy_from_slice(&id.to_block());
        }
        assert!(
            base == page || page == FIRST_POSITION,
            "an extent is journaled from its start, or written to in place"
        );
        let mut at = start;
        while at < end {
            let chunk =
                self.chunks.at_position(extent.sequence, at).expect("the cache has what the extents do not");
            // The first page also has frames that the extent already has.
            let from = if at == start { page } else { at };
            let to = chunk.to.min(end);
            data[(from - base) as usize..(to - base) as usize].copy_from_slice(&chunk.slice(from, to));
            at = to;
        }
        let filled = (end - base) as usize;
        data[filled..].fill(0);
        let place = extent.place.expect("it is written to");
        Some(ExtentWrite { slab: place.slab, at: place.at + u64::from(base), data })
    }
}
