//! What the metadata is kept as: the records of its log, the entries of a node's state log, and pieces of snapshots.

mod format_1;

use highwater_protocol::ids::{NodeId, Offset, TopicId};
use rkyv::rancor;
use rkyv::util::AlignedVec;

/// Format version, the first byte of every payload.
const FORMAT_VERSION: u8 = 2;

/// A committed change of the metadata, the same on all nodes.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Record {
    /// A topic was created.
    TopicCreated(TopicRecord),
    /// A topic was deleted; the logs of its partitions may be freed.
    TopicDeleted {
        /// The topic's id.
        id: [u8; 16],
    },
    /// Settings were set (`Some`) or reset to their defaults (`None`).
    TopicConfigured {
        /// The topic's id.
        id: [u8; 16],
        /// Names and values.
        configs: Vec<(String, Option<String>)>,
    },
    /// Partitions were added to a topic, after the existing ones.
    PartitionsAdded {
        /// The topic's id.
        id: [u8; 16],
        /// The replicas of each new one.
        replicas: ReplicasRecord,
    },
    /// Producer ids below this may be in use.
    ProducerIdsReserved {
        /// The first free id.
        end: i64,
    },
    /// A node has joined, or something about it has changed.
    NodeRegistered(NodeRecord),
    /// A snapshot of the metadata begins: what a node that joins has from before is not part of it. Nothing new for all others.
    SnapshotBegan {
        /// The first producer id that is not reserved.
        producer_ids_end: i64,
    },
    /// A topic of a snapshot. Nothing new for a node that has it.
    SnapshotTopic(TopicRecord),
}

/// A topic, in a record.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TopicRecord {
    /// Its identity.
    pub id: [u8; 16],
    /// Its name.
    pub name: String,
    /// The replicas of its partitions.
    pub replicas: ReplicasRecord,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// The nodes that have replicas of some partitions.
#[derive(Clone, PartialEq, Eq, Default, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ReplicasRecord {
    /// The nodes of all partitions, one partition after the other; of each, the preferred leader first.
    pub nodes: Vec<u32>,
    /// How many nodes each partition has.
    pub counts: Vec<u8>,
    /// Incarnations other than 0 that the nodes had when the partitions were created: the index in `nodes`, and the incarnation.
    pub incarnations: Vec<(u32, u32)>,
}

/// A node, in a record.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct NodeRecord {
    /// Its identity.
    pub id: u32,
    /// Which disk of this node it is.
    pub incarnation: u32,
    /// The id of this disk; zeros if it has none.
    pub disk: [u8; 16],
    /// Its rack.
    pub rack: Option<String>,
    /// Where clients reach it.
    pub clients: Vec<ClientAddressRecord>,
    /// Where other nodes reach it.
    pub peer: Option<AddressRecord>,
    /// The number of its shards.
    pub shards: u16,
}

/// A host and a port, in a record.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct AddressRecord {
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// An address for clients, in a record.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ClientAddressRecord {
    /// The protocol: 0 for Highwater's own, 1 for Kafka's.
    pub protocol: u8,
    /// The address.
    pub address: AddressRecord,
}

/// An entry of a node's state log.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Entry {
    /// A record was applied. It is one entry with what this node has decided about it, so that a crash cannot leave one without the other.
    Applied {
        /// The record's offset in the metadata log.
        offset: i64,
        /// The record.
        record: Record,
        /// The store of each new replica on this node, in the order of their partitions.
        stores: Vec<u16>,
    },
    /// The space of a deleted topic has been freed on all stores of this node.
    TopicGone {
        /// The topic's id.
        id: [u8; 16],
    },
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Default, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Snapshot {
    /// Topics, each with the stores of the replicas on this node.
    pub topics: Vec<(TopicRecord, Vec<u16>)>,
    /// Deleted topics, with the stores that may still have data of them.
    pub deleting: Vec<([u8; 16], Vec<u16>)>,
    /// The first producer id that is not reserved.
    pub producer_ids_end: i64,
    /// Nodes, in the first piece.
    pub nodes: Vec<NodeRecord>,
    /// The offset of the next record.
    pub next_offset: i64,
}

impl ReplicasRecord {
    /// Creates the record of partitions with these nodes.
    pub fn new(partitions: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let mut record = Self::default();
        for nodes in partitions {
            record.counts.push(nodes.len() as u8);
            record.nodes.extend(nodes);
        }
        record
    }

    /// Creates the record of `count` partitions with one replica each, on this node.
    pub(super) fn alone(node: NodeId, count: usize) -> Self {
        Self { nodes: vec![node.0; count], counts: vec![1; count], incarnations: Vec::new() }
    }

    /// Returns the nodes of each partition; `None` in place of what the record lacks, or has beyond them.
    pub(super) fn partitions(&self) -> impl Iterator<Item = Option<&[u32]>> {
        let mut rest = Some(&self.nodes[..]);
        let partitions = self.counts.iter().map(move |count| {
            let (nodes, after) = rest?.split_at_checked(usize::from(*count))?;
            rest = Some(after);
            Some(nodes)
        });
        let total: usize = self.counts.iter().map(|count| usize::from(*count)).sum();
        partitions.chain((total < self.nodes.len()).then_some(None))
    }

    /// Returns how many partitions have a replica on a node.
    pub(super) fn count_on(&self, node: NodeId) -> usize {
        self.partitions().flatten().filter(|nodes| nodes.contains(&node.0)).count()
    }
}

impl Record {
    /// Decodes a record of the metadata log. The first format that has this log is version 2.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeRecordError> {
        match version_of(payload)? {
            FORMAT_VERSION => decode(payload),
            older => Err(DecodeRecordError::Malformed(format!("format version {older} has no records"))),
        }
    }

    /// Returns the changed topic, if any.
    pub(super) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::TopicCreated(topic) | Self::SnapshotTopic(topic) => Some(TopicId(topic.id)),
            Self::TopicDeleted { id }
            | Self::TopicConfigured { id, .. }
            | Self::PartitionsAdded { id, .. } => Some(TopicId(*id)),
            Self::ProducerIdsReserved { .. } | Self::NodeRegistered(_) | Self::SnapshotBegan { .. } => None,
        }
    }

    /// Returns the replicas of new partitions, if there are any.
    pub(super) fn new_replicas(&self) -> Option<&ReplicasRecord> {
        match self {
            Self::TopicCreated(topic) | Self::SnapshotTopic(topic) => Some(&topic.replicas),
            Self::PartitionsAdded { replicas, .. } => Some(replicas),
            _ => None,
        }
    }
}

impl Entry {
    /// Returns whether the change is visible to shards and clients.
    pub(super) fn is_visible(&self) -> bool {
        match self {
            Self::Applied { record, .. } => !matches!(record, Record::ProducerIdsReserved { .. }),
            Self::TopicGone { .. } => false,
        }
    }

    /// Returns the changed topic, if any.
    pub(super) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::Applied { record, .. } => record.topic(),
            Self::TopicGone { id } => Some(TopicId(*id)),
        }
    }

    /// Decodes a payload of the state log of node `me`. `next` is the offset of a record in a format that does not have it.
    pub(super) fn decode(payload: &[u8], me: NodeId, next: Offset) -> Result<Self, DecodeRecordError> {
        match version_of(payload)? {
            format_1::VERSION => Ok(decode::<format_1::Record>(payload)?.upgrade(me, next)),
            _ => decode(payload),
        }
    }
}

impl Snapshot {
    /// Decodes a piece of a snapshot of node `me`.
    pub(super) fn decode(payload: &[u8], me: NodeId) -> Result<Self, DecodeRecordError> {
        match version_of(payload)? {
            format_1::VERSION => Ok(decode::<format_1::Snapshot>(payload)?.upgrade(me)),
            _ => decode(payload),
        }
    }
}

/// Returns whether a payload has an earlier format.
pub(super) fn is_old(payload: &[u8]) -> bool {
    payload.first().is_some_and(|version| *version < FORMAT_VERSION)
}

/// A payload cannot be decoded, although its checksum is correct.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeRecordError {
    /// Written by a newer version.
    #[error("the metadata has format version {0}, newer than this build understands: start a newer build")]
    Newer(u8),
    /// Not readable.
    #[error("a metadata record cannot be read: {0}")]
    Malformed(String),
}

macro_rules! encode {
    ($($t:ty => $version:expr),+) => {$(
        impl $t {
            /// Encodes it, after its version.
            pub(crate) fn encode(&self) -> Vec<u8> {
                let mut out = vec![$version];
                let body = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("memory is the only limit");
                out.extend_from_slice(&body);
                out
            }
        }
    )+};
}

pub(super) use encode;

encode!(Record => FORMAT_VERSION, Entry => FORMAT_VERSION, Snapshot => FORMAT_VERSION);

/// Returns the format version of a payload that this build can read.
fn version_of(payload: &[u8]) -> Result<u8, DecodeRecordError> {
    match payload.first() {
        Some(&version) if version > FORMAT_VERSION => Err(DecodeRecordError::Newer(version)),
        Some(&version) if version >= format_1::VERSION => Ok(version),
        _ => Err(DecodeRecordError::Malformed(format!("{} bytes without a version", payload.len()))),
    }
}

/// Decodes what follows the version, at an aligned address.
pub(super) fn decode<T>(payload: &[u8]) -> Result<T, DecodeRecordError>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
{
    let body = payload.get(1..).unwrap_or_default();
    let mut aligned = AlignedVec::<16>::with_capacity(body.len());
    aligned.extend_from_slice(body);
    rkyv::from_bytes::<T, rancor::Error>(&aligned).map_err(|e| DecodeRecordError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(3);

    #[test]
    fn entries_are_decoded_as_they_were_encoded() {
        let replicas = || ReplicasRecord::new([vec![3], vec![1, 2, 3]]);
        let topic = TopicRecord {
            id: [1; 16],
            name: "orders".into(),
            replicas: replicas(),
            configs: vec![("retention.ms".into(), "5".into())],
        };
        let address = AddressRecord { host: "::1".into(), port: 9192 };
        let node = NodeRecord {
            id: 3,
            incarnation: 1,
            disk: [8; 16],
            rack: Some("b".into()),
            clients: vec![ClientAddressRecord { protocol: 1, address: address.clone() }],
            peer: Some(address),
            shards: 4,
        };
        let records = [
            Record::TopicCreated(topic.clone()),
            Record::TopicDeleted { id: [1; 16] },
            Record::TopicConfigured { id: [2; 16], configs: vec![("a".into(), None)] },
            Record::PartitionsAdded { id: [2; 16], replicas: replicas() },
            Record::ProducerIdsReserved { end: 1000 },
            Record::NodeRegistered(node),
            Record::SnapshotBegan { producer_ids_end: 3000 },
            Record::SnapshotTopic(topic.clone()),
        ];
        let applied = |record| Entry::Applied { offset: 7, record, stores: vec![0, 1] };
        for record in &records {
            assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(record));
        }
        for entry in records.map(applied).into_iter().chain([Entry::TopicGone { id: [1; 16] }]) {
            assert_eq!(Entry::decode(&entry.encode(), ME, Offset(0)), Ok(entry));
        }
    }

    #[test]
    fn newer_and_malformed_payloads_are_distinguished() {
        let decode = |payload: &[u8]| Entry::decode(payload, ME, Offset(0));
        assert_eq!(decode(&[9, 1, 2]), Err(DecodeRecordError::Newer(9)));
        for malformed in [&[][..], &[0, 1, 2], &[1, 1, 2], &[2, 1, 2]] {
            assert!(matches!(decode(malformed), Err(DecodeRecordError::Malformed(_))), "{malformed:?}");
        }
    }
}
