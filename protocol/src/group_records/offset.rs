//! The offset of a group in a partition.

use super::RecordError;
use super::wire::{Reader, Writer};

/// The offset of a group in a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetCommit {
    /// The next offset to read.
    pub offset: i64,
    /// Epoch of the last record read, or −1.
    pub leader_epoch: i32,
    /// The client's metadata.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch; −1 for one that is kept forever.
    pub commit_timestamp: i64,
    /// When it expires, or −1. Only old clients set it, and version 1 has neither an epoch nor a topic id.
    pub expire_timestamp: i64,
    /// Id of the topic; all zeros if it is unknown.
    pub topic_id: [u8; 16],
}

/// First version with tagged fields.
const FLEXIBLE: i16 = 4;
const TOPIC_ID_TAG: u32 = 0;

impl OffsetCommit {
    pub(super) fn encode(&self) -> Vec<u8> {
        let version = if self.expire_timestamp == -1 { FLEXIBLE } else { 1 };
        let mut w = Writer::new(version, version >= FLEXIBLE);
        w.i64(self.offset);
        if version >= 3 {
            w.i32(self.leader_epoch);
        }
        w.string(&self.metadata);
        w.i64(self.commit_timestamp);
        if version == 1 {
            w.i64(self.expire_timestamp);
        }
        let topic_id = self.topic_id;
        w.tagged(&[(TOPIC_ID_TAG, (topic_id != [0; 16]).then(|| Writer::field(|w| w.uuid(topic_id))))]);
        w.finish()
    }

    pub(super) fn decode(mut r: Reader<'_>, version: i16) -> Result<Self, RecordError> {
        if !matches!(version, 0..=FLEXIBLE) {
            return Err(RecordError::Version { value: "OffsetCommit", version });
        }
        if version >= FLEXIBLE {
            r = r.flexible();
        }
        let offset = r.i64("offset")?;
        let leader_epoch = if version >= 3 { r.i32("leader epoch")? } else { -1 };
        let metadata = r.string("metadata")?;
        let commit_timestamp = r.i64("commit timestamp")?;
        let expire_timestamp = if version == 1 { r.i64("expire timestamp")? } else { -1 };
        let mut topic_id = [0; 16];
        r.tagged(|tag, r| {
            if tag == TOPIC_ID_TAG {
                topic_id = r.uuid("topic id")?;
            }
            Ok(tag == TOPIC_ID_TAG)
        })?;
        r.finish()?;
        Ok(Self { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id })
    }
}
