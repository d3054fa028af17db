//! The map of a store: which extents hold whose log, where the logs start, and checkpoints. Kept in the store's state log.
//!
//! It is a cache. Lost, it is rebuilt from the headers of the extents; then the start of logs is lost that was moved by
//! deleting records, and time.
//!
//! Records are applied in order on top of a snapshot. [`entries`] has what both consist of, [`archive`] their form on disk, [`older`] that of versions before, [`check`]
//! the checks of their numbers.

mod archive;
mod check;
mod entries;
mod older;
#[cfg(test)]
mod tests;
mod write_bounds;

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{Incarnation, TopicPartition};
use rkyv::{Archive, Deserialize, Serialize};

use crate::extent::APPENDED_UNKNOWN;
use crate::mac::StoreMacs;

pub use archive::MapError;
pub(crate) use entries::MacsEntry;
pub use entries::{
    CheckpointEntry, ConfigurationEntry, ConfigurationsEntry, EpochEntry, ExtentEntry, OrphanEntry,
    PartitionEntry, PartitionKey, ReplicaStateEntry, SealEntry,
};
pub(crate) use write_bounds::WriteBounds;

/// A change of the map.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub(crate) enum MapRecord {
    /// Incarnations below this number may be in use.
    Reserve { next_incarnation: u64 },
    /// An extent was given to a partition.
    Allocated { key: PartitionKey, extent: ExtentEntry },
    /// An extent is complete and durable.
    Sealed { key: PartitionKey, incarnation: u64, seal: SealEntry },
    /// Extents of a partition are free again.
    Freed { key: PartitionKey, incarnations: Vec<u64>, log_start: i64 },
    /// Records below this offset are deleted.
    LogStart { key: PartitionKey, log_start: i64 },
    /// The durable state of a partition, and whether the log ends there.
    Checkpoint { key: PartitionKey, checkpoint: CheckpointEntry, complete: bool },
    /// A partition whose end the map knew is going to be written to.
    Reactivated { key: PartitionKey },
    /// A partition is gone, with all its extents.
    Deleted { key: PartitionKey },
    /// When the last batch without a timestamp was appended to an extent.
    Untimed { incarnation: u64, appended_ms: i64 },
    /// From here on frames have codes.
    Macs(MacsEntry),
    /// The end of a log was cut off: these extents are free, and the last one that is left ends where the checkpoint is.
    Truncated { key: PartitionKey, incarnations: Vec<u64>, checkpoint: CheckpointEntry },
    /// A log was abandoned and restarts, empty, at the checkpoint.
    StartedAt { key: PartitionKey, checkpoint: CheckpointEntry },
    /// Extents of a partition are free again, and one that was rewritten from them is in their place.
    Replaced { key: PartitionKey, incarnations: Vec<u64>, extent: ExtentEntry },
    /// From here on the journal has pieces, in entries of this era. 0: it has none that is needed.
    Journal { era: u64 },
    /// No frame of this incarnation was written at or after this position.
    WriteBound { incarnation: u64, position: u32 },
    /// When the tombstones in a compacted extent may all be removed.
    Horizon { incarnation: u64, horizon_ms: i64 },
    /// The state of a partition's replica.
    ReplicaState { key: PartitionKey, state: ReplicaStateEntry },
    /// The configurations in a log, up to the checkpoint that follows.
    Configurations { key: PartitionKey, configurations: ConfigurationsEntry },
    /// A log was abandoned and restarts, empty, at the checkpoint, with at most one configuration.
    StartedWith { key: PartitionKey, configuration: Vec<ConfigurationEntry>, checkpoint: CheckpointEntry },
}

/// The root of an archive is found from its end, so variants of records that are on disk may not make it larger.
const _: () = assert!(size_of::<ArchivedMapRecord>() == 152);

/// The map as the state log has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreMap {
    /// No extent has had this incarnation or a later one.
    pub next_incarnation: u64,
    /// The store was shut down in order and nothing was done since.
    pub clean: bool,
    /// The partitions that have records or had some.
    pub partitions: BTreeMap<PartitionKey, PartitionEntry>,
    /// Extents without a readable header.
    pub orphans: Vec<OrphanEntry>,
    /// When the last batch without a timestamp was appended, for the extents that have one.
    pub untimed: BTreeMap<u64, i64>,
    /// When the tombstones in an extent may all be removed, for the compacted extents that have some.
    pub horizons: BTreeMap<u64, i64>,
    /// The frames' codes, once there are some.
    pub macs: Option<StoreMacs>,
    /// The era of the journal, if it has pieces.
    pub journal: Option<Incarnation>,
    /// How far the extents may have been written, by incarnation. Without one, up to the end.
    pub(crate) write_bounds: WriteBounds,
    /// The states of replicas.
    pub(crate) replicas: BTreeMap<PartitionKey, ReplicaStateEntry>,
    /// The configurations in the logs that have some.
    pub(crate) configurations: BTreeMap<PartitionKey, ConfigurationsEntry>,
    /// Partitions that had a configuration, as the headers say from which the map was rebuilt.
    pub(crate) configured: BTreeSet<PartitionKey>,
    /// Partitions whose last checkpoint was written by a version that did not keep where epochs began.
    pub(crate) without_epochs: BTreeSet<PartitionKey>,
}

impl StoreMap {
    /// Nothing is known of when the batches in extents with lower incarnations than this were appended, but that it was before the next
    /// extent of the partition was begun.
    pub(crate) fn forget_append_times(&mut self, below: u64) {
        for partition in self.partitions.values() {
            let begun = partition.extents.iter().skip(1).map(|next| next.created_ms);
            let until = begun.chain([APPENDED_UNKNOWN]);
            for (extent, until) in partition.extents.iter().zip(until) {
                if extent.incarnation < below {
                    self.untimed.entry(extent.incarnation).or_insert(until);
                }
            }
        }
    }

    /// Whether the journal may have something that the extents do not.
    pub(crate) fn may_need_journal(&self) -> bool {
        !self.clean || self.journal.is_some()
    }

    /// Applies a change.
    pub(crate) fn apply(&mut self, record: MapRecord) {
        self.clean = false;
        match record {
            MapRecord::Reserve { next_incarnation } => {
                self.next_incarnation = next_incarnation.max(self.next_incarnation);
            }
            MapRecord::Allocated { key, extent } => self.add_extent(key, extent),
            MapRecord::Sealed { key, incarnation, seal } => {
                if let Some(extent) = self.extent(key, incarnation) {
                    extent.sealed = Some(seal);
                }
            }
            MapRecord::Freed { key, incarnations, log_start } => {
                self.free(key, &incarnations);
                self.partition(key).log_start = log_start;
            }
            MapRecord::Untimed { incarnation, appended_ms } => {
                self.untimed.insert(incarnation, appended_ms);
            }
            MapRecord::Horizon { incarnation, horizon_ms } => {
                self.horizons.insert(incarnation, horizon_ms);
            }
            MapRecord::Macs(macs) => self.macs = Some(macs.into()),
            MapRecord::Journal { era } => {
                self.journal = Some(Incarnation(era)).filter(|_| era > 0);
                self.next_incarnation = self.next_incarnation.max(era.saturating_add(1));
            }
            MapRecord::WriteBound { incarnation, position } => {
                self.write_bounds.note(incarnation, position);
                self.next_incarnation = self.next_incarnation.max(incarnation.saturating_add(1));
            }
            MapRecord::LogStart { key, log_start } => self.partition(key).log_start = log_start,
            MapRecord::Checkpoint { key, checkpoint, complete } => self.checkpoint(key, checkpoint, complete),
            MapRecord::Reactivated { key } => self.partition(key).complete = false,
            MapRecord::Deleted { key } => self.delete(key),
            MapRecord::Truncated { key, incarnations, checkpoint } => {
                self.free(key, &incarnations);
                if let Some(extent) = self.extent(key, checkpoint.incarnation) {
                    extent.sealed = Some(SealEntry {
                        position: checkpoint.position,
                        index: checkpoint.index,
                        offset: checkpoint.offset,
                        max_timestamp: checkpoint.max_timestamp,
                    });
                }
                if let Some(configurations) = self.configurations.get_mut(&key) {
                    configurations.entries.retain(|entry| entry.index < checkpoint.index);
                }
                self.checkpoint(key, checkpoint, false);
            }
            MapRecord::StartedAt { key, checkpoint } => self.start_at(key, None, checkpoint),
            MapRecord::StartedWith { key, configuration, checkpoint } => {
                self.start_at(key, configuration.into_iter().next(), checkpoint);
            }
            MapRecord::ReplicaState { key, state } => {
                self.partition(key);
                self.replicas.insert(key, state);
            }
            MapRecord::Configurations { key, configurations } => {
                self.configurations.insert(key, configurations);
            }
            MapRecord::Replaced { key, incarnations, extent } => {
                self.free(key, &incarnations);
                self.add_extent(key, extent);
            }
        }
    }

    /// Adds an extent at its place in the chain, unless the snapshot had it already: see `store/snapshot.rs`.
    fn add_extent(&mut self, key: PartitionKey, extent: ExtentEntry) {
        self.next_incarnation = self.next_incarnation.max(extent.incarnation.saturating_add(1));
        let extents = &mut self.partition(key).extents;
        if extents.iter().all(|other| other.incarnation != extent.incarnation) {
            let at = extents.partition_point(|other| other.sequence < extent.sequence);
            extents.insert(at, extent);
        }
    }

    fn start_at(&mut self, key: PartitionKey, base: Option<ConfigurationEntry>, checkpoint: CheckpointEntry) {
        let all: Vec<u64> = self.partition(key).extents.iter().map(|e| e.incarnation).collect();
        self.free(key, &all);
        self.partition(key).log_start = checkpoint.offset;
        self.checkpoint(key, checkpoint, false);
        self.configurations.remove(&key);
        if base.is_some() {
            self.configurations.insert(key, ConfigurationsEntry { base, ..ConfigurationsEntry::default() });
        }
    }

    fn checkpoint(&mut self, key: PartitionKey, checkpoint: CheckpointEntry, complete: bool) {
        self.without_epochs.remove(&key);
        let partition = self.partition(key);
        partition.checkpoint = Some(checkpoint);
        partition.complete = complete;
    }

    fn free(&mut self, key: PartitionKey, incarnations: &[u64]) {
        let partition = self.partition(key);
        partition.extents.retain(|extent| !incarnations.contains(&extent.incarnation));
        for incarnation in incarnations {
            self.untimed.remove(incarnation);
            self.write_bounds.forget(*incarnation);
            self.horizons.remove(incarnation);
        }
    }

    fn delete(&mut self, key: PartitionKey) {
        for extent in self.partitions.remove(&key).into_iter().flat_map(|p| p.extents) {
            self.untimed.remove(&extent.incarnation);
            self.write_bounds.forget(extent.incarnation);
            self.horizons.remove(&extent.incarnation);
        }
        self.without_epochs.remove(&key);
        self.replicas.remove(&key);
        self.configurations.remove(&key);
        let tag = TopicPartition::from(key).tag();
        self.orphans.retain(|orphan| orphan.tag != tag);
    }

    fn partition(&mut self, key: PartitionKey) -> &mut PartitionEntry {
        self.partitions.entry(key).or_insert_with(|| PartitionEntry::new(key))
    }

    fn extent(&mut self, key: PartitionKey, incarnation: u64) -> Option<&mut ExtentEntry> {
        self.partition(key).extents.iter_mut().find(|extent| extent.incarnation == incarnation)
    }
}
