//! Compacted topics, with crashes at any moment of a pass: a consumer that reads from the start finds the last value of every key.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_engine::limits::{CLEANUP_INTERVAL_DEFAULT, ShardLimits};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::Frames;
use highwater_protocol::ids::{Offset, ProducerId, Timestamp, TopicPartition};
use highwater_protocol::native::{
    Body, DataPrefix, DescribeTopicReply, DescribeTopicRequest, FetchRequest, Start,
};
use highwater_runtime::plane::Instant;
use highwater_runtime::sim::{CrashPolicy, SimNode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::node::{SESSION_MS, World, world_with};
use crate::run::create_named;
use crate::wire::Wire;

const KEYS: u32 = 12;

const POLICIES: [CrashPolicy; 4] =
    [CrashPolicy::LOSE_ALL, CrashPolicy::KEEP_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED];

/// Values by key.
type Table = BTreeMap<String, String>;

struct Run {
    world: World,
    node: SimNode,
    rng: SmallRng,
    partitions: Vec<(TopicPartition, u16)>,
    expected: Vec<Table>,
    sequences: Vec<i32>,
    started: Instant,
    produced: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (mut world, node) = world_with(seed, &ShardLimits::tiny(), SESSION_MS);
        world.start(node).expect("a first start");
        let started = world.now();
        let address = world.address(node, 0);
        let configs = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "6000"),
            ("segment.ms", "30000"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", "20000"),
        ];
        let (_, partitions) = create_named(&mut world, address, "table", 2, &configs);
        Self {
            world,
            node,
            rng: SmallRng::seed_from_u64(seed),
            expected: vec![Table::new(); partitions.len()],
            sequences: vec![0; partitions.len()],
            partitions,
            started,
            produced: 0,
        }
    }

    fn connect(&mut self, shard: u16) -> Wire {
        let address = self.world.address(self.node, 0);
        Wire::connect(&mut self.world, address, Some(shard))
    }

    /// Produces some batches to a partition, each acknowledged.
    fn produce(&mut self, at: usize) {
        let (to, shard) = self.partitions[at];
        let mut wire = self.connect(shard);
        for _ in 0..self.rng.random_range(1..15) {
            let codec = Compression::ALL[self.rng.random_range(0..Compression::ALL.len())];
            let mut builder = BatchBuilder::new(codec, 0);
            let mut changes = Vec::new();
            for _ in 0..self.rng.random_range(1..5) {
                self.produced += 1;
                let key = format!("key {}", self.rng.random_range(0..KEYS));
                let value = format!("{} {}", self.produced, "v".repeat(self.rng.random_range(0..500)));
                changes.push((key, self.rng.random_bool(0.8).then_some(value)));
            }
            for (key, value) in &changes {
                let value = value.as_ref().map(String::as_bytes);
                let record = NewRecord::new(Timestamp(1_700_000_000_000), Some(key.as_bytes()), value);
                builder.append(&record).expect("it fits");
            }
            let sequence = self.sequences[at];
            let id = ProducerId(7000 + at as i64);
            let batch = builder.finish(BatchProducer { id, epoch: 0, sequence }).expect("it has records");
            // Retried while the broker has no space; the sequence number prevents duplicates.
            loop {
                wire.send_batch(to, &batch);
                match wire.wait(&mut self.world).expect("an answer").body {
                    Ok(_) => break,
                    Err((code, text)) => assert!(code.is_retryable(), "{code}: {text}"),
                }
            }
            self.sequences[at] += changes.len() as i32;
            for (key, value) in changes {
                match value {
                    Some(value) => drop(self.expected[at].insert(key, value)),
                    None => drop(self.expected[at].remove(&key)),
                }
            }
        }
    }

    /// Reads a partition from its start. Returns the number of records, and the last values.
    fn read(&mut self, at: usize) -> (usize, Table) {
        let (TopicPartition { topic, partition }, shard) = self.partitions[at];
        let mut wire = self.connect(shard);
        let (mut next, mut count, mut table) = (0, 0, Table::new());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        loop {
            let start = Start::Offset(Offset(next));
            let max_bytes = self.rng.random_range(1..20_000);
            wire.send(&FetchRequest { topic, partition, start, max_bytes, min_bytes: 0, wait_ms: 0 });
            let body = match wire.wait(&mut self.world).expect("an answer").body {
                Ok(body) => body,
                Err((code, text)) => {
                    assert!(matches!(code, ErrorCode::Unavailable | ErrorCode::Overloaded), "{code}: {text}");
                    continue;
                }
            };
            let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
            let mut scratch = Vec::new();
            for frame in Frames::new(frames) {
                let frame = frame.expect("a frame");
                frame.check().expect("it is not damaged");
                let Some(batch) = frame.batch() else { continue };
                for record in batch.records(&mut scratch).expect("it decompresses") {
                    let record = record.expect("a record");
                    if record.offset.0 < next {
                        continue;
                    }
                    count += 1;
                    let key = text(record.key.expect("a key"));
                    match record.value {
                        Some(value) => drop(table.insert(key, text(value))),
                        None => drop(table.remove(&key)),
                    }
                }
            }
            let end = prefix.high_watermark.get();
            if prefix.next_offset.get() >= end {
                return (count, table);
            }
            assert!(prefix.next_offset.get() > next, "a fetch leads forward: {prefix:?}");
            next = prefix.next_offset.get();
        }
    }

    fn check(&mut self) -> usize {
        let mut all = 0;
        for at in 0..self.partitions.len() {
            let (count, table) = self.read(at);
            assert_eq!(table, self.expected[at], "partition {at}");
            all += count;
        }
        all
    }

    /// Lets time pass into the next compaction pass, and a little further.
    fn run_into_pass(&mut self) {
        let past = Duration::from_micros(self.rng.random_range(0..20_000));
        let mut until = self.started.after(CLEANUP_INTERVAL_DEFAULT);
        while until <= self.world.now() {
            until = until.after(CLEANUP_INTERVAL_DEFAULT);
        }
        let until = until.after(past);
        while self.world.now() < until {
            self.world.run_for(Duration::from_micros(500));
        }
    }

    /// After a while without records nothing is left but the last values.
    fn check_at_rest(&mut self) {
        self.world.run_for(Duration::from_secs(30 + 20) + CLEANUP_INTERVAL_DEFAULT * 6);
        for at in 0..self.partitions.len() {
            let (count, table) = self.read(at);
            assert_eq!(table, self.expected[at], "partition {at}");
            assert_eq!(count, table.len(), "partition {at}: records that should be compacted");
        }
        let mut wire = self.connect(0);
        wire.send(&DescribeTopicRequest { name: "table".into() });
        let body = wire.wait(&mut self.world).expect("an answer").body.expect("the topic is there");
        for partition in DescribeTopicReply::decode(&body).expect("a description").partitions {
            let log = partition.log.expect("it is led here");
            let compaction = log.compaction.expect("it is compacted");
            assert_eq!((compaction.dirty_bytes, compaction.clean_bytes), (0, log.bytes));
            assert_eq!(compaction.compacted_to, log.high_watermark);
            assert!(compaction.bytes_before >= compaction.bytes_after && compaction.passes > 0);
            assert!(compaction.last_pass.is_some());
        }
    }

    fn crash(&mut self) {
        let policy = POLICIES[self.rng.random_range(0..POLICIES.len())];
        self.world.crash(self.node, policy);
        self.world.start(self.node).expect("it starts again");
        self.started = self.world.now();
    }
}

#[test]
fn a_consumer_of_a_compacted_topic_finds_the_last_value_of_every_key_at_any_moment() {
    let (mut produced, mut left, mut crashes) = (0, 0, 0);
    for seed in 0..25 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..12 {
            for at in 0..run.partitions.len() {
                run.produce(at);
            }
            run.run_into_pass();
            if run.rng.random_bool(0.4) {
                run.crash();
                crashes += 1;
            }
            run.check();
        }
        run.check_at_rest();
        produced += run.produced;
        left += run.expected.iter().map(Table::len).sum::<usize>();
        for shard in 0..crate::node::SHARDS {
            run.world.app(run.node, shard).expect("it runs").assert_memory_adds_up();
        }
    }
    println!("{left} of {produced} records left, {crashes} crashes");
    assert!(crashes > 50 && left < produced / 4, "{left} of {produced} records left, {crashes} crashes");
}
