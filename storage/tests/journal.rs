//! The journal: many small appends become durable in one write, and reach the extents however the process ends.

mod support;

use std::path::Path;

use highwater_protocol::ids::{ClusterId, Offset};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, Damage, DiskHarness, DiskImage, Fault, SimDisk};
use highwater_storage::inspect::{self, FindingKind};
use highwater_storage::{
    AppendError, DurableForm, PartitionConfig, PartitionFinding, PartitionSlot, Store, StoreConfig,
    StoreEvent, StoreLimits,
};
use support::{Bed, CRASH_POLICIES, batch, config, filled, tp, without_map};

const JOURNAL: &str = "/data/store-000/journal";
const PARTITIONS: u32 = 8;

fn with_journal() -> StoreConfig {
    StoreConfig { limits: StoreLimits::tiny_with_journal(), ..config() }
}

fn forms() -> impl Iterator<Item = StoreConfig> {
    [DurableForm::Dsync, DurableForm::SyncPerRound]
        .into_iter()
        .map(|durable_form| StoreConfig { durable_form, ..with_journal() })
}

/// A store whose journal is in use.
fn bed(config: StoreConfig) -> Bed {
    let mut bed = Bed::with(3, config);
    for n in 0..2 {
        append_to_all(&mut bed, n);
    }
    assert!(bed.store.stats().journal_entries > 1, "{:?}", bed.store.stats());
    bed
}

/// Appends one record to each partition, and waits until all are durable.
fn append_to_all(bed: &mut Bed, n: u8) {
    for partition in 0..PARTITIONS {
        let slot = bed.slot(partition);
        bed.append(slot, &filled(n, 100));
    }
    bed.settle();
}

/// Returns the first byte of every record, for each partition.
fn records(bed: &mut Bed) -> Vec<Vec<u8>> {
    (0..PARTITIONS)
        .map(|partition| {
            let slot = bed.slot(partition);
            bed.values(slot).iter().map(|value| value[0]).collect()
        })
        .collect()
}

fn all(n: u8) -> Vec<Vec<u8>> {
    vec![(0..n).collect(); PARTITIONS as usize]
}

fn reopen(image: &DiskImage) -> Bed {
    Bed::on(DiskHarness::on(SimDisk::from_image(image, 1)), with_journal())
}

/// Cuts the power, changes the files, and opens the store again.
fn crash_with(bed: Bed, change: impl FnOnce(&mut DiskHarness)) -> Bed {
    let mut disk = bed.disk;
    disk.crash(CrashPolicy::LOSE_ALL);
    change(&mut disk);
    Bed::on(disk, bed.config)
}

/// Does the work of a timer.
fn run_timer(bed: &mut Bed) {
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
}

#[test]
fn the_small_records_of_many_partitions_are_written_at_once() {
    for config in forms() {
        let mut bed = bed(config);
        let before = bed.store.stats();
        append_to_all(&mut bed, 2);
        let after = bed.store.stats();
        assert_eq!((after.writes - before.writes, after.journal_entries - before.journal_entries), (1, 1));
        assert_eq!(after.durable_writes - before.durable_writes, 1, "in either form of rounds");
        assert_eq!(after.syncs, before.syncs);
        assert_eq!(records(&mut bed), all(3));
    }
}

#[test]
fn records_that_only_the_journal_has_survive_every_crash_with_and_without_the_map() {
    for config in forms() {
        for policy in CRASH_POLICIES {
            let mut bed = bed(config.clone());
            append_to_all(&mut bed, 2);
            let mut bed = bed.crash(policy);
            assert!(bed.report.journal_pieces >= u64::from(PARTITIONS), "{:?}", bed.report);
            assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(3), &[][..]));
            append_to_all(&mut bed, 3);
            append_to_all(&mut bed, 4);
            let image = bed.disk.disk().image();
            let mut bed = reopen(&without_map(image));
            assert!(bed.report.map_rebuilt);
            assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(5), &[][..]));
        }
    }
}

#[test]
fn an_idle_or_stopped_store_needs_nothing_from_its_journal() {
    for stopped in [false, true] {
        let mut bed = bed(with_journal());
        let mut bed = if stopped {
            bed.restart()
        } else {
            (0..3).for_each(|_| run_timer(&mut bed));
            bed
        };
        bed.disk.remove_file(JOURNAL.as_ref()).expect("it is there");
        let expected = all(2);
        assert_eq!(records(&mut bed), expected);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!((records(&mut bed), &bed.report.findings[..]), (expected, &[][..]), "stopped: {stopped}");
    }
}

#[test]
fn partitions_whose_journal_is_missing_after_a_crash_are_out_of_service_until_it_is_back() {
    let mut bed = crash_with(bed(with_journal()), |disk| {
        disk.rename(JOURNAL.as_ref(), "/data/kept".as_ref()).expect("it is there");
    });
    assert_eq!(bed.report.findings.len(), PARTITIONS as usize, "{:?}", bed.report);
    for (tp, finding) in &bed.report.findings {
        assert!(
            matches!(finding, PartitionFinding::Faulty { why, .. } if why.contains("journal")),
            "{tp} {finding:?}"
        );
    }
    let slot = bed.slot(0);
    assert_eq!(bed.try_append(slot, &batch(&[b"new"])), Err(AppendError::Faulty));
    let other = bed.slot(PARTITIONS);
    bed.append_durably(other, &batch(&[b"of a partition without records"]));
    let mut bed = crash_with(bed, |disk| {
        disk.remove_file(JOURNAL.as_ref()).expect("none or a new one");
        disk.rename("/data/kept".as_ref(), JOURNAL.as_ref()).expect("it is there");
    });
    assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(2), &[][..]));
}

#[test]
fn after_the_loss_of_a_journal_is_accepted_the_store_has_a_journal_again() {
    let mut bed = crash_with(bed(with_journal()), |disk| {
        disk.remove_file(JOURNAL.as_ref()).expect("it is there");
    });
    let ends: Vec<Offset> = (0..PARTITIONS)
        .map(|partition| {
            let slot = bed.slot(partition);
            bed.store.bounds(slot).durable_end
        })
        .collect();
    // Partition by partition: the journal is kept as long as one of them may need it.
    let slot = bed.slot(0);
    bed.store.accept_loss(slot, &bed.report.clone()).expect("it can be accepted");
    let bed = bed.restart();
    assert_eq!(bed.report.findings.len(), PARTITIONS as usize - 1, "{:?}", bed.report);
    let mut bed = bed.accept_losses();
    assert_eq!((&bed.report.findings[..], &bed.report.warnings[..]), (&[][..], &[][..]));
    append_to_all(&mut bed, 9);
    append_to_all(&mut bed, 9);
    assert!(bed.store.stats().journal_entries > 0);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    for (partition, end) in (0..).zip(ends) {
        let slot = bed.slot(partition);
        assert_eq!(bed.store.bounds(slot).durable_end.0, end.0 + 2, "partition {partition}");
    }
}

#[test]
fn no_damaged_block_of_a_journal_loses_a_record_silently() {
    let mut bed = bed(with_journal());
    for n in 2..5 {
        append_to_all(&mut bed, n);
    }
    let image = bed.disk.disk().image();
    let blocks = image.read(JOURNAL.as_ref()).expect("it is there").len() / 4096;
    let (mut lost, mut whole) = (0, 0);
    for block in 0..blocks as u64 {
        let flips = (0..8).map(|n| Damage::FlipBit(n * 37 * 8 + 3));
        for damage in flips.chain([Damage::Zero, Damage::Unreadable]) {
            let disk = SimDisk::from_image(&image, 1);
            disk.damage(JOURNAL.as_ref(), block, &damage);
            let verified =
                inspect::verify(&mut disk.clone(), Path::new("/data"), &mut |_| {}).expect("readable");
            let mut bed = Bed::on(DiskHarness::on(disk), with_journal());
            let at = format!("block {block}, {damage:?}: {:?}", bed.report);
            for partition in 0..PARTITIONS {
                let slot = bed.slot(partition);
                let (read, _) = bed.read_all(slot, 0, 64 << 10);
                let values: Vec<u8> = read.iter().map(|record| record.2[0]).collect();
                if values == [0, 1, 2, 3, 4] {
                    whole += 1;
                    continue;
                }
                // The last entry cannot be distinguished from a torn one.
                let is_torn = values == [0, 1, 2, 3];
                let is_told = bed.report.findings.iter().any(|(of, _)| *of == tp(partition));
                assert!(is_told || is_torn, "{at}: {values:?}");
                assert!(is_torn || !verified.findings.is_empty(), "{at}: {verified:?}");
                lost += 1;
            }
        }
    }
    assert!(lost > 0 && whole > 2 * lost, "{lost} and {whole}");
}

#[test]
fn inspecting_a_killed_store_shows_the_records_in_its_journal() {
    let mut bed = bed(with_journal());
    append_to_all(&mut bed, 2);
    let image = bed.disk.disk().image();
    let mut disk = SimDisk::from_image(&image, 1);
    let listing = inspect::list(&mut disk, Path::new("/data")).expect("readable");
    assert_eq!(listing.stores[0].strangers, Vec::<std::path::PathBuf>::new());
    assert!(listing.stores[0].partitions.iter().all(|partition| partition.end == Offset(3)), "{listing:?}");
    let verified = inspect::verify(&mut disk, Path::new("/data"), &mut |_| {}).expect("readable");
    assert_eq!((verified.findings, verified.frames), (vec![], 3 * u64::from(PARTITIONS)));
    disk.remove_file(JOURNAL.as_ref()).expect("it is there");
    let verified = inspect::verify(&mut disk, Path::new("/data"), &mut |_| {}).expect("readable");
    assert!(
        verified.findings.iter().any(|finding| matches!(finding.kind, FindingKind::Journal(_))),
        "{verified:?}"
    );
}

#[test]
fn the_journal_of_another_store_is_rejected() {
    let image = bed(with_journal()).disk.disk().image();
    let mut other = Bed::with(4, StoreConfig { cluster: ClusterId([8; 16]), ..with_journal() });
    append_to_all(&mut other, 0);
    append_to_all(&mut other, 1);
    let journal = other.disk.disk().image().read(JOURNAL.as_ref()).expect("it is there");
    let mut mixed = image;
    mixed.put(JOURNAL.as_ref(), &journal);
    let mut disk = DiskHarness::on(SimDisk::from_image(&mixed, 1));
    let refused = Store::open(with_journal(), &mut disk);
    let refused = refused.map(|_| ()).expect_err("it is another's");
    assert!(refused.to_string().contains("belongs to store 0 of cluster"), "{refused}");
}

#[test]
fn records_written_through_the_journal_and_in_place_are_read_from_disk_in_order() {
    for config in forms() {
        let mut bed = bed(config);
        let slot = bed.slot(0);
        let mut expected = vec![0, 1];
        for n in 2..60 {
            match n % 5 {
                0 => {
                    bed.try_append_bulk(slot, &filled(n, 9000)).expect("it is taken");
                }
                1 => {
                    bed.append(slot, &filled(n, 6000));
                }
                _ => {
                    bed.append(slot, &filled(n, 200));
                }
            }
            expected.push(n);
            if n % 3 != 0 {
                bed.settle();
            }
            // Other partitions evict this one from the cache.
            let other = bed.slot(1);
            bed.append(other, &filled(n, 3000));
        }
        bed.settle();
        for bytes_max in [1, 5000, 64 << 10] {
            let (read, skipped) = bed.read_all(slot, 0, bytes_max);
            let read: Vec<u8> = read.iter().map(|record| record.2[0]).collect();
            assert_eq!((read, skipped), (expected.clone(), vec![]));
        }
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        let read: Vec<u8> = bed.values(slot).iter().map(|value| value[0]).collect();
        assert_eq!(read, expected);
    }
}

#[test]
fn a_full_journal_is_written_back_and_reused() {
    for config in forms() {
        let mut bed = bed(config);
        let journal_bytes = bed.config.limits.journal_bytes;
        let mut n = 2;
        while bed.store.stats().journal_bytes < 5 * journal_bytes {
            append_to_all(&mut bed, n);
            n += 1;
        }
        assert_eq!(records(&mut bed), all(n));
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(n), &[][..]));
    }
}

#[test]
fn partitions_are_deleted_and_trimmed_while_only_the_journal_has_their_records() {
    let mut bed = bed(with_journal());
    let (deleted, trimmed) = (bed.slot(0), bed.slot(1));
    bed.store.delete_partition(&mut bed.disk, deleted);
    bed.store.set_log_start(&mut bed.disk, trimmed, Offset(1)).expect("it is durable");
    bed.settle();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(0);
    assert_eq!(bed.store.bounds(slot).durable_end, Offset(0), "it is another one");
    // Its space is reused, and its records in the journal are not written there.
    for n in 0..30 {
        bed.append_durably(slot, &filled(100 + n, 1000));
    }
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    let values = bed.values(slot);
    assert_eq!(values.iter().map(|value| value[0]).collect::<Vec<_>>(), (100..130).collect::<Vec<_>>());
    let slot = bed.slot(1);
    assert_eq!(bed.values(slot).len(), 1);
}

#[test]
fn a_journal_error_stops_the_store_without_an_acknowledgement() {
    let mut bed = bed(with_journal());
    bed.events.clear();
    bed.disk.disk().inject(Fault::write_error(JOURNAL));
    let slot = bed.slot(0);
    bed.append(slot, &batch(&[b"lost"]));
    bed.settle();
    assert!(matches!(&bed.events[..], [StoreEvent::Fatal(why)] if why.contains(JOURNAL)), "{:?}", bed.events);
}

fn is_stalled(slot: PartitionSlot) -> impl Fn(&StoreEvent) -> bool {
    move |event| matches!(event, StoreEvent::Stalled { slot: stalled } if *stalled == slot)
}

#[test]
fn records_that_do_not_fit_the_journal_are_written_in_place_when_there_is_space() {
    let mut bed = bed(with_journal());
    bed.events.clear();
    bed.disk.disk().inject(Fault::write_no_space(JOURNAL));
    let (slot, new) = (bed.slot(0), bed.slot(PARTITIONS));
    bed.append(slot, &filled(2, 100));
    bed.append(new, &filled(7, 100));
    bed.settle();
    assert!(bed.saw(is_stalled(slot)) && bed.saw(is_stalled(new)), "{:?}", bed.events);
    assert_eq!(bed.try_append(slot, &filled(3, 100)), Err(AppendError::StorageFull));
    bed.disk.disk().clear_faults();
    (0..3).for_each(|_| run_timer(&mut bed));
    assert!(bed.saw(|event| matches!(event, StoreEvent::SpaceAvailable)), "{:?}", bed.events);
    bed.append_durably(slot, &filled(3, 100));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let (slot, new) = (bed.slot(0), bed.slot(PARTITIONS));
    assert_eq!(bed.report.findings, []);
    assert_eq!(bed.values(slot).iter().map(|value| value[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(bed.values(new).len(), 1);
}

#[test]
fn a_write_back_without_space_loses_nothing_and_is_retried() {
    for stops in [false, true] {
        let mut bed = bed(with_journal());
        bed.events.clear();
        bed.disk.disk().inject(Fault::write_no_space("/data/store-000/slab-000000"));
        for _ in 0..3 {
            run_timer(&mut bed);
        }
        assert!(bed.saw(|event| matches!(event, StoreEvent::StorageFull(_))), "{:?}", bed.events);
        let slot = bed.slot(0);
        assert_eq!(bed.try_append(slot, &filled(2, 100)), Err(AppendError::StorageFull));
        assert_eq!(records(&mut bed), all(2));
        if stops {
            bed.store.shutdown(&mut bed.disk);
            bed.settle();
            assert!(bed.saw(|event| matches!(event, StoreEvent::Closed)), "{:?}", bed.events);
            bed.disk.disk().clear_faults();
        } else {
            bed.disk.disk().clear_faults();
            run_timer(&mut bed);
            assert!(bed.saw(|event| matches!(event, StoreEvent::SpaceAvailable)), "{:?}", bed.events);
            append_to_all(&mut bed, 2);
        }
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(if stops { 2 } else { 3 }), &[][..]));
    }
}

#[test]
fn retention_by_time_removes_records_that_only_the_journal_has() {
    let mut bed = bed(with_journal());
    let keep = PartitionConfig { retention_ms: Some(1000), segment_ms: 1, ..PartitionConfig::KEEP_ALL };
    bed.store.ensure_partition(tp(0), keep);
    bed.wall_ms = i64::MAX / 2;
    for _ in 0..4 {
        let now = bed.wall_ms;
        bed.store.enforce_retention(&mut bed.disk, now);
        bed.settle();
    }
    let slot = bed.slot(0);
    assert_eq!(bed.store.bounds(slot).log_start, Offset(2));
    append_to_all(&mut bed, 2);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot).len(), 1);
}

#[test]
fn a_start_without_space_to_apply_the_journal_keeps_it_for_the_next_one() {
    let mut bed = bed(with_journal());
    append_to_all(&mut bed, 2);
    let slab = "/data/store-000/slab-000000";
    let mut bed = crash_with(bed, |disk| disk.disk().inject(Fault::write_no_space(slab)));
    assert!(bed.report.findings.len() >= PARTITIONS as usize - 1, "{:?}", bed.report);
    for (tp, finding) in &bed.report.findings {
        assert!(
            matches!(finding, PartitionFinding::Faulty { why, .. } if why.contains("no space")),
            "{tp} {finding:?}"
        );
    }
    let slot = bed.slot(1);
    assert_eq!(bed.try_append(slot, &filled(9, 100)), Err(AppendError::Faulty));
    let mut bed = crash_with(bed, |disk| disk.disk().clear_faults());
    assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(3), &[][..]));
    append_to_all(&mut bed, 3);
    assert_eq!(records(&mut bed), all(4));
}

#[test]
fn a_start_that_applies_a_part_of_the_journal_reports_every_partition_that_lacks_records() {
    let mut lacking = 0;
    for page in 0..32 {
        let mut bed = bed(with_journal());
        for n in 2..5 {
            for partition in 0..PARTITIONS {
                let slot = bed.slot(partition);
                bed.append(slot, &filled(n, 1500));
            }
            bed.settle();
        }
        let fault = Fault::write_no_space("/data/store-000/slab-000000").within(page * 4096..u64::MAX);
        let mut bed = crash_with(bed, |disk| disk.disk().inject(fault));
        for partition in 0..PARTITIONS {
            let slot = bed.slot(partition);
            let count = bed.values(slot).len();
            let is_reported = bed.report.findings.iter().any(|(of, finding)| {
                *of == tp(partition) && matches!(finding, PartitionFinding::Faulty { .. })
            });
            // Records that nothing proves to be durable are not read before there is space.
            let is_held = bed.report.without_space.contains(&tp(partition));
            let at = format!("page {page}: {count} records in partition {partition}");
            assert!(count == 5 || is_reported || is_held, "{at}");
            lacking += usize::from((1..5).contains(&count));
        }
        let mut bed = crash_with(bed, |disk| disk.disk().clear_faults());
        assert_eq!((records(&mut bed), &bed.report.findings[..]), (all(5), &[][..]), "page {page}");
    }
    assert!(lacking > 0, "some partitions had a part of their records");
}

#[test]
fn a_small_disk_gets_a_small_journal_or_none() {
    for (free, journal) in [(4 << 20, true), (256 << 10, false)] {
        let mut bed = Bed::with(5, with_journal());
        bed.disk.disk().set_capacity(Some(used(&bed) + free));
        for n in 0..5 {
            let slot = bed.slot(0);
            bed.append_durably(slot, &filled(n, 100));
        }
        assert_eq!(bed.store.stats().journal_entries > 0, journal, "{free} bytes free");
    }
}

/// Returns the size of all files.
fn used(bed: &Bed) -> u64 {
    bed.disk.disk().image().files().map(|(_, bytes)| bytes).sum()
}
