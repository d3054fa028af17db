//! Fetch.

use std::fs;
use std::path::Path;

use highwater_engine::HostKind;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{FetchRequest, FetchResponse};
use highwater_protocol::batch::BatchProducer;

use crate::client::{Fetch, RealBroker};
use crate::common::simulated::SimBroker;
use crate::common::{batch, start, stop};

const NONE: BatchProducer = BatchProducer::NONE;

#[test]
fn a_fetch_waits_until_any_shard_has_records() {
    let broker = SimBroker::start();
    broker.native().created("t", 4, &[]);
    let mut writer = broker.kafka();
    let mut reader = broker.kafka();
    let mut ends = [0; 4];
    for round in 0..12 {
        let from: Vec<(i32, i64)> = (0..4).map(|p| (p, ends[p as usize])).collect();
        // Longer than the test may take: only records can end the wait.
        let fetch = Fetch { max_wait_ms: 600_000, ..Fetch::of("t", &from) };
        reader.send(ApiKey::Fetch, 12, &fetch.request());
        let to = round % 4;
        writer.produce("t", &[(to, &batch(&["v"], NONE))]);
        let got = reader.read(ApiKey::Fetch, 12).expect("an answer").fetched();
        for got in got {
            let here = if got.partition == to { vec![(ends[to as usize], "v".to_owned())] } else { vec![] };
            assert_eq!((got.error, got.records), (KafkaError::NONE, here));
        }
        ends[to as usize] += 1;
    }
}

#[test]
fn a_fetch_waits_for_its_minimum_bytes_over_all_shards() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let bytes = batch(&["v"], NONE);
    let mut writer = broker.kafka();
    let mut reader = broker.kafka();
    let from = [(0, 0), (1, 0)];
    let min_bytes = 2 * bytes.len() as i32;
    let fetch = Fetch { max_wait_ms: 600_000, min_bytes, ..Fetch::of("t", &from) };
    reader.send(ApiKey::Fetch, 12, &fetch.request());
    for to in 0..2 {
        writer.produce("t", &[(to, &bytes)]);
    }
    let got = reader.read(ApiKey::Fetch, 12).expect("an answer").fetched();
    assert_eq!(got.iter().map(|got| got.records.len()).collect::<Vec<_>>(), [1, 1]);
    // A fetch does not wait longer than its maximum wait.
    let fetch = Fetch { max_wait_ms: 1, min_bytes: i32::MAX, ..Fetch::of("t", &from) };
    assert_eq!(reader.fetch(12, &fetch)[0].records.len(), 1);
}

#[test]
fn a_fetch_does_not_return_fewer_bytes_than_its_minimum_before_its_wait_is_over() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let bytes = batch(&["v"], NONE);
    let mut writer = broker.kafka();
    let mut reader = broker.kafka();
    let min_bytes = 20 * bytes.len() as i32;
    let fetch = Fetch { max_wait_ms: 600_000, min_bytes, ..Fetch::of("t", &[(0, 0)]) };
    reader.send(ApiKey::Fetch, 12, &fetch.request());
    for _ in 0..20 {
        writer.produce("t", &[(0, &bytes)]);
    }
    let got = reader.read(ApiKey::Fetch, 12).expect("an answer").fetched();
    assert_eq!(got[0].records.len(), 20);
}

/// These fetches are answered only because they leave records unread: otherwise they would wait for longer than the test may take.
#[test]
fn a_fetch_that_leaves_records_unread_does_not_wait_for_more_on_any_shard() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let value = "x".repeat(1000);
    let bytes = batch(&[&value], NONE);
    for full in 0..2 {
        for _ in 0..20 {
            kafka.produce("t", &[(full, &bytes)]);
        }
        // Batches are whole, so the response has a little less than this.
        let most = 10 * bytes.len() as i32 - 1;
        let all = Fetch { max_wait_ms: 600_000, min_bytes: most, ..Fetch::of("t", &[(0, 0), (1, 0)]) };
        let other = 1 - full;
        let from = [(full, 0), (other, if full == 0 { 0 } else { 20 })];
        for fetch in [
            Fetch { from: &from, partition_max_bytes: most, ..all.clone() },
            Fetch { from: &from, max_bytes: most, ..all.clone() },
            Fetch { from: &from[..1], partition_max_bytes: most, ..all.clone() },
            Fetch { from: &from, partition_max_bytes: 1, min_bytes: 1 << 20, ..all },
        ] {
            let got = kafka.fetch(12, &fetch);
            assert!((1..most as usize).contains(&got[0].bytes), "{got:?}");
            assert!(got[1..].iter().all(|got| got.error == KafkaError::NONE && got.records.is_empty()));
        }
    }
}

#[test]
fn a_fetch_does_not_wait_for_more_bytes_than_a_response_may_have() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    kafka.produce("t", &[(0, &batch(&["v"], NONE))]);
    let fetch =
        Fetch { max_wait_ms: 600_000, min_bytes: 1 << 20, max_bytes: 10, ..Fetch::of("t", &[(0, 0)]) };
    assert_eq!(kafka.fetch(12, &fetch)[0].records, [(0, "v".to_owned())]);
}

#[test]
fn a_fetch_of_more_than_one_disk_read_does_not_wait() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    let value = "x".repeat(250_000);
    let bytes = batch(&[&value], NONE);
    for _ in 0..12 {
        kafka.produce("t", &[(0, &bytes)]);
    }
    broker.restart();
    let mut kafka = broker.kafka();
    let mut offset = 0;
    while offset < 12 {
        let min_bytes = (12 - offset) * 250_000;
        let from = [(0, offset)];
        let fetch = Fetch {
            max_wait_ms: 600_000,
            min_bytes: min_bytes as i32,
            partition_max_bytes: 8 << 20,
            ..Fetch::of("t", &from)
        };
        let got = kafka.fetch(12, &fetch);
        assert_eq!(got[0].records.first().map(|(offset, _)| *offset), Some(offset));
        offset += got[0].records.len() as i64;
    }
}

#[test]
fn a_fetch_from_inside_a_batch_returns_the_whole_batch() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    kafka.produce("t", &[(0, &batch(&["a", "b", "c"], NONE))]);
    kafka.produce("t", &[(0, &batch(&["d"], NONE))]);
    let got = kafka.fetch(12, &Fetch::of("t", &[(0, 1)]));
    assert_eq!(got[0].records.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let got = kafka.fetch(12, &Fetch::of("t", &[(0, 3)]));
    assert_eq!(got[0].records, [(3, "d".to_owned())]);
    assert_eq!(kafka.fetch(12, &Fetch::of("t", &[(0, 4)]))[0].records, []);
}

#[test]
fn a_fetch_returns_one_batch_even_above_its_limit_and_no_more() {
    let broker = SimBroker::start();
    broker.native().created("t", 4, &[]);
    let mut kafka = broker.kafka();
    let value = "x".repeat(1000);
    let bytes = batch(&[&value], NONE);
    for _ in 0..4 {
        kafka.produce("t", &[(0, &bytes), (1, &bytes), (2, &bytes), (3, &bytes)]);
    }
    let batches =
        |kafka: &mut crate::client::Kafka, max_bytes: usize, partition_max_bytes: usize| -> Vec<usize> {
            let from = [(2, 0), (1, 0), (3, 0), (0, 0)];
            let fetch = Fetch {
                max_bytes: max_bytes as i32,
                partition_max_bytes: partition_max_bytes as i32,
                ..Fetch::of("t", &from)
            };
            kafka.fetch(12, &fetch).iter().map(|got| got.records.len()).collect()
        };
    assert_eq!(batches(&mut kafka, 10, 1 << 20), [1, 0, 0, 0]);
    assert_eq!(batches(&mut kafka, 0, 0).iter().sum::<usize>(), 1);
    assert_eq!(batches(&mut kafka, 1 << 20, 1 << 20), [4, 4, 4, 4]);
    let some = batches(&mut kafka, 3 * bytes.len(), 1 << 20);
    assert!(some[0] > 0 && some.iter().sum::<usize>() <= 3, "{some:?}");
    let each = batches(&mut kafka, 1 << 20, 2 * bytes.len() + 200);
    assert!(each.iter().all(|n| (1..=2).contains(n)), "{each:?}");
}

#[test]
fn unknown_offsets_epochs_and_topics_are_reported_at_once() {
    let broker = SimBroker::start();
    let id = broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    kafka.produce("t", &[(0, &batch(&["v"], NONE))]);
    let wait = |from, epoch| Fetch { max_wait_ms: 600_000, epoch, ..Fetch::of("t", from) };
    for (from, epoch, error) in [
        (&[(0, 2), (1, 0)][..], -1, KafkaError::OFFSET_OUT_OF_RANGE),
        (&[(0, -1), (1, 0)], -1, KafkaError::OFFSET_OUT_OF_RANGE),
        (&[(7, 0), (1, 0)], -1, KafkaError::UNKNOWN_TOPIC_OR_PARTITION),
        (&[(0, 0), (1, 0)], 3, KafkaError::UNKNOWN_LEADER_EPOCH),
    ] {
        let got = kafka.fetch(12, &wait(from, epoch));
        assert_eq!((got.len(), got[0].error), (2, error));
    }
    let by_id = Fetch { topic: "", topic_id: id.0, ..Fetch::of("t", &[(0, 0)]) };
    assert_eq!(kafka.fetch(13, &by_id)[0].records.len(), 1);
    let unknown = Fetch { topic_id: [9; 16], ..by_id };
    assert_eq!(kafka.fetch(17, &unknown)[0].error, KafkaError::UNKNOWN_TOPIC_ID);
}

/// Zeroes the slab from the position of this value to the end.
fn zero_from(data_dir: &Path, needle: &[u8]) {
    for store in ["store-000", "store-001"] {
        let slab = data_dir.join(store).join("slab-000000");
        let Ok(mut bytes) = fs::read(&slab) else { continue };
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at..].fill(0);
            return fs::write(&slab, bytes).expect("the slab");
        }
    }
    panic!("it rests nowhere");
}

#[test]
fn a_fetch_from_a_lost_end_gets_an_error_and_never_an_empty_response() {
    let mut real = RealBroker::new();
    real.native().created("t", 1, &[]);
    let mut kafka = real.kafka();
    for value in ["first", "unlucky-record", "third"] {
        kafka.produce("t", &[(0, &batch(&[value], NONE))]);
    }
    stop(real.broker.take().expect("it runs"));
    zero_from(real.dir.path(), b"unlucky-record");
    real.broker = Some(start(real.dir.path(), 2, HostKind::Thread));
    let mut kafka = real.kafka();
    kafka.produce("t", &[(0, &batch(&["fourth"], NONE))]);
    let mut fetch = |at| {
        // Longer than the test may take: the response must not wait.
        let from = [(0, at)];
        let fetch = Fetch { max_wait_ms: 600_000, ..Fetch::of("t", &from) };
        let got = kafka.fetch(12, &fetch).remove(0);
        (got.error, got.records)
    };
    assert_eq!(fetch(0), (KafkaError::NONE, vec![(0, "first".to_owned())]));
    for lost in 1..3 {
        assert_eq!(fetch(lost), (KafkaError::CORRUPT_MESSAGE, vec![]));
    }
    assert_eq!(fetch(3), (KafkaError::NONE, vec![(3, "fourth".to_owned())]));
}

#[test]
fn there_are_no_fetch_sessions() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    for session_id in [0, 5] {
        let request = FetchRequest { session_id, session_epoch: 1, ..Default::default() };
        let answer = kafka.call(ApiKey::Fetch, 12, &request);
        assert_eq!(answer.body::<FetchResponse<'_>>().error_code, KafkaError::FETCH_SESSION_ID_NOT_FOUND);
    }
}

#[test]
fn a_fetch_that_starts_or_ends_a_session_gets_data_whatever_session_it_names() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    kafka.produce("t", &[(0, &batch(&["v"], BatchProducer::NONE))]);
    for session_epoch in [0, -1] {
        let fetch = Fetch::of("t", &[(0, 0)]);
        let request = FetchRequest { session_id: 5, session_epoch, ..fetch.request() };
        let answer = kafka.call(ApiKey::Fetch, 12, &request);
        let response: FetchResponse<'_> = answer.body();
        assert_eq!((response.error_code, response.session_id), (KafkaError::NONE, 0));
        assert_eq!(answer.fetched()[0].records, [(0, "v".to_owned())]);
    }
}

#[test]
fn a_parked_fetch_ends_when_its_topic_is_deleted_or_the_broker_stops() {
    let broker = SimBroker::start();
    let id = broker.native().created("gone", 2, &[]);
    broker.native().created("stays", 2, &[]);
    let mut reader = broker.kafka();
    let mut by_id = broker.kafka();
    let from = [(0, 0), (1, 0)];
    let wait = |topic| Fetch { max_wait_ms: 600_000, ..Fetch::of(topic, &from) };
    for topic in ["gone", "stays"] {
        reader.send(ApiKey::Fetch, 12, &wait(topic).request());
    }
    by_id.send(ApiKey::Fetch, 13, &Fetch { topic_id: id.0, ..wait("") }.request());
    broker.native().delete_topic("gone").ok();
    let got = reader.read(ApiKey::Fetch, 12).expect("an answer").fetched();
    assert!(got.iter().any(|got| got.error == KafkaError::UNKNOWN_TOPIC_OR_PARTITION));
    let got = by_id.read(ApiKey::Fetch, 13).expect("an answer").fetched();
    assert!(got.iter().any(|got| got.error == KafkaError::UNKNOWN_TOPIC_ID), "{got:?}");
    broker.restart();
    let got = reader.read(ApiKey::Fetch, 12).expect("an answer").fetched();
    assert!(got.iter().all(|got| got.error == KafkaError::NONE && got.records.is_empty()));
    assert!(reader.read(ApiKey::Fetch, 12).is_none());
}

#[test]
fn a_reader_reads_every_record_once() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let value = "x".repeat(2500);
    let bytes = batch(&[&value, &value, &value], NONE);
    for _ in 0..40 {
        kafka.send_batches(9, -1, "t", &[(0, &bytes), (1, &bytes)]);
        kafka.produced(9);
    }
    for _ in 0..2 {
        let mut kafka = broker.kafka();
        let mut at = [(0, 0), (1, 0)];
        while at.iter().any(|(_, offset)| *offset < 120) {
            let fetch = Fetch { max_bytes: 40_000, partition_max_bytes: 30_000, ..Fetch::of("t", &at) };
            let mut next = at;
            for got in kafka.fetch(12, &fetch) {
                let (_, offset) = &mut next[got.partition as usize];
                for (record, _) in &got.records {
                    assert_eq!(record, offset);
                    *offset += 1;
                }
            }
            assert_ne!(next, at, "it makes progress");
            // Partitions are rotated, as clients do, so that every partition is served.
            at = next;
        }
        broker.restart();
    }
}
