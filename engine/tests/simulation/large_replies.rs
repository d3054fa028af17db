//! Replies that may be much larger than their requests: they are charged to the send budget until they are sent.

use std::time::Duration;

use highwater_engine::limits::ShardLimits;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse,
    ListGroupsRequest, ListGroupsResponse, OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse,
    OffsetCommitTopic, OffsetFetchGroup, OffsetFetchRequest, OffsetFetchResponse, SyncGroupAssignment,
    SyncGroupRequest, SyncGroupResponse,
};
use highwater_protocol::native::{
    Body as _, DescribeGroupReply, DescribeGroupRequest, MessageKind, ReadGroupOffsetsReply,
    ReadGroupOffsetsRequest,
};
use highwater_runtime::sim::NetworkConfig;

use crate::bounds::{Bed, create};
use crate::kafka::wire::Wire;
use crate::node::SHARDS;
use crate::wire::Wire as Native;

const NONE: KafkaError = KafkaError::NONE;

/// Interval at which clients check for replies.
const LOOK: Duration = Duration::from_millis(1);

/// Number of checks after which every client was answered, or was disconnected because others waited.
const LOOKS_MAX: usize = 120_000;

/// Number of clients that do not receive.
const UNREAD: usize = 6;

/// Number of groups whose list needs most of the send budget.
const GROUPS: usize = 240;

/// Partitions of the topic, and how many have offsets whose metadata needs most of the send budget.
const PARTITIONS: i32 = 45;
const OFFSETS: i32 = 25;
const METADATA_BYTES: usize = 3_000;

/// Size of a member's metadata and of its assignment.
const MEMBER_BYTES: usize = 40_000;

/// Memory in addition to the charges: heads of replies, and the last queued piece of each.
const ROUNDING_BYTES: usize = 48 << 10;

fn group(n: usize) -> String {
    format!("{n:05}-{}", "g".repeat(180))
}

/// A broker with many groups, one with many offsets, and one with a member with large metadata, which needs a seed with large batches.
fn bed(seed: u64) -> Bed {
    let mut bed = Bed::new(seed);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("t".into(), PARTITIONS)]);
    for n in 0..GROUPS {
        commit(&mut bed, &mut wire, &group(n), 1, "");
    }
    commit(&mut bed, &mut wire, "offsets", OFFSETS, &"m".repeat(METADATA_BYTES));
    let metadata = vec![7; MEMBER_BYTES];
    let body = JoinGroupRequest {
        group_id: "member",
        session_timeout_ms: 1_800_000,
        rebalance_timeout_ms: 1_800_000,
        protocol_type: "consumer",
        protocols: vec![JoinGroupProtocol { name: "range", metadata: &metadata }],
        ..Default::default()
    };
    let (answer, _) = bed.call(&mut wire, ApiKey::JoinGroup, 2, &body);
    let joined: JoinGroupResponse<'_> = answer.body();
    assert_eq!((joined.error_code, joined.members.len()), (NONE, 1));
    let body = SyncGroupRequest {
        group_id: "member",
        generation_id: joined.generation_id,
        member_id: &joined.member_id,
        assignments: vec![SyncGroupAssignment { member_id: &joined.member_id, assignment: &metadata }],
        ..Default::default()
    };
    let (answer, _) = bed.call(&mut wire, ApiKey::SyncGroup, 2, &body);
    assert_eq!(answer.body::<SyncGroupResponse<'_>>().error_code, NONE);
    // The network buffers little, so unreceived data stays with the broker.
    bed.world.set_network(NetworkConfig { window_bytes: 4096, ..NetworkConfig::default() });
    bed
}

fn commit(bed: &mut Bed, wire: &mut Wire, group: &str, partitions: i32, metadata: &str) {
    let partition = |partition_index| OffsetCommitPartition {
        partition_index,
        committed_offset: 7,
        committed_leader_epoch: -1,
        committed_metadata: Some(metadata),
    };
    let topics = vec![OffsetCommitTopic {
        name: "t",
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    }];
    let body = OffsetCommitRequest {
        group_id: group,
        generation_id_or_member_epoch: -1,
        topics,
        ..Default::default()
    };
    let (answer, _) = bed.call(wire, ApiKey::OffsetCommit, 8, &body);
    let response: OffsetCommitResponse<'_> = answer.body();
    assert!(response.topics[0].partitions.iter().all(|p| p.error_code == NONE), "{response:?}");
}

/// A request with a large reply.
#[derive(Clone, Copy, Debug)]
enum LargeRequest {
    List,
    Describe,
    Offsets,
}

impl LargeRequest {
    fn send(self, wire: &mut Wire) {
        match self {
            Self::List => wire.send(ApiKey::ListGroups, 4, &ListGroupsRequest::default()),
            Self::Describe => {
                let body = DescribeGroupsRequest { groups: vec!["member"], ..Default::default() };
                wire.send(ApiKey::DescribeGroups, 5, &body);
            }
            Self::Offsets => {
                let group = OffsetFetchGroup { group_id: "offsets", topics: None, ..Default::default() };
                let body = OffsetFetchRequest { groups: vec![group], ..Default::default() };
                wire.send(ApiKey::OffsetFetch, 8, &body);
            }
        }
    }

    fn check(self, answer: &crate::kafka_wire::Answer) {
        match self {
            Self::List => {
                let response: ListGroupsResponse<'_> = answer.body();
                let names = response.groups.iter().map(|group| group.group_id.clone().into_owned());
                let expected = (0..GROUPS).map(group).chain(["member".to_owned(), "offsets".to_owned()]);
                assert!(names.eq(expected));
            }
            Self::Describe => {
                let response: DescribeGroupsResponse<'_> = answer.body();
                let member = &response.groups[0].members[0];
                let bytes = (member.member_metadata.len(), member.member_assignment.len());
                assert_eq!(bytes, (MEMBER_BYTES, MEMBER_BYTES));
            }
            Self::Offsets => {
                let response: OffsetFetchResponse<'_> = answer.body();
                let partitions = &response.groups[0].topics[0].partitions;
                assert!(partitions.iter().map(|p| p.partition_index).eq(0..OFFSETS));
                let metadata = partitions.iter().filter_map(|p| p.metadata.as_deref());
                assert!(metadata.map(str::len).eq((0..OFFSETS).map(|_| METADATA_BYTES)));
            }
        }
    }
}

/// Lets time pass, and checks that no shard exceeds its send budget.
fn advance(bed: &mut Bed) {
    bed.world.run_for(LOOK);
    assert_eq!(bed.world.end(bed.node), None, "the node keeps running");
    for shard in 0..SHARDS {
        let app = bed.world.app(bed.node, shard).expect("it runs");
        app.assert_memory_adds_up();
        let (bytes, most) = (app.send_bytes(), ShardLimits::tiny().send_bytes_max + ROUNDING_BYTES);
        assert!(bytes <= most, "shard {shard} has {bytes} bytes of {most}");
    }
}

#[test]
fn unreceived_large_replies_stay_within_their_memory_and_other_clients_are_served() {
    for (seed, large) in [(31, LargeRequest::List), (34, LargeRequest::Describe), (35, LargeRequest::Offsets)]
    {
        let mut bed = bed(seed);
        let mut unread: Vec<Wire> = (0..UNREAD).map(|_| bed.kafka()).collect();
        for wire in &mut unread {
            for _ in 0..3 {
                large.send(wire);
            }
        }
        (0..50).for_each(|_| advance(&mut bed));
        // Each shard has memory for one of them.
        let begun = unread.iter_mut().filter_map(|wire| wire.has_begun_to_receive().then_some(())).count();
        assert!((1..=usize::from(SHARDS)).contains(&begun), "{large:?}: {begun} replies were made");
        let mut honest = bed.kafka();
        large.send(&mut honest);
        let answer = (0..LOOKS_MAX).find_map(|_| {
            advance(&mut bed);
            honest.receive(usize::MAX)
        });
        large.check(&answer.expect("it is answered").1);
        drop(unread);
        (0..50).for_each(|_| advance(&mut bed));
        for shard in 0..SHARDS {
            let held = bed.world.app(bed.node, shard).expect("it runs").send_bytes();
            assert_eq!(held, 0, "{large:?}: shard {shard} holds {held} bytes for nobody");
        }
        bed.check();
    }
}

#[test]
fn pipelined_large_replies_are_sent_in_order_by_both_protocols() {
    let mut bed = bed(34);
    let mut wire = bed.kafka();
    let all = [
        LargeRequest::List,
        LargeRequest::Offsets,
        LargeRequest::Describe,
        LargeRequest::List,
        LargeRequest::Describe,
        LargeRequest::Offsets,
    ];
    for large in all {
        large.send(&mut wire);
    }
    let address = bed.world.address(bed.node, 0);
    let mut native = Native::connect(&mut bed.world, address, None);
    native.send(&DescribeGroupRequest { name: "member".to_owned() });
    native.send(&ReadGroupOffsetsRequest { group: "offsets".to_owned(), member: None, partitions: None });
    for large in all {
        let answer = (0..LOOKS_MAX).find_map(|_| {
            advance(&mut bed);
            native.receive(usize::MAX);
            wire.receive(usize::MAX)
        });
        large.check(&answer.expect("it is answered").1);
    }
    let mut replies = Vec::new();
    for _ in 0..LOOKS_MAX {
        advance(&mut bed);
        native.receive(usize::MAX);
        replies.extend(native.pop().filter(|answer| answer.kind != MessageKind::Hello));
        if replies.len() == 2 {
            break;
        }
    }
    let body = |n: usize| replies[n].body.as_ref().expect("no error");
    let described = DescribeGroupReply::decode(body(0)).expect("a reply");
    assert_eq!((described.members.len(), &described.state[..]), (1, "Stable"));
    let positions = ReadGroupOffsetsReply::decode(body(1)).expect("a reply").topics.remove(0).positions;
    assert!(positions.iter().map(|p| p.partition.0 as i32).eq(0..OFFSETS));
    assert!(positions.iter().all(|p| p.metadata.len() == METADATA_BYTES));
    bed.check();
}

#[test]
fn a_reply_that_needs_more_memory_than_all_replies_have_is_an_error_in_both_protocols() {
    let mut bed = bed(35);
    let mut wire = bed.kafka();
    for n in GROUPS..3 * GROUPS {
        commit(&mut bed, &mut wire, &group(n), 1, "");
    }
    let (answer, _) = bed.call(&mut wire, ApiKey::ListGroups, 4, &ListGroupsRequest::default());
    let response: ListGroupsResponse<'_> = answer.body();
    assert_eq!((response.error_code, response.groups.len()), (KafkaError::INVALID_REQUEST, 0));
    commit(&mut bed, &mut wire, "offsets too", PARTITIONS, &"m".repeat(METADATA_BYTES));
    let address = bed.world.address(bed.node, 0);
    let mut native = Native::connect(&mut bed.world, address, None);
    native.send(&ReadGroupOffsetsRequest { group: "offsets too".to_owned(), member: None, partitions: None });
    let reply = (0..LOOKS_MAX).find_map(|_| {
        advance(&mut bed);
        native.receive(usize::MAX);
        native.pop().filter(|answer| answer.kind == MessageKind::ReadGroupOffsets)
    });
    let (code, text) = reply.expect("it is answered").body.expect_err("it is too large");
    assert_eq!(code, highwater_protocol::error::ErrorCode::TooLarge);
    assert!(text.contains("--memory"), "{text}");
}
