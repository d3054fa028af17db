//! Topics and configurations, through Kafka's protocol, on a simulated broker.

use crate::client::Kafka;
use crate::common::simulated::{Settings, SimBroker};
use crate::common::{Client, partition};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatableAssignment, CreatableConfig, CreatableTopic, CreatePartitionsAssignment,
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopic, DeleteTopic, DeleteTopicsRequest, DeleteTopicsResponse,
};
use highwater_protocol::ids::{TopicId, TopicPartition};
use highwater_protocol::native::PartitionDetail;

const NONE: KafkaError = KafkaError::NONE;

pub(crate) fn start() -> SimBroker {
    SimBroker::with(Settings { default_partitions: 3, ..Settings::default() })
}

pub(crate) fn both(broker: &SimBroker) -> (Kafka, Client) {
    (broker.kafka(), broker.native())
}

/// Returns a native connection to the shard that owns a partition, and that partition.
fn owner_of(broker: &SimBroker, topic: &str, number: u32) -> (Client, TopicPartition) {
    let described = broker.native().describe(topic);
    let shard = described.partitions[number as usize].info.shard.0;
    (broker.native_on(shard), partition(described.id, number))
}

fn topic(name: &str, partitions: i32) -> CreatableTopic<'_> {
    CreatableTopic { name, num_partitions: partitions, replication_factor: 1, ..Default::default() }
}

fn assigned<'a>(name: &'a str, assignments: &[(i32, i32)]) -> CreatableTopic<'a> {
    let assignments = assignments
        .iter()
        .map(|(partition_index, node)| CreatableAssignment {
            partition_index: *partition_index,
            broker_ids: vec![*node],
        })
        .collect();
    CreatableTopic { assignments, replication_factor: -1, ..topic(name, -1) }
}

fn configured<'a>(name: &'a str, config: &'a str, value: Option<&'a str>) -> CreatableTopic<'a> {
    CreatableTopic { configs: vec![CreatableConfig { name: config, value }], ..topic(name, 1) }
}

/// Returns names and errors, sorted by name.
pub(crate) fn created(client: &mut Kafka, topics: Vec<CreatableTopic<'_>>) -> Vec<(String, KafkaError)> {
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let reply = client.call(ApiKey::CreateTopics, 7, &request);
    let answer: CreateTopicsResponse<'_> = reply.body();
    let mut outcomes = Vec::new();
    for topic in &answer.topics {
        assert_eq!(topic.error_code.is_err(), topic.error_message.is_some(), "{topic:?}");
        outcomes.push((topic.name.to_string(), topic.error_code));
    }
    outcomes.sort();
    outcomes
}

#[test]
fn topics_of_one_request_are_created_independently() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("exists", 1, &[]);
    let requested = vec![
        topic("a-plain", 2),
        CreatableTopic { replication_factor: -1, ..topic("b-default", -1) },
        assigned("c-assigned", &[(1, 0), (0, 0)]),
        configured("d-config", "retention.ms", Some("5000")),
        topic("exists", 1),
        topic("f no name", 1),
        topic("g-none", 0),
        topic("h-many", 200_000),
        CreatableTopic { replication_factor: 3, ..topic("i-replicas", 1) },
        CreatableTopic { replication_factor: 0, ..topic("j-replicas", 1) },
        assigned("k-stranger", &[(0, 5)]),
        assigned("l-gap", &[(0, 0), (2, 0)]),
        CreatableTopic { num_partitions: 1, ..assigned("m-both", &[(0, 0)]) },
        configured("n-config", "retenton.ms", Some("5000")),
        configured("o-config", "retention.ms", Some("soon")),
        configured("p-config", "retention.ms", None),
        topic("q-twice", 1),
        topic("q-twice", 2),
    ];
    let expected = [
        ("a-plain", NONE),
        ("b-default", NONE),
        ("c-assigned", NONE),
        ("d-config", NONE),
        ("exists", KafkaError::TOPIC_ALREADY_EXISTS),
        ("f no name", KafkaError::INVALID_TOPIC_EXCEPTION),
        ("g-none", KafkaError::INVALID_PARTITIONS),
        ("h-many", KafkaError::INVALID_PARTITIONS),
        ("i-replicas", KafkaError::INVALID_REPLICATION_FACTOR),
        ("j-replicas", KafkaError::INVALID_REPLICATION_FACTOR),
        ("k-stranger", KafkaError::INVALID_REPLICA_ASSIGNMENT),
        ("l-gap", KafkaError::INVALID_REPLICA_ASSIGNMENT),
        ("m-both", KafkaError::INVALID_REQUEST),
        ("n-config", KafkaError::INVALID_CONFIG),
        ("o-config", KafkaError::INVALID_CONFIG),
        ("p-config", KafkaError::INVALID_CONFIG),
        ("q-twice", KafkaError::INVALID_REQUEST),
    ];
    assert_eq!(created(&mut client, requested), expected.map(|(name, error)| (name.to_owned(), error)));
    // The topic is usable at once on every shard.
    let there = native.metadata().topics;
    let there: Vec<_> = there.iter().map(|t| (t.name.as_str(), t.partitions.len())).collect();
    assert_eq!(there, [("a-plain", 2), ("b-default", 3), ("c-assigned", 2), ("d-config", 1), ("exists", 1)]);
    let (mut native, tp) = owner_of(&broker, "c-assigned", 1);
    assert_eq!(native.produced(tp, &["x"]), 0);
    broker.stop();
}

#[test]
fn a_new_topic_is_described_in_the_response_and_a_validated_one_is_not_created() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    for validate_only in [true, false] {
        let requested =
            CreatableTopic { num_partitions: 2, ..configured("orders", "segment.ms", Some("1000")) };
        let request = CreateTopicsRequest { topics: vec![requested], validate_only, ..Default::default() };
        let reply = client.call(ApiKey::CreateTopics, 7, &request);
        let answer: CreateTopicsResponse<'_> = reply.body();
        let reported = &answer.topics[0];
        assert_eq!((reported.error_code, reported.num_partitions, reported.replication_factor), (NONE, 2, 1));
        let configs = reported.configs.as_ref().expect("configs");
        let of = |name: &str| {
            let config = configs.iter().find(|c| c.name == name).expect("all are described");
            (config.value.as_deref().expect("a value"), config.config_source)
        };
        assert_eq!(of("segment.ms"), ("1000", 1));
        assert_eq!(of("cleanup.policy"), ("delete", 5));
        if validate_only {
            assert_eq!(reported.topic_id, [0; 16]);
            assert!(native.metadata().topics.is_empty());
        } else {
            assert_eq!(TopicId(reported.topic_id), native.describe("orders").id);
        }
    }
    broker.stop();
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("a", 1, &[]);
    let b = native.created("b", 1, &[]).0;
    let c = native.created("c", 1, &[]).0;
    let request = DeleteTopicsRequest { topic_names: vec!["a", "nowhere"], ..Default::default() };
    let reply = client.call(ApiKey::DeleteTopics, 5, &request);
    let answer: DeleteTopicsResponse<'_> = reply.body();
    let mut reported: Vec<_> = answer.responses.iter().map(|r| (r.name.as_deref(), r.error_code)).collect();
    reported.sort();
    assert_eq!(reported, [(Some("a"), NONE), (Some("nowhere"), KafkaError::UNKNOWN_TOPIC_OR_PARTITION)]);

    let by = |name, topic_id| DeleteTopic { name, topic_id };
    let none = [0; 16];
    let request = DeleteTopicsRequest {
        topics: vec![
            by(None, b),
            by(Some("c"), none),
            by(None, c),
            by(None, [9; 16]),
            by(Some("b"), b),
            by(None, none),
        ],
        ..Default::default()
    };
    let reply = client.call(ApiKey::DeleteTopics, 6, &request);
    let answer: DeleteTopicsResponse<'_> = reply.body();
    let mut reported: Vec<_> =
        answer.responses.iter().map(|r| (r.name.as_deref(), r.topic_id, r.error_code)).collect();
    reported.sort();
    let invalid = KafkaError::INVALID_REQUEST;
    assert_eq!(
        reported,
        [
            (None, none, invalid),
            (None, [9; 16], KafkaError::UNKNOWN_TOPIC_ID),
            (Some("b"), b, NONE),
            (Some("b"), b, invalid),
            (Some("c"), c, invalid),
        ]
    );
    let left: Vec<_> = native.metadata().topics.into_iter().map(|t| t.name).collect();
    assert_eq!(left, ["c"]);
    broker.stop();
}

#[test]
fn topics_get_more_partitions_and_never_fewer() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    for name in ["a", "b", "c", "d", "e"] {
        native.created(name, 2, &[]);
    }
    let more = |name, count, nodes: Option<&[i32]>| CreatePartitionsTopic {
        name,
        count,
        assignments: nodes.map(|nodes| {
            nodes.iter().map(|node| CreatePartitionsAssignment { broker_ids: vec![*node] }).collect()
        }),
    };
    let topics = vec![
        more("a", 4, None),
        more("b", 3, Some(&[0])),
        more("c", 2, None),
        more("d", 4, Some(&[0])),
        more("e", 3, Some(&[7])),
        more("nowhere", 3, None),
    ];
    let invalid = KafkaError::INVALID_REPLICA_ASSIGNMENT;
    for (validate_only, a) in [(true, 2), (false, 4)] {
        let request = CreatePartitionsRequest { topics: topics.clone(), validate_only, ..Default::default() };
        let reply = client.call(ApiKey::CreatePartitions, 3, &request);
        let answer: CreatePartitionsResponse<'_> = reply.body();
        let mut reported: Vec<_> = answer.results.iter().map(|r| (&*r.name, r.error_code)).collect();
        reported.sort();
        assert_eq!(
            reported,
            [
                ("a", NONE),
                ("b", NONE),
                ("c", KafkaError::INVALID_PARTITIONS),
                ("d", invalid),
                ("e", invalid),
                ("nowhere", KafkaError::UNKNOWN_TOPIC_OR_PARTITION),
            ]
        );
        assert_eq!(native.describe("a").partitions.len(), a);
    }
    assert_eq!(native.describe("b").partitions.len(), 3);
    broker.stop();
}

#[test]
fn records_are_deleted_up_to_an_offset_or_all() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 3, &[]);
    for number in 0..3 {
        let (mut native, tp) = owner_of(&broker, "orders", number);
        native.produced(tp, &["a", "b", "c"]);
    }
    let to = |partition_index, offset| DeleteRecordsPartition { partition_index, offset };
    let request = DeleteRecordsRequest {
        topics: vec![
            DeleteRecordsTopic { name: "orders", partitions: vec![to(0, 2), to(1, -1), to(2, 9), to(3, 0)] },
            DeleteRecordsTopic { name: "nowhere", partitions: vec![to(0, 0)] },
        ],
        ..Default::default()
    };
    let reply = client.call(ApiKey::DeleteRecords, 2, &request);
    let answer: DeleteRecordsResponse<'_> = reply.body();
    let reported: Vec<_> = answer
        .topics
        .iter()
        .flat_map(|t| &t.partitions)
        .map(|p| (p.partition_index, p.low_watermark, p.error_code))
        .collect();
    let (range, unknown) = (KafkaError::OFFSET_OUT_OF_RANGE, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
    let expected = [(0, 2, NONE), (1, 3, NONE), (2, -1, range), (3, -1, unknown), (0, -1, unknown)];
    assert_eq!(reported, expected);
    // A partition that is listed twice is ambiguous.
    let topic = DeleteRecordsTopic { name: "orders", partitions: vec![to(0, 3), to(2, -7), to(0, 3)] };
    let request = DeleteRecordsRequest { topics: vec![topic], ..Default::default() };
    let reply = client.call(ApiKey::DeleteRecords, 2, &request);
    let answer: DeleteRecordsResponse<'_> = reply.body();
    let errors: Vec<_> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(errors, [KafkaError::INVALID_REQUEST, range, KafkaError::INVALID_REQUEST]);
    let (mut owner, tp) = owner_of(&broker, "orders", 0);
    assert_eq!(owner.read_all(tp, 2), [(2, "c".to_owned())]);
    native.created("compacted", 1, &[("cleanup.policy", "compact")]);
    let topic = DeleteRecordsTopic { name: "compacted", partitions: vec![to(0, 0)] };
    let request = DeleteRecordsRequest { topics: vec![topic], ..Default::default() };
    let reply = client.call(ApiKey::DeleteRecords, 0, &request);
    let answer: DeleteRecordsResponse<'_> = reply.body();
    assert_eq!(answer.topics[0].partitions[0].error_code, KafkaError::POLICY_VIOLATION);
    let start = |partition: &PartitionDetail| partition.log.expect("it is led here").log_start.0;
    let starts: Vec<_> = native.describe("orders").partitions.iter().map(start).collect();
    assert_eq!(starts, [2, 3, 0]);
    broker.stop();
}
