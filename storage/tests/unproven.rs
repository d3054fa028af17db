//! Frames that may be visible without being durable: a start writes them again, and without space for that neither readers nor the map see them.

mod support;

use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{CrashPolicy, Fault};
use highwater_storage::{
    AcceptLossError, AppendError, Cursor, DurableForm, PartitionFinding, PartitionSlot, ReadResult,
    StoreConfig, StoreEvent, StoreLimits,
};
use support::{Bed, CRASH_POLICIES, config, filled, tp};

const SLAB: &str = "/data/store-000/slab-000000";
const JOURNAL: &str = "/data/store-000/journal";
const SEEDS: u64 = 20;

/// The faults of a full copy-on-write disk, for each way in which the store makes writes durable.
fn no_space(form: DurableForm) -> Fault {
    match form {
        DurableForm::Dsync => Fault::write_no_space(SLAB),
        DurableForm::SyncPerRound => Fault::sync_no_space(SLAB),
    }
}

/// Both ways, with a journal and without.
fn configs() -> impl Iterator<Item = StoreConfig> {
    let forms = [DurableForm::Dsync, DurableForm::SyncPerRound].into_iter();
    forms.flat_map(|durable_form| {
        let limits = [StoreLimits::tiny(), StoreLimits::tiny_with_journal()];
        limits.map(|limits| StoreConfig { durable_form, limits, ..config() })
    })
}

/// Does the work of a timer.
fn run_timer(bed: &mut Bed) {
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
}

fn is_stalled(slot: PartitionSlot) -> impl Fn(&StoreEvent) -> bool {
    move |event| matches!(event, StoreEvent::Stalled { slot: stalled } if *stalled == slot)
}

/// Returns the first byte of every record.
fn first_bytes(bed: &mut Bed, slot: PartitionSlot) -> Vec<u8> {
    bed.values(slot).iter().map(|value| value[0]).collect()
}

/// Leaves a record in the page cache that had no space on the disk, and ends the process.
fn leave_record_without_space(config: StoreConfig, seed: u64) -> Bed {
    let mut bed = Bed::with(seed, config);
    let slot = bed.slot(0);
    bed.append_durably(slot, &filled(1, 100));
    bed.disk.disk().inject(no_space(bed.config.durable_form));
    bed.disk.disk().inject(Fault::write_no_space(JOURNAL));
    bed.append(slot, &filled(2, 100));
    bed.settle();
    assert!(bed.saw(is_stalled(slot)), "{:?}", bed.events);
    // If it did not fit the journal, it is written in place now.
    run_timer(&mut bed);
    bed.disk.disk().kill();
    bed
}

/// The same. Returns the store opened again on a disk with space, if it finds the record.
fn with_record_without_space(config: StoreConfig, seed: u64) -> Option<Bed> {
    let bed = leave_record_without_space(config, seed);
    bed.disk.disk().clear_faults();
    let mut bed = bed.again();
    let slot = bed.slot(0);
    (bed.values(slot).len() == 2).then_some(bed)
}

/// The same on a disk that is still full.
fn on_full_disk(config: StoreConfig, seed: u64) -> Option<Bed> {
    let mut bed = leave_record_without_space(config, seed).again();
    let slot = bed.slot(0);
    (bed.store.bounds(slot).append_end == Offset(2)).then_some(bed)
}

fn free_space(bed: &mut Bed) {
    bed.disk.disk().clear_faults();
    run_timer(bed);
}

#[test]
fn a_record_that_had_no_space_and_is_found_after_a_kill_is_durable_before_anything_is_appended_after_it() {
    for durable_form in [DurableForm::Dsync, DurableForm::SyncPerRound] {
        let mut found = 0;
        for seed in 0..SEEDS {
            let config = StoreConfig { durable_form, limits: StoreLimits::tiny_with_journal(), ..config() };
            let Some(mut bed) = with_record_without_space(config, seed) else { continue };
            found += 1;
            let (slot, other) = (bed.slot(0), bed.slot(1));
            // Once the journal is in use, the next records do not write the page of that one again.
            for n in 0..4 {
                bed.append_durably(other, &filled(n, 100));
            }
            bed.append_durably(slot, &filled(3, 100));
            bed.append_durably(slot, &filled(4, 100));
            let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
            let slot = bed.slot(0);
            assert_eq!(bed.report.findings, [], "seed {seed}");
            assert_eq!(first_bytes(&mut bed, slot), [1, 2, 3, 4], "seed {seed}");
        }
        assert!(found > 0, "{durable_form:?}: some start found the record");
    }
}

#[test]
fn a_record_that_had_no_space_and_is_found_after_a_kill_survives_a_power_cut_right_after_the_start() {
    for durable_form in [DurableForm::Dsync, DurableForm::SyncPerRound] {
        for seed in 0..SEEDS {
            let config = StoreConfig { durable_form, ..config() };
            let Some(bed) = with_record_without_space(config, seed) else { continue };
            let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
            let slot = bed.slot(0);
            assert_eq!(first_bytes(&mut bed, slot), [1, 2], "seed {seed}");
        }
    }
}

#[test]
fn what_a_write_back_without_space_left_is_written_again_by_a_start_after_a_kill() {
    for seed in 0..SEEDS {
        let limits = StoreLimits::tiny_with_journal();
        let mut bed = Bed::with(seed, StoreConfig { limits, ..config() });
        let slot = bed.slot(0);
        for n in 0..4 {
            bed.append_durably(slot, &filled(n, 100));
        }
        assert!(bed.store.stats().journal_entries > 1, "{:?}", bed.store.stats());
        bed.disk.disk().inject(Fault::write_no_space(SLAB));
        (0..3).for_each(|_| run_timer(&mut bed));
        assert!(bed.saw(|event| matches!(event, StoreEvent::StorageFull(_))), "{:?}", bed.events);
        bed.disk.disk().kill();
        bed.disk.disk().clear_faults();
        let mut bed = bed.again();
        // The map says that the journal is not needed any more.
        bed.settle();
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        assert_eq!(bed.report.findings, [], "seed {seed}");
        assert_eq!(first_bytes(&mut bed, slot), [0, 1, 2, 3], "seed {seed}");
    }
}

#[test]
fn on_a_full_disk_frames_that_may_not_be_durable_are_neither_read_nor_followed_before_there_is_space() {
    for config in configs() {
        let mut found = 0;
        for seed in 0..SEEDS {
            let Some(mut bed) = on_full_disk(config.clone(), seed) else { continue };
            found += 1;
            let slot = bed.slot(0);
            assert!(bed.report.warnings.iter().any(|what| what.contains(SLAB)), "{:?}", bed.report);
            for _ in 0..3 {
                let bounds = bed.store.bounds(slot);
                assert_eq!(
                    (bounds.durable_end, bounds.append_end, bounds.faulty),
                    (Offset(1), Offset(2), false)
                );
                assert_eq!(first_bytes(&mut bed, slot), [1]);
                // Who has read it waits for the next one.
                assert!(matches!(bed.read(slot, Cursor::at(Offset(2)), 1), ReadResult::AtEnd));
                assert_eq!(bed.try_append(slot, &filled(3, 100)), Err(AppendError::StorageFull));
                run_timer(&mut bed);
            }
            let is_told =
                |event: &StoreEvent| matches!(event, StoreEvent::StorageFull(why) if why.contains(SLAB));
            assert!(bed.saw(is_stalled(slot)) && bed.saw(is_told), "{:?}", bed.events);
            free_space(&mut bed);
            assert!(bed.saw(|event| matches!(event, StoreEvent::SpaceAvailable)), "{:?}", bed.events);
            assert_eq!(first_bytes(&mut bed, slot), [1, 2]);
            bed.append_durably(slot, &filled(3, 100));
            for again in 0..2 {
                bed = if again == 0 { bed.crash(CrashPolicy::LOSE_ALL) } else { bed.restart() };
                let slot = bed.slot(0);
                assert_eq!((first_bytes(&mut bed, slot), &bed.report.findings[..]), (vec![1, 2, 3], &[][..]));
            }
        }
        assert!(found > 0, "{config:?}: some start found the record");
    }
}

/// What happens until the power fails.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// Nothing becomes free.
    Full,
    /// There is space, and another record is appended as soon as that is possible.
    Free,
    /// The broker is stopped on the full disk.
    Stopped,
}

/// Starts on a full disk and lets this many steps happen. Returns the store after a power cut, and its durable end before. `None`: the start did not
/// find the record, or nothing happens any more.
fn cut_after(
    config: &StoreConfig,
    until: Until,
    (seed, steps): (u64, usize),
    policy: CrashPolicy,
) -> Option<(Bed, Offset)> {
    let mut bed = on_full_disk(config.clone(), seed)?;
    let slot = bed.slot(0);
    match until {
        Until::Full => (0..3).for_each(|_| run_timer(&mut bed)),
        Until::Free => {
            bed.disk.disk().clear_faults();
            bed.store.enforce_retention(&mut bed.disk, 0);
        }
        Until::Stopped => bed.store.shutdown(&mut bed.disk),
    }
    let mut is_going_on = true;
    for _ in 0..steps {
        is_going_on = bed.step();
        if matches!(until, Until::Free) && bed.store.bounds(slot).append_end == Offset(2) {
            is_going_on |= bed.try_append(slot, &filled(3, 100)).is_ok();
        }
    }
    let durable_end = bed.store.bounds(slot).durable_end;
    bed.disk.disk().clear_faults();
    is_going_on.then(|| (bed.crash(policy), durable_end))
}

#[test]
fn a_power_cut_at_any_moment_after_a_start_on_a_full_disk_loses_nothing_that_was_readable() {
    let (mut cuts, mut with_third) = (0, 0);
    for (config, seed) in configs().flat_map(|config| (0..6).map(move |seed| (config.clone(), seed))) {
        for (until, policy) in [Until::Full, Until::Free, Until::Stopped]
            .into_iter()
            .flat_map(|u| CRASH_POLICIES.map(|p| (u, p)))
        {
            let cut = |steps| cut_after(&config, until, (seed, steps), policy);
            for (mut bed, durable_end) in (0..).map_while(cut) {
                let at = format!("{:?}, {until:?}, seed {seed}, {policy:?}", config.durable_form);
                let slot = bed.slot(0);
                let is_damaged =
                    |(_, finding): &(_, PartitionFinding)| matches!(finding, PartitionFinding::Faulty { .. });
                assert!(!bed.report.findings.iter().any(is_damaged), "{at}: {:?}", bed.report);
                let found = first_bytes(&mut bed, slot);
                assert!(
                    found.len() as i64 >= durable_end.0 && [1, 2, 3].starts_with(&found),
                    "{at}: {found:?}"
                );
                bed.append_durably(slot, &filled(9, 100));
                let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
                let slot = bed.slot(0);
                assert_eq!(first_bytes(&mut bed, slot), [&found[..], &[9]].concat(), "{at}");
                cuts += 1;
                with_third += usize::from(found.len() == 3);
            }
        }
    }
    assert!(cuts > 100 && with_third > 0, "{cuts} {with_third}");
}

#[test]
fn records_that_do_not_fit_the_memory_of_a_start_on_a_full_disk_take_their_partitions_out_of_service_until_the_next_one()
 {
    // Nothing but the timers takes checkpoints.
    let limits = StoreLimits {
        checkpoint_bytes: 4 << 20,
        checkpoint_bytes_min: 4 << 20,
        state_log_bytes: 1 << 20,
        state_log_bytes_used: 1 << 20,
        ..StoreLimits::tiny()
    };
    let mut bed = Bed::with(1, StoreConfig { limits, ..config() });
    let (bytes, count) = (30_000, 12);
    assert!(u64::from(count) * bytes as u64 > limits.store_unacked_bytes_max);
    for (bytes, checkpoints) in [(100, 3), (bytes, 0)] {
        for n in 0..count {
            let slot = bed.slot(n);
            bed.append_durably(slot, &filled(n as u8, bytes));
        }
        (0..checkpoints).for_each(|_| run_timer(&mut bed));
    }
    let slabs = (0..9).map(|n| format!("/data/store-000/slab-{n:06}"));
    slabs.for_each(|slab| bed.disk.disk().inject(Fault::write_no_space(slab)));
    bed.disk.disk().kill();
    let mut bed = bed.again();
    let faulty: Vec<u32> = (0..count)
        .filter(|n| {
            let slot = bed.slot(*n);
            bed.store.bounds(slot).faulty
        })
        .collect();
    assert!(!faulty.is_empty() && faulty.len() < count as usize, "{faulty:?} {:?}", bed.report);
    assert!(bed.store.stats().unacked_bytes <= limits.store_unacked_bytes_max);
    for n in 0..count {
        let slot = bed.slot(n);
        let expected = if faulty.contains(&n) { AppendError::Faulty } else { AppendError::StorageFull };
        assert_eq!(bed.try_append(slot, &filled(0, 10)), Err(expected), "{n}");
        assert_eq!(bed.values(slot).len(), 1, "{n}");
    }
    assert!(bed.report.findings.iter().all(
        |(_, finding)| matches!(finding, PartitionFinding::Faulty { why, .. } if why.contains("space"))
    ));
    let slot = bed.slot(faulty[0]);
    let refused = bed.store.accept_loss(slot, &bed.report);
    assert_eq!(refused, Err(AcceptLossError::NoSpace), "nothing is lost");
    free_space(&mut bed);
    bed.disk.disk().kill();
    let mut bed = bed.again();
    assert_eq!(bed.report.findings, []);
    for n in 0..count {
        let slot = bed.slot(n);
        assert_eq!(first_bytes(&mut bed, slot), [n as u8; 2]);
    }
}

#[test]
fn a_repair_on_a_full_disk_gives_up_no_record_that_the_journal_has_or_that_can_be_written_again() {
    let mut bed = Bed::with(1, StoreConfig { limits: StoreLimits::tiny_with_journal(), ..config() });
    for n in 1..6 {
        for partition in 0..2 {
            let slot = bed.slot(partition);
            bed.append(slot, &filled(n, 100));
        }
        bed.settle();
    }
    bed.disk.disk().inject(Fault::write_no_space(SLAB));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert!(bed.report.journal_without_space && !bed.report.findings.is_empty(), "{:?}", bed.report);
    for (of, _) in bed.report.findings.clone() {
        let slot = bed.slot(of.partition.get());
        assert_eq!(bed.store.accept_loss(slot, &bed.report), Err(AcceptLossError::NoSpace), "{of}");
    }
    bed.store.shutdown(&mut bed.disk);
    bed.settle();
    bed.disk.disk().clear_faults();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    for partition in 0..2 {
        let slot = bed.slot(partition);
        assert_eq!(first_bytes(&mut bed, slot), [1, 2, 3, 4, 5], "{}", tp(partition));
    }
}

/// A planted bug, which these tests must find: `cargo test -p highwater-storage --features mutants --test unproven mutants`.
#[cfg(feature = "mutants")]
mod mutants {
    use highwater_storage::mutants::Mutant;

    use crate::support::is_found;

    #[test]
    fn trusting_frames_that_may_not_be_durable_is_found() {
        let trust = Mutant::TrustUnprovenFrames;
        is_found(trust, crate::a_record_that_had_no_space_and_is_found_after_a_kill_is_durable_before_anything_is_appended_after_it);
        is_found(trust, crate::on_a_full_disk_frames_that_may_not_be_durable_are_neither_read_nor_followed_before_there_is_space);
    }
}
