//! Free space that goes back to the file system: how much, when, and that nothing is lost by it whenever the power is cut.

mod support;

use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{DiskHarness, DiskImage, Fault, SimDisk};
use highwater_storage::{AppendError, DurableForm, PartitionSlot, StoreConfig, StoreEvent, StoreLimits};
use support::{Bed, CRASH_POLICIES, batch, config, filled, without_map};

const KIB: u64 = 1 << 10;

/// What the files of the store take on the disk: the free bytes of a disk of this size.
const DISK_BYTES: u64 = 64 << 20;

/// One slab of 1 MiB, which a partition has filled, and a record of another one.
fn filled_store(seed: u64, limits: StoreLimits) -> (Bed, PartitionSlot) {
    let limits = StoreLimits { slab_bytes_first: 1 << 20, ..limits };
    let mut bed = Bed::with(seed, StoreConfig { limits, ..config() });
    bed.disk.disk().set_capacity(Some(DISK_BYTES));
    let (slot, other) = (bed.slot(0), bed.slot(1));
    bed.append_durably(other, &batch(&[b"stays"]));
    for n in 0..80 {
        bed.append_durably(slot, &filled(n, 9000));
    }
    (bed, slot)
}

/// Returns space until there is no more. Returns the number of calls.
fn return_all(bed: &mut Bed) -> usize {
    let mut calls = 1;
    while bed.store.return_space(&mut bed.disk) {
        bed.settle();
        calls += 1;
        assert!(calls < 1000, "it never ends");
    }
    calls
}

fn disk_free(bed: &mut Bed) -> u64 {
    highwater_runtime::fs::Fs::free_bytes(&mut bed.disk, "/data/store-000".as_ref()).expect("it is known")
}

#[test]
fn free_space_goes_back_when_the_owner_asks_and_comes_again_when_it_is_needed() {
    let (mut bed, slot) = filled_store(1, StoreLimits::tiny());
    assert!(!bed.store.return_space(&mut bed.disk), "nothing is free");
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    let before = bed.store.stats();
    let free_before = disk_free(&mut bed);
    let asked = bed.store.release_space(0);
    assert!(asked >= 512 * KIB, "{asked} of {before:?}");
    let calls = return_all(&mut bed);
    let pieces_max = bed.config.limits.punch_bytes_max;
    assert!(calls as u64 > asked / pieces_max, "{calls} pieces");
    let after = bed.store.stats();
    assert!(asked - after.punched_bytes < bed.config.limits.punch_bytes_min, "{after:?}");
    assert_eq!((after.hole_bytes, after.slab_bytes), (after.punched_bytes, before.slab_bytes));
    assert_eq!(disk_free(&mut bed) - free_before, after.punched_bytes);
    // The next records get what is ready first, then holes, and only then another slab.
    let again = bed.slot(2);
    for n in 0..40 {
        bed.append_durably(again, &filled(n, 9000));
    }
    let filled_up = bed.store.stats();
    assert!(filled_up.hole_bytes < after.hole_bytes && filled_up.slab_bytes == after.slab_bytes);
    assert_eq!(bed.values(again).len(), 40);
    let other = bed.slot(1);
    assert_eq!(bed.values(other).len(), 1);
}

#[test]
fn what_is_free_for_a_round_of_retention_goes_back_by_itself_except_for_what_is_kept() {
    let limits = StoreLimits { free_bytes_kept: 600 * KIB, ..StoreLimits::tiny() };
    let (mut bed, slot) = filled_store(2, limits);
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    assert!(!bed.store.return_space(&mut bed.disk), "it may be needed at once");
    let round = |bed: &mut Bed| {
        while bed.store.enforce_retention(&mut bed.disk, 0) {}
        bed.settle();
    };
    round(&mut bed);
    assert!(!bed.store.return_space(&mut bed.disk), "it was in use at the beginning of the round");
    round(&mut bed);
    return_all(&mut bed);
    let stats = bed.store.stats();
    assert!(stats.punched_bytes > 0, "{stats:?}");
    let ready = stats.free_bytes - stats.hole_bytes;
    assert!((600 * KIB..600 * KIB + bed.config.limits.punch_bytes_max).contains(&ready), "{stats:?}");
    round(&mut bed);
    assert!(!bed.store.return_space(&mut bed.disk), "it does not make and return the same space for ever");
    assert_eq!(bed.store.stats(), stats);
}

#[test]
fn holes_are_found_at_a_start_and_allocated_before_they_are_written() {
    let (mut bed, slot) = filled_store(3, StoreLimits::tiny());
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    bed.store.release_space(0);
    return_all(&mut bed);
    for bed in [bed.restart()] {
        let mut bed = bed;
        let stats = bed.store.stats();
        assert!(stats.hole_bytes > 0 && stats.hole_bytes == stats.free_bytes, "{stats:?}");
        let slot = bed.slot(5);
        // The simulated disk takes no write into a hole.
        for n in 0..60 {
            bed.append_durably(slot, &filled(n, 9000));
        }
        assert_eq!(bed.values(slot).len(), 60);
        assert_eq!(bed.store.stats().slab_bytes, stats.slab_bytes, "holes come before another slab");
    }
}

#[test]
fn a_full_disk_is_noticed_when_a_hole_is_allocated_and_not_when_it_is_written() {
    let (mut bed, slot) = filled_store(4, StoreLimits::tiny());
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    bed.store.release_space(0);
    return_all(&mut bed);
    let used = DISK_BYTES - disk_free(&mut bed);
    bed.disk.disk().set_capacity(Some(used));
    let slot = bed.slot(7);
    let mut taken = 0;
    let refused = loop {
        match bed.try_append(slot, &filled(taken, 9000)) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
        bed.settle();
    };
    assert_eq!(refused, AppendError::StorageFull);
    assert!(bed.saw(|event| matches!(event, StoreEvent::StorageFull(_))));
    assert_eq!(bed.values(slot).len(), usize::from(taken), "what was taken is durable");
    bed.disk.disk().set_capacity(Some(DISK_BYTES));
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
    assert!(bed.saw(|event| matches!(event, StoreEvent::SpaceAvailable)));
    bed.append_durably(slot, &filled(taken, 9000));
}

#[test]
fn no_space_goes_back_while_the_disk_is_busy_unless_it_is_busy_for_long() {
    let (mut bed, slot) = filled_store(5, StoreLimits::tiny());
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    bed.store.release_space(0);
    let slot = bed.slot(8);
    bed.append(slot, &batch(&[b"on its way"]));
    bed.turn();
    let mut calls = 0;
    while bed.disk.disk().stats().bytes_punched == 0 {
        assert!(bed.store.return_space(&mut bed.disk), "there is more to do");
        calls += 1;
        assert!(calls < 1000, "it never gets on");
    }
    assert_eq!(calls, highwater_storage::limits::PUNCH_PAUSES_MAX + 1);
    assert!(bed.store.return_space(&mut bed.disk), "one piece at a time");
    assert_eq!(bed.store.stats().punched_bytes, 0);
    bed.settle();
    assert!(bed.store.stats().punched_bytes > 0);
}

#[test]
fn on_a_file_system_without_holes_space_is_kept_and_used_again() {
    let (mut bed, slot) = filled_store(6, StoreLimits::tiny());
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    bed.disk.disk().inject(Fault::no_holes("/data/store-000/slab-000000"));
    assert!(bed.store.release_space(0) > 0);
    return_all(&mut bed);
    assert_eq!((bed.store.stats().punched_bytes, bed.store.release_space(0)), (0, 0));
    let slot = bed.slot(9);
    for n in 0..60 {
        bed.append_durably(slot, &filled(n, 9000));
    }
    assert_eq!(bed.values(slot).len(), 60);
}

const RECORDS: u8 = 50;
/// Records before it were deleted, and the first extent with them.
const LOG_START: i64 = 20;
/// Records of the log that is deleted.
const GONE: u8 = 18;

/// Everything from the start of a log on is there.
fn read_whole(bed: &mut Bed, n: u32, records: u8) -> Result<(), String> {
    let slot = bed.slot(n);
    let bounds = bed.store.bounds(slot);
    let from = bounds.log_start.0;
    let (read, skipped) = bed.read_all(slot, from, 20_000);
    let found: Vec<u8> = read.iter().map(|(_, _, value)| value[0]).collect();
    if bounds.faulty || !skipped.is_empty() || found != (from as u8..records).collect::<Vec<_>>() {
        return Err(format!("log {n}, {bounds:?}: {found:?}, {skipped:?} are damaged; {:?}", bed.report));
    }
    Ok(())
}

/// Recovers an image: nothing that the map still has is missing. Without a map, the extents that are found are whole.
fn check(image: &DiskImage, config: &StoreConfig, seed: u64) -> Result<(), String> {
    let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(image, seed)), config.clone());
    let (log, gone) = (bed.slot(0), bed.slot(1));
    let bounds = bed.store.bounds(log);
    if bounds.log_start > Offset(LOG_START) || bounds.durable_end != Offset(RECORDS.into()) {
        return Err(format!("{bounds:?} {:?}", bed.report));
    }
    read_whole(&mut bed, 0, RECORDS)?;
    if !bed.report.map_rebuilt && bed.store.bounds(gone).durable_end > Offset(0) {
        read_whole(&mut bed, 1, GONE)?;
    }
    for n in 0..8 {
        bed.append_durably(log, &filled(RECORDS + n, 3000));
    }
    read_whole(&mut bed, 0, RECORDS + 8)
}

fn run(seed: u64) -> Result<usize, String> {
    let durable_form = if seed.is_multiple_of(2) { DurableForm::Dsync } else { DurableForm::SyncPerRound };
    // Every extent has the same size, so that the first one of the log is all that is freed of it.
    let limits = StoreLimits {
        slab_bytes_min: 64 * KIB,
        slab_bytes_first: 256 * KIB,
        slab_bytes_max: 256 * KIB,
        extent_bytes_min: 64 * KIB,
        extent_bytes_doubling: 64 * KIB,
        punch_bytes_min: 64 * KIB,
        punch_bytes_max: 64 * KIB,
        ..support::journal_in_half_of(seed / 2)
    };
    let config = StoreConfig { durable_form, limits, ..config() };
    let mut bed = Bed::with(seed, config.clone());
    let (log, gone) = (bed.slot(0), bed.slot(1));
    // The first slab gets an extent that stays and three that are freed, the second one those of the log.
    let other = bed.slot(2);
    bed.append_durably(other, &filled(0, 100));
    for n in 0..GONE {
        bed.append_durably(gone, &filled(n, 9000));
    }
    for n in 0..RECORDS {
        bed.append_durably(log, &filled(n, 3000));
    }
    // The map has every end, so that no extent is looked at again because of a crash.
    let mut bed = bed.restart();
    let (log, gone) = (bed.slot(0), bed.slot(1));
    bed.disk.disk().record();
    bed.store.set_log_start(&mut bed.disk, log, Offset(LOG_START)).expect("it is in the log");
    bed.store.delete_partition(&mut bed.disk, gone);
    // Each turn may return space: also while the map does not know yet what is free.
    loop {
        bed.store.release_space(0);
        let more = bed.store.return_space(&mut bed.disk);
        if !bed.step() && !more {
            break;
        }
    }
    let returned = bed.store.stats().punched_bytes;
    assert!(returned >= 256 * KIB, "{returned} bytes were returned");
    let recording = bed.disk.disk().take_recording();
    let mut tried = 0;
    for (n, cut) in recording.crash_images(seed, 2).enumerate() {
        let at =
            |why| format!("seed {seed}, image {n} (event {}, variant {}): {why}", cut.events, cut.variant);
        check(&cut.image, &config, seed ^ n as u64).map_err(at)?;
        check(&without_map(cut.image), &config, seed ^ n as u64)
            .map_err(|why| at(format!("without the map: {why}")))?;
        tried += 2;
    }
    Ok(tried)
}

#[test]
fn no_power_cut_while_space_goes_back_loses_a_record_with_the_map_or_without_it() {
    let seeds = if std::env::var("HIGHWATER_PROOF").is_ok_and(|value| value == "long") { 60 } else { 8 };
    let tried: usize = (0..seeds).map(|seed| run(seed).unwrap_or_else(|why| panic!("{why}"))).sum();
    println!("{tried} images");
    assert!(tried > 800, "{tried}");
}

#[test]
fn space_that_a_crash_left_half_returned_is_used_again() {
    for (seed, policy) in CRASH_POLICIES.into_iter().enumerate() {
        let (mut bed, slot) = filled_store(seed as u64, StoreLimits::tiny());
        bed.store.delete_partition(&mut bed.disk, slot);
        bed.settle();
        bed.store.release_space(0);
        for _ in 0..7 {
            bed.store.return_space(&mut bed.disk);
            bed.step();
        }
        let mut bed = bed.crash(policy);
        let slot = bed.slot(3);
        for n in 0..80 {
            bed.append_durably(slot, &filled(n, 9000));
        }
        assert_eq!(bed.values(slot).len(), 80);
    }
}

/// Bugs are planted, and the proof must find each of them: `cargo test -p highwater-storage --features mutants --test returning_space mutants`.
#[cfg(feature = "mutants")]
mod mutants {
    use highwater_storage::mutants::Mutant;

    const SEEDS_MAX: u64 = 20;

    fn is_found(mutant: Mutant) {
        crate::support::is_found_within(SEEDS_MAX, mutant, super::run);
    }

    #[test]
    fn returning_space_before_the_map_knows_that_it_is_free_is_found() {
        is_found(Mutant::PunchBeforeFreed);
    }

    #[test]
    fn returning_the_frames_of_a_freed_extent_before_its_header_is_found() {
        is_found(Mutant::PunchFramesFirst);
    }
}
