//! The topic of the metadata's own log. No record creates it, and no client sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ids::{NodeId, StoreId};
use highwater_protocol::topic::{METADATA_PARTITION, METADATA_TOPIC};

use super::{Assignment, Topic, configs::TopicConfig};

/// The store of its replica on each node: shard 0 has it.
pub(crate) const METADATA_STORE: StoreId = StoreId(0);

/// Its settings: nothing is removed, and no extent is closed because of its age.
const CONFIGS: [(&str, &str); 2] = [("retention.ms", "-1"), ("segment.ms", "9223372036854775807")];

/// Returns the topic of the metadata's log in the cluster that this node has founded.
pub(crate) fn metadata_topic(founder: NodeId) -> Arc<Topic> {
    let configs: BTreeMap<String, String> =
        CONFIGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let config = TopicConfig::resolve(&configs).expect("these are valid settings");
    Arc::new(Topic {
        id: METADATA_PARTITION.topic,
        name: METADATA_TOPIC.to_owned(),
        // Every cluster begins with one node. Who else has a replica is in the log.
        assignment: Assignment::local(founder, [METADATA_STORE]),
        configs,
        config,
    })
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::PartitionIndex;

    use super::*;

    #[test]
    fn it_has_one_partition_that_keeps_everything_and_was_created_by_the_founder() {
        let topic = metadata_topic(NodeId(7));
        assert_eq!((topic.partition_count(), topic.store(PartitionIndex(0))), (1, Some(METADATA_STORE)));
        assert_eq!(topic.preferred_leader(PartitionIndex(0)), NodeId(7));
        let storage = topic.config.for_storage();
        assert_eq!(
            (storage.retention_ms, storage.retention_bytes, storage.segment_ms),
            (None, None, i64::MAX)
        );
        assert!(storage.compaction.is_none() && topic.is_internal() && !topic.keeps_groups());
    }
}
