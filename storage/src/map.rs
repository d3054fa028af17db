//! The map of a store: which extents hold whose log, where the logs start, and checkpoints. Kept in the store's state log.
//!
//! It is a cache. Lost, it is rebuilt from the headers of the extents; what is lost then is the start of logs that was moved by
//! deleting records, and time.
//!
//! Snapshot and records are rkyv archives behind a version byte. Records are applied in order on top of the snapshot.
//!
//! Versions before 3 do not say when batches without a timestamp were appended, and what they say of largest timestamps is what the
//! producers' headers said. An extent of theirs counts as appended to until the next one was begun, so that retention keeps rather too
//! much of it.

use std::collections::BTreeMap;

use highwater_protocol::ids::{Incarnation, PartitionIndex, TopicId, TopicPartition};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::extent::APPENDED_UNKNOWN;
use crate::layout::{EXTENT_HEADER_BYTES, EXTENT_LOG2_BYTES, ExtentId};
use crate::mac::{MAC_KEY_BYTES, MacKey, StoreMacs};
use crate::producers::Producer;
use crate::recovery::OFFSET_MAX;

/// Version of the archives. Written in front of each.
const MAP_VERSION: u8 = 4;

/// The version before frames had codes.
const MAP_VERSION_WITHOUT_MACS: u8 = 3;

/// The version before times of appending were kept.
const MAP_VERSION_WITHOUT_TIMES: u8 = 2;

/// The version before orphans were kept. Its records are those of version 2.
const MAP_VERSION_WITHOUT_ORPHANS: u8 = 1;

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

/// Where a sealed extent ends. Recorded once everything in front of it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SealEntry {
    /// Where its last frame ends.
    pub position: u32,
    /// Index behind it.
    pub index: u64,
    /// Offset behind it.
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
    /// Its life.
    pub incarnation: u64,
    /// Index of its first frame.
    pub base_index: u64,
    /// Offset of its first record.
    pub base_offset: i64,
    /// Epoch of the leader when it was allocated.
    pub leader_epoch: i32,
    /// When it was allocated, by the broker's clock.
    pub created_ms: i64,
    /// Where it ends, if it is sealed.
    pub sealed: Option<SealEntry>,
}

impl ExtentEntry {
    /// What the header of an extent says, which was not sealed as far as is known. It does not say when it was allocated.
    pub(crate) fn of_header(id: &ExtentId, created_ms: i64) -> Self {
        Self {
            slab: id.place.slab.0,
            at: id.place.at,
            log2_bytes: id.log2_bytes,
            incarnation: id.incarnation.0,
            base_index: id.base_index.0,
            base_offset: id.base_offset.0,
            leader_epoch: id.leader_epoch.0,
            created_ms,
            sealed: None,
        }
    }
}

/// What was durable of a partition at some moment: recovery reads on from there.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct CheckpointEntry {
    /// The extent.
    pub incarnation: u64,
    /// Where the next frame goes.
    pub position: u32,
    /// Its index.
    pub index: u64,
    /// Its offset.
    pub offset: i64,
    /// The newest epoch: that of the last frame, or one that recovery began.
    pub last_epoch: Option<i32>,
    /// Largest timestamp of the extent's batches so far.
    pub max_timestamp: i64,
    /// The producers known.
    pub(crate) producers: Vec<Producer>,
}

/// What the map knows of a partition.
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
    /// The checkpoint is where the log ends: nothing was written behind it.
    pub complete: bool,
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

#[derive(Archive, Serialize, Deserialize)]
struct Snapshot {
    next_incarnation: u64,
    clean: bool,
    partitions: Vec<PartitionEntry>,
    orphans: Vec<OrphanEntry>,
    untimed: Vec<UntimedEntry>,
    macs: Option<MacsEntry>,
}

/// The key of the frames' codes, and the first life that has them. See [`crate::mac`].
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

/// When the last batch without a timestamp was appended to an extent.
#[derive(Archive, Serialize, Deserialize)]
struct UntimedEntry {
    incarnation: u64,
    appended_ms: i64,
}

/// A snapshot of [`MAP_VERSION_WITHOUT_MACS`].
#[derive(Archive, Serialize, Deserialize)]
struct SnapshotWithoutMacs {
    next_incarnation: u64,
    clean: bool,
    partitions: Vec<PartitionEntry>,
    orphans: Vec<OrphanEntry>,
    untimed: Vec<UntimedEntry>,
}

/// A snapshot of [`MAP_VERSION_WITHOUT_TIMES`].
#[derive(Archive, Serialize, Deserialize)]
struct SnapshotWithoutTimes {
    next_incarnation: u64,
    clean: bool,
    partitions: Vec<PartitionEntry>,
    orphans: Vec<OrphanEntry>,
}

/// A snapshot of [`MAP_VERSION_WITHOUT_ORPHANS`].
#[derive(Archive, Serialize, Deserialize)]
struct SnapshotWithoutOrphans {
    next_incarnation: u64,
    clean: bool,
    partitions: Vec<PartitionEntry>,
}

/// A change of the map.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub(crate) enum MapRecord {
    /// Lives of extents below this number may be in use.
    Reserve { next_incarnation: u64 },
    /// An extent was given to a partition.
    Allocated { key: PartitionKey, extent: ExtentEntry },
    /// An extent is complete and durable.
    Sealed { key: PartitionKey, incarnation: u64, seal: SealEntry },
    /// Extents of a partition are free again.
    Freed { key: PartitionKey, incarnations: Vec<u64>, log_start: i64 },
    /// Records below this offset are deleted.
    LogStart { key: PartitionKey, log_start: i64 },
    /// What is durable of a partition, and whether it comes to rest there.
    Checkpoint { key: PartitionKey, checkpoint: CheckpointEntry, complete: bool },
    /// A partition that rested is going to be written to.
    Woken { key: PartitionKey },
    /// A partition is gone, with all its extents.
    Deleted { key: PartitionKey },
    /// When the last batch without a timestamp was appended to an extent. Since version 3.
    Untimed { incarnation: u64, appended_ms: i64 },
    /// From here on frames have codes. Since version 4.
    Macs(MacsEntry),
}

/// The map as the state log tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreMap {
    /// No extent has had this life or a later one.
    pub next_incarnation: u64,
    /// The store was shut down in order and nothing was done since.
    pub clean: bool,
    /// The partitions that have records or had some.
    pub partitions: BTreeMap<PartitionKey, PartitionEntry>,
    /// Extents without a readable header.
    pub orphans: Vec<OrphanEntry>,
    /// When the last batch without a timestamp was appended, for the extents that have one.
    pub untimed: BTreeMap<u64, i64>,
    /// The frames' codes, once there are some.
    pub macs: Option<StoreMacs>,
}

/// The map cannot be read, although the state log vouches for its bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    /// Written by a newer version.
    #[error("the map of the store has version {0}, newer than this build understands")]
    Newer(u8),
    /// Not a map.
    #[error("the map of the store cannot be read: {0}")]
    Invalid(String),
}

impl StoreMap {
    /// The map from what a state log recovered.
    pub fn from_recovered<'a>(
        snapshot: Option<&[u8]>,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, MapError> {
        // Extents with lower lives were begun by an older version.
        let mut older_below = 0;
        let mut map = match snapshot {
            None => Self { next_incarnation: 1, clean: true, ..Self::default() },
            Some(bytes) => {
                let snapshot = Snapshot::decode(bytes)?;
                if is_older(bytes) {
                    older_below = snapshot.next_incarnation;
                }
                Self {
                    next_incarnation: snapshot.next_incarnation,
                    clean: snapshot.clean,
                    partitions: snapshot.partitions.into_iter().map(|p| (p.key, p)).collect(),
                    orphans: snapshot.orphans,
                    untimed: snapshot.untimed.iter().map(|u| (u.incarnation, u.appended_ms)).collect(),
                    macs: snapshot.macs.map(StoreMacs::from),
                }
            }
        };
        for bytes in records {
            let record = rkyv::from_bytes::<MapRecord, RkyvError>(&aligned(bytes)?).map_err(invalid)?;
            map.apply(record);
            if is_older(bytes) {
                older_below = map.next_incarnation;
            }
        }
        map.forget_append_times(older_below);
        map.check().map_err(MapError::Invalid)?;
        Ok(map)
    }

    /// Nothing is known of when the batches in extents with lower lives than this were appended, but that it was before the next extent of
    /// the partition was begun.
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

    /// Whether the numbers agree with each other, so that none of them can lead the store astray.
    fn check(&self) -> Result<(), String> {
        if self.next_incarnation > INCARNATION_MAX {
            return Err(format!("incarnation {} is impossible", self.next_incarnation));
        }
        let mut space = Vec::new();
        for partition in self.partitions.values() {
            partition
                .check()
                .map_err(|what| format!("partition {}: {what}", TopicPartition::from(partition.key)))?;
            let last = partition.extents.last().map_or(0, |extent| extent.incarnation);
            if last >= self.next_incarnation {
                return Err(format!("extent {last} was never reserved"));
            }
            space.extend(partition.extents.iter().map(|extent| (extent.slab, extent.at, extent.end_at())));
        }
        space.sort_unstable();
        match space.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].2 > pair[1].1) {
            Some(pair) => Err(format!("slab {} at {} is in use twice", pair[1].0, pair[1].1)),
            None => Ok(()),
        }
    }

    /// The archive of this map.
    pub(crate) fn encode(self) -> Vec<u8> {
        let snapshot = Snapshot {
            next_incarnation: self.next_incarnation,
            clean: self.clean,
            partitions: self.partitions.into_values().collect(),
            orphans: self.orphans,
            untimed: self
                .untimed
                .into_iter()
                .map(|(incarnation, appended_ms)| UntimedEntry { incarnation, appended_ms })
                .collect(),
            macs: self.macs.map(MacsEntry::from),
        };
        encode(|bytes| {
            rkyv::to_bytes::<RkyvError>(&snapshot).map(|archive| bytes.extend_from_slice(&archive))
        })
    }

    /// Applies a change.
    pub(crate) fn apply(&mut self, record: MapRecord) {
        self.clean = false;
        match record {
            MapRecord::Reserve { next_incarnation } => {
                self.next_incarnation = next_incarnation.max(self.next_incarnation);
            }
            MapRecord::Allocated { key, extent } => {
                self.next_incarnation = self.next_incarnation.max(extent.incarnation.saturating_add(1));
                self.partition(key).extents.push(extent);
            }
            MapRecord::Sealed { key, incarnation, seal } => {
                if let Some(extent) =
                    self.partition(key).extents.iter_mut().find(|e| e.incarnation == incarnation)
                {
                    extent.sealed = Some(seal);
                }
            }
            MapRecord::Freed { key, incarnations, log_start } => {
                let partition = self.partition(key);
                partition.extents.retain(|extent| !incarnations.contains(&extent.incarnation));
                partition.log_start = log_start;
                self.untimed.retain(|incarnation, _| !incarnations.contains(incarnation));
            }
            MapRecord::Untimed { incarnation, appended_ms } => {
                self.untimed.insert(incarnation, appended_ms);
            }
            MapRecord::Macs(macs) => self.macs = Some(macs.into()),
            MapRecord::LogStart { key, log_start } => self.partition(key).log_start = log_start,
            MapRecord::Checkpoint { key, checkpoint, complete } => {
                let partition = self.partition(key);
                partition.checkpoint = Some(checkpoint);
                partition.complete = complete;
            }
            MapRecord::Woken { key } => self.partition(key).complete = false,
            MapRecord::Deleted { key } => {
                for extent in self.partitions.remove(&key).into_iter().flat_map(|p| p.extents) {
                    self.untimed.remove(&extent.incarnation);
                }
                let tag = TopicPartition::from(key).tag();
                self.orphans.retain(|orphan| orphan.tag != tag);
            }
        }
    }

    fn partition(&mut self, key: PartitionKey) -> &mut PartitionEntry {
        self.partitions.entry(key).or_insert_with(|| PartitionEntry {
            key,
            log_start: 0,
            extents: Vec::new(),
            checkpoint: None,
            complete: false,
        })
    }
}

/// No store gets there; below it, adding to an incarnation, an index or a place cannot overflow.
pub(crate) const INCARNATION_MAX: u64 = 1 << 62;

impl ExtentEntry {
    /// Where it ends in the slab.
    pub(crate) fn end_at(&self) -> u64 {
        self.at.saturating_add(1_u64.checked_shl(u32::from(self.log2_bytes)).unwrap_or(u64::MAX))
    }

    fn check(&self) -> Result<(), &'static str> {
        if !EXTENT_LOG2_BYTES.contains(&self.log2_bytes) || !self.at.is_multiple_of(1 << self.log2_bytes) {
            return Err("size and place do not fit");
        }
        let numbers = [self.at, self.incarnation, self.base_index];
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
        if self.extents.windows(2).any(|pair| pair[0].incarnation >= pair[1].incarnation) {
            return Err("its extents are out of order".into());
        }
        if !(0..OFFSET_MAX).contains(&self.log_start) {
            return Err(format!("it cannot begin at offset {}", self.log_start));
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let extent = self.extents.iter().find(|extent| extent.incarnation == checkpoint.incarnation);
        let positions = EXTENT_HEADER_BYTES as u32..=extent.map_or(u32::MAX, |e| 1 << e.log2_bytes);
        let fits = positions.contains(&checkpoint.position) || (extent.is_none() && checkpoint.position == 0);
        if !fits
            || checkpoint.index > INCARNATION_MAX
            || !(0..OFFSET_MAX).contains(&checkpoint.offset)
            || checkpoint.last_epoch.is_some_and(|epoch| epoch == i32::MAX)
        {
            return Err("its checkpoint is impossible".into());
        }
        Ok(())
    }
}

impl Snapshot {
    fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        let archive = aligned(bytes)?;
        let old = match bytes.first() {
            Some(&MAP_VERSION_WITHOUT_ORPHANS) => {
                let old = rkyv::from_bytes::<SnapshotWithoutOrphans, RkyvError>(&archive).map_err(invalid)?;
                let SnapshotWithoutOrphans { next_incarnation, clean, partitions } = old;
                SnapshotWithoutTimes { next_incarnation, clean, partitions, orphans: Vec::new() }
            }
            Some(&MAP_VERSION_WITHOUT_TIMES) => {
                rkyv::from_bytes::<SnapshotWithoutTimes, RkyvError>(&archive).map_err(invalid)?
            }
            Some(&MAP_VERSION_WITHOUT_MACS) => {
                let old = rkyv::from_bytes::<SnapshotWithoutMacs, RkyvError>(&archive).map_err(invalid)?;
                let SnapshotWithoutMacs { next_incarnation, clean, partitions, orphans, untimed } = old;
                return Ok(Self { next_incarnation, clean, partitions, orphans, untimed, macs: None });
            }
            _ => return rkyv::from_bytes::<Self, RkyvError>(&archive).map_err(invalid),
        };
        let SnapshotWithoutTimes { next_incarnation, clean, partitions, orphans } = old;
        Ok(Self { next_incarnation, clean, partitions, orphans, untimed: Vec::new(), macs: None })
    }
}

/// Whether an archive is of a version before times of appending were kept.
fn is_older(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|version| *version <= MAP_VERSION_WITHOUT_TIMES)
}

impl MapRecord {
    /// The archive of this record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(|bytes| rkyv::to_bytes::<RkyvError>(self).map(|archive| bytes.extend_from_slice(&archive)))
    }
}

fn encode(archive: impl FnOnce(&mut Vec<u8>) -> Result<(), RkyvError>) -> Vec<u8> {
    let mut bytes = vec![MAP_VERSION];
    archive(&mut bytes).expect("an archive in memory has no reason to fail");
    bytes
}

/// The archive behind the version byte, where rkyv wants it in memory.
fn aligned(bytes: &[u8]) -> Result<AlignedVec, MapError> {
    match bytes.split_first() {
        Some((MAP_VERSION_WITHOUT_ORPHANS..=MAP_VERSION, archive)) => {
            let mut aligned = AlignedVec::with_capacity(archive.len());
            aligned.extend_from_slice(archive);
            Ok(aligned)
        }
        Some((&version, _)) if version > MAP_VERSION => Err(MapError::Newer(version)),
        _ => Err(MapError::Invalid("no version".into())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn invalid(error: RkyvError) -> MapError {
    MapError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests;
