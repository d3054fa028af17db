//! Configurations are shown and changed.

use highwater_net::kafka::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use highwater_runtime::plane::Plane;

use super::{Call, Part};
use crate::message::{Message, RequestId};
use crate::shard::Shard;

/// Requests of this family that wait.
pub(in crate::shard) enum ConfigsPending {}

impl Shard {
    /// A part of what such a request waits for has come.
    pub(super) fn kafka_configs_part(
        &mut self,
        _plane: &mut dyn Plane<Message>,
        _request: RequestId,
        pending: ConfigsPending,
        _part: u32,
        _came: Part,
    ) {
        match pending {}
    }

    pub(super) fn kafka_describe_configs(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &DescribeConfigsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_alter_configs(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &AlterConfigsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }

    pub(super) fn kafka_incremental_alter_configs(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        _request: &IncrementalAlterConfigsRequest<'_>,
    ) {
        self.kafka_unserved(plane, call);
    }
}
