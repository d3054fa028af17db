//! What tests of other modules need of partitions.

use std::sync::Arc;

use highwater_protocol::ids::{StoreId, TopicPartition};
use highwater_replication::raft::{Config, Replica};
use highwater_runtime::plane::Disk;
use highwater_storage::Store;

use crate::api::RequiredAcks;
use crate::meta::Topic;
use crate::partition::append::{AppendRequest, ValidBatch};
use crate::partition::{ParsedBatch, Partition, Partitions, StoreEntry};
use crate::reply_to::ReplyTo;

impl StoreEntry {
    pub(crate) fn new(id: StoreId, store: Store) -> Self {
        Self { id, store, full: false, closed: false }
    }
}

impl Partition {
    pub(crate) fn replica(&self) -> &Replica {
        self.consensus.replica()
    }
}

impl Partitions {
    /// Creates a partition that was created with these replicas.
    pub(crate) fn create_replica(
        &mut self,
        disk: &mut dyn Disk,
        topic: &Arc<Topic>,
        tp: TopicPartition,
        store: usize,
        created_with: &Config,
        wall_ms: i64,
    ) {
        let replicas = (self.replica, created_with);
        self.replicas.put_partition(disk, topic, tp, store, replicas, wall_ms);
    }

    /// Appends a batch that needs no check.
    pub(crate) fn append_checked(
        &mut self,
        disk: &mut dyn Disk,
        (tp, acks, reply_to): (TopicPartition, RequiredAcks, ReplyTo),
        batch: ParsedBatch<'static>,
        wall_ms: i64,
    ) {
        let max_timestamp = batch.header().max_timestamp();
        let batch = ValidBatch { batch, max_timestamp };
        self.append(disk, AppendRequest { tp, acks, reply_to, batch }, wall_ms);
    }
}
