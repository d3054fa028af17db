//! A topic, as the metadata has it.

use std::collections::BTreeMap;

use highwater_protocol::ids::{NodeId, PartitionIndex, StoreId, TopicId, TopicPartition};
use highwater_protocol::topic::{GROUPS_TOPIC, is_reserved_topic_name};
use highwater_replication::raft::ReplicaId;

use super::assignment::Assignment;
use super::configs::TopicConfig;
use super::record::TopicRecord;
use crate::api::ApiError;

/// A topic.
#[derive(Clone, PartialEq, Debug)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// The replicas of its partitions.
    pub assignment: Assignment,
    /// Its settings.
    pub configs: BTreeMap<String, String>,
    /// Its resolved configuration.
    pub config: TopicConfig,
}

impl Topic {
    /// Returns an error if the topic is the broker's own, which clients can only read.
    pub(crate) fn check_writable(&self) -> Result<(), ApiError> {
        if self.is_internal() { Err(ApiError::InternalTopic) } else { Ok(()) }
    }

    /// Returns whether the broker keeps its own state in it.
    pub fn is_internal(&self) -> bool {
        is_reserved_topic_name(&self.name)
    }

    /// Returns whether coordinators keep groups in it.
    pub(crate) fn keeps_groups(&self) -> bool {
        self.name == GROUPS_TOPIC
    }

    /// Returns the number of its partitions.
    pub fn partition_count(&self) -> usize {
        self.assignment.len()
    }

    /// Returns the nodes that have replicas of a partition, the preferred leader first; none if there is no such partition.
    pub fn replicas(&self, partition: PartitionIndex) -> &[NodeId] {
        self.assignment.replicas(partition.0 as usize)
    }

    /// Returns the replicas that a partition was created with. Changes of them since then are in its log.
    pub fn created_with(&self, partition: PartitionIndex) -> impl Iterator<Item = ReplicaId> {
        self.assignment.created_with(partition.0 as usize)
    }

    /// Returns the node that leads a partition when all of its replicas are well.
    pub fn preferred_leader(&self, partition: PartitionIndex) -> NodeId {
        // `Assignment` has no partition without a replica.
        self.replicas(partition).first().copied().unwrap_or(NodeId(0))
    }

    /// Returns the store of this node's replica of a partition, if there is one.
    pub fn store(&self, partition: PartitionIndex) -> Option<StoreId> {
        self.assignment.store(partition.0 as usize)
    }

    /// Returns its partitions from number `first` on, each with the store of this node's replica.
    pub fn partitions_from(&self, first: usize) -> impl Iterator<Item = (TopicPartition, Option<StoreId>)> {
        let topic = self.id;
        self.assignment.stores_from(first).zip(first..).map(move |(store, index)| {
            (TopicPartition { topic, partition: PartitionIndex(index as u32) }, store)
        })
    }

    /// Returns the partitions with a replica on this node, and the store of each.
    pub fn local_partitions(&self) -> impl Iterator<Item = (TopicPartition, StoreId)> {
        self.partitions_from(0).filter_map(|(tp, store)| Some((tp, store?)))
    }

    /// Returns the number of its replicas in each of `stores` stores of this node.
    pub fn loads(&self, stores: usize) -> Vec<usize> {
        let mut loads = vec![0; stores];
        for (_, store) in self.local_partitions() {
            if let Some(load) = loads.get_mut(usize::from(store.0)) {
                *load += 1;
            }
        }
        loads
    }

    /// Returns its approximate bytes in a snapshot.
    pub(super) fn snapshot_bytes(&self) -> usize {
        let configs: usize = self.configs.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        64 + self.name.len() + self.assignment.len() * 3 + self.assignment.replica_count() * 4 + configs
    }

    /// Returns its record, with the stores of the replicas on this node.
    pub(super) fn to_record(&self) -> (TopicRecord, Vec<u16>) {
        let record = TopicRecord {
            id: self.id.0,
            name: self.name.clone(),
            replicas: self.assignment.to_record(),
            configs: self.configs.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        (record, self.local_partitions().map(|(_, store)| store.0).collect())
    }
}
