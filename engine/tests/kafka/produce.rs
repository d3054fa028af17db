//! Produce, and idempotence.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::{ProducerId, Timestamp};
use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;

use crate::client::{Fetch, request};
use crate::common::simulated::SimBroker;
use crate::common::{batch, now_ms, partition};

const NONE: BatchProducer = BatchProducer::NONE;

fn of(id: i64, epoch: i16, sequence: i32) -> BatchProducer {
    BatchProducer { id: ProducerId(id), epoch, sequence }
}

#[test]
fn records_for_partitions_of_several_shards_are_read_back_and_survive_a_restart() {
    let broker = SimBroker::start();
    broker.native().created("t", 4, &[]);
    let mut kafka = broker.kafka();
    let values: Vec<String> = (0..4).map(|n| format!("v{n}")).collect();
    let batches: Vec<_> = values.iter().map(|value| batch(&[value, "and"], NONE)).collect();
    let to: Vec<(i32, &[u8])> = (0..).zip(batches.iter().map(Vec::as_slice)).collect();
    assert_eq!(kafka.produce("t", &to), [(KafkaError::NONE, 0); 4]);
    assert_eq!(kafka.produce("t", &to), [(KafkaError::NONE, 2); 4]);
    let from: Vec<(i32, i64)> = (0..4).map(|partition| (partition, 0)).collect();
    for _ in 0..2 {
        let got = broker.kafka().fetch(12, &Fetch::of("t", &from));
        assert_eq!(got.len(), 4);
        for (got, value) in got.iter().zip(&values) {
            assert_eq!((got.error, got.high_watermark, got.log_start), (KafkaError::NONE, 4, 0));
            let and = || "and".to_owned();
            let expected = [(0, value.clone()), (1, and()), (2, value.clone()), (3, and())];
            assert_eq!(got.records, expected);
        }
        broker.restart();
    }
}

#[test]
fn a_large_batch_is_received_into_pages_and_returned_unchanged() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let large = "x".repeat(300_000);
    let bytes = batch(&[&large], NONE);
    for acks in [1, -1] {
        let mut kafka = broker.kafka();
        kafka.send_batches(9, acks, "t", &[(0, &bytes), (1, &bytes)]);
        assert!(kafka.produced(9).iter().all(|(error, _)| !error.is_err()));
    }
    let got = broker.kafka().fetch(12, &Fetch::of("t", &[(0, 0), (1, 1)]));
    assert_eq!(got[0].records, [(0, large.clone()), (1, large.clone())]);
    assert_eq!(got[1].records, [(1, large)]);
}

#[test]
fn records_written_with_one_protocol_are_read_with_the_other() {
    let broker = SimBroker::start();
    let mut native = broker.native();
    let topic = native.created("t", 1, &[]);
    // A broker with one shard, because the client of this test does not connect to other shards.
    let shard = native.metadata().topics[0].partitions[0].shard;
    let mut native = broker.native_on(shard.0);
    let mut kafka = broker.kafka();
    assert_eq!(native.produced(partition(topic, 0), &["from native"]), 0);
    assert_eq!(kafka.produce("t", &[(0, &batch(&["from kafka"], NONE))]), [(KafkaError::NONE, 1)]);
    let expected = [(0, "from native".to_owned()), (1, "from kafka".to_owned())];
    assert_eq!(native.read_all(partition(topic, 0), 0), expected);
    assert_eq!(kafka.fetch(11, &Fetch::of("t", &[(0, 0)]))[0].records, expected);
}

#[test]
fn a_batch_that_is_sent_again_is_acknowledged_with_its_offset_and_a_gap_is_rejected() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    let id = kafka.producer_id();
    assert_ne!(kafka.producer_id(), id);
    for sequence in 0..5 {
        let bytes = batch(&["v"], of(id, 0, sequence));
        assert_eq!(kafka.produce("t", &[(0, &bytes)]), [(KafkaError::NONE, i64::from(sequence))]);
    }
    for _ in 0..2 {
        let mut kafka = broker.kafka();
        for sequence in 0..5 {
            let bytes = batch(&["v"], of(id, 0, sequence));
            assert_eq!(kafka.produce("t", &[(0, &bytes)]), [(KafkaError::NONE, i64::from(sequence))]);
        }
        let gap = batch(&["v"], of(id, 0, 7));
        assert_eq!(kafka.produce("t", &[(0, &gap)]), [(KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER, -1)]);
        broker.restart();
    }
    let mut kafka = broker.kafka();
    let next = batch(&["v"], of(id, 1, 0));
    assert_eq!(kafka.produce("t", &[(0, &next)]), [(KafkaError::NONE, 5)]);
    let old = batch(&["v"], of(id, 0, 5));
    assert_eq!(kafka.produce("t", &[(0, &old)]), [(KafkaError::INVALID_PRODUCER_EPOCH, -1)]);
}

#[test]
fn pipelined_batches_of_a_producer_are_appended_and_acknowledged_in_order() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let id = kafka.producer_id();
    for sequence in 0..60 {
        let bytes = batch(&["v"], of(id, 0, sequence));
        kafka.send_batches(9, -1, "t", &[(0, &bytes), (1, &bytes)]);
    }
    for sequence in 0..60 {
        assert_eq!(kafka.produced(9), [(KafkaError::NONE, sequence); 2]);
    }
}

#[test]
fn an_invalid_batch_fails_only_its_partition() {
    let broker = SimBroker::start();
    broker.native().created("t", 4, &[("max.message.bytes", "1000")]);
    let mut kafka = broker.kafka();
    let good = batch(&["v"], NONE);
    let mut corrupt = good.clone();
    *corrupt.last_mut().expect("bytes") ^= 1;
    let two = [good.clone(), good.clone()].concat();
    let large = batch(&[&"x".repeat(2000)], NONE);
    let mut offset = good.clone();
    offset[7] = 5;
    let answers =
        kafka.produce("t", &[(0, &corrupt), (1, &two), (2, &large), (3, &good), (9, &good), (-1, &good)]);
    let errors: Vec<_> = answers.iter().map(|(error, _)| *error).collect();
    assert_eq!(
        errors,
        [
            KafkaError::CORRUPT_MESSAGE,
            KafkaError::INVALID_RECORD,
            KafkaError::MESSAGE_TOO_LARGE,
            KafkaError::NONE,
            KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
            KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        ]
    );
    assert_eq!(kafka.produce("t", &[(0, &offset)])[0].0, KafkaError::INVALID_RECORD);
    assert_eq!(kafka.produce("t", &[(0, &[])])[0].0, KafkaError::CORRUPT_MESSAGE);
    assert_eq!(kafka.produce("nowhere", &[(0, &good)])[0].0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
    kafka.send_batches(9, 2, "t", &[(0, &good)]);
    assert_eq!(kafka.produced(9)[0].0, KafkaError::INVALID_REQUIRED_ACKS);
    let null = ProduceRequest { acks: -1, ..Default::default() };
    let answer = kafka.call(ApiKey::Produce, 11, &null);
    assert!(answer.body::<ProduceResponse<'_>>().responses.is_empty());
}

#[test]
fn both_batches_of_a_partition_that_a_request_lists_twice_are_appended_and_acknowledged() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let id = kafka.producer_id();
    let large = "x".repeat(300_000);
    let sent = |sequence, value: &str| batch(&[value], of(id, 0, sequence));
    let batches = [sent(0, "first"), sent(1, &large), sent(2, "third"), sent(4, "too early")];
    let other = batch(&["of another partition"], NONE);
    // Either partition may belong to another shard than the connection's.
    for (offset, partition) in [0, 1].into_iter().enumerate() {
        let other_partition = 1 - partition;
        let to: Vec<(i32, &[u8])> = vec![
            (partition, &batches[0]),
            (partition, &batches[1]),
            (other_partition, &other),
            (partition, &batches[2]),
            (partition, &batches[3]),
            (partition, &batches[0]),
        ];
        let out_of_order = (KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
        let at = |offset| (KafkaError::NONE, offset);
        // By then, the first partition has the other one's record of the first round.
        let first = offset as i64;
        let at_other = if first == 0 { 0 } else { 3 };
        let expected = [at(first), at(first + 1), at(at_other), at(first + 2), out_of_order, at(first)];
        assert_eq!(kafka.produce("t", &to), expected);
        let got = kafka.fetch(12, &Fetch::of("t", &[(partition, first)]));
        let values: Vec<&str> = got[0].records.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["first", &large, "third"]);
    }
}

#[test]
fn zstd_needs_version_seven() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut builder = BatchBuilder::new(Compression::Zstd, 0);
    let value = [7; 1000];
    builder.append(&NewRecord::new(Timestamp(now_ms()), None, Some(&value))).expect("it fits");
    let bytes = builder.finish(NONE).expect("a record");
    let mut kafka = broker.kafka();
    for (version, error) in [(6, KafkaError::UNSUPPORTED_COMPRESSION_TYPE), (7, KafkaError::NONE)] {
        kafka.send_batches(version, 1, "t", &[(0, &bytes)]);
        assert_eq!(kafka.produced(version)[0].0, error);
    }
}

#[test]
fn acks_0_has_no_response_and_an_error_closes_the_connection() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let good = batch(&["v"], NONE);
    kafka.send_batches(9, 0, "t", &[(0, &good), (1, &good)]);
    assert_eq!(kafka.produce("t", &[(0, &good), (1, &good)]), [(KafkaError::NONE, 1); 2]);
    kafka.send_batches(9, 0, "t", &[(7, &good)]);
    assert!(kafka.read(ApiKey::Produce, 9).is_none());
}

#[test]
fn requests_before_a_failed_one_without_a_response_are_answered_before_the_connection_closes() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let good = batch(&["v"], NONE);
    let produce = |id, acks, index| {
        let partition_data = vec![ProducePartition { index, records: Some(&good) }];
        let topic_data = vec![ProduceTopic { name: "t", topic_id: [0; 16], partition_data }];
        let body = ProduceRequest { transactional_id: None, acks, timeout_ms: 1000, topic_data };
        request(ApiKey::Produce, 9, id, &body)
    };
    for offset in 0..10 {
        let mut kafka = broker.kafka();
        // All are sent at once, so that the first still waits for the disk when the last fails.
        kafka.send_raw(&[produce(1, 1, 0), produce(2, -1, 1), produce(3, 0, 7)].concat());
        assert_eq!(kafka.produced(9), [(KafkaError::NONE, offset)]);
        assert_eq!(kafka.produced(9), [(KafkaError::NONE, offset)]);
        assert!(kafka.read(ApiKey::Produce, 9).is_none());
    }
}

#[test]
fn a_topic_can_stamp_the_time_of_appending() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut kafka = broker.kafka();
    let before = broker.wall_clock_ms();
    kafka.send_batches(8, -1, "t", &[(0, &batch(&["v"], NONE))]);
    let answer = kafka.read(ApiKey::Produce, 8).expect("an answer");
    let response: ProduceResponse<'_> = answer.body();
    let stamped = response.responses[0].partition_responses[0].log_append_time_ms;
    assert!((before..=broker.wall_clock_ms()).contains(&stamped));
    assert_eq!(kafka.fetch(11, &Fetch::of("t", &[(0, 0)]))[0].records, [(0, "v".to_owned())]);
}

#[test]
fn a_batch_above_the_brokers_limit_is_rejected_with_the_limit_whatever_the_topic_allows() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[("max.message.bytes", "104857600")]);
    let mut kafka = broker.kafka();
    let largest = "x".repeat(BATCH_BYTES_MAX_DEFAULT - 1000);
    assert_eq!(kafka.produce("t", &[(0, &batch(&[&largest], NONE))]), [(KafkaError::NONE, 0)]);
    kafka.send_batches(11, -1, "t", &[(0, &vec![0; BATCH_BYTES_MAX_DEFAULT + 1])]);
    let answer = kafka.read(ApiKey::Produce, 11).expect("an answer");
    let response: ProduceResponse<'_> = answer.body();
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, KafkaError::MESSAGE_TOO_LARGE);
    let text = partition.error_message.as_deref().expect("a text");
    assert!(
        text.contains(&BATCH_BYTES_MAX_DEFAULT.to_string()) && text.contains("--batch-bytes-max"),
        "{text}"
    );
}
