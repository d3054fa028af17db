//! What is offered, against what Kafka offers, and against what the documentation says.

use std::fmt::Write;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::{APIS, ApiKey, State, api_versions, api_versions_answer};

/// Of each kind of request: its number, the oldest version that Kafka 4 offers, the newest of Kafka 4.4, and the first flexible one.
/// From Kafka's protocol guide.
#[rustfmt::skip]
const KAFKA: &[(i16, &str, i16, i16, Option<i16>)] = &[
    (0, "Produce", 0, 13, Some(9)), (1, "Fetch", 4, 18, Some(12)), (2, "ListOffsets", 1, 11, Some(6)),
    (3, "Metadata", 0, 13, Some(9)), (8, "OffsetCommit", 2, 10, Some(8)), (9, "OffsetFetch", 1, 10, Some(6)),
    (10, "FindCoordinator", 0, 6, Some(3)), (11, "JoinGroup", 0, 9, Some(6)), (12, "Heartbeat", 0, 4, Some(4)),
    (13, "LeaveGroup", 0, 5, Some(4)), (14, "SyncGroup", 0, 5, Some(4)), (15, "DescribeGroups", 0, 6, Some(5)),
    (16, "ListGroups", 0, 5, Some(3)), (17, "SaslHandshake", 0, 1, None), (18, "ApiVersions", 0, 5, Some(3)),
    (19, "CreateTopics", 2, 7, Some(5)), (20, "DeleteTopics", 1, 6, Some(4)), (21, "DeleteRecords", 0, 2, Some(2)),
    (22, "InitProducerId", 0, 5, Some(2)), (23, "OffsetForLeaderEpoch", 2, 4, Some(4)),
    (24, "AddPartitionsToTxn", 0, 5, Some(3)), (25, "AddOffsetsToTxn", 0, 4, Some(3)), (26, "EndTxn", 0, 5, Some(3)),
    (27, "WriteTxnMarkers", 1, 2, Some(1)), (28, "TxnOffsetCommit", 0, 6, Some(3)), (29, "DescribeAcls", 1, 3, Some(2)),
    (30, "CreateAcls", 1, 3, Some(2)), (31, "DeleteAcls", 1, 3, Some(2)), (32, "DescribeConfigs", 1, 4, Some(4)),
    (33, "AlterConfigs", 0, 2, Some(2)), (35, "DescribeLogDirs", 1, 5, Some(2)), (36, "SaslAuthenticate", 0, 2, Some(2)),
    (37, "CreatePartitions", 0, 3, Some(2)), (42, "DeleteGroups", 0, 3, Some(2)), (43, "ElectLeaders", 0, 2, Some(2)),
    (44, "IncrementalAlterConfigs", 0, 1, Some(1)), (46, "ListPartitionReassignments", 0, 0, Some(0)), (47, "OffsetDelete", 0, 0, None),
    (48, "DescribeClientQuotas", 0, 1, Some(1)), (49, "AlterClientQuotas", 0, 1, Some(1)),
    (50, "DescribeUserScramCredentials", 0, 0, Some(0)), (51, "AlterUserScramCredentials", 0, 0, Some(0)),
    (57, "UpdateFeatures", 0, 2, Some(0)), (60, "DescribeCluster", 0, 2, Some(0)), (61, "DescribeProducers", 0, 0, Some(0)),
    (65, "DescribeTransactions", 0, 0, Some(0)), (66, "ListTransactions", 0, 2, Some(0)),
    (68, "ConsumerGroupHeartbeat", 0, 1, Some(0)), (69, "ConsumerGroupDescribe", 0, 1, Some(0)),
    (74, "ListConfigResources", 0, 1, Some(0)), (75, "DescribeTopicPartitions", 0, 0, Some(0)),
];

#[test]
fn versions_are_offered_as_kafka_offers_them() {
    for api in APIS {
        let (_, name, min, max, flexible) =
            KAFKA.iter().find(|(key, ..)| *key == api.key as i16).expect("Kafka offers it");
        assert_eq!(api.name, *name);
        // Clients test for exact versions, so the oldest has to be Kafka's, even where it is refused.
        assert_eq!(api.min, *min, "{name}: the oldest version");
        assert!(api.accepted_min >= api.min && api.accepted_min <= api.max && api.max <= *max, "{name}");
        assert_eq!(api.flexible_from, flexible.unwrap_or(i16::MAX), "{name}: the first flexible version");
        assert_eq!(ApiKey::from_i16(api.key as i16), Some(api.key));
    }
    assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
}

#[test]
fn only_what_is_served_is_offered() {
    let offered = api_versions(KafkaError::NONE).api_keys;
    let served: Vec<_> = APIS.iter().filter(|api| api.state == State::Served).collect();
    assert_eq!(offered.len(), served.len());
    for (offer, api) in offered.iter().zip(served) {
        assert_eq!((offer.api_key, offer.min_version, offer.max_version), (api.key as i16, api.min, api.max));
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    assert_eq!(api_versions_answer(4), (4, KafkaError::NONE));
    assert_eq!(api_versions_answer(5), (0, KafkaError::UNSUPPORTED_VERSION));
    assert_eq!(api_versions_answer(-1), (0, KafkaError::UNSUPPORTED_VERSION));
    let api = ApiKey::ApiVersions.api();
    assert!(api.request_header_is_flexible(3) && !api.response_header_is_flexible(3));
}

/// The table of docs/kafka-compatibility.md.
fn table() -> String {
    let mut text = String::from("| key | request | versions | state | remarks |\n|---|---|---|---|---|\n");
    for api in APIS {
        let state = match api.state {
            State::Served => "served",
            State::Refused => "refused",
            State::Declared => "not yet",
        };
        let versions =
            if api.min == api.max { api.max.to_string() } else { format!("{}–{}", api.min, api.max) };
        let (key, name, remark) = (api.key as i16, api.name, api.remark);
        writeln!(text, "| {key} | {name} | {versions} | {state} | {remark} |").expect("a text");
    }
    text
}

#[test]
fn the_documentation_has_the_table_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kafka-compatibility.md");
    let text = std::fs::read_to_string(path).expect("docs/kafka-compatibility.md is there");
    let start = text.find("| key | request |").expect("a table");
    let end = text[start..].find("\n\n").map_or(text.len(), |len| start + len + 1);
    if std::env::var_os("HIGHWATER_WRITE_DOCS").is_some() {
        std::fs::write(path, [&text[..start], &table(), &text[end..]].concat()).expect("it can be written");
        return;
    }
    let says = "it is not the table of net/src/kafka/api.rs; HIGHWATER_WRITE_DOCS=1 writes it";
    assert_eq!(text[start..end], table(), "{says}");
}
