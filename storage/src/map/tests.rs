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
        MapRecord::Untimed { incarnation: 4, appended_ms: 77 },
        MapRecord::Macs(MacsEntry { key: [9; MAC_KEY_BYTES], since: 4 }),
    ];
    let encoded: Vec<Vec<u8>> = records.iter().map(MapRecord::encode).collect();
    let map =
        StoreMap::from_recovered(None, encoded.iter().map(Vec::as_slice)).expect("the records are good");
    assert_eq!(map.next_incarnation, 100);
    assert_eq!(map.partitions.len(), 1);
    let partition = &map.partitions[&key(1)];
    assert_eq!(partition.log_start, 160);
    assert_eq!(partition.extents, [extent(4)]);
    assert_eq!(map.untimed, BTreeMap::from([(4, 77)]));
    let macs = StoreMacs { key: MacKey([9; MAC_KEY_BYTES]), since: Incarnation(4) };
    assert_eq!(map.macs, Some(macs));
    let snapshot = map.clone().encode();
    assert_eq!(StoreMap::from_recovered(Some(&snapshot), []), Ok(map));
}

#[test]
fn a_snapshot_of_the_version_before_orphans_were_kept_is_read() {
    let mut map = StoreMap { next_incarnation: 9, ..StoreMap::default() };
    map.apply(MapRecord::Allocated { key: key(1), extent: extent(3) });
    let old = SnapshotWithoutOrphans {
        next_incarnation: 9,
        clean: true,
        partitions: map.partitions.values().cloned().collect(),
    };
    let mut bytes = vec![MAP_VERSION_WITHOUT_ORPHANS];
    bytes.extend_from_slice(&rkyv::to_bytes::<RkyvError>(&old).expect("in memory"));
    let read = StoreMap::from_recovered(Some(&bytes), []).expect("it is understood");
    let untimed = BTreeMap::from([(3, APPENDED_UNKNOWN)]);
    assert_eq!(read, StoreMap { clean: true, untimed, ..map });
}

#[test]
fn what_older_versions_tell_of_counts_as_appended_to_until_the_next_extent_was_begun() {
    let begun = |incarnation, created_ms| ExtentEntry { created_ms, ..extent(incarnation) };
    let partition = PartitionEntry {
        key: key(1),
        log_start: 0,
        extents: vec![begun(1, 100), begun(2, 200)],
        checkpoint: None,
        complete: false,
    };
    let old = SnapshotWithoutTimes {
        next_incarnation: 3,
        clean: true,
        partitions: vec![partition],
        orphans: Vec::new(),
    };
    let mut snapshot = vec![MAP_VERSION_WITHOUT_TIMES];
    snapshot.extend_from_slice(&rkyv::to_bytes::<RkyvError>(&old).expect("in memory"));
    let mut older = MapRecord::Allocated { key: key(1), extent: begun(5, 300) }.encode();
    older[0] = MAP_VERSION_WITHOUT_TIMES;
    let newer = MapRecord::Allocated { key: key(1), extent: begun(9, 400) }.encode();
    let map = StoreMap::from_recovered(Some(&snapshot), [&older[..], &newer]).expect("both are read");
    assert_eq!(map.partitions[&key(1)].extents.len(), 4);
    assert_eq!(map.untimed, BTreeMap::from([(1, 200), (2, 300), (5, 400)]));
}

#[test]
fn a_map_whose_numbers_contradict_each_other_is_no_map() {
    let checked = |extents: Vec<ExtentEntry>| {
        let records: Vec<Vec<u8>> = std::iter::once(MapRecord::Reserve { next_incarnation: 100 })
            .chain(extents.into_iter().map(|extent| MapRecord::Allocated { key: key(1), extent }))
            .map(|record| record.encode())
            .collect();
        StoreMap::from_recovered(None, records.iter().map(Vec::as_slice)).map(drop)
    };
    assert_eq!(checked(vec![extent(3), extent(4)]), Ok(()));
    let seal = SealEntry { position: 8192, index: 30, offset: 300, max_timestamp: 9 };
    let bad: [&dyn Fn(&mut ExtentEntry); 9] = [
        &|e| e.log2_bytes = 40,
        &|e| e.log2_bytes = 255,
        &|e| e.log2_bytes = 3,
        &|e| e.at += 4096,
        &|e| e.at = extent(3).at,
        &|e| e.incarnation = u64::MAX,
        &|e| e.incarnation = 2,
        &|e| e.base_offset = -1,
        &|e| e.sealed = Some(SealEntry { position: 1 << 19, ..seal }),
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
    assert_eq!(StoreMap::from_recovered(None, [newer.as_slice()]), Err(MapError::Newer(MAP_VERSION + 1)));
    for garbage in [&[][..], &[MAP_VERSION], &[MAP_VERSION, 1, 2, 3]] {
        assert!(StoreMap::from_recovered(None, [garbage]).is_err());
    }
}
