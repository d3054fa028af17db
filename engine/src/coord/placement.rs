//! Placement of groups: the partition that keeps a group, and the shard of that partition, which runs the group's coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_protocol::ids::PartitionIndex;
use highwater_runtime::plane::ShardIndex;

use crate::meta::Topic;

/// Returns which of `partitions` partitions keeps a group: the one that a Kafka broker would choose.
pub(crate) fn partition_of_group(group: &str, partitions: u32) -> u32 {
    // Java's `String.hashCode`, over UTF-16 units.
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // `i32::MIN` has no absolute value; Kafka uses 0.
    hash.checked_abs().unwrap_or(0).cast_unsigned() % partitions.max(1)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_in_the_partition_that_kafka_would_choose() {
        // Computed in Java: `Utils.abs(group.hashCode()) % partitions`.
        for (group, partitions, expected) in [
            ("", 50, 0),
            ("a", 50, 97 % 50),
            ("hello", 50, 99_162_322 % 50),
            // The hash is `i32::MIN`.
            ("polygenelubricants", 50, 0),
            // The hash is negative.
            ("The quick brown fox", 16, 1_739_336_029 % 16),
            // Two UTF-16 units.
            ("\u{1f600}", 16, 1_772_899 % 16),
        ] {
            assert_eq!(partition_of_group(group, partitions), expected, "{group:?}");
        }
    }
}
