//! Searching by timestamp: the first record at or after a timestamp, in any kind of batch and anywhere in the log.

mod support;

use highwater_protocol::batch::{BATCH_HEADER_BYTES, BatchProducer, Compression, Work, seal};
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::{FindOutcome, FindResult, PartitionSlot, SearchMemory};
use support::{Bed, batch_at, batch_of};

fn at(offset: i64, timestamp: i64) -> FindResult {
    FindResult::At(Offset(offset), Timestamp(timestamp))
}

/// Returns what the search must find among records with these timestamps, from `log_start` on.
fn expected(timestamps: &[i64], log_start: usize, from: i64) -> FindResult {
    let found = timestamps.iter().enumerate().skip(log_start).find(|(_, t)| **t >= from);
    found.map_or(FindResult::None, |(offset, t)| at(offset as i64, *t))
}

/// Checks searches that run at once and in the smallest steps.
fn check(bed: &mut Bed, slot: PartitionSlot, timestamps: &[i64]) {
    for work in [Work::MAX, 1] {
        bed.search_work = work;
        check_searches(bed, slot, timestamps);
    }
}

fn check_searches(bed: &mut Bed, slot: PartitionSlot, timestamps: &[i64]) {
    let log_start = bed.store.bounds(slot).log_start.0 as usize;
    let last = timestamps.iter().max().copied().unwrap_or(0);
    for from in (-1..last + 3).step_by(7) {
        assert_eq!(bed.find(slot, from), expected(timestamps, log_start, from), "from {from}");
    }
    let last = timestamps.iter().skip(log_start).max();
    let expected = last.map_or(FindResult::None, |last| expected(timestamps, log_start, *last));
    assert_eq!(bed.find_last(slot), expected, "the latest from {log_start} on");
}

#[test]
fn an_empty_log_holds_no_record() {
    let mut bed = Bed::new(1);
    let slot = bed.slot(0);
    assert_eq!(bed.find(slot, 0), FindResult::None);
    bed.append(slot, &batch_at(5, &[b"not durable yet"]));
    assert_eq!((bed.find(slot, 0), bed.find_last(slot)), (FindResult::None, FindResult::None));
    bed.settle();
    assert_eq!((bed.find(slot, 0), bed.find_last(slot)), (at(0, 5), at(0, 5)));
    assert_eq!(bed.find(slot, 6), FindResult::None);
}

#[test]
fn the_exact_record_is_found_inside_batches_in_memory_on_disk_and_after_the_log_start() {
    let mut bed = Bed::new(2);
    let slot = bed.slot(0);
    let mut timestamps = Vec::new();
    for n in 0..120i64 {
        // Not in order: batches go back in time.
        let from = n * 10 - (n % 4) * 25 + 100;
        let values: Vec<Vec<u8>> = (0..3).map(|_| vec![n as u8; 400]).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        bed.append_durably(slot, &batch_at(from, &slices));
        timestamps.extend(from..from + 3);
    }
    check(&mut bed, slot, &timestamps);
    bed.store.set_log_start(&mut bed.disk, slot, Offset(40)).expect("it is in the log");
    bed.settle();
    check(&mut bed, slot, &timestamps);
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    check(&mut bed, slot, &timestamps);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = bed.slot(0);
    check(&mut bed, slot, &timestamps);
    assert!(bed.store.stats().reads_disk > 0);
}

#[test]
fn the_latest_record_is_found_among_records_that_are_not_durable_or_below_the_log_start() {
    let mut bed = Bed::new(9);
    let slot = bed.slot(0);
    let value = [7u8; 400];
    let mut timestamps = Vec::new();
    // The first are the latest, then they rise and fall.
    for n in 0..200i64 {
        let from = if n < 5 { 5000 - n * 10 } else { 1000 + (n * 37) % 1000 };
        bed.append_durably(slot, &batch_at(from, &[&value[..]; 3]));
        timestamps.extend(from..from + 3);
    }
    bed.append(slot, &batch_at(9000, &[b"not durable yet"]));
    let durable = timestamps.len();
    assert_eq!(bed.find_last(slot), at(2, 5002));
    timestamps.push(9000);
    bed.settle();
    check(&mut bed, slot, &timestamps);
    // The last record is not the one with the largest timestamp.
    bed.append_durably(slot, &batch_at(1, &[b"early"]));
    timestamps.push(1);
    for start in [2, 3, 14, 15, 16, 301, durable, durable + 1, durable + 2] {
        bed.store.set_log_start(&mut bed.disk, slot, Offset(start as i64)).expect("it is in the log");
        bed.settle();
        check(&mut bed, slot, &timestamps);
    }
}

#[test]
fn deleted_records_in_the_middle_of_an_extent_are_not_the_latest_even_after_a_restart() {
    for start in 0..9 {
        let mut bed = Bed::new(10 + start);
        let slot = bed.slot(0);
        let timestamps = [900, 901, 902, 500, 501, 502, 100, 101, 102];
        for batch in timestamps.chunks(3) {
            bed.append_durably(slot, &batch_at(batch[0], &[&[1; 100][..]; 3]));
        }
        bed.store.set_log_start(&mut bed.disk, slot, Offset(start as i64)).expect("it is in the log");
        bed.settle();
        check(&mut bed, slot, &timestamps);
        let mut bed = bed.restart();
        let slot = bed.slot(0);
        check(&mut bed, slot, &timestamps);
    }
}

#[test]
fn records_are_found_in_compressed_batches() {
    let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (seed, codec) in (3..).zip(codecs) {
        let mut bed = Bed::new(seed);
        let slot = bed.slot(0);
        let value = [7u8; 500];
        for n in 0..5 {
            let values = vec![&value[..]; 100];
            let batch = batch_of(codec, BatchProducer::NONE, n * 1000, &values);
            assert!(batch.len() < 100 * 500 / 4, "{codec:?} makes it smaller");
            bed.append_durably(slot, &batch);
        }
        assert_eq!(bed.find(slot, 2050), at(250, 2050), "{codec:?}");
        let mut bed = bed.restart();
        let slot = bed.slot(0);
        assert_eq!(bed.find(slot, 3099), at(399, 3099), "{codec:?}");
        assert_eq!(bed.find(slot, 3100), at(400, 4000), "{codec:?}");
    }
}

#[test]
fn a_search_that_decompresses_much_runs_in_slices_beside_other_searches() {
    let mut bed = Bed::new(21);
    let (slow, quick) = (bed.slot(0), bed.slot(1));
    let zeros = vec![0; 4 << 20];
    for n in 0..5i64 {
        let values: [&[u8]; 2] = [&zeros, b"last"];
        bed.append_durably(slow, &batch_of(Compression::Zstd, BatchProducer::NONE, n * 10, &values));
    }
    bed.append_durably(quick, &batch_at(41, &[b"v"]));
    let mut nothing = 0;
    let FindOutcome::Pending(first) =
        bed.store.find_time(&mut bed.disk, slow, Timestamp(41), SearchMemory::UNLIMITED, &mut nothing)
    else {
        panic!("there was no work left for it");
    };
    let FindOutcome::Pending(second) =
        bed.store.find_time(&mut bed.disk, quick, Timestamp(0), SearchMemory::UNLIMITED, &mut nothing)
    else {
        panic!("there was no work left for it");
    };
    let mut steps = 0;
    let mut done = Vec::new();
    while done.len() < 2 {
        let mut work = 300_000;
        bed.store.continue_searches(&mut bed.disk, &mut work);
        steps += 1;
        bed.turn();
        while let Some((id, result)) = bed.founds.pop_first() {
            done.push((id, result, steps));
        }
    }
    assert_eq!((done[0].0, done[0].1), (second, at(0, 41)));
    assert_eq!((done[1].0, done[1].1), (first, at(9, 41)));
    assert!(done[0].2 == 1 && done[1].2 > 5, "{done:?}");
}

#[test]
fn records_without_a_timestamp_are_found_by_no_search_and_are_not_the_latest() {
    let mut bed = Bed::new(22);
    let slot = bed.slot(0);
    bed.append_durably(slot, &batch_at(-1, &[b"untimed"]));
    assert_eq!((bed.find(slot, 0), bed.find_last(slot)), (FindResult::None, FindResult::None));
    bed.append_durably(slot, &batch_at(7, &[b"timed"]));
    bed.append_durably(slot, &batch_at(-1, &[b"untimed"]));
    assert_eq!((bed.find(slot, 0), bed.find_last(slot)), (at(1, 7), at(1, 7)));
}

#[test]
fn an_unreadable_batch_does_not_hide_later_batches_from_searches() {
    let mut bed = Bed::new(23);
    let slot = bed.slot(0);
    let mut garbage = batch_of(Compression::Gzip, BatchProducer::NONE, 100, &[&[7; 500]]).to_vec();
    for byte in &mut garbage[BATCH_HEADER_BYTES..] {
        *byte ^= 0x33;
    }
    seal(&mut garbage);
    bed.append_durably(slot, &garbage);
    bed.append_durably(slot, &batch_at(200, &[b"v"]));
    assert_eq!(bed.find(slot, 50), at(1, 200));
}
