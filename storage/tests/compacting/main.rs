//! Compaction passes over partitions of a store: what a reader finds before, during and after them, and after crashes.

mod idle;
#[cfg(feature = "mutants")]
mod mutants;
#[path = "../support/mod.rs"]
mod support;
mod times;

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::frame::Frames;
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_storage::compaction::{Backlog, Pass, PassError, PassLimits, PassOutcome, PassStep};
use highwater_storage::{
    CompactionConfig, Cursor, MacKey, PartitionConfig, PartitionSlot, ReadResult, StoreConfig, StoreEvent,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use support::{Bed, CRASH_POLICIES, journal_in_half_of, tp};

const COMPACTION: CompactionConfig =
    CompactionConfig { dirty_ppm_min: 0, lag_ms_min: 0, lag_ms_max: i64::MAX, delete_retention_ms: 1000 };

const LIMITS: PassLimits = PassLimits {
    index_bytes_max: 1 << 20,
    batch_bytes_max: 32 << 10,
    decompressed_bytes_max: 1 << 20,
    stream: None,
};

const SEGMENT_BYTES: u64 = 8 << 10;

fn compacted(bed: &mut Bed) -> PartitionSlot {
    let config = PartitionConfig {
        segment_bytes: SEGMENT_BYTES,
        segment_ms: 5000,
        compaction: Some(COMPACTION),
        ..PartitionConfig::KEEP_ALL
    };
    bed.store.ensure_partition(tp(0), config)
}

/// Keys with values; `None` is a tombstone.
type Change<'a> = (&'a str, Option<&'a str>);

fn batch(codec: Compression, producer: BatchProducer, changes: &[Change<'_>]) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 0);
    for (key, value) in changes {
        let record = NewRecord::new(Timestamp(5), Some(key.as_bytes()), value.map(str::as_bytes));
        builder.append(&record).unwrap();
    }
    builder.finish(producer).unwrap().freeze()
}

/// Reads every record of the partition: offset, key, value.
fn records(bed: &mut Bed, slot: PartitionSlot) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut cursor = Cursor::at(bed.store.bounds(slot).log_start);
    let mut records = Vec::new();
    let mut scratch = Vec::new();
    loop {
        match bed.read(slot, cursor, 4 << 10) {
            ReadResult::Frames(frames) => {
                assert!(frames.next.offset() > cursor.offset(), "a read leads forward");
                for frame in frames.bytes.iter().flat_map(|slice| Frames::new(slice)) {
                    let frame = frame.unwrap();
                    frame.check().unwrap();
                    let Some(batch) = frame.batch() else { continue };
                    for record in batch.records(&mut scratch).unwrap() {
                        let record = record.unwrap();
                        let (key, value) = (text(record.key.unwrap()), record.value.map(text));
                        records.push((record.offset.0, key, value));
                    }
                }
                cursor = frames.next;
            }
            ReadResult::AtEnd => {
                assert_eq!(cursor.offset(), bed.store.bounds(slot).durable_end, "a reader gets to the end");
                break;
            }
            other => panic!("reading at {cursor:?}: {other:?}"),
        }
    }
    assert!(records.is_sorted_by(|a, b| a.0 < b.0));
    records
}

/// Returns the final values that a reader of the whole partition has.
fn table(bed: &mut Bed, slot: PartitionSlot) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for (_, key, value) in records(bed, slot) {
        match value {
            Some(value) => drop(table.insert(key, value)),
            None => drop(table.remove(&key)),
        }
    }
    table
}

fn backlog(bed: &Bed, slot: PartitionSlot, config: &CompactionConfig) -> Backlog {
    Backlog::of(bed.store.rewritable_extents(slot), config, bed.wall_ms)
}

fn start(bed: &Bed, slot: PartitionSlot, index_bytes_max: usize) -> Option<Pass> {
    let limits = PassLimits { index_bytes_max, ..LIMITS };
    let backlog = backlog(bed, slot, &COMPACTION);
    Pass::new(slot, &backlog, &COMPACTION, limits, MacKey([3; 16]), bed.wall_ms)
}

/// Runs one turn of a pass. Returns `None` if it has not ended.
fn turn(bed: &mut Bed, pass: &mut Pass) -> Option<Result<(), PassError>> {
    let step = pass.step(&mut bed.store, &mut bed.disk, &mut 2000);
    if let PassStep::Ended(result) = step {
        return Some(result);
    }
    let more = bed.turn() || bed.step() || step == PassStep::More;
    let before = bed.events.len();
    for event in std::mem::take(&mut bed.events) {
        match event {
            StoreEvent::ReadByIndex { id, result } => pass.handle_read(id, result),
            StoreEvent::Rewritten { outcome, .. } => pass.handle_rewritten(outcome),
            other => bed.events.push(other),
        }
    }
    assert!(more || bed.events.len() < before, "a pass waits for nothing: {pass:?}");
    None
}

fn compact(bed: &mut Bed, slot: PartitionSlot) -> PassOutcome {
    let mut pass = start(bed, slot, 1 << 20).expect("something is dirty");
    loop {
        if let Some(result) = turn(bed, &mut pass) {
            assert_eq!(result, Ok(()));
            return pass.outcome();
        }
    }
}

fn append(bed: &mut Bed, slot: PartitionSlot, changes: &[Change<'_>]) {
    bed.append_durably(slot, &batch(Compression::None, BatchProducer::NONE, changes));
}

/// Appends versions of a few keys until this many bytes are in extents that can be rewritten.
fn fill(bed: &mut Bed, slot: PartitionSlot, version: &str, dirty_bytes: u64) {
    let value = format!("{version} {}", "x".repeat(500));
    while backlog(bed, slot, &COMPACTION).dirty_bytes < dirty_bytes {
        append(bed, slot, &[("a", Some(&value)), ("b", Some(&value)), ("c", Some(&value))]);
    }
}

#[test]
fn a_pass_keeps_the_last_value_of_each_key_and_makes_the_log_clean() {
    let mut bed = Bed::new(1);
    let slot = compacted(&mut bed);
    append(&mut bed, slot, &[("only", Some("once"))]);
    fill(&mut bed, slot, "one", 100_000);
    let (before, expected) = (records(&mut bed, slot).len(), table(&mut bed, slot));
    let dirty = backlog(&bed, slot, &COMPACTION);
    assert_eq!((dirty.clean_bytes, dirty.dirty_ppm()), (0, 1_000_000));
    let outcome = compact(&mut bed, slot);
    assert_eq!(outcome.bytes_before, dirty.dirty_bytes);
    assert!(outcome.bytes_after < 3_000, "{outcome:?}");
    let after = records(&mut bed, slot);
    assert_eq!(before - after.len(), outcome.cleaned.superseded as usize);
    assert_eq!(after[0], (0, "only".to_owned(), Some("once".to_owned())));
    assert_eq!(table(&mut bed, slot), expected);
    let clean = backlog(&bed, slot, &COMPACTION);
    assert_eq!((clean.clean_bytes, clean.dirty_bytes), (outcome.bytes_after, 0));
    assert!(start(&bed, slot, 1 << 20).is_none(), "nothing is dirty");
    let mut bed = bed.restart();
    assert_eq!(records(&mut bed, slot), after);
    assert_eq!(backlog(&bed, slot, &COMPACTION), clean, "what is clean is known after a restart");
}

#[test]
fn a_tombstone_is_removed_by_the_first_pass_after_its_retention() {
    let mut bed = Bed::new(2);
    let slot = compacted(&mut bed);
    append(&mut bed, slot, &[("gone", Some("value"))]);
    append(&mut bed, slot, &[("gone", None)]);
    let versions = |bed: &mut Bed| records(bed, slot).into_iter().filter(|r| r.1 == "gone").count();
    for (round, left) in [("one", 1), ("two", 1), ("three", 0)] {
        fill(&mut bed, slot, round, 20_000);
        compact(&mut bed, slot);
        assert_eq!(versions(&mut bed), left, "{round}");
        bed.wall_ms += 600;
    }
}

#[test]
fn a_pass_is_due_by_dirty_ratio_or_by_age_and_young_records_wait() {
    let mut bed = Bed::new(3);
    let slot = compacted(&mut bed);
    fill(&mut bed, slot, "one", 40_000);
    compact(&mut bed, slot);
    fill(&mut bed, slot, "two", 20_000);
    let now = bed.wall_ms;
    let due = |config: CompactionConfig, at: i64| {
        let backlog = Backlog::of(bed.store.rewritable_extents(slot), &config, at);
        (backlog.is_due(&config, at), backlog.dirty_bytes > 0)
    };
    let half = CompactionConfig { dirty_ppm_min: 500_000, ..COMPACTION };
    let never = CompactionConfig { dirty_ppm_min: 1_000_000, ..COMPACTION };
    assert_eq!(due(half, now), (true, true));
    assert_eq!(due(never, now), (false, true));
    let soon = CompactionConfig { lag_ms_max: 100, ..never };
    assert_eq!([due(soon, now + 100).0, due(soon, now + 101).0], [false, true]);
    // The records have the timestamp 5.
    let later = CompactionConfig { lag_ms_min: 1000, ..half };
    assert_eq!([due(later, 1004), due(later, 1005)], [(false, false), (true, true)]);
}

#[test]
fn a_log_with_more_keys_than_the_index_holds_is_compacted_in_several_passes() {
    let mut bed = Bed::new(4);
    let slot = compacted(&mut bed);
    let value = "x".repeat(200);
    for round in 0..3 {
        for n in (0..300).step_by(3) {
            let keys = [n, n + 1, n + 2].map(|n| format!("key {n}"));
            let value = format!("{round} {value}");
            let changes = keys.each_ref().map(|key| (&**key, Some(&*value)));
            append(&mut bed, slot, &changes);
        }
    }
    let expected = table(&mut bed, slot);
    let mut passes = 0;
    while let Some(mut pass) = start(&bed, slot, 150 * 24 * 4 / 3) {
        let before = backlog(&bed, slot, &COMPACTION).dirty_bytes;
        let result = loop {
            if let Some(result) = turn(&mut bed, &mut pass) {
                break result;
            }
        };
        assert_eq!(result, Ok(()));
        assert!(backlog(&bed, slot, &COMPACTION).dirty_bytes < before, "every pass gets ahead");
        assert_eq!(table(&mut bed, slot), expected);
        passes += 1;
    }
    assert!(passes > 3, "{passes}");
    // The last records of the keys are left, and the contents of the active extent.
    assert!(records(&mut bed, slot).len() < 400);
}

#[test]
fn a_pass_ends_when_its_partition_is_deleted_or_when_it_is_aborted() {
    for turns in 0..30 {
        for deleted in [true, false] {
            let mut bed = Bed::new(turns);
            let slot = compacted(&mut bed);
            fill(&mut bed, slot, "one", 30_000);
            let mut pass = start(&bed, slot, 1 << 20).expect("something is dirty");
            for _ in 0..turns {
                turn(&mut bed, &mut pass);
            }
            if deleted {
                bed.store.delete_partition(&mut bed.disk, slot);
            } else {
                pass.abort(&mut bed.store);
            }
            while turn(&mut bed, &mut pass).is_none() {}
            bed.settle();
            if !deleted {
                assert_eq!(table(&mut bed, slot).len(), 3);
                bed.events.clear();
                fill(&mut bed, slot, "two", 20_000);
                compact(&mut bed, slot);
                assert_eq!(table(&mut bed, slot).len(), 3);
            }
        }
    }
}

/// A random life of a partition: appends, passes, restarts and crashes at any moment of a pass.
fn run_random_life(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let config = StoreConfig { limits: journal_in_half_of(seed), ..support::config() };
    let mut bed = Bed::with(seed, config);
    let mut slot = compacted(&mut bed);
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let mut sequences = [0_i32; 3];
    let mut pass: Option<Pass> = None;
    for step in 0..150 {
        bed.wall_ms += rng.random_range(0..100);
        for _ in 0..rng.random_range(0..6) {
            let keys: Vec<_> =
                (0..rng.random_range(1..6)).map(|_| format!("key {}", rng.random_range(0..20))).collect();
            let value = format!("{step} {}", "v".repeat(rng.random_range(0..400)));
            let changes: Vec<_> =
                keys.iter().map(|key| (&**key, rng.random_bool(0.8).then_some(&*value))).collect();
            let codec = Compression::ALL[rng.random_range(0..Compression::ALL.len())];
            let who = rng.random_range(0..3);
            let producer = support::producer(who as i64, 0, sequences[who]);
            sequences[who] += changes.len() as i32;
            bed.append_durably(slot, &batch(codec, producer, &changes));
            for (key, value) in changes {
                match value {
                    Some(value) => drop(expected.insert(key.to_owned(), value.to_owned())),
                    None => drop(expected.remove(key)),
                }
            }
        }
        if pass.is_none() {
            bed.events.clear();
            pass = start(&bed, slot, if rng.random_bool(0.5) { 1 << 20 } else { 500 });
        }
        if let Some(running) = &mut pass {
            for _ in 0..rng.random_range(0..40) {
                if let Some(result) = turn(&mut bed, running) {
                    assert_eq!(result, Ok(()), "seed {seed}");
                    pass = None;
                    break;
                }
            }
        }
        if rng.random_bool(0.1) {
            bed.wall_ms += rng.random_range(0..10_000);
            let wall_ms = bed.wall_ms;
            bed.store.enforce_retention(&mut bed.disk, wall_ms);
        }
        if rng.random_bool(0.05) {
            pass = None;
            let policy = CRASH_POLICIES[rng.random_range(0..CRASH_POLICIES.len())];
            bed = if rng.random_bool(0.8) { bed.crash(policy) } else { bed.restart() };
            slot = compacted(&mut bed);
        }
        if rng.random_bool(0.2) {
            assert_eq!(table(&mut bed, slot), expected, "seed {seed}, step {step}");
        }
    }
    assert_eq!(table(&mut bed, slot), expected, "seed {seed}");
    assert_eq!(bed.store.bounds(slot).log_start, Offset(0));
}

#[test]
fn a_reader_finds_the_last_value_of_each_key_whatever_happens() {
    for seed in 0..40 {
        run_random_life(seed);
    }
}
