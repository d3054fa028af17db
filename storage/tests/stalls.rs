//! A disk that has no space for writes into existing files: appends to the affected partitions wait, and no other partition does.

mod support;

use bytes::Bytes;
use highwater_protocol::batch::Compression;
use highwater_protocol::ids::Offset;
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, Fault};
use highwater_storage::{AppendError, DurableForm, PartitionSlot, StoreConfig, StoreEvent};
use support::{Bed, batch, batch_of, config, filled, producer, tp};

const SLAB: &str = "/data/store-000/slab-000000";

/// The faults of a full copy-on-write disk, for each way in which the store makes writes durable.
fn no_space(form: DurableForm) -> Fault {
    match form {
        DurableForm::Dsync => Fault::write_no_space(SLAB),
        DurableForm::SyncPerRound => Fault::sync_no_space(SLAB),
    }
}

fn beds() -> impl Iterator<Item = Bed> {
    [DurableForm::Dsync, DurableForm::SyncPerRound]
        .into_iter()
        .map(|durable_form| Bed::with(1, StoreConfig { durable_form, ..config() }))
}

/// Does the work of a timer.
fn run_timer(bed: &mut Bed) {
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
}

fn is_stalled(slot: PartitionSlot) -> impl Fn(&StoreEvent) -> bool {
    move |event| matches!(event, StoreEvent::Stalled { slot: stalled } if *stalled == slot)
}

fn sent(sequence: i32, value: &[u8]) -> Bytes {
    batch_of(Compression::None, producer(7, 0, sequence), 0, &[value])
}

#[test]
fn records_without_space_fail_and_become_durable_unchanged_when_there_is_space() {
    for mut bed in beds() {
        let slot = bed.slot(0);
        bed.append_durably(slot, &sent(0, b"before"));
        bed.disk.disk().inject(no_space(bed.config.durable_form));
        let lost = bed.append(slot, &sent(1, b"waits"));
        bed.append(slot, &sent(2, b"waits behind it"));
        bed.settle();
        assert!(bed.saw(is_stalled(slot)), "{:?}", bed.events);
        assert!(
            bed.saw(|e| matches!(e, StoreEvent::StorageFull(why) if why.contains(SLAB))),
            "{:?}",
            bed.events
        );
        assert_eq!(bed.store.bounds(slot).durable_end, lost.base_offset, "nothing more is durable");
        assert_eq!(bed.values(slot), [b"before".to_vec()], "and what is durable can be read");
        for batch in [sent(1, b"waits"), sent(2, b"waits behind it"), sent(3, b"new")] {
            assert_eq!(bed.try_append(slot, &batch), Err(AppendError::StorageFull));
        }
        bed.events.clear();
        for _ in 0..3 {
            run_timer(&mut bed);
            assert_eq!(bed.store.bounds(slot).durable_end, lost.base_offset);
        }
        let is_said = |e: &StoreEvent| {
            matches!(e, StoreEvent::StorageFull(_) | StoreEvent::Stalled { .. } | StoreEvent::SpaceAvailable)
        };
        assert!(!bed.saw(is_said), "it is said once: {:?}", bed.events);

        bed.disk.disk().clear_faults();
        run_timer(&mut bed);
        assert!(bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)), "{:?}", bed.events);
        let again = bed.try_append(slot, &sent(1, b"waits"));
        assert!(
            matches!(again, Err(AppendError::Duplicate { base_offset, .. }) if base_offset == lost.base_offset)
        );
        bed.append_durably(slot, &sent(3, b"new"));
        let all: [&[u8]; 4] = [b"before", b"waits", b"waits behind it", b"new"];
        assert_eq!(bed.values(slot), all);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, []);
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot), all);
    }
}

#[test]
fn a_full_disk_is_checked_for_space_once_per_interval() {
    let mut bed = Bed::new(2);
    let slot = bed.slot(0);
    bed.append_durably(slot, &batch(&[b"before"]));
    bed.disk.disk().inject(Fault::write_no_space(SLAB));
    bed.append(slot, &batch(&[b"waits"]));
    bed.settle();
    let writes = bed.store.stats().writes;
    for _ in 0..100 {
        bed.turn();
    }
    assert_eq!(bed.store.stats().writes, writes, "turns do not write");
    run_timer(&mut bed);
    assert_eq!(bed.store.stats().writes, writes + 1);
}

#[test]
fn a_crash_while_records_wait_for_space_loses_nothing_durable() {
    for policy in [CrashPolicy::LOSE_ALL, CrashPolicy::KEEP_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED] {
        for mut bed in beds() {
            let slot = bed.slot(0);
            bed.append_durably(slot, &batch(&[b"before"]));
            bed.disk.disk().inject(no_space(bed.config.durable_form).times(2));
            for n in 0..5 {
                // The first write fails; some of the later ones succeed.
                bed.try_append_bulk(slot, &filled(n, 9000)).expect("nothing has failed yet");
            }
            bed.settle();
            assert!(bed.saw(is_stalled(slot)));
            bed.disk.disk().clear_faults();
            let mut bed = bed.crash(policy);
            let slot = bed.slot(0);
            assert!(!bed.store.bounds(slot).faulty, "{:?}", bed.report);
            assert_eq!(bed.values(slot)[0], b"before");
            let end = bed.store.bounds(slot).durable_end;
            bed.append_durably(slot, &batch(&[b"after"]));
            assert_eq!(bed.values(slot)[end.0 as usize], b"after");
        }
    }
}

#[test]
fn partitions_with_space_continue_beside_one_without_even_if_it_fills_the_memory() {
    let mut bed = Bed::new(3);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    bed.append_durably(slot, &batch(&[b"before"]));
    bed.append_durably(other, &batch(&[b"before"]));
    let mut full = Vec::new();
    for n in 2..14 {
        let slot = bed.slot(n);
        bed.append_durably(slot, &batch(&[b"before"]));
        full.push(slot);
    }
    // Everything but the first extent, which belongs to the first partition, and the second one.
    let extent = bed.config.limits.extent_bytes_min;
    bed.disk.disk().inject(Fault::write_no_space(SLAB).within(2 * extent..u64::MAX));
    for n in 1..6 {
        bed.disk.disk().inject(Fault::write_no_space(format!("/data/store-000/slab-{n:06}")));
    }
    for slot in &full {
        while bed.try_append(*slot, &filled(1, 10_000)).is_ok() {}
    }
    bed.settle();
    let limits = bed.config.limits;
    assert!(
        bed.store.stats().unacked_bytes + 10_000 > limits.store_unacked_bytes_max,
        "{:?}",
        bed.store.stats()
    );
    assert!(bed.saw(is_stalled(full[0])), "{:?}", bed.events);
    assert!(!bed.store.is_busy(other, 10_000, false, 0), "it would wait for memory that nothing frees");
    assert_eq!(bed.try_append(other, &filled(1, 10_000)), Err(AppendError::StorageFull));
    // Deleting one of the partitions frees its memory.
    bed.store.delete_partition(&mut bed.disk, full[0]);
    bed.append_durably(other, &filled(1, 9_000));
    bed.append_durably(slot, &filled(1, 9_000));
    bed.disk.disk().clear_faults();
    run_timer(&mut bed);
    assert_eq!(bed.store.stats().unacked_bytes, 0);
    assert!(bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)));
    assert!(bed.saw(|e| matches!(e, StoreEvent::Deleted { tp: gone } if *gone == tp(2))));
}

#[test]
fn deleting_a_partition_does_not_wait_for_space() {
    for mut bed in beds() {
        let slot = bed.slot(0);
        bed.append_durably(slot, &batch(&[b"before"]));
        bed.disk.disk().inject(no_space(bed.config.durable_form));
        bed.append(slot, &filled(1, 5000));
        bed.settle();
        bed.store.delete_partition(&mut bed.disk, slot);
        bed.settle();
        assert!(bed.saw(|e| matches!(e, StoreEvent::Deleted { tp: gone } if *gone == tp(0))));
        let stats = bed.store.stats();
        assert_eq!((stats.unacked_bytes, stats.cache_bytes), (0, 0));
        assert_eq!(stats.free_bytes, stats.slab_bytes);
        assert!(bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)), "nothing waits any more");
    }
}

/// Fills the disk, and makes the store's map need space.
fn stall_the_map(bed: &mut Bed) {
    let used = bed.disk.disk().image().files().map(|(_, bytes)| bytes).sum();
    bed.disk.disk().set_capacity(Some(used));
    bed.disk.disk().inject(Fault::write_no_space("/data/store-000/state.b"));
}

#[test]
fn records_that_wait_for_the_map_fail_when_it_has_no_space_and_others_succeed() {
    let mut bed = Bed::new(4);
    let (old, new) = (bed.slot(0), bed.slot(1));
    bed.append_durably(old, &batch(&[b"in an extent that the map knows"]));
    bed.disk.remove_file("/data/store-000/reserve".as_ref()).expect("it is there");
    stall_the_map(&mut bed);
    bed.append(new, &batch(&[b"in one that it does not know"]));
    bed.settle();
    assert!(bed.store.is_stalled());
    assert!(bed.saw(is_stalled(new)) && !bed.saw(is_stalled(old)), "{:?}", bed.events);
    assert!(bed.saw(|e| matches!(e, StoreEvent::StorageFull(why) if why.contains("map"))));
    assert_eq!(bed.try_append(new, &batch(&[b"x"])), Err(AppendError::StorageFull));
    let third = bed.slot(2);
    assert_eq!(bed.try_append(third, &batch(&[b"x"])), Err(AppendError::StorageFull), "it needs an extent");
    bed.append_durably(old, &batch(&[b"more"]));
    bed.events.clear();
    for _ in 0..3 {
        run_timer(&mut bed);
    }
    assert!(
        !bed.saw(|e| matches!(e, StoreEvent::StorageFull(_) | StoreEvent::SpaceAvailable)),
        "{:?}",
        bed.events
    );

    bed.disk.disk().set_capacity(None);
    run_timer(&mut bed);
    assert!(!bed.store.is_stalled() && bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)));
    bed.append_durably(third, &batch(&[b"x"]));
    assert_eq!(bed.values(new), [b"in one that it does not know".to_vec()]);
    bed.disk.disk().clear_faults();
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let (old, new) = (bed.slot(0), bed.slot(1));
    assert_eq!((bed.values(old).len(), bed.values(new).len()), (2, 1));
}

#[test]
fn the_map_uses_the_reserve_when_the_disk_has_no_space_for_a_record() {
    let mut bed = Bed::new(5);
    let (old, new) = (bed.slot(0), bed.slot(1));
    bed.append_durably(old, &batch(&[b"the first slab is there"]));
    stall_the_map(&mut bed);
    bed.append_durably(new, &batch(&[b"x"]));
    assert!(!bed.store.is_stalled() && !bed.saw(is_stalled(new)), "{:?}", bed.events);
    assert_eq!(bed.store.bounds(new).durable_end, Offset(1));
}

#[test]
fn a_store_opens_on_a_full_disk() {
    for policy in [CrashPolicy::LOSE_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED] {
        let mut bed = Bed::new(6);
        let slot = bed.slot(0);
        bed.append_durably(slot, &batch(&[b"before"]));
        // This one proves that the one before was durable.
        bed.append_durably(slot, &batch(&[b"last"]));
        let other = bed.slot(1);
        bed.append(other, &batch(&[b"on its way"]));
        bed.turn();
        for file in [SLAB, "/data/store-000/state.a", "/data/store-000/state.b", "/data/store-000/state.mark"]
        {
            bed.disk.disk().inject(Fault::write_no_space(file));
        }
        bed.disk.disk().set_capacity(Some(0));
        let mut bed = bed.crash(policy);
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot), [b"before".to_vec()]);
        bed.disk.disk().clear_faults();
        bed.disk.disk().set_capacity(None);
        run_timer(&mut bed);
        bed.append_durably(slot, &batch(&[b"after"]));
        assert_eq!(bed.values(slot), [&b"before"[..], b"last", b"after"]);
    }
}
