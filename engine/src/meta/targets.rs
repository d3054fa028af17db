//! Topics and partitions that requests name, found for both protocols in one place.
//!
//! Leadership and access control belong here as well, so that neither protocol can omit them.

use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use highwater_runtime::plane::ShardIndex;

use crate::api::{ApiError, Service};
use crate::leaders::Leaders;
use crate::meta::{Metadata, Topic};

/// Finds topics and partitions.
#[derive(Clone, Copy)]
pub(crate) struct Targets<'a> {
    metadata: Option<&'a Arc<Metadata>>,
    leaders: &'a Leaders,
    shards: u16,
}

impl<'a> Targets<'a> {
    /// Creates a finder for this metadata of a broker with that many shards. `leaders`: for errors, which say where a partition is.
    pub(crate) fn new(metadata: Option<&'a Arc<Metadata>>, leaders: &'a Leaders, shards: u16) -> Self {
        Self { metadata, leaders, shards }
    }

    /// Finds the topic with this name.
    pub(crate) fn topic(self, name: &str) -> Result<&'a Arc<Topic>, ApiError> {
        let metadata = self.metadata.ok_or(ApiError::Starting(Service::Partitions))?;
        metadata.topic(name).ok_or_else(|| ApiError::UnknownTopic(name.to_owned()))
    }

    /// Finds the topic with this id.
    pub(crate) fn topic_by_id(self, id: TopicId) -> Result<&'a Arc<Topic>, ApiError> {
        let metadata = self.metadata.ok_or(ApiError::Starting(Service::Partitions))?;
        metadata.topic_by_id(id).ok_or(ApiError::UnknownTopicId(id))
    }

    /// Finds a partition of a topic, and the shard that owns it.
    pub(crate) fn partition(
        self,
        topic: &Topic,
        partition: PartitionIndex,
    ) -> Result<(TopicPartition, ShardIndex), ApiError> {
        if partition.0 as usize >= topic.partition_count() {
            return Err(ApiError::UnknownPartition { partition, count: topic.partition_count() });
        }
        let Some(store) = topic.store(partition) else {
            let tp = TopicPartition { topic: topic.id, partition };
            let led = self.leaders.get(tp);
            let epoch = led.map_or(LeaderEpoch(0), |led| led.epoch);
            let leader = led.and_then(|led| led.leader).map(|place| place.node);
            let partition = format!("{}/{partition}", topic.name);
            return Err(ApiError::NotLeader { partition, leader, epoch });
        };
        Ok((TopicPartition { topic: topic.id, partition }, store.0 % self.shards))
    }
}
