//! The records of groups as keys and values in Kafka's formats, as the topic `__consumer_offsets` keeps them.
//!
//! ```text
//!                records_of                            Replay
//!   [`Record`] --------------> keys and values ... ---------------> [`Record`]s, one or two for each group
//!                              (the last for each key is enough)
//! ```
//!
//! Invariant: the last value of each key leads to the same groups as all of them, whatever a compaction has removed of the others.
//!
//! Where a group's state is, besides the fields that Kafka has for it:
//! - An offset that is kept forever has the commit time −1.
//! - An offset's key has the topic's name and its value the topic's id. An offset of a topic that was deleted, or replaced by one of the
//!   same name, is not restored (the coordinator writes a tombstone).
//! - The epochs of assigned partitions, one by one, are Kafka's `AssignmentEpochs` (version 4.3); the hash of the topics is Kafka's
//!   `MetadataHash`, computed by a function of our own, which no other reader depends on.
//! - All protocols of a member of a classic group, and since when a consumer group is empty, are tagged fields of our own. Kafka keeps a
//!   classic member's metadata for the chosen protocol only, and would let a new member in by that one alone after a restart.
//! - Regular expressions are in the members' records; the topics that they match are matched again at a start, and not written.
//!
//! A group is of one protocol at a time. When that changes, tombstones for what the other one had precede its first record.

mod replay;
#[cfg(test)]
mod tests;
mod write;

use highwater_protocol::ids::TopicId;

pub(super) use highwater_protocol::group_records::Record as KeyedRecord;
pub use replay::Replay;
pub(super) use replay::Replayed;
pub(super) use write::records_of;

/// Which protocol's records there are of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// None: the group only has offsets.
    OffsetsOnly,
    /// Those of the classic protocol.
    Classic,
    /// Those of the consumer protocol.
    Consumer,
}

/// Names and ids of the topics that there are.
pub(super) trait TopicNames {
    /// Returns the name of a topic.
    fn name(&self, id: TopicId) -> Option<&str>;
    /// Returns the id of the topic that has a name now.
    fn id(&self, name: &str) -> Option<TopicId>;
}
