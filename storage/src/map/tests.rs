use rkyv::rancor::Error as RkyvError;

use super::archive::{HorizonEntry, MAP_VERSION};
use super::older::{self, OLDEST_VERSION, VERSION_WITHOUT_TIMES};
use super::*;
use crate::layout::{EXTENT_VERSION, EXTENT_VERSION_WITHOUT_MACS, EXTENT_VERSION_WITHOUT_SEQUENCE};
use crate::mac::{MAC_KEY_BYTES, MacKey};

fn key(partition: u32) -> PartitionKey {
    PartitionKey { topic: [3; 16], partition }
}

fn extent(incarnation: u64) -> ExtentEntry {
    ExtentEntry {
        slab: 0,
        at: incarnation << 18,
        log2_bytes: 18,
        version: EXTENT_VERSION,
        sequence: incarnation,
        generation: 0,
        incarnation,
        base_index: 10 * incarnation,
        base_offset: 100,
        leader_epoch: 1,
        has_gaps: false,
        created_ms: 5,
        sealed: None,
    }
}

const SEAL: SealEntry = SealEntry { position: 8192, index: 60, offset: 300, max_timestamp: 9 };

fn checkpoint(extent: u64, index: u64) -> CheckpointEntry {
    CheckpointEntry {
        sequence: extent,
        incarnation: extent,
        position: 4096,
        index,
        offset: 300,
        commit_index: 25,
        commit_offset: 250,
        last_epoch: Some(1),
        max_timestamp: i64::MIN,
        epochs: vec![EpochEntry { epoch: 1, index: 0, offset: 0 }],
        producers: vec![],
    }
}

fn recovered(records: &[MapRecord]) -> Result<StoreMap, MapError> {
    let encoded: Vec<Vec<u8>> = records.iter().map(MapRecord::encode).collect();
    StoreMap::from_recovered([], encoded.iter().map(Vec::as_slice))
}

#[test]
fn a_map_is_the_same_from_records_and_from_the_snapshot_of_them() {
    let map = recovered(&[
        MapRecord::Reserve { next_incarnation: 100 },
        MapRecord::Allocated { key: key(1), extent: extent(3) },
        MapRecord::Allocated { key: key(2), extent: extent(5) },
        MapRecord::Allocated { key: key(1), extent: extent(4) },
        MapRecord::Sealed { key: key(1), incarnation: 3, seal: SEAL },
        MapRecord::WriteBound { incarnation: 3, position: 9000 },
        MapRecord::WriteBound { incarnation: 4, position: 9000 },
        MapRecord::WriteBound { incarnation: 5, position: 9000 },
        MapRecord::LogStart { key: key(1), log_start: 150 },
        MapRecord::Checkpoint { key: key(1), checkpoint: checkpoint(4, 40), complete: true },
        MapRecord::Reactivated { key: key(1) },
        MapRecord::Freed { key: key(1), incarnations: vec![3], log_start: 160 },
        MapRecord::Deleted { key: key(2) },
        MapRecord::Untimed { incarnation: 4, appended_ms: 77 },
        MapRecord::Horizon { incarnation: 3, horizon_ms: 87 },
        MapRecord::Horizon { incarnation: 4, horizon_ms: 88 },
        MapRecord::Freed { key: key(1), incarnations: vec![3], log_start: 160 },
        MapRecord::Macs(MacsEntry { key: [9; MAC_KEY_BYTES], since: 4 }),
    ])
    .expect("the records are good");
    assert_eq!(map.next_incarnation, 100);
    assert_eq!(map.partitions.len(), 1);
    let partition = &map.partitions[&key(1)];
    assert_eq!(partition.log_start, 160);
    assert_eq!(partition.extents, [extent(4)]);
    assert_eq!(map.untimed, BTreeMap::from([(4, 77)]));
    assert_eq!(map.write_bounds.iter().collect::<Vec<_>>(), [(4, 9000)]);
    assert_eq!(map.horizons, BTreeMap::from([(4, 88)]));
    let macs = StoreMacs { key: MacKey([9; MAC_KEY_BYTES]), since: Incarnation(4) };
    assert_eq!(map.macs, Some(macs));
    let snapshot = map.clone().encode();
    assert_eq!(StoreMap::from_recovered([&snapshot[..]], []), Ok(map));
}

#[test]
fn a_log_that_was_cut_off_begun_again_or_rewritten_has_the_extents_that_are_left() {
    let allocated = |n| MapRecord::Allocated { key: key(1), extent: extent(n) };
    let begin = [allocated(3), allocated(5), allocated(6), allocated(9)];
    let after = |record: MapRecord| {
        let records = [&begin[..], &[record]].concat();
        let mut map = recovered(&records).expect("the records are good");
        map.partitions.remove(&key(1)).expect("it is there")
    };
    let truncated =
        after(MapRecord::Truncated { key: key(1), incarnations: vec![6, 9], checkpoint: checkpoint(5, 55) });
    let seal = SealEntry { position: 4096, index: 55, offset: 300, max_timestamp: i64::MIN };
    assert_eq!(truncated.extents, [extent(3), ExtentEntry { sealed: Some(seal), ..extent(5) }]);
    assert_eq!(truncated.checkpoint, Some(checkpoint(5, 55)));

    let restarted = after(MapRecord::StartedAt {
        key: key(1),
        checkpoint: CheckpointEntry { position: 0, ..checkpoint(9, 500) },
    });
    assert_eq!((restarted.extents.len(), restarted.log_start), (0, 300));

    let compacted = ExtentEntry {
        sequence: 5,
        generation: 1,
        incarnation: 12,
        base_index: 50,
        has_gaps: true,
        sealed: Some(SealEntry { index: 90, ..SEAL }),
        ..extent(12)
    };
    let replaced =
        after(MapRecord::Replaced { key: key(1), incarnations: vec![5, 6], extent: compacted.clone() });
    assert_eq!(replaced.extents, [extent(3), compacted, extent(9)]);
}

fn older_extent(incarnation: u64, created_ms: i64) -> older::ExtentEntry {
    older::ExtentEntry {
        slab: 0,
        at: incarnation << 18,
        log2_bytes: 18,
        incarnation,
        base_index: 10 * incarnation,
        base_offset: 100,
        leader_epoch: 1,
        created_ms,
        sealed: None,
    }
}

fn older_partition(extents: Vec<older::ExtentEntry>) -> older::PartitionEntry {
    older::PartitionEntry { key: key(1), log_start: 0, extents, checkpoint: None, complete: false }
}

fn archive(
    version: u8,
    value: &impl for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            RkyvError,
        >,
    >,
) -> Vec<u8> {
    let mut bytes = vec![version];
    bytes.extend_from_slice(&rkyv::to_bytes::<RkyvError>(value).expect("in memory"));
    bytes
}

#[test]
fn in_maps_of_versions_before_the_incarnation_is_the_place_in_the_chain() {
    let checkpoint = older::CheckpointEntry {
        incarnation: 8,
        position: 4096,
        index: 80,
        offset: 300,
        last_epoch: Some(1),
        max_timestamp: 4,
        producers: vec![],
    };
    let partition = older::PartitionEntry {
        checkpoint: Some(checkpoint),
        ..older_partition(vec![older_extent(3, 5), older_extent(8, 5)])
    };
    let macs = MacsEntry { key: [9; MAC_KEY_BYTES], since: 5 };
    let old = older::SnapshotWithMacs {
        next_incarnation: 9,
        clean: true,
        partitions: vec![partition],
        orphans: Vec::new(),
        untimed: Vec::new(),
        macs: Some(macs),
    };
    let map = StoreMap::from_recovered([&archive(4, &old)[..]], []).expect("it is understood");
    let read = &map.partitions[&key(1)];
    let versions = [EXTENT_VERSION_WITHOUT_MACS, EXTENT_VERSION_WITHOUT_SEQUENCE];
    assert_eq!(
        read.extents,
        [
            ExtentEntry { version: versions[0], ..extent(3) },
            ExtentEntry { version: versions[1], ..extent(8) },
        ]
    );
    let checkpoint = read.checkpoint.as_ref().expect("it had one");
    assert_eq!((checkpoint.sequence, checkpoint.commit_index, checkpoint.commit_offset), (8, 80, 300));
    assert_eq!(map.without_epochs, BTreeSet::from([key(1)]));
    // A checkpoint of today's says where epochs began.
    let next = MapRecord::Checkpoint { key: key(1), checkpoint: self::checkpoint(8, 80), complete: false };
    let map = StoreMap::from_recovered([&archive(4, &old)[..]], [&next.encode()[..]]).expect("understood");
    assert_eq!(map.without_epochs, BTreeSet::new());
}

#[test]
fn a_snapshot_of_the_version_before_the_horizons_of_tombstones_were_kept_is_read() {
    let old = older::SnapshotWithoutHorizons {
        next_incarnation: 9,
        clean: true,
        partitions: vec![PartitionEntry {
            extents: vec![ExtentEntry { generation: 1, ..extent(3) }],
            ..PartitionEntry::new(key(1))
        }],
        orphans: Vec::new(),
        untimed: Vec::new(),
        macs: Some(MacsEntry { key: [9; MAC_KEY_BYTES], since: 1 }),
        journal: Some(7),
        write_bounds: Vec::new(),
    };
    let next = MapRecord::Horizon { incarnation: 3, horizon_ms: 50 };
    let map = StoreMap::from_recovered([&archive(7, &old)[..]], []).expect("it is understood");
    assert_eq!((map.clean, map.journal, &map.horizons), (true, Some(Incarnation(7)), &BTreeMap::new()));
    let map = StoreMap::from_recovered([&archive(7, &old)[..]], [&next.encode()[..]]).expect("understood");
    assert_eq!(map.horizons, BTreeMap::from([(3, 50)]));
}

fn configuration(index: u64) -> ConfigurationEntry {
    ConfigurationEntry { index, payload: vec![index as u8; 9] }
}

fn configurations(base: Option<u64>, entries: &[u64]) -> ConfigurationsEntry {
    ConfigurationsEntry {
        base: base.map(configuration),
        entries: entries.iter().copied().map(configuration).collect(),
        has_lost_one: false,
    }
}

const STATE: ReplicaStateEntry = ReplicaStateEntry { term: 7, vote: Some((3, 1)), lost_in: Some(6) };

#[test]
fn a_snapshot_of_the_version_before_replicas_had_a_state_is_read() {
    let old = older::SnapshotWithoutReplicas {
        next_incarnation: 9,
        clean: true,
        partitions: vec![PartitionEntry { extents: vec![extent(3)], ..PartitionEntry::new(key(1)) }],
        orphans: Vec::new(),
        untimed: Vec::new(),
        macs: Some(MacsEntry { key: [9; MAC_KEY_BYTES], since: 1 }),
        journal: None,
        write_bounds: Vec::new(),
        horizons: vec![HorizonEntry { incarnation: 3, horizon_ms: 50 }],
    };
    let next = [
        MapRecord::ReplicaState { key: key(1), state: STATE },
        MapRecord::Configurations { key: key(1), configurations: configurations(Some(2), &[5]) },
    ];
    let next = next.map(|record| record.encode());
    let snapshot = archive(8, &old);
    let map = StoreMap::from_recovered([&snapshot[..]], []).expect("it is understood");
    assert_eq!((map.clean, map.partitions.len(), &map.horizons), (true, 1, &BTreeMap::from([(3, 50)])));
    assert_eq!((map.replicas.len(), map.configurations.len()), (0, 0));
    let map = StoreMap::from_recovered([&snapshot[..]], next.iter().map(Vec::as_slice)).expect("understood");
    assert_eq!(map.replicas, BTreeMap::from([(key(1), STATE)]));
    assert_eq!(map.configurations, BTreeMap::from([(key(1), configurations(Some(2), &[5]))]));
    let again = map.clone().encode();
    assert_eq!(StoreMap::from_recovered([&again[..]], []), Ok(StoreMap { clean: false, ..map }));
}

#[test]
fn what_replication_keeps_goes_with_the_partition_and_configurations_with_what_is_cut_off() {
    let begin = [
        MapRecord::Allocated { key: key(1), extent: extent(5) },
        MapRecord::ReplicaState { key: key(1), state: STATE },
        MapRecord::Configurations { key: key(1), configurations: configurations(Some(2), &[40, 55, 70]) },
    ];
    let after =
        |record: MapRecord| recovered(&[&begin[..], &[record]].concat()).expect("the records are good");
    let map =
        after(MapRecord::Truncated { key: key(1), incarnations: vec![], checkpoint: checkpoint(5, 55) });
    assert_eq!(map.configurations[&key(1)], configurations(Some(2), &[40]));
    let (key, checkpoint) = (key(1), CheckpointEntry { position: 0, ..checkpoint(9, 500) });
    let map = after(MapRecord::StartedAt { key, checkpoint: checkpoint.clone() });
    assert_eq!((map.configurations.len(), map.replicas.len()), (0, 1));
    let map = after(MapRecord::StartedWith { key, configuration: vec![configuration(480)], checkpoint });
    assert_eq!(map.configurations[&key], configurations(Some(480), &[]));
    let map = after(MapRecord::Deleted { key });
    assert_eq!((map.configurations.len(), map.replicas.len(), map.partitions.len()), (0, 0, 0));
}

#[test]
fn a_snapshot_of_the_version_before_orphans_were_kept_is_read() {
    let old = older::SnapshotWithoutOrphans {
        next_incarnation: 9,
        clean: true,
        partitions: vec![older_partition(vec![older_extent(3, 5)])],
    };
    let read = StoreMap::from_recovered([&archive(OLDEST_VERSION, &old)[..]], []).expect("it is understood");
    let untimed = BTreeMap::from([(3, APPENDED_UNKNOWN)]);
    assert_eq!((read.next_incarnation, read.clean, read.untimed), (9, true, untimed));
    assert_eq!(read.partitions[&key(1)].extents.len(), 1);
}

#[test]
fn what_older_versions_tell_of_counts_as_appended_to_until_the_next_extent_was_begun() {
    let old = older::SnapshotWithoutTimes {
        next_incarnation: 3,
        clean: true,
        partitions: vec![older_partition(vec![older_extent(1, 100), older_extent(2, 200)])],
        orphans: Vec::new(),
    };
    let snapshot = archive(VERSION_WITHOUT_TIMES, &old);
    let record = older::MapRecord::Allocated { key: key(1), extent: older_extent(5, 300) };
    let older = archive(VERSION_WITHOUT_TIMES, &record);
    let newer =
        MapRecord::Allocated { key: key(1), extent: ExtentEntry { created_ms: 400, ..extent(9) } }.encode();
    let map = StoreMap::from_recovered([&snapshot[..]], [&older[..], &newer]).expect("both are read");
    assert_eq!(map.partitions[&key(1)].extents.len(), 4);
    assert_eq!(map.untimed, BTreeMap::from([(1, 200), (2, 300), (5, 400)]));
}

#[test]
fn a_map_whose_numbers_contradict_each_other_is_no_map() {
    let checked = |extents: Vec<ExtentEntry>| {
        let records: Vec<MapRecord> =
            extents.into_iter().map(|extent| MapRecord::Allocated { key: key(1), extent }).collect();
        recovered(&records).map(drop)
    };
    assert_eq!(checked(vec![extent(3), extent(4)]), Ok(()));
    let bad: [&dyn Fn(&mut ExtentEntry); 9] = [
        &|e| e.log2_bytes = 40,
        &|e| e.log2_bytes = 255,
        &|e| e.log2_bytes = 3,
        &|e| e.at += 4096,
        &|e| e.at = extent(3).at,
        &|e| e.incarnation = u64::MAX,
        &|e| e.sequence = 3,
        &|e| e.base_offset = -1,
        &|e| e.sealed = Some(SealEntry { position: 1 << 19, ..SEAL }),
    ];
    for (n, change) in bad.iter().enumerate() {
        let mut changed = extent(4);
        change(&mut changed);
        assert!(matches!(checked(vec![extent(3), changed]), Err(MapError::Invalid(_))), "case {n}");
    }
}

#[test]
fn an_archive_of_a_newer_version_and_garbage_are_refused() {
    let mut newer = MapRecord::Reserve { next_incarnation: 1 }.encode();
    newer[0] = MAP_VERSION + 1;
    assert_eq!(StoreMap::from_recovered([], [newer.as_slice()]), Err(MapError::Newer(MAP_VERSION + 1)));
    for garbage in [&[][..], &[MAP_VERSION], &[MAP_VERSION, 1, 2, 3]] {
        assert!(StoreMap::from_recovered([], [garbage]).is_err());
    }
}
