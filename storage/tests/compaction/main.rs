//! Compaction passes over logs of batches, against a model of all records ever appended.

mod control;
#[cfg(feature = "mutants")]
mod mutants;
#[cfg(feature = "mutants")]
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, HashMap};

use highwater_protocol::batch::{
    BatchBuilder, BatchHeader, BatchProducer, BatchView, Compression, Header, NewRecord, StreamLimits, stamp,
};
use highwater_protocol::ids::{LeaderEpoch, Offset, ProducerId, Timestamp};
use highwater_storage::MacKey;
use highwater_storage::compaction::{CleanRules, Cleaned, Cleaner, Full, KEY_BYTES, Kept, KeyIndex};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const KEY: MacKey = MacKey([9; 16]);
const DELETE_RETENTION_MS: i64 = 100;

const STREAM: StreamLimits = StreamLimits { decompressed_max: 1 << 20, memory_max: 16 << 20 };

type Key = Option<Vec<u8>>;
type Value = Option<Vec<u8>>;

/// A batch to append.
#[derive(Clone, Debug)]
struct NewBatch {
    codec: Compression,
    producer: i64,
    records: Vec<(Key, Value)>,
}

fn new_batch() -> impl Strategy<Value = NewBatch> {
    let key = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        20 => (0..25_u8).prop_map(|n| Some(vec![b'k', n])),
    ];
    let value =
        option::weighted(0.8, prop_oneof![Just(Vec::new()), "[ab]{0,60}".prop_map(String::into_bytes)]);
    let codec = proptest::sample::select(Compression::ALL);
    (codec, -1..4_i64, vec((key, value), 1..10)).prop_map(|(codec, producer, records)| NewBatch {
        codec,
        producer,
        records,
    })
}

/// What happens to a log.
#[derive(Clone, Debug)]
enum Step {
    Append(NewBatch),
    /// Time passes, and a pass with an index of this many slots follows.
    Compact {
        after_ms: i64,
        slots: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => new_batch().prop_map(Step::Append),
        1 => (0..90_i64, prop_oneof![16..40_usize, Just(1000)]).prop_map(|(after_ms, slots)| Step::Compact { after_ms, slots }),
    ]
}

fn build(batch: &NewBatch, base: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(batch.codec, 0);
    for (n, (key, value)) in (0..).zip(&batch.records) {
        let record = NewRecord::new(Timestamp(base + n * 7), key.as_deref(), value.as_deref());
        let header = [Header { key: b"offset", value: Some(&(base + n).to_be_bytes()) }];
        builder.append(&NewRecord { headers: &header, ..record }).unwrap();
    }
    let producer = match batch.producer {
        -1 => BatchProducer::NONE,
        id => BatchProducer { id: ProducerId(id), epoch: 0, sequence: base as i32 },
    };
    let mut bytes = builder.finish(producer).unwrap().to_vec();
    stamp(&mut bytes, Offset(base), LeaderEpoch(3));
    bytes
}

/// A record of the log, with the number of its batch.
#[derive(Clone, PartialEq, Debug)]
struct Record {
    offset: i64,
    key: Key,
    value: Value,
}

/// Reads the records of a log, and checks of each what the model knows by its offset.
fn read(log: &[Vec<u8>]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut scratch = Vec::new();
    for batch in log {
        let batch = BatchView::parse(batch).unwrap();
        batch.check_checksum().unwrap();
        for record in batch.records(&mut scratch).unwrap() {
            let record = record.unwrap();
            let offset = record.offset.0;
            let headers: Vec<_> = record.headers.collect();
            assert_eq!(headers, [Header { key: b"offset", value: Some(&offset.to_be_bytes()) }]);
            let of_batch = offset - batch.header().base_offset.get();
            assert_eq!(record.timestamp.0, batch.header().base_offset.get() + of_batch * 7);
            records.push(Record {
                offset,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
    }
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
    records
}

/// Returns the final values of a consumer that reads the log from its start.
fn table(records: &[Record]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut table = BTreeMap::new();
    for record in records {
        match (&record.key, &record.value) {
            (None, _) => {}
            (Some(key), Some(value)) => drop(table.insert(key.clone(), value.clone())),
            (Some(key), None) => drop(table.remove(key)),
        }
    }
    table
}

fn header(batch: &[u8]) -> &BatchHeader {
    BatchHeader::parse(batch).unwrap()
}

#[derive(Default)]
struct Log {
    batches: Vec<Vec<u8>>,
    /// Every record ever appended.
    all: Vec<Record>,
    /// Time after which the tombstone at an offset is removed.
    horizons: HashMap<i64, i64>,
    /// Tombstones removed.
    gone: Vec<i64>,
    now: i64,
    clean_end: i64,
    /// Compressed batches are filtered in steps.
    in_steps: bool,
}

impl Log {
    fn append(&mut self, batch: &NewBatch) {
        let base = self.all.len() as i64;
        self.batches.push(build(batch, base));
        for (offset, (key, value)) in (base..).zip(&batch.records) {
            self.all.push(Record { offset, key: key.clone(), value: value.clone() });
        }
    }

    fn rules(&self) -> CleanRules {
        CleanRules {
            now: Timestamp(self.now),
            delete_retention_ms: DELETE_RETENTION_MS,
            batch_bytes_max: 1 << 20,
            decompressed_bytes_max: if self.in_steps { 40 } else { 1 << 20 },
            stream: self.in_steps.then_some(STREAM),
        }
    }

    /// The batches that hold the last sequence of their producer.
    fn last_of_producers(&self) -> Vec<i64> {
        let mut last = HashMap::new();
        for batch in &self.batches {
            if let Some(producer) = header(batch).producer() {
                last.insert(producer.id, header(batch).base_offset.get());
            }
        }
        last.into_values().collect()
    }

    fn compact(&mut self, slots: usize) -> Cleaned {
        let mut cleaner = Cleaner::new(self.rules());
        let mut index = KeyIndex::new(KEY, Offset(self.clean_end), u64::MAX, slots * KEY_BYTES);
        let mut is_full = false;
        for batch in &self.batches {
            if cleaner.note(BatchView::parse(batch).unwrap(), &mut index) == Err(Full) {
                is_full = true;
                break;
            }
        }
        let end = index.end().0;
        assert!(is_full || end == self.all.len() as i64);
        assert!(end > self.clean_end || self.clean_end == self.all.len() as i64, "every pass gets ahead");
        let expected = table(&self.all);
        let last_of_producers = self.last_of_producers();
        let mut done = Vec::new();
        for (at, batch) in self.batches.iter().enumerate() {
            let mut out = Vec::new();
            let keeps_empty = last_of_producers.contains(&header(batch).base_offset.get());
            match cleaner.retain(BatchView::parse(batch).unwrap(), &index, keeps_empty, &mut out) {
                Kept::Unchanged => done.push(batch.clone()),
                Kept::Rewritten => done.push(out),
                Kept::Nothing => assert!(!keeps_empty),
            }
            let log = [&done[..], &self.batches[at + 1..]].concat();
            assert_eq!(table(&read(&log)), expected, "in the middle of a pass, up to batch {at}");
        }
        self.check_headers(&done);
        self.batches = done;
        self.check_records(end, is_full);
        self.clean_end = end;
        *cleaner.cleaned()
    }

    fn check_headers(&self, done: &[Vec<u8>]) {
        for after in done {
            let base = header(after).base_offset;
            let before = self.batches.iter().find(|b| header(b).base_offset == base).expect("was there");
            let of = |batch| {
                let h = header(batch);
                (h.last_offset_delta, h.leader_epoch, h.producer_id, h.producer_epoch, h.base_sequence)
            };
            assert_eq!(of(before), of(after));
            let max = read(std::slice::from_ref(after))
                .iter()
                .map(|r| base.get() + (r.offset - base.get()) * 7)
                .max();
            if let Some(max) = max {
                assert_eq!(header(after).max_timestamp.get(), max);
            }
        }
    }

    /// Checks which records are left after a pass up to `end`. If the index was full, some of the keys after `end` may have been in it.
    fn check_records(&mut self, end: i64, is_full: bool) {
        let mut last = HashMap::new();
        for record in self.all.iter().filter(|record| record.offset < end || is_full) {
            last.insert(&record.key, record.offset);
        }
        let mut last_below = HashMap::new();
        for record in self.all.iter().filter(|record| record.offset < end) {
            last_below.insert(&record.key, record.offset);
        }
        let left: HashMap<_, _> = read(&self.batches).into_iter().map(|r| (r.offset, r)).collect();
        for record in &self.all {
            let offset = record.offset;
            let is_left = left.get(&offset) == Some(record);
            assert_eq!(is_left, left.contains_key(&offset), "offset {offset} is as it was appended");
            if offset >= end {
                assert!(is_left, "offset {offset} is not before the end {end}");
            } else if record.key.is_none() || last_below[&record.key] > offset {
                assert!(!is_left, "offset {offset}");
            } else if record.value.is_some() {
                assert!(is_left || last[&record.key] > offset, "offset {offset}");
            } else if self.gone.contains(&offset)
                || self.horizons.get(&offset).is_some_and(|at| *at <= self.now)
            {
                assert!(!is_left, "tombstone at {offset}");
                self.gone.push(offset);
            } else {
                assert!(is_left || last[&record.key] > offset, "tombstone at {offset}");
                self.horizons.entry(offset).or_insert(self.now + DELETE_RETENTION_MS);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_has_the_last_record_of_every_key_at_any_moment(
        steps in vec(step(), 1..50), in_steps: bool,
    ) {
        let mut log = Log { in_steps, ..Log::default() };
        for step in &steps {
            match step {
                Step::Append(batch) => log.append(batch),
                Step::Compact { after_ms, slots } => {
                    log.now += after_ms;
                    let before = read(&log.batches).len() as u64;
                    let cleaned = log.compact(*slots);
                    let after = read(&log.batches).len() as u64;
                    prop_assert_eq!(before - after, cleaned.removed());
                    prop_assert_eq!(cleaned.first_unreadable, None);
                }
            }
        }
    }
}

fn records(records: &[(&str, Option<&str>)]) -> NewBatch {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let records = records.iter().map(|(key, value)| (Some(bytes(key)), value.map(bytes))).collect();
    NewBatch { codec: Compression::None, producer: -1, records }
}

fn log_of(batches: &[NewBatch]) -> Log {
    let mut log = Log::default();
    for batch in batches {
        log.append(batch);
    }
    log
}

fn offsets(log: &Log) -> Vec<i64> {
    read(&log.batches).iter().map(|r| r.offset).collect()
}

#[test]
fn a_tombstone_is_kept_until_its_horizon_and_removed_by_the_first_pass_after_it() {
    let mut log =
        log_of(&[records(&[("a", Some("1")), ("b", Some("2"))]), records(&[("a", None), ("c", Some("3"))])]);
    log.now = 1000;
    log.compact(100);
    assert_eq!(offsets(&log), [1, 2, 3]);
    let stamped = header(&log.batches[1]);
    assert!(stamped.has_delete_horizon());
    assert_eq!(stamped.base_timestamp.get(), 1000 + DELETE_RETENTION_MS);
    assert!(!header(&log.batches[0]).has_delete_horizon(), "it has no tombstone");
    let before = log.batches.clone();
    log.now += DELETE_RETENTION_MS - 1;
    log.compact(100);
    assert_eq!(log.batches, before, "the horizon is set once");
    log.now += 1;
    log.compact(100);
    assert_eq!(offsets(&log), [1, 3]);
}

#[test]
fn an_infinite_retention_of_tombstones_does_not_overflow() {
    let mut log = log_of(&[records(&[("a", None)])]);
    log.now = 1000;
    let mut cleaner = Cleaner::new(CleanRules { delete_retention_ms: i64::MAX, ..log.rules() });
    let mut index = KeyIndex::new(KEY, Offset(0), 10, 1 << 20);
    let batch = BatchView::parse(&log.batches[0]).unwrap();
    cleaner.note(batch, &mut index).unwrap();
    let mut out = Vec::new();
    assert_eq!(cleaner.retain(batch, &index, false, &mut out), Kept::Rewritten);
    assert_eq!(header(&out).base_timestamp.get(), i64::MAX);
    assert_eq!(read(&[out]).len(), 1);
}

#[test]
fn the_last_batch_of_a_producer_is_kept_without_records() {
    let of = |producer, batch: NewBatch| NewBatch { producer, ..batch };
    let mut log = log_of(&[
        of(1, records(&[("a", Some("1")), ("a", Some("2"))])),
        of(2, records(&[("a", Some("3"))])),
        of(2, records(&[("a", Some("4"))])),
    ]);
    log.compact(100);
    assert_eq!(offsets(&log), [3]);
    assert_eq!(log.batches.len(), 2);
    let empty = header(&log.batches[0]);
    assert_eq!((empty.count(), empty.last_sequence(), empty.last_offset()), (0, Some(1), Offset(1)));
    log.append(&of(1, records(&[("b", Some("5"))])));
    log.compact(100);
    assert_eq!(log.batches.len(), 2, "the producer has a later batch");
}

/// Flips a bit of a record.
fn damage(batch: &mut [u8]) {
    *batch.last_mut().unwrap() ^= 1;
}

#[test]
fn a_damaged_batch_is_not_rewritten_and_the_pass_keeps_its_tombstones() {
    let mut log = log_of(&[
        records(&[("a", Some("1")), ("b", Some("1"))]),
        records(&[("b", Some("2"))]),
        records(&[("b", Some("3")), ("a", None)]),
    ]);
    log.compact(100);
    assert_eq!(offsets(&log), [2 + 1, 4]);
    log.now += DELETE_RETENTION_MS;
    let mut old = build(&records(&[("a", Some("1")), ("b", Some("1"))]), 0);
    damage(&mut old);
    log.batches.insert(0, old.clone());
    let mut cleaner = Cleaner::new(log.rules());
    let index = KeyIndex::new(KEY, Offset(5), 0, 0);
    for batch in &log.batches {
        let kept = cleaner.retain(BatchView::parse(batch).unwrap(), &index, false, &mut Vec::new());
        assert_eq!(kept, Kept::Unchanged);
    }
    let cleaned = cleaner.cleaned();
    assert_eq!((cleaned.unreadable, cleaned.removed()), (1, 0));
    assert_eq!(cleaned.first_unreadable.map(|(at, _)| at), Some(Offset(0)));
}

/// Passes that the clean section has behind it: its keys are not noted again.
fn clean(log: &[Vec<u8>], rules: CleanRules, noted_from: i64, end: i64) -> Vec<Vec<u8>> {
    let mut cleaner = Cleaner::new(rules);
    let mut index = KeyIndex::new(KEY, Offset(noted_from), 1000, usize::MAX);
    let views = || log.iter().map(|batch| BatchView::parse(batch).unwrap());
    views().for_each(|batch| cleaner.note(batch, &mut index).unwrap());
    assert_eq!(index.end(), Offset(end));
    let mut done = Vec::new();
    for batch in views() {
        let mut out = Vec::new();
        match cleaner.retain(batch, &index, false, &mut out) {
            Kept::Unchanged => done.push(batch.bytes().to_vec()),
            Kept::Rewritten => done.push(out),
            Kept::Nothing => {}
        }
    }
    done
}

#[test]
fn a_batch_that_would_grow_is_not_rewritten_and_tombstones_of_its_keys_are_kept_for_ever() {
    // Records that the producer compressed well need more space when the broker compresses them fast.
    let words = ["event", "stream", "broker", "partition", "offset", "record"];
    let text = |n: usize| (0..40).map(|i| words[(n * 7 + i * i + n * i) % words.len()]).collect::<String>();
    let names: Vec<_> = (0..300).map(|n| (format!("k{n}"), text(n))).collect();
    let mut large = records(&names.iter().map(|(k, v)| (&**k, Some(&**v))).collect::<Vec<_>>());
    large.codec = Compression::Gzip;
    let mut log = log_of(&[large, records(&[("k7", None)]), records(&[("other", Some("1"))])]);
    let rules = CleanRules { batch_bytes_max: 1000, ..log.rules() };
    let first = clean(&log.batches, rules, 0, 302);
    assert_eq!(first[0], log.batches[0], "otherwise this test shows nothing");
    log.now += 2 * DELETE_RETENTION_MS;
    // The next pass does not index the keys of the first one.
    let rules = CleanRules { now: Timestamp(log.now), ..rules };
    let second = clean(&first, rules, 302, 302);
    assert_eq!(table(&read(&second)), table(&log.all), "the deleted record is not back");
}

#[test]
fn the_keys_of_a_damaged_batch_are_not_indexed() {
    let mut log = log_of(&[records(&[("a", Some("1"))]), records(&[("a", Some("2")), ("b", Some("1"))])]);
    damage(&mut log.batches[1]);
    let mut cleaner = Cleaner::new(log.rules());
    let mut index = KeyIndex::new(KEY, Offset(0), 10, 1 << 20);
    for batch in &log.batches {
        cleaner.note(BatchView::parse(batch).unwrap(), &mut index).unwrap();
    }
    assert_eq!((index.end(), index.last(b"a"), index.last(b"b")), (Offset(3), Some(Offset(0)), None));
    for batch in &log.batches {
        let kept = cleaner.retain(BatchView::parse(batch).unwrap(), &index, false, &mut Vec::new());
        assert_eq!(kept, Kept::Unchanged);
    }
}

#[test]
fn a_batch_with_more_keys_than_the_index_holds_is_compacted_by_the_keys_that_fit() {
    let keys: Vec<_> = (0..50).map(|n| format!("key {n}")).collect();
    let all = |value| records(&keys.iter().map(|key| (&**key, value)).collect::<Vec<_>>());
    let mut log = log_of(&[all(Some("1")), all(Some("2")), all(None)]);
    let expected = table(&log.all);
    for pass in 1..=3 {
        let mut cleaner = Cleaner::new(log.rules());
        let mut index = KeyIndex::new(KEY, Offset(log.clean_end), u64::MAX, 16 * KEY_BYTES);
        for batch in &log.batches {
            if cleaner.note(BatchView::parse(batch).unwrap(), &mut index).is_err() {
                break;
            }
        }
        assert_eq!(index.end(), Offset(pass * 50));
        let mut done = Vec::new();
        for batch in &log.batches {
            let mut out = Vec::new();
            match cleaner.retain(BatchView::parse(batch).unwrap(), &index, false, &mut out) {
                Kept::Unchanged => done.push(batch.clone()),
                Kept::Rewritten => done.push(out),
                Kept::Nothing => {}
            }
        }
        assert_eq!(table(&read(&done)), expected);
        assert!(!header(done.last().unwrap()).has_delete_horizon(), "some of its records may delete others");
        (log.batches, log.clean_end) = (done, pass * 50);
    }
    assert_eq!(log.batches.len(), 3);
    assert_eq!(read(&log.batches).len(), 150 - 2 * 12);
}
