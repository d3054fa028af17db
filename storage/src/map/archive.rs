//! The form of the map on disk: rkyv archives with a version byte before it.

use highwater_protocol::ids::Incarnation;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::older::{self, OLDEST_VERSION, VERSION_WITHOUT_JOURNAL, VERSION_WITHOUT_TIMES};
use super::{
    ConfigurationsEntry, MacsEntry, MapRecord, OrphanEntry, PartitionEntry, PartitionKey, ReplicaStateEntry,
    StoreMap,
};
use crate::mac::StoreMacs;

/// Version of the archives. Written before each.
pub(super) const MAP_VERSION: u8 = 9;

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

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
    pub(super) macs: Option<MacsEntry>,
    pub(super) journal: Option<u64>,
    pub(super) write_bounds: Vec<WriteBoundEntry>,
    pub(super) horizons: Vec<HorizonEntry>,
    pub(super) replicas: Vec<(PartitionKey, ReplicaStateEntry)>,
    pub(super) configurations: Vec<(PartitionKey, ConfigurationsEntry)>,
}

/// How far an extent may have been written.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct WriteBoundEntry {
    pub(super) incarnation: u64,
    pub(super) position: u32,
}

/// When the last batch without a timestamp was appended to an extent.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct UntimedEntry {
    pub(super) incarnation: u64,
    pub(super) appended_ms: i64,
}

/// When the tombstones in a compacted extent may all be removed.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct HorizonEntry {
    pub(super) incarnation: u64,
    pub(super) horizon_ms: i64,
}

impl StoreMap {
    /// The map from what a state log recovered: the pieces of a snapshot, and the records after it.
    pub fn from_recovered<'a>(
        snapshot: impl IntoIterator<Item = &'a [u8]>,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, MapError> {
        // Extents with lower incarnations were begun by a version that did not keep times of appending.
        let mut timeless_below = 0;
        let mut map = Self { next_incarnation: 1, clean: true, ..Self::default() };
        for bytes in snapshot {
            let (version, archive) = open(bytes)?;
            let piece = if version == MAP_VERSION {
                Self::from(rkyv::from_bytes::<Snapshot, RkyvError>(&archive).map_err(invalid)?)
            } else {
                older::snapshot(version, &archive).map_err(invalid)?
            };
            map.merge(piece);
            if version <= VERSION_WITHOUT_TIMES {
                timeless_below = map.next_incarnation;
            }
        }
        for bytes in records {
            let (version, archive) = open(bytes)?;
            if version >= VERSION_WITHOUT_JOURNAL {
                map.apply(rkyv::from_bytes::<MapRecord, RkyvError>(&archive).map_err(invalid)?);
            } else {
                older::apply(&mut map, &archive).map_err(invalid)?;
            }
            if version <= VERSION_WITHOUT_TIMES {
                timeless_below = map.next_incarnation;
            }
        }
        map.forget_append_times(timeless_below);
        older::tell_versions(&mut map);
        map.check().map_err(MapError::Invalid)?;
        Ok(map)
    }

    /// Adds a piece of a snapshot.
    fn merge(&mut self, mut piece: Self) {
        self.next_incarnation = self.next_incarnation.max(piece.next_incarnation);
        self.clean &= piece.clean;
        self.partitions.append(&mut piece.partitions);
        self.untimed.append(&mut piece.untimed);
        self.horizons.append(&mut piece.horizons);
        self.orphans.append(&mut piece.orphans);
        self.write_bounds.append(&mut piece.write_bounds);
        self.without_epochs.append(&mut piece.without_epochs);
        self.replicas.append(&mut piece.replicas);
        self.configurations.append(&mut piece.configurations);
        self.macs = self.macs.or(piece.macs);
        self.journal = self.journal.or(piece.journal);
    }

    /// The archive of this map.
    pub(crate) fn encode(self) -> Vec<u8> {
        let (untimed, horizons) = (self.untimed.into_iter(), self.horizons.into_iter());
        let snapshot = Snapshot {
            next_incarnation: self.next_incarnation,
            clean: self.clean,
            partitions: self.partitions.into_values().collect(),
            orphans: self.orphans,
            untimed: untimed
                .map(|(incarnation, appended_ms)| UntimedEntry { incarnation, appended_ms })
                .collect(),
            macs: self.macs.map(MacsEntry::from),
            journal: self.journal.map(|era| era.0),
            write_bounds: self
                .write_bounds
                .iter()
                .map(|(incarnation, position)| WriteBoundEntry { incarnation, position })
                .collect(),
            horizons: horizons
                .map(|(incarnation, horizon_ms)| HorizonEntry { incarnation, horizon_ms })
                .collect(),
            replicas: self.replicas.into_iter().collect(),
            configurations: self.configurations.into_iter().collect(),
        };
        encode(|bytes| {
            rkyv::to_bytes::<RkyvError>(&snapshot).map(|archive| bytes.extend_from_slice(&archive))
        })
    }
}

impl From<Snapshot> for StoreMap {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            next_incarnation: snapshot.next_incarnation,
            clean: snapshot.clean,
            partitions: snapshot.partitions.into_iter().map(|p| (p.key, p)).collect(),
            orphans: snapshot.orphans,
            untimed: snapshot.untimed.iter().map(|u| (u.incarnation, u.appended_ms)).collect(),
            horizons: snapshot.horizons.iter().map(|h| (h.incarnation, h.horizon_ms)).collect(),
            macs: snapshot.macs.map(StoreMacs::from),
            journal: snapshot.journal.map(Incarnation),
            write_bounds: snapshot.write_bounds.iter().map(|b| (b.incarnation, b.position)).collect(),
            replicas: snapshot.replicas.into_iter().collect(),
            configurations: snapshot.configurations.into_iter().collect(),
            ..Self::default()
        }
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

/// The version of an archive, and the bytes after the version byte, aligned as rkyv needs them.
fn open(bytes: &[u8]) -> Result<(u8, AlignedVec), MapError> {
    match bytes.split_first() {
        Some((&version @ OLDEST_VERSION..=MAP_VERSION, archive)) => {
            let mut aligned = AlignedVec::with_capacity(archive.len());
            aligned.extend_from_slice(archive);
            Ok((version, aligned))
        }
        Some((&version, _)) if version > MAP_VERSION => Err(MapError::Newer(version)),
        _ => Err(MapError::Invalid("no version".into())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn invalid(error: RkyvError) -> MapError {
    MapError::Invalid(error.to_string())
}
