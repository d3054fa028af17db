//! The metadata: the state that the records lead to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use highwater_protocol::ids::{
    LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, StoreId, TopicId, TopicPartition,
};
use highwater_protocol::topic::collision_name;

use super::assignment::Assignment;
use super::configs::TopicConfig;
use super::listed::Listed;
use super::node::Nodes;
use super::placement::place;
use super::record::{DecodeRecordError, Entry, Record, ReplicasRecord, Snapshot, TopicRecord};
use super::spread::NodeLoad;
use super::topic::Topic;
use crate::api::Node;
use crate::mutants::{Mutant, is_planted};

/// Number of producer ids in a block that a shard reserves.
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// Topics whose logs are being freed, with the stores that may still have data of them.
pub type Deleting = BTreeMap<TopicId, Vec<StoreId>>;

/// Leader epochs other than 0.
pub type Epochs = BTreeMap<TopicPartition, LeaderEpoch>;

/// All of the metadata, as one node has it. Cheap to clone: topics are shared.
///
/// Invariant: `by_name`, `by_id` and `listed` hold the same topics. A topic is never in these and in `deleting`. `collisions` holds those of them
/// that have a collision name.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The node that has it.
    me: NodeId,
    version: u64,
    /// The offset of the next record.
    next_offset: Offset,
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
    /// Partitions of all topics.
    partitions: usize,
    /// Replicas in each store of this node.
    loads: Vec<usize>,
    /// What each node has, if it has had any replica.
    node_loads: BTreeMap<NodeId, NodeLoad>,
    /// All nodes.
    nodes: Arc<Nodes>,
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
    /// This node has registered itself, or has changed.
    Node(Arc<Node>),
}

/// A record contradicts the records before it. The controller validates before it writes, so this is damage or a bug.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the metadata log contradicts itself: {0}")]
pub struct ApplyError(pub String);

impl Metadata {
    /// Creates the metadata of a new cluster, on node `me`.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            version: 0,
            next_offset: Offset(0),
            by_name: BTreeMap::new(),
            by_id: BTreeMap::new(),
            collisions: Arc::default(),
            deleting: Deleting::new(),
            producer_ids_end: None,
            bytes: 0,
            partitions: 0,
            loads: Vec::new(),
            node_loads: BTreeMap::new(),
            nodes: Arc::default(),
            epochs: Arc::default(),
            listed: Listed::default(),
        }
    }

    /// Applies the pieces of a snapshot and the entries after it, from the state log of node `me`.
    pub fn recover<'a>(
        me: NodeId,
        snapshot: impl IntoIterator<Item = &'a [u8]>,
        entries: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, RecoverError> {
        let mut metadata = Self::new(me);
        for piece in snapshot {
            metadata.add_piece(Snapshot::decode(piece, me)?)?;
        }
        for payload in entries {
            metadata.apply(&metadata.decode(payload)?)?;
        }
        if is_planted(Mutant::MetadataAppliedTwice) {
            metadata.next_offset = Offset(metadata.next_offset.0.saturating_sub(1).max(0));
        }
        Ok(metadata)
    }

    /// Decodes the next entry of the state log.
    pub(super) fn decode(&self, payload: &[u8]) -> Result<Entry, DecodeRecordError> {
        Entry::decode(payload, self.me, self.next_offset)
    }

    fn add_piece(&mut self, piece: Snapshot) -> Result<(), ApplyError> {
        self.producer_ids_end = self.producer_ids_end.max(Some(ProducerId(piece.producer_ids_end)));
        for node in &piece.nodes {
            self.put_node(Arc::new(Node::of(node)));
        }
        for (topic, stores) in piece.topics {
            self.create(&topic, &stores)?;
        }
        for (id, stores) in piece.deleting {
            self.deleting.insert(TopicId(id), stores.into_iter().map(StoreId).collect());
        }
        self.next_offset = Offset(piece.next_offset);
        Ok(())
    }

    /// Returns the entry with which this node applies the next record. New replicas on this node get the emptiest of `stores` stores.
    pub fn place(&self, record: Record, stores: usize) -> Entry {
        let record = if self.is_known(&record) {
            Record::ProducerIdsReserved { end: self.producer_ids_end().0 }
        } else {
            record
        };
        let new = record.new_replicas().map_or(0, |replicas| replicas.count_on(self.me));
        let mut placed = Vec::new();
        if new > 0 {
            let topic = record.topic().and_then(|id| self.topic_by_id(id));
            let own = topic.map_or_else(|| vec![0; stores], |topic| topic.loads(stores));
            placed.extend(place(&self.loads(stores), &own, new).iter().map(|store| store.0));
        }
        Entry::Applied { offset: self.next_offset.0, record, stores: placed }
    }

    /// Returns whether a record of a snapshot says nothing new.
    fn is_known(&self, record: &Record) -> bool {
        match record {
            Record::SnapshotBegan { .. } => true,
            Record::SnapshotTopic(topic) => self.by_id.contains_key(&TopicId(topic.id)),
            _ => false,
        }
    }

    /// Applies an entry. Returns the change for shards, if any.
    pub fn apply(&mut self, entry: &Entry) -> Result<Option<Change>, ApplyError> {
        let change = match entry {
            Entry::Applied { offset, record: Record::SnapshotBegan { producer_ids_end }, .. } => {
                let version = self.version;
                *self = Self { version, ..Self::new(self.me) };
                self.producer_ids_end = Some(ProducerId(*producer_ids_end));
                self.next_offset = Offset(offset + 1);
                None
            }
            Entry::Applied { offset, record, stores } => {
                if *offset != self.next_offset.0 {
                    let next = self.next_offset;
                    return Err(ApplyError(format!("record {offset} is applied in place of record {next}")));
                }
                let change = self.apply_record(record, stores)?;
                self.next_offset = Offset(offset + 1);
                change
            }
            Entry::TopicGone { id } => {
                self.deleting.remove(&TopicId(*id));
                None
            }
        };
        self.version += 1;
        Ok(change)
    }

    fn apply_record(&mut self, record: &Record, stores: &[u16]) -> Result<Option<Change>, ApplyError> {
        Ok(match record {
            Record::TopicCreated(topic) | Record::SnapshotTopic(topic) => Some(self.create(topic, stores)?),
            Record::TopicDeleted { id } => Some(self.delete(TopicId(*id))?),
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
            Record::PartitionsAdded { id, replicas } => {
                let mut topic = Topic::clone(self.known(TopicId(*id))?);
                self.extend(&mut topic.assignment, &topic.name, replicas, stores)?;
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
            Record::NodeRegistered(node) => {
                let node = Arc::new(Node::of(node));
                self.put_node(Arc::clone(&node));
                Some(Change::Node(node))
            }
            Record::SnapshotBegan { .. } => None,
        })
    }

    fn extend(
        &self,
        assignment: &mut Assignment,
        topic: &str,
        replicas: &ReplicasRecord,
        stores: &[u16],
    ) -> Result<(), ApplyError> {
        assignment
            .extend(replicas, self.me, stores)
            .map_err(|why| ApplyError(format!("topic {topic}: {why}")))
    }

    fn create(&mut self, record: &TopicRecord, stores: &[u16]) -> Result<Change, ApplyError> {
        let id = TopicId(record.id);
        if self.by_name.contains_key(&record.name) || self.by_id.contains_key(&id) {
            return Err(ApplyError(format!("topic {} ({id}) is created twice", record.name)));
        }
        let configs: BTreeMap<String, String> = record.configs.iter().cloned().collect();
        let config = TopicConfig::resolve(&configs).map_err(|e| ApplyError(e.to_string()))?;
        let mut assignment = Assignment::default();
        self.extend(&mut assignment, &record.name, &record.replicas, stores)?;
        let topic = Topic { id, name: record.name.clone(), assignment, configs, config };
        Ok(self.changed(topic))
    }

    fn delete(&mut self, id: TopicId) -> Result<Change, ApplyError> {
        let topic = Arc::clone(self.known(id)?);
        self.take_out(id);
        self.forget_epochs(id);
        let mut stores: Vec<StoreId> = topic.local_partitions().map(|(_, store)| store).collect();
        stores.sort_unstable();
        stores.dedup();
        // Without a replica here there is nothing to free.
        if !stores.is_empty() {
            self.deleting.insert(id, stores);
        }
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
            Change::Node(node) => self.put_node(Arc::clone(node)),
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
        self.partitions += topic.partition_count();
        for (_, store) in topic.local_partitions() {
            let at = usize::from(store.0);
            if self.loads.len() <= at {
                self.loads.resize(at + 1, 0);
            }
            self.loads[at] += 1;
        }
        for nodes in topic.assignment.partitions() {
            for (place, node) in nodes.iter().enumerate() {
                self.node_loads.entry(*node).or_default().add(place == 0);
            }
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
        self.partitions -= topic.partition_count();
        for (_, store) in topic.local_partitions() {
            self.loads[usize::from(store.0)] -= 1;
        }
        for nodes in topic.assignment.partitions() {
            for (place, node) in nodes.iter().enumerate() {
                self.node_loads.entry(*node).or_default().remove(place == 0);
            }
        }
    }

    fn put_node(&mut self, node: Arc<Node>) {
        self.bytes += node.snapshot_bytes();
        let before = Arc::make_mut(&mut self.nodes).insert(node.id, node);
        self.bytes -= before.map_or(0, |before| before.snapshot_bytes());
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

    /// Returns the node that has this metadata.
    pub fn node(&self) -> NodeId {
        self.me
    }

    /// Returns the offset of the next record to apply: the number of records that have been.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Returns the nodes that have registered themselves.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The same, as of now.
    pub fn shared_nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// Returns what a node has of all topics.
    pub fn node_load(&self, node: NodeId) -> NodeLoad {
        self.node_loads.get(&node).copied().unwrap_or_default()
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

    /// Returns the first topic after this bound, by id.
    pub(super) fn next_topic(&self, from: Bound<TopicId>) -> Option<&Arc<Topic>> {
        self.by_id.range((from, Bound::Unbounded)).next().map(|(_, topic)| topic)
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

    /// Returns the number of replicas in each of `stores` stores of this node.
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
