//! Maps that earlier versions wrote. They are read, and written again in today's form with the next snapshot.
//!
//! Before version 9 no partition had more than one replica, and so none had a state of it or configurations.
//!
//! Before version 8 it was not kept when tombstones may be removed: those that are compacted then go with a later pass over records after them.
//!
//! Before version 7 there were no write bounds: every extent may have been written up to its end.
//!
//! Before version 6 there was no journal.
//!
//! Before version 5 an extent's incarnation was its place in the chain too: it rises along the chain, and stands for the sequence
//! here. No replica but one had a log then, so everything durable was committed. Checkpoints did not say where epochs began: recovery finds
//! out from the extents.
//!
//! Versions before 3 do not say when batches without a timestamp were appended, and what they say of largest timestamps is what the
//! producers' headers said. An extent of theirs counts as appended to until the next one was begun, so that retention keeps rather too
//! much of it.

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::archive::{HorizonEntry, Snapshot, UntimedEntry, WriteBoundEntry};
use super::{MacsEntry, OrphanEntry, PartitionKey, SealEntry, StoreMap};
use crate::layout::{EXTENT_VERSION_WITHOUT_MACS, EXTENT_VERSION_WITHOUT_SEQUENCE};
use crate::mac::StoreMacs;
use crate::producers::Producer;

/// The version before the states of replicas and configurations were kept. Its records are among today's.
const VERSION_WITHOUT_REPLICAS: u8 = 8;

/// The version before the horizons of tombstones were kept. Its records are among today's.
const VERSION_WITHOUT_HORIZONS: u8 = 7;

/// The version before there were write bounds. Its records are among today's.
const VERSION_WITHOUT_BOUNDS: u8 = 6;

/// The version before there was a journal. Its records are among today's.
pub(super) const VERSION_WITHOUT_JOURNAL: u8 = 5;

/// The version before frames had codes.
const VERSION_WITHOUT_MACS: u8 = 3;

/// The version before times of appending were kept.
pub(super) const VERSION_WITHOUT_TIMES: u8 = 2;

/// The version before orphans were kept. Its records are those of version 2.
pub(super) const OLDEST_VERSION: u8 = 1;

#[derive(Clone, Archive, Serialize, Deserialize)]
pub(super) struct ExtentEntry {
    pub(super) slab: u32,
    pub(super) at: u64,
    pub(super) log2_bytes: u8,
    pub(super) incarnation: u64,
    pub(super) base_index: u64,
    pub(super) base_offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) created_ms: i64,
    pub(super) sealed: Option<SealEntry>,
}

#[derive(Clone, Archive, Serialize, Deserialize)]
pub(super) struct CheckpointEntry {
    pub(super) incarnation: u64,
    pub(super) position: u32,
    pub(super) index: u64,
    pub(super) offset: i64,
    pub(super) last_epoch: Option<i32>,
    pub(super) max_timestamp: i64,
    pub(super) producers: Vec<Producer>,
}

#[derive(Clone, Archive, Serialize, Deserialize)]
pub(super) struct PartitionEntry {
    pub(super) key: PartitionKey,
    pub(super) log_start: i64,
    pub(super) extents: Vec<ExtentEntry>,
    pub(super) checkpoint: Option<CheckpointEntry>,
    pub(super) complete: bool,
}

/// A snapshot of [`VERSION_WITHOUT_REPLICAS`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutReplicas {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<super::PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
    pub(super) macs: Option<MacsEntry>,
    pub(super) journal: Option<u64>,
    pub(super) write_bounds: Vec<WriteBoundEntry>,
    pub(super) horizons: Vec<HorizonEntry>,
}

/// A snapshot of [`VERSION_WITHOUT_HORIZONS`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutHorizons {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<super::PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
    pub(super) macs: Option<MacsEntry>,
    pub(super) journal: Option<u64>,
    pub(super) write_bounds: Vec<WriteBoundEntry>,
}

/// A snapshot of [`VERSION_WITHOUT_BOUNDS`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutBounds {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<super::PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
    pub(super) macs: Option<MacsEntry>,
    pub(super) journal: Option<u64>,
}

/// A snapshot of [`VERSION_WITHOUT_JOURNAL`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutJournal {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<super::PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
    pub(super) macs: Option<MacsEntry>,
}

/// A snapshot of version 4.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithMacs {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
    pub(super) macs: Option<MacsEntry>,
}

/// A snapshot of [`VERSION_WITHOUT_MACS`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutMacs {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
    pub(super) untimed: Vec<UntimedEntry>,
}

/// A snapshot of [`VERSION_WITHOUT_TIMES`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutTimes {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<PartitionEntry>,
    pub(super) orphans: Vec<OrphanEntry>,
}

/// A snapshot of [`OLDEST_VERSION`].
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SnapshotWithoutOrphans {
    pub(super) next_incarnation: u64,
    pub(super) clean: bool,
    pub(super) partitions: Vec<PartitionEntry>,
}

/// A change of the map, of any version before 5.
#[derive(Archive, Serialize, Deserialize)]
pub(super) enum MapRecord {
    Reserve { next_incarnation: u64 },
    Allocated { key: PartitionKey, extent: ExtentEntry },
    Sealed { key: PartitionKey, incarnation: u64, seal: SealEntry },
    Freed { key: PartitionKey, incarnations: Vec<u64>, log_start: i64 },
    LogStart { key: PartitionKey, log_start: i64 },
    Checkpoint { key: PartitionKey, checkpoint: CheckpointEntry, complete: bool },
    Reactivated { key: PartitionKey },
    Deleted { key: PartitionKey },
    Untimed { incarnation: u64, appended_ms: i64 },
    Macs(MacsEntry),
}

impl From<ExtentEntry> for super::ExtentEntry {
    fn from(old: ExtentEntry) -> Self {
        Self {
            slab: old.slab,
            at: old.at,
            log2_bytes: old.log2_bytes,
            // See `tell_versions`.
            version: EXTENT_VERSION_WITHOUT_SEQUENCE,
            sequence: old.incarnation,
            generation: 0,
            incarnation: old.incarnation,
            base_index: old.base_index,
            base_offset: old.base_offset,
            leader_epoch: old.leader_epoch,
            has_gaps: false,
            created_ms: old.created_ms,
            sealed: old.sealed,
        }
    }
}

impl From<CheckpointEntry> for super::CheckpointEntry {
    fn from(old: CheckpointEntry) -> Self {
        Self {
            sequence: old.incarnation,
            incarnation: old.incarnation,
            position: old.position,
            index: old.index,
            offset: old.offset,
            commit_index: old.index,
            commit_offset: old.offset,
            last_epoch: old.last_epoch,
            max_timestamp: old.max_timestamp,
            epochs: Vec::new(),
            producers: old.producers,
        }
    }
}

impl From<PartitionEntry> for super::PartitionEntry {
    fn from(old: PartitionEntry) -> Self {
        Self {
            key: old.key,
            log_start: old.log_start,
            extents: old.extents.into_iter().map(Into::into).collect(),
            checkpoint: old.checkpoint.map(Into::into),
            complete: old.complete,
        }
    }
}

impl From<SnapshotWithoutReplicas> for StoreMap {
    fn from(old: SnapshotWithoutReplicas) -> Self {
        Self::from(Snapshot {
            next_incarnation: old.next_incarnation,
            clean: old.clean,
            partitions: old.partitions,
            orphans: old.orphans,
            untimed: old.untimed,
            macs: old.macs,
            journal: old.journal,
            write_bounds: old.write_bounds,
            horizons: old.horizons,
            replicas: Vec::new(),
            configurations: Vec::new(),
        })
    }
}

impl From<SnapshotWithoutHorizons> for StoreMap {
    fn from(old: SnapshotWithoutHorizons) -> Self {
        Self::from(SnapshotWithoutReplicas {
            next_incarnation: old.next_incarnation,
            clean: old.clean,
            partitions: old.partitions,
            orphans: old.orphans,
            untimed: old.untimed,
            macs: old.macs,
            journal: old.journal,
            write_bounds: old.write_bounds,
            horizons: Vec::new(),
        })
    }
}

impl From<SnapshotWithoutBounds> for StoreMap {
    fn from(old: SnapshotWithoutBounds) -> Self {
        let SnapshotWithoutBounds { next_incarnation, clean, partitions, orphans, untimed, macs, journal } =
            old;
        let write_bounds = Vec::new();
        let old = SnapshotWithoutHorizons {
            next_incarnation,
            clean,
            partitions,
            orphans,
            untimed,
            macs,
            journal,
            write_bounds,
        };
        old.into()
    }
}

impl From<SnapshotWithoutJournal> for StoreMap {
    fn from(old: SnapshotWithoutJournal) -> Self {
        let SnapshotWithoutJournal { next_incarnation, clean, partitions, orphans, untimed, macs } = old;
        let journal = None;
        SnapshotWithoutBounds { next_incarnation, clean, partitions, orphans, untimed, macs, journal }.into()
    }
}

/// The map in a snapshot of this version.
pub(super) fn snapshot(version: u8, archive: &AlignedVec) -> Result<StoreMap, RkyvError> {
    let snapshot = match version {
        VERSION_WITHOUT_REPLICAS => {
            return Ok(rkyv::from_bytes::<SnapshotWithoutReplicas, RkyvError>(archive)?.into());
        }
        VERSION_WITHOUT_HORIZONS => {
            return Ok(rkyv::from_bytes::<SnapshotWithoutHorizons, RkyvError>(archive)?.into());
        }
        VERSION_WITHOUT_BOUNDS => {
            return Ok(rkyv::from_bytes::<SnapshotWithoutBounds, RkyvError>(archive)?.into());
        }
        VERSION_WITHOUT_JOURNAL => {
            return Ok(rkyv::from_bytes::<SnapshotWithoutJournal, RkyvError>(archive)?.into());
        }
        OLDEST_VERSION => {
            let old = rkyv::from_bytes::<SnapshotWithoutOrphans, RkyvError>(archive)?;
            let SnapshotWithoutOrphans { next_incarnation, clean, partitions } = old;
            with_macs(next_incarnation, clean, partitions, Vec::new(), Vec::new())
        }
        VERSION_WITHOUT_TIMES => {
            let old = rkyv::from_bytes::<SnapshotWithoutTimes, RkyvError>(archive)?;
            let SnapshotWithoutTimes { next_incarnation, clean, partitions, orphans } = old;
            with_macs(next_incarnation, clean, partitions, orphans, Vec::new())
        }
        VERSION_WITHOUT_MACS => {
            let old = rkyv::from_bytes::<SnapshotWithoutMacs, RkyvError>(archive)?;
            let SnapshotWithoutMacs { next_incarnation, clean, partitions, orphans, untimed } = old;
            with_macs(next_incarnation, clean, partitions, orphans, untimed)
        }
        _ => rkyv::from_bytes::<SnapshotWithMacs, RkyvError>(archive)?,
    };
    let with_checkpoint = snapshot.partitions.iter().filter(|p| p.checkpoint.is_some()).map(|p| p.key);
    Ok(StoreMap {
        without_epochs: with_checkpoint.collect(),
        next_incarnation: snapshot.next_incarnation,
        clean: snapshot.clean,
        partitions: snapshot.partitions.into_iter().map(|p| (p.key, p.into())).collect(),
        orphans: snapshot.orphans,
        untimed: snapshot.untimed.iter().map(|u| (u.incarnation, u.appended_ms)).collect(),
        macs: snapshot.macs.map(StoreMacs::from),
        ..StoreMap::default()
    })
}

fn with_macs(
    next_incarnation: u64,
    clean: bool,
    partitions: Vec<PartitionEntry>,
    orphans: Vec<OrphanEntry>,
    untimed: Vec<UntimedEntry>,
) -> SnapshotWithMacs {
    SnapshotWithMacs { next_incarnation, clean, partitions, orphans, untimed, macs: None }
}

/// Applies a record of any version before 5.
pub(super) fn apply(map: &mut StoreMap, archive: &AlignedVec) -> Result<(), RkyvError> {
    let record = match rkyv::from_bytes::<MapRecord, RkyvError>(archive)? {
        MapRecord::Reserve { next_incarnation } => super::MapRecord::Reserve { next_incarnation },
        MapRecord::Allocated { key, extent } => super::MapRecord::Allocated { key, extent: extent.into() },
        MapRecord::Sealed { key, incarnation, seal } => super::MapRecord::Sealed { key, incarnation, seal },
        MapRecord::Freed { key, incarnations, log_start } => {
            super::MapRecord::Freed { key, incarnations, log_start }
        }
        MapRecord::LogStart { key, log_start } => super::MapRecord::LogStart { key, log_start },
        MapRecord::Checkpoint { key, checkpoint, complete } => {
            map.apply(super::MapRecord::Checkpoint { key, checkpoint: checkpoint.into(), complete });
            map.without_epochs.insert(key);
            return Ok(());
        }
        MapRecord::Reactivated { key } => super::MapRecord::Reactivated { key },
        MapRecord::Deleted { key } => super::MapRecord::Deleted { key },
        MapRecord::Untimed { incarnation, appended_ms } => {
            super::MapRecord::Untimed { incarnation, appended_ms }
        }
        MapRecord::Macs(macs) => super::MapRecord::Macs(macs),
    };
    map.apply(record);
    Ok(())
}

/// The versions of extents' headers are in the map since version 5. Before, they followed from when frames got codes.
pub(super) fn tell_versions(map: &mut StoreMap) {
    let since = map.macs.map_or(u64::MAX, |macs| macs.since.0);
    for extent in map.partitions.values_mut().flat_map(|partition| &mut partition.extents) {
        if extent.version == EXTENT_VERSION_WITHOUT_SEQUENCE && extent.incarnation < since {
            extent.version = EXTENT_VERSION_WITHOUT_MACS;
        }
    }
}
