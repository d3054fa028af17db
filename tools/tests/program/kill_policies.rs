//! Kills the broker repeatedly while 200 partitions of three topics are written: one keeps everything, one is compacted, one deletes its oldest
//! records.
//!
//! 5 cycles by default; `HIGHWATER_KILL_CYCLES=1000` for the long form.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use highwater_client::{Client, Producer, Record, Start};

use crate::checker::Position;
use crate::kill::{DELIVERY_TIMEOUT, Load, OrderedProducer, PendingDelivery, RestartedBroker, block_on};
use crate::support::from_environment;

/// Long enough for the slowest machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Keys of each compacted partition.
const KEYS: u64 = 20;

/// What each partition of [`Policy::Delete`] keeps at least, in bytes of batches.
const RETENTION_BYTES: u64 = 32 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    Keep,
    Compact,
    Delete,
}

impl Policy {
    const ALL: [Self; 3] = [Self::Keep, Self::Compact, Self::Delete];

    /// Returns the policy of the topic that gets this record.
    fn of(number: u64) -> Self {
        match number % 4 {
            0 | 1 => Self::Keep,
            2 => Self::Compact,
            _ => Self::Delete,
        }
    }

    fn topic(self) -> &'static str {
        match self {
            Self::Keep => "kept",
            Self::Compact => "compacted",
            Self::Delete => "deleted",
        }
    }

    fn partitions(self) -> u32 {
        match self {
            Self::Keep => 100,
            Self::Compact | Self::Delete => 50,
        }
    }

    fn configs(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Keep => vec![("retention.ms", "-1".to_owned())],
            Self::Compact => vec![
                ("cleanup.policy", "compact".to_owned()),
                ("min.cleanable.dirty.ratio", "0.01".to_owned()),
            ],
            Self::Delete => vec![("retention.bytes", RETENTION_BYTES.to_string())],
        }
    }
}

/// Returns the partition of a record in its topic.
fn partition_of(number: u64) -> u32 {
    let partitions = u64::from(Policy::of(number).partitions());
    (number / 4 * 2 + number % 2) as u32 % partitions as u32
}

/// Returns the key and value of a record. The value starts with its number.
fn record(number: u64) -> (Vec<u8>, Vec<u8>) {
    let filler = match Policy::of(number) {
        Policy::Keep if number.is_multiple_of(100) => 100_000,
        Policy::Keep => number % 97,
        Policy::Compact => number % 499,
        Policy::Delete => 1_000,
    };
    let mut value = format!("{number} ").into_bytes();
    value.resize(value.len() + filler as usize, b'a' + (number % 26) as u8);
    (format!("key-{}", number / 200 % KEYS).into_bytes(), value)
}

/// Returns the number of a record that was read, after checking its key and value.
fn number_of(key: Option<&[u8]>, value: &[u8]) -> u64 {
    let digits = value.split(|b| *b == b' ').next().unwrap_or_default();
    let number =
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).expect("a leading number");
    let (expected_key, expected_value) = record(number);
    assert!(key == Some(&expected_key) && value == expected_value, "the bytes of record {number} changed");
    number
}

struct ManyPartitions(Producer);

impl OrderedProducer for ManyPartitions {
    async fn send(&self, number: u64) -> PendingDelivery {
        let (key, value) = record(number);
        let record =
            Record::new(value).key(key).topic(Policy::of(number).topic()).partition(partition_of(number));
        let delivery = self.0.send(record).await.expect("a record within the size limit");
        Box::pin(async move {
            let receipt = delivery.await.unwrap_or_else(|e| panic!("record {number} failed: {e}"));
            let offset = receipt.offset().expect("acknowledgements are enabled").get();
            Position { partition: receipt.partition(), offset }
        })
    }
}

/// Numbers of records by position.
type Log = BTreeMap<Position, u64>;

/// Returns the acknowledged records of a topic. Panics unless each partition has one record at every offset from 0: nothing was appended twice.
fn acknowledged(policy: Policy, all: &[(u64, Position)]) -> Log {
    let of_topic = all.iter().filter(|(number, _)| Policy::of(*number) == policy);
    let log: Log = of_topic.clone().map(|(number, at)| (*at, *number)).collect();
    assert_eq!(log.len(), of_topic.count(), "{policy:?}: two records were acknowledged at one offset");
    let mut next: BTreeMap<u32, i64> = BTreeMap::new();
    for at in log.keys() {
        let expected = next.entry(at.partition).or_default();
        assert_eq!(at.offset, *expected, "{policy:?}: an offset of partition {} is missing", at.partition);
        *expected += 1;
    }
    log
}

/// Reads all of a topic. Panics if a partition is not read in the order of its offsets.
async fn read(client: &Client, policy: Policy) -> Log {
    let mut consumer =
        client.consumer(policy.topic()).start(Start::Earliest).until_end().await.expect("a topic to read");
    let mut log = Log::new();
    let mut next: BTreeMap<u32, i64> = BTreeMap::new();
    while let Some(batch) = consumer.next_batch().await.expect("all records are readable") {
        for record in &batch {
            let at = Position { partition: record.partition(), offset: record.offset().get() };
            let number = number_of(record.key(), record.value());
            let expected = next.insert(at.partition, at.offset + 1).unwrap_or_default();
            assert!(at.offset >= expected, "{policy:?}: {at:?} was read after offset {}", expected - 1);
            log.insert(at, number);
        }
    }
    log
}

/// Panics unless what was read has the last record of each key, and nothing that was not acknowledged there.
fn check_compacted(acknowledged: &Log, read: &Log) {
    for (at, number) in read {
        assert_eq!(acknowledged.get(at), Some(number), "the record at {at:?}");
    }
    let mut latest: BTreeMap<(u32, Vec<u8>), Position> = BTreeMap::new();
    for (at, number) in acknowledged {
        latest.insert((at.partition, record(*number).0), *at);
    }
    for ((_, key), at) in latest {
        let key = String::from_utf8_lossy(&key).into_owned();
        assert!(read.contains_key(&at), "the last record of {key}, acknowledged at {at:?}, is lost");
    }
}

/// Panics unless what was read is the end of each log, of at least the size that retention keeps.
fn check_deleted(acknowledged: &Log, read: &Log) {
    for partition in 0..Policy::Delete.partitions() {
        let all = Position { partition, offset: 0 }..Position { partition: partition + 1, offset: 0 };
        let kept: Vec<_> = read.range(all.clone()).collect();
        let expected: Vec<_> = acknowledged.range(all).collect();
        assert!(expected.ends_with(&kept), "partition {partition}: the end of the log changed");
        let bytes: usize = kept.iter().map(|(_, number)| record(**number).1.len()).sum();
        // Values are most of a batch.
        let is_enough = kept.len() == expected.len() || bytes as u64 >= RETENTION_BYTES * 3 / 4;
        assert!(is_enough, "partition {partition} kept {bytes} bytes of values, in {} records", kept.len());
    }
}

/// Waits until a policy has removed records, and returns what is left.
async fn read_once_fewer_than(client: &Client, policy: Policy, all: &Log) -> Log {
    let begun = Instant::now();
    loop {
        let read = read(client, policy).await;
        if read.len() < all.len() {
            return read;
        }
        assert!(begun.elapsed() < PATIENCE, "{policy:?}: all {} records are still there", all.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn kills_during_compaction_and_retention_of_200_partitions_lose_no_record_that_must_be_kept() {
    let cycles = from_environment("HIGHWATER_KILL_CYCLES", 5);
    block_on(async {
        let restarted = RestartedBroker::with_flags(&["--cleanup-interval-ms", "20"]);
        let client = Client::connect(&restarted.broker.address()).await.expect("the broker is ready");
        for policy in Policy::ALL {
            let topic = client.create_topic(policy.topic()).partitions(policy.partitions());
            let configs = policy.configs().into_iter();
            configs.fold(topic, |topic, (name, value)| topic.config(name, value)).await.expect("a new topic");
        }
        let producer =
            client.multi_topic_producer().delivery_timeout(DELIVERY_TIMEOUT).buffer_bytes(4 << 20).await;
        let mut load = Load::start(ManyPartitions(producer.expect("a producer")));
        let records = |cycle| 500 + cycle * 397 % 7_000;
        let restarted = restarted.kill_repeatedly(cycles, records, &mut load).await;
        let all = load.finish().await.into_acknowledged();
        let [kept, compacted, deleted] = Policy::ALL.map(|policy| acknowledged(policy, &all));
        assert_eq!(read(&client, Policy::Keep).await, kept);
        check_compacted(&compacted, &read_once_fewer_than(&client, Policy::Compact, &compacted).await);
        check_deleted(&deleted, &read_once_fewer_than(&client, Policy::Delete, &deleted).await);
        restarted.stop(all.len());
    });
}
