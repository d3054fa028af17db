//! Batches whose records contradict their header, in both protocols.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic, ProduceResponse,
};
use highwater_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, BatchProducer, Compression, NewRecord, TimestampType,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Timestamp, TopicPartition};
use highwater_protocol::native::{Acks, Body, ProduceReply};

use crate::client::{Fetch, Kafka};
use crate::common::simulated::SimBroker;
use crate::common::{Client, batch, now_ms, partition, timed, with_header};

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Connects a native client to the shard that owns the partition.
fn connect_to_owner(broker: &SimBroker, topic: &str, number: u32) -> (Client, TopicPartition) {
    let metadata = broker.native().metadata();
    let topic = metadata.topics.iter().find(|t| t.name == topic).expect("it exists");
    let shard = topic.partitions[number as usize].shard.0;
    (broker.native_on(shard), partition(topic.id, number))
}

fn native_outcome(client: &mut Client, to: TopicPartition, bytes: &[u8]) -> Result<i64, (ErrorCode, String)> {
    let id = client.send_batch(to, Acks::All, bytes);
    let answer = client.reply_to(id);
    match answer.error {
        None => Ok(ProduceReply::decode(&answer.ok()).expect("a reply").base_offset.get()),
        Some(_) => Err(answer.err()),
    }
}

/// Returns the error, the rejected records, and the message.
fn kafka_outcome(kafka: &mut Kafka, topic: &str, bytes: &[u8]) -> (KafkaError, Vec<i32>, String) {
    kafka.send_batches(11, -1, topic, &[(0, bytes)]);
    let answer = kafka.read(ApiKey::Produce, 11).expect("an answer");
    let response: ProduceResponse<'_> = answer.body();
    let partition = &response.responses[0].partition_responses[0];
    let records = partition.record_errors.iter().map(|record| record.batch_index).collect();
    (partition.error_code, records, partition.error_message.clone().unwrap_or_default().into_owned())
}

/// Returns the offset and timestamp that ListOffsets finds.
fn found(kafka: &mut Kafka, topic: &str, timestamp: i64) -> (i64, i64) {
    let partitions = vec![ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp }];
    let topics = vec![ListOffsetsTopic { name: topic, partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = kafka.call(ApiKey::ListOffsets, 7, &request);
    let response: ListOffsetsResponse<'_> = answer.body();
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, KafkaError::NONE);
    (partition.offset, partition.timestamp)
}

/// Returns a compressible value of this size.
fn long(bytes: usize) -> String {
    "payment ".repeat(bytes / 8)
}

#[test]
fn the_largest_timestamp_is_that_of_the_records_whatever_the_header_says() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let (mut native, tp) = connect_to_owner(&broker, "t", 0);
    let mut kafka = broker.kafka();
    let now = now_ms();
    let value = long(200);
    let mut offset = 0;
    for codec in [&[Compression::None][..], &CODECS].concat() {
        for header_max in [-1, 0, now + 1000] {
            let at = now - 1_000_000 + offset * 1000;
            let bytes = timed(codec, &[(at, &value), (at + 7, &value), (-1, &value)]);
            let bytes = with_header(bytes, |header| header.max_timestamp.set(header_max));
            assert_eq!(kafka.produce("t", &[(0, &bytes)]), [(KafkaError::NONE, offset)]);
            assert_eq!(found(&mut kafka, "t", at + 1), (offset + 1, at + 7), "{codec} {header_max}");
            assert_eq!(found(&mut kafka, "t", -3), (offset + 1, at + 7), "{codec} {header_max}");
            assert_eq!(native_outcome(&mut native, tp, &bytes), Ok(offset + 3));
            assert_eq!(found(&mut kafka, "t", at + 8), (-1, -1));
            offset += 6;
        }
    }
    let got = kafka.fetch(11, &Fetch::of("t", &[(0, 0)]));
    assert_eq!(got[0].records.len() as i64, offset, "checksums are right, and all is there");
}

#[test]
fn records_without_a_timestamp_are_found_by_no_search_and_never_expire() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[("message.timestamp.before.max.ms", "1000")]);
    let mut kafka = broker.kafka();
    let untimed = timed(Compression::Gzip, &[(-1, &long(100)), (-1, &long(100))]);
    assert_eq!(kafka.produce("t", &[(0, &untimed)]), [(KafkaError::NONE, 0)]);
    for at in [0, 1, now_ms(), -3] {
        assert_eq!(found(&mut kafka, "t", at), (-1, -1), "{at}");
    }
    let now = now_ms();
    let mixed = timed(Compression::None, &[(-1, "a"), (now, "b"), (-1, "c")]);
    assert_eq!(kafka.produce("t", &[(0, &mixed)]), [(KafkaError::NONE, 2)]);
    assert_eq!(found(&mut kafka, "t", 0), (3, now));
    assert_eq!(found(&mut kafka, "t", -3), (3, now));
}

#[test]
fn timestamps_out_of_range_are_found_whatever_the_header_says() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let (mut native, tp) = connect_to_owner(&broker, "t", 0);
    let mut kafka = broker.kafka();
    let now = now_ms();
    let value = long(100);
    for (odd, name) in [
        (now + 48 * 3_600_000, "message.timestamp.after.max.ms"),
        (now - 2 * 3_600_000, "message.timestamp.before.max.ms"),
    ] {
        for codec in [Compression::None, Compression::Zstd] {
            let bytes = timed(codec, &[(now, &value), (odd, &value), (now, &value), (odd, &value)]);
            let bytes = with_header(bytes, |header| header.max_timestamp.set(now));
            let (error, records, text) = kafka_outcome(&mut kafka, "t", &bytes);
            assert_eq!((error, &records[..]), (KafkaError::INVALID_TIMESTAMP, &[1, 3][..]));
            assert!(text.contains(name) && text.contains("record 1"), "{text}");
            let (code, text) = native_outcome(&mut native, tp, &bytes).expect_err("refused");
            assert_eq!(code, ErrorCode::InvalidTimestamp);
            assert!(text.contains(name) && text.starts_with("t/0: "), "{text}");
        }
    }
    assert_eq!(kafka.produce("t", &[(0, &batch(&["v"], BatchProducer::NONE))]), [(KafkaError::NONE, 0)]);
}

/// Returns batches that contradict their header, with Kafka's code for each.
fn invalid_batches() -> Vec<(&'static str, Vec<u8>, KafkaError)> {
    let now = now_ms();
    let value = long(300);
    let three = [(now, &value[..]), (now, &value), (now, &value)];
    let plain = timed(Compression::None, &three);
    let gzip = timed(Compression::Gzip, &three);
    let counts = |bytes: &[u8], count: i32| {
        with_header(bytes.to_vec(), |header| {
            header.count.set(count);
            header.last_offset_delta.set(count - 1);
        })
    };
    let codec = |bytes: &[u8], codec: i16| with_header(bytes.to_vec(), |header| header.attributes.set(codec));
    let mut garbage = gzip.clone();
    for byte in &mut garbage[BATCH_HEADER_BYTES..] {
        *byte ^= 0x5a;
    }
    // The compressed records of one batch as the only record of another: compressed twice.
    let inner = String::from_utf8_lossy(&gzip[BATCH_HEADER_BYTES..]).into_owned();
    let twice = timed(Compression::Gzip, &[(now, &inner), (now, &inner)]);
    let mut twice_stored = gzip[..BATCH_HEADER_BYTES].to_vec();
    twice_stored.extend_from_slice(&twice[BATCH_HEADER_BYTES..]);
    let mut longer = plain.clone();
    longer.extend_from_slice(b"rest");
    let mut nested = plain.clone();
    nested.extend_from_slice(&gzip);
    let mut old = vec![0; 40];
    old[11] = 28;
    old[16] = 1;
    let invalid = KafkaError::INVALID_RECORD;
    vec![
        ("garbage for gzip", with_header(garbage, |_| {}), invalid),
        ("gzip as lz4", codec(&gzip, Compression::Lz4 as i16), invalid),
        ("plain as zstd", codec(&plain, Compression::Zstd as i16), invalid),
        ("gzip as none", codec(&gzip, 0), invalid),
        ("other records than the header's", with_header(twice_stored, |_| {}), invalid),
        ("two of three", counts(&plain, 2), invalid),
        ("two of three in gzip", counts(&gzip, 2), invalid),
        ("four of three", counts(&plain, 4), invalid),
        ("bytes behind the records", with_header(longer, |_| {}), invalid),
        ("a batch behind the records", with_header(nested, |_| {}), invalid),
        ("a codec that is none", codec(&gzip, 5), KafkaError::UNSUPPORTED_COMPRESSION_TYPE),
        ("a message of an older format", old, invalid),
    ]
}

#[test]
fn a_batch_that_contradicts_its_header_is_rejected_with_kafkas_code_and_not_appended() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let (mut native, tp) = connect_to_owner(&broker, "t", 0);
    let mut kafka = broker.kafka();
    for (what, bytes, expected) in invalid_batches() {
        let (error, _, text) = kafka_outcome(&mut kafka, "t", &bytes);
        assert_eq!(error, expected, "{what}: {text}");
        assert!(!text.is_empty(), "{what}");
        let (code, _) = native_outcome(&mut native, tp, &bytes).expect_err(what);
        assert_eq!(code, ErrorCode::InvalidBatch, "{what}");
    }
    assert_eq!(kafka.produce("t", &[(0, &batch(&["v"], BatchProducer::NONE))]), [(KafkaError::NONE, 0)]);
}

#[test]
fn a_topic_may_trust_its_producers() {
    let broker = SimBroker::start();
    let mut admin = broker.native();
    admin.created("t", 1, &[("highwater.record.validation", "header")]);
    let error = admin.create_topic("u", 1, &[("highwater.record.validation", "none")]).err();
    assert_eq!(error.0, ErrorCode::InvalidConfig);
    let (_, bytes, _) = invalid_batches().swap_remove(5);
    let mut kafka = broker.kafka();
    assert_eq!(kafka.produce("t", &[(0, &bytes)]), [(KafkaError::NONE, 0)]);
    let late = with_header(bytes, |header| header.max_timestamp.set(now_ms() + 48 * 3_600_000));
    assert_eq!(kafka_outcome(&mut kafka, "t", &late).0, KafkaError::INVALID_TIMESTAMP);
    let mut broken = late;
    *broken.last_mut().expect("bytes") ^= 1;
    assert_eq!(kafka_outcome(&mut kafka, "t", &broken).0, KafkaError::CORRUPT_MESSAGE);
}

#[test]
fn the_topic_decides_whether_the_broker_stamps_records() {
    let broker = SimBroker::start();
    let mut admin = broker.native();
    admin.created("created", 1, &[]);
    admin.created("appended", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut kafka = broker.kafka();
    let now = now_ms();
    let bytes = with_header(timed(Compression::None, &[(now - 50, "a"), (now - 20, "b")]), |header| {
        header.attributes.set(8);
        header.max_timestamp.set(now);
    });
    assert_eq!(kafka.produce("created", &[(0, &bytes)]), [(KafkaError::NONE, 0)]);
    assert_eq!(found(&mut kafka, "created", -3), (1, now - 20), "records have their own times");
    let (mut native, tp) = connect_to_owner(&broker, "created", 0);
    assert_eq!(native_outcome(&mut native, tp, &bytes), Ok(2));
    // As Kafka does.
    let (error, _, text) = kafka_outcome(&mut kafka, "appended", &bytes);
    assert_eq!(error, KafkaError::INVALID_TIMESTAMP, "{text}");
}

#[test]
fn a_compacted_topic_rejects_records_without_a_key_even_if_it_trusts_headers() {
    let broker = SimBroker::start();
    let configs = [("cleanup.policy", "compact"), ("highwater.record.validation", "header")];
    broker.native().created("t", 1, &configs);
    let mut kafka = broker.kafka();
    let mut builder = BatchBuilder::new(Compression::None, 0);
    let at = Timestamp(now_ms());
    builder.append(&NewRecord::new(at, Some(b"k"), Some(b"v"))).expect("it fits");
    builder.append(&NewRecord::new(at, None, Some(b"v"))).expect("it fits");
    let bytes = builder.finish(BatchProducer::NONE).expect("records").to_vec();
    let (error, records, text) = kafka_outcome(&mut kafka, "t", &bytes);
    assert_eq!((error, records), (KafkaError::INVALID_RECORD, vec![1]), "{text}");
    let (mut native, tp) = connect_to_owner(&broker, "t", 0);
    assert!(native_outcome(&mut native, tp, &bytes).is_err());
    builder.append(&NewRecord::new(at, Some(b"k"), None)).expect("it fits");
    let bytes = builder.finish(BatchProducer::NONE).expect("records").to_vec();
    assert_eq!(kafka.produce("t", &[(0, &bytes)]), [(KafkaError::NONE, 0)]);
}

/// Creates a batch of few stored bytes whose check takes several turns.
fn slow(codec: Compression, number: usize) -> Vec<u8> {
    let value = long(4 << 20);
    let name = format!("slow {number}");
    timed(codec, &[(now_ms(), &value), (now_ms(), &name)])
}

#[test]
fn batches_whose_check_takes_turns_keep_their_order_and_others_are_served_meanwhile() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let (mut native, tp) = connect_to_owner(&broker, "t", 0);
    let mut kafka = broker.kafka();
    let id = kafka.producer_id();
    let of = |mut bytes: Vec<u8>, sequence: i32| {
        bytes = with_header(bytes, |header| {
            header.producer_id.set(id);
            header.producer_epoch.set(0);
            header.base_sequence.set(sequence);
        });
        bytes
    };
    let quick = |number: usize| timed(Compression::None, &[(now_ms(), &format!("quick {number}"))]);
    let mut expected = Vec::new();
    let mut sequence = 0;
    for (number, codec) in CODECS.iter().enumerate() {
        let slow = of(slow(*codec, number), sequence);
        let quick = of(quick(number), sequence + 2);
        kafka.send_batches(11, -1, "t", &[(1, &slow), (0, &slow)]);
        kafka.send_batches(11, -1, "t", &[(1, &quick), (0, &quick)]);
        expected.extend([
            (i64::from(sequence) + 1, format!("slow {number}")),
            (i64::from(sequence) + 2, format!("quick {number}")),
        ]);
        sequence += 3;
    }
    let mut other = broker.kafka();
    let (error, _, _) = kafka_outcome(&mut other, "t", &[]);
    assert_eq!(error, KafkaError::CORRUPT_MESSAGE, "another client is answered");
    for number in 0..CODECS.len() as i64 {
        assert_eq!(kafka.produced(11), [(KafkaError::NONE, 3 * number); 2]);
        assert_eq!(kafka.produced(11), [(KafkaError::NONE, 3 * number + 2); 2]);
    }
    for partition in [0, 1] {
        let from = [(partition, 0)];
        let fetch = Fetch { partition_max_bytes: 50 << 20, ..Fetch::of("t", &from) };
        let got = kafka.fetch(11, &fetch);
        let named: Vec<_> = got[0].records.iter().filter(|(_, value)| value.len() < 100).cloned().collect();
        assert_eq!(named, expected);
    }
    let ids: Vec<_> = (0..4)
        .flat_map(|number| {
            let slow = native.send_batch(tp, Acks::All, &slow(CODECS[number], number));
            [slow, native.send_batch(tp, Acks::All, &quick(number))]
        })
        .collect();
    let offsets: Vec<_> = ids
        .into_iter()
        .map(|id| ProduceReply::decode(&native.reply_to(id).ok()).expect("a reply").base_offset.get() - 12)
        .collect();
    assert_eq!(offsets, [0, 2, 3, 5, 6, 8, 9, 11]);
}

#[test]
fn connections_that_close_while_their_batches_are_checked_leak_nothing() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let bomb = slow(Compression::Gzip, 0);
    for _ in 0..3 {
        for _ in 0..10 {
            let mut kafka = broker.kafka();
            kafka.send_batches(11, -1, "t", &[(0, &bomb), (0, &bomb)]);
            let (mut native, tp) = connect_to_owner(&broker, "t", 0);
            native.send_batch(tp, Acks::All, &bomb);
        }
        let mut kafka = broker.kafka();
        assert!(!kafka.produce("t", &[(0, &batch(&["v"], BatchProducer::NONE))])[0].0.is_err());
    }
    let mut kafka = broker.kafka();
    assert!(!kafka.produce("t", &[(0, &bomb)])[0].0.is_err(), "its turn comes");
}

#[test]
fn a_search_by_time_through_decompression_bombs_does_not_block_other_clients() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[("highwater.record.validation", "header")]);
    let mut kafka = broker.kafka();
    let late = now_ms() + 60_000;
    for number in 0..24 {
        let bomb = with_header(slow(CODECS[number % 4], number), |header| header.max_timestamp.set(late));
        assert_eq!(kafka.produce("t", &[(0, &bomb)])[0].0, KafkaError::NONE);
    }
    let mut other = broker.kafka();
    let partitions =
        vec![ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp: late }];
    let topics = vec![ListOffsetsTopic { name: "t", partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    kafka.send(ApiKey::ListOffsets, 7, &request);
    assert_eq!(
        other.produce("t", &[(0, &timed(Compression::None, &[(late, "v")]))]),
        [(KafkaError::NONE, 48)]
    );
    assert_eq!(found(&mut other, "t", late), (48, late), "the only record that is as late");
    let answer = kafka.read(ApiKey::ListOffsets, 7).expect("an answer");
    let response: ListOffsetsResponse<'_> = answer.body();
    assert!([-1, 48].contains(&response.topics[0].partitions[0].offset));
}

#[test]
fn a_batch_that_grows_beyond_reason_is_too_large() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let zeros = "0".repeat(15 << 20);
    let bytes = timed(Compression::Zstd, &[(now_ms(), &zeros)]);
    assert!(bytes.len() < 8000);
    let mut kafka = broker.kafka();
    let (error, _, text) = kafka_outcome(&mut kafka, "t", &bytes);
    assert_eq!(error, KafkaError::MESSAGE_TOO_LARGE, "{text}");
    let (mut native, tp) = connect_to_owner(&broker, "t", 0);
    assert_eq!(native_outcome(&mut native, tp, &bytes).map_err(|e| e.0), Err(ErrorCode::TooLarge));
}

#[test]
fn valid_batches_are_stored_unchanged() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let now = now_ms();
    let sent = timed(Compression::Lz4, &[(now, &long(500)), (now + 1, &long(500))]);
    let mut kafka = broker.kafka();
    kafka.produce("t", &[(0, &sent)]);
    let answer = kafka.call(ApiKey::Fetch, 11, &Fetch::of("t", &[(0, 0)]).request());
    let response: highwater_net::kafka::messages::FetchResponse<'_> = answer.body();
    let stored = response.responses[0].partitions[0].records.unwrap_or_default();
    assert_eq!(stored[16..], sent[16..], "all but base offset and leader epoch");
    let header = BatchHeader::parse(stored).expect("a batch");
    assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
}
