//! Whether the numbers of a map agree with each other, so that none of them can lead the store astray.

use highwater_protocol::ids::TopicPartition;

use super::{CheckpointEntry, ExtentEntry, PartitionEntry, StoreMap};
use crate::layout::{EXTENT_HEADER_BYTES, EXTENT_LOG2_BYTES};
use crate::limits::EPOCHS_PER_PARTITION_MAX;
use crate::position::{INCARNATION_MAX, OFFSET_MAX};

impl StoreMap {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.next_incarnation > INCARNATION_MAX {
            return Err(format!("incarnation {} is impossible", self.next_incarnation));
        }
        let mut space = Vec::new();
        for partition in self.partitions.values() {
            partition
                .check()
                .map_err(|what| format!("partition {}: {what}", TopicPartition::from(partition.key)))?;
            let newest = partition.extents.iter().map(|extent| extent.incarnation).max().unwrap_or(0);
            if newest >= self.next_incarnation {
                return Err(format!("extent {newest} was never reserved"));
            }
            space.extend(partition.extents.iter().map(|extent| (extent.slab, extent.at, extent.end_at())));
        }
        for (key, known) in &self.configurations {
            if !known.entries.is_sorted_by(|one, next| one.index < next.index) {
                let tp = TopicPartition::from(*key);
                return Err(format!("partition {tp}: its configurations are out of order"));
            }
        }
        space.sort_unstable();
        match space.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].2 > pair[1].1) {
            Some(pair) => Err(format!("slab {} at {} is in use twice", pair[1].0, pair[1].1)),
            None => Ok(()),
        }
    }
}

impl ExtentEntry {
    /// Where it ends in the slab.
    pub(crate) fn end_at(&self) -> u64 {
        self.at.saturating_add(1_u64.checked_shl(u32::from(self.log2_bytes)).unwrap_or(u64::MAX))
    }

    fn check(&self) -> Result<(), &'static str> {
        if !EXTENT_LOG2_BYTES.contains(&self.log2_bytes) || !self.at.is_multiple_of(1 << self.log2_bytes) {
            return Err("size and place do not fit");
        }
        let numbers = [self.at, self.incarnation, self.sequence, self.base_index];
        if numbers.iter().any(|n| *n > INCARNATION_MAX) || !(0..OFFSET_MAX).contains(&self.base_offset) {
            return Err("it begins where no extent can");
        }
        let Some(seal) = self.sealed else { return Ok(()) };
        let positions = EXTENT_HEADER_BYTES as u32..=1 << self.log2_bytes;
        let indexes = self.base_index..=INCARNATION_MAX;
        if !positions.contains(&seal.position)
            || !indexes.contains(&seal.index)
            || !(self.base_offset..OFFSET_MAX).contains(&seal.offset)
        {
            return Err("it ends where it cannot");
        }
        Ok(())
    }
}

impl PartitionEntry {
    fn check(&self) -> Result<(), String> {
        for extent in &self.extents {
            extent.check().map_err(|what| format!("extent {}: {what}", extent.incarnation))?;
        }
        if self.extents.windows(2).any(|pair| pair[0].sequence >= pair[1].sequence) {
            return Err("its extents are out of order".into());
        }
        if !(0..OFFSET_MAX).contains(&self.log_start) {
            return Err(format!("it cannot begin at offset {}", self.log_start));
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let extent = self.extents.iter().find(|extent| extent.incarnation == checkpoint.incarnation);
        if !checkpoint.is_possible(extent) {
            return Err("its checkpoint is impossible".into());
        }
        Ok(())
    }
}

impl CheckpointEntry {
    /// Whether its numbers can be, in this extent if that is still there.
    fn is_possible(&self, extent: Option<&ExtentEntry>) -> bool {
        let positions = EXTENT_HEADER_BYTES as u32..=extent.map_or(u32::MAX, |e| 1 << e.log2_bytes);
        let in_extent = positions.contains(&self.position) || (extent.is_none() && self.position == 0);
        let rising =
            |pair: &[super::EpochEntry]| pair[0].epoch < pair[1].epoch && pair[0].index <= pair[1].index;
        in_extent
            && extent.is_none_or(|extent| extent.sequence == self.sequence)
            && self.sequence.max(self.index) <= INCARNATION_MAX
            && (0..OFFSET_MAX).contains(&self.offset)
            && self.commit_index <= self.index
            && (0..=self.offset).contains(&self.commit_offset)
            && self.last_epoch.is_none_or(|epoch| epoch != i32::MAX)
            && self.epochs.len() <= EPOCHS_PER_PARTITION_MAX
            && self.epochs.windows(2).all(rising)
    }
}
