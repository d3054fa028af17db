//! Requests with the largest possible fan-out: each is answered, and other clients are served meanwhile.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    OffsetCommitTopic, OffsetFetchGroup, OffsetFetchGroupTopic, OffsetFetchRequest, OffsetFetchResponse,
};
use highwater_net::limits::REQUEST_ENTRIES_MAX;
use highwater_protocol::batch::BatchProducer;

use crate::client::{Fetch, Kafka};
use crate::common::batch;
use crate::common::simulated::SimBroker;
use crate::members::{commit, committed, to_commit};

const NONE: KafkaError = KafkaError::NONE;

/// Maximum number of groups of a broker; a request with more is invalid.
const GROUPS_MAX: usize = 100_000;

/// Fetches the offsets of groups: of one partition, or all.
fn offset_fetch(names: &[String], which: bool) -> OffsetFetchRequest<'_> {
    let topics = || {
        let topic = OffsetFetchGroupTopic { name: "t", topic_id: [0; 16], partition_indexes: vec![0] };
        Some(vec![topic])
    };
    let group = |group_id, topics| OffsetFetchGroup { group_id, topics, ..Default::default() };
    OffsetFetchRequest {
        groups: names.iter().map(|name| group(name.as_str(), which.then(topics).flatten())).collect(),
        ..Default::default()
    }
}

#[test]
fn offsets_of_very_many_groups_are_returned_in_pieces_and_too_many_groups_or_entries_close_the_connection() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    let names: Vec<String> = (0..GROUPS_MAX).map(|n| format!("{n:05}")).collect();
    let some = [0, 255, 256, 79_999];
    for (at, number) in some.into_iter().enumerate() {
        let topic = OffsetCommitTopic {
            name: "t",
            topic_id: [0; 16],
            partitions: vec![to_commit(0, at as i64 + 10)],
        };
        assert_eq!(committed(&mut kafka, 2, &commit(&names[number], vec![topic])), [NONE]);
    }
    // A group, a topic and a partition for each.
    let with_topics = &names[..REQUEST_ENTRIES_MAX / 3 - 2];
    let mut asks = broker.kafka();
    asks.send(ApiKey::OffsetFetch, 8, &offset_fetch(with_topics, true));
    asks.send(ApiKey::OffsetFetch, 8, &offset_fetch(&names, false));
    let mut other = broker.kafka();
    assert_eq!(other.produce("t", &[(0, &batch(&["meanwhile"], BatchProducer::NONE))]), [(NONE, 0)]);
    for (names, which) in [(with_topics, true), (&names[..], false)] {
        let answer = asks.read(ApiKey::OffsetFetch, 8).expect("an answer");
        let response: OffsetFetchResponse<'_> = answer.body();
        assert_eq!(response.groups.len(), names.len());
        for (number, (group, name)) in response.groups.iter().zip(names).enumerate() {
            let committed = some.iter().position(|of| *of == number).map(|at| at as i64 + 10);
            assert_eq!((&*group.group_id, group.error_code), (name.as_str(), NONE));
            let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
            let offsets: Vec<_> = partitions.map(|p| (p.committed_offset, p.error_code)).collect();
            let expected = committed.or(which.then_some(-1)).map(|offset| (offset, NONE));
            assert_eq!(offsets, Vec::from_iter(expected), "{name}");
        }
    }
    let more: Vec<String> = (0..=GROUPS_MAX).map(|n| format!("{n:06}")).collect();
    for request in [offset_fetch(&more, false), offset_fetch(&names, true)] {
        let mut asks = broker.kafka();
        asks.send(ApiKey::OffsetFetch, 8, &request);
        assert!(asks.read(ApiKey::OffsetFetch, 8).is_none());
    }
    assert_eq!(other.produce("t", &[(0, &batch(&["after"], BatchProducer::NONE))]), [(NONE, 1)]);
}

fn create(topics: &[(String, i32)]) -> CreateTopicsRequest<'_> {
    CreateTopicsRequest {
        topics: topics
            .iter()
            .map(|(name, num_partitions)| CreatableTopic {
                name,
                num_partitions: *num_partitions,
                replication_factor: 1,
                ..Default::default()
            })
            .collect(),
        timeout_ms: 60_000,
        ..Default::default()
    }
}

fn delete(kafka: &mut Kafka, name: &str) -> KafkaError {
    let request = DeleteTopicsRequest { topic_names: vec![name], timeout_ms: 60_000, ..Default::default() };
    let answer = kafka.call(ApiKey::DeleteTopics, 5, &request);
    let response: DeleteTopicsResponse<'_> = answer.body();
    response.responses[0].error_code
}

#[test]
fn thousands_of_topics_in_pipelined_requests_are_created_while_others_produce() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let (mut kafka, mut other) = (broker.kafka(), broker.kafka());
    let parts: Vec<Vec<(String, i32)>> =
        (0..2).map(|part| (0..700).map(|n| (format!("topic-{part}-{n}"), 1)).collect()).collect();
    for topics in &parts {
        kafka.send(ApiKey::CreateTopics, 7, &create(topics));
    }
    assert_eq!(other.produce("t", &[(0, &batch(&["meanwhile"], BatchProducer::NONE))]), [(NONE, 0)]);
    for topics in &parts {
        let answer = kafka.read(ApiKey::CreateTopics, 7).expect("an answer");
        let response: CreateTopicsResponse<'_> = answer.body();
        let created: Vec<_> = response.topics.iter().map(|topic| (&*topic.name, topic.error_code)).collect();
        let expected: Vec<_> = topics.iter().map(|(name, _)| (name.as_str(), NONE)).collect();
        assert_eq!(created, expected, "in their order");
    }
}

#[test]
fn a_topic_of_many_partitions_is_made_and_deleted_again_and_again_while_others_produce() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let (mut kafka, mut other) = (broker.kafka(), broker.kafka());
    for round in 0..3 {
        let topics = [("wide".to_owned(), 15_000)];
        kafka.send(ApiKey::CreateTopics, 7, &create(&topics));
        let both = |value: &str| batch(&[value], BatchProducer::NONE);
        let sent = other.produce("t", &[(0, &both("a")), (1, &both("b"))]);
        assert_eq!(sent, [(NONE, round), (NONE, round)]);
        let answer = kafka.read(ApiKey::CreateTopics, 7).expect("an answer");
        let response: CreateTopicsResponse<'_> = answer.body();
        assert_eq!(response.topics[0].error_code, NONE);
        for partition in [0, 7_500, 14_999] {
            assert_eq!(kafka.produce("wide", &[(partition, &both("x"))]), [(NONE, 0)], "all are there");
        }
        assert_eq!(delete(&mut kafka, "wide"), NONE);
        let gone = kafka.produce("wide", &[(0, &both("x"))]);
        assert_eq!(
            gone,
            [(KafkaError::UNKNOWN_TOPIC_OR_PARTITION, -1)],
            "deleted is deleted when it is answered"
        );
    }
}

#[test]
fn thousands_of_long_polls_are_woken_by_one_record_wait_again_and_end_with_their_connections() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let fetch = |offset| {
        let from = Box::leak(Box::new([(0, offset)]));
        Fetch { max_wait_ms: 60_000, ..Fetch::of("t", from) }
    };
    let mut polling: Vec<Kafka> = (0..10).map(|_| broker.kafka()).collect();
    let mut producer = broker.kafka();
    for round in 0..2 {
        for kafka in &mut polling {
            for _ in 0..400 {
                kafka.send(ApiKey::Fetch, 12, &fetch(round).request());
            }
        }
        let value = format!("record {round}");
        assert_eq!(producer.produce("t", &[(0, &batch(&[&value], BatchProducer::NONE))]), [(NONE, round)]);
        for kafka in &mut polling {
            for _ in 0..400 {
                let answer = kafka.read(ApiKey::Fetch, 12).expect("an answer");
                assert_eq!(answer.fetched()[0].records, [(round, value.clone())]);
            }
        }
    }
    for kafka in &mut polling {
        for _ in 0..400 {
            kafka.send(ApiKey::Fetch, 12, &fetch(2).request());
        }
    }
    drop(polling);
    assert_eq!(producer.produce("t", &[(0, &batch(&["after"], BatchProducer::NONE))]), [(NONE, 2)]);
    assert_eq!(producer.fetch(12, &fetch(2))[0].records, [(2, "after".to_owned())]);
}
