//! A topic, as the metadata has it.

use std::collections::BTreeMap;

use highwater_protocol::ids::{PartitionIndex, StoreId, TopicId, TopicPartition};
use highwater_protocol::topic::is_reserved_topic_name;

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
    /// The store of each partition, by number.
    pub stores: Vec<StoreId>,
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

    /// Returns its partitions with their stores.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, StoreId)> {
        self.partitions_from(0)
    }

    /// Returns its partitions from number `first` on, with their stores.
    pub fn partitions_from(&self, first: usize) -> impl Iterator<Item = (TopicPartition, StoreId)> {
        let topic = self.id;
        self.stores.iter().enumerate().skip(first).map(move |(index, store)| {
            (TopicPartition { topic, partition: PartitionIndex(index as u32) }, *store)
        })
    }

    /// Returns the number of its partitions on each of `stores` stores.
    pub fn loads(&self, stores: usize) -> Vec<usize> {
        let mut loads = vec![0; stores];
        for store in &self.stores {
            if let Some(load) = loads.get_mut(usize::from(store.0)) {
                *load += 1;
            }
        }
        loads
    }

    /// Returns its approximate bytes in a snapshot.
    pub(super) fn snapshot_bytes(&self) -> usize {
        let configs: usize = self.configs.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        64 + self.name.len() + self.stores.len() * 2 + configs
    }

    pub(super) fn to_record(&self) -> TopicRecord {
        TopicRecord {
            id: self.id.0,
            name: self.name.clone(),
            stores: self.stores.iter().map(|s| s.0).collect(),
            configs: self.configs.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}
