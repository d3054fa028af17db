//! The records of the groups log, in the current format and in earlier ones.
//!
//! Format version 1 had only the positions of named consumers. They are read as commits that never expire. Version 2 did not
//! record when a group of the consumer protocol became empty.

mod format_2;

use highwater_protocol::ids::{PartitionIndex, TopicId};
use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::keyed::Written;

const FORMAT_VERSION: u8 = 3;
const FORMAT_VERSION_2: u8 = 2;
const FORMAT_VERSION_POSITIONS: u8 = 1;

/// The commit time of an offset that never expires.
pub(super) const FOREVER: i64 = -1;

/// One payload of the log.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Record {
    /// Offsets of a group.
    Commits(CommitsRecord),
    /// All offsets in a topic were deleted.
    TopicDeleted([u8; 16]),
    /// Some offsets of a group were deleted: group, topic, partitions.
    OffsetsDeleted(String, [u8; 16], Vec<u32>),
    /// A group of the classic protocol; replaces its previous state.
    Classic(ClassicRecord),
    /// Changes of a group of the consumer protocol.
    Consumer(ConsumerRecord),
    /// A group was deleted, with its offsets.
    GroupDeleted(String),
    /// A piece of a snapshot of all groups. A log begins with all pieces of its snapshot.
    Snapshot(SnapshotRecord),
}

/// See [`Record::Snapshot`].
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SnapshotRecord {
    /// Offsets.
    pub commits: Vec<CommitsRecord>,
    /// The last records of groups of the classic protocol.
    pub classic: Vec<ClassicRecord>,
    /// Groups of the consumer protocol with their members. A group with many members is in several pieces.
    pub consumer: Vec<ConsumerRecord>,
}

/// Offsets of a group in a topic.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CommitsRecord {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: [u8; 16],
    /// The offsets.
    pub offsets: Vec<OffsetRecord>,
}

/// An offset.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct OffsetRecord {
    /// The partition.
    pub partition: u32,
    /// The epoch of the last record read, or −1.
    pub leader_epoch: i32,
    /// The next offset to read.
    pub offset: i64,
    /// When it was committed, in milliseconds since the Unix epoch; −1 if it never expires.
    pub committed_ms: i64,
    /// The client's metadata.
    pub metadata: String,
}

/// See [`Record::Classic`].
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ClassicRecord {
    /// The group.
    pub group: String,
    /// The protocol type.
    pub protocol_type: Option<String>,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The leader.
    pub leader: Option<String>,
    /// When it entered its state, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// The members.
    pub members: Vec<ClassicMemberRecord>,
}

/// A member of a group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ClassicMemberRecord {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Its rebalance timeout.
    pub rebalance_timeout_ms: i32,
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// Its protocols.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// Its assignment.
    pub assignment: Vec<u8>,
}

/// See [`Record::Consumer`].
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ConsumerRecord {
    /// The group.
    pub group: String,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of the target assignment.
    pub target_epoch: i32,
    /// A hash of the topics that it subscribes to.
    pub topics_hash: u64,
    /// Removed members.
    pub removed: Vec<String>,
    /// New and changed members, complete.
    pub members: Vec<ConsumerMemberRecord>,
    /// When it became empty, in milliseconds since the Unix epoch; `None` if it has members or the time is unknown.
    pub empty_since_ms: Option<i64>,
}

/// Partitions of a topic, each with the epoch in which it was assigned.
pub(super) type AssignedRecord = ([u8; 16], Vec<(u32, i32)>);

/// A member of a group of the consumer protocol.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ConsumerMemberRecord {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// Its rack.
    pub rack: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Its rebalance timeout.
    pub rebalance_timeout_ms: i32,
    /// Its subscription: topics by name.
    pub topic_names: Vec<String>,
    /// Its subscription: topics by regular expression.
    pub topic_regex: String,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// Its previous epoch.
    pub previous_epoch: i32,
    /// 0: stable; 1: revoking partitions; 2: waiting for partitions.
    pub state: u8,
    /// Its assigned partitions.
    pub assigned: Vec<AssignedRecord>,
    /// The partitions that it is revoking.
    pub revoking: Vec<AssignedRecord>,
    /// Its target assignment.
    pub target: Vec<([u8; 16], Vec<u32>)>,
}

/// A payload of the log cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the groups and their offsets cannot be read: {0}")]
pub struct GroupsError(String);

impl GroupsError {
    pub(super) fn from_text(text: String) -> Self {
        Self(text)
    }
}

impl Record {
    /// Returns which protocol's records the group has after this one; `None` if the record is not about members.
    pub(super) const fn written(&self) -> Option<Written> {
        match self {
            Self::Classic(_) => Some(Written::Classic),
            Self::Consumer(_) => Some(Written::Consumer),
            Self::GroupDeleted(_) => Some(Written::OffsetsOnly),
            Self::Commits(_) | Self::TopicDeleted(_) | Self::OffsetsDeleted(..) | Self::Snapshot(_) => None,
        }
    }

    /// Creates a record of the deletion of a group's offsets in partitions of a topic.
    pub(super) fn offsets_deleted(group: &str, topic: TopicId, partitions: &[PartitionIndex]) -> Self {
        Self::OffsetsDeleted(group.to_owned(), topic.0, partitions.iter().map(|p| p.0).collect())
    }

    /// Encodes the record as a payload.
    pub fn encode(&self) -> Vec<u8> {
        encode_as(FORMAT_VERSION, &rkyv::to_bytes::<rancor::Error>(self).expect("memory is the only limit"))
    }

    /// Decodes a payload. One of format version 1 may contain several records.
    pub fn decode(payload: &[u8]) -> Result<Vec<Self>, GroupsError> {
        let unreadable = |e: rancor::Error| GroupsError(e.to_string());
        match payload.split_first() {
            Some((&FORMAT_VERSION, body)) => {
                Ok(vec![rkyv::from_bytes::<Self, rancor::Error>(&aligned(body)).map_err(unreadable)?])
            }
            Some((&FORMAT_VERSION_2, body)) => {
                let payload = rkyv::from_bytes::<format_2::Payload, rancor::Error>(&aligned(body));
                Ok(vec![payload.map_err(unreadable)?.into_record()])
            }
            Some((&FORMAT_VERSION_POSITIONS, body)) => {
                let positions = rkyv::from_bytes::<positions::Payload, rancor::Error>(&aligned(body));
                Ok(positions.map_err(unreadable)?.into_records())
            }
            Some((version, _)) => {
                Err(GroupsError(format!("unknown format version {version}; start a newer build")))
            }
            None => Err(GroupsError("an empty payload".into())),
        }
    }
}

fn encode_as(version: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(version);
    out.extend_from_slice(body);
    out
}

fn aligned(body: &[u8]) -> AlignedVec<16> {
    let mut aligned = AlignedVec::<16>::with_capacity(body.len());
    aligned.extend_from_slice(body);
    aligned
}

/// Format version 1.
mod positions {
    use super::{CommitsRecord, FOREVER, OffsetRecord, Record};

    #[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub(super) struct CommitRecord {
        pub(super) consumer: String,
        pub(super) topic: [u8; 16],
        pub(super) positions: Vec<PositionRecord>,
    }

    #[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub(super) struct PositionRecord {
        pub(super) partition: u32,
        pub(super) offset: i64,
        pub(super) leader_epoch: i32,
        pub(super) metadata: String,
    }

    #[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub(super) enum Payload {
        Commits(Vec<CommitRecord>),
        TopicDeleted([u8; 16]),
    }

    impl Payload {
        pub(super) fn into_records(self) -> Vec<Record> {
            match self {
                Self::TopicDeleted(topic) => vec![Record::TopicDeleted(topic)],
                Self::Commits(commits) => commits.into_iter().map(CommitRecord::into_record).collect(),
            }
        }
    }

    impl CommitRecord {
        fn into_record(self) -> Record {
            let offsets = self.positions.into_iter().map(|p| OffsetRecord {
                partition: p.partition,
                leader_epoch: p.leader_epoch,
                offset: p.offset,
                committed_ms: FOREVER,
                metadata: p.metadata,
            });
            Record::Commits(CommitsRecord {
                group: self.consumer,
                topic: self.topic,
                offsets: offsets.collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coord::groups::{GroupConfig, GroupCoordinator, Now};

    fn offset(partition: u32, committed_ms: i64) -> OffsetRecord {
        OffsetRecord {
            partition,
            leader_epoch: 3,
            offset: 77,
            committed_ms,
            metadata: "kept with it, and long enough not to be inline".into(),
        }
    }

    #[test]
    fn version_1_positions_are_read_as_commits_that_never_expire() {
        let old = positions::Payload::Commits(vec![positions::CommitRecord {
            consumer: "a".into(),
            topic: [7; 16],
            positions: vec![positions::PositionRecord {
                partition: 4,
                offset: 77,
                leader_epoch: 3,
                metadata: offset(4, FOREVER).metadata,
            }],
        }]);
        let payload = encode_as(1, &rkyv::to_bytes::<rancor::Error>(&old).expect("memory is the only limit"));
        let commits = CommitsRecord { group: "a".into(), topic: [7; 16], offsets: vec![offset(4, FOREVER)] };
        assert_eq!(Record::decode(&payload), Ok(vec![Record::Commits(commits)]));
        let deleted = positions::Payload::TopicDeleted([7; 16]);
        let payload = encode_as(1, &rkyv::to_bytes::<rancor::Error>(&deleted).expect("small"));
        assert_eq!(Record::decode(&payload), Ok(vec![Record::TopicDeleted([7; 16])]));
    }

    /// Payloads in format version 1 from an earlier build: consumer "c" commits 9 in partition 2 and 70,000 in partition 3; the topic is deleted.
    const OLD_COMMIT: &[u8] = &[
        1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 97, 116, 32, 57, 255, 255,
        255, 255, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 112, 17, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 97, 116,
        32, 55, 48, 48, 48, 48, 0, 0, 0, 0, 99, 255, 255, 255, 255, 255, 255, 255, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 168, 255, 255, 255, 2, 0, 0, 0, 0, 0, 0, 0, 220, 255, 255, 255, 1, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0,
    ];
    const OLD_DELETED: &[u8] = &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0];

    #[test]
    fn version_1_payloads_are_readable() {
        let at = |partition, offset| OffsetRecord {
            partition,
            leader_epoch: -1,
            offset,
            committed_ms: FOREVER,
            metadata: format!("at {offset}"),
        };
        let commits =
            CommitsRecord { group: "c".into(), topic: [1; 16], offsets: vec![at(2, 9), at(3, 70_000)] };
        assert_eq!(Record::decode(OLD_COMMIT), Ok(vec![Record::Commits(commits)]));
        assert_eq!(Record::decode(OLD_DELETED), Ok(vec![Record::TopicDeleted([1; 16])]));
    }

    #[test]
    fn a_log_that_begins_with_version_1_records_is_readable() {
        let now = Now { ms: 0, wall_ms: 0 };
        let recover = |snapshot, rest: &[&[u8]]| {
            let rest = rest.iter().copied();
            GroupCoordinator::recover(GroupConfig::default(), now, snapshot, rest)
                .expect("readable")
                .encode_snapshot()
        };
        let snapshot = recover(Some(OLD_COMMIT), &[]);
        let commits = Record::decode(OLD_COMMIT).expect("readable").remove(0);
        let new = Record::decode(&snapshot).expect("readable").remove(0);
        assert!(
            matches!((&new, &commits), (Record::Snapshot(s), Record::Commits(c)) if s.commits == [c.clone()])
        );
        assert_eq!(recover(Some(&snapshot), &[]), snapshot);
        assert_ne!(recover(Some(&snapshot), &[OLD_DELETED]), snapshot, "the topic was deleted");
    }

    #[test]
    fn records_round_trip() {
        let commits = CommitsRecord { group: "g".into(), topic: [1; 16], offsets: vec![offset(0, 5)] };
        for record in [
            Record::Commits(commits.clone()),
            Record::TopicDeleted([9; 16]),
            Record::OffsetsDeleted("g".into(), [1; 16], vec![3, 4]),
            Record::GroupDeleted("g".into()),
            Record::Snapshot(SnapshotRecord { commits: vec![commits], classic: vec![], consumer: vec![] }),
        ] {
            assert_eq!(Record::decode(&record.encode()), Ok(vec![record]));
        }
    }

    #[test]
    fn undecodable_payloads_are_rejected() {
        for bytes in [&[][..], &[7, 0], &[1, 0, 3], &[2], &[2, 9, 9, 9], &[3], &[3, 9, 9, 9]] {
            assert!(Record::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
