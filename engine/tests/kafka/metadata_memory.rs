//! The number of topics and partitions is limited by the broker's memory.

use std::path::Path;

use highwater_engine::{Broker, BrokerConfig, HostKind};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatableTopic, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::AlterTopicRequest;

use crate::client::Kafka;
use crate::common::{Client, stop};

const MIB: u64 = 1 << 20;

fn start(dir: &Path, memory_bytes: u64) -> Broker {
    let config = BrokerConfig {
        data_dir: dir.join("data"),
        listen: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        kafka_listen: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        default_partitions: 9000,
        memory_bytes: Some(memory_bytes),
        cores: Some(1),
        host: HostKind::Thread,
        stop_on_signals: false,
        ..BrokerConfig::default()
    };
    Broker::start(config).expect("it starts")
}

fn says_what_is_needed(text: &str, memory: &str, max: usize) -> bool {
    text.contains(memory) && text.contains(&max.to_string()) && text.contains("or start it with --memory")
}

fn topic(name: &str, num_partitions: i32) -> CreatableTopic<'_> {
    CreatableTopic { name, num_partitions, replication_factor: 1, ..Default::default() }
}

#[test]
fn creating_more_partitions_than_memory_allows_fails_and_existing_ones_are_served() {
    let dir = tempfile::tempdir().expect("a directory");
    // Metadata may use an eighth of it, at 1 KiB each: a topic of 20,000 partitions leaves room for 4,575.
    let broker = start(dir.path(), 192 * MIB);
    assert!(broker.ready().warnings.is_empty(), "{:?}", broker.ready().warnings);
    let mut native = Client::connect(broker.native_addr());
    let mut kafka = Kafka::connect(broker.kafka_addr().expect("it has one"));
    let says = |text: &str| says_what_is_needed(text, "--memory 192MiB", 24_576);
    native.created("wide", 20_000, &[]);

    let (code, text) = native.create_topic("more", 4_575, &[]).err();
    assert!(code == ErrorCode::InvalidArgument && says(&text), "{code:?}: {text}");
    let alter =
        AlterTopicRequest { name: "wide".into(), configs: Vec::new(), partitions: Some(20_000 + 4_576) };
    let (code, text) = native.call(&alter).err();
    assert!(code == ErrorCode::InvalidArgument && says(&text), "{code:?}: {text}");

    let body = CreateTopicsRequest {
        topics: vec![topic("more", 4_575), topic("few", 100)],
        timeout_ms: 60_000,
        ..Default::default()
    };
    let answer = kafka.call(ApiKey::CreateTopics, 7, &body);
    let response: CreateTopicsResponse<'_> = answer.body();
    let [more, few] = &response.topics[..] else { panic!("{response:?}") };
    let text = more.error_message.as_deref().unwrap_or_default();
    assert!(more.error_code == KafkaError::INVALID_PARTITIONS && says(text), "{more:?}");
    assert_eq!(few.error_code, KafkaError::NONE);

    let topics = vec![CreatePartitionsTopic { name: "few", count: 4_576, assignments: None }];
    let body = CreatePartitionsRequest { topics, timeout_ms: 60_000, validate_only: false };
    let answer = kafka.call(ApiKey::CreatePartitions, 3, &body);
    let response: CreatePartitionsResponse<'_> = answer.body();
    let text = response.results[0].error_message.as_deref().unwrap_or_default();
    let refused = response.results[0].error_code == KafkaError::INVALID_PARTITIONS;
    assert!(refused && says(text), "{response:?}");

    let requested = MetadataRequestTopic { topic_id: [0; 16], name: Some("made") };
    let body = MetadataRequest {
        topics: Some(vec![requested]),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let answer = kafka.call(ApiKey::Metadata, 9, &body);
    let response: MetadataResponse<'_> = answer.body();
    assert_eq!(response.topics[0].error_code, KafkaError::INVALID_PARTITIONS);

    // A topic that fits exactly is created, and then no other until one is deleted.
    native.created("last", 24_576 - 20_000 - 100 - 3, &[]);
    assert_eq!(native.create_topic("one", 1, &[]).err().0, ErrorCode::InvalidArgument);
    native.delete_topic("last").ok();
    stop(broker);

    let broker = start(dir.path(), 96 * MIB);
    let [warning] = &broker.ready().warnings[..] else { panic!("{:?}", broker.ready().warnings) };
    assert!(warning.contains("--memory 96MiB") && warning.contains("12288"), "{warning}");
    assert!(warning.contains("--memory 158MiB or more"), "{warning}");
    let mut native = Client::connect(broker.native_addr());
    assert_eq!(native.describe("wide").partitions.len(), 20_000);
    assert_eq!(native.create_topic("one", 1, &[]).err().0, ErrorCode::InvalidArgument);
    native.delete_topic("wide").ok();
    stop(broker);
    let broker = start(dir.path(), 96 * MIB);
    assert!(broker.ready().warnings.is_empty(), "{:?}", broker.ready().warnings);
    Client::connect(broker.native_addr()).created("one", 1, &[]);
    stop(broker);
}

/// Validates a topic with this many partitions. Returns the error and its text.
fn validate(kafka: &mut Kafka, name: &str, count: i32) -> (KafkaError, String) {
    let topics = vec![CreatePartitionsTopic { name, count, assignments: None }];
    let body = CreatePartitionsRequest { topics, timeout_ms: 60_000, validate_only: true };
    let answer = kafka.call(ApiKey::CreatePartitions, 3, &body);
    let response: CreatePartitionsResponse<'_> = answer.body();
    let text = response.results[0].error_message.as_deref().unwrap_or_default();
    (response.results[0].error_code, text.to_owned())
}

#[test]
fn a_request_that_is_only_validated_has_the_same_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 96 * MIB);
    let mut native = Client::connect(broker.native_addr());
    let mut kafka = Kafka::connect(broker.kafka_addr().expect("it has one"));
    let says = |text: &str| says_what_is_needed(text, "--memory 96MiB", 12_288);
    native.created("few", 100, &[]);

    let (error, text) = validate(&mut kafka, "few", 12_288);
    assert!(error == KafkaError::INVALID_PARTITIONS && says(&text), "{error}: {text}");
    assert_eq!(validate(&mut kafka, "few", 12_287).0, KafkaError::NONE);

    let topics = vec![topic("fits", 12_186), topic("more", 12_187)];
    let body = CreateTopicsRequest { topics, timeout_ms: 60_000, validate_only: true };
    let answer = kafka.call(ApiKey::CreateTopics, 7, &body);
    let response: CreateTopicsResponse<'_> = answer.body();
    let [fits, more] = &response.topics[..] else { panic!("{response:?}") };
    assert_eq!(fits.error_code, KafkaError::NONE, "{fits:?}");
    let text = more.error_message.as_deref().unwrap_or_default();
    assert!(more.error_code == KafkaError::INVALID_PARTITIONS && says(text), "{more:?}");
    assert_eq!(native.describe("few").partitions.len(), 100, "nothing was changed");
    stop(broker);
}
