//! Transactional requests get an error that clients treat as final.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction, ApiVersionsRequest, ApiVersionsResponse,
    EndTxnRequest, EndTxnResponse, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
    InitProducerIdResponse, ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic,
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::ids::ProducerId;

use crate::client::{Fetch, Kafka};
use crate::common::batch;
use crate::common::simulated::SimBroker;

const REFUSED: KafkaError = KafkaError::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;

#[test]
fn a_transactional_id_gets_no_coordinator_and_no_producer_id() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    let request = FindCoordinatorRequest { key: "pays", key_type: 1, ..Default::default() };
    let answer = kafka.call(ApiKey::FindCoordinator, 2, &request);
    let response: FindCoordinatorResponse<'_> = answer.body();
    assert_eq!((response.error_code, response.node_id), (REFUSED, -1));
    let text = response.error_message.expect("a text");
    assert!(text.contains("transactions are not available in this version of Highwater"), "{text}");

    let request =
        FindCoordinatorRequest { key_type: 1, coordinator_keys: vec!["pays"], ..Default::default() };
    let answer = kafka.call(ApiKey::FindCoordinator, 6, &request);
    let response: FindCoordinatorResponse<'_> = answer.body();
    let found = &response.coordinators[0];
    assert_eq!((&*found.key, found.error_code), ("pays", REFUSED));
    assert!(found.error_message.as_deref().is_some_and(|text| text.contains("not available")));

    let request = InitProducerIdRequest { transactional_id: Some("pays"), ..Default::default() };
    let answer = kafka.call(ApiKey::InitProducerId, 4, &request);
    assert_eq!(answer.body::<InitProducerIdResponse>().error_code, REFUSED);
}

fn produced(kafka: &mut Kafka, transactional_id: Option<&str>, records: &[u8]) -> (KafkaError, String) {
    let partition_data = vec![ProducePartition { index: 0, records: Some(records) }];
    let topic_data = vec![ProduceTopic { name: "t", topic_id: [0; 16], partition_data }];
    let request = ProduceRequest { transactional_id, acks: -1, timeout_ms: 1000, topic_data };
    let answer = kafka.call(ApiKey::Produce, 9, &request);
    let response: ProduceResponse<'_> = answer.body();
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.error_message.clone().unwrap_or_default().into_owned())
}

#[test]
fn transactional_batches_are_rejected_and_not_appended() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let mut kafka = broker.kafka();
    let plain = batch(&["v"], BatchProducer::NONE);
    let mut transactional = batch(&["v"], BatchProducer { id: ProducerId(5), epoch: 0, sequence: 0 });
    // Attributes are at 21, and the checksum at 17 covers what follows it.
    transactional[22] |= 1 << 4;
    let crc = crc32c::crc32c(&transactional[21..]);
    transactional[17..21].copy_from_slice(&crc.to_be_bytes());
    for (transactional_id, records) in [(Some("pays"), &plain), (None, &transactional)] {
        let (error, text) = produced(&mut kafka, transactional_id, records);
        assert_eq!(error, REFUSED);
        assert!(text.contains("not available"), "{text}");
    }
    assert_eq!(produced(&mut kafka, None, &plain).0, KafkaError::NONE);
    assert_eq!(kafka.fetch(12, &Fetch::of("t", &[(0, 0)]))[0].records.len(), 1);
}

#[test]
fn transactional_requests_are_not_advertised_and_every_part_of_them_gets_an_error() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    let answer = kafka.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default());
    let offered: ApiVersionsResponse<'_> = answer.body();
    assert!(offered.api_keys.iter().all(|api| !(24..=28).contains(&api.api_key)));

    let topics = || vec![AddPartitionsToTxnTopic { name: "t", partitions: vec![0, 1] }];
    for version in 0..=5 {
        let mut request = AddPartitionsToTxnRequest::default();
        if version < 4 {
            request.v3_and_below_topics = topics();
        } else {
            let transaction = AddPartitionsToTxnTransaction { topics: topics(), ..Default::default() };
            request.transactions = vec![transaction];
        }
        let answer = kafka.call(ApiKey::AddPartitionsToTxn, version, &request);
        let response: AddPartitionsToTxnResponse<'_> = answer.body();
        let results = match version {
            0..4 => &response.results_by_topic_v3_and_below,
            _ => &response.results_by_transaction[0].topic_results,
        };
        let errors: Vec<_> = results[0].results_by_partition.iter().map(|p| p.partition_error_code).collect();
        assert_eq!(errors, [REFUSED; 2], "{version}");
    }
    let answer = kafka.call(ApiKey::AddOffsetsToTxn, 3, &AddOffsetsToTxnRequest::default());
    assert_eq!(answer.body::<AddOffsetsToTxnResponse>().error_code, REFUSED);
    let answer = kafka.call(ApiKey::EndTxn, 5, &EndTxnRequest::default());
    assert_eq!(answer.body::<EndTxnResponse>().error_code, REFUSED);
    let partitions = vec![TxnOffsetCommitRequestPartition::default()];
    let request = TxnOffsetCommitRequest {
        topics: vec![TxnOffsetCommitRequestTopic { name: "t", partitions }],
        ..Default::default()
    };
    let answer = kafka.call(ApiKey::TxnOffsetCommit, 3, &request);
    let response: TxnOffsetCommitResponse<'_> = answer.body();
    assert_eq!(response.topics[0].partitions[0].error_code, REFUSED);
}
