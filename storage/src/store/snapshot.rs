//! Snapshots of the map, written over many turns.
//!
//! A store can have hundreds of thousands of partitions, so a snapshot goes through them in order and adds some of them each turn. It is *fuzzy*:
//! each partition is written as it is when it is reached, and the state log carries over every record that was added since the snapshot began. So
//! replay applies these records to partitions that already include some of them. The result is the same map, because records set what they name: the
//! last record about an extent, a checkpoint or the start of a log decides, and the snapshot decides about everything else.
//! [`StoreMap::apply`](crate::map::StoreMap) does its part: it does not add an extent twice.

use std::ops::Bound;

use highwater_protocol::ids::{LogIndex, TopicPartition};
use highwater_runtime::plane::Disk;

use super::Store;
use crate::extent::Extent;
use crate::map::{PartitionEntry, StoreMap};

/// A snapshot of the map that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapSnapshot {
    /// The last partition written to it.
    after: Option<TopicPartition>,
    /// Whether nothing will be written after it, because the store is being closed.
    is_last: bool,
}

impl Store {
    /// Begins a snapshot of the map. [`continue_snapshot`](Self::continue_snapshot) writes it.
    pub(super) fn begin_snapshot(&mut self, is_last: bool) {
        self.state.begin_snapshot();
        self.snapshot = Some(MapSnapshot { after: None, is_last });
        let head = self.map_head(is_last).encode();
        self.state.add_to_snapshot(&head);
    }

    /// Writes more of the snapshot, if one is in progress. Returns whether it is incomplete.
    pub(super) fn continue_snapshot(&mut self, disk: &mut dyn Disk) -> bool {
        let Some(MapSnapshot { after, is_last }) = self.snapshot else { return false };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut piece = StoreMap { clean: is_last, ..StoreMap::default() };
        let (mut bytes, mut last) = (0, None);
        for (tp, slot) in self.by_tp.range((from, Bound::Unbounded)) {
            if bytes >= self.config.limits.snapshot_bytes_per_turn as usize {
                break;
            }
            last = Some(*tp);
            let partition = self.partitions.get(slot.0).expect("a partition with a name is there");
            let entry = partition.entry(is_last);
            bytes += entry.snapshot_bytes();
            let end = entry.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index);
            let configurations = partition.configurations.entry(LogIndex(end));
            bytes += configurations.bytes();
            if entry.is_needed() || partition.replica.recorded.is_some() {
                piece.replicas.extend(partition.replica.recorded.map(|state| (entry.key, state.into())));
                piece
                    .configurations
                    .extend(configurations.is_needed().then_some((entry.key, configurations)));
                piece.untimed.extend(partition.extents.iter().filter_map(Extent::untimed));
                let bounds = partition.extents.iter().filter_map(Extent::write_bound_entry);
                piece.write_bounds.append(&mut bounds.collect());
                piece.horizons.extend(partition.extents.iter().filter_map(Extent::horizon));
                piece.partitions.insert(entry.key, entry);
            }
        }
        if let Some(last) = last {
            self.stats.snapshot_bytes_per_turn_max = self.stats.snapshot_bytes_per_turn_max.max(bytes as u64);
            self.snapshot = Some(MapSnapshot { after: Some(last), is_last });
            self.state.add_to_snapshot(&piece.encode());
            return true;
        }
        self.snapshot = None;
        self.state.end_snapshot(disk);
        false
    }

    /// Returns a snapshot of the whole map at once, which takes long. Only used at the start.
    pub(super) fn snapshot_at_once(&mut self, disk: &mut dyn Disk) {
        self.begin_snapshot(false);
        while self.continue_snapshot(disk) {}
    }

    /// Returns the map without partitions.
    fn map_head(&self, is_last: bool) -> StoreMap {
        // After an orderly stop no write is in flight, so the next incarnation is known. An old copy of the map is recognised by data that later
        // incarnations wrote.
        let reserved = if is_last { 0 } else { self.space.reserved };
        StoreMap {
            next_incarnation: reserved.max(self.space.next_incarnation),
            clean: is_last,
            orphans: self.orphans.entries().collect(),
            macs: Some(self.macs),
            // After an orderly stop the extents have everything.
            journal: if is_last { self.journal.era_at_rest() } else { self.journal.era() },
            ..StoreMap::default()
        }
    }
}

impl PartitionEntry {
    /// Returns whether the map would lose anything by forgetting the partition.
    fn is_needed(&self) -> bool {
        !self.extents.is_empty()
            || self.log_start > 0
            || self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.index > 0)
    }
}
