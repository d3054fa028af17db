//! What the records add up to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, ProducerId, StoreId, TopicId, TopicPartition};
use highwater_protocol::topic::collision_name;

use super::configs::TopicConfig;
use super::listed::Listed;
use super::record::{DecodeRecordError, Record, Snapshot, TopicRecord};

/// Producer ids that a shard takes at a time.
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// A topic.
#[derive(Clone, PartialEq, Debug)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// The store of each partition, by number.
    pub stores: Vec<StoreId>,
    /// Configuration that was set for it.
    pub configs: BTreeMap<String, String>,
    /// What that means.
    pub config: TopicConfig,
}

impl Topic {
    /// Its partitions with their stores.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, StoreId)> {
        self.partitions_from(0)
    }

    /// The same from a partition on.
    pub fn partitions_from(&self, first: usize) -> impl Iterator<Item = (TopicPartition, StoreId)> {
        let topic = self.id;
        self.stores.iter().enumerate().skip(first).map(move |(index, store)| {
            (TopicPartition { topic, partition: PartitionIndex(index as u32) }, *store)
        })
    }

    /// About what it takes in a snapshot.
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

/// A topic whose logs are being freed: which stores may still hold something of it.
pub type Deleting = BTreeMap<TopicId, Vec<StoreId>>;

/// Epochs of leaders that are not 0.
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
    /// Names that Kafka takes for the same, by their collision name. Several only where topics are older than the rule. Only creating
    /// and deleting topics looks at it, so the copies that shards get share it.
    collisions: Arc<BTreeMap<String, Vec<String>>>,
    deleting: Deleting,
    producer_ids_end: i64,
    /// About what a snapshot takes.
    bytes: usize,
    /// Partitions of all topics, and of each store.
    partitions: usize,
    loads: Vec<usize>,
    /// Epochs that are not 0. Not written down: the logs themselves know them.
    epochs: Arc<Epochs>,
    /// All topics by name, for those who list them.
    listed: Listed,
}

/// What a shard has to do about a change.
#[derive(Clone, Debug)]
pub enum Change {
    /// This topic is new or was changed.
    Topic(Arc<Topic>),
    /// This topic was deleted.
    Deleted(TopicId),
}

/// A record does not fit what came before it. The controller checks before it writes, so this is damage or a bug.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the metadata log contradicts itself: {0}")]
pub struct ApplyError(pub String);

impl Metadata {
    /// What the pieces of a snapshot and the records after it add up to.
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
        self.producer_ids_end = self.producer_ids_end.max(piece.producer_ids_end);
        for topic in piece.topics {
            self.apply(&Record::TopicCreated(topic))?;
        }
        for (id, stores) in piece.deleting {
            self.deleting.insert(TopicId(id), stores.into_iter().map(StoreId).collect());
        }
        Ok(())
    }

    /// Takes a change. Says what shards have to do about it, if anything.
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
                if *end < self.producer_ids_end {
                    return Err(ApplyError(format!(
                        "producer ids go back from {} to {end}",
                        self.producer_ids_end
                    )));
                }
                self.producer_ids_end = *end;
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

    /// Takes a change that another copy of the metadata has made. Costs as much as the change is large, not the metadata.
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

    /// The topic, if there is one, that a new topic of this name could not be told apart from.
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

    /// Learns the epoch of a partition from the shard that leads it.
    pub fn learn_epoch(&mut self, tp: TopicPartition, epoch: LeaderEpoch) {
        Arc::make_mut(&mut self.epochs).insert(tp, epoch);
        self.version += 1;
    }

    /// Counts the changes since it was recovered.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// A topic by identity.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// The first topic beyond this bound, of those that exist and those that are being deleted.
    pub(super) fn next_id(&self, from: Bound<TopicId>) -> Option<TopicId> {
        let range = (from, Bound::Unbounded);
        let exists = self.by_id.range(range).next().map(|(id, _)| *id);
        let deleting = self.deleting.range(range).next().map(|(id, _)| *id);
        exists.into_iter().chain(deleting).min()
    }

    /// The names of topics from this one on, in their order.
    pub fn names_from(&self, first: &str) -> impl Iterator<Item = &str> {
        self.by_name
            .range::<str, _>((Bound::Included(first), Bound::Unbounded))
            .map(|(name, _)| name.as_str())
    }

    /// All topics, by name, as they are now.
    pub fn listed(&self) -> Listed {
        self.listed.clone()
    }

    /// The epochs of leaders that are not 0, as they are now.
    pub fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(&self.epochs)
    }

    /// Topics whose logs are being freed.
    pub fn deleting(&self) -> &Deleting {
        &self.deleting
    }

    /// The first producer id that no shard has been given.
    pub fn producer_ids_end(&self) -> ProducerId {
        ProducerId(self.producer_ids_end)
    }

    /// The term of a partition's leader.
    pub fn epoch(&self, tp: TopicPartition) -> LeaderEpoch {
        self.epochs.get(&tp).copied().unwrap_or(LeaderEpoch(0))
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// About what a snapshot takes.
    pub fn snapshot_bytes(&self) -> usize {
        self.bytes
    }

    /// How many partitions each of `stores` stores has.
    pub fn loads(&self, stores: usize) -> Vec<usize> {
        let mut loads = self.loads.clone();
        loads.resize(stores, 0);
        loads
    }
}

impl Topic {
    /// How many of its partitions each of `stores` stores has.
    pub fn loads(&self, stores: usize) -> Vec<usize> {
        count(self.stores.iter(), stores)
    }
}

fn count<'a>(placed: impl Iterator<Item = &'a StoreId>, stores: usize) -> Vec<usize> {
    let mut loads = vec![0; stores];
    for store in placed {
        if let Some(load) = loads.get_mut(store.0 as usize) {
            *load += 1;
        }
    }
    loads
}

/// Why the metadata cannot be recovered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// A payload cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeRecordError),
    /// Payloads contradict each other.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

#[cfg(test)]
mod tests;
