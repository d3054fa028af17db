//! What an acknowledgement waits for: writes and syncs, and never a job on file names. A disk on which every such job takes an hour acknowledges
//! as fast as any other, while slabs are created and removed, extents roll and retention frees them.

mod support;

use std::time::Duration;

use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::Latency;
use highwater_storage::{DurableForm, PartitionConfig, PartitionSlot, StoreConfig, StoreLimits};
use support::{Bed, config, filled, tp};

const KIB: u64 = 1 << 10;
const JOB: Duration = Duration::from_hours(1);
/// Longer than hundreds of consecutive writes and syncs take.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

const ROUNDS_MAX: u32 = 3000;
/// Number of rounds while the map is being rewritten. A quarter of its old files is left for the records of that time.
const ROUNDS_REWRITING: u32 = 50;

const PARTITIONS: u32 = 8;
/// Bytes that each partition retains.
const KEPT: PartitionConfig =
    PartitionConfig { retention_bytes: Some(100 * KIB), ..PartitionConfig::KEEP_ALL };

fn limits(journal_bytes: u64) -> StoreLimits {
    StoreLimits {
        slab_bytes_first: 512 * KIB,
        slab_bytes_max: 1024 * KIB,
        journal_bytes,
        bound_ahead_bytes_min: 32 << 10,
        bound_ahead_bytes_max: 32 << 10,
        state_log_bytes: 4096 * KIB,
        state_log_bytes_used: 4096 * KIB,
        ..StoreLimits::tiny()
    }
}

/// Runs until everything appended is durable.
fn acknowledge(bed: &mut Bed) {
    let begun = bed.disk.now();
    while bed.store.stats().unacked_bytes > 0 {
        assert!(bed.step(), "nothing is on its way");
        let taken = bed.disk.now().since(begun);
        assert!(taken < ACKNOWLEDGED_WITHIN, "an acknowledgement waited {taken:?}");
    }
}

fn slots(bed: &mut Bed) -> Vec<PartitionSlot> {
    (0..PARTITIONS).map(|n| bed.store.ensure_partition(tp(n), KEPT)).collect()
}

#[test]
fn no_acknowledgement_waits_for_a_job_on_file_names() {
    for durable_form in [DurableForm::Dsync, DurableForm::SyncPerRound] {
        for journal_bytes in [0, StoreLimits::tiny_with_journal().journal_bytes] {
            let config = StoreConfig { durable_form, limits: limits(journal_bytes), ..config() };
            let mut bed = Bed::with(7, config);
            // Slabs and a journal are there; one partition has taken more than it will keep.
            let filling = bed.slot(PARTITIONS);
            for n in 0..450u32 {
                bed.append_durably(filling, &filled(n as u8, 9_000));
            }
            let slots = slots(&mut bed);
            let slow = Latency { job: JOB..=JOB, ..Latency::default() };
            bed.disk.disk().set_latency(slow);
            let (jobs, files) = (bed.disk.disk().stats().jobs, bed.disk.list("/data/store-000".as_ref()));
            bed.store.delete_partition(&mut bed.disk, filling);
            let before = bed.store.stats();
            assert_eq!(before.snapshot_bytes_per_turn_max, 0, "the map was not rewritten yet");
            let mut rounds_left = ROUNDS_MAX;
            while rounds_left > 0 {
                let n = ROUNDS_MAX - rounds_left;
                let is_rewritten = bed.store.stats().snapshot_bytes_per_turn_max > 0;
                rounds_left = if is_rewritten { rounds_left.min(ROUNDS_REWRITING) } else { rounds_left } - 1;
                for (at, slot) in slots.iter().enumerate() {
                    let bytes = if (n as usize + at).is_multiple_of(13) { 9_000 } else { 800 };
                    bed.append(*slot, &filled(n as u8, bytes));
                }
                acknowledge(&mut bed);
                if n.is_multiple_of(10) {
                    while bed.store.enforce_retention(&mut bed.disk, 0) {}
                    bed.turn();
                }
            }
            let after = bed.store.stats();
            assert!(after.snapshot_bytes_per_turn_max > 0, "the map is being rewritten");
            assert!(bed.disk.disk().stats().jobs > jobs, "slabs were made or removed");
            let appended = after.bytes_appended - before.bytes_appended;
            let kept: u64 = slots.iter().map(|slot| bed.store.bounds(*slot).bytes).sum();
            assert!(appended > 3 * kept, "extents were rolled and freed: {appended} and {kept}");
            assert!(after.slab_bytes < appended, "space was used again: {after:?}");
            assert_eq!(bed.disk.list("/data/store-000".as_ref()).ok(), files.ok(), "every job is in flight");
        }
    }
}
