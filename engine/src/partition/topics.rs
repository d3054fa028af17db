//! Creates, updates and deletes the partitions of topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ids::{StoreId, TopicId, TopicPartition};
use highwater_replication::raft::{Config, ReplicaId};
use highwater_runtime::plane::Disk;
use highwater_storage::{CommitRule, PartitionConfig};

use super::consensus::{Consensus, Recovered};
use super::replica::{Partition, PartitionId};
use super::{PartitionEvent, Replicas};
use crate::api::ApiError;
use crate::meta::Topic;

/// A deleted topic whose space is being freed.
#[derive(Default, Debug)]
struct Freeing {
    /// Partitions that the store has not freed.
    missing: usize,
    /// Whether all of its partitions have been deleted.
    all_deleted: bool,
}

/// Deleted topics whose space is being freed.
#[derive(Default, Debug)]
pub(super) struct Deletions(BTreeMap<TopicId, Freeing>);

impl Replicas {
    /// Creates the partitions of a topic that belong to this shard, or updates their configuration: from number `from` on, at most `count_max`.
    /// Returns how many were handled.
    pub(super) fn put_topic(
        &mut self,
        disk: &mut dyn Disk,
        topic: &Arc<Topic>,
        from: usize,
        count_max: usize,
        me: ReplicaId,
        wall_ms: i64,
    ) -> usize {
        let mut count = 0;
        let mut replicas = vec![me];
        let mut config = Config::new([me], []).expect("one voter is enough");
        for (tp, store) in topic.partitions_from(from).take(count_max) {
            count += 1;
            let Some(index) = store.and_then(|store| self.store_index(store)) else { continue };
            // In a cluster of one, all partitions have the same.
            if !topic.created_with(tp.partition).eq(replicas.iter().copied()) {
                replicas.clear();
                replicas.extend(topic.created_with(tp.partition));
                config = Config::new(replicas.iter().copied(), [])
                    .expect("the metadata has at most as many replicas of a partition, and none twice");
            }
            self.put_partition(disk, topic, tp, index, (me, &config), wall_ms);
        }
        count
    }

    /// Creates a partition in a store, or updates its configuration. `replicas`: this replica, and those that the partition was created with.
    pub(super) fn put_partition(
        &mut self,
        disk: &mut dyn Disk,
        topic: &Arc<Topic>,
        tp: TopicPartition,
        index: usize,
        replicas: (ReplicaId, &Config),
        wall_ms: i64,
    ) {
        let store = &mut self.stores[index].store;
        if let Some(partition) = self.table.find(tp).and_then(|id| self.table.get_mut(id)) {
            partition.topic = Arc::clone(topic);
            partition.consensus.set_min_insync(topic.config.min_insync);
            store.ensure_partition(tp, partition.storage_config());
            return;
        }
        let (me, created_with) = replicas;
        // What is committed is not known before the replicas are.
        let config = PartitionConfig { commit: CommitRule::Quorum, ..topic.config.for_storage() };
        let slot = store.ensure_partition(tp, config);
        let consensus =
            Consensus::new(me, &Recovered::of(store, slot), created_with, topic.config.min_insync);
        let partition = Partition::new(tp, Arc::clone(topic), index, slot, consensus);
        store.ensure_partition(tp, partition.storage_config());
        let id = self.table.insert(partition);
        self.settle(disk, id, wall_ms);
    }

    /// Deletes at most `count_max` partitions of a topic. Returns how many, and whether none is left. [`PartitionEvent::TopicFreed`] follows when
    /// their space is free.
    pub(super) fn delete_topic(
        &mut self,
        disk: &mut dyn Disk,
        topic: TopicId,
        count_max: usize,
    ) -> (usize, bool) {
        let mut count = 0;
        for store in 0..self.stores.len() {
            let of_topic = self.stores[store].store.partitions_of(topic);
            let here: Vec<_> = of_topic.take(count_max - count).collect();
            count += here.len();
            for (_, slot) in here {
                if let Some(id) = self.table.of_slot(store, slot) {
                    self.forget_partition(id);
                }
                self.deletions.0.entry(topic).or_default().missing += 1;
                self.stores[store].store.delete_partition(disk, slot);
            }
        }
        if self.stores.iter().any(|entry| entry.store.partitions_of(topic).next().is_some()) {
            return (count, false);
        }
        self.deletions.0.entry(topic).or_default().all_deleted = true;
        self.note_freed(topic);
        (count, true)
    }

    /// A deleted partition's space is free.
    pub(super) fn handle_freed(&mut self, tp: TopicPartition) {
        if let Some(freeing) = self.deletions.0.get_mut(&tp.topic) {
            freeing.missing -= 1;
        }
        self.note_freed(tp.topic);
    }

    fn note_freed(&mut self, topic: TopicId) {
        if self.deletions.0.get(&topic).is_some_and(|freeing| freeing.all_deleted && freeing.missing == 0) {
            self.deletions.0.remove(&topic);
            self.events.push_back(PartitionEvent::TopicFreed(topic));
        }
    }

    /// Removes a deleted partition, and fails everything that waits for it.
    fn forget_partition(&mut self, id: PartitionId) {
        let Some(mut partition) = self.table.remove(id) else { return };
        self.events.push_back(PartitionEvent::Deleted {
            id,
            waiters: std::mem::take(&mut partition.waiters),
            readers: std::mem::take(&mut partition.readers),
        });
        self.abandon_moves(partition.store, partition.slot);
        self.sends.forget(id);
        let me = partition.consensus.id();
        self.gone.extend(partition.consensus.others().map(|other| (partition.tp, me, other)));
        let tp = partition.tp;
        for ack in partition.acks.take_all() {
            self.events.push_back(PartitionEvent::fail(tp, ack, ApiError::TopicDeleted));
        }
    }

    fn store_index(&self, store: StoreId) -> Option<usize> {
        self.stores.iter().position(|entry| entry.id == store)
    }
}
