//! Administrative requests of user interfaces, answered for a single node.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DescribableLogDirTopic, DescribeAclsRequest, DescribeAclsResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerState,
    TopicPartitions, TopicRequest, UserName,
};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::ids::ProducerId;

use crate::client::Kafka;
use crate::common::simulated::SimBroker;
use crate::common::{batch, batch_at, now_ms};

/// Returns topic, partition and size of everything in the only directory.
fn sizes(
    kafka: &mut Kafka,
    version: i16,
    topics: Option<Vec<DescribableLogDirTopic<'_>>>,
) -> Vec<(String, i32, i64)> {
    let answer = kafka.call(ApiKey::DescribeLogDirs, version, &DescribeLogDirsRequest { topics });
    let response: DescribeLogDirsResponse<'_> = answer.body();
    assert_eq!((response.error_code, response.results.len()), (KafkaError::NONE, 1));
    let directory = &response.results[0];
    assert_eq!(directory.error_code, KafkaError::NONE);
    assert_eq!(directory.log_dir, crate::common::sim_node::DATA_DIR);
    let topics = directory.topics.iter();
    topics
        .flat_map(|topic| topic.partitions.iter().map(|p| (topic.name.to_string(), p)))
        .map(|(name, p)| (name, p.partition_index, p.partition_size))
        .collect()
}

#[test]
fn describe_log_dirs_returns_the_partitions_and_their_sizes() {
    let broker = SimBroker::start();
    let mut native = broker.native();
    native.created("a", 2, &[]);
    native.created("b", 1, &[]);
    let mut kafka = broker.kafka();
    let value = "x".repeat(200_000);
    kafka.produce("a", &[(1, &batch(&[&value], BatchProducer::NONE))]);
    for version in 1..=4 {
        let all = sizes(&mut kafka, version, None);
        let names: Vec<_> = all.iter().map(|(topic, partition, _)| (topic.as_str(), *partition)).collect();
        assert_eq!(names, [("a", 0), ("a", 1), ("b", 0)]);
        assert!((200_000..2_000_000).contains(&all[1].2), "{all:?}");
        assert!(all[0].2 < 200_000 && all[2].2 < 200_000, "{all:?}");
        let of = |topic, partitions| DescribableLogDirTopic { topic, partitions };
        let some = vec![of("a", vec![1, 1, 9, -1]), of("nowhere", vec![0]), of("a", vec![1])];
        assert_eq!(sizes(&mut kafka, version, Some(some)), [all[1].clone()]);
        assert_eq!(sizes(&mut kafka, version, Some(Vec::new())), []);
    }
}

#[test]
fn describe_log_dirs_returns_the_size_and_free_space_of_the_file_system() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    let mut sizes = |version| {
        let answer = kafka.call(ApiKey::DescribeLogDirs, version, &DescribeLogDirsRequest { topics: None });
        let response: DescribeLogDirsResponse<'_> = answer.body();
        (response.results[0].total_bytes, response.results[0].usable_bytes)
    };
    broker.disk().set_capacity(Some(1 << 40));
    let (total, usable) = sizes(4);
    assert_eq!(total, 1 << 40);
    assert!((1..total).contains(&usable), "{usable}");
    assert_eq!(sizes(3), (-1, -1), "earlier versions have no place for them");
    broker.disk().set_capacity(Some(0));
    assert_eq!(sizes(4), (0, 0));
}

fn producers(kafka: &mut Kafka, topics: Vec<TopicRequest<'_>>) -> Vec<(i32, KafkaError, Vec<ProducerState>)> {
    let answer = kafka.call(ApiKey::DescribeProducers, 0, &DescribeProducersRequest { topics });
    let response: DescribeProducersResponse<'_> = answer.body();
    let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions.map(|p| (p.partition_index, p.error_code, p.active_producers)).collect()
}

#[test]
fn describe_producers_returns_the_idempotent_producers_of_partitions() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let at = now_ms();
    for (sequence, values) in [(0, &["a", "b"][..]), (2, &["c"])] {
        let producer = BatchProducer { id: ProducerId(77), epoch: 3, sequence };
        let done = kafka.produce("t", &[(1, &batch_at(values, producer, at))]);
        assert_eq!(done[0].0, KafkaError::NONE);
    }
    kafka.produce("t", &[(0, &batch(&["of nobody"], BatchProducer::NONE))]);
    let of = |name, partition_indexes| TopicRequest { name, partition_indexes };
    let reported = producers(&mut kafka, vec![of("t", vec![0, 1, 2]), of("nowhere", vec![0])]);
    let expected = ProducerState {
        producer_id: 77,
        producer_epoch: 3,
        last_sequence: 2,
        last_timestamp: at,
        ..Default::default()
    };
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    let expected = [
        (0, KafkaError::NONE, vec![]),
        (1, KafkaError::NONE, vec![expected]),
        (2, unknown, vec![]),
        (0, unknown, vec![]),
    ];
    assert_eq!(reported, expected);
}

#[test]
fn there_are_no_acls_quotas_or_credentials() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    for version in 1..=3 {
        let answer = kafka.call(ApiKey::DescribeAcls, version, &DescribeAclsRequest::default());
        let response: DescribeAclsResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::SECURITY_DISABLED);
        assert_eq!(response.error_message.as_deref(), Some("No Authorizer is configured."));
    }
    for version in 0..=1 {
        let answer =
            kafka.call(ApiKey::DescribeClientQuotas, version, &DescribeClientQuotasRequest::default());
        let response: DescribeClientQuotasResponse<'_> = answer.body();
        assert_eq!((response.error_code, response.entries), (KafkaError::NONE, Some(vec![])));
    }
    let mut reported = |users: Option<&[&'static str]>| {
        let users = users.map(|users| users.iter().map(|name| UserName { name }).collect());
        let request = DescribeUserScramCredentialsRequest { users };
        let answer = kafka.call(ApiKey::DescribeUserScramCredentials, 0, &request);
        let response: DescribeUserScramCredentialsResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::NONE);
        let results = response.results.iter();
        results.map(|result| (result.user.to_string(), result.error_code)).collect::<Vec<_>>()
    };
    assert_eq!(reported(None), []);
    assert_eq!(reported(Some(&[])), []);
    let expected = [
        ("ann".to_owned(), KafkaError::RESOURCE_NOT_FOUND),
        ("bob".to_owned(), KafkaError::DUPLICATE_RESOURCE),
    ];
    assert_eq!(reported(Some(&["ann", "bob", "bob"])), expected);
}

#[test]
fn there_are_no_transactions_and_no_reassignments() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    for version in 0..=2 {
        let request =
            ListTransactionsRequest { state_filters: vec!["Ongoing", "Asleep"], ..Default::default() };
        let answer = kafka.call(ApiKey::ListTransactions, version, &request);
        let response: ListTransactionsResponse<'_> = answer.body();
        assert_eq!((response.error_code, response.transaction_states.len()), (KafkaError::NONE, 0));
        assert_eq!(response.unknown_state_filters, ["Asleep"]);
    }
    let request = ListPartitionReassignmentsRequest::default();
    let answer = kafka.call(ApiKey::ListPartitionReassignments, 0, &request);
    let response: ListPartitionReassignmentsResponse<'_> = answer.body();
    assert_eq!((response.error_code, response.topics.len()), (KafkaError::NONE, 0));
}

#[test]
fn no_partition_needs_another_leader() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let of = |topic, partitions| TopicPartitions { topic, partitions };
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    for version in 0..=2 {
        let mut elect = |topic_partitions, election_type| {
            let request = ElectLeadersRequest { election_type, topic_partitions, timeout_ms: 1000 };
            let answer = kafka.call(ApiKey::ElectLeaders, version, &request);
            let response: ElectLeadersResponse<'_> = answer.body();
            let results = response.replica_election_results.iter();
            let partitions = results.flat_map(|topic| topic.partition_result.iter());
            let partitions: Vec<_> = partitions.map(|p| (p.partition_id, p.error_code)).collect();
            (response.error_code, partitions)
        };
        assert_eq!(
            elect(None, 0),
            (KafkaError::NONE, vec![]),
            "a request for all partitions returns those with a new leader"
        );
        let some = vec![of("t", vec![0, 1, 2]), of("nowhere", vec![0])];
        let not_needed = KafkaError::ELECTION_NOT_NEEDED;
        let expected = vec![(0, not_needed), (1, not_needed), (2, unknown), (0, unknown)];
        assert_eq!(elect(Some(some), 0), (KafkaError::NONE, expected));
        if version > 0 {
            assert_eq!(elect(None, 7), (KafkaError::INVALID_REQUEST, vec![]));
        }
    }
}

#[test]
fn requests_about_too_many_partitions_are_rejected_without_work() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    let partitions: Vec<i32> = (0..20_000).collect();
    let topic_partitions = Some(vec![TopicPartitions { topic: "t", partitions: partitions.clone() }]);
    let request = ElectLeadersRequest { topic_partitions, ..Default::default() };
    let answer = kafka.call(ApiKey::ElectLeaders, 2, &request);
    let response: ElectLeadersResponse<'_> = answer.body();
    assert_eq!(response.error_code, KafkaError::POLICY_VIOLATION);
    assert!(response.replica_election_results.is_empty());
    let reported = producers(&mut kafka, vec![TopicRequest { name: "t", partition_indexes: partitions }]);
    assert!(reported.iter().all(|(_, error, _)| *error == KafkaError::POLICY_VIOLATION));
}
