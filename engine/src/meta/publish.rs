//! What the controller and the shards send each other about the metadata.

use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, TopicId, TopicPartition};

use super::{Change, Metadata};

/// Durable changes of the metadata.
#[derive(Clone, Debug)]
pub struct Publish {
    /// In the first message: all of the metadata, with these changes.
    pub first: Option<Arc<Metadata>>,
    /// The version of the metadata after these changes.
    pub version: u64,
    /// The changes, in order.
    pub changes: Arc<[Change]>,
}

/// What a shard found when it opened its stores.
#[derive(Debug)]
pub struct Opened {
    /// Partitions whose leader epoch is not 0.
    pub epochs: Vec<(TopicPartition, LeaderEpoch)>,
    /// Topics with partitions in these stores.
    pub topics: Vec<TopicId>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}
