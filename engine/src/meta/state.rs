//! The metadata: the state that the records lead to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, ProducerId, StoreId, TopicId, TopicPartition};
use highwater_protocol::topic::collision_name;

use super::configs::TopicConfig;
use super::listed::Listed;
use super::record::{DecodeRecordError, Record, Snapshot, TopicRecord};
use super::topic::Topic;

/// Number of producer ids in a block that a shard reserves.
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// Topics whose logs are being freed, with the stores that may still have data of them.
pub type Deleting = BTreeMap<TopicId, Vec<StoreId>>;

/// Leader epochs other than 0.
pub type Epochs = BTreeMap<TopicPartition, LeaderEpoch>;

/// All of the metadata. Cheap to clone: topics are shared.
///
/// Invariant: `by_name`, `by_id` and `listed` hold the same topics. A topic is never in these and in `deleting`. `collisions` holds those of them
/// that have a collision name.
#[derive(Clone, Default, Debug)]
pub struct Metadata {
    version: u64,
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: BTreeMap<TopicId, Arc<Topic>>,
    /// Topic names by collision name, which Kafka does not distinguish. Several only for topics that are older than the rule. Only used to
    /// create and delete topics, so the copies of shards share it.
    collisions: Arc<BTreeMap<String, Vec<String>>>,
    deleting: Deleting,
    /// The first producer id that is not reserved; `None` until some have been reserved.
    producer_ids_end: Option<ProducerId>,
    /// Approximate bytes of a snapshot.
    bytes: usize,
    /// Partitions of all topics, and of each store.
    partitions: usize,
    loads: Vec<usize>,
    /// Epochs other than 0. Not persisted: the logs have them.
    epochs: Arc<Epochs>,
    /// All topics by name, for those who list them.
    listed: Listed,
}

/// A change of the metadata, for shards.
#[derive(Clone, Debug)]
pub enum Change {
    /// This topic was created or changed.
    Topic(Arc<Topic>),
    /// This topic was deleted.
    Deleted(TopicId),
}

/// A record contradicts the records before it. The controller validates before it writes, so this is damage or a bug.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the metadata log contradicts itself: {0}")]
pub struct ApplyError(pub String);

impl Metadata {
    /// Applies the pieces of a snapshot and the records after it.
    pub fn recover<'a>(
        snapshot: impl IntoIterator<Item = &'a [u8]>,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, RecoverError> {
        let mut metadata = Self::default();
        for piece in snapshot {
            metadata.add_piece(Snapshot::decode(piece)?)?;
        }
        for payload in records {
            metadata.apply(&Record::decode(payload)?)?;
        }
        Ok(metadata)
    }

    fn add_piece(&mut self, piece: Snapshot) -> Result<(), ApplyError> {
        self.producer_ids_end = self.producer_ids_end.max(Some(ProducerId(piece.producer_ids_end)));
        for topic in piece.topics {
            self.apply(&Record::TopicCreated(topic))?;
        }
        for (id, stores) in piece.deleting {
            self.deleting.insert(TopicId(id), stores.into_iter().map(StoreId).collect());
        }
        Ok(())
    }

    /// Applies a record. Returns the change for shards, if any.
    pub fn apply(&mut self, record: &Record) -> Result<Option<Change>, ApplyError> {
        let change = match record {
            Record::TopicCreated(topic) => Some(self.create(topic)?),
            Record::TopicDeleted { id } => Some(self.delete(TopicId(*id))?),
            Record::TopicGone { id } => {
                self.deleting.remove(&TopicId(*id));
                None
            }
            Record::TopicConfigured { id, configs } => {
                let mut topic = Topic::clone(self.known(TopicId(*id))?);
                for (name, value) in configs {
                    match value {
                        Some(value) => topic.configs.insert(name.clone(), value.clone()),
                        None => topic.configs.remove(name),
                    };
                }
                topic.config = TopicConfig::resolve(&topic.configs).map_err(|e| ApplyError(e.to_string()))?;
                Some(self.changed(topic))
            }
            Record::PartitionsAdded { id, stores } => {
                let mut topic = Topic::clone(self.known(TopicId(*id))?);
                topic.stores.extend(stores.iter().copied().map(StoreId));
                Some(self.changed(topic))
            }
            Record::ProducerIdsReserved { end } => {
                let (before, end) = (self.producer_ids_end(), ProducerId(*end));
                if end < before {
                    return Err(ApplyError(format!("producer ids go back from {before} to {end}")));
                }
                self.producer_ids_end = Some(end);
                None
            }
        };
        self.version += 1;
        Ok(change)
    }

    fn create(&mut self, record: &TopicRecord) -> Result<Change, ApplyError> {
        let id = record.topic_id();
        if self.by_name.contains_key(&record.name) || self.by_id.contains_key(&id) {
            return Err(ApplyError(format!("topic {} ({id}) is created twice", record.name)));
        }
        let configs: BTreeMap<String, String> = record.configs.iter().cloned().collect();
        let config = TopicConfig::resolve(&configs).map_err(|e| ApplyError(e.to_string()))?;
        let topic = Topic { id, name: record.name.clone(), stores: record.store_ids(), configs, config };
        Ok(self.changed(topic))
    }

    fn delete(&mut self, id: TopicId) -> Result<Change, ApplyError> {
        let topic = Arc::clone(self.known(id)?);
        self.take_out(id);
        self.forget_epochs(id);
        let mut stores = topic.stores.clone();
        stores.sort_unstable();
        stores.dedup();
        self.deleting.insert(id, stores);
        Ok(Change::Deleted(id))
    }

    /// Applies a change that was made to another copy of the metadata. The cost is in proportion to the change, not to the metadata.
    pub fn absorb(&mut self, change: &Change) {
        match change {
            Change::Topic(topic) => self.put(Arc::clone(topic)),
            Change::Deleted(id) => {
                self.take_out(*id);
                self.forget_epochs(*id);
            }
        }
    }

    fn forget_collision(&mut self, topic: &str) {
        let Some(name) = collision_name(topic) else { return };
        let collisions = Arc::make_mut(&mut self.collisions);
        if let Some(names) = collisions.get_mut(&name) {
            names.retain(|name| name != topic);
            if names.is_empty() {
                collisions.remove(&name);
            }
        }
    }

    /// Returns an existing topic that Kafka would not distinguish from one with this name.
    pub fn topic_that_collides(&self, name: &str) -> Option<&str> {
        self.collisions.get(&collision_name(name)?)?.first().map(String::as_str)
    }

    fn known(&self, id: TopicId) -> Result<&Arc<Topic>, ApplyError> {
        self.by_id.get(&id).ok_or_else(|| ApplyError(format!("topic {id} is changed and does not exist")))
    }

    fn changed(&mut self, topic: Topic) -> Change {
        let topic = Arc::new(topic);
        self.put(Arc::clone(&topic));
        Change::Topic(topic)
    }

    fn put(&mut self, topic: Arc<Topic>) {
        self.take_out(topic.id);
        self.listed.insert(&topic);
        self.bytes += topic.snapshot_bytes();
        self.partitions += topic.stores.len();
        for store in &topic.stores {
            let at = usize::from(store.0);
            if self.loads.len() <= at {
                self.loads.resize(at + 1, 0);
            }
            self.loads[at] += 1;
        }
        if let Some(name) = collision_name(&topic.name) {
            Arc::make_mut(&mut self.collisions).entry(name).or_default().push(topic.name.clone());
        }
        self.by_name.insert(topic.name.clone(), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    fn take_out(&mut self, id: TopicId) {
        let Some(topic) = self.by_id.remove(&id) else { return };
        self.listed.remove(&topic.name);
        self.by_name.remove(&topic.name);
        self.forget_collision(&topic.name);
        self.bytes -= topic.snapshot_bytes();
        self.partitions -= topic.stores.len();
        for store in &topic.stores {
            self.loads[usize::from(store.0)] -= 1;
        }
    }

    fn forget_epochs(&mut self, topic: TopicId) {
        let at = |index| TopicPartition { topic, partition: PartitionIndex(index) };
        if self.epochs.range(at(0)..=at(u32::MAX)).next().is_some() {
            Arc::make_mut(&mut self.epochs).extract_if(at(0)..=at(u32::MAX), |_, _| true).for_each(drop);
        }
    }

    /// Sets the epoch of a partition, as reported by the shard that leads it.
    pub fn learn_epoch(&mut self, tp: TopicPartition, epoch: LeaderEpoch) {
        Arc::make_mut(&mut self.epochs).insert(tp, epoch);
        self.version += 1;
    }

    /// Returns the number of changes since recovery.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns a topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// Returns a topic by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// Returns all topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Returns the first topic after this bound, including those that are being deleted.
    pub(super) fn next_id(&self, from: Bound<TopicId>) -> Option<TopicId> {
        let range = (from, Bound::Unbounded);
        let exists = self.by_id.range(range).next().map(|(id, _)| *id);
        let deleting = self.deleting.range(range).next().map(|(id, _)| *id);
        exists.into_iter().chain(deleting).min()
    }

    /// Returns the names of topics from this one on, in order.
    pub fn names_from(&self, first: &str) -> impl Iterator<Item = &str> {
        self.by_name
            .range::<str, _>((Bound::Included(first), Bound::Unbounded))
            .map(|(name, _)| name.as_str())
    }

    /// Returns all topics, by name, as of now.
    pub fn listed(&self) -> Listed {
        self.listed.clone()
    }

    /// Returns the leader epochs other than 0, as of now.
    pub fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(&self.epochs)
    }

    /// Returns topics whose logs are being freed.
    pub fn deleting(&self) -> &Deleting {
        &self.deleting
    }

    /// Returns the first producer id that is not reserved.
    pub fn producer_ids_end(&self) -> ProducerId {
        self.producer_ids_end.unwrap_or(ProducerId(0))
    }

    /// Returns the leader epoch of a partition.
    pub fn epoch(&self, tp: TopicPartition) -> LeaderEpoch {
        self.epochs.get(&tp).copied().unwrap_or(LeaderEpoch(0))
    }

    /// Returns the number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Returns the approximate bytes of a snapshot.
    pub fn snapshot_bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of partitions on each of `stores` stores.
    pub fn loads(&self, stores: usize) -> Vec<usize> {
        let mut loads = self.loads.clone();
        loads.resize(stores, 0);
        loads
    }
}

/// Why the metadata cannot be recovered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// A payload cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeRecordError),
    /// Payloads contradict each other.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

#[cfg(test)]
mod tests;
