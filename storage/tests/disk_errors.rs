//! What a store does about each error of the disk, wherever it meets it. `docs/guarantees.md` has the table.
//!
//! An error of a write or a sync, or of a job without which records cannot be taken, ends the store: nothing is acknowledged after it. The process exits with
//! its own code then (`engine/tests/simulation/faults.rs`). An error of a read costs what cannot be read. What only saves space is given up.

mod support;

use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{CrashPolicy, Fault};
use highwater_storage::{
    BatchFilter, DurableForm, PartitionSlot, RewriteAborted, StoreConfig, StoreEvent, StoreLimits, Verdict,
};
use support::{Bed, batch, config, filled};

const SLAB: &str = "/data/store-000/slab-000000";
const NEXT_SLAB: &str = "/data/store-000/slab-000001";
const STATE: [&str; 2] = ["/data/store-000/state.a", "/data/store-000/state.b"];

fn has_failed(bed: &Bed, path: &str) -> bool {
    bed.events.iter().any(|event| matches!(event, StoreEvent::Fatal(why) if why.contains(path)))
}

fn values(bed: &mut Bed, n: u32) -> Vec<u8> {
    let slot = bed.slot(n);
    bed.values(slot).iter().map(|value| value[0]).collect()
}

#[test]
fn an_error_while_the_extents_get_what_the_journal_has_ends_the_store_and_loses_nothing() {
    for fault in [Fault::write_error(SLAB), Fault::sync_error(SLAB)] {
        let limits = StoreLimits::tiny_with_journal();
        let mut bed = Bed::with(21, StoreConfig { limits, ..config() });
        for n in 0..4 {
            for partition in 0..6 {
                let slot = bed.slot(partition);
                bed.append_durably(slot, &filled(n, 100));
            }
        }
        bed.events.clear();
        bed.disk.disk().inject(fault.clone());
        for _ in 0..4 {
            bed.store.enforce_retention(&mut bed.disk, 0);
            bed.settle();
        }
        assert!(has_failed(&bed, SLAB), "{fault:?}: {:?}", bed.events);
        bed.disk.disk().clear_faults();
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, []);
        for partition in 0..6 {
            assert_eq!(values(&mut bed, partition), [0, 1, 2, 3], "{fault:?}");
        }
    }
}

/// Keeps every batch.
#[derive(Debug)]
struct KeepAll;

impl BatchFilter for KeepAll {
    fn filter(&mut self, _: &BatchView<'_>, _: bool, _: &mut Vec<u8>) -> Verdict {
        Verdict::Keep
    }
}

/// A log of several extents, of which the second is about to be rewritten, and nothing is cached.
fn rewriting(seed: u64) -> (Bed, PartitionSlot) {
    let mut bed = Bed::with(seed, config());
    let slot = bed.slot(0);
    for n in 0..40 {
        bed.append_durably(slot, &filled(n, 1500));
    }
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    bed.rewrite_bytes = 4000;
    let second = bed.store.rewritable_extents(slot).nth(1).expect("it has several");
    bed.store.rewrite(slot, second.base_index, 1, Box::new(KeepAll)).expect("it begins");
    (bed, slot)
}

#[test]
fn an_error_of_a_write_or_sync_of_a_rewrite_ends_the_store_and_loses_nothing() {
    for fault in [Fault::write_error(SLAB), Fault::sync_error(SLAB)] {
        let (mut bed, _) = rewriting(22);
        bed.events.clear();
        bed.disk.disk().inject(fault.clone());
        bed.settle();
        assert!(has_failed(&bed, SLAB), "{fault:?}: {:?}", bed.events);
        bed.disk.disk().clear_faults();
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, []);
        assert_eq!(values(&mut bed, 0), (0..40).collect::<Vec<_>>());
    }
}

#[test]
fn a_rewrite_that_cannot_read_leaves_the_log_as_it_was() {
    let (mut bed, slot) = rewriting(23);
    bed.disk.disk().inject(Fault::read_error(SLAB));
    bed.settle();
    let ended = bed.events.iter().find_map(|event| match event {
        StoreEvent::Rewritten { outcome, .. } => Some(*outcome),
        _ => None,
    });
    assert_eq!(ended, Some(Err(RewriteAborted::Damaged)), "{:?}", bed.events);
    bed.disk.disk().clear_faults();
    assert_eq!(values(&mut bed, 0), (0..40).collect::<Vec<_>>());
    bed.append_durably(slot, &filled(40, 1500));
}

#[test]
fn an_error_while_a_slab_is_made_ends_the_store() {
    let mut bed = Bed::new(24);
    let slot = bed.slot(0);
    bed.append_durably(slot, &filled(0, 5000));
    bed.events.clear();
    bed.disk.disk().inject(Fault::job_error(NEXT_SLAB));
    let mut n: u8 = 1;
    while !has_failed(&bed, "slab-000001") {
        let _ = bed.try_append(slot, &filled(n, 5000));
        bed.settle();
        n = n.checked_add(1).expect("a slab is made before long");
    }
    bed.disk.disk().clear_faults();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    let found = values(&mut bed, 0);
    assert_eq!(found, (0..found.len() as u8).collect::<Vec<_>>());
}

#[test]
fn a_slab_that_cannot_be_removed_stays_and_nothing_else_happens() {
    let mut bed = Bed::new(25);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    bed.append_durably(other, &filled(1, 100));
    for n in 0..200 {
        bed.append_durably(slot, &filled(n, 9000));
    }
    for n in 0..20 {
        bed.disk.disk().inject(Fault::job_error(format!("/data/store-000/slab-{n:06}")));
    }
    let before = bed.store.stats();
    bed.events.clear();
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    assert!(bed.store.stats().slab_bytes < before.slab_bytes, "it was to be removed");
    assert!(!bed.saw(|event| matches!(event, StoreEvent::Fatal(_))), "{:?}", bed.events);
    bed.append_durably(other, &filled(2, 100));
    bed.disk.disk().clear_faults();
    let mut bed = bed.restart();
    assert_eq!(bed.report.quarantined, []);
    assert_eq!(bed.store.stats().slab_bytes, before.slab_bytes, "the next start uses it");
    assert_eq!(values(&mut bed, 1), [1, 2]);
}

#[test]
fn an_error_of_the_map_ends_the_store_when_it_is_written_and_when_it_is_written_anew() {
    for path in STATE {
        for is_job in [false, true] {
            let limits = StoreLimits {
                state_log_bytes: 32 << 10,
                state_log_bytes_used: 32 << 10,
                ..StoreLimits::tiny()
            };
            let mut bed = Bed::with(26, StoreConfig { limits, ..config() });
            let slot = bed.slot(0);
            bed.append_durably(slot, &filled(0, 100));
            bed.events.clear();
            bed.disk.disk().inject(if is_job { Fault::job_error(path) } else { Fault::write_error(path) });
            let mut n = 1;
            while !has_failed(&bed, "state.") {
                // Each new partition is a record of the map.
                let slot = bed.slot(n);
                let _ = bed.try_append(slot, &batch(&[b"x"]));
                bed.settle();
                n += 1;
                assert!(n < 2000, "{path}, {is_job}: the map is never written: {:?}", bed.events);
            }
            let durable = bed.store.bounds(slot).durable_end;
            assert_eq!(durable, Offset(1));
            bed.disk.disk().clear_faults();
            let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
            assert_eq!((bed.report.findings.len(), bed.report.map_rebuilt), (0, false), "{:?}", bed.report);
            assert_eq!(values(&mut bed, 0), [0]);
        }
    }
}

#[test]
fn an_error_while_a_hole_is_allocated_ends_the_store() {
    let limits = StoreLimits { slab_bytes_first: 1 << 20, ..StoreLimits::tiny() };
    let mut bed = Bed::with(27, StoreConfig { limits, durable_form: DurableForm::SyncPerRound, ..config() });
    let (slot, other) = (bed.slot(0), bed.slot(1));
    bed.append_durably(other, &filled(1, 100));
    for n in 0..80 {
        bed.append_durably(slot, &filled(n, 9000));
    }
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    bed.store.release_space(0);
    while bed.store.return_space(&mut bed.disk) {
        bed.settle();
    }
    bed.events.clear();
    bed.disk.disk().inject(Fault::job_error(SLAB));
    let mut n: u8 = 0;
    while !has_failed(&bed, SLAB) {
        let slot = bed.slot(2);
        let _ = bed.try_append(slot, &filled(n, 9000));
        bed.settle();
        n = n.checked_add(1).expect("a hole is allocated before long");
    }
    bed.disk.disk().clear_faults();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.findings, []);
    assert_eq!(values(&mut bed, 1), [1]);
}
