//! How far a start searches for frames behind the end of a log, and what appends wait for so that this is enough.

mod support;

use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, Fault, SimDisk};
use highwater_storage::{AppendError, StoreConfig, StoreEvent, StoreLimits};
use support::{Bed, CRASH_POLICIES, batch, config, filled, without_map};

const KIB: u64 = 1 << 10;

/// Large extents with bounds that are little ahead.
fn large_extents(journal_bytes: u64) -> StoreConfig {
    let limits = StoreLimits {
        slab_bytes_first: 4096 * KIB,
        slab_bytes_max: 4096 * KIB,
        extent_bytes_min: 1024 * KIB,
        extent_bytes_doubling: 1024 * KIB,
        extent_bytes_max: 1024 * KIB,
        slab_bytes_min: 1024 * KIB,
        punch_bytes_min: 1024 * KIB,
        punch_bytes_max: 1024 * KIB,
        bound_ahead_bytes_min: 16 << 10,
        bound_ahead_bytes_max: 32 << 10,
        checkpoint_bytes: 64 * KIB,
        checkpoint_bytes_min: 64 * KIB,
        journal_bytes,
        ..StoreLimits::tiny()
    };
    StoreConfig { limits, ..config() }
}

#[test]
fn a_start_after_a_crash_reads_what_follows_the_checkpoint_up_to_the_write_bound() {
    for journal_bytes in [0, StoreLimits::tiny_with_journal().journal_bytes] {
        let mut bed = Bed::with(1, large_extents(journal_bytes));
        let limits = bed.config.limits;
        let slot = bed.slot(0);
        for n in 0..100 {
            bed.append_durably(slot, &filled(n, 5000));
        }
        let image = bed.disk.disk().image();
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot).len(), 100);
        let ahead = u64::from(limits.bound_ahead_bytes_max) + 8 * KIB;
        let read_max = limits.checkpoint_bytes + ahead + journal_bytes;
        assert!(bed.report.bytes_scanned <= read_max, "{} of {read_max}", bed.report.bytes_scanned);
        // Without bounds, all of the extent is searched.
        let bed = Bed::on(DiskHarness::on(SimDisk::from_image(&without_map(image), 2)), bed.config.clone());
        assert!(bed.report.bytes_scanned >= limits.extent_bytes_max);
        assert_eq!(bed.report.findings, []);
    }
}

#[test]
fn appends_that_pass_the_write_bound_wait_for_the_next_one_and_are_kept_whatever_a_crash_takes() {
    for (seed, policy) in (0..).zip(CRASH_POLICIES) {
        let mut bed = Bed::with(seed, large_extents(0));
        let slot = bed.slot(0);
        for n in 0..40 {
            // Some of them pass the bound.
            let bytes = if n % 3 == 0 { 20_000 } else { 1000 };
            bed.append(slot, &filled(n, bytes));
            if n % 4 == 3 {
                bed.settle();
            }
            if n % 10 == 9 {
                let least = bed.store.bounds(slot).durable_end;
                bed = bed.crash(policy);
                assert_eq!(
                    bed.report.findings.iter().filter(|f| format!("{f:?}").contains("Faulty")).count(),
                    0
                );
                let slot = bed.slot(0);
                assert!(bed.store.bounds(slot).durable_end >= least);
            }
        }
    }
}

#[test]
fn records_that_would_wait_for_a_write_bound_are_refused_while_the_map_has_no_space() {
    let mut bed = Bed::with(4, large_extents(0));
    let (old, new) = (bed.slot(0), bed.slot(1));
    bed.append_durably(old, &batch(&[b"in an extent that the map knows"]));
    bed.disk.remove_file("/data/store-000/reserve".as_ref()).expect("it is there");
    let used = bed.disk.disk().image().files().map(|(_, bytes)| bytes).sum();
    bed.disk.disk().set_capacity(Some(used));
    bed.disk.disk().inject(Fault::write_no_space("/data/store-000/state.b"));
    bed.append(new, &batch(&[b"in one that it does not know"]));
    bed.settle();
    assert!(bed.store.is_stalled());
    let mut taken = 0;
    let refused = loop {
        match bed.try_append(old, &filled(1, 1000)) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
        bed.settle();
    };
    assert_eq!(refused, AppendError::StorageFull);
    assert!((4..40).contains(&taken), "{taken}");
    let bounds = bed.store.bounds(old);
    assert_eq!(bounds.durable_end, bounds.append_end, "what was taken is durable");
    assert!(!bed.saw(|e| matches!(e, StoreEvent::Stalled { slot } if *slot == old)), "{:?}", bed.events);
    bed.disk.disk().set_capacity(None);
    bed.disk.disk().clear_faults();
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
    bed.append_durably(old, &filled(1, 1000));
}
