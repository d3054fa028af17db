//! A snapshot of the metadata, written over many turns while the metadata changes.
//!
//! It is exact: all of the metadata as of the moment when the snapshot began, because records must not be applied twice. Before
//! a topic changes that the snapshot has not reached, its state is set aside. That costs as much as the change: topics are shared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use highwater_protocol::ids::{Offset, ProducerId, StoreId, TopicId};

use super::node::Nodes;
use super::record::{Entry, Snapshot};
use super::state::Metadata;
use super::topic::Topic;

/// A snapshot in progress.
#[derive(Debug)]
pub struct SnapshotWriter {
    /// The last topic that was written.
    after: Option<TopicId>,
    /// Topics after it that have changed since the beginning, in their state at the beginning.
    set_aside: BTreeMap<TopicId, State>,
    producer_ids_end: ProducerId,
    next_offset: Offset,
    /// The nodes, until the first piece has them.
    nodes: Option<Arc<Nodes>>,
}

/// The state of a topic when the snapshot began.
#[derive(Clone, Debug)]
enum State {
    Absent,
    Exists(Arc<Topic>),
    Deleting(Vec<StoreId>),
}

impl SnapshotWriter {
    /// Begins a snapshot of the current metadata.
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            after: None,
            set_aside: BTreeMap::new(),
            producer_ids_end: metadata.producer_ids_end(),
            next_offset: metadata.next_offset(),
            nodes: Some(metadata.shared_nodes()),
        }
    }

    /// Sets aside the topic that an entry changes. Call it before each entry is applied.
    pub fn before(&mut self, metadata: &Metadata, entry: &Entry) {
        let Some(id) = entry.topic() else { return };
        if self.after.is_none_or(|after| id > after) {
            self.set_aside.entry(id).or_insert_with(|| State::of(metadata, id));
        }
    }

    /// Returns the next piece, of about `bytes_max` bytes; `None` when the snapshot is complete.
    pub fn next_piece(&mut self, metadata: &Metadata, bytes_max: usize) -> Option<Vec<u8>> {
        let mut piece = Snapshot {
            producer_ids_end: self.producer_ids_end.0,
            next_offset: self.next_offset.0,
            ..Snapshot::default()
        };
        let nodes = self.nodes.take();
        let is_first = nodes.is_some();
        piece.nodes = nodes.iter().flat_map(|nodes| nodes.values()).map(|node| node.to_record()).collect();
        let (mut bytes, mut any) = (0, false);
        while bytes < bytes_max
            && let Some(id) = self.next_topic(metadata)
        {
            any = true;
            self.after = Some(id);
            match self.set_aside.remove(&id).unwrap_or_else(|| State::of(metadata, id)) {
                State::Absent => {}
                State::Exists(topic) => {
                    bytes += topic.snapshot_bytes();
                    piece.topics.push(topic.to_record());
                }
                State::Deleting(stores) => {
                    bytes += 24 + 2 * stores.len();
                    piece.deleting.push((id.0, stores.iter().map(|store| store.0).collect()));
                }
            }
        }
        (any || is_first).then(|| piece.encode())
    }

    /// Returns the next topic that exists or existed when the snapshot began.
    fn next_topic(&self, metadata: &Metadata) -> Option<TopicId> {
        let from = (self.after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let set_aside = self.set_aside.range(from).next().map(|(id, _)| *id);
        metadata.next_id(from.0).into_iter().chain(set_aside).min()
    }
}

impl State {
    fn of(metadata: &Metadata, id: TopicId) -> Self {
        if let Some(topic) = metadata.topic_by_id(id) {
            Self::Exists(Arc::clone(topic))
        } else if let Some(stores) = metadata.deleting().get(&id) {
            Self::Deleting(stores.clone())
        } else {
            Self::Absent
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use highwater_protocol::ids::NodeId;

    use super::super::record::{Record, ReplicasRecord, TopicRecord};
    use super::*;

    const ME: NodeId = NodeId(1);

    /// A third of the partitions has a replica on another node only.
    fn replicas(count: usize) -> ReplicasRecord {
        ReplicasRecord::new((0..count).map(|n| if n % 3 == 2 { vec![2] } else { vec![1] }))
    }

    fn entry(action: u8, id: u8, metadata: &Metadata) -> Entry {
        let topic = TopicId([id; 16]);
        let id = topic.0;
        let record = if metadata.topic_by_id(topic).is_some() {
            match action % 3 {
                0 => Record::TopicDeleted { id },
                1 => Record::PartitionsAdded { id, replicas: replicas(1) },
                _ => Record::TopicConfigured { id, configs: vec![("retention.ms".into(), Some("5".into()))] },
            }
        } else if metadata.deleting().contains_key(&topic) {
            return Entry::TopicGone { id };
        } else if action.is_multiple_of(4) {
            Record::ProducerIdsReserved { end: metadata.producer_ids_end().0 + 10 }
        } else {
            let name = format!("topic-{}", id[0]);
            Record::TopicCreated(TopicRecord { id, name, replicas: replicas(5), configs: vec![] })
        };
        metadata.place(record, 3)
    }

    fn whole(metadata: &Metadata) -> Vec<u8> {
        SnapshotWriter::new(metadata).next_piece(metadata, usize::MAX).expect("the first piece")
    }

    #[test]
    fn a_snapshot_has_the_metadata_at_its_start_whatever_changes_while_it_is_written() {
        let mut count = 0;
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut metadata = Metadata::new(ME);
            let mut random = |metadata: &Metadata| entry(rng.random(), rng.random_range(0..12), metadata);
            for _ in 0..30 {
                let entry = random(&metadata);
                metadata.apply(&entry).expect("fits");
            }
            let expected = whole(&metadata);
            let mut writer = SnapshotWriter::new(&metadata);
            let mut pieces = Vec::new();
            for step in 0..60 {
                if step % 5 == seed % 5 {
                    pieces.extend(writer.next_piece(&metadata, 100));
                } else {
                    let entry = random(&metadata);
                    writer.before(&metadata, &entry);
                    metadata.apply(&entry).expect("fits");
                }
            }
            pieces.extend(std::iter::from_fn(|| writer.next_piece(&metadata, 100)));
            count += pieces.len();
            let recovered = Metadata::recover(ME, pieces.iter().map(Vec::as_slice), []).expect("fits");
            assert_eq!(whole(&recovered), expected, "seed {seed}");
        }
        assert!(count > 300, "{count} pieces");
    }
}
