//! The consumer group protocol (KIP-848), in which the broker assigns partitions.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;
use crate::kafka::wire::Uuid;

schema! {
    /// Heartbeat of a member, which also joins and leaves with it, depending on the epoch. `None` means unchanged.
    pub struct ConsumerGroupHeartbeatRequest<'a> in 0..=1, flexible 0 {
        group_id: &'a str => 0..;
        member_id: &'a str => 0..;
        /// 0 to join, -1 to leave, -2 to leave temporarily (static members).
        member_epoch: i32 => 0..;
        instance_id: Option<&'a str> => 0..;
        rack_id: Option<&'a str> => 0..;
        rebalance_timeout_ms: i32 = -1 => 0..;
        subscribed_topic_names: Option<Vec<&'a str>> => 0..;
        subscribed_topic_regex: Option<&'a str> => 1..;
        server_assignor: Option<&'a str> => 0..;
        topic_partitions: Option<Vec<OwnedPartitions>> => 0..;
    }

    /// Partitions of one topic that the member owns.
    pub struct OwnedPartitions {
        topic_id: Uuid => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// Response to a member's heartbeat.
    pub struct ConsumerGroupHeartbeatResponse<'a> in 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        member_id: Option<Cow<'a, str>> => 0..;
        member_epoch: i32 => 0..;
        heartbeat_interval_ms: i32 => 0..;
        assignment: Option<HeartbeatAssignment> => 0..;
    }

    /// All partitions assigned to the member.
    pub struct HeartbeatAssignment {
        topic_partitions: Vec<AssignedPartitions> => 0..;
    }

    /// Partitions of one topic.
    pub struct AssignedPartitions {
        topic_id: Uuid => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// Describes consumer groups.
    pub struct ConsumerGroupDescribeRequest<'a> in 0..=1, flexible 0 {
        group_ids: Vec<&'a str> => 0..;
        include_authorized_operations: bool => 0..;
    }

    /// Consumer groups.
    pub struct ConsumerGroupDescribeResponse<'a> in 0..=1, flexible 0 {
        throttle_time_ms: i32 => 0..;
        groups: Vec<DescribedConsumerGroup<'a>> => 0..;
    }

    /// A consumer group.
    pub struct DescribedConsumerGroup<'a> {
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        group_id: Cow<'a, str> => 0..;
        group_state: Cow<'a, str> => 0..;
        group_epoch: i32 => 0..;
        assignment_epoch: i32 => 0..;
        assignor_name: Cow<'a, str> => 0..;
        members: Vec<DescribedConsumerGroupMember<'a>> => 0..;
        authorized_operations: i32 = i32::MIN => 0..;
    }

    /// A member.
    pub struct DescribedConsumerGroupMember<'a> {
        member_id: Cow<'a, str> => 0..;
        instance_id: Option<Cow<'a, str>> => 0..;
        rack_id: Option<Cow<'a, str>> => 0..;
        member_epoch: i32 => 0..;
        client_id: Cow<'a, str> => 0..;
        client_host: Cow<'a, str> => 0..;
        subscribed_topic_names: Vec<Cow<'a, str>> => 0..;
        subscribed_topic_regex: Option<Cow<'a, str>> => 0..;
        assignment: DescribedAssignment<'a> => 0..;
        target_assignment: DescribedAssignment<'a> => 0..;
        member_type: i8 = -1 => 1..;
    }

    /// Partitions that a member owns, or will own.
    pub struct DescribedAssignment<'a> {
        topic_partitions: Vec<DescribedTopicPartitions<'a>> => 0..;
    }

    /// Partitions of one topic.
    pub struct DescribedTopicPartitions<'a> {
        topic_id: Uuid => 0..;
        topic_name: Cow<'a, str> => 0..;
        partitions: Vec<i32> => 0..;
    }
}
