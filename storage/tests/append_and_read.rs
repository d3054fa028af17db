//! Appending, flushing and reading: from the cache, from disk, and after a restart.

mod support;

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::ids::{LeaderEpoch, Offset};
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::{AppendError, Cursor, DurableForm, ReadResult, StoreEvent};
use support::{Bed, batch, config, filled};

#[test]
fn a_batch_becomes_durable_after_a_flush_and_is_read_as_it_was_sent() {
    let mut bed = Bed::new(1);
    let slot = bed.slot(0);
    let appended = bed.append(slot, &batch(&[b"one", b"two"]));
    assert_eq!((appended.base_offset, appended.next_offset), (Offset(0), Offset(2)));
    assert_eq!(bed.store.bounds(slot).durable_end, Offset(0));
    assert!(
        matches!(bed.read(slot, Cursor::at(Offset(0)), 1000), ReadResult::AtEnd),
        "readers see what is durable"
    );
    bed.settle();
    assert!(bed.saw(|e| matches!(e, StoreEvent::Durable { durable_offset: Offset(2), .. })));
    assert_eq!(bed.values(slot), [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(bed.store.stats().reads_disk, 0, "the tail is read from memory");
}

#[test]
fn an_empty_store_has_no_slab_and_writes_nothing_when_idle() {
    let mut bed = Bed::new(1);
    let slots: Vec<_> = (0..100).map(|n| bed.slot(n)).collect();
    bed.settle();
    assert_eq!(bed.store.stats().slab_bytes, 0);
    let writes = bed.disk.disk().stats();
    for _ in 0..10 {
        bed.store.enforce_retention(&mut bed.disk, 1 << 40);
        bed.settle();
    }
    assert_eq!(bed.disk.disk().stats(), writes);
    assert_eq!(bed.store.bounds(slots[99]).append_end, Offset(0));
}

#[test]
fn reads_begin_at_any_offset_and_stop_at_their_limit() {
    let mut bed = Bed::new(2);
    let slot = bed.slot(0);
    for n in 0..50u8 {
        bed.append(slot, &batch(&[&[n; 100], &[n; 10]]));
        if n % 7 == 0 {
            bed.settle();
        }
    }
    bed.settle();
    check_reads(&mut bed);
    let mut bed = bed.restart();
    check_reads(&mut bed);
}

fn check_reads(bed: &mut Bed) {
    let slot = bed.slot(0);
    for from in [0, 1, 2, 33, 50, 98, 99] {
        for max_bytes in [1, 200, 1000, 1 << 20] {
            let (records, skipped) = bed.read_all(slot, from, max_bytes);
            assert_eq!(skipped, []);
            assert_eq!(records.len() as i64, 100 - from);
            assert_eq!(records[0].0, from);
        }
    }
    for up_to in [1, 2, 37, 38] {
        let result = bed.read_up_to(slot, Cursor::at(Offset(0)), 1 << 20, Offset(up_to));
        match result {
            ReadResult::Frames(frames) => {
                assert_eq!(frames.next.offset(), Offset(up_to / 2 * 2), "whole batches below the bound");
            }
            ReadResult::AtEnd => assert_eq!(up_to, 1),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bed.read(slot, Cursor::at(Offset(100)), 1000), ReadResult::AtEnd));
    let out = bed.read(slot, Cursor::at(Offset(101)), 1000);
    assert!(
        matches!(out, ReadResult::OutOfRange { log_start: Offset(0), durable_end: Offset(100) }),
        "{out:?}"
    );
}

#[test]
fn small_and_bulk_frames_of_every_size_survive_a_restart_side_by_side() {
    for form in [DurableForm::Dsync, DurableForm::SyncPerRound] {
        let mut bed = Bed::with(3, highwater_storage::StoreConfig { durable_form: form, ..config() });
        let slot = bed.slot(0);
        let mut expected = Vec::new();
        // Sizes whose frames end just before, at, and after page boundaries.
        for n in 0..120usize {
            let bytes = [1, 500, 3870 + n, 4096, 8000 + 9 * n, 20_000][n % 6];
            let sent = filled(n as u8, bytes);
            if n % 2 == 0 {
                bed.append(slot, &sent);
            } else {
                bed.try_append_bulk(slot, &sent).expect("it is taken");
            }
            expected.push(vec![n as u8; bytes]);
            if n % 5 == 0 {
                bed.turn();
            }
            if n % 3 == 0 {
                bed.settle();
            }
        }
        bed.settle();
        assert_eq!(bed.values(slot), expected);
        let bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, []);
        let mut bed = bed.restart();
        let slot = bed.slot(0);
        assert_eq!(bed.values(slot), expected);
        bed.append_durably(slot, &batch(&[b"and on"]));
        expected.push(b"and on".to_vec());
        assert_eq!(bed.values(slot), expected);
    }
}

#[test]
fn a_bulk_frame_starts_on_a_page_boundary_and_its_bytes_are_unchanged() {
    let mut bed = Bed::new(4);
    let slot = bed.slot(0);
    bed.append(slot, &batch(&[b"small"]));
    let sent = filled(7, 10_000);
    let pages = support::pages(&sent);
    let address = pages.as_ptr() as usize;
    let payload = highwater_storage::Payload::bulk(*BatchHeader::parse(&sent).expect("a batch"), pages);
    bed.store.append(&mut bed.disk, slot, payload, support::EPOCH, 0).expect("it is taken");
    bed.settle();
    let ReadResult::Frames(frames) = bed.read(slot, Cursor::at(Offset(1)), 1 << 20) else {
        panic!("it is there")
    };
    assert_eq!(
        frames.bytes[0].as_ptr() as usize,
        address,
        "the pages are sent from where they were received"
    );
}

#[test]
fn an_epoch_start_has_an_index_and_no_offset() {
    let mut bed = Bed::new(5);
    let slot = bed.slot(0);
    let other = bed.slot(1);
    bed.append_durably(other, &batch(&[b"the first slab is there"]));
    let index = bed.store.append_epoch_start(&mut bed.disk, slot, LeaderEpoch(1), 0).expect("it is taken");
    let appended = bed.append(slot, &batch(&[b"x"]));
    assert_eq!(appended.index, index.next());
    assert_eq!(appended.base_offset, Offset(0));
    bed.store.append_epoch_start(&mut bed.disk, slot, LeaderEpoch(3), 0).expect("it is taken");
    bed.settle();
    assert_eq!(bed.values(slot), [b"x".to_vec()]);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    assert_eq!(bed.store.bounds(slot).last_epoch, Some(LeaderEpoch(3)));
    assert_eq!(bed.store.bounds(slot).append_index.0, 3);
}

#[test]
fn a_batch_larger_than_an_extent_is_rejected() {
    let mut bed = Bed::new(6);
    let slot = bed.slot(0);
    let max = bed.config.limits.payload_bytes_max;
    assert!(matches!(bed.try_append(slot, &filled(0, max)), Err(AppendError::TooLarge { .. })));
    bed.append_durably(slot, &filled(0, max - 100));
    bed.try_append_bulk(slot, &filled(0, max - 100)).expect("the largest goes in as bulk too");
    bed.settle();
    assert_eq!(bed.values(slot).len(), 2);
}

#[test]
fn unwritten_bytes_are_bounded_but_one_batch_is_always_accepted() {
    let mut bed = Bed::new(7);
    let slot = bed.slot(0);
    let sent = filled(1, 10_000);
    let mut taken = 0;
    let refused = loop {
        match bed.try_append(slot, &sent) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(refused, AppendError::Busy);
    assert!(bed.store.is_busy(slot, sent.len(), false, 0));
    assert!(bed.store.stats().unacked_bytes <= bed.config.limits.unacked_bytes_max);
    assert!(taken >= 5, "{taken}");
    bed.settle();
    assert_eq!(bed.store.stats().unacked_bytes, 0);
    bed.append_durably(slot, &sent);
    assert_eq!(bed.values(slot).len(), taken + 1);
}

#[test]
fn unwritten_bytes_of_all_partitions_together_are_bounded() {
    let mut bed = Bed::new(8);
    let sent = filled(1, 10_000);
    let busy = (0..1000).find(|n| {
        let slot = bed.slot(*n);
        bed.try_append(slot, &sent) == Err(AppendError::Busy)
    });
    assert!(busy.is_some_and(|n| n > 10), "{busy:?}");
    assert!(bed.store.stats().unacked_bytes <= bed.config.limits.store_unacked_bytes_max);
    bed.settle();
    assert_eq!(bed.store.stats().unacked_bytes, 0);
}

#[test]
fn a_slow_reader_is_served_from_disk_after_its_records_left_the_cache() {
    let mut bed = Bed::new(9);
    let slot = bed.slot(0);
    let mut reader = Cursor::at(Offset(0));
    let mut seen = 0;
    for n in 0..200u8 {
        bed.append_durably(slot, &filled(n, 3000));
        assert!(bed.store.stats().cache_bytes <= bed.config.limits.cache_bytes_max);
        if n % 40 == 39 {
            let ReadResult::Frames(frames) = bed.read(slot, reader, 20_000) else { panic!("there is more") };
            seen += frames.next.offset().0 - reader.offset().0;
            reader = frames.next;
        }
    }
    assert_eq!(reader.offset().0, seen);
    assert!(bed.store.stats().reads_disk > 0 && bed.store.stats().cache_bytes > 64 << 10);
    let values = bed.values(slot);
    assert!((0..200u8).zip(&values).all(|(n, value)| value[0] == n && value.len() == 3000));
    assert_eq!(values.len(), 200);
}

#[test]
fn a_cold_sequential_reader_reads_little_more_from_disk_than_it_returns() {
    let mut bed = Bed::new(10);
    let slot = bed.slot(0);
    for n in 0..100u8 {
        bed.try_append_bulk(slot, &filled(n, 9000)).expect("it is taken");
        bed.settle();
    }
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    let (records, _) = bed.read_all(slot, 0, 12_000);
    assert_eq!(records.len(), 100);
    let read = bed.store.stats().bytes_read;
    assert!(read < 100 * 9000 * 3 / 2, "{read} bytes read for {} of records", 100 * 9000);
}

#[test]
fn the_records_of_many_partitions_become_durable_in_one_round() {
    for form in [DurableForm::Dsync, DurableForm::SyncPerRound] {
        let mut bed = Bed::with(11, highwater_storage::StoreConfig { durable_form: form, ..config() });
        let slots: Vec<_> = (0..10).map(|n| bed.slot(n)).collect();
        for slot in &slots {
            bed.append(*slot, &filled(1, 100));
        }
        bed.settle();
        let before = bed.store.stats();
        for slot in &slots {
            bed.append(*slot, &filled(2, 100));
        }
        bed.settle();
        let after = bed.store.stats();
        assert_eq!(after.rounds - before.rounds, 1);
        assert_eq!(after.writes - before.writes, 10);
        let syncs = u64::from(form == DurableForm::SyncPerRound);
        assert_eq!(after.syncs - before.syncs, syncs);
        for slot in slots {
            assert_eq!(bed.values(slot).len(), 2);
        }
    }
}
