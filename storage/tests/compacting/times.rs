//! Searches by time in compacted logs: what they find is there, also if it was removed while they searched.

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord, Work};
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_storage::{FindOutcome, FindResult, PartitionSlot, ReadId, SearchMemory};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Bed, producer};
use crate::{compact, compacted, fill, start, turn};

/// A record: its offset and its timestamp.
type Timed = (i64, i64);

fn append_at(bed: &mut Bed, slot: PartitionSlot, of: BatchProducer, key: &str, at: i64, bytes: usize) {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    let value = vec![b'v'; bytes];
    builder.append(&NewRecord::new(Timestamp(at), Some(key.as_bytes()), Some(&value))).unwrap();
    bed.append_durably(slot, &builder.finish(of).unwrap().freeze());
}

#[test]
fn the_largest_timestamp_is_that_of_a_record_and_not_of_a_batch_that_was_emptied() {
    for without_index in [false, true] {
        let mut bed = Bed::new(1);
        let slot = compacted(&mut bed);
        // The last batch of its producer stays, empty.
        append_at(&mut bed, slot, producer(1, 0, 0), "t", 9000, 10);
        append_at(&mut bed, slot, BatchProducer::NONE, "t", 500, 10);
        fill(&mut bed, slot, "later", 20_000);
        compact(&mut bed, slot);
        if without_index {
            bed = bed.restart();
        }
        assert_eq!(bed.find_last(slot), FindResult::At(Offset(1), Timestamp(500)));
        assert_eq!(bed.find(slot, 501), FindResult::None);
    }
}

/// The first record with the largest timestamp.
fn latest(records: &[Timed]) -> Timed {
    let largest = records.iter().map(|record| record.1).max().expect("there are records");
    *records.iter().find(|record| record.1 == largest).expect("it was there")
}

/// The last record of each key.
fn left(all: &[(Timed, u32)]) -> Vec<Timed> {
    let is_last = |at: usize, key| all[at + 1..].iter().all(|(_, later)| *later != key);
    let left = all.iter().enumerate().filter(|(at, (_, key))| is_last(*at, *key));
    left.map(|(_, (record, _))| *record).collect()
}

/// The search's number, under which its result will be among those of the bed.
fn pending(bed: &mut Bed, found: FindOutcome, number: u64) -> ReadId {
    match found {
        FindOutcome::Pending(id) => id,
        FindOutcome::Ready(result) => {
            let id = ReadId(u64::MAX - number);
            bed.founds.insert(id, result);
            id
        }
    }
}

#[test]
fn a_search_by_time_during_a_pass_finds_what_it_should_before_or_after_the_pass() {
    let (mut moved, mut stayed) = (0, 0);
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bed = Bed::new(seed);
        let slot = compacted(&mut bed);
        let mut all = Vec::new();
        for offset in 0..60 {
            let (key, at) = (rng.random_range(0..6), rng.random_range(1000..9000));
            append_at(&mut bed, slot, BatchProducer::NONE, &format!("key {key}"), at, 1500);
            all.push(((offset, at), key));
        }
        let mut bed = if seed % 2 == 0 { bed.restart() } else { bed };
        let slot = compacted(&mut bed);
        bed.events.clear();
        let mut pass = start(&bed, slot, 1 << 20).expect("something is dirty");
        let mut is_over = false;
        for _ in 0..rng.random_range(0..400) {
            is_over |= turn(&mut bed, &mut pass).is_some();
        }
        let memory = SearchMemory::UNLIMITED;
        let since = rng.random_range(1000..9000);
        let last = bed.store.find_last(&mut bed.disk, slot, memory, &mut 0);
        let last = pending(&mut bed, last, 0);
        let first = bed.store.find_time(&mut bed.disk, slot, Timestamp(since), memory, &mut 0);
        let first = pending(&mut bed, first, 1);
        while !is_over || !bed.founds.contains_key(&last) || !bed.founds.contains_key(&first) {
            let mut work: Work = rng.random_range(0..2000);
            bed.store.continue_searches(&mut bed.disk, &mut work);
            if is_over || rng.random_bool(0.3) {
                bed.step();
            } else {
                is_over = turn(&mut bed, &mut pass).is_some();
            }
        }
        let before: Vec<Timed> = all.iter().map(|(record, _)| *record).collect();
        let after = left(&all);
        let FindResult::At(Offset(offset), Timestamp(at)) = bed.founds[&last] else {
            panic!("seed {seed}: {:?}", bed.founds[&last]);
        };
        let (most, least) = (latest(&before), latest(&after));
        assert!(before.contains(&(offset, at)), "seed {seed}: {offset} has another timestamp than {at}");
        assert!((least.1..=most.1).contains(&at), "seed {seed}: {at} is not between {least:?} and {most:?}");
        moved += usize::from(at < most.1);
        stayed += usize::from(at == most.1);
        let since_in = |records: &[Timed]| records.iter().find(|record| record.1 >= since).copied();
        match bed.founds[&first] {
            FindResult::At(Offset(offset), Timestamp(at)) => {
                assert!(before.contains(&(offset, at)) && at >= since, "seed {seed}");
                let (from, to) = (since_in(&before).expect("it is there"), since_in(&after));
                assert!(offset >= from.0 && to.is_none_or(|to| offset <= to.0), "seed {seed}: {offset}");
            }
            FindResult::None => assert_eq!(since_in(&after), None, "seed {seed}"),
            ref other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(moved > 5 && stayed > 5, "{moved} and {stayed}: the pass and the searches did not meet");
}
