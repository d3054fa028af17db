//! Round-trip tests: writing groups as records, compacting the records in any way, and replaying them gives the same groups.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::group_records::{Key, decode, encode_key, encode_value};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::coord::groups::coordinator::{Group, Kind};
use crate::coord::groups::record::{
    ClassicMemberRecord, ClassicRecord, CommitsRecord, ConsumerMemberRecord, ConsumerRecord, FOREVER,
    OffsetRecord, Record,
};
use crate::coord::groups::{GroupConfig, GroupCoordinator, Now};

const NOW: Now = Now { ms: 5_000, wall_ms: 1_000_000 };

type Log = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Topics by name.
#[derive(Clone, Default)]
struct Names(BTreeMap<&'static str, TopicId>);

impl TopicNames for Names {
    fn name(&self, id: TopicId) -> Option<&str> {
        self.0.iter().find(|(_, topic)| **topic == id).map(|(name, _)| *name)
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        self.0.get(name).copied()
    }
}

/// A coordinator that is changed by records, and a log of the same changes as keys and values.
struct Pair {
    coordinator: GroupCoordinator,
    topics: Names,
    topics_created: u8,
    log: Log,
}

#[derive(Clone, Debug)]
enum Change {
    Commit { group: usize, topic: usize, partition: u32, offset: i64, forever: bool },
    DeleteOffset { group: usize, topic: usize, partition: u32 },
    RecreateTopic(usize),
    Classic { group: usize, members: u8, seed: u64 },
    Consumer { group: usize, changed: u8, removed: u8, seed: u64 },
    Delete(usize),
}

const GROUPS: [&str; 3] = ["a", "b", "group"];
const TOPICS: [&str; 2] = ["one", "two"];

fn change(random: &mut SmallRng) -> Change {
    let (group, topic) = (random.random_range(0..GROUPS.len()), random.random_range(0..TOPICS.len()));
    let (partition, seed) = (random.random_range(0..3), random.random());
    match random.random_range(0..18) {
        0..4 => {
            let (offset, forever) = (random.random_range(0..9), random.random());
            Change::Commit { group, topic, partition, offset, forever }
        }
        4..6 => Change::DeleteOffset { group, topic, partition },
        6 => Change::RecreateTopic(topic),
        7..10 => Change::Classic { group, members: random.random_range(0..4), seed },
        10..16 => {
            let (changed, removed) = (random.random_range(0..8), random.random_range(0..8));
            Change::Consumer { group, changed, removed, seed }
        }
        _ => Change::Delete(group),
    }
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            coordinator: GroupCoordinator::new(GroupConfig::default(), NOW),
            topics: Names::default(),
            topics_created: 0,
            log: Vec::new(),
        };
        (0..TOPICS.len()).for_each(|topic| pair.create_topic(topic));
        pair
    }

    fn create_topic(&mut self, topic: usize) {
        self.topics_created += 1;
        self.topics.0.insert(TOPICS[topic], TopicId([self.topics_created; 16]));
    }

    fn apply(&mut self, group: &str, record: Record) {
        let written = self.coordinator.groups.get(group).map_or(Written::OffsetsOnly, Group::written);
        let records = records_of(&record, written, &self.topics);
        self.log
            .extend(records.iter().map(|(key, value)| (encode_key(key), value.as_ref().map(encode_value))));
        self.coordinator.apply(NOW, record);
    }

    fn members(&self, group: &str) -> usize {
        match self.coordinator.groups.get(group).map(|group| &group.kind) {
            Some(Kind::Classic(group)) => group.persisted().map_or(0, |record| record.members.len()),
            Some(Kind::Consumer(group)) => usize::from(!group.is_empty()),
            None => 0,
        }
    }

    fn change(&mut self, change: &Change) {
        match *change {
            Change::Commit { group, topic, partition, offset, forever } => {
                let committed_ms = if forever { FOREVER } else { 77 };
                let metadata = format!("at {offset}");
                let offset = OffsetRecord { partition, leader_epoch: 3, offset, committed_ms, metadata };
                let topic = self.topics.0[TOPICS[topic]].0;
                let commits = CommitsRecord { group: GROUPS[group].into(), topic, offsets: vec![offset] };
                self.apply(GROUPS[group], Record::Commits(commits));
            }
            Change::DeleteOffset { group, topic, partition } => {
                let topic = self.topics.0[TOPICS[topic]];
                self.delete_offset(GROUPS[group], topic, partition);
            }
            // No tombstones are written for the offsets in the old topic.
            Change::RecreateTopic(topic) => {
                self.coordinator.apply(NOW, Record::TopicDeleted(self.topics.0[TOPICS[topic]].0));
                self.create_topic(topic);
            }
            Change::Classic { group, members, seed } => {
                let is_consumer = self.written(GROUPS[group]) == Written::Consumer;
                if !is_consumer || self.members(GROUPS[group]) == 0 {
                    self.apply(GROUPS[group], Record::Classic(classic(GROUPS[group], members, seed)));
                }
            }
            Change::Consumer { group, changed, removed, seed } => {
                let is_classic = self.written(GROUPS[group]) == Written::Classic;
                if !is_classic || self.members(GROUPS[group]) == 0 {
                    let record = consumer(GROUPS[group], changed, removed & !changed, seed);
                    self.apply(GROUPS[group], Record::Consumer(record));
                }
            }
            Change::Delete(group) => {
                let name = GROUPS[group];
                if self.members(name) > 0 || !self.coordinator.groups.contains_key(name) {
                    return;
                }
                let offsets: Vec<_> = self.coordinator.groups[name].offsets.all_after(None).collect();
                for of in offsets {
                    self.delete_offset(name, of.topic, of.partition.0);
                }
                self.apply(name, Record::GroupDeleted(name.into()));
            }
        }
    }

    fn delete_offset(&mut self, group: &str, topic: TopicId, partition: u32) {
        self.apply(group, Record::OffsetsDeleted(group.into(), topic.0, vec![partition]));
    }

    fn written(&self, group: &str) -> Written {
        self.coordinator.groups.get(group).map_or(Written::OffsetsOnly, Group::written)
    }

    fn state(&self) -> Vec<u8> {
        state(&self.coordinator)
    }
}

/// Returns a snapshot of the groups. A group without offsets that never had members has nothing in it.
fn state(coordinator: &GroupCoordinator) -> Vec<u8> {
    coordinator.encode_snapshot()
}

fn classic(group: &str, members: u8, seed: u64) -> ClassicRecord {
    let mut random = SmallRng::seed_from_u64(seed);
    let chosen = (members > 0).then(|| "range".to_owned());
    let member = |n: u8, random: &mut SmallRng| {
        let mut protocols = vec![("range".to_owned(), vec![n; 3])];
        if random.random() {
            protocols.insert(usize::from(n % 2), ("sticky".to_owned(), vec![n]));
        }
        ClassicMemberRecord {
            member: format!("m{n}"),
            instance: random.random::<bool>().then(|| format!("i{n}")),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            protocols,
            assignment: vec![n, 9],
        }
    };
    ClassicRecord {
        group: group.into(),
        protocol_type: random.random::<bool>().then(|| "consumer".into()),
        generation: random.random_range(0..9),
        leader: chosen.is_some().then(|| "m0".into()),
        protocol: chosen,
        since_ms: 4_000,
        members: (0..members).map(|n| member(n, &mut random)).collect(),
    }
}

fn consumer(group: &str, changed: u8, removed: u8, seed: u64) -> ConsumerRecord {
    let mut random = SmallRng::seed_from_u64(seed);
    let ids = |bits: u8| (0..3_u8).filter(move |n| bits & 1 << n != 0);
    let member = |n: u8, random: &mut SmallRng| ConsumerMemberRecord {
        member: format!("m{n}"),
        instance: random.random::<bool>().then(|| format!("i{n}")),
        rack: random.random::<bool>().then(|| "r".into()),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: random.random_range(-1..9),
        topic_names: TOPICS.iter().filter(|_| random.random()).map(|t| (*t).into()).collect(),
        topic_regex: if random.random() { String::new() } else { "o.*".into() },
        assignor: random.random::<bool>().then(|| "range".into()),
        epoch: random.random_range(0..9),
        previous_epoch: random.random_range(0..9),
        state: random.random_range(0..3),
        assigned: vec![([1; 16], vec![(u32::from(n), random.random_range(0..9))])],
        revoking: vec![([2; 16], vec![(u32::from(n), 1), (9, 4)])],
        target: vec![([1; 16], vec![u32::from(n), 7])],
    };
    ConsumerRecord {
        group: group.into(),
        epoch: random.random_range(1..9),
        target_epoch: random.random_range(1..9),
        topics_hash: random.random(),
        removed: ids(removed).map(|n| format!("m{n}")).collect(),
        members: ids(changed).map(|n| member(n, &mut random)).collect(),
        empty_since_ms: Some(3_000),
    }
}

/// Removes records as a compaction may. In a random prefix of the log, the last record of every key stays and earlier ones stay at random. A last
/// record that is a tombstone may be removed, but only if no earlier record of its key is left.
fn compact(log: &Log, random: &mut SmallRng) -> Log {
    let end = random.random_range(0..=log.len());
    let last: BTreeMap<&[u8], usize> =
        log[..end].iter().enumerate().map(|(at, (key, _))| (&key[..], at)).collect();
    let mut kept = BTreeSet::new();
    let keeps = random.random_range(0..3);
    let mut keep = |at: usize| {
        let (key, value) = &log[at];
        let stays = if at >= end {
            true
        } else if last[&key[..]] == at {
            value.is_some() || kept.contains(&key[..]) || random.random()
        } else {
            random.random_range(0..3) < keeps
        };
        if stays && at < end {
            kept.insert(&key[..]);
        }
        stays
    };
    (0..log.len()).filter(|at| keep(*at)).map(|at| log[at].clone()).collect()
}

fn replay(log: &Log, topics: &Names) -> (GroupCoordinator, Vec<Vec<u8>>) {
    let mut replay = Replay::default();
    for (key, value) in log {
        replay.apply(key, value.as_deref()).expect("readable");
    }
    let mut coordinator = GroupCoordinator::new(GroupConfig::default(), NOW);
    let mut stale = Vec::new();
    while let Some(replayed) = replay.pop_group(NOW, topics) {
        for (topic, partitions) in &replayed.stale {
            stale.extend(partitions.iter().map(|p| encode_key(&Key::offset(&replayed.group, topic, *p))));
        }
        coordinator.restore(NOW, replayed);
    }
    assert!(coordinator.offset_accounting_is_correct());
    (coordinator, stale)
}

/// Drops the groups of which the log has nothing: those whose last offset was deleted.
fn without_unwritten(mut coordinator: GroupCoordinator) -> GroupCoordinator {
    coordinator.groups.retain(|_, g| g.written() != Written::OffsetsOnly || !g.offsets.is_empty());
    coordinator
}

#[test]
fn any_compaction_of_the_records_leads_to_the_same_groups() {
    for seed in 0..3_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pair = Pair::new();
        for _ in 0..random.random_range(1..60) {
            pair.change(&change(&mut random));
        }
        let mut log = pair.log.clone();
        for _ in 0..random.random_range(0..3) {
            log = compact(&log, &mut random);
        }
        let (replayed, stale) = replay(&log, &pair.topics);
        pair.coordinator = without_unwritten(pair.coordinator);
        assert_eq!(state(&replayed), pair.state(), "seed {seed}: {log:?}");
        // Tombstones for stale offsets change nothing, and the offsets are not reported again after them.
        log.extend(stale.into_iter().map(|key| (key, None)));
        let (again, stale) = replay(&log, &pair.topics);
        assert_eq!((state(&again), stale), (state(&replayed), vec![]), "seed {seed}");
        // A snapshot converted to records gives the same groups as well.
        let records = Record::decode(&pair.state()).expect("it was just encoded");
        let records =
            records.iter().flat_map(|record| records_of(record, Written::OffsetsOnly, &pair.topics));
        let log = records.map(|(key, value)| (encode_key(&key), value.as_ref().map(encode_value))).collect();
        assert_eq!(state(&replay(&log, &pair.topics).0), pair.state(), "seed {seed}");
    }
}

#[test]
fn a_recreated_topic_does_not_inherit_offsets() {
    let mut pair = Pair::new();
    pair.change(&Change::Commit { group: 0, topic: 0, partition: 1, offset: 7, forever: false });
    pair.change(&Change::RecreateTopic(0));
    let (coordinator, stale) = replay(&pair.log, &pair.topics);
    assert!(coordinator.groups.get("a").is_none_or(|group| group.offsets.is_empty()));
    assert_eq!(stale, [pair.log[0].0.clone()]);
    pair.change(&Change::Commit { group: 0, topic: 0, partition: 1, offset: 3, forever: true });
    let (coordinator, stale) = replay(&pair.log, &pair.topics);
    assert_eq!((state(&coordinator), stale), (pair.state(), vec![]), "the key has a new value");
}

#[test]
fn records_that_kafka_wrote_are_read() {
    // An offset of version 1 without a topic id, a group with one protocol and no rebalance timeout, and an assignment without epochs.
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("digits"))
            .collect()
    };
    let log: Log = [
        ("000100016700036f6e6500000001", Some("0001000000000000100000046d6574610000018bcfe568000000018bcfee8fc0")),
        (
            "0002000167",
            Some(
                "00000008636f6e73756d657200000003000572616e676500016d0000000100016d0006636c69656e74000a2f3132372e302e302e\
                 310000afc800000003010203000000020405",
            ),
        ),
        ("0003000163", Some("00000000000900")),
        ("000500016300016d", Some("0000000007636c69656e740b2f3132372e302e302e310302610262000000ea600000")),
        ("000800016300016d", Some("000000000008000000070101021112131415161718191a1b1c1d1e1f20020000012c0000")),
        ("0009000167", Some("0000")),
        ("0010000163000161", Some("0000010000000000000000000000000000000000")),
    ]
    .map(|(key, value)| (hex(key), value.map(hex)))
    .into();
    let (coordinator, _) = replay(&log, &Pair::new().topics);
    let mut records = Record::decode(&state(&coordinator)).expect("readable");
    let Some(Record::Snapshot(snapshot)) = records.pop() else { panic!("{records:?}") };
    let offset = &snapshot.commits[0].offsets[0];
    assert_eq!((offset.partition, offset.offset, offset.leader_epoch), (1, 4096, -1));
    let group = &snapshot.classic[0];
    assert_eq!((group.generation, group.since_ms), (3, NOW.wall_ms));
    assert_eq!(group.members[0].rebalance_timeout_ms, 45_000, "the session timeout");
    assert_eq!(group.members[0].protocols, [("range".to_owned(), vec![1, 2, 3])]);
    let member = &snapshot.consumer[0].members[0];
    assert_eq!((member.epoch, member.state, &member.target), (8, 1, &vec![]));
    assert_eq!(member.revoking[0].1, [(300, 8)], "the member's epoch");
}

#[test]
fn invalid_records_are_errors() {
    let mut replay = Replay::default();
    assert!(replay.apply(&[0], None).is_err());
    assert!(replay.apply(&[0, 2, 0, 1, b'g'], Some(&[0, 9])).is_err());
    let key = encode_key(&Key::OffsetCommit { group: "g".into(), topic: "one".into(), partition: -1 });
    let value = [&[0, 2][..], &[0; 8], &[0, 0], &[0; 8]].concat();
    assert!(decode(&key, Some(&value)).is_ok());
    assert!(replay.apply(&key, Some(&value)).is_err());
}
