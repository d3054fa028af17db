//! The map of a store: which extents hold whose log, where the logs start, and checkpoints. Kept in the store's state log.
//!
//! It is a cache. Lost, it is rebuilt from the headers of the extents; what is lost then is the start of logs that was moved by
//! deleting records, and time.
//!
//! Snapshot and records are rkyv archives behind a version byte. Records are applied in order on top of the snapshot.

use std::collections::BTreeMap;

use highwater_protocol::ids::{PartitionIndex, TopicId, TopicPartition};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::producers::Producer;

/// Version of the archives. Written in front of each.
const MAP_VERSION: u8 = 1;

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

#[derive(Archive, Serialize, Deserialize)]
struct Snapshot {
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
        let mut map = match snapshot {
            None => Self { next_incarnation: 1, clean: true, ..Self::default() },
            Some(bytes) => {
                let snapshot = rkyv::from_bytes::<Snapshot, RkyvError>(&aligned(bytes)?).map_err(invalid)?;
                Self {
                    next_incarnation: snapshot.next_incarnation,
                    clean: snapshot.clean,
                    partitions: snapshot.partitions.into_iter().map(|p| (p.key, p)).collect(),
                }
            }
        };
        for bytes in records {
            let record = rkyv::from_bytes::<MapRecord, RkyvError>(&aligned(bytes)?).map_err(invalid)?;
            map.apply(record);
        }
        Ok(map)
    }

    /// The archive of this map.
    pub(crate) fn encode(self) -> Vec<u8> {
        let snapshot = Snapshot {
            next_incarnation: self.next_incarnation,
            clean: self.clean,
            partitions: self.partitions.into_values().collect(),
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
                self.next_incarnation = self.next_incarnation.max(extent.incarnation + 1);
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
            }
            MapRecord::LogStart { key, log_start } => self.partition(key).log_start = log_start,
            MapRecord::Checkpoint { key, checkpoint, complete } => {
                let partition = self.partition(key);
                partition.checkpoint = Some(checkpoint);
                partition.complete = complete;
            }
            MapRecord::Woken { key } => self.partition(key).complete = false,
            MapRecord::Deleted { key } => {
                self.partitions.remove(&key);
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
        Some((&MAP_VERSION, archive)) => {
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
mod tests {
    use super::*;

    fn key(partition: u32) -> PartitionKey {
        PartitionKey { topic: [3; 16], partition }
    }

    fn extent(incarnation: u64) -> ExtentEntry {
        ExtentEntry {
            slab: 0,
            at: incarnation << 18,
            log2_bytes: 18,
            incarnation,
            base_index: 10 * incarnation,
            base_offset: 100,
            leader_epoch: 1,
            created_ms: 5,
            sealed: None,
        }
    }

    #[test]
    fn a_map_is_the_same_from_records_and_from_the_snapshot_of_them() {
        let seal = SealEntry { position: 8192, index: 30, offset: 300, max_timestamp: 9 };
        let checkpoint = CheckpointEntry {
            incarnation: 4,
            position: 4096,
            index: 30,
            offset: 300,
            last_epoch: Some(1),
            max_timestamp: i64::MIN,
            producers: vec![],
        };
        let records = [
            MapRecord::Reserve { next_incarnation: 100 },
            MapRecord::Allocated { key: key(1), extent: extent(3) },
            MapRecord::Allocated { key: key(2), extent: extent(5) },
            MapRecord::Allocated { key: key(1), extent: extent(4) },
            MapRecord::Sealed { key: key(1), incarnation: 3, seal },
            MapRecord::LogStart { key: key(1), log_start: 150 },
            MapRecord::Checkpoint { key: key(1), checkpoint, complete: true },
            MapRecord::Woken { key: key(1) },
            MapRecord::Freed { key: key(1), incarnations: vec![3], log_start: 160 },
            MapRecord::Deleted { key: key(2) },
        ];
        let encoded: Vec<Vec<u8>> = records.iter().map(MapRecord::encode).collect();
        let map =
            StoreMap::from_recovered(None, encoded.iter().map(Vec::as_slice)).expect("the records are good");
        assert_eq!(map.next_incarnation, 100);
        assert_eq!(map.partitions.len(), 1);
        let partition = &map.partitions[&key(1)];
        assert_eq!(partition.log_start, 160);
        assert_eq!(partition.extents, [extent(4)]);
        let snapshot = map.clone().encode();
        assert_eq!(StoreMap::from_recovered(Some(&snapshot), []), Ok(map));
    }

    #[test]
    fn an_archive_of_a_newer_version_and_garbage_are_refused() {
        let mut newer = MapRecord::Reserve { next_incarnation: 1 }.encode();
        newer[0] = MAP_VERSION + 1;
        assert_eq!(StoreMap::from_recovered(None, [newer.as_slice()]), Err(MapError::Newer(MAP_VERSION + 1)));
        for garbage in [&[][..], &[MAP_VERSION], &[MAP_VERSION, 1, 2, 3]] {
            assert!(StoreMap::from_recovered(None, [garbage]).is_err());
        }
    }
}
