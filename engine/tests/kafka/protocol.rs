//! The protocol itself: versions, order of responses, and garbage.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::{APIS, ApiKey, State};
use highwater_net::kafka::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use highwater_protocol::batch::BatchProducer;

use crate::client::{Fetch, request};
use crate::common::batch;
use crate::common::simulated::SimBroker;

#[test]
fn api_versions_are_listed_in_any_requested_version() {
    let broker = SimBroker::start();
    for version in 0..=4 {
        let body = ApiVersionsRequest { client_software_name: "x", client_software_version: "1" };
        let answer = broker.kafka().call(ApiKey::ApiVersions, version, &body);
        let response: ApiVersionsResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::NONE);
        assert_eq!(response.api_keys.len(), APIS.iter().filter(|api| api.state == State::Served).count());
        let produce = &response.api_keys[0];
        assert_eq!((produce.api_key, produce.min_version, produce.max_version), (0, 0, 11));
    }
    for (name, version) in [("", "1"), ("x", ""), ("-x", "1"), ("x", "1 2")] {
        let body = ApiVersionsRequest { client_software_name: name, client_software_version: version };
        let answer = broker.kafka().call(ApiKey::ApiVersions, 3, &body);
        let response: ApiVersionsResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::INVALID_REQUEST, "{name:?} {version:?}");
        assert!(response.api_keys.is_empty());
    }
    // An unknown later version is answered in version 0, which every client can read.
    let mut kafka = broker.kafka();
    let mut bytes = request(ApiKey::ApiVersions, 4, 77, &ApiVersionsRequest::default());
    bytes[6..8].copy_from_slice(&99_i16.to_be_bytes());
    kafka.send_raw(&bytes);
    let answer = kafka.read(ApiKey::ApiVersions, 0).expect("an answer");
    let response: ApiVersionsResponse<'_> = answer.body();
    assert_eq!((answer.correlation_id, response.error_code), (77, KafkaError::UNSUPPORTED_VERSION));
    assert!(!response.api_keys.is_empty());
}

#[test]
fn responses_are_sent_in_the_order_of_requests_whichever_takes_longest() {
    let broker = SimBroker::start();
    broker.native().created("t", 2, &[]);
    let mut kafka = broker.kafka();
    let fetch = Fetch { max_wait_ms: 600_000, ..Fetch::of("t", &[(0, 0), (1, 0)]) };
    let first = kafka.send(ApiKey::Fetch, 12, &fetch.request());
    let second = kafka.send(ApiKey::Metadata, 12, &MetadataRequest::default());
    broker.kafka().produce("t", &[(1, &batch(&["v"], BatchProducer::NONE))]);
    assert_eq!(kafka.read(ApiKey::Fetch, 12).map(|answer| answer.correlation_id), Some(first));
    assert_eq!(kafka.read(ApiKey::Metadata, 12).map(|answer| answer.correlation_id), Some(second));
}

#[test]
fn requests_are_decoded_the_same_however_they_are_fragmented() {
    let broker = SimBroker::start();
    broker.native().created("t", 1, &[]);
    let bytes = batch(&[&"x".repeat(100_000)], BatchProducer::NONE);
    let mut whole = Vec::new();
    for id in 0..3 {
        whole.extend_from_slice(&request(ApiKey::Metadata, 9, 2 * id, &MetadataRequest::default()));
        let mut kafka = highwater_net::kafka::messages::ProduceRequest { acks: -1, ..Default::default() };
        kafka.topic_data.push(highwater_net::kafka::messages::ProduceTopic {
            name: "t",
            topic_id: [0; 16],
            partition_data: vec![highwater_net::kafka::messages::ProducePartition {
                index: 0,
                records: Some(&bytes),
            }],
        });
        whole.extend_from_slice(&request(ApiKey::Produce, 9, 2 * id + 1, &kafka));
    }
    let mut kafka = broker.kafka();
    for piece in whole.chunks(7001) {
        kafka.send_raw(piece);
    }
    for id in 0..3 {
        assert_eq!(kafka.read(ApiKey::Metadata, 9).map(|answer| answer.correlation_id), Some(2 * id));
        assert_eq!(kafka.produced(9), [(KafkaError::NONE, i64::from(id))]);
    }
}

#[test]
fn clients_that_try_to_authenticate_get_an_error_that_names_the_cause() {
    let broker = SimBroker::start();
    let mut kafka = broker.kafka();
    for version in 0..=1 {
        let request = SaslHandshakeRequest { mechanism: "PLAIN" };
        let answer = kafka.call(ApiKey::SaslHandshake, version, &request);
        let response: SaslHandshakeResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::ILLEGAL_SASL_STATE);
        assert!(response.mechanisms.is_empty());
    }
    for version in 0..=2 {
        let request = SaslAuthenticateRequest { auth_bytes: b"\0user\0password" };
        let answer = kafka.call(ApiKey::SaslAuthenticate, version, &request);
        let response: SaslAuthenticateResponse<'_> = answer.body();
        assert_eq!(response.error_code, KafkaError::ILLEGAL_SASL_STATE);
        let text = response.error_message.expect("a text");
        assert!(text.contains("no authentication"), "{text}");
    }
}
