//! Space: slabs are added, extents are reused, and a full disk fails appends and nothing else.

mod support;

use highwater_protocol::ids::Offset;
use highwater_runtime::fs::Fs;
use highwater_runtime::sim::{CrashPolicy, Fault};
use highwater_storage::{AppendError, PartitionConfig, StoreConfig, StoreEvent, StoreLimits};
use support::{Bed, batch, config, filled, tp};

/// Sets the free space of the disk.
fn leave_free(bed: &mut Bed, bytes: u64) {
    let used: u64 = bed.disk.disk().image().files().map(|(_, bytes)| bytes).sum();
    bed.disk.disk().set_capacity(Some(used + bytes));
}

/// Appends until the disk is full. Retries an append that has to wait for a slab.
fn fill_up(bed: &mut Bed, slot: highwater_storage::PartitionSlot) -> usize {
    let mut taken = 0;
    for _ in 0..10_000 {
        match bed.try_append(slot, &filled(taken as u8, 10_000)) {
            Ok(_) => taken += 1,
            Err(AppendError::StorageFull) => return taken,
            Err(e) => panic!("{e}"),
        }
        bed.settle();
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_fails_appends_and_serves_everything_else_until_there_is_space() {
    let mut bed = Bed::new(1);
    leave_free(&mut bed, 1 << 20);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    bed.append_durably(other, &batch(&[b"other"]));
    let taken = fill_up(&mut bed, slot);
    assert!(taken > 40, "{taken} batches fitted");
    assert!(bed.saw(|e| matches!(e, StoreEvent::StorageFull(why) if why.contains("/data/store-000"))));
    assert_eq!(bed.try_append(slot, &filled(0, 10_000)), Err(AppendError::StorageFull), "and again");
    assert_eq!(bed.values(slot).len(), taken, "reading goes on");
    bed.append_durably(other, &batch(&[b"room in its extent"]));
    assert_eq!(bed.values(other).len(), 2, "appends that need no space go on");

    // Retention frees space.
    bed.events.clear();
    let half = Offset(taken as i64 / 2);
    bed.store.set_log_start(&mut bed.disk, slot, half).expect("it is in the log");
    bed.settle();
    assert!(bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)));
    bed.append_durably(slot, &filled(1, 10_000));
    assert_eq!(bed.values(slot).len(), taken - taken / 2 + 1);
}

#[test]
fn appends_succeed_again_without_a_restart_when_a_full_disk_has_space() {
    let mut bed = Bed::new(2);
    leave_free(&mut bed, 1 << 20);
    let slot = bed.slot(0);
    let taken = fill_up(&mut bed, slot);
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
    assert!(!bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)), "there is none yet");
    bed.disk.disk().set_capacity(None);
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.settle();
    assert!(bed.saw(|e| matches!(e, StoreEvent::SpaceAvailable)));
    bed.append_durably(slot, &filled(1, 10_000));
    assert_eq!(bed.values(slot).len(), taken + 1);
}

#[test]
fn a_disk_that_is_full_at_the_start_fails_appends_as_soon_as_that_is_known() {
    let mut bed = Bed::new(3);
    leave_free(&mut bed, 100 << 10);
    let slot = bed.slot(0);
    assert_eq!(bed.try_append(slot, &batch(&[b"no slab fits"])), Err(AppendError::StorageFull));
    assert!(bed.saw(|e| matches!(e, StoreEvent::StorageFull(_))));
    for _ in 0..3 {
        assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::StorageFull));
        bed.store.enforce_retention(&mut bed.disk, 0);
        bed.settle();
    }
    let told = bed.events.iter().filter(|e| matches!(e, StoreEvent::StorageFull(_))).count();
    assert_eq!(told, 1, "it is said once");
    assert_eq!((bed.store.stats().unacked_bytes, bed.store.bounds(slot).append_end), (0, Offset(0)));
    // A start reports it too.
    let mut bed = bed.restart();
    assert!(bed.report.warnings.iter().any(|w| w.contains("no slab fits")), "{:?}", bed.report);
    let slot = bed.slot(0);
    bed.disk.disk().set_capacity(None);
    bed.store.enforce_retention(&mut bed.disk, 0);
    bed.append_durably(slot, &batch(&[b"x"]));
    assert_eq!(bed.values(slot), [b"x".to_vec()]);
}

#[test]
fn a_small_disk_gets_small_slabs_and_keeps_space_for_the_state_log() {
    let mut bed = Bed::new(11);
    let free = 2 << 20;
    leave_free(&mut bed, free);
    let slot = bed.slot(0);
    let taken = fill_up(&mut bed, slot);
    assert!(taken as u64 * 10_000 > free / 2, "{taken} batches fitted");
    let image = bed.disk.disk().image();
    let slabs = image.files().filter(|(path, _)| path.to_string_lossy().contains("slab-"));
    let bytes: Vec<u64> = slabs.map(|(_, bytes)| bytes).collect();
    assert!(bytes.iter().all(|bytes| *bytes <= free / 16), "{bytes:?}");
    assert!(free - bytes.iter().sum::<u64>() >= 15 * bed.config.limits.extent_bytes_min, "{bytes:?}");
}

#[test]
fn free_slabs_are_removed() {
    let mut bed = Bed::new(12);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    bed.append_durably(other, &filled(1, 100));
    for n in 0..400 {
        bed.append_durably(slot, &filled(n as u8, 9000));
    }
    let before = bed.store.stats();
    assert!(before.slab_bytes > 4 << 20, "{before:?}");
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    let after = bed.store.stats();
    assert!(after.slab_bytes <= 2 * bed.config.limits.slab_bytes_max, "{after:?}");
    let on_disk = |bed: &mut Bed| -> u64 {
        let files = bed.disk.list("/data/store-000".as_ref()).expect("the folder is there");
        files.iter().filter(|file| file.name.starts_with("slab-")).map(|file| file.bytes).sum()
    };
    assert_eq!(on_disk(&mut bed), after.slab_bytes);
    assert_eq!(bed.values(other).len(), 1, "what is used stays");
    // Removed slabs are not missed after a crash, and are created again when needed.
    let mut bed = bed.crash(CrashPolicy::MIXED);
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(2);
    for n in 0..100 {
        bed.append_durably(slot, &filled(n as u8, 9000));
    }
    assert_eq!(bed.values(slot).len(), 100);
}

#[test]
fn deletions_succeed_on_a_full_disk_with_a_reserve() {
    let mut bed = Bed::new(13);
    leave_free(&mut bed, 1 << 20);
    let slot = bed.slot(0);
    let taken = fill_up(&mut bed, slot);
    assert!(taken > 0);
    // Another program uses the rest.
    leave_free(&mut bed, 0);
    for n in 1..2000 {
        let slot = bed.slot(n);
        bed.store.delete_partition(&mut bed.disk, slot);
        if n % 10 == 0 {
            bed.settle();
        }
    }
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    for n in [0, 1, 1999] {
        assert!(bed.saw(|e| matches!(e, StoreEvent::Deleted { tp: gone } if *gone == tp(n))), "{n}");
    }
    let again = bed.slot(0);
    bed.append_durably(again, &filled(1, 5000));
}

#[test]
fn a_store_on_a_full_disk_can_be_shut_down() {
    let mut bed = Bed::new(4);
    leave_free(&mut bed, 1 << 20);
    let slot = bed.slot(0);
    let taken = fill_up(&mut bed, slot);
    let mut bed = bed.restart();
    assert_eq!(bed.report.findings, []);
    let slot = bed.slot(0);
    assert_eq!(bed.values(slot).len(), taken);
}

#[test]
fn freed_extents_are_reused_before_a_slab_is_added() {
    let mut bed = Bed::new(5);
    let slot = bed.slot(0);
    for n in 0..500u64 {
        let appended = bed.append_durably(slot, &filled(n as u8, 5000));
        let keep_from = Offset((appended.next_offset.0 - 10).max(0));
        bed.store.set_log_start(&mut bed.disk, slot, keep_from).expect("it is in the log");
    }
    bed.settle();
    let stats = bed.store.stats();
    assert!(stats.bytes_appended > 4 * stats.slab_bytes, "{stats:?}");
    let values = bed.values(slot);
    assert!((490..500u64).zip(&values).all(|(n, value)| value[0] == n as u8));
}

#[test]
fn frames_of_an_earlier_use_of_the_space_are_never_read() {
    // With the same partition and sizes, there is always an old frame at the right position after the end of the log.
    let mut bed = Bed::new(6);
    let mut next = 0;
    for round in 0..60u64 {
        let slot = bed.slot(0);
        for _ in 0..4 {
            bed.append_durably(slot, &filled(round as u8, 3000));
            next += 1;
        }
        let end = bed.store.bounds(slot).durable_end;
        bed.store.set_log_start(&mut bed.disk, slot, Offset(end.0 - 2)).expect("it is in the log");
        bed.settle();
        bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, [], "round {round}");
        let slot = bed.slot(0);
        assert_eq!(bed.store.bounds(slot).durable_end, Offset(next), "round {round}");
        assert!(bed.values(slot).iter().all(|value| value[0] == round as u8));
    }
    assert!(bed.store.stats().slab_bytes <= 3 * bed.config.limits.slab_bytes_first);
}

#[test]
fn the_space_of_a_deleted_partition_is_freed_even_while_it_is_being_written() {
    let mut bed = Bed::new(7);
    for n in 0..200 {
        let slot = bed.slot(n);
        bed.append(slot, &filled(n as u8, 9000));
        if n % 3 == 0 {
            bed.settle();
        }
        bed.turn();
        bed.store.delete_partition(&mut bed.disk, slot);
        assert_eq!(bed.try_append(slot, &batch(&[b"x"])), Err(AppendError::Deleted));
    }
    bed.settle();
    for n in 0..200 {
        assert!(bed.saw(|e| matches!(e, StoreEvent::Deleted { tp: gone } if *gone == tp(n))));
    }
    let stats = bed.store.stats();
    assert_eq!(stats.free_bytes, stats.slab_bytes, "all space is free");
    assert_eq!((stats.unacked_bytes, stats.cache_bytes), (0, 0));
    let bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!(bed.report.partitions, 0);
}

#[test]
fn space_in_the_write_queue_is_reported_free_when_its_partition_is_deleted() {
    let limits = StoreLimits { slab_bytes_first: 1 << 20, ..StoreLimits::tiny() };
    let mut bed = Bed::with(10, StoreConfig { limits, ..config() });
    let other = bed.slot(99);
    bed.append_durably(other, &batch(&[b"the first slab is there"]));
    let filling: Vec<_> = (0..4).map(|n| bed.slot(n)).collect();
    for slot in &filling {
        while bed.try_append(*slot, &filled(0, 10_000)).is_ok() {}
    }
    assert_eq!(bed.try_append(other, &filled(1, 10_000)), Err(AppendError::Busy));
    bed.turn();
    bed.events.clear();
    for slot in filling {
        bed.store.delete_partition(&mut bed.disk, slot);
    }
    bed.turn();
    let tells = |bed: &Bed| bed.saw(|e| matches!(e, StoreEvent::RoomAvailable));
    assert!(tells(&bed), "what has not left waits for the disk no more");
    // The rest becomes durable after its partition was deleted.
    let mut on_its_way = bed.store.stats().unacked_bytes;
    assert!(on_its_way > 0);
    while on_its_way > 0 {
        bed.events.clear();
        assert!(bed.step(), "it never lands");
        let now = bed.store.stats().unacked_bytes;
        assert!(now == on_its_way || tells(&bed), "there is room and nobody was told");
        on_its_way = now;
    }
    bed.append_durably(other, &filled(1, 10_000));
}

#[test]
fn a_write_or_sync_error_stops_the_store_without_an_acknowledgement() {
    let errors =
        [Fault::write_error("/data/store-000/slab-000000"), Fault::sync_error("/data/store-000/slab-000000")];
    for (fault, form) in errors
        .into_iter()
        .zip([highwater_storage::DurableForm::Dsync, highwater_storage::DurableForm::SyncPerRound])
    {
        let mut bed = Bed::with(8, highwater_storage::StoreConfig { durable_form: form, ..config() });
        let slot = bed.slot(0);
        bed.append_durably(slot, &batch(&[b"before"]));
        bed.events.clear();
        bed.disk.disk().inject(fault);
        bed.append(slot, &batch(&[b"lost"]));
        bed.settle();
        assert!(
            matches!(&bed.events[..], [StoreEvent::Fatal(why)] if why.contains("slab-000000")),
            "{:?}",
            bed.events
        );
        assert_eq!(bed.store.bounds(slot).durable_end, Offset(1));
    }
}

#[test]
fn ten_thousand_empty_partitions_need_no_files_and_no_time_to_open() {
    let mut bed = Bed::new(9);
    for n in 0..10_000 {
        bed.store.ensure_partition(tp(n), PartitionConfig::default());
    }
    bed.store.enforce_retention(&mut bed.disk, 1 << 40);
    bed.settle();
    let mut bed = bed.restart();
    let names: Vec<_> = bed.disk.list("/data/store-000".as_ref()).expect("the folder is there");
    assert_eq!(
        names.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
        ["reserve", "state.a", "state.b", "state.mark"]
    );
    assert_eq!((bed.report.partitions, bed.report.bytes_scanned), (0, 0));
    for n in 0..10_000 {
        bed.store.ensure_partition(tp(n), PartitionConfig::default());
    }
    assert_eq!(bed.store.partitions().count(), 10_000);
}
