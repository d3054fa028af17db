//! Records of the metadata log: changes, and snapshots.

use highwater_protocol::ids::{StoreId, TopicId};
use rkyv::rancor;
use rkyv::util::AlignedVec;

/// Format version, the first byte of every payload.
const FORMAT_VERSION: u8 = 1;

/// A change of the metadata.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Record {
    /// A topic was created.
    TopicCreated(TopicRecord),
    /// A topic was deleted; the logs of its partitions may be freed.
    TopicDeleted {
        /// The topic's id.
        id: [u8; 16],
    },
    /// The space of a deleted topic has been freed on all stores.
    TopicGone {
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
        /// The store of each new one.
        stores: Vec<u16>,
    },
    /// Producer ids below this may be in use.
    ProducerIdsReserved {
        /// The first free id.
        end: i64,
    },
}

impl Record {
    /// Returns whether the change is visible to shards and clients.
    pub(super) fn is_visible(&self) -> bool {
        !matches!(self, Self::TopicGone { .. } | Self::ProducerIdsReserved { .. })
    }

    /// Returns the changed topic, if any.
    pub(super) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::TopicCreated(topic) => Some(topic.topic_id()),
            Self::TopicDeleted { id }
            | Self::TopicGone { id }
            | Self::TopicConfigured { id, .. }
            | Self::PartitionsAdded { id, .. } => Some(TopicId(*id)),
            Self::ProducerIdsReserved { .. } => None,
        }
    }
}

/// The persisted form of a topic.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TopicRecord {
    /// Its identity.
    pub id: [u8; 16],
    /// Its name.
    pub name: String,
    /// The store of each partition, by number.
    pub stores: Vec<u16>,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Default, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Snapshot {
    pub topics: Vec<TopicRecord>,
    /// Deleted topics, with the stores that may still have data of them.
    pub deleting: Vec<([u8; 16], Vec<u16>)>,
    pub producer_ids_end: i64,
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

macro_rules! codec {
    ($t:ty) => {
        impl $t {
            /// Encodes it as a payload of the state log.
            pub(crate) fn encode(&self) -> Vec<u8> {
                let mut out = AlignedVec::<16>::new();
                out.push(FORMAT_VERSION);
                let body = rkyv::to_bytes::<rancor::Error>(self).expect("memory is the only limit");
                let mut out = out.into_vec();
                out.extend_from_slice(&body);
                out
            }

            /// Decodes a payload of the state log.
            pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeRecordError> {
                let body = body_of(payload)?;
                rkyv::from_bytes::<Self, rancor::Error>(&body)
                    .map_err(|e| DecodeRecordError::Malformed(e.to_string()))
            }
        }
    };
}

codec!(Record);
codec!(Snapshot);

/// Returns the bytes after the version, copied to an aligned address.
fn body_of(payload: &[u8]) -> Result<AlignedVec<16>, DecodeRecordError> {
    match payload.split_first() {
        Some((&FORMAT_VERSION, body)) => {
            let mut aligned = AlignedVec::with_capacity(body.len());
            aligned.extend_from_slice(body);
            Ok(aligned)
        }
        Some((&version, _)) if version > FORMAT_VERSION => Err(DecodeRecordError::Newer(version)),
        _ => Err(DecodeRecordError::Malformed(format!("{} bytes without a version", payload.len()))),
    }
}

impl TopicRecord {
    pub(super) fn topic_id(&self) -> TopicId {
        TopicId(self.id)
    }

    pub(super) fn store_ids(&self) -> Vec<StoreId> {
        self.stores.iter().copied().map(StoreId).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_decoded_as_they_were_encoded() {
        let records = [
            Record::TopicCreated(TopicRecord {
                id: [1; 16],
                name: "orders".into(),
                stores: vec![0, 1, 0],
                configs: vec![("retention.ms".into(), "5".into())],
            }),
            Record::TopicDeleted { id: [1; 16] },
            Record::TopicConfigured { id: [2; 16], configs: vec![("a".into(), None)] },
            Record::PartitionsAdded { id: [2; 16], stores: vec![3] },
            Record::ProducerIdsReserved { end: 1000 },
            Record::TopicGone { id: [1; 16] },
        ];
        for record in records {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn newer_and_malformed_payloads_are_distinguished() {
        assert_eq!(Record::decode(&[9, 1, 2]), Err(DecodeRecordError::Newer(9)));
        assert!(matches!(Record::decode(&[]), Err(DecodeRecordError::Malformed(_))));
        assert!(matches!(Record::decode(&[1, 1, 2]), Err(DecodeRecordError::Malformed(_))));
    }
}
