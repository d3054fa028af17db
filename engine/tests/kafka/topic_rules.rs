//! Rules for names and settings of topics: Kafka's, with Kafka's messages, in both protocols.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatableConfig, CreatableTopic, CreatePartitionsRequest, CreatePartitionsResponse,
    CreatePartitionsTopic, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsPartition,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic, DescribeConfigsRequest,
    DescribeConfigsResource, DescribeConfigsResponse, MetadataRequest, MetadataRequestTopic,
    MetadataResponse,
};
use highwater_protocol::error::ErrorCode;

use crate::client::Kafka;
use crate::common::simulated::SimBroker;

const INVALID_TOPIC: KafkaError = KafkaError::INVALID_TOPIC_EXCEPTION;
const RESERVED: [&str; 4] =
    ["__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"];

fn topic(name: &str) -> CreatableTopic<'_> {
    CreatableTopic { name, num_partitions: 1, replication_factor: 1, ..Default::default() }
}

/// Returns the error and the message for one topic.
fn create(kafka: &mut Kafka, topic: CreatableTopic<'_>) -> (KafkaError, String) {
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let answer = kafka.call(ApiKey::CreateTopics, 7, &request);
    let response: CreateTopicsResponse<'_> = answer.body();
    let topic = &response.topics[0];
    (topic.error_code, topic.error_message.clone().unwrap_or_default().into_owned())
}

fn auto_created(kafka: &mut Kafka, name: &str) -> (KafkaError, usize) {
    let topics = vec![MetadataRequestTopic { topic_id: [0; 16], name: Some(name) }];
    let request =
        MetadataRequest { topics: Some(topics), allow_auto_topic_creation: true, ..Default::default() };
    let answer = kafka.call(ApiKey::Metadata, 9, &request);
    let response: MetadataResponse<'_> = answer.body();
    (response.topics[0].error_code, response.topics[0].partitions.len())
}

#[test]
fn names_of_kafkas_own_topics_are_reserved_in_both_protocols() {
    let broker = SimBroker::start();
    let (mut kafka, mut native) = (broker.kafka(), broker.native());
    for name in RESERVED {
        assert_eq!(auto_created(&mut kafka, name), (KafkaError::UNKNOWN_TOPIC_OR_PARTITION, 0), "{name}");
        let (error, text) = create(&mut kafka, topic(name));
        assert_eq!(error, INVALID_TOPIC, "{name}");
        assert!(text.contains(name) && text.contains("reserved"), "{text}");
        let (code, text) = native.create_topic(name, 1, &[]).err();
        assert_eq!(code, ErrorCode::InvalidTopicName);
        assert!(text.contains(name) && text.contains("reserved"), "{text}");
    }
    assert!(native.metadata().topics.is_empty());
    // Other names with the same prefix are allowed.
    assert_eq!(create(&mut kafka, topic("__consumer_offset")).0, KafkaError::NONE);
}

#[test]
fn names_that_differ_in_dots_and_underscores_alone_collide() {
    let broker = SimBroker::start();
    broker.native().created("a.b_c", 1, &[]);
    for round in 0..2 {
        let (mut kafka, mut native) = (broker.kafka(), broker.native());
        let (error, text) = create(&mut kafka, topic("a_b.c"));
        assert_eq!(error, INVALID_TOPIC);
        assert_eq!(text, "Topic 'a_b.c' collides with existing topic: a.b_c");
        assert_eq!(native.create_topic("a_b_c", 1, &[]).err().0, ErrorCode::InvalidTopicName);
        assert_eq!(auto_created(&mut kafka, "a.b.c"), (INVALID_TOPIC, 0));
        assert_eq!(create(&mut kafka, topic("a.b_c")).0, KafkaError::TOPIC_ALREADY_EXISTS);
        if round == 0 {
            broker.restart();
        }
    }
    let (mut kafka, mut native) = (broker.kafka(), broker.native());
    native.delete_topic("a.b_c").ok();
    assert_eq!(create(&mut kafka, topic("a_b.c")).0, KafkaError::NONE);
    assert_eq!(create(&mut kafka, topic("a-b-c")).0, KafkaError::NONE, "only these two are alike");
}

#[test]
fn refusals_use_kafkas_words() {
    let broker = SimBroker::start();
    let (mut kafka, mut native) = (broker.kafka(), broker.native());
    native.created("t1", 2, &[]);
    let exists = "Topic 't1' already exists.";
    assert_eq!(create(&mut kafka, topic("t1")), (KafkaError::TOPIC_ALREADY_EXISTS, exists.to_owned()));
    assert_eq!(native.create_topic("t1", 1, &[]).err(), (ErrorCode::TopicExists, exists.to_owned()));
    let setting = |name, value| CreatableConfig { name, value };
    for (requested, says) in [
        (topic("a b"), "Topic name is invalid"),
        (topic(""), "the empty string is not allowed"),
        (CreatableTopic { num_partitions: 0, ..topic("n") }, "invalid non-positive value"),
        (CreatableTopic { replication_factor: 0, ..topic("n") }, "Replication factor must be larger than 0"),
        (
            CreatableTopic { replication_factor: 3, ..topic("n") },
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached \
             because only 1 broker(s) are registered.",
        ),
        (
            CreatableTopic { configs: vec![setting("retenton.ms", Some("1"))], ..topic("n") },
            "Unknown topic config name: retenton.ms",
        ),
        (
            CreatableTopic { configs: vec![setting("preallocate", Some("yes"))], ..topic("n") },
            "Invalid value yes for configuration preallocate: Expected value to be either true or false",
        ),
        (
            CreatableTopic { configs: vec![setting("retention.ms", None)], ..topic("n") },
            "Null value not supported for topic configs: retention.ms",
        ),
    ] {
        let (error, text) = create(&mut kafka, requested);
        assert!(error.is_err() && text.contains(says), "{error}: {text}");
    }
    for (count, says) in [
        (2, "Topic already has 2 partition(s)."),
        (1, "The topic t1 currently has 2 partition(s); 1 would not be an increase."),
    ] {
        let more = CreatePartitionsTopic { name: "t1", count, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![more], ..Default::default() };
        let answer = kafka.call(ApiKey::CreatePartitions, 3, &request);
        let response: CreatePartitionsResponse<'_> = answer.body();
        assert_eq!(response.results[0].error_code, KafkaError::INVALID_PARTITIONS);
        assert_eq!(response.results[0].error_message.as_deref(), Some(says));
    }
}

fn value(kafka: &mut Kafka, topic: &str, name: &str) -> String {
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: topic,
        configuration_keys: Some(vec![name]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = kafka.call(ApiKey::DescribeConfigs, 4, &request);
    let response: DescribeConfigsResponse<'_> = answer.body();
    response.results[0].configs[0].value.clone().expect("a value").into_owned()
}

#[test]
fn settings_are_parsed_as_in_kafka() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    let given = [
        ("preallocate", "True"),
        ("retention.ms", "7"),
        ("cleanup.policy", ""),
        ("max.message.bytes", "52428800"),
        // If a name is given twice, the last value counts.
        ("retention.ms", " 1000 "),
    ];
    let configs = given.map(|(name, value)| CreatableConfig { name, value: Some(value) }).to_vec();
    let (error, text) = create(&mut kafka, CreatableTopic { configs, ..topic("t") });
    assert_eq!(error, KafkaError::NONE, "{text}");
    for (name, kept) in [
        ("preallocate", "true"),
        ("retention.ms", "1000"),
        ("cleanup.policy", ""),
        ("max.message.bytes", "52428800"),
    ] {
        assert_eq!(value(&mut kafka, "t", name), kept, "{name}");
    }
    // A topic without a policy is not compacted, and its records can be deleted on request.
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }];
    let topics = vec![DeleteRecordsTopic { name: "t", partitions }];
    let request = DeleteRecordsRequest { topics, ..Default::default() };
    let answer = kafka.call(ApiKey::DeleteRecords, 2, &request);
    let response: DeleteRecordsResponse<'_> = answer.body();
    assert_eq!(response.topics[0].partitions[0].error_code, KafkaError::NONE);
    // The native protocol parses them in the same way.
    broker.native().created("n", 1, &[("preallocate", " TRUE")]);
    assert_eq!(value(&mut kafka, "n", "preallocate"), "true");
}
