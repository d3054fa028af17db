//! ListOffsets and OffsetForLeaderEpoch.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic, EpochPartition,
    EpochTopic, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::Timestamp;

use crate::client::Kafka;
use crate::common::now_ms;
use crate::common::simulated::SimBroker;

/// Returns error, offset and timestamp.
type Found = (KafkaError, i64, i64);

fn list(kafka: &mut Kafka, version: i16, epoch: i32, requested: &[(i32, i64)]) -> Vec<Found> {
    let partitions = requested.iter().map(|(partition_index, timestamp)| ListOffsetsPartition {
        partition_index: *partition_index,
        current_leader_epoch: epoch,
        timestamp: *timestamp,
    });
    let topics = vec![ListOffsetsTopic { name: "t", partitions: partitions.collect() }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = kafka.call(ApiKey::ListOffsets, version, &request);
    let response: ListOffsetsResponse<'_> = answer.body();
    response.topics[0].partitions.iter().map(|p| (p.error_code, p.offset, p.timestamp)).collect()
}

#[test]
fn list_offsets_finds_the_ends_and_the_exact_record_by_time() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let t = now_ms();
    for times in [[t - 50, t - 10, t - 30], [t - 20, t - 25, t - 5]] {
        let mut builder = BatchBuilder::new(Compression::Gzip, 0);
        for at in times {
            builder.append(&NewRecord::new(Timestamp(at), None, Some(b"some value"))).expect("it fits");
        }
        let bytes = builder.finish(BatchProducer::NONE).expect("records");
        assert_eq!(kafka.produce("t", &[(0, &bytes)])[0].0, KafkaError::NONE);
    }
    let ok = |offset, timestamp| (KafkaError::NONE, offset, timestamp);
    for version in [1, 5, 7, 11] {
        assert_eq!(list(&mut kafka, version, -1, &[(0, -1), (1, -2)]), [ok(6, -1), ok(0, -1)]);
        assert_eq!(list(&mut kafka, version, -1, &[(1, -1), (0, -2)]), [ok(0, -1), ok(0, -1)]);
    }
    for (at, found) in
        [(t - 100, ok(0, t - 50)), (t - 49, ok(1, t - 10)), (t - 9, ok(5, t - 5)), (t, ok(-1, -1))]
    {
        assert_eq!(list(&mut kafka, 7, -1, &[(0, at), (1, 0)]), [found, ok(-1, -1)]);
    }
    assert_eq!(list(&mut kafka, 7, -1, &[(0, -3), (1, -3)]), [ok(5, t - 5), ok(-1, -1)]);
    for (at, found) in [(-4, ok(0, -1)), (-5, ok(-1, -1)), (-6, ok(-1, -1))] {
        assert_eq!(list(&mut kafka, 11, -1, &[(0, at)]), [found]);
    }
    assert_eq!(list(&mut kafka, 6, -1, &[(0, -3)])[0].0, KafkaError::UNSUPPORTED_VERSION);
    assert_eq!(list(&mut kafka, 11, -1, &[(0, -77)])[0].0, KafkaError::UNSUPPORTED_VERSION, "no such time");
    assert_eq!(list(&mut kafka, 6, 9, &[(0, -1)])[0].0, KafkaError::UNKNOWN_LEADER_EPOCH);
    assert_eq!(list(&mut kafka, 6, -1, &[(5, -1)])[0].0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn a_partition_that_is_listed_twice_gets_an_error_and_the_others_are_answered() {
    let broker = SimBroker::start();
    broker.native().created("t", 3, &[]);
    let mut kafka = broker.kafka();
    let twice = (KafkaError::INVALID_REQUEST, -1, -1);
    assert_eq!(
        list(&mut kafka, 7, -1, &[(0, 0), (1, -1), (0, -1), (5, -1), (5, -1)]),
        [twice, (KafkaError::NONE, 0, -1), twice, twice, twice]
    );
    // Partitions of one topic in two lists are compared too.
    let partition = |timestamp| ListOffsetsPartition { timestamp, ..Default::default() };
    let topic = |timestamp| ListOffsetsTopic { name: "t", partitions: vec![partition(timestamp)] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic(0), topic(-1)], ..Default::default() };
    let answer = kafka.call(ApiKey::ListOffsets, 7, &request);
    let response: ListOffsetsResponse<'_> = answer.body();
    let errors = response.topics.iter().flat_map(|topic| &topic.partitions).map(|p| p.error_code);
    assert_eq!(errors.collect::<Vec<_>>(), [KafkaError::INVALID_REQUEST; 2]);
}

#[test]
fn records_on_disk_are_found_in_more_partitions_than_are_searched_at_once() {
    const PARTITIONS: i32 = 100;
    let broker = SimBroker::start();
    broker.native().created("t", PARTITIONS as u32, &[]);
    let mut kafka = broker.kafka();
    let t = now_ms();
    for partition in 0..PARTITIONS {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        for at in [0, i64::from(partition) + 1] {
            builder.append(&NewRecord::new(Timestamp(t - 1000 + at), None, Some(b"v"))).expect("it fits");
        }
        let bytes = builder.finish(BatchProducer::NONE).expect("records");
        assert_eq!(kafka.produce("t", &[(partition, &bytes)])[0].0, KafkaError::NONE);
    }
    // Nothing is cached after a restart.
    broker.restart();
    let requested: Vec<_> = (0..PARTITIONS).map(|partition| (partition, t - 999)).collect();
    let found: Vec<_> = (0..PARTITIONS).map(|p| (KafkaError::NONE, 1, t - 999 + i64::from(p))).collect();
    assert_eq!(list(&mut broker.kafka(), 7, -1, &requested), found);
}

#[test]
fn the_latest_record_is_one_that_was_not_deleted() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    let t = now_ms();
    for at in [t, t - 500, t - 100, t - 300] {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.append(&NewRecord::new(Timestamp(at), None, Some(b"v"))).expect("it fits");
        let bytes = builder.finish(BatchProducer::NONE).expect("records");
        assert_eq!(kafka.produce("t", &[(0, &bytes)])[0].0, KafkaError::NONE);
    }
    let latest = [(0, t, 1), (2, t - 100, 3), (3, t - 300, 4), (-1, -1, 4)];
    for (offset, at, delete_to) in latest {
        assert_eq!(list(&mut kafka, 7, -1, &[(0, -3)]), [(KafkaError::NONE, offset, at)]);
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: delete_to }];
        let topics = vec![DeleteRecordsTopic { name: "t", partitions }];
        let answer = kafka.call(ApiKey::DeleteRecords, 2, &DeleteRecordsRequest { topics, timeout_ms: 1000 });
        let response: DeleteRecordsResponse<'_> = answer.body();
        assert_eq!(response.topics[0].partitions[0].low_watermark, delete_to);
    }
}

#[test]
fn the_current_epoch_ends_at_the_end_of_the_log_and_other_epochs_are_unknown() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    kafka.produce("t", &[(0, &crate::common::batch(&["a", "b"], BatchProducer::NONE))]);
    for (current, epoch, expected) in [
        (-1, 0, (KafkaError::NONE, 0, 2)),
        (-1, -1, (KafkaError::NONE, -1, -1)),
        (0, 0, (KafkaError::NONE, 0, 2)),
        (0, 1, (KafkaError::NONE, -1, -1)),
        (1, 0, (KafkaError::UNKNOWN_LEADER_EPOCH, -1, -1)),
    ] {
        let partition = EpochPartition { partition: 0, current_leader_epoch: current, leader_epoch: epoch };
        let topics = vec![EpochTopic { topic: "t", partitions: vec![partition] }];
        let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
        let answer = kafka.call(ApiKey::OffsetForLeaderEpoch, 4, &request);
        let response: OffsetForLeaderEpochResponse<'_> = answer.body();
        let found = &response.topics[0].partitions[0];
        assert_eq!((found.error_code, found.leader_epoch, found.end_offset), expected);
    }
}
