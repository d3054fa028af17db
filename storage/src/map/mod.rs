//! The map of a store: which extents hold whose log, where the logs start, and checkpoints. Kept in the store's state log.
//!
//! It is a cache. Lost, it is rebuilt from the headers of the extents; then the start of logs is lost that was moved by
//! deleting records, and time.
//!
//! Records are applied in order on top of a snapshot. [`archive`] has their form on disk, [`older`] that of versions before, [`check`]
//! the checks of their numbers.

mod archive;
mod check;
mod older;
#[cfg(test)]
mod tests;
mod write_bounds;

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{
    Incarnation, LeaderEpoch, LogIndex, Offset, PartitionIndex, TopicId, TopicPartition,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::epochs::{EpochStart, Epochs};
use crate::extent::APPENDED_UNKNOWN;
use crate::layout::ExtentId;
use crate::mac::{MAC_KEY_BYTES, MacKey, StoreMacs};
use crate::producers::Producer;

pub use archive::MapError;
pub(crate) use write_bounds::WriteBounds;

/// A partition, as archives name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct PartitionKey {
    /// The topic.
    pub topic: [u8; 16],
    /// The partition's number.
    pub partition: u32,
}

impl From<TopicPartition> for PartitionKey {
    fn from(tp: TopicPartition) -> Self {
        Self { topic: tp.topic.0, partition: tp.partition.0 }
    }
}

impl From<PartitionKey> for TopicPartition {
    fn from(key: PartitionKey) -> Self {
        Self { topic: TopicId(key.topic), partition: PartitionIndex(key.partition) }
    }
}

/// Where a sealed extent ends. Recorded once everything before it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SealEntry {
    /// Where its last frame ends.
    pub position: u32,
    /// Index after it.
    pub index: u64,
    /// Offset after it.
    pub offset: i64,
    /// Largest timestamp of its batches; `i64::MIN` if it has none.
    pub max_timestamp: i64,
}

/// An extent in use.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ExtentEntry {
    /// Number of its slab.
    pub slab: u32,
    /// Where it begins in the slab.
    pub at: u64,
    /// Binary logarithm of its size.
    pub log2_bytes: u8,
    /// Version of its header: [`EXTENT_VERSION`](crate::layout::EXTENT_VERSION) or an older one.
    pub version: u16,
    /// Its place in the chain of the partition's extents. Rises along the chain.
    pub sequence: u64,
    /// How often its content was rewritten: 0 as it was appended.
    pub generation: u32,
    /// This use of the space.
    pub incarnation: u64,
    /// Index of its first frame.
    pub base_index: u64,
    /// Offset of its first record.
    pub base_offset: i64,
    /// Epoch of the leader when it was allocated.
    pub leader_epoch: i32,
    /// Frames may be missing between its frames: it was compacted.
    pub has_gaps: bool,
    /// When it was allocated, by the broker's clock.
    pub created_ms: i64,
    /// Where it ends, if it is sealed.
    pub sealed: Option<SealEntry>,
}

impl ExtentEntry {
    /// The entry that follows from the header of an extent. The header does not say when the extent was allocated, and where it ends only if it was rewritten.
    pub(crate) fn of_header(id: &ExtentId, created_ms: i64) -> Self {
        Self {
            slab: id.place.slab.0,
            at: id.place.at,
            log2_bytes: id.log2_bytes,
            version: id.version,
            sequence: id.sequence.0,
            generation: id.generation,
            incarnation: id.incarnation.0,
            base_index: id.base_index.0,
            base_offset: id.base_offset.0,
            leader_epoch: id.leader_epoch.0,
            has_gaps: id.has_gaps,
            created_ms,
            sealed: id.end.map(|end| SealEntry {
                position: end.position,
                index: end.index.0,
                offset: end.offset.0,
                max_timestamp: i64::MIN,
            }),
        }
    }
}

/// The first frame of a leader's epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: i32,
    /// Index of its first frame.
    pub index: u64,
    /// Offset of its first record.
    pub offset: i64,
}

impl From<&EpochStart> for EpochEntry {
    fn from(start: &EpochStart) -> Self {
        Self { epoch: start.epoch.0, index: start.index.0, offset: start.offset.0 }
    }
}

impl From<&EpochEntry> for EpochStart {
    fn from(entry: &EpochEntry) -> Self {
        Self { epoch: LeaderEpoch(entry.epoch), index: LogIndex(entry.index), offset: Offset(entry.offset) }
    }
}

/// The durable state of a partition at some moment: recovery reads on from there.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct CheckpointEntry {
    /// The place of the extent in the chain.
    pub sequence: u64,
    /// The extent.
    pub incarnation: u64,
    /// Where the next frame goes.
    pub position: u32,
    /// Its index.
    pub index: u64,
    /// Its offset.
    pub offset: i64,
    /// Every frame with a lower index was known to be committed.
    pub commit_index: u64,
    /// Every record with a lower offset was known to be committed.
    pub commit_offset: i64,
    /// The newest epoch: that of the last frame, or one that recovery began.
    pub last_epoch: Option<i32>,
    /// Largest timestamp of the extent's batches so far.
    pub max_timestamp: i64,
    /// Where each epoch began, as far as the log reaches back.
    pub epochs: Vec<EpochEntry>,
    /// The producers known.
    pub(crate) producers: Vec<Producer>,
}

impl CheckpointEntry {
    pub(crate) fn epochs(&self) -> Epochs {
        self.epochs.iter().map(EpochStart::from).collect()
    }
}

/// A partition in the map.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct PartitionEntry {
    /// Which.
    pub key: PartitionKey,
    /// Its first offset.
    pub log_start: i64,
    /// Its extents, oldest first.
    pub extents: Vec<ExtentEntry>,
    /// Its last checkpoint.
    pub checkpoint: Option<CheckpointEntry>,
    /// The checkpoint is where the log ends: nothing was written after it.
    pub complete: bool,
}

impl PartitionEntry {
    /// About the bytes it takes in a snapshot.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        let checkpoint = self.checkpoint.as_ref().map_or(0, |checkpoint| {
            size_of_val(&checkpoint.epochs[..]) + size_of_val(&checkpoint.producers[..])
        });
        size_of::<Self>() + size_of_val(&self.extents[..]) + checkpoint
    }

    /// A partition of which nothing is known yet.
    pub(crate) fn new(key: PartitionKey) -> Self {
        Self { key, log_start: 0, extents: Vec::new(), checkpoint: None, complete: false }
    }
}

/// Frames that were found when the map was rebuilt, in an extent whose header is damaged: of its partition only the tag is known.
///
/// Kept until that partition is deleted: it must not be taken for one without records, nor its space for free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct OrphanEntry {
    /// Number of its slab.
    pub slab: u32,
    /// Where it begins in the slab.
    pub at: u64,
    /// Binary logarithm of the space set aside for it.
    pub log2_bytes: u8,
    /// [`TopicPartition::tag`] of its partition.
    pub tag: u32,
    /// Index of its first frame.
    pub index: u64,
}

/// The key of the frames' codes, and the first incarnation that has them. See [`crate::mac`].
#[derive(Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct MacsEntry {
    key: [u8; MAC_KEY_BYTES],
    since: u64,
}

impl std::fmt::Debug for MacsEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MacsEntry(.., {})", self.since)
    }
}

impl From<StoreMacs> for MacsEntry {
    fn from(macs: StoreMacs) -> Self {
        Self { key: macs.key.0, since: macs.since.0 }
    }
}

impl From<MacsEntry> for StoreMacs {
    fn from(entry: MacsEntry) -> Self {
        Self { key: MacKey(entry.key), since: Incarnation(entry.since) }
    }
}

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
}

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
                self.checkpoint(key, checkpoint, false);
            }
            MapRecord::StartedAt { key, checkpoint } => {
                let all: Vec<u64> = self.partition(key).extents.iter().map(|e| e.incarnation).collect();
                self.free(key, &all);
                self.partition(key).log_start = checkpoint.offset;
                self.checkpoint(key, checkpoint, false);
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
