//! What the records add up to.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, StoreId, TopicId, TopicPartition};
use highwater_protocol::topic::collision_name;

use super::configs::TopicConfig;
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
        let topic = self.id;
        self.stores.iter().enumerate().map(move |(index, store)| {
            (TopicPartition { topic, partition: PartitionIndex(index as u32) }, *store)
        })
    }

    /// About what it takes in a snapshot.
    fn bytes(&self) -> usize {
        let configs: usize = self.configs.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        64 + self.name.len() + self.stores.len() * 2 + configs
    }

    fn to_record(&self) -> TopicRecord {
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

/// All of the metadata. Cheap to clone: topics are shared.
///
/// Invariant: `by_name` and `by_id` hold the same topics. A topic is never in these and in `deleting`. `collisions` holds those of them
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
    /// Epochs that are not 0. Not written down: the logs themselves know them.
    epochs: BTreeMap<TopicPartition, LeaderEpoch>,
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
    /// What a snapshot and the records behind it add up to.
    pub fn recover<'a>(
        snapshot: Option<&[u8]>,
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, RecoverError> {
        let mut metadata = match snapshot {
            Some(payload) => Self::from_snapshot(Snapshot::decode(payload)?)?,
            None => Self::default(),
        };
        for payload in records {
            metadata.apply(&Record::decode(payload)?)?;
        }
        Ok(metadata)
    }

    fn from_snapshot(snapshot: Snapshot) -> Result<Self, ApplyError> {
        let mut metadata = Self { producer_ids_end: snapshot.producer_ids_end, ..Self::default() };
        for topic in snapshot.topics {
            metadata.apply(&Record::TopicCreated(topic))?;
        }
        for (id, stores) in snapshot.deleting {
            metadata.deleting.insert(TopicId(id), stores.into_iter().map(StoreId).collect());
        }
        Ok(metadata)
    }

    /// All of it, as the payload of a state log.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        Snapshot {
            topics: self.by_id.values().map(|t| t.to_record()).collect(),
            deleting: self
                .deleting
                .iter()
                .map(|(id, stores)| (id.0, stores.iter().map(|s| s.0).collect()))
                .collect(),
            producer_ids_end: self.producer_ids_end,
        }
        .encode()
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
                Some(self.put(topic))
            }
            Record::PartitionsAdded { id, stores } => {
                let mut topic = Topic::clone(self.known(TopicId(*id))?);
                topic.stores.extend(stores.iter().copied().map(StoreId));
                Some(self.put(topic))
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
        if let Some(name) = collision_name(&record.name) {
            Arc::make_mut(&mut self.collisions).entry(name).or_default().push(record.name.clone());
        }
        Ok(self.put(Topic { id, name: record.name.clone(), stores: record.store_ids(), configs, config }))
    }

    fn delete(&mut self, id: TopicId) -> Result<Change, ApplyError> {
        let topic = Arc::clone(self.known(id)?);
        self.by_id.remove(&id);
        self.by_name.remove(&topic.name);
        self.forget_collision(&topic.name);
        self.bytes -= topic.bytes();
        let mut stores = topic.stores.clone();
        stores.sort_unstable();
        stores.dedup();
        self.deleting.insert(id, stores);
        self.epochs.retain(|tp, _| tp.topic != id);
        Ok(Change::Deleted(id))
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

    fn put(&mut self, topic: Topic) -> Change {
        let topic = Arc::new(topic);
        self.bytes += topic.bytes();
        if let Some(old) = self.by_name.insert(topic.name.clone(), Arc::clone(&topic)) {
            self.bytes -= old.bytes();
        }
        self.by_id.insert(topic.id, Arc::clone(&topic));
        Change::Topic(topic)
    }

    /// Learns the epoch of a partition from the shard that leads it.
    pub fn learn_epoch(&mut self, tp: TopicPartition, epoch: LeaderEpoch) {
        self.epochs.insert(tp, epoch);
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

    /// Topics whose logs are being freed.
    pub fn deleting(&self) -> &Deleting {
        &self.deleting
    }

    /// The first producer id that no shard has been given.
    pub fn producer_ids_end(&self) -> i64 {
        self.producer_ids_end
    }

    /// The term of a partition's leader.
    pub fn epoch(&self, tp: TopicPartition) -> LeaderEpoch {
        self.epochs.get(&tp).copied().unwrap_or(LeaderEpoch(0))
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.by_id.values().map(|t| t.stores.len()).sum()
    }

    /// About what a snapshot takes.
    pub fn snapshot_bytes(&self) -> usize {
        self.bytes
    }

    /// How many partitions each of `stores` stores has.
    pub fn loads(&self, stores: usize) -> Vec<usize> {
        count(self.by_id.values().flat_map(|t| &t.stores), stores)
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
mod tests {
    use super::*;

    fn created(id: u8, name: &str, stores: &[u16]) -> Record {
        Record::TopicCreated(TopicRecord {
            id: [id; 16],
            name: name.into(),
            stores: stores.to_vec(),
            configs: vec![("retention.ms".into(), "1000".into())],
        })
    }

    fn after(records: &[Record]) -> Metadata {
        let payloads: Vec<Vec<u8>> = records.iter().map(Record::encode).collect();
        Metadata::recover(None, payloads.iter().map(Vec::as_slice)).expect("these fit each other")
    }

    #[test]
    fn a_snapshot_stands_for_everything_before_it() {
        let before = [
            created(1, "a", &[0, 1, 1]),
            created(2, "b", &[1]),
            Record::TopicDeleted { id: [2; 16] },
            Record::ProducerIdsReserved { end: 3000 },
        ];
        let behind = [
            Record::TopicConfigured {
                id: [1; 16],
                configs: vec![
                    ("retention.ms".into(), None),
                    ("segment.bytes".into(), Some("1048576".into())),
                ],
            },
            Record::PartitionsAdded { id: [1; 16], stores: vec![0] },
            created(3, "b", &[0]),
        ];
        let snapshot = after(&before).encode_snapshot();
        let payloads: Vec<Vec<u8>> = behind.iter().map(Record::encode).collect();
        let short = Metadata::recover(Some(&snapshot), payloads.iter().map(Vec::as_slice)).expect("fits");
        let long = after(&[&before[..], &behind[..]].concat());
        assert_eq!(short.by_name, long.by_name);
        assert_eq!(short.by_id, long.by_id);
        assert_eq!(short.deleting, long.deleting);
        assert_eq!(short.producer_ids_end, 3000);
        assert_eq!(short.bytes, long.bytes);
        assert_eq!(short.loads(2), [3, 2]);
        let topic = short.topic("a").expect("it exists");
        assert_eq!(topic.config.retention_ms, Some(7 * 24 * 60 * 60 * 1000));
        assert_eq!(topic.config.segment_bytes, 1_048_576);
    }

    #[test]
    fn a_topic_created_again_under_its_name_is_another_topic() {
        let mut metadata = after(&[created(1, "a", &[0])]);
        assert!(matches!(
            metadata.apply(&Record::TopicDeleted { id: [1; 16] }),
            Ok(Some(Change::Deleted(TopicId(id)))) if id == [1; 16]
        ));
        metadata.apply(&created(2, "a", &[0])).expect("the name is free");
        assert_eq!(metadata.topic("a").map(|t| t.id), Some(TopicId([2; 16])));
        assert_eq!(metadata.deleting().keys().copied().collect::<Vec<_>>(), [TopicId([1; 16])]);
        metadata.apply(&Record::TopicGone { id: [1; 16] }).expect("fits");
        assert!(metadata.deleting().is_empty());
    }

    #[test]
    fn records_that_contradict_each_other_are_an_error() {
        let mut metadata = after(&[created(1, "a", &[0]), Record::ProducerIdsReserved { end: 10 }]);
        for bad in [
            created(2, "a", &[0]),
            created(1, "b", &[0]),
            Record::TopicDeleted { id: [7; 16] },
            Record::PartitionsAdded { id: [7; 16], stores: vec![0] },
            Record::ProducerIdsReserved { end: 5 },
        ] {
            assert!(metadata.apply(&bad).is_err(), "{bad:?}");
        }
    }
}
