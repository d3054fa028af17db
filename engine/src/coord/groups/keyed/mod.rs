//! Encoding of groups as keys and values in Kafka's formats, for the topic `__consumer_offsets`.
//!
//! ```text
//!                records_of                            Replay
//!   [`Record`] --------------> keys and values ... ---------------> [`Record`]s of each group
//!                              (the last value of each key is enough)
//! ```
//!
//! Invariant: replaying only the last value of each key gives the same groups as replaying all values, whichever earlier values a compaction has
//! removed.
//!
//! How state is encoded beyond Kafka's usual fields:
//! - An offset that is kept forever has the commit time −1.
//! - An offset's key has the topic's name, and its value has the topic's id. If the topic has been deleted or recreated, the offset is not restored,
//!   and the coordinator writes a tombstone.
//! - The epoch of each assigned partition is in Kafka's `AssignmentEpochs` (version 4.3). The hash of the topics is in Kafka's `MetadataHash`; its
//!   hash function differs from Kafka's, but no other reader depends on it.
//! - All protocols of a classic member, and the time since which a consumer group is empty, are tagged fields that Kafka does not have. Kafka keeps
//!   only a classic member's metadata for the chosen protocol; after a restart, it admits new members only if they support that protocol.
//! - Regular expressions are in the members' records. Their matches are not written; they are computed again after a restart.
//!
//! A group uses one protocol at a time. When the protocol changes, tombstones for the records of the old protocol precede the first new record.

mod replay;
#[cfg(test)]
mod tests;
mod write;

use highwater_protocol::ids::TopicId;

pub(super) use highwater_protocol::group_records::Record as KeyedRecord;
pub use replay::Replay;
pub(super) use replay::Replayed;
pub(super) use write::records_of;

/// The kind of records that the log has of a group, apart from offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// None: the group only has offsets.
    OffsetsOnly,
    /// Records of the classic protocol.
    Classic,
    /// Records of the consumer protocol.
    Consumer,
}

/// Names and ids of the existing topics.
pub(super) trait TopicNames {
    /// Returns the name of a topic.
    fn name(&self, id: TopicId) -> Option<&str>;
    /// Returns the id of the topic that currently has a name.
    fn id(&self, name: &str) -> Option<TopicId>;
}
