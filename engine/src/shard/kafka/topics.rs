//! Topics are made, deleted and changed.

use highwater_net::kafka::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
};
use highwater_runtime::plane::Plane;

use super::{Call, Part};
use crate::message::{Message, RequestId};
use crate::shard::Shard;

/// Requests of this family that wait.
pub(in crate::shard) enum TopicsPending {}

impl Shard {
    /// A part of what such a request waits for has come.
    pub(super) fn kafka_topics_part(
        &mut self,
        _plane: &mut dyn Plane<Message>,
        _request: RequestId,
        pending: TopicsPending,
        _part: u32,
        _came: Part,
    ) {
        match pending {}
    }

    pub(super) fn kafka_create_topics(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &CreateTopicsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_delete_topics(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &DeleteTopicsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_create_partitions(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &CreatePartitionsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_delete_records(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &DeleteRecordsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }
}
