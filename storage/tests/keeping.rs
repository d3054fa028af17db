//! Retention by time and size, the log start, and the state of producers.

mod support;

use highwater_protocol::batch::Compression;
use highwater_protocol::ids::Offset;
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::limits::RETENTION_PARTITIONS_PER_STEP;
use highwater_storage::{
    AppendError, Cursor, LogStartError, PartitionConfig, PartitionSlot, ReadResult, StoreConfig, StoreEvent,
    StoreLimits,
};
use support::{Bed, HOUR_MS, batch, batch_at, batch_of, filled, producer, tp};

fn configured(bed: &mut Bed, config: PartitionConfig) -> PartitionSlot {
    bed.store.ensure_partition(tp(0), config)
}

fn retain(bed: &mut Bed, wall_ms: i64) {
    bed.store.enforce_retention(&mut bed.disk, wall_ms);
    bed.settle();
}

const KEEP: PartitionConfig = PartitionConfig::KEEP_ALL;

#[test]
fn retention_by_size_removes_whole_extents_and_keeps_at_least_the_limit() {
    let mut bed = Bed::new(1);
    let slot = configured(&mut bed, KEEP);
    for n in 0..100u8 {
        bed.append_durably(slot, &filled(n, 5000));
    }
    retain(&mut bed, 0);
    assert_eq!(bed.store.bounds(slot).log_start, Offset(0));
    configured(&mut bed, PartitionConfig { retention_bytes: Some(150_000), ..KEEP });
    retain(&mut bed, 0);
    let bounds = bed.store.bounds(slot);
    assert!((150_000..150_000 + 64_000).contains(&bounds.bytes), "{bounds:?}");
    assert!(bed.saw(|e| matches!(e, StoreEvent::LogStart { offset, .. } if *offset == bounds.log_start)));
    assert_eq!(bed.values(slot).len() as i64, 100 - bounds.log_start.0);
    let out = bed.read(slot, Cursor::at(Offset(0)), 1000);
    assert!(
        matches!(out, ReadResult::OutOfRange { log_start, .. } if log_start == bounds.log_start),
        "{out:?}"
    );
    configured(&mut bed, PartitionConfig { retention_bytes: Some(0), ..KEEP });
    retain(&mut bed, 0);
    assert!(bed.store.bounds(slot).bytes > 0, "the extent that takes appends is not cut by size");
}

#[test]
fn retention_by_time_removes_old_extents_and_seals_an_active_one_that_is_entirely_old() {
    let mut bed = Bed::new(2);
    let slot = configured(&mut bed, PartitionConfig { retention_ms: Some(HOUR_MS), ..KEEP });
    for n in 0..60 {
        bed.append_durably(slot, &batch_at(n * HOUR_MS / 60, &[&[n as u8; 3000]]));
    }
    retain(&mut bed, HOUR_MS);
    assert_eq!(bed.store.bounds(slot).log_start, Offset(0));
    retain(&mut bed, HOUR_MS + HOUR_MS / 2);
    let log_start = bed.store.bounds(slot).log_start.0;
    assert!((1..=31).contains(&log_start), "{log_start}");
    retain(&mut bed, 3 * HOUR_MS);
    let bounds = bed.store.bounds(slot);
    assert_eq!((bounds.log_start, bounds.bytes), (Offset(60), 0));
    assert_eq!(bed.store.stats().free_bytes, bed.store.stats().slab_bytes);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = configured(&mut bed, KEEP);
    assert_eq!(bed.store.bounds(slot).append_end, Offset(60), "offsets go on where they were");
    bed.append_durably(slot, &batch(&[b"next"]));
    assert_eq!(bed.values(slot), [b"next".to_vec()]);
}

#[test]
fn old_records_in_young_extents_and_records_from_the_future_are_retained() {
    let mut bed = Bed::new(3);
    let slot = configured(&mut bed, PartitionConfig { retention_ms: Some(HOUR_MS), ..KEEP });
    bed.append_durably(slot, &batch_at(0, &[b"old"]));
    bed.append_durably(slot, &batch_at(i64::MAX / 2, &[b"future"]));
    retain(&mut bed, 100 * HOUR_MS);
    assert_eq!(bed.values(slot).len(), 2);
}

#[test]
fn records_without_a_timestamp_age_from_their_append() {
    let hour = PartitionConfig { retention_ms: Some(HOUR_MS), ..KEEP };
    let begin = 100 * HOUR_MS;
    let written = |seed| {
        let mut bed = Bed::new(seed);
        bed.wall_ms = begin;
        let slot = configured(&mut bed, hour);
        bed.append_durably(slot, &batch_at(begin - 2 * HOUR_MS, &[b"old"]));
        bed.append_durably(slot, &batch_at(-1, &[b"fresh"]));
        bed
    };
    let is_kept = |bed: &mut Bed, wall_ms| {
        let slot = configured(bed, hour);
        retain(bed, wall_ms);
        bed.store.bounds(slot).log_start == Offset(0)
    };
    let mut bed = written(6);
    assert!(is_kept(&mut bed, begin + HOUR_MS - 1) && !is_kept(&mut bed, begin + HOUR_MS + 1));
    // The time of the append is recorded with a checkpoint, and when the store is shut down.
    let mut bed = written(7).restart();
    assert!(is_kept(&mut bed, begin + HOUR_MS - 1) && !is_kept(&mut bed, begin + HOUR_MS + 1));
    let mut bed = written(8);
    assert!(is_kept(&mut bed, begin));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert!(is_kept(&mut bed, begin + HOUR_MS - 1) && !is_kept(&mut bed, begin + HOUR_MS + 1));
    // If a crash loses it, the next start counts as the time of the append.
    let mut bed = written(9).crash(CrashPolicy::LOSE_ALL);
    assert!(is_kept(&mut bed, begin + HOUR_MS - 1) && is_kept(&mut bed, begin + HOUR_MS + 1));
    assert!(!is_kept(&mut bed, begin + 2 * HOUR_MS));
}

#[test]
fn segment_settings_decide_when_an_extent_is_closed() {
    let mut bed = Bed::new(4);
    let slot =
        configured(&mut bed, PartitionConfig { segment_bytes: 8000, retention_bytes: Some(8000), ..KEEP });
    for n in 0..50u8 {
        bed.append_durably(slot, &filled(n, 1000));
    }
    retain(&mut bed, 0);
    let bounds = bed.store.bounds(slot);
    assert!((8000..20_000).contains(&bounds.bytes), "{bounds:?}");
    let slow = PartitionConfig { segment_ms: HOUR_MS, retention_ms: Some(2 * HOUR_MS), ..KEEP };
    configured(&mut bed, slow);
    let start = bed.wall_ms;
    bed.append_durably(slot, &batch_at(start, &[b"first"]));
    bed.wall_ms += HOUR_MS + 1;
    let second = bed.append_durably(slot, &batch_at(start + HOUR_MS, &[b"second"]));
    retain(&mut bed, start + 2 * HOUR_MS + 10);
    assert_eq!(bed.store.bounds(slot).log_start, second.base_offset, "the hour made a cut between them");
}

#[test]
fn a_moved_log_start_survives_a_power_cut() {
    let mut bed = Bed::new(5);
    let slot = configured(&mut bed, KEEP);
    for n in 0..30u8 {
        bed.append_durably(slot, &batch(&[&[n; 2000], &[n; 2000]]));
    }
    assert!(matches!(
        bed.store.set_log_start(&mut bed.disk, slot, Offset(61)),
        Err(LogStartError::BeyondEnd { durable_end: Offset(60), .. })
    ));
    bed.store.set_log_start(&mut bed.disk, slot, Offset(33)).expect("it is in the log");
    bed.turn();
    assert!(!bed.saw(|e| matches!(e, StoreEvent::LogStart { .. })), "not before it is durable");
    bed.settle();
    assert!(bed.saw(|e| matches!(e, StoreEvent::LogStart { offset: Offset(33), .. })));
    bed.store.set_log_start(&mut bed.disk, slot, Offset(10)).expect("going back is asked in vain");
    bed.settle();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = configured(&mut bed, KEEP);
    assert_eq!(bed.store.bounds(slot).log_start, Offset(33));
    let (records, _) = bed.read_all(slot, 33, 10_000);
    assert_eq!((records[0].0, records.len()), (33, 27), "in the middle of a batch");
    bed.store.set_log_start(&mut bed.disk, slot, Offset(60)).expect("everything may go");
    bed.settle();
    let mut bed = bed.restart();
    let slot = configured(&mut bed, KEEP);
    assert_eq!(bed.store.bounds(slot).log_start, Offset(60));
    assert_eq!(bed.append_durably(slot, &batch(&[b"x"])).base_offset, Offset(60));
}

fn sent(sequence: i32) -> bytes::Bytes {
    batch_of(Compression::None, producer(7, 0, sequence), 5, &[&[sequence as u8; 700]])
}

#[test]
fn a_retry_is_deduplicated_after_a_restart_a_crash_and_the_deletion_of_the_batch() {
    for how in 0..3 {
        let mut bed = Bed::new(6 + how);
        let slot = configured(&mut bed, KEEP);
        for sequence in 0..40 {
            bed.append_durably(slot, &sent(sequence));
        }
        if how == 2 {
            bed.store.set_log_start(&mut bed.disk, slot, Offset(40)).expect("everything may go");
            bed.settle();
        }
        let mut bed = if how == 0 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
        let slot = configured(&mut bed, KEEP);
        for sequence in 35..40 {
            let again = bed.try_append(slot, &sent(sequence));
            assert!(
                matches!(again, Err(AppendError::Duplicate { base_offset, .. }) if base_offset.0 == i64::from(sequence)),
                "restart {how}: {again:?}"
            );
        }
        assert_eq!(bed.try_append(slot, &sent(41)), Err(AppendError::OutOfOrder { expected: 40 }));
        bed.append_durably(slot, &sent(40));
    }
}

#[test]
fn a_batch_lost_in_a_crash_is_not_a_duplicate_when_it_is_sent_again() {
    let mut bed = Bed::new(9);
    let slot = configured(&mut bed, KEEP);
    for sequence in 0..10 {
        bed.append_durably(slot, &sent(sequence));
    }
    for sequence in 10..20 {
        bed.append(slot, &sent(sequence));
    }
    // Checkpoints are taken while those are in flight.
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.turn();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = configured(&mut bed, KEEP);
    assert_eq!(bed.store.bounds(slot).append_end, Offset(10));
    assert!(matches!(bed.try_append(slot, &sent(9)), Err(AppendError::Duplicate { .. })));
    assert_eq!(bed.append_durably(slot, &sent(10)).base_offset, Offset(10));
}

#[test]
fn an_idle_producer_expires_but_not_because_of_a_restart() {
    let mut bed = Bed::new(10);
    let slot = configured(&mut bed, KEEP);
    bed.append_durably(slot, &sent(0));
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = configured(&mut bed, KEEP);
    let expiry_ms = bed.config.limits.producer_expiry_ms;
    retain(&mut bed, 50 * expiry_ms);
    assert!(matches!(bed.try_append(slot, &sent(0)), Err(AppendError::Duplicate { .. })));
    retain(&mut bed, 52 * expiry_ms);
    assert_eq!(bed.append_durably(slot, &sent(5)).base_offset, Offset(1), "unknown: it may begin anywhere");
}

#[test]
fn the_slot_of_a_deleted_partition_is_reused_and_its_old_handle_is_invalid() {
    let mut bed = Bed::new(9);
    let mut slots = std::collections::BTreeSet::new();
    for n in 0..50 {
        let slot = configured(&mut bed, KEEP);
        assert!(slots.insert(slot), "a slot comes up once");
        assert_eq!(slot.0.index, 0, "the only partition has the only place");
        bed.append_durably(slot, &filled(n, 5000));
        bed.store.delete_partition(&mut bed.disk, slot);
        bed.settle();
        assert_eq!(bed.store.partitions().count(), 0);
    }
    let last = configured(&mut bed, KEEP);
    bed.append_durably(last, &batch(&[b"alive"]));
    let old = *slots.first().expect("there were some");
    bed.store.delete_partition(&mut bed.disk, old);
    assert_eq!(bed.store.set_log_start(&mut bed.disk, old, Offset(1)), Err(LogStartError::Deleted));
    assert_eq!(
        bed.values(last),
        [b"alive".to_vec()],
        "an old slot does not reach the partition that has its place"
    );
}

#[test]
fn retention_examines_a_limited_number_of_partitions_per_step_and_continues_from_there() {
    let mut bed = Bed::new(10);
    let config = PartitionConfig { retention_ms: Some(HOUR_MS), ..KEEP };
    let count = 2 * RETENTION_PARTITIONS_PER_STEP as u32 + 1;
    let slots: Vec<_> = (0..count).map(|n| bed.store.ensure_partition(tp(n), config)).collect();
    let old = [0, RETENTION_PARTITIONS_PER_STEP, slots.len() - 1].map(|at| slots[at]);
    for slot in old {
        bed.append_durably(slot, &batch_at(0, &[b"old"]));
    }
    let cut = |bed: &Bed| old.map(|slot| bed.store.bounds(slot).log_start.0);
    for (cuts, more) in [([1, 0, 0], true), ([1, 1, 0], true), ([1, 1, 1], false)] {
        assert_eq!(bed.store.enforce_retention(&mut bed.disk, 3 * HOUR_MS), more);
        bed.settle();
        assert_eq!(cut(&bed), cuts);
    }
}

#[test]
fn a_partition_with_unbounded_producers_evicts_only_its_own() {
    let limits = StoreLimits { producers_max: 40, store_producers_max: 60, ..StoreLimits::tiny() };
    let mut bed = Bed::with(11, StoreConfig { limits, ..support::config() });
    let first = |id| batch_of(Compression::None, producer(id, 0, 0), 5, &[b"x"]);
    let few = bed.slot(0);
    for id in 0..4 {
        bed.append_durably(few, &first(id));
    }
    for n in 1..4 {
        let slot = bed.slot(n);
        for id in 0..100 {
            bed.append(slot, &first(id));
            assert!(bed.store.known_producers() <= 60);
            if id % 10 == 0 {
                bed.settle();
            }
        }
    }
    bed.settle();
    let mut bed = bed.restart();
    assert!((50..=60).contains(&bed.store.known_producers()), "{}", bed.store.known_producers());
    for id in 0..4 {
        let again = bed.try_append(few, &first(id));
        assert!(matches!(again, Err(AppendError::Duplicate { .. })), "{again:?}");
    }
    let last = bed.slot(3);
    assert!(matches!(bed.try_append(last, &first(99)), Err(AppendError::Duplicate { .. })), "it wrote last");
    for n in 1..4 {
        let slot = bed.slot(n);
        bed.store.delete_partition(&mut bed.disk, slot);
    }
    bed.settle();
    assert_eq!(bed.store.known_producers(), 4);
}
