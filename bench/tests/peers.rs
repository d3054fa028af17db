//! Tests of the backends for other brokers. Each test needs a running broker, and is skipped without one:
//!
//! ```text
//! HIGHWATER_BENCH_KAFKA=127.0.0.1:9092 cargo test -p highwater-bench --features kafka --test peers -- --nocapture
//! ```
//!
//! and `nats` and `redis` likewise.
#![cfg(any(feature = "kafka", feature = "nats", feature = "redis"))]

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use highwater_bench::backend::{Ack, Backend, Consumer, From, Outgoing, Producer};
use highwater_bench::scenario::Scenario;

const PARTITIONS: u32 = 3;

/// Timeout of a test.
const TIMEOUT: Duration = Duration::from_mins(1);

fn scenario() -> Scenario {
    toml::from_str(&format!(
        r#"
        name = "peers"
        about = "Records of a test."
        topic = {{ partitions = {PARTITIONS} }}
        record = {{ bytes = 100 }}
        producers = {{ count = 1, batch_bytes = 16384, linger_us = 1000 }}
        load = {{ outstanding = 100, duration_s = 1.0 }}
        "#
    ))
    .expect("a scenario")
}

/// Returns the address in an environment variable, or prints that the test is skipped.
fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok();
    if address.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    address
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("{number:0>100}"))
}

/// Sends the records with these numbers, as fast as the producer accepts them. Returns the offset of each.
async fn send(producer: &mut dyn Producer, numbers: std::ops::Range<u64>) -> BTreeMap<u64, i64> {
    let mut offsets = BTreeMap::new();
    let mut acks: Vec<Ack> = Vec::new();
    let mut next = numbers.start;
    let outstanding = u64::from(scenario().load.outstanding);
    while (offsets.len() as u64) < numbers.end - numbers.start {
        while next < numbers.end && next - numbers.start - (offsets.len() as u64) < outstanding {
            let record = Outgoing {
                tag: next,
                partition: (next % u64::from(PARTITIONS)) as u32,
                key: None,
                value: value(next),
            };
            if producer.send(record).is_err() {
                break;
            }
            next += 1;
        }
        producer.flush();
        poll_fn(|cx| producer.poll_acks(cx, &mut acks)).await;
        for ack in acks.drain(..) {
            let offset = ack.result.expect("an acknowledgement");
            assert!(offsets.insert(ack.tag, offset).is_none(), "{} was acknowledged twice", ack.tag);
        }
    }
    offsets
}

/// Reads until all records with these numbers are received. Returns their numbers, partitions and offsets in the order received.
async fn read(consumer: &mut dyn Consumer, numbers: std::ops::Range<u64>) -> Vec<(u64, u32, i64)> {
    let mut seen = Vec::new();
    let mut missing: BTreeSet<u64> = numbers.collect();
    while !missing.is_empty() {
        poll_fn(|cx| {
            consumer.poll_records(cx, &mut |record| {
                let text = std::str::from_utf8(record.value).expect("what was sent");
                let number = text.parse().expect("a number");
                assert!(missing.remove(&number), "{number} is unexpected or duplicated");
                seen.push((number, record.partition, record.offset));
            })
        })
        .await
        .expect("records");
    }
    seen
}

/// Test that every backend must pass.
async fn check_round_trip(backend: &dyn Backend) {
    let topic = format!("peers-{}-{}", backend.name(), std::process::id());
    let scenario = scenario();
    backend.create_topic(&topic, &scenario).await.expect("a topic");

    let mut producer = backend.producer(&topic, &scenario).await.expect("a producer");
    let mut offsets = send(producer.as_mut(), 0..1000).await;
    let mut tail = backend.consumer(&topic, From::Latest, &scenario).await.expect("a consumer");
    offsets.append(&mut send(producer.as_mut(), 1000..2000).await);
    let mut all = backend.consumer(&topic, From::Earliest, &scenario).await.expect("a consumer");

    for (seen, first) in
        [(read(tail.as_mut(), 1000..2000).await, 1000), (read(all.as_mut(), 0..2000).await, 0)]
    {
        assert_eq!(seen.len() as u64, 2000 - first);
        let mut last: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
        for (number, partition, offset) in seen {
            assert_eq!(u64::from(partition), number % u64::from(PARTITIONS));
            assert_eq!(offset, offsets[&number], "the offset that was acknowledged");
            let before = last.insert(partition, (number, offset));
            assert!(before.is_none_or(|before| before < (number, offset)), "{number} after {before:?}");
        }
    }

    drop((producer, tail, all));
    backend.delete_topic(&topic).await.expect("a deletion");
}

fn run(backend: &dyn Backend) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, check_round_trip(backend)).await.expect("no timeout");
    });
}

#[cfg(feature = "kafka")]
#[test]
fn records_sent_to_kafka_are_read_once_and_in_order() {
    if let Some(server) = address("HIGHWATER_BENCH_KAFKA") {
        run(&highwater_bench::backend::kafka::Kafka::new(&server, None, &[]));
    }
}

#[cfg(feature = "nats")]
#[test]
fn records_sent_to_nats_are_read_once_and_in_order() {
    if let Some(server) = address("HIGHWATER_BENCH_NATS") {
        run(&highwater_bench::backend::nats::Nats::new(&server, None));
    }
}

#[cfg(feature = "redis")]
#[test]
fn records_sent_to_redis_are_read_once_and_in_order() {
    if let Some(server) = address("HIGHWATER_BENCH_REDIS") {
        run(&highwater_bench::backend::redis::Redis::new(&server, None));
    }
}
