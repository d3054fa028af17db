//! Format 1 of the state log: a node was a cluster of one, and a record had the stores of partitions instead of their replicas.

use highwater_protocol::ids::{NodeId, Offset};

use super::{Entry, ReplicasRecord};

/// The version byte of payloads in this format.
pub(super) const VERSION: u8 = 1;

/// A change.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum Record {
    TopicCreated(TopicRecord),
    TopicDeleted { id: [u8; 16] },
    TopicGone { id: [u8; 16] },
    TopicConfigured { id: [u8; 16], configs: Vec<(String, Option<String>)> },
    PartitionsAdded { id: [u8; 16], stores: Vec<u16> },
    ProducerIdsReserved { end: i64 },
}

/// A topic.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct TopicRecord {
    id: [u8; 16],
    name: String,
    stores: Vec<u16>,
    configs: Vec<(String, String)>,
}

/// A piece of a snapshot.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Snapshot {
    topics: Vec<TopicRecord>,
    deleting: Vec<([u8; 16], Vec<u16>)>,
    producer_ids_end: i64,
}

impl Record {
    /// Returns the entry that node `me` writes for it today, with a record at this offset.
    pub(super) fn upgrade(self, me: NodeId, offset: Offset) -> Entry {
        let (record, stores) = match self {
            Self::TopicGone { id } => return Entry::TopicGone { id },
            Self::TopicCreated(topic) => {
                let (topic, stores) = topic.upgrade(me);
                (super::Record::TopicCreated(topic), stores)
            }
            Self::PartitionsAdded { id, stores } => {
                let replicas = ReplicasRecord::alone(me, stores.len());
                (super::Record::PartitionsAdded { id, replicas }, stores)
            }
            Self::TopicDeleted { id } => (super::Record::TopicDeleted { id }, Vec::new()),
            Self::TopicConfigured { id, configs } => {
                (super::Record::TopicConfigured { id, configs }, Vec::new())
            }
            Self::ProducerIdsReserved { end } => (super::Record::ProducerIdsReserved { end }, Vec::new()),
        };
        Entry::Applied { offset: offset.0, record, stores }
    }
}

impl TopicRecord {
    fn upgrade(self, me: NodeId) -> (super::TopicRecord, Vec<u16>) {
        let Self { id, name, stores, configs } = self;
        let replicas = ReplicasRecord::alone(me, stores.len());
        (super::TopicRecord { id, name, replicas, configs }, stores)
    }
}

impl Snapshot {
    /// Returns the piece that node `me` writes for it today.
    pub(super) fn upgrade(self, me: NodeId) -> super::Snapshot {
        super::Snapshot {
            topics: self.topics.into_iter().map(|topic| topic.upgrade(me)).collect(),
            deleting: self.deleting,
            producer_ids_end: self.producer_ids_end,
            nodes: Vec::new(),
            next_offset: 0,
        }
    }
}
