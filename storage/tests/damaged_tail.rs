//! Damage at the end of a log: a read below the end returns records or reports which are lost, and never that there is nothing yet.

mod support;

use std::path::Path;

use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage, SimDisk};
use highwater_storage::{Cursor, FindResult, PartitionFinding, PartitionSlot, ReadResult};
use support::{Bed, batch_at, config, filled};

const SLAB: &str = "/data/store-000/slab-000000";
const PAGE: usize = 4096;
/// Size of the first extent.
const EXTENT: usize = 16 << 10;

/// How the store ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    /// Killed right after the last record was acknowledged.
    Killed,
    /// Killed after the end of the log was recorded in the map.
    KilledIdle,
    /// Killed after another extent was recorded in the map, which is empty.
    KilledAtNextExtent,
}

/// What happens to the last pages of the log.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Zero,
    Garbage,
    Truncated,
    SlabMissing,
    /// Only the first of these pages.
    OnePage,
}

/// The image of a closed log, and its acknowledged end.
fn build_log(end: End) -> (DiskImage, Offset) {
    let mut bed = Bed::new(1);
    let slot = bed.slot(0);
    let mut acknowledged = Offset(0);
    for n in 0..10u8 {
        let batch = batch_at(i64::from(n), &[&[n; 1000]]);
        acknowledged = bed.append_durably(slot, &batch).next_offset;
    }
    if let End::Stopped = end {
        return (bed.restart().disk.disk().image(), acknowledged);
    }
    if let End::Killed = end {
        return (bed.disk.disk().image(), acknowledged);
    }
    for _ in 0..3 {
        bed.store.enforce_retention(&mut bed.disk, 0);
        bed.settle();
    }
    if let End::KilledIdle = end {
        return (bed.disk.disk().image(), acknowledged);
    }
    bed.append(slot, &filled(99, 9000));
    loop {
        let disk = SimDisk::from_image(&bed.disk.disk().image(), 2);
        disk.crash(CrashPolicy::LOSE_ALL);
        let image = disk.image();
        let mut crashed = Bed::on(DiskHarness::on(disk), config());
        let slot = crashed.slot(0);
        if crashed.report.extents == 2 && crashed.store.bounds(slot).durable_end == acknowledged {
            return (image, acknowledged);
        }
        assert!(bed.step(), "the map learns of the extent before its frames are durable");
    }
}

/// Returns the image with the first extent zeroed from this page on.
fn apply_loss(mut image: DiskImage, from_page: usize, loss: Loss) -> DiskImage {
    let path: &Path = SLAB.as_ref();
    let mut slab = image.read(path).expect("the slab is there");
    let lost = from_page * PAGE..EXTENT;
    match loss {
        Loss::Zero => slab[lost].fill(0),
        Loss::Garbage => slab[lost].fill(0xA5),
        Loss::Truncated => slab.truncate(lost.start),
        Loss::OnePage => slab[lost.start..lost.start + PAGE].fill(0),
        Loss::SlabMissing => {
            image.remove(path);
            return image;
        }
    }
    image.put(path, &slab);
    image
}

/// Reads from every offset below the end. Returns, for each, whether its record was read.
fn read_each(bed: &mut Bed, slot: PartitionSlot, at: &str) -> Vec<bool> {
    let bounds = bed.store.bounds(slot);
    let mut is_there = Vec::new();
    for offset in bounds.log_start.0..bounds.durable_end.0 {
        match bed.read(slot, Cursor::at(Offset(offset)), 1) {
            ReadResult::Frames(frames) => assert!(frames.next.offset().0 > offset, "{at}: offset {offset}"),
            ReadResult::Damaged { resume_at } => {
                assert!(resume_at.0 > offset && resume_at <= bounds.durable_end, "{at}: offset {offset}");
                is_there.push(false);
                continue;
            }
            other => panic!("{at}: offset {offset} of {bounds:?}: {other:?}"),
        }
        is_there.push(true);
    }
    let behind = bed.read(slot, Cursor::at(bounds.durable_end), 1);
    assert!(matches!(behind, ReadResult::AtEnd), "{at}: at the end {behind:?}");
    is_there
}

#[test]
fn a_read_below_the_end_of_a_damaged_log_returns_a_record_or_reports_that_it_is_lost() {
    for end in [End::Stopped, End::KilledIdle, End::KilledAtNextExtent] {
        let (image, acknowledged) = build_log(end);
        for loss in [Loss::Zero, Loss::Garbage, Loss::Truncated, Loss::SlabMissing] {
            for from_page in 1..4 {
                let at = format!("{end:?}, {loss:?} from page {from_page} on");
                let lost = apply_loss(image.clone(), from_page, loss);
                let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&lost, 2)), config());
                let slot = bed.slot(0);
                let bounds = bed.store.bounds(slot);
                assert_eq!(bounds.durable_end, acknowledged, "{at}: {:?}", bed.report);
                let is_there = read_each(&mut bed, slot, &at);
                let left = is_there.iter().take_while(|is_there| **is_there).count();
                assert!(is_there[left..].iter().all(|is_there| !is_there), "{at}: {is_there:?}");
                assert!(left < is_there.len(), "{at}: records are lost");
                assert_eq!(left == 0, from_page == 1 || matches!(loss, Loss::SlabMissing), "{at}: {left}");
                let (records, skipped) = bed.read_all(slot, 0, 8 << 10);
                assert_eq!(records.len(), left, "{at}");
                // Range by range, or all at once.
                let mut reached = left as i64;
                for (from, to) in skipped {
                    assert_eq!(from, reached, "{at}");
                    reached = to;
                }
                assert_eq!(reached, acknowledged.0, "{at}");
            }
        }
    }
}

#[test]
fn the_end_of_a_damaged_log_stays_the_same_over_restarts() {
    let (image, acknowledged) = build_log(End::KilledIdle);
    let mut bed = Bed::on(
        DiskHarness::on(SimDisk::from_image(&apply_loss(image.clone(), 2, Loss::Truncated), 2)),
        config(),
    );
    for _ in 0..3 {
        let slot = bed.slot(0);
        let bounds = bed.store.bounds(slot);
        assert_eq!(
            (bounds.durable_end, bounds.append_end, bounds.faulty),
            (acknowledged, acknowledged, true)
        );
        assert!(matches!(bed.report.findings[..], [(_, PartitionFinding::Faulty { .. })]));
        bed = bed.restart();
    }
    // The file is restored: everything is readable again.
    let whole = image.read(SLAB.as_ref()).expect("the slab is there");
    let mut image = bed.disk.disk().image();
    image.put(SLAB.as_ref(), &whole);
    let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config());
    let slot = bed.slot(0);
    assert!(!bed.store.bounds(slot).faulty, "{:?}", bed.report);
    assert_eq!(bed.values(slot).len(), 10);
}

#[test]
fn a_search_that_reaches_a_lost_end_reports_the_damage_and_not_that_there_is_no_such_record() {
    for end in [End::Stopped, End::KilledIdle, End::KilledAtNextExtent] {
        let (image, acknowledged) = build_log(end);
        let mut bed =
            Bed::on(DiskHarness::on(SimDisk::from_image(&apply_loss(image, 2, Loss::Zero), 2)), config());
        let slot = bed.slot(0);
        let left = read_each(&mut bed, slot, "").iter().filter(|is_there| **is_there).count() as i64;
        let is_lost = |found: FindResult| matches!(found, FindResult::Damaged { at, resume_at } if at.0 >= left && resume_at <= acknowledged);
        assert!(matches!(bed.find(slot, 1), FindResult::At(Offset(1), _)), "{end:?}");
        let found = bed.find(slot, acknowledged.0 - 1);
        assert!(is_lost(found), "{end:?}: {found:?}");
        let found = bed.find_last(slot);
        assert!(is_lost(found), "{end:?}: {found:?}");
        assert_eq!(bed.find(slot, acknowledged.0), FindResult::None, "{end:?}: no record has this time");
    }
}

#[test]
fn records_that_are_not_durable_are_neither_reported_lost_nor_found() {
    let mut bed = Bed::new(4);
    let slot = bed.slot(0);
    let end = bed.append_durably(slot, &batch_at(5, &[b"durable"])).next_offset;
    // Into this extent and the next ones.
    for n in 0..4u8 {
        bed.append(slot, &filled(n, 9000));
    }
    assert!(matches!(bed.read(slot, Cursor::at(end), 1), ReadResult::AtEnd));
    assert_eq!(bed.find(slot, 6), FindResult::None);
    assert!(matches!(bed.find_last(slot), FindResult::At(Offset(0), _)));
}

/// Whether each offset below the end is known to be lost.
fn known_lost(bed: &Bed, end: Offset) -> Vec<bool> {
    let lost = bed.report.lost.iter().flat_map(|(_, ranges)| ranges);
    let lost: Vec<_> = lost.cloned().collect();
    (0..end.0).map(|offset| lost.iter().any(|range| range.contains(&Offset(offset)))).collect()
}

#[test]
fn a_partition_whose_loss_is_accepted_keeps_its_end_and_every_record_outside_of_the_reported_ranges() {
    let losses = [Loss::Zero, Loss::Garbage, Loss::Truncated, Loss::SlabMissing, Loss::OnePage];
    let mut accepted = 0;
    for end in [End::Stopped, End::KilledIdle, End::KilledAtNextExtent] {
        let (image, acknowledged) = build_log(end);
        for (loss, from_page) in losses.into_iter().flat_map(|loss| (1..4).map(move |page| (loss, page))) {
            let at = format!("{end:?}, {loss:?} from page {from_page} on");
            let image = apply_loss(image.clone(), from_page, loss);
            let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config());
            let slot = bed.slot(0);
            if !bed.store.bounds(slot).faulty {
                // Reads find the damage.
                assert!(bed.report.lost.is_empty(), "{at}: {:?}", bed.report);
                continue;
            }
            accepted += 1;
            let before = read_each(&mut bed, slot, &at);
            let epoch = bed.store.bounds(slot).last_epoch;
            let lost = known_lost(&bed, acknowledged);
            let silently = before.iter().zip(&lost).any(|(is_there, is_lost)| !is_there && !is_lost);
            assert!(!silently, "{at}: {before:?} {lost:?}");
            let mut bed = bed.accept_losses();
            for again in 0..3 {
                let at = format!("{at}, start {again}: {:?}", bed.report);
                let slot = bed.slot(0);
                let bounds = bed.store.bounds(slot);
                assert!(!bounds.faulty && bed.report.findings.is_empty(), "{at}");
                assert!(bounds.last_epoch > epoch, "{at}: who has read a lost record can notice that");
                assert_eq!(bounds.durable_end.0, acknowledged.0 + again, "{at}");
                let there = read_each(&mut bed, slot, &at);
                let first = bounds.log_start.0 as usize;
                assert!(lost[..first].iter().all(|is_lost| *is_lost), "{at}: the log starts at {first}");
                for (offset, is_lost) in lost.iter().enumerate().skip(first) {
                    assert_eq!(there[offset - first], !is_lost && before[offset], "{at}: offset {offset}");
                }
                let appended = bed.append_durably(slot, &filled(again as u8, 2000));
                assert_eq!(appended.base_offset.0, acknowledged.0 + again, "{at}");
                bed = if again == 1 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
            }
        }
    }
    assert!(accepted > 15, "{accepted}");
}

/// Returns the first bytes of the records that can be read, by offset.
fn readable(bed: &mut Bed, slot: PartitionSlot) -> Vec<(i64, u8)> {
    let start = bed.store.bounds(slot).log_start;
    let (records, _) = bed.read_all(slot, start.0, 8 << 10);
    records.into_iter().map(|(offset, _, value)| (offset, value[0])).collect()
}

#[test]
fn if_the_map_is_lost_after_a_loss_was_accepted_no_further_record_is_lost_and_the_loss_can_be_accepted_again()
{
    // With a cut slab and no map, the start is refused.
    let losses = [Loss::Zero, Loss::Garbage, Loss::SlabMissing, Loss::OnePage];
    let mut again = 0;
    for end in [End::Stopped, End::Killed, End::KilledIdle, End::KilledAtNextExtent] {
        let (image, _) = build_log(end);
        let cases = losses
            .into_iter()
            .flat_map(|loss| (1..4).flat_map(move |page| [0, 1, 5].map(|n| (loss, page, n))));
        for (loss, from_page, appended) in cases {
            let at = format!("{end:?}, {loss:?} from page {from_page} on, {appended} records after it");
            let image = apply_loss(image.clone(), from_page, loss);
            let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config());
            let slot = bed.slot(0);
            if !bed.store.bounds(slot).faulty {
                continue;
            }
            // Without a checkpoint, the end of a log in a missing slab is not known.
            let known_end = bed.store.bounds(slot).durable_end;
            let mut bed = bed.accept_losses();
            let slot = bed.slot(0);
            for n in 0..appended {
                bed.append_durably(slot, &filled(200 + n, 4000));
            }
            let (before, bounds) = (readable(&mut bed, slot), bed.store.bounds(slot));
            assert_eq!(bounds.durable_end.0, known_end.0 + i64::from(appended), "{at}");
            bed.disk.crash(CrashPolicy::LOSE_ALL);
            let image = support::without_map(bed.disk.disk().image());
            let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config());
            for repaired in [false, true] {
                let at = format!("{at}, repaired again: {repaired}: {:?}", bed.report);
                let slot = bed.slot(0);
                let found = readable(&mut bed, slot);
                assert!(before.iter().all(|record| found.contains(record)), "{at}: {before:?} {found:?}");
                assert_eq!(bed.store.bounds(slot).durable_end, bounds.durable_end, "{at}");
                if repaired {
                    assert!(!bed.store.bounds(slot).faulty, "{at}");
                    break;
                }
                again += usize::from(bed.store.bounds(slot).faulty);
                bed = bed.accept_losses();
            }
        }
    }
    assert!(again > 0, "some losses are found again");
}

#[test]
fn a_loss_that_was_accepted_is_found_again_if_the_power_fails_before_the_store_is_closed() {
    let (image, _) = build_log(End::KilledIdle);
    let image = apply_loss(image, 2, Loss::Truncated);
    let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config());
    let slot = bed.slot(0);
    bed.store.accept_loss(slot, &bed.report.clone()).expect("it can be accepted");
    assert!(!bed.store.bounds(slot).faulty);
    let mut bed = bed.crash(CrashPolicy::KEEP_ALL);
    let slot = bed.slot(0);
    assert!(bed.store.bounds(slot).faulty, "{:?}", bed.report);
}

/// A planted bug, which these tests must find: `cargo test -p highwater-storage --features mutants --test damaged_tail mutants`.
#[cfg(feature = "mutants")]
mod mutants {
    use highwater_storage::mutants::Mutant;

    use crate::support::is_found;

    #[test]
    fn going_on_in_the_epoch_of_lost_records_is_found() {
        is_found(
            Mutant::KeepEpochAfterLoss,
            crate::a_partition_whose_loss_is_accepted_keeps_its_end_and_every_record_outside_of_the_reported_ranges,
        );
    }
}
