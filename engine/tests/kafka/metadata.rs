//! Metadata, DescribeCluster and DescribeTopicPartitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor, DescribeTopicPartitionsRequestTopic,
    DescribeTopicPartitionsResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
};

use crate::client::{Answer, Kafka};
use crate::common::simulated::SimBroker;

fn ask(kafka: &mut Kafka, version: i16, names: Option<&[&str]>, create: bool) -> Answer {
    let topic = |name: &&'static str| MetadataRequestTopic { topic_id: [0; 16], name: Some(name) };
    let names: Option<Vec<&'static str>> = names
        .map(|names| names.iter().map(|name| &*Box::leak((*name).to_owned().into_boxed_str())).collect());
    let request = MetadataRequest {
        topics: names.as_ref().map(|names| names.iter().map(topic).collect()),
        allow_auto_topic_creation: create,
        ..Default::default()
    };
    kafka.call(ApiKey::Metadata, version, &request)
}

fn names(answer: &Answer) -> Vec<(String, KafkaError, usize)> {
    let response: MetadataResponse<'_> = answer.body();
    let topics = response.topics.iter();
    topics
        .map(|t| (t.name.as_deref().unwrap_or_default().to_owned(), t.error_code, t.partitions.len()))
        .collect()
}

#[test]
fn metadata_describes_this_broker_and_the_requested_topics() {
    let broker = SimBroker::start();
    let id = broker.native().created("a", 3, &[]);
    broker.native().created("b", 1, &[]);
    let mut kafka = broker.kafka();
    let a = ("a".to_owned(), KafkaError::NONE, 3);
    let b = ("b".to_owned(), KafkaError::NONE, 1);
    for version in 0..=13 {
        assert_eq!(names(&ask(&mut kafka, version, Some(&["b"]), false)), std::slice::from_ref(&b));
        if version > 0 {
            assert_eq!(names(&ask(&mut kafka, version, None, false)), [a.clone(), b.clone()]);
            assert_eq!(names(&ask(&mut kafka, version, Some(&[]), false)), []);
        }
    }
    assert_eq!(names(&ask(&mut kafka, 0, Some(&[]), false)), [a, b]);
    let answer = ask(&mut kafka, 12, None, false);
    let response: MetadataResponse<'_> = answer.body();
    let address = broker.kafka_addr();
    assert_eq!(response.brokers.len(), 1);
    let broker = &response.brokers[0];
    assert_eq!((&broker.host[..], broker.port), (&*address.ip().to_string(), i32::from(address.port())));
    assert_eq!(response.controller_id, broker.node_id);
    assert_eq!(response.cluster_id.as_deref().map(str::len), Some(22));
    assert_eq!(response.topics[0].topic_id, id.0);
    assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
    let partition = &response.topics[0].partitions[2];
    assert_eq!(
        (partition.partition_index, partition.leader_id, partition.leader_epoch),
        (2, broker.node_id, 0)
    );

    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let answer = kafka.call(ApiKey::Metadata, 12, &by_id(id.0));
    assert_eq!(names(&answer), [("a".to_owned(), KafkaError::NONE, 3)]);
    let answer = kafka.call(ApiKey::Metadata, 12, &by_id([9; 16]));
    assert_eq!(answer.body::<MetadataResponse<'_>>().topics[0].error_code, KafkaError::UNKNOWN_TOPIC_ID);
}

#[test]
fn librdkafkas_request_for_all_topics_is_answered_despite_its_three_extra_bytes() {
    let broker = SimBroker::start();
    broker.native().created("a", 1, &[]);
    let mut kafka = broker.kafka();
    // No list of topics, no creation, no operations, no tagged fields, and then extra bytes.
    let body = [0, 0, 0, 0, 1, 0, 0];
    let header = [&[0, 3, 0, 13, 0, 0, 0, 3, 0, 7][..], b"rdkafka", &[0]].concat();
    let length = (header.len() + body.len()) as u32;
    kafka.send_raw(&[&length.to_be_bytes()[..], &header, &body].concat());
    let answer = kafka.read(ApiKey::Metadata, 13).expect("an answer");
    assert_eq!(names(&answer), [("a".to_owned(), KafkaError::NONE, 1)]);
}

#[test]
fn a_requested_topic_is_created_if_the_client_allows_it() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    let unknown = |name: &str| (name.to_owned(), KafkaError::UNKNOWN_TOPIC_OR_PARTITION, 0);
    assert_eq!(names(&ask(&mut kafka, 12, Some(&["new"]), false)), [unknown("new")]);
    let made = |name: &str| (name.to_owned(), KafkaError::NONE, 1);
    let bad = ("b/d".to_owned(), KafkaError::INVALID_TOPIC_EXCEPTION, 0);
    let answer = ask(&mut kafka, 12, Some(&["new", "b/d", "newer", "new"]), true);
    assert_eq!(names(&answer), [made("new"), bad, made("newer")]);
    // Before version 4, clients cannot disallow it.
    assert_eq!(names(&ask(&mut kafka, 3, Some(&["newest"]), true)), [made("newest")]);
    assert_eq!(names(&ask(&mut broker.kafka(), 12, None, false)).len(), 3);
}

#[test]
fn a_topic_that_is_listed_a_hundred_thousand_times_is_described_once() {
    let broker = SimBroker::start();
    let id = broker.native().created("orders", 100, &[]);
    broker.native().created("b", 1, &[]);
    let mut kafka = broker.kafka();
    let mut named: Vec<_> = vec![MetadataRequestTopic { topic_id: [0; 16], name: Some("orders") }; 100_000];
    named.push(MetadataRequestTopic { topic_id: [0; 16], name: Some("b") });
    let request = |topics| MetadataRequest { topics: Some(topics), ..Default::default() };
    let reported = [("orders".to_owned(), KafkaError::NONE, 100), ("b".to_owned(), KafkaError::NONE, 1)];
    assert_eq!(names(&kafka.call(ApiKey::Metadata, 9, &request(named))), reported);
    let by_id = vec![MetadataRequestTopic { topic_id: id.0, name: None }; 100_000];
    assert_eq!(names(&kafka.call(ApiKey::Metadata, 12, &request(by_id))), reported[..1]);
}

#[test]
fn the_cluster_is_described_and_topics_are_described_page_by_page() {
    let broker = SimBroker::start();
    for (name, partitions) in [("a", 3), ("b", 4)] {
        broker.native().created(name, partitions, &[]);
    }
    let mut kafka = broker.kafka();
    for version in 0..=2 {
        let answer = kafka.call(ApiKey::DescribeCluster, version, &DescribeClusterRequest::default());
        let response: DescribeClusterResponse<'_> = answer.body();
        assert_eq!((response.error_code, response.brokers.len()), (KafkaError::NONE, 1));
        assert_eq!(response.cluster_id.len(), 22);
    }
    let mut cursor: Option<(String, i32)> = None;
    let mut seen = Vec::new();
    loop {
        let from = cursor.as_ref().map(|(topic_name, partition_index)| {
            DescribeTopicPartitionsRequestCursor { topic_name, partition_index: *partition_index }
        });
        let topics = ["b", "a", "c"].map(|name| DescribeTopicPartitionsRequestTopic { name });
        let request = DescribeTopicPartitionsRequest {
            topics: topics.to_vec(),
            response_partition_limit: 2,
            cursor: from,
        };
        let answer = kafka.call(ApiKey::DescribeTopicPartitions, 0, &request);
        let response: DescribeTopicPartitionsResponse<'_> = answer.body();
        for topic in &response.topics {
            let name = topic.name.as_deref().unwrap_or_default();
            assert_eq!(topic.error_code.is_err(), name == "c");
            seen.extend(topic.partitions.iter().map(|p| format!("{name}{}", p.partition_index)));
        }
        cursor = response.next_cursor.map(|c| (c.topic_name.into_owned(), c.partition_index));
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a0", "a1", "a2", "b0", "b1", "b2", "b3"]);
}
