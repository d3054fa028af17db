//! The classic group protocol: find the coordinator, join, get an assignment, send heartbeats, leave.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Finds the coordinators of groups or transactions.
    pub struct FindCoordinatorRequest<'a> in 0..=6, flexible 3 {
        key: &'a str => 0..=3;
        /// 0: group; 1: transaction.
        key_type: i8 => 1..;
        coordinator_keys: Vec<&'a str> => 4..;
    }

    /// Coordinators: one up to version 3, a list from version 4 on.
    pub struct FindCoordinatorResponse<'a> in 0..=6, flexible 3 {
        throttle_time_ms: i32 => 1..;
        error_code: KafkaError => 0..=3;
        error_message: Option<Cow<'a, str>> => 1..=3;
        node_id: i32 => 0..=3;
        host: Cow<'a, str> => 0..=3;
        port: i32 => 0..=3;
        coordinators: Vec<FoundCoordinator<'a>> => 4..;
    }

    /// A coordinator.
    pub struct FoundCoordinator<'a> {
        key: Cow<'a, str> => 4..;
        node_id: i32 => 4..;
        host: Cow<'a, str> => 4..;
        port: i32 => 4..;
        error_code: KafkaError => 4..;
        error_message: Option<Cow<'a, str>> => 4..;
    }

    /// Joins or rejoins a group.
    pub struct JoinGroupRequest<'a> in 0..=9, flexible 6 {
        group_id: &'a str => 0..;
        session_timeout_ms: i32 => 0..;
        rebalance_timeout_ms: i32 = -1 => 1..;
        member_id: &'a str => 0..;
        group_instance_id: Option<&'a str> => 5..;
        protocol_type: &'a str => 0..;
        protocols: Vec<JoinGroupProtocol<'a>> => 0..;
        reason: Option<&'a str> => 8..;
    }

    /// An assignment protocol that the member supports. Its metadata is opaque to the broker.
    pub struct JoinGroupProtocol<'a> {
        name: &'a str => 0..;
        metadata: &'a [u8] => 0..;
    }

    /// The new generation.
    pub struct JoinGroupResponse<'a> in 0..=9, flexible 6 {
        throttle_time_ms: i32 => 2..;
        error_code: KafkaError => 0..;
        generation_id: i32 = -1 => 0..;
        protocol_type: Option<Cow<'a, str>> => 7..;
        protocol_name: Option<Cow<'a, str>> => 0.., null 7..;
        leader: Cow<'a, str> => 0..;
        skip_assignment: bool => 9..;
        member_id: Cow<'a, str> => 0..;
        members: Vec<JoinGroupMember<'a>> => 0..;
    }

    /// A member, for the leader.
    pub struct JoinGroupMember<'a> {
        member_id: Cow<'a, str> => 0..;
        group_instance_id: Option<Cow<'a, str>> => 5..;
        metadata: Cow<'a, [u8]> => 0..;
    }

    /// Requests the assignment. The leader's request contains all assignments.
    pub struct SyncGroupRequest<'a> in 0..=5, flexible 4 {
        group_id: &'a str => 0..;
        generation_id: i32 => 0..;
        member_id: &'a str => 0..;
        group_instance_id: Option<&'a str> => 3..;
        protocol_type: Option<&'a str> => 5..;
        protocol_name: Option<&'a str> => 5..;
        assignments: Vec<SyncGroupAssignment<'a>> => 0..;
    }

    /// Assignment of one member, opaque to the broker.
    pub struct SyncGroupAssignment<'a> {
        member_id: &'a str => 0..;
        assignment: &'a [u8] => 0..;
    }

    /// The member's assignment.
    pub struct SyncGroupResponse<'a> in 0..=5, flexible 4 {
        throttle_time_ms: i32 => 1..;
        error_code: KafkaError => 0..;
        protocol_type: Option<Cow<'a, str>> => 5..;
        protocol_name: Option<Cow<'a, str>> => 5..;
        assignment: Cow<'a, [u8]> => 0..;
    }

    /// Heartbeat of a member.
    pub struct HeartbeatRequest<'a> in 0..=4, flexible 4 {
        group_id: &'a str => 0..;
        generation_id: i32 => 0..;
        member_id: &'a str => 0..;
        group_instance_id: Option<&'a str> => 3..;
    }

    /// Response to a heartbeat: the error says whether the member has to rejoin.
    pub struct HeartbeatResponse in 0..=4, flexible 4 {
        throttle_time_ms: i32 => 1..;
        error_code: KafkaError => 0..;
    }

    /// Leaves a group: one member up to version 2, a list from version 3 on.
    pub struct LeaveGroupRequest<'a> in 0..=5, flexible 4 {
        group_id: &'a str => 0..;
        member_id: &'a str => 0..=2;
        members: Vec<LeaveGroupMember<'a>> => 3..;
    }

    /// A member that leaves.
    pub struct LeaveGroupMember<'a> {
        member_id: &'a str => 3..;
        group_instance_id: Option<&'a str> => 3..;
        reason: Option<&'a str> => 5..;
    }

    /// Results of leaving.
    pub struct LeaveGroupResponse<'a> in 0..=5, flexible 4 {
        throttle_time_ms: i32 => 1..;
        error_code: KafkaError => 0..;
        members: Vec<LeaveGroupMemberResponse<'a>> => 3..;
    }

    /// Result for one member.
    pub struct LeaveGroupMemberResponse<'a> {
        member_id: Cow<'a, str> => 3..;
        group_instance_id: Option<Cow<'a, str>> => 3..;
        error_code: KafkaError => 3..;
    }
}
