//! Format version 2.

use super::{ClassicRecord, CommitsRecord, ConsumerMemberRecord, ConsumerRecord, Record, SnapshotRecord};

#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum Payload {
    Commits(CommitsRecord),
    TopicDeleted([u8; 16]),
    OffsetsDeleted(String, [u8; 16], Vec<u32>),
    Classic(ClassicRecord),
    Consumer(Changes),
    GroupDeleted(String),
    Snapshot(Snapshot),
}

#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Snapshot {
    commits: Vec<CommitsRecord>,
    classic: Vec<ClassicRecord>,
    consumer: Vec<Changes>,
}

#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Changes {
    group: String,
    epoch: i32,
    target_epoch: i32,
    topics_hash: u64,
    removed: Vec<String>,
    members: Vec<ConsumerMemberRecord>,
}

impl Payload {
    pub(super) fn into_record(self) -> Record {
        match self {
            Self::Commits(commits) => Record::Commits(commits),
            Self::TopicDeleted(topic) => Record::TopicDeleted(topic),
            Self::OffsetsDeleted(group, topic, partitions) => {
                Record::OffsetsDeleted(group, topic, partitions)
            }
            Self::Classic(group) => Record::Classic(group),
            Self::Consumer(group) => Record::Consumer(group.into_record()),
            Self::GroupDeleted(group) => Record::GroupDeleted(group),
            Self::Snapshot(Snapshot { commits, classic, consumer }) => {
                let consumer = consumer.into_iter().map(Changes::into_record).collect();
                Record::Snapshot(SnapshotRecord { commits, classic, consumer })
            }
        }
    }
}

impl Changes {
    fn into_record(self) -> ConsumerRecord {
        let Self { group, epoch, target_epoch, topics_hash, removed, members } = self;
        ConsumerRecord { group, epoch, target_epoch, topics_hash, removed, members, empty_since_ms: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::OffsetRecord;
    use super::*;
    use crate::coord::groups::{GroupConfig, GroupCoordinator, Now};

    /// Payloads from a build with this format: a member joins and leaves; the snapshot is from before it left.
    const JOINED: &[u8] = &[
        2, 47, 49, 50, 55, 46, 48, 46, 48, 46, 49, 0, 0, 111, 110, 101, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        2, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 232, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0,
        0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 232, 255, 255, 255, 2, 0, 0, 0, 109,
        255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 105, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 99, 255, 255, 255, 255, 255, 255, 255, 138, 0, 0, 0, 132, 255, 255, 255, 96,
        234, 0, 0, 132, 255, 255, 255, 1, 0, 0, 0, 111, 110, 46, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 108, 255, 255, 255, 1, 0, 0, 0, 124, 255, 255,
        255, 0, 0, 0, 0, 124, 255, 255, 255, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 103, 255, 255, 255, 255,
        255, 255, 255, 2, 0, 0, 0, 2, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 24, 255, 255, 255, 0, 0, 0, 0, 100,
        255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    const LEFT: &[u8] = &[
        2, 109, 255, 255, 255, 255, 255, 255, 255, 4, 0, 0, 0, 0, 0, 0, 0, 103, 255, 255, 255, 255, 255, 255,
        255, 3, 0, 0, 0, 2, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 216, 255, 255, 255, 1, 0, 0, 0, 216, 255, 255,
        255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    const SNAPSHOT: &[u8] = &[
        2, 2, 0, 0, 0, 3, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255,
        255, 255, 255, 103, 255, 255, 255, 255, 255, 255, 255, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 200, 255, 255, 255, 1, 0, 0, 0, 99, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 99, 111, 110,
        115, 117, 109, 101, 114, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 232, 3, 0, 0, 0, 0, 0, 0, 200, 255, 255, 255, 0, 0, 0, 0, 47, 49, 50, 55, 46, 48, 46, 48,
        46, 49, 0, 0, 111, 110, 101, 255, 255, 255, 255, 255, 0, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 232, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 232, 255, 255, 255, 2, 0, 0, 0, 109, 255, 255, 255, 255, 255, 255, 255, 1,
        0, 0, 0, 105, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99, 255, 255,
        255, 255, 255, 255, 255, 138, 0, 0, 0, 132, 255, 255, 255, 96, 234, 0, 0, 132, 255, 255, 255, 1, 0,
        0, 0, 111, 110, 46, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0,
        0, 2, 0, 0, 0, 108, 255, 255, 255, 1, 0, 0, 0, 124, 255, 255, 255, 0, 0, 0, 0, 124, 255, 255, 255, 1,
        0, 0, 0, 103, 255, 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 2, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 32,
        255, 255, 255, 0, 0, 0, 0, 108, 255, 255, 255, 1, 0, 0, 0, 6, 0, 0, 0, 172, 254, 255, 255, 1, 0, 0,
        0, 196, 254, 255, 255, 1, 0, 0, 0, 196, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    fn group(epoch: i32, removed: &[&str], members: Vec<ConsumerMemberRecord>) -> ConsumerRecord {
        let removed = removed.iter().map(|id| (*id).to_owned()).collect();
        let (group, topics_hash) = ("g".to_owned(), 77);
        ConsumerRecord { group, epoch, target_epoch: 2, topics_hash, removed, members, empty_since_ms: None }
    }

    fn member() -> ConsumerMemberRecord {
        ConsumerMemberRecord {
            member: "m".into(),
            instance: Some("i".into()),
            rack: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            topic_names: vec!["one".into()],
            topic_regex: "on.".into(),
            assignor: None,
            epoch: 2,
            previous_epoch: 1,
            state: 2,
            assigned: vec![([1; 16], vec![(0, 2)])],
            revoking: vec![],
            target: vec![([1; 16], vec![0, 1])],
        }
    }

    #[test]
    fn version_2_payloads_are_readable() {
        assert_eq!(Record::decode(JOINED), Ok(vec![Record::Consumer(group(2, &[], vec![member()]))]));
        assert_eq!(Record::decode(LEFT), Ok(vec![Record::Consumer(group(3, &["m"], vec![]))]));
        let metadata = String::new();
        let offset = OffsetRecord { partition: 2, leader_epoch: 3, offset: 77, committed_ms: 5, metadata };
        let commits = CommitsRecord { group: "g".into(), topic: [1; 16], offsets: vec![offset] };
        let classic = ClassicRecord {
            group: "c".into(),
            protocol_type: Some("consumer".into()),
            generation: 4,
            protocol: None,
            leader: None,
            since_ms: 1_000,
            members: vec![],
        };
        let consumer = vec![group(2, &[], vec![member()])];
        let snapshot = SnapshotRecord { commits: vec![commits], classic: vec![classic], consumer };
        assert_eq!(Record::decode(SNAPSHOT), Ok(vec![Record::Snapshot(snapshot)]));
    }

    #[test]
    fn an_empty_version_2_group_counts_as_empty_since_its_log_was_read() {
        let now = Now { ms: 0, wall_ms: 9_000 };
        let read = [LEFT].into_iter();
        let coordinator = GroupCoordinator::recover(GroupConfig::default(), now, Some(SNAPSHOT), read);
        let snapshot = coordinator.expect("readable").encode_snapshot();
        let Record::Snapshot(snapshot) = Record::decode(&snapshot).expect("readable").remove(0) else {
            panic!("another record");
        };
        assert_eq!(snapshot.consumer[0].empty_since_ms, Some(9_000));
    }
}
