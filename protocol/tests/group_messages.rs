//! Every message about groups round-trips through its bytes, and truncated ones do no harm.

mod common;

use common::{check, position, text};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{PartitionIndex, TopicId};
use highwater_protocol::limits::{GROUP_NAME_BYTES_MAX, GROUP_WORD_BYTES_MAX};
use highwater_protocol::native::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

prop_compose! {
    fn topic_partitions()(topic: [u8; 16], partitions in vec(any::<u32>(), 0..5)) -> TopicPartitions {
        TopicPartitions { topic: TopicId(topic), partitions: partitions.into_iter().map(PartitionIndex).collect() }
    }
}

prop_compose! {
    fn positions()(topic: [u8; 16], positions in vec(position(), 0..4)) -> TopicPositions {
        TopicPositions { topic: TopicId(topic), positions }
    }
}

prop_compose! {
    fn rejected()(topic: [u8; 16], partition: u32, error in proptest::sample::select(ErrorCode::ALL)) -> RejectedPosition {
        RejectedPosition { topic: TopicId(topic), partition: PartitionIndex(partition), error }
    }
}

prop_compose! {
    fn member()(
        member in text(64), instance in option::of(text(64)), client_name in text(64), host in text(64), epoch: i32,
        topics in vec(text(64), 0..3), assignment in vec(topic_partitions(), 0..3), target in vec(topic_partitions(), 0..3),
    ) -> GroupMemberInfo {
        GroupMemberInfo { member, instance, client_name, host, epoch, topics, assignment, target }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn heartbeats_round_trip(
        names in (text(128), text(128)), epoch: i32, instance in option::of(text(64)), timeout in option::of(any::<u32>()),
        topics in option::of(vec(text(249), 0..3)), assignor in option::of(text(64)),
        owned in option::of(vec(topic_partitions(), 0..4)), times: (u32, u32),
    ) {
        let (group, member) = names;
        check(&GroupHeartbeatReply {
            member: member.clone(), epoch, heartbeat_interval_ms: times.0, session_timeout_ms: times.1,
            assignment: owned.clone(),
        })?;
        check(&GroupHeartbeatRequest {
            group, member, epoch, instance, rebalance_timeout_ms: timeout, topics, assignor, owned,
        })?;
    }

    #[test]
    fn positions_of_groups_round_trip(
        group in text(128), member in text(128), epoch: i32, requested in option::of(vec(topic_partitions(), 0..4)),
        topics in vec(positions(), 0..4), rejected in vec(rejected(), 0..4), as_member: bool,
    ) {
        let requester = as_member.then(|| (member.clone(), epoch));
        check(&ReadGroupOffsetsRequest { group: group.clone(), member: requester, partitions: requested })?;
        check(&ReadGroupOffsetsReply { topics: topics.clone() })?;
        check(&CommitGroupOffsetsRequest { group, member, epoch, topics })?;
        check(&CommitGroupOffsetsReply { rejected })?;
    }

    #[test]
    fn descriptions_of_groups_round_trip(
        name in text(128), words in (text(64), text(64), text(64)), epoch: i32, members in vec(member(), 0..3),
        listed in vec((text(128), text(64), text(64)), 0..5), more: bool,
    ) {
        let groups = listed.into_iter().map(|(name, protocol, state)| GroupInfo { name, protocol, state });
        check(&ListGroupsReply { groups: groups.collect(), more })?;
        check(&ListGroupsRequest { after: name.clone() })?;
        check(&DescribeGroupRequest { name: name.clone() })?;
        check(&DeleteGroupRequest { name })?;
        let (protocol, state, assignor) = words;
        check(&DescribeGroupReply { protocol, state, epoch, assignor, members })?;
    }
}

#[test]
fn names_over_their_limits_are_rejected() {
    let encoded = |name: &str, assignor: &str| {
        let mut bytes = Vec::new();
        GroupHeartbeatRequest {
            group: name.into(),
            member: "m".into(),
            epoch: JOIN_EPOCH,
            instance: None,
            rebalance_timeout_ms: None,
            topics: None,
            assignor: Some(assignor.into()),
            owned: None,
        }
        .encode(&mut bytes);
        GroupHeartbeatRequest::decode(&bytes).map_err(DecodeError::code)
    };
    let (name, word) = ("n".repeat(GROUP_NAME_BYTES_MAX), "w".repeat(GROUP_WORD_BYTES_MAX));
    assert!(encoded(&name, &word).is_ok());
    assert_eq!(encoded(&(name.clone() + "n"), &word), Err(ErrorCode::TooLarge));
    assert_eq!(encoded(&name, &(word + "w")), Err(ErrorCode::TooLarge));
}
