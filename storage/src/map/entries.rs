//! The entries of a map, as archives have them.

use bytes::Bytes;
use highwater_protocol::ids::{
    Incarnation, LeaderEpoch, LogIndex, NodeId, Offset, PartitionIndex, TopicId, TopicPartition,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::api::ReplicaState;
use crate::configurations::{Configuration, Configurations};
use crate::epochs::{EpochStart, Epochs};
use crate::layout::ExtentId;
use crate::mac::{MAC_KEY_BYTES, MacKey, StoreMacs};
use crate::producers::Producer;

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
    /// Epoch of the frame with the base index, which compaction may have removed.
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

/// What the replica of a partition must never forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ReplicaStateEntry {
    /// The highest term that the replica has seen.
    pub term: i32,
    /// The candidate that got its vote in this term: node, and which of the node's disks.
    pub vote: Option<(u32, u32)>,
    /// The term in which it had lost the end of its log.
    pub lost_in: Option<i32>,
}

impl From<ReplicaState> for ReplicaStateEntry {
    fn from(state: ReplicaState) -> Self {
        Self {
            term: state.term.0,
            vote: state.vote.map(|(node, disk)| (node.0, disk)),
            lost_in: state.lost_in.map(|term| term.0),
        }
    }
}

impl From<ReplicaStateEntry> for ReplicaState {
    fn from(entry: ReplicaStateEntry) -> Self {
        Self {
            term: LeaderEpoch(entry.term),
            vote: entry.vote.map(|(node, disk)| (NodeId(node), disk)),
            lost_in: entry.lost_in.map(LeaderEpoch),
        }
    }
}

/// A configuration of a partition's replicas.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ConfigurationEntry {
    /// Index of its frame.
    pub index: u64,
    /// Its content, which only replication knows.
    pub payload: Vec<u8>,
}

impl From<&Configuration> for ConfigurationEntry {
    fn from(configuration: &Configuration) -> Self {
        Self { index: configuration.index.0, payload: configuration.payload.to_vec() }
    }
}

impl From<&ConfigurationEntry> for Configuration {
    fn from(entry: &ConfigurationEntry) -> Self {
        Self { index: LogIndex(entry.index), payload: Bytes::copy_from_slice(&entry.payload) }
    }
}

/// The configurations of a partition's replicas in its log, up to the partition's checkpoint.
#[derive(Clone, PartialEq, Eq, Default, Debug, Archive, Serialize, Deserialize)]
pub struct ConfigurationsEntry {
    /// The one at the start of the log.
    pub base: Option<ConfigurationEntry>,
    /// Those of later frames, in order.
    pub entries: Vec<ConfigurationEntry>,
    /// One before these was lost with an earlier map.
    pub has_lost_one: bool,
}

impl ConfigurationsEntry {
    /// Returns whether there are any.
    pub(crate) fn is_needed(&self) -> bool {
        self.base.is_some() || !self.entries.is_empty() || self.has_lost_one
    }

    /// About the bytes it takes in a snapshot.
    pub(crate) fn bytes(&self) -> usize {
        let all = self.base.iter().chain(&self.entries);
        all.map(|entry| size_of::<ConfigurationEntry>() + entry.payload.len()).sum()
    }

    /// Returns the configurations of a log that ends before this index.
    pub(crate) fn below(&self, end: LogIndex) -> Configurations {
        let entries = self.entries.iter().filter(|entry| entry.index < end.0);
        let mut known = Configurations::new(
            self.base.as_ref().map(Configuration::from),
            entries.map(Configuration::from).collect(),
        );
        known.has_lost_one = self.has_lost_one;
        known.is_unrecorded = known.entries().len() < self.entries.len();
        known
    }
}

impl Configurations {
    /// Returns those of a log that ends before this index, as the map has them.
    pub(crate) fn entry(&self, end: LogIndex) -> ConfigurationsEntry {
        let entries = self.entries().iter().filter(|entry| entry.index < end);
        ConfigurationsEntry {
            base: self.base().map(ConfigurationEntry::from),
            entries: entries.map(ConfigurationEntry::from).collect(),
            has_lost_one: self.has_lost_one,
        }
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
    pub(super) key: [u8; MAC_KEY_BYTES],
    pub(super) since: u64,
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
