//! Encodings written by hand: of versions that the oracle does not have, and a few of each form as examples.

use std::fmt::Debug;

use bytes::BytesMut;

use crate::kafka::messages::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataRequestTopic,
    OffsetCommitPartition, OffsetCommitPartitionResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetCommitTopic, OffsetCommitTopicResponse, OffsetFetchGroup, OffsetFetchGroupPartitionResponse,
    OffsetFetchGroupResponse, OffsetFetchGroupTopic, OffsetFetchGroupTopicResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use crate::kafka::schema::Message;
use crate::kafka::wire::{Reader, WireError};

#[track_caller]
fn check<'a, M: Message<'a> + PartialEq + Debug>(value: &M, version: i16, bytes: &'a [&'a [u8]]) {
    let expected = bytes.concat();
    let mut out = BytesMut::new();
    value.encode(version, &mut out);
    assert_eq!(out, expected[..]);
    let mut r = Reader::new(expected.leak());
    assert_eq!(M::decode(version, &mut r).as_ref(), Ok(value));
    assert_eq!(r.finish(), Ok(()));
}

const ID: [u8; 16] = [9; 16];

#[test]
fn metadata_by_name_in_both_forms() {
    let named = |name| MetadataRequestTopic { name: Some(name), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![named("ab")]), ..Default::default() };
    check(&request, 1, &[&[0, 0, 0, 1, 0, 2], b"ab"]);
    check(&request, 9, &[&[2, 3], b"ab", &[0, 1, 0, 0, 0]]);
    check(&MetadataRequest { topics: None, ..Default::default() }, 4, &[&[0xff, 0xff, 0xff, 0xff, 1]]);
}

#[test]
fn null_is_an_error_in_versions_where_the_field_is_not_nullable() {
    let result = MetadataRequest::decode(0, &mut Reader::new(&[0xff; 4]));
    assert_eq!(result, Err(WireError::Null { field: "MetadataRequest.topics" }));
    let mut out = BytesMut::new();
    MetadataRequest { topics: None, ..Default::default() }.encode(0, &mut out);
    assert_eq!(out[..], [0; 4], "and not sent");
}

#[test]
fn offsets_for_uploads_are_asked_for_in_version_11_as_in_version_10() {
    let partition = ListOffsetsPartition {
        partition_index: 3,
        timestamp: ListOffsetsPartition::EARLIEST_PENDING_UPLOAD,
        ..Default::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: "t", partitions: vec![partition] }],
        timeout_ms: 5,
        ..Default::default()
    };
    let bytes: &[&[u8]] = &[
        &[0xff, 0xff, 0xff, 0xff, 0, 2, 2, b't', 2],
        &[0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0, 0],
        &[0, 0, 0, 5, 0],
    ];
    check(&request, 10, bytes);
    check(&request, 11, bytes);
}

#[test]
fn offsets_are_committed_by_topic_id_in_version_10() {
    let partition = OffsetCommitPartition {
        partition_index: 1,
        committed_offset: 2,
        committed_leader_epoch: -1,
        committed_metadata: Some("m"),
    };
    let topic = OffsetCommitTopic { name: "", topic_id: ID, partitions: vec![partition] };
    let request = OffsetCommitRequest {
        group_id: "g",
        generation_id_or_member_epoch: 7,
        member_id: "i",
        topics: vec![topic],
        ..Default::default()
    };
    check(
        &request,
        10,
        &[
            &[2, b'g', 0, 0, 0, 7, 2, b'i', 0, 2],
            &ID,
            &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 2, b'm', 0, 0, 0],
        ],
    );
    let partition = OffsetCommitPartitionResponse { partition_index: 1, error_code: 3_i16.into() };
    let topic = OffsetCommitTopicResponse { topic_id: ID, partitions: vec![partition], ..Default::default() };
    let response = OffsetCommitResponse { topics: vec![topic], ..Default::default() };
    check(&response, 10, &[&[0, 0, 0, 0, 2], &ID, &[2, 0, 0, 0, 1, 0, 3, 0, 0, 0]]);
}

#[test]
fn offsets_are_fetched_by_topic_id_in_version_10() {
    let topic = OffsetFetchGroupTopic { name: "", topic_id: ID, partition_indexes: vec![4] };
    let group =
        OffsetFetchGroup { group_id: "g", member_id: Some("i"), member_epoch: 7, topics: Some(vec![topic]) };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    check(&request, 10, &[&[2, 2, b'g', 2, b'i', 0, 0, 0, 7, 2], &ID, &[2, 0, 0, 0, 4, 0, 0, 1, 0]]);
    let partition = OffsetFetchGroupPartitionResponse {
        partition_index: 4,
        committed_offset: 2,
        committed_leader_epoch: -1,
        metadata: Some("m".into()),
        error_code: 0_i16.into(),
    };
    let topic =
        OffsetFetchGroupTopicResponse { topic_id: ID, partitions: vec![partition], ..Default::default() };
    let group =
        OffsetFetchGroupResponse { group_id: "g".into(), topics: vec![topic], error_code: 0_i16.into() };
    let response = OffsetFetchResponse { groups: vec![group], ..Default::default() };
    check(
        &response,
        10,
        &[
            &[0, 0, 0, 0, 2, 2, b'g', 2],
            &ID,
            &[2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 2, b'm', 0, 0, 0, 0],
            &[0, 0, 0, 0],
        ],
    );
}
