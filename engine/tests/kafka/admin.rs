//! Topics and configurations as Kafka's tools meet them, on a simulated broker.

use crate::client::{Answer, Kafka};
use crate::common::simulated::{Settings, SimBroker};
use crate::common::{Client, partition};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    AlterConfigsConfig, AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse, CreatableAssignment,
    CreatableConfig, CreatableTopic, CreatePartitionsAssignment, CreatePartitionsRequest,
    CreatePartitionsResponse, CreatePartitionsTopic, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic, DeleteTopic,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResponse, DescribedConfig, IncrementalAlterConfigsConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse,
};
use highwater_protocol::ids::{TopicId, TopicPartition};

const NONE: KafkaError = KafkaError::NONE;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn start() -> SimBroker {
    SimBroker::with(Settings { default_partitions: 3, ..Settings::default() })
}

fn both(broker: &SimBroker) -> (Kafka, Client) {
    (broker.kafka(), broker.native())
}

/// A native connection to the shard that has a partition, and that partition.
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

/// Names and errors, by name.
fn created(client: &mut Kafka, topics: Vec<CreatableTopic<'_>>) -> Vec<(String, KafkaError)> {
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
fn topics_of_one_request_are_created_each_for_itself() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("exists", 1, &[]);
    let wanted = vec![
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
    assert_eq!(created(&mut client, wanted), expected.map(|(name, error)| (name.to_owned(), error)));
    // Usable at once, on every shard.
    let there = native.metadata().topics;
    let there: Vec<_> = there.iter().map(|t| (t.name.as_str(), t.partitions.len())).collect();
    assert_eq!(there, [("a-plain", 2), ("b-default", 3), ("c-assigned", 2), ("d-config", 1), ("exists", 1)]);
    let (mut native, tp) = owner_of(&broker, "c-assigned", 1);
    assert_eq!(native.produced(tp, &["x"]), 0);
    broker.stop();
}

#[test]
fn a_new_topic_is_described_in_the_answer_and_one_that_is_only_checked_is_not_there() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    for validate_only in [true, false] {
        let wanted = CreatableTopic { num_partitions: 2, ..configured("orders", "segment.ms", Some("1000")) };
        let request = CreateTopicsRequest { topics: vec![wanted], validate_only, ..Default::default() };
        let reply = client.call(ApiKey::CreateTopics, 7, &request);
        let answer: CreateTopicsResponse<'_> = reply.body();
        let told = &answer.topics[0];
        assert_eq!((told.error_code, told.num_partitions, told.replication_factor), (NONE, 2, 1));
        let configs = told.configs.as_ref().expect("configs");
        let of = |name: &str| {
            let config = configs.iter().find(|c| c.name == name).expect("all are told");
            (config.value.as_deref().expect("a value"), config.config_source)
        };
        assert_eq!(of("segment.ms"), ("1000", 1));
        assert_eq!(of("cleanup.policy"), ("delete", 5));
        if validate_only {
            assert_eq!(told.topic_id, [0; 16]);
            assert!(native.metadata().topics.is_empty());
        } else {
            assert_eq!(TopicId(told.topic_id), native.describe("orders").id);
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
    let mut told: Vec<_> = answer.responses.iter().map(|r| (r.name.as_deref(), r.error_code)).collect();
    told.sort();
    assert_eq!(told, [(Some("a"), NONE), (Some("nowhere"), KafkaError::UNKNOWN_TOPIC_OR_PARTITION)]);

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
    let mut told: Vec<_> =
        answer.responses.iter().map(|r| (r.name.as_deref(), r.topic_id, r.error_code)).collect();
    told.sort();
    let invalid = KafkaError::INVALID_REQUEST;
    assert_eq!(
        told,
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
        let mut told: Vec<_> = answer.results.iter().map(|r| (&*r.name, r.error_code)).collect();
        told.sort();
        assert_eq!(
            told,
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
    let told: Vec<_> = answer
        .topics
        .iter()
        .flat_map(|t| &t.partitions)
        .map(|p| (p.partition_index, p.low_watermark, p.error_code))
        .collect();
    let (range, unknown) = (KafkaError::OFFSET_OUT_OF_RANGE, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
    let expected = [(0, 2, NONE), (1, 3, NONE), (2, -1, range), (3, -1, unknown), (0, -1, unknown)];
    assert_eq!(told, expected);
    // Of a partition that is named twice nobody knows which is meant.
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
    let starts: Vec<_> = native.describe("orders").partitions.iter().map(|p| p.log_start.0).collect();
    assert_eq!(starts, [2, 3, 0]);
    broker.stop();
}

fn described(client: &mut Kafka, version: i16, resource: DescribeConfigsResource<'_>) -> Answer {
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    client.call(ApiKey::DescribeConfigs, version, &request)
}

fn resource(kind: i8, name: &str) -> DescribeConfigsResource<'_> {
    DescribeConfigsResource { resource_type: kind, resource_name: name, configuration_keys: None }
}

fn entry<'a>(answer: &'a DescribeConfigsResponse<'_>, name: &str) -> &'a DescribedConfig<'a> {
    let entry = answer.results[0].configs.iter().find(|c| c.name == name);
    entry.unwrap_or_else(|| panic!("there is no {name}"))
}

#[test]
fn configurations_are_described_with_defaults_sources_and_types() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[("retention.ms", "5000")]);
    for version in 1..=4 {
        let reply = described(&mut client, version, resource(TOPIC, "orders"));
        let answer: DescribeConfigsResponse<'_> = reply.body();
        assert_eq!(answer.results[0].error_code, NONE);
        assert_eq!(answer.results[0].configs.len(), 38, "all of them");
        let retention = entry(&answer, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5000"), 1));
        let synonyms: Vec<_> =
            retention.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
        let default = ("log.retention.ms", Some("604800000"), 5);
        assert_eq!(synonyms, [("retention.ms", Some("5000"), 1), default]);
        let policy = entry(&answer, "cleanup.policy");
        assert_eq!(
            (policy.value.as_deref(), policy.config_source, policy.read_only),
            (Some("delete"), 5, false)
        );
        if version >= 3 {
            assert_eq!((retention.config_type, policy.config_type), (5, 7));
            assert!(policy.documentation.as_ref().is_some_and(|text| text.contains("deleted")));
        }
    }
    let some = DescribeConfigsResource {
        configuration_keys: Some(vec!["retention.ms", "no.such"]),
        ..resource(TOPIC, "orders")
    };
    let reply = described(&mut client, 4, some);
    let answer: DescribeConfigsResponse<'_> = reply.body();
    assert_eq!(answer.results[0].configs.len(), 1);

    let none = DescribeConfigsResource { configuration_keys: Some(vec![]), ..resource(TOPIC, "orders") };
    let reply = described(&mut client, 4, none);
    let answer: DescribeConfigsResponse<'_> = reply.body();
    assert_eq!(answer.results[0].configs.len(), 38, "to Kafka an empty list means all of them");

    let reply = described(&mut client, 4, resource(BROKER, "0"));
    let answer: DescribeConfigsResponse<'_> = reply.body();
    for (name, value) in [
        ("default.replication.factor", "1"),
        ("num.partitions", "3"),
        ("auto.create.topics.enable", "true"),
        ("log.retention.ms", "604800000"),
        ("log.cleanup.policy", "delete"),
        ("offsets.retention.minutes", "10080"),
        ("group.initial.rebalance.delay.ms", "3000"),
        ("message.max.bytes", "1048588"),
        ("log.retention.hours", "168"),
        ("log.cleaner.enable", "false"),
        ("num.io.threads", "2"),
        ("socket.request.max.bytes", "105906176"),
        ("group.consumer.assignors", "uniform,range"),
        ("replica.fetch.max.bytes", "1048576"),
    ] {
        let entry = entry(&answer, name);
        assert_eq!((entry.value.as_deref(), entry.read_only), (Some(value), true), "{name}");
    }
    let names: Vec<_> = answer.results[0].configs.iter().map(|config| &config.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "each name once: {names:?}");
    assert!(names.len() >= 140, "{}", names.len());
    assert_eq!(entry(&answer, "broker.rack").value, None);
    for (kind, name, error) in [
        (TOPIC, "nowhere", KafkaError::UNKNOWN_TOPIC_OR_PARTITION),
        (BROKER, "7", KafkaError::INVALID_REQUEST),
        (BROKER, "", NONE),
        (8, "0", KafkaError::INVALID_REQUEST),
        (32, "any", NONE),
    ] {
        let reply = described(&mut client, 4, resource(kind, name));
        let answer: DescribeConfigsResponse<'_> = reply.body();
        assert_eq!(answer.results[0].error_code, error, "{kind} {name}");
    }
    broker.stop();
}

fn values(client: &mut Kafka, names: &[&str]) -> Vec<String> {
    let reply = described(client, 4, resource(TOPIC, "orders"));
    let answer: DescribeConfigsResponse<'_> = reply.body();
    names.iter().map(|name| entry(&answer, name).value.clone().expect("a value").into_owned()).collect()
}

fn changed(
    client: &mut Kafka,
    resources: Vec<IncrementalAlterConfigsResource<'_>>,
    validate_only: bool,
) -> Vec<KafkaError> {
    send_change(client, resources, validate_only);
    read_changed(client)
}

fn send_change(client: &mut Kafka, resources: Vec<IncrementalAlterConfigsResource<'_>>, validate_only: bool) {
    let request = IncrementalAlterConfigsRequest { resources, validate_only };
    client.send(ApiKey::IncrementalAlterConfigs, 1, &request);
}

fn read_changed(client: &mut Kafka) -> Vec<KafkaError> {
    let reply = client.read(ApiKey::IncrementalAlterConfigs, 1).expect("the connection stays");
    let answer: IncrementalAlterConfigsResponse<'_> = reply.body();
    answer.responses.iter().map(|r| r.error_code).collect()
}

fn change<'a>(
    kind: i8,
    resource: &'a str,
    entries: &[(i8, &'a str, Option<&'a str>)],
) -> IncrementalAlterConfigsResource<'a> {
    let configs = entries
        .iter()
        .map(|(config_operation, name, value)| IncrementalAlterConfigsConfig {
            name,
            config_operation: *config_operation,
            value: *value,
        })
        .collect();
    IncrementalAlterConfigsResource { resource_type: kind, resource_name: resource, configs }
}

#[test]
fn configurations_are_changed_entry_by_entry() {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[("retention.ms", "5000")]);
    let replicas = "leader.replication.throttled.replicas";
    let names = ["retention.ms", "segment.ms", replicas];
    let of_orders = |entries: &[_]| vec![change(TOPIC, "orders", entries)];

    let set = [(SET, "segment.ms", Some("1000")), (APPEND, replicas, Some("0:1,0:2"))];
    assert_eq!(changed(&mut client, of_orders(&set), true), [NONE]);
    assert_eq!(values(&mut client, &names), ["5000", "604800000", ""]);
    assert_eq!(changed(&mut client, of_orders(&set), false), [NONE]);
    assert_eq!(values(&mut client, &names), ["5000", "1000", "0:1,0:2"]);
    let more = [
        (DELETE, "retention.ms", None),
        (DELETE, "segment.bytes", None),
        (APPEND, replicas, Some("0:2,0:3")),
    ];
    assert_eq!(changed(&mut client, of_orders(&more), false), [NONE]);
    assert_eq!(values(&mut client, &names), ["604800000", "1000", "0:1,0:2,0:3"]);
    let less = [(SUBTRACT, replicas, Some("0:1,0:3,0:9"))];
    assert_eq!(changed(&mut client, of_orders(&less), false), [NONE]);
    assert_eq!(values(&mut client, &names), ["604800000", "1000", "0:2"]);

    let (config, request) = (KafkaError::INVALID_CONFIG, KafkaError::INVALID_REQUEST);
    for (entries, error) in [
        (vec![(SET, "retenton.ms", Some("1"))], config),
        (vec![(DELETE, "retenton.ms", None)], NONE),
        (vec![(SET, "retention.ms", Some("soon"))], config),
        (vec![(APPEND, "retention.ms", Some("1"))], config),
        (vec![(SET, "retention.ms", None)], request),
        (vec![(9, "retention.ms", Some("1"))], request),
        (vec![(SET, "retention.ms", Some("1")), (DELETE, "retention.ms", None)], request),
    ] {
        assert_eq!(changed(&mut client, of_orders(&entries), false), [error], "{entries:?}");
    }
    // One that is wrong does not keep the others from being done.
    let one = [(SET, "retention.ms", Some("7000"))];
    let resources = vec![
        change(TOPIC, "nowhere", &one),
        change(TOPIC, "orders", &one),
        change(BROKER, "0", &[(SET, "num.partitions", Some("5"))]),
        change(BROKER, "0", &[(SET, "num.partitions", Some("6"))]),
        change(32, "readers", &[(SET, "consumer.session.timeout.ms", Some("6000"))]),
    ];
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(changed(&mut client, resources, false), [unknown, NONE, request, request, config]);
    assert_eq!(values(&mut client, &names)[0], "7000");
    broker.stop();
}

#[test]
fn a_configuration_is_replaced_as_a_whole() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[("retention.ms", "5000"), ("preallocate", "true")]);
    let mut replace = |kind, name, entries: &[(&'static str, Option<&'static str>)], validate_only| {
        let configs =
            entries.iter().map(|(name, value)| AlterConfigsConfig { name, value: *value }).collect();
        let resource = AlterConfigsResource { resource_type: kind, resource_name: name, configs };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only };
        let reply = client.call(ApiKey::AlterConfigs, 2, &request);
        let error = reply.body::<AlterConfigsResponse<'_>>().responses[0].error_code;
        (error, values(&mut client, &["retention.ms", "segment.ms", "preallocate"]))
    };
    let before = ["5000", "604800000", "true"].map(str::to_owned).to_vec();
    let after = ["604800000", "1000", "false"].map(str::to_owned).to_vec();
    let wanted = [("segment.ms", Some("1000"))];
    assert_eq!(replace(TOPIC, "orders", &wanted, true), (NONE, before.clone()));
    let wrong = [("segment.ms", Some("0"))];
    assert_eq!(replace(TOPIC, "orders", &wrong, false), (KafkaError::INVALID_CONFIG, before.clone()));
    let nothing = [("segment.ms", None)];
    assert_eq!(replace(TOPIC, "orders", &nothing, false), (KafkaError::INVALID_REQUEST, before.clone()));
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(replace(TOPIC, "nowhere", &wanted, false), (unknown, before));
    assert_eq!(replace(TOPIC, "orders", &wanted, false), (NONE, after.clone()));
    assert_eq!(replace(BROKER, "0", &wanted, false), (KafkaError::INVALID_REQUEST, after));
    broker.stop();
}

#[test]
fn changes_of_one_list_at_the_same_moment_are_all_made() {
    const APPEND: i8 = 2;
    const CLIENTS: usize = 4;
    const EACH: usize = 25;
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[]);
    let replicas = "leader.replication.throttled.replicas";
    // Connections are dealt out to both shards. Each has a request on its way at any time.
    let mut clients: Vec<Kafka> = (0..CLIENTS).map(|_| broker.kafka()).collect();
    for at in 0..EACH {
        for (number, client) in clients.iter_mut().enumerate() {
            let entry = format!("{number}:{at}");
            let more = [(APPEND, replicas, Some(&*entry))];
            send_change(client, vec![change(TOPIC, "orders", &more)], false);
        }
        for client in &mut clients {
            assert_eq!(read_changed(client), [NONE]);
        }
    }
    let value = values(&mut client, &[replicas]).remove(0);
    assert_eq!(value.split(',').count(), CLIENTS * EACH, "{value}");
    broker.stop();
}
