//! Groups and their offsets: asked of the coordinator on shard 0.

use highwater_net::kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use highwater_runtime::plane::Plane;

use super::{Call, Part};
use crate::message::{Message, RequestId};
use crate::shard::Shard;

/// Requests of this family that wait.
pub(in crate::shard) enum GroupsPending {}

impl Shard {
    /// A part of what such a request waits for has come.
    pub(super) fn kafka_groups_part(
        &mut self,
        _plane: &mut dyn Plane<Message>,
        _request: RequestId,
        pending: GroupsPending,
        _part: u32,
        _came: Part,
    ) {
        match pending {}
    }

    pub(super) fn kafka_find_coordinator(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &FindCoordinatorRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_join_group(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _client_id: &str,
        _request: &JoinGroupRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_sync_group(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &SyncGroupRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_heartbeat(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &HeartbeatRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_leave_group(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &LeaveGroupRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_offset_commit(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &OffsetCommitRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_offset_fetch(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &OffsetFetchRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_describe_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &DescribeGroupsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_list_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &ListGroupsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_delete_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &DeleteGroupsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_offset_delete(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &OffsetDeleteRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_consumer_group_heartbeat(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _client_id: &str,
        _request: &ConsumerGroupHeartbeatRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_consumer_group_describe(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &ConsumerGroupDescribeRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }
}
