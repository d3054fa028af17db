//! Placement of groups: the partition that keeps a group, and the shard of that partition, which runs the group's coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_protocol::ids::PartitionIndex;
pub(crate) use highwater_protocol::partitioner::partition_of_group;
use highwater_runtime::plane::ShardIndex;

use crate::meta::Topic;

/// Maps groups to the shards of their coordinators.
#[derive(Clone, Debug)]
pub(crate) struct GroupOwners {
    /// The groups' topic.
    topic: Arc<Topic>,
    shards: u16,
}

impl GroupOwners {
    pub(crate) fn new(topic: Arc<Topic>, shards: u16) -> Self {
        Self { topic, shards }
    }

    /// Returns the shard of a group's coordinator.
    pub(crate) fn of(&self, group: &str) -> ShardIndex {
        let partition = partition_of_group(group, self.topic.partition_count() as u32);
        // The coordinator of a partition on other nodes is not here. Any shard can say so.
        self.topic.store(PartitionIndex(partition)).map_or(0, |store| store.0 % self.shards)
    }

    /// Returns the shards that have partitions of the groups' topic.
    pub(crate) fn shards(&self) -> BTreeSet<ShardIndex> {
        self.topic.local_partitions().map(|(_, store)| store.0 % self.shards).collect()
    }
}
