//! The partition that is the log of the cluster's metadata: what is different about it.
//!
//! - No record creates it. It is there from the moment when a cluster has a second node, in the first store of shard 0, and is never deleted.
//! - It has a reserve of space: topics can be deleted on a full disk.
//! - On the founder it begins at the offset of the next record: everything before is applied, and in the state log.

use std::sync::Arc;

use highwater_protocol::ids::{LogIndex, Offset};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_replication::raft::Config;
use highwater_runtime::plane::Disk;
use highwater_storage::{CommitRule, LogPoint, PartitionConfig};

use super::replica::Partition;
use super::{PartitionId, Partitions};
use crate::meta::{METADATA_STORE, Nodes, Topic, next_config};

impl Partitions {
    /// Opens the log of the metadata, of which this node has applied the records before `next`. On shard 0.
    pub(crate) fn open_metadata(
        &mut self,
        disk: &mut dyn Disk,
        topic: &Arc<Topic>,
        next: Offset,
        wall_ms: i64,
    ) {
        let created_with = Config::new(topic.created_with(METADATA_PARTITION.partition), [])
            .expect("one node has founded the cluster");
        let me = self.replica;
        let entry = &mut self.replicas.stores[0];
        assert!(entry.id == METADATA_STORE, "shard 0 has the first store");
        let config = PartitionConfig { commit: CommitRule::Quorum, ..topic.config.for_storage() };
        let slot = entry.store.ensure_partition(METADATA_PARTITION, config);
        entry.store.keep_reserve_for(slot);
        let bounds = entry.store.bounds(slot);
        if created_with.is_only(me) && bounds.append_index == LogIndex(0) && !bounds.faulty {
            // Not at index 0: a log that begins there has everything.
            let start = LogPoint { index: LogIndex(1), offset: next };
            let begun = entry.store.start_at(disk, slot, start, Vec::new(), None);
            begun.expect("the log has nothing");
        }
        self.replicas.put_partition(disk, topic, METADATA_PARTITION, 0, (me, &created_with), wall_ms);
    }

    /// Takes the next step towards replicas of the metadata's log on these nodes, if this replica leads and none is under way.
    pub(crate) fn follow_nodes(&mut self, disk: &mut dyn Disk, nodes: &Nodes, wall_ms: i64) {
        let Some((_, log)) = self.metadata() else { return };
        let Some(current) = log.consensus.changeable_config() else { return };
        let Some(next) = next_config(current, nodes, |id| log.consensus.has_caught_up(id)) else { return };
        tracing::info!(from = ?current, to = ?next, "the replicas of the metadata's log change");
        // An error says that it has to wait. It is tried again in a later turn.
        if let Err(error) = self.change_replicas(disk, METADATA_PARTITION, &next, wall_ms) {
            tracing::debug!("the replicas of the metadata's log cannot be changed yet: {error}");
        }
    }

    /// Returns the log of the metadata.
    pub(crate) fn metadata(&self) -> Option<(PartitionId, &Partition)> {
        let id = self.find(METADATA_PARTITION)?;
        Some((id, self.get(id)?))
    }
}
