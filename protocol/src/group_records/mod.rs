//! The records of the topic `__consumer_offsets`, in Kafka's formats: offsets of groups, groups of the classic protocol, and groups of
//! the consumer protocol (KIP-848).
//!
//! A key begins with its type and a value with its version, as `i16`; then their fields follow. A record without a value is a tombstone.
//! Keys have the old form of Kafka's fields. Values have the flexible form from version 4 (offsets, classic groups) or version 0 (consumer
//! protocol) on; in it, later builds add tagged fields only, and a reader skips those that it does not know. So it skips records with keys
//! of a type that it does not know ([`decode`] returns `None`): a downgrade is possible, as in Kafka.
//!
//! | type | key | value | versions read | written |
//! |---|---|---|---|---|
//! | 0, 1 | group, topic, partition | [`OffsetCommit`] | 0 to 4 | 1 if it has an expiry time, else 4 |
//! | 2 | group | [`GroupMetadata`] | 0 to 4 | 3, or 4 if a member has other protocols |
//! | 3 | group | [`ConsumerGroupMetadata`] | 0 | 0 |
//! | 4 | group | [`ConsumerGroupPartitionMetadata`] (before Kafka 4.1) | 0 | 0 |
//! | 5 | group, member | [`ConsumerGroupMemberMetadata`] | 0 | 0 |
//! | 6 | group | [`TargetAssignmentMetadata`] | 0 | 0 |
//! | 7 | group, member | [`TargetAssignmentMember`] | 0 | 0 |
//! | 8 | group, member | [`CurrentMemberAssignment`] | 0 | 0 |
//! | 16 | group, expression | [`RegularExpression`] | 0 | 0 |
//!
//! Two values have a tagged field of our own, [`HIGHWATER_TAG`], for state that Kafka does not keep. Kafka and its tools skip it.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod classic;
mod consumer;
mod offset;
mod wire;

pub use classic::{ClassicMember, GroupMetadata, OtherProtocol};
pub use consumer::{
    ClassicMemberMetadata, ConsumerGroupMemberMetadata, ConsumerGroupMetadata,
    ConsumerGroupPartitionMetadata, CurrentMemberAssignment, CurrentPartitions, PartitionRacks,
    RegularExpression, TargetAssignmentMember, TargetAssignmentMetadata, TargetPartitions, TopicMetadata,
};
pub use offset::OffsetCommit;

use crate::limits::GROUP_RECORD_BYTES_MAX;
use wire::{Reader, Writer};

/// Tag of our own tagged fields: "HW". Kafka numbers its tags from 0.
pub const HIGHWATER_TAG: u32 = 0x4857;

/// Key of a record: what it is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// The offset of a group in a partition.
    OffsetCommit {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A group of the classic protocol, with its members.
    GroupMetadata {
        /// The group.
        group: String,
    },
    /// The epoch of a consumer group.
    ConsumerGroupMetadata {
        /// The group.
        group: String,
    },
    /// The topics that a consumer group subscribes to, as Kafka kept them before version 4.1.
    ConsumerGroupPartitionMetadata {
        /// The group.
        group: String,
    },
    /// A member of a consumer group and its subscription.
    ConsumerGroupMemberMetadata {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// The epoch of a consumer group's target assignment.
    TargetAssignmentMetadata {
        /// The group.
        group: String,
    },
    /// The target assignment of a member.
    TargetAssignmentMember {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// The current assignment of a member.
    CurrentMemberAssignment {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// A regular expression that members subscribe with.
    RegularExpression {
        /// The group.
        group: String,
        /// The expression.
        expression: String,
    },
}

/// Value of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each variant has the name of its type")]
pub enum Value {
    OffsetCommit(OffsetCommit),
    GroupMetadata(GroupMetadata),
    ConsumerGroupMetadata(ConsumerGroupMetadata),
    ConsumerGroupPartitionMetadata(ConsumerGroupPartitionMetadata),
    ConsumerGroupMemberMetadata(ConsumerGroupMemberMetadata),
    TargetAssignmentMetadata(TargetAssignmentMetadata),
    TargetAssignmentMember(TargetAssignmentMember),
    CurrentMemberAssignment(CurrentMemberAssignment),
    RegularExpression(RegularExpression),
}

/// A record: a key, and its value unless the record is a tombstone.
///
/// Invariant: key and value are of the same type.
pub type Record = (Key, Option<Value>);

/// Why a record cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes remain than the field takes.
    #[error("{field}: the record ends too early")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// A length or a count that cannot be one.
    #[error("{field}: invalid length")]
    Length {
        /// The field.
        field: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{field}: not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A field is null that must not be.
    #[error("{field}: null")]
    Null {
        /// The field.
        field: &'static str,
    },
    /// Lists that belong together differ in length.
    #[error("{field}: {have} entries, not {want}")]
    Entries {
        /// The field.
        field: &'static str,
        /// Entries that there are.
        have: usize,
        /// Entries that there should be.
        want: usize,
    },
    /// A version of a value that this build does not know.
    #[error("{value}: version {version} is not known; start a newer build")]
    Version {
        /// The value's type.
        value: &'static str,
        /// Its version.
        version: i16,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes after the last field")]
    Trailing {
        /// Number of bytes.
        bytes: usize,
    },
    /// The record is too large.
    #[error("{bytes} bytes exceed the limit of {GROUP_RECORD_BYTES_MAX}")]
    TooLarge {
        /// Bytes of its key or its value.
        bytes: usize,
    },
}

impl Key {
    /// Returns the key of an offset.
    pub fn offset(group: &str, topic: &str, partition: u32) -> Self {
        // There are far fewer partitions.
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        Self::OffsetCommit { group: group.to_owned(), topic: topic.to_owned(), partition }
    }

    /// Returns the type of the record, which Kafka also calls the version of the key.
    pub const fn record_type(&self) -> i16 {
        match self {
            Self::OffsetCommit { .. } => 1,
            Self::GroupMetadata { .. } => 2,
            Self::ConsumerGroupMetadata { .. } => 3,
            Self::ConsumerGroupPartitionMetadata { .. } => 4,
            Self::ConsumerGroupMemberMetadata { .. } => 5,
            Self::TargetAssignmentMetadata { .. } => 6,
            Self::TargetAssignmentMember { .. } => 7,
            Self::CurrentMemberAssignment { .. } => 8,
            Self::RegularExpression { .. } => 16,
        }
    }

    /// Returns the group that the record belongs to.
    pub fn group(&self) -> &str {
        match self {
            Self::OffsetCommit { group, .. }
            | Self::GroupMetadata { group }
            | Self::ConsumerGroupMetadata { group }
            | Self::ConsumerGroupPartitionMetadata { group }
            | Self::ConsumerGroupMemberMetadata { group, .. }
            | Self::TargetAssignmentMetadata { group }
            | Self::TargetAssignmentMember { group, .. }
            | Self::CurrentMemberAssignment { group, .. }
            | Self::RegularExpression { group, .. } => group,
        }
    }

    /// Decodes a key; `None` if this build does not know its type.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        let mut r = Reader::new(bytes);
        let record_type = r.i16("type")?;
        if !matches!(record_type, 0..=8 | 16) {
            return Ok(None);
        }
        let group = r.string("group")?;
        let key = match record_type {
            0 | 1 => Self::OffsetCommit { group, topic: r.string("topic")?, partition: r.i32("partition")? },
            2 => Self::GroupMetadata { group },
            3 => Self::ConsumerGroupMetadata { group },
            4 => Self::ConsumerGroupPartitionMetadata { group },
            5 => Self::ConsumerGroupMemberMetadata { group, member: r.string("member")? },
            6 => Self::TargetAssignmentMetadata { group },
            7 => Self::TargetAssignmentMember { group, member: r.string("member")? },
            8 => Self::CurrentMemberAssignment { group, member: r.string("member")? },
            _ => Self::RegularExpression { group, expression: r.string("expression")? },
        };
        r.finish()?;
        Ok(Some(key))
    }
}

/// Encodes a key.
///
/// # Panics
/// If a name has 32 KiB or more.
pub fn encode_key(key: &Key) -> Vec<u8> {
    let mut w = Writer::new(key.record_type(), false);
    w.string(key.group());
    match key {
        Key::OffsetCommit { topic, partition, .. } => {
            w.string(topic);
            w.i32(*partition);
        }
        Key::ConsumerGroupMemberMetadata { member, .. }
        | Key::TargetAssignmentMember { member, .. }
        | Key::CurrentMemberAssignment { member, .. } => w.string(member),
        Key::RegularExpression { expression, .. } => w.string(expression),
        Key::GroupMetadata { .. }
        | Key::ConsumerGroupMetadata { .. }
        | Key::ConsumerGroupPartitionMetadata { .. }
        | Key::TargetAssignmentMetadata { .. } => {}
    }
    w.finish()
}

/// Encodes a value.
///
/// # Panics
/// If a text of an old form has 32 KiB or more.
pub fn encode_value(value: &Value) -> Vec<u8> {
    match value {
        Value::OffsetCommit(value) => value.encode(),
        Value::GroupMetadata(value) => value.encode(),
        Value::ConsumerGroupMetadata(value) => value.encode(),
        Value::ConsumerGroupPartitionMetadata(value) => value.encode(),
        Value::ConsumerGroupMemberMetadata(value) => value.encode(),
        Value::TargetAssignmentMetadata(value) => value.encode(),
        Value::TargetAssignmentMember(value) => value.encode(),
        Value::CurrentMemberAssignment(value) => value.encode(),
        Value::RegularExpression(value) => value.encode(),
    }
}

/// Decodes a record; `None` if this build does not know its type, and is to skip it.
pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, RecordError> {
    if let Some(bytes) =
        [key.len(), value.map_or(0, <[u8]>::len)].into_iter().find(|n| *n > GROUP_RECORD_BYTES_MAX)
    {
        return Err(RecordError::TooLarge { bytes });
    }
    let Some(key) = Key::decode(key)? else { return Ok(None) };
    let value = value.map(|value| decode_value(&key, value)).transpose()?;
    Ok(Some((key, value)))
}

fn decode_value(key: &Key, value: &[u8]) -> Result<Value, RecordError> {
    let mut r = Reader::new(value);
    let version = r.i16("version")?;
    match key {
        Key::OffsetCommit { .. } => OffsetCommit::decode(r, version).map(Value::OffsetCommit),
        Key::GroupMetadata { .. } => GroupMetadata::decode(r, version).map(Value::GroupMetadata),
        Key::ConsumerGroupMetadata { .. } => {
            ConsumerGroupMetadata::decode(r, version).map(Value::ConsumerGroupMetadata)
        }
        Key::ConsumerGroupPartitionMetadata { .. } => {
            ConsumerGroupPartitionMetadata::decode(r, version).map(Value::ConsumerGroupPartitionMetadata)
        }
        Key::ConsumerGroupMemberMetadata { .. } => {
            ConsumerGroupMemberMetadata::decode(r, version).map(Value::ConsumerGroupMemberMetadata)
        }
        Key::TargetAssignmentMetadata { .. } => {
            TargetAssignmentMetadata::decode(r, version).map(Value::TargetAssignmentMetadata)
        }
        Key::TargetAssignmentMember { .. } => {
            TargetAssignmentMember::decode(r, version).map(Value::TargetAssignmentMember)
        }
        Key::CurrentMemberAssignment { .. } => {
            CurrentMemberAssignment::decode(r, version).map(Value::CurrentMemberAssignment)
        }
        Key::RegularExpression { .. } => RegularExpression::decode(r, version).map(Value::RegularExpression),
    }
}
