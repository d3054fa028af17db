//! Which partition keeps a group, and which shard owns that partition: there is the group's coordinator.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_runtime::plane::ShardIndex;

use crate::meta::Topic;

/// Returns the partition that keeps a group, of so many, as Kafka's brokers choose it.
pub(crate) fn partition_of_group(group: &str, partitions: u32) -> u32 {
    // The hash of a Java string, over its UTF-16 units.
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The smallest number has no absolute value; Kafka takes 0.
    hash.checked_abs().unwrap_or(0).cast_unsigned() % partitions.max(1)
}

/// The shards with the coordinators of all groups.
#[derive(Clone, Debug)]
pub(crate) struct GroupOwners {
    /// The topic that keeps groups.
    topic: Arc<Topic>,
    shards: u16,
}

impl GroupOwners {
    pub(crate) fn new(topic: Arc<Topic>, shards: u16) -> Self {
        Self { topic, shards }
    }

    /// Returns the shard with the coordinator of a group.
    pub(crate) fn of(&self, group: &str) -> ShardIndex {
        let partition = partition_of_group(group, self.topic.stores.len() as u32);
        self.topic.stores[partition as usize].0 % self.shards
    }

    /// Returns all shards with coordinators.
    pub(crate) fn shards(&self) -> BTreeSet<ShardIndex> {
        self.topic.stores.iter().map(|store| store.0 % self.shards).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_in_the_partition_that_kafka_would_choose() {
        // What `Utils.abs(group.hashCode()) % partitions` gives in Java.
        for (group, partitions, expected) in [
            ("", 50, 0),
            ("a", 50, 97 % 50),
            ("hello", 50, 99_162_322 % 50),
            // Its hash is the smallest integer.
            ("polygenelubricants", 50, 0),
            // Its hash is negative.
            ("The quick brown fox", 16, 1_739_336_029 % 16),
            // Two units each.
            ("\u{1f600}", 16, 1_772_899 % 16),
        ] {
            assert_eq!(partition_of_group(group, partitions), expected, "{group:?}");
        }
    }
}
