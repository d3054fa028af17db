//! Frames larger than regular extents, written with larger limits than those of the next run.

mod support;

use std::path::Path;

use highwater_protocol::ids::Offset;
use highwater_runtime::fs::{Fs, OpenMode};
use highwater_runtime::sim::{CrashPolicy, Damage};
use highwater_storage::{AppendError, PartitionFinding, StoreConfig, StoreEvent, StoreLimits};
use support::{Bed, batch, config, filled};

const SLAB: &str = "/data/store-000/slab-000000";

/// Size of a value that fits no regular extent, and no search window of the regular limits.
const LARGE: usize = 150 << 10;

/// Limits that allow such values, without checkpoints, which would know more than the frames.
fn raised_limits() -> StoreConfig {
    let limits = StoreLimits {
        payload_bytes_max: 200 << 10,
        unacked_bytes_max: 256 << 10,
        slab_bytes_first: 1 << 20,
        checkpoint_bytes: 1 << 30,
        ..StoreLimits::tiny()
    };
    assert!(
        LARGE as u64 > limits.extent_bytes_max && LARGE as u64 > regular_limits().limits.unacked_bytes_max
    );
    StoreConfig { limits, ..config() }
}

/// The limits of a later run.
fn regular_limits() -> StoreConfig {
    let limits = StoreLimits { slab_bytes_first: 1 << 20, ..StoreLimits::tiny() };
    StoreConfig { limits, ..config() }
}

/// Cuts the power and opens the store with the regular limits.
fn crash_and_lower(mut bed: Bed) -> Bed {
    bed.disk.crash(CrashPolicy::LOSE_ALL);
    Bed::on(bed.disk, regular_limits())
}

#[test]
fn a_large_frame_gets_an_extent_of_its_size_and_later_frames_get_regular_ones() {
    for is_bulk in [false, true] {
        let mut bed = Bed::with(1, raised_limits());
        let slot = bed.slot(0);
        bed.append_durably(slot, &batch(&[b"small"]));
        let free = bed.store.stats().free_bytes;
        let large = filled(1, LARGE);
        if is_bulk {
            bed.try_append_bulk(slot, &large).expect("it is taken");
            bed.settle();
        } else {
            bed.append_durably(slot, &large);
        }
        assert_eq!(free - bed.store.stats().free_bytes, 256 << 10, "the smallest that takes it");
        let mut expected = vec![b"small".to_vec(), vec![1; LARGE]];
        for n in 0..30 {
            bed.append_durably(slot, &filled(n, 10_000));
            expected.push(vec![n; 10_000]);
        }
        let used = bed.store.stats().slab_bytes - bed.store.stats().free_bytes;
        assert!(used <= (16 + 256 + 4 * 64) << 10, "{used}");
        assert_eq!(bed.values(slot), expected);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot), expected);
    }
}

#[test]
fn after_the_limit_is_lowered_large_frames_are_recovered_and_new_ones_rejected() {
    let mut bed = Bed::with(2, raised_limits());
    let slot = bed.slot(0);
    bed.append_durably(slot, &filled(1, LARGE));
    bed.append_durably(slot, &batch(&[b"small"]));
    bed.append_durably(slot, &filled(2, LARGE));
    let mut bed = crash_and_lower(bed);
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(0);
    let max = bed.config.limits.payload_bytes_max;
    let refused = bed.try_append(slot, &filled(3, LARGE));
    assert!(matches!(refused, Err(AppendError::TooLarge { max: told, .. }) if told == max), "{refused:?}");
    bed.append_durably(slot, &batch(&[b"goes on"]));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot), [vec![1; LARGE], b"small".to_vec(), vec![2; LARGE], b"goes on".to_vec()]);
}

#[test]
fn a_damaged_acknowledged_frame_above_a_lowered_limit_is_not_truncated() {
    // The frame is after the extent's header. Its first page has its own header, later ones only payload.
    for block in [1, 2, 20] {
        let mut bed = Bed::with(3, raised_limits());
        let slot = bed.slot(0);
        bed.append_durably(slot, &filled(1, LARGE));
        // Appended after the large one was durable, which it proves, further ahead than the regular limits allow in flight.
        bed.append_durably(slot, &batch(&[b"proves it"]));
        bed.disk.disk().damage(SLAB.as_ref(), block, &Damage::Zero);
        for _ in 0..2 {
            bed = crash_and_lower(bed);
            let [(_, PartitionFinding::Faulty { at: Offset(0), .. })] = &bed.report.findings[..] else {
                panic!("block {block}: {:?}", bed.report.findings)
            };
            let slot = bed.slot(0);
            assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::Faulty));
            let (records, skipped) = bed.read_all(slot, 0, 64 << 10);
            assert_eq!((records.len(), &skipped[..]), (1, &[(0, 1)][..]));
            assert_eq!(records[0].2, b"proves it");
        }
    }
}

#[test]
fn a_large_frame_that_was_torn_in_flight_is_truncated() {
    for seed in 0..20 {
        let mut bed = Bed::with(seed, raised_limits());
        let slot = bed.slot(0);
        bed.append_durably(slot, &batch(&[b"kept"]));
        bed.append(slot, &filled(1, LARGE));
        for _ in 0..seed % 5 {
            bed.step();
        }
        let was_durable = bed.store.bounds(slot).durable_end;
        bed.disk.crash(CrashPolicy::MIXED);
        let mut bed = Bed::on(bed.disk, regular_limits());
        let slot = bed.slot(0);
        assert!(!bed.store.bounds(slot).faulty && bed.store.bounds(slot).durable_end >= was_durable);
        bed.append_durably(slot, &batch(&[b"goes on"]));
        let values = bed.values(slot);
        assert_eq!(values.first().map(Vec::as_slice), Some(&b"kept"[..]));
        assert_eq!(values.last().map(Vec::as_slice), Some(&b"goes on"[..]));
    }
}

#[test]
fn a_disk_without_space_for_a_large_frame_still_accepts_small_ones() {
    let limits = StoreLimits { slab_bytes_first: 64 << 10, ..raised_limits().limits };
    let mut bed = Bed::with(4, StoreConfig { limits, ..raised_limits() });
    let slot = bed.slot(0);
    bed.append_durably(slot, &batch(&[b"first"]));
    let used: u64 = bed.disk.disk().image().files().map(|(_, bytes)| bytes).sum();
    bed.disk.disk().set_capacity(Some(used + (400 << 10)));
    let large = filled(1, LARGE);
    assert_eq!(bed.try_append(slot, &large), Err(AppendError::StorageFull));
    assert!(bed.saw(|event| matches!(event, StoreEvent::StorageFull(_))));
    let other = bed.slot(1);
    for n in 0..5 {
        bed.append_durably(slot, &filled(n, 2000));
        bed.append_durably(other, &filled(n, 2000));
    }
    bed.disk.disk().set_capacity(None);
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
    assert!(bed.saw(|event| matches!(event, StoreEvent::SpaceAvailable)));
    bed.append_durably(slot, &large);
    assert_eq!((bed.values(slot).len(), bed.values(other).len()), (7, 5));
}

#[test]
fn no_part_of_a_large_extent_is_reused_when_its_header_and_the_map_are_lost() {
    let mut bed = Bed::with(5, raised_limits());
    let (slot, other) = (bed.slot(0), bed.slot(1));
    // The first extent of the slab: if it is not known, the next block of the regular size counts as free.
    bed.append_durably(slot, &filled(1, LARGE));
    bed.append_durably(other, &batch(&[b"other"]));
    bed.disk.disk().damage(SLAB.as_ref(), 0, &Damage::Zero);
    for copy in ["a", "b"] {
        let path = format!("/data/store-000/state.{copy}");
        let file = bed.disk.open(Path::new(&path), OpenMode::ReadWrite).expect("it is there");
        let bytes = bed.disk.file_bytes(file).expect("it is open") as usize;
        bed.disk.write_at(file, 0, &vec![0; bytes]).expect("it is open");
        bed.disk.sync_file(file).expect("it is open");
        bed.disk.close_file(file);
    }
    let before = bed.disk.disk().image().read(SLAB.as_ref()).expect("it is there");
    let mut bed = crash_and_lower(bed);
    assert!(bed.report.map_rebuilt);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    assert!(bed.store.bounds(slot).faulty);
    for n in 0..100 {
        bed.append_durably(other, &filled(n, 9000));
    }
    let after = bed.disk.disk().image().read(SLAB.as_ref()).expect("it is there");
    assert!(before[..256 << 10] == after[..256 << 10], "its frames were written over");
}
