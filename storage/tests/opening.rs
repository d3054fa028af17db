//! Opening a damaged store: the map is lost, files are missing or unknown, blocks cannot be read.

mod support;

use std::path::Path;

use highwater_protocol::ids::{ClusterId, Offset, StoreId};
use highwater_runtime::fs::{Fs, OpenMode};
use highwater_runtime::sim::{CrashPolicy, Damage, DiskHarness, Fault, SimDisk};
use highwater_storage::{AppendError, Cursor, OpenError, PartitionFinding, ReadResult, Store, StoreConfig};
use support::{Bed, batch, config, filled};

const SLAB: &str = "/data/store-000/slab-000000";

/// Creates three partitions over several extents and slabs. Returns the values of partition 0.
fn example(seed: u64) -> (Bed, Vec<Vec<u8>>) {
    let mut bed = Bed::new(seed);
    let mut expected = Vec::new();
    for n in 0..60usize {
        for partition in 0..3 {
            let slot = bed.slot(partition);
            bed.append(slot, &filled(n as u8, 100 + 97 * n));
        }
        expected.push(vec![n as u8; 100 + 97 * n]);
        if n % 4 == 0 {
            bed.settle();
        }
    }
    bed.settle();
    (bed, expected)
}

/// Overwrites both copies of the state log with zero bytes.
fn zero_map(disk: &mut DiskHarness) {
    for copy in ["a", "b"] {
        let path = format!("/data/store-000/state.{copy}");
        let file = disk.open(path.as_ref(), OpenMode::ReadWrite).expect("it is there");
        let bytes = disk.file_bytes(file).expect("it is open") as usize;
        disk.write_at(file, 0, &vec![0; bytes]).expect("it is open");
        disk.sync_file(file).expect("it is open");
        disk.close_file(file);
    }
}

#[test]
fn an_idle_partition_is_not_searched_after_a_crash() {
    let (mut bed, expected) = example(10);
    for _ in 0..3 {
        bed.store.enforce_retention(&mut bed.disk, 0);
        bed.settle();
    }
    let writes = bed.disk.disk().stats().writes;
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
    assert_eq!(bed.disk.disk().stats().writes, writes, "the map knows, once and for all");
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!((bed.report.partitions, bed.report.bytes_scanned), (3, 0));
    // One gets another record: only that one is searched the next time.
    let slot = bed.slot(1);
    bed.append_durably(slot, &batch(&[b"awake"]));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert!((1..100_000).contains(&bed.report.bytes_scanned), "{}", bed.report.bytes_scanned);
    for (partition, more) in [(0, 0), (1, 1), (2, 0)] {
        let slot = bed.slot(partition);
        assert_eq!(bed.values(slot).len(), expected.len() + more);
    }
    for _ in 0..2 {
        bed.store.enforce_retention(&mut bed.disk, 0);
        bed.settle();
    }
    let bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.bytes_scanned, 0, "what was searched once has come to rest too");
}

#[test]
fn a_lost_map_is_rebuilt_from_the_headers_of_the_extents() {
    for restart in [false, true] {
        let (bed, expected) = example(1);
        let mut bed = if restart { bed.restart() } else { bed };
        zero_map(&mut bed.disk);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert!(bed.report.map_rebuilt && !bed.report.warnings.is_empty());
        assert_eq!(bed.report.findings, []);
        for partition in 0..3 {
            let slot = bed.slot(partition);
            assert_eq!(bed.values(slot), expected);
            bed.append_durably(slot, &batch(&[b"on it goes"]));
        }
        // The rebuilt map is stored, and the next start finds everything in it.
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert!(!bed.report.map_rebuilt);
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot).len(), expected.len() + 1);
    }
}

#[test]
fn a_map_is_rebuilt_again_after_a_power_cut_before_it_was_stored() {
    let (mut bed, expected) = example(2);
    zero_map(&mut bed.disk);
    for _ in 0..5 {
        bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert!(bed.report.map_rebuilt);
        let slot = bed.slot(0);
        bed.append(slot, &batch(&[b"never durable"]));
        bed.turn();
    }
    bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot), expected);
}

#[test]
fn a_rebuilt_map_has_no_extents_that_were_freed_and_reused() {
    let mut bed = Bed::new(3);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    for n in 0..200u64 {
        let end = bed.append_durably(slot, &filled(n as u8, 5000)).next_offset;
        bed.append_durably(other, &filled(n as u8, 300));
        bed.store.set_log_start(&mut bed.disk, slot, Offset((end.0 - 20).max(0))).expect("it is in the log");
    }
    bed.settle();
    let before = bed.store.bounds(slot);
    zero_map(&mut bed.disk);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    let after = bed.store.bounds(slot);
    assert_eq!(after.durable_end, before.durable_end);
    assert!(after.log_start <= before.log_start, "what was deleted may come back, nothing else may go");
    bed.values(slot);
    assert_eq!(bed.values(other).len(), 200);
}

#[test]
fn a_damaged_extent_header_loses_nothing_while_the_map_is_intact() {
    let (bed, expected) = example(4);
    for block in (0..).take(4).map(|n| n * 4) {
        bed.disk.disk().damage(SLAB.as_ref(), block, &Damage::Zero);
    }
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot), expected);
}

#[test]
fn a_partition_whose_header_and_map_are_lost_is_out_of_service_until_it_is_deleted() {
    let (mut bed, expected) = example(12);
    // The first extent of partition 0, which is the first in the slab.
    bed.disk.disk().damage(SLAB.as_ref(), 0, &Damage::Zero);
    zero_map(&mut bed.disk);
    let before = bed.disk.disk().image().read(SLAB.as_ref()).expect("it is there");
    for restart in [false, true, false] {
        bed = if restart { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
        let slot = bed.slot(0);
        assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::Faulty));
        for partition in 1..3 {
            let slot = bed.slot(partition);
            assert!(bed.values(slot).len() >= expected.len());
            bed.append_durably(slot, &filled(7, 9000));
        }
    }
    let after = bed.disk.disk().image().read(SLAB.as_ref()).expect("it is there");
    assert_eq!(before[..16 << 10], after[..16 << 10], "nothing was written over its frames");
    let slot = bed.slot(0);
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    bed.append_durably(slot, &batch(&[b"made anew"]));
    assert_eq!(bed.values(slot), [b"made anew".to_vec()]);
}

#[test]
fn a_partition_that_lost_its_only_header_and_the_map_is_not_treated_as_empty() {
    let mut bed = Bed::new(13);
    let slot = bed.slot(0);
    bed.append_durably(slot, &batch(&[b"kept"]));
    bed.disk.disk().damage(SLAB.as_ref(), 0, &Damage::FlipBit(7));
    zero_map(&mut bed.disk);
    for restart in [false, true, false] {
        bed = if restart { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
        let slot = bed.slot(0);
        assert!(bed.store.bounds(slot).faulty);
        assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::Faulty));
        let other = bed.slot(1);
        bed.append_durably(other, &filled(7, 9000));
    }
    let slot = bed.slot(0);
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    bed.append_durably(slot, &batch(&[b"made anew"]));
}

#[test]
fn a_partition_whose_frames_are_given_up_with_a_lost_header_serves_the_rest() {
    let (mut bed, _) = example(12);
    bed.disk.disk().damage(SLAB.as_ref(), 0, &Damage::Zero);
    zero_map(&mut bed.disk);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    let before = bed.store.bounds(slot);
    assert!(before.faulty);
    let mut bed = bed.accept_losses();
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(0);
    assert_eq!(bed.store.bounds(slot).durable_end, before.durable_end);
    let appended = bed.append_durably(slot, &batch(&[b"goes on"]));
    assert_eq!(appended.base_offset, before.durable_end);
    for partition in 0..3 {
        let slot = bed.slot(partition);
        bed.append_durably(slot, &filled(7, 9000));
    }
    let bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
}

#[test]
fn unknown_files_are_moved_to_quarantine() {
    let (mut bed, expected) = example(5);
    for name in ["slab-000007.tmp", "thesis.tex", "notes.txt"] {
        bed.disk.create_file(&Path::new("/data/store-000").join(name), 8192).expect("a new file");
    }
    let bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.quarantined.len(), 2);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.quarantined.len(), 0);
    bed.disk.create_file("/data/store-000/notes.txt".as_ref(), 4096).expect("the name is free");
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let kept = bed.disk.list("/data/quarantine".as_ref()).expect("the folder was made");
    let names: Vec<_> = kept.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["store-000.notes.txt", "store-000.notes.txt.1", "store-000.thesis.tex"]);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot), expected);
}

#[test]
fn a_store_of_another_cluster_or_number_is_not_opened() {
    for lost in [false, true] {
        let (bed, _) = example(6);
        let mut disk = bed.disk;
        if lost {
            zero_map(&mut disk);
        }
        let other = StoreConfig { cluster: ClusterId([6; 16]), ..config() };
        let refused = Store::open(other, &mut disk).map(|_| ()).expect_err("another cluster");
        assert!(matches!(&refused, OpenError::Foreign { what, .. } if what.contains("cluster")), "{refused}");
        if lost {
            let other = StoreConfig { store: StoreId(1), ..config() };
            let refused = Store::open(other, &mut disk).map(|_| ()).expect_err("another store");
            assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        }
    }
}

#[test]
fn partitions_in_a_missing_slab_are_out_of_service_and_their_space_is_not_reused() {
    let (mut bed, _) = example(7);
    bed.disk
        .rename("/data/store-000/slab-000001".as_ref(), "/data/slab-000001".as_ref())
        .expect("it is there");
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert!(!bed.report.findings.is_empty());
    assert!(bed.report.warnings.iter().any(|w| w.contains("slab-000001 is missing")), "{:?}", bed.report);
    let slot = bed.slot(0);
    assert!(bed.store.bounds(slot).faulty);
    assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::Faulty));
    let (records, _) = bed.read_all(slot, 0, 100_000);
    assert!(!records.is_empty(), "what is there is served");
    bed.store.enforce_retention(&mut bed.disk, i64::MAX);
    bed.settle();
    // After the slab was restored, everything is readable again.
    bed.disk
        .rename("/data/slab-000001".as_ref(), "/data/store-000/slab-000001".as_ref())
        .expect("it is there");
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot).len(), 60);
}

#[test]
fn an_unreadable_page_loses_its_own_records_and_no_others() {
    let (bed, expected) = example(8);
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    let (all, _) = bed.read_all(slot, 0, 50_000);
    assert_eq!(all.len(), expected.len());
    let mut lost_somewhere = false;
    for block in (1..64).step_by(7) {
        let range = block * 4096..(block + 1) * 4096;
        bed.disk.disk().inject(Fault::read_error(SLAB).within(range));
        for max_bytes in [1, 50_000] {
            let (records, skipped) = bed.read_all(slot, 0, max_bytes);
            let lost: i64 = skipped.iter().map(|(from, to)| to - from).sum();
            assert_eq!(records.len() as i64 + lost, all.len() as i64, "block {block}: {skipped:?}");
            assert!(records.iter().all(|record| all.contains(record)));
            lost_somewhere |= lost > 0;
        }
        bed.disk.disk().clear_faults();
    }
    assert!(lost_somewhere);
    let out = bed.read(slot, Cursor::at(Offset(0)), 1000);
    assert!(matches!(out, ReadResult::Frames(_)), "readable again");
}

#[test]
fn rot_before_acknowledged_frames_stops_the_partition_and_truncates_nothing() {
    let mut bed = Bed::new(9);
    let slot = bed.slot(0);
    for n in 0..5u8 {
        bed.try_append_bulk(slot, &filled(n, 3800)).expect("it is taken");
        bed.settle();
    }
    // Block 0 is the header, and each frame has a page of its own. There is room for three.
    bed.disk.disk().damage(SLAB.as_ref(), 2, &Damage::FlipBit(12_345));
    for _ in 0..2 {
        bed = bed.crash(CrashPolicy::LOSE_ALL);
        let [(_, PartitionFinding::Faulty { at: Offset(1), .. })] = &bed.report.findings[..] else {
            panic!("{:?}", bed.report.findings)
        };
        let slot = bed.slot(0);
        assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::Faulty));
        let (records, skipped) = bed.read_all(slot, 0, 50_000);
        assert_eq!(skipped, [(1, 2)]);
        assert_eq!(records.iter().map(|record| record.2[0]).collect::<Vec<_>>(), [0, 2, 3, 4]);
        // A clean restart does not hide the loss.
        bed = bed.restart();
    }
}

#[test]
fn rot_in_padding_is_reported_and_stops_nothing() {
    let mut bed = Bed::new(9);
    let slot = bed.slot(0);
    for n in 0..5u8 {
        bed.try_append_bulk(slot, &filled(n, 5000)).expect("it is taken");
        bed.settle();
    }
    // Each extent holds one frame of two pages; most of the second is padding.
    bed.disk.disk().damage(SLAB.as_ref(), 2, &Damage::FlipBit(30_000));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    assert!(bed.report.warnings.iter().any(|w| w.contains("padding")), "{:?}", bed.report);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot).len(), 5);
    bed.append_durably(slot, &batch(&[b"on it goes"]));
}

#[test]
fn rot_below_a_checkpoint_is_found_by_reads() {
    let (bed, expected) = example(9);
    let mut bed = bed.restart();
    for block in 1..64 {
        bed.disk.disk().damage(SLAB.as_ref(), block, &Damage::FlipBit(12_345));
    }
    let mut skips = 0;
    for partition in 0..3 {
        let slot = bed.slot(partition);
        let (records, skipped) = bed.read_all(slot, 0, 50_000);
        let lost: i64 = skipped.iter().map(|(from, to)| to - from).sum();
        assert_eq!(records.len() as i64 + lost, expected.len() as i64, "partition {partition}: {skipped:?}");
        for record in records {
            assert_eq!(record.2, expected[record.0 as usize]);
        }
        skips += skipped.len();
    }
    assert!(skips > 0);
}

#[test]
fn an_unused_store_is_closed_without_a_write() {
    let (bed, _) = example(11);
    let mut bed = bed.restart();
    for _ in 0..3 {
        bed.store.enforce_retention(&mut bed.disk, 0);
        bed.settle();
        let before = bed.disk.disk().stats();
        let again = bed.restart();
        assert_eq!(again.disk.disk().stats().bytes_written, before.bytes_written);
        bed = again;
    }
    assert_eq!(bed.report.bytes_scanned, 0);
}

#[test]
fn an_epoch_that_recovery_started_is_never_undone() {
    let mut begun = 0;
    for seed in 0..60 {
        let mut bed = Bed::new(seed);
        let slot = bed.slot(0);
        bed.append_durably(slot, &filled(1, 700));
        let mut told = bed.store.bounds(slot).last_epoch.expect("there is a frame");
        for round in 0..6 {
            // The first crash in the middle of a write, the others at any moment of a start without a write after it.
            if round < 2 {
                let slot = bed.slot(0);
                bed.append(slot, &filled(2, 9000));
                bed.turn();
            }
            for _ in 0..seed % 7 {
                bed.step();
            }
            bed = bed.crash(CrashPolicy::MIXED);
            let slot = bed.slot(0);
            let bounds = bed.store.bounds(slot);
            let epoch = bounds.last_epoch.expect("there is a frame");
            assert!(epoch >= told, "seed {seed}, round {round}: {epoch:?} behind {told:?}");
            begun += u32::from(bounds.epoch_is_new);
            told = epoch;
        }
        let slot = bed.slot(0);
        bed.append(slot, &filled(3, 100));
        bed.settle();
        assert!(!bed.store.bounds(slot).epoch_is_new);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        assert_eq!(bed.store.bounds(slot).last_epoch, Some(told));
    }
    assert!(begun > 20, "{begun}");
}

#[test]
fn every_log_is_complete_after_a_power_cut_right_after_a_map_was_rebuilt() {
    for steps in 0..12 {
        let mut bed = Bed::new(31);
        let slot = bed.slot(0);
        for n in 0..40 {
            bed.append_durably(slot, &filled(n, 2500));
        }
        let image = support::without_map(bed.disk.disk().image());
        let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, steps)), support::config());
        assert!(bed.report.map_rebuilt);
        for _ in 0..steps {
            bed.step();
        }
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, [], "after {steps} steps");
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot).len(), 40);
    }
}
