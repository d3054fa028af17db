//! Members of a group that join, crash and leave, and the rules between them.
//!
//! A partition has one member at a time: a member that is assigned a partition claims it with the [`Group`], which checks that no other member has
//! it. Every acknowledged record is processed by some member at least once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use highwater_protocol::batch::BatchView;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use highwater_protocol::ids::{Offset, TopicId, TopicPartition};
use highwater_protocol::native::{
    Body, CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommittedOffset, DataPrefix, FetchRequest,
    GroupHeartbeatReply, GroupHeartbeatRequest, JOIN_EPOCH, LEAVE_EPOCH, ReadGroupOffsetsReply,
    ReadGroupOffsetsRequest, Start, TopicPartitions, TopicPositions,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use crate::node::{SESSION_TICKS, SHARDS, World};
use crate::wire::{Answer, Wire};

/// Safety margin of a member in ticks, because clients run one after the other in each tick.
const CAUTION_TICKS: u64 = 4;

/// The shared state of all members.
#[derive(Default)]
pub(crate) struct Group {
    owners: BTreeMap<TopicPartition, String>,
    processed: BTreeMap<TopicPartition, BTreeSet<i64>>,
    pub(crate) handovers: u64,
}

impl Group {
    fn claim(&mut self, tp: TopicPartition, member: &str) {
        let before = self.owners.insert(tp, member.to_owned());
        assert!(before.is_none(), "{tp} is {before:?}'s, and {member} was assigned it");
        self.handovers += 1;
    }

    fn release(&mut self, tp: TopicPartition, member: &str) {
        let owner = self.owners.remove(&tp);
        assert_eq!(owner.as_deref(), Some(member), "{tp} was its own");
    }

    fn process(&mut self, tp: TopicPartition, offset: i64, member: &str) {
        assert_eq!(self.owners.get(&tp).map(String::as_str), Some(member), "only the owner processes {tp}");
        self.processed.entry(tp).or_default().insert(offset);
    }

    /// Returns whether everything before this offset was processed.
    pub(crate) fn has_all(&self, tp: TopicPartition, end: i64) -> bool {
        end == 0 || self.processed.get(&tp).is_some_and(|offsets| offsets.range(..end).count() as i64 == end)
    }
}

/// The state of an assigned partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PartitionState {
    /// Its position is not known yet.
    New,
    /// Processed up to here.
    At(i64),
    /// Being revoked, once this offset is committed.
    Leaving(Option<i64>),
}

/// The kind of a request in flight.
enum RequestKind {
    Beat { sent: u64, owned: BTreeSet<TopicPartition> },
    Positions,
    Commit(BTreeMap<TopicPartition, i64>),
    Fetch(TopicPartition, i64),
}

pub(crate) struct Member {
    number: usize,
    lives: u32,
    id: String,
    topic: TopicId,
    shards: BTreeMap<TopicPartition, u16>,
    rng: SimRng,
    tick: u64,
    wires: Vec<Option<(Wire, VecDeque<RequestKind>)>>,
    epoch: i32,
    has: BTreeMap<TopicPartition, PartitionState>,
    /// The partitions that the broker knows of; `None` if they have to be reported.
    said: Option<BTreeSet<TopicPartition>>,
    assigned: BTreeSet<TopicPartition>,
    beat_at: u64,
    heard: Option<u64>,
    committed: BTreeMap<TopicPartition, i64>,
}

impl Member {
    pub(crate) fn new(number: usize, partitions: &[(TopicPartition, u16)], rng: SimRng) -> Self {
        Self {
            number,
            lives: 0,
            id: format!("member-{number}"),
            topic: partitions[0].0.topic,
            shards: partitions.iter().copied().collect(),
            rng,
            tick: 0,
            wires: (0..SHARDS).map(|_| None).collect(),
            epoch: JOIN_EPOCH,
            has: BTreeMap::new(),
            said: None,
            assigned: BTreeSet::new(),
            beat_at: 0,
            heard: None,
            committed: BTreeMap::new(),
        }
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr, group: &mut Group, may_fail: bool) {
        self.tick += 1;
        if may_fail && self.rng.random_bool(0.0005) {
            self.end(group);
        }
        let silent = |sent: u64| sent + SESSION_TICKS - CAUTION_TICKS <= self.tick;
        if self.heard.is_some_and(silent) {
            self.drop_all(group);
        }
        for shard in 0..SHARDS {
            self.receive(world, address, shard, group);
        }
        self.send_requests(group);
    }

    /// Crashes or leaves, and another member takes its place.
    fn end(&mut self, group: &mut Group) {
        if self.epoch != JOIN_EPOCH && self.rng.random_bool(0.5) {
            // The request may not arrive.
            let leave = GroupHeartbeatRequest { epoch: LEAVE_EPOCH, ..self.heartbeat() };
            if let Some((wire, _)) = self.wires[0].as_mut() {
                wire.send(&leave);
            }
        }
        self.drop_all(group);
        self.wires.iter_mut().for_each(|wire| *wire = None);
        self.lives += 1;
        self.id = format!("member-{}.{}", self.number, self.lives);
    }

    /// Drops its partitions, which others may have now.
    fn drop_all(&mut self, group: &mut Group) {
        for tp in std::mem::take(&mut self.has).into_keys() {
            group.release(tp, &self.id);
        }
        self.epoch = JOIN_EPOCH;
        self.said = None;
        self.assigned.clear();
        self.committed.clear();
        self.heard = None;
        self.beat_at = self.tick;
        // Replies to earlier requests are ignored.
        self.wires.iter_mut().for_each(|wire| *wire = None);
    }

    fn receive(&mut self, world: &mut World, address: SocketAddr, shard: u16, group: &mut Group) {
        let slot = usize::from(shard);
        if self.wires[slot].as_ref().is_none_or(|(wire, _)| wire.is_over()) {
            self.wires[slot] = Some((Wire::connect(world, address, Some(shard)), VecDeque::new()));
            if shard == 0 {
                // A reply may be lost.
                self.said = None;
                self.beat_at = self.tick;
            }
        }
        let mut answers = Vec::new();
        if let Some((wire, kind)) = &mut self.wires[slot] {
            wire.receive(usize::MAX);
            while let Some(answer) = wire.pop() {
                answers.push((answer, kind.pop_front()));
            }
        }
        for (answer, kind) in answers {
            if !self.take(answer, kind, group) {
                self.wires[slot] = None;
                return;
            }
        }
    }

    /// Handles replies. Returns false if it has to reconnect.
    fn take(&mut self, answer: Answer, kind: Option<RequestKind>, group: &mut Group) -> bool {
        let body = match answer.body {
            Ok(body) => body,
            Err((ErrorCode::UnknownMember | ErrorCode::FencedMember | ErrorCode::UnknownGroup, _)) => {
                self.drop_all(group);
                return false;
            }
            Err((ErrorCode::StaleEpoch, _)) => {
                self.beat_at = self.tick;
                return true;
            }
            Err((ErrorCode::Unavailable | ErrorCode::Overloaded | ErrorCode::StorageFull, _)) => {
                return false;
            }
            Err((code, text)) => panic!("{}: {code}: {text}", self.id),
        };
        match kind.expect("a request is in flight") {
            RequestKind::Beat { sent, owned } => {
                let reply = GroupHeartbeatReply::decode(&body).expect("a reply");
                self.follow(sent, owned, reply, group);
            }
            RequestKind::Positions => {
                let reply = ReadGroupOffsetsReply::decode(&body).expect("a reply");
                self.begin(&reply);
            }
            RequestKind::Commit(positions) => {
                let reply = CommitGroupOffsetsReply::decode(&body).expect("a reply");
                for rejected in reply.rejected {
                    let tp = TopicPartition { topic: rejected.topic, partition: rejected.partition };
                    assert!(!self.has.contains_key(&tp), "{}: {tp} is its own: {}", self.id, rejected.error);
                }
                self.committed.extend(positions);
            }
            RequestKind::Fetch(tp, from) => self.process(tp, from, &body, group),
        }
        true
    }

    fn follow(
        &mut self,
        sent: u64,
        owned: BTreeSet<TopicPartition>,
        reply: GroupHeartbeatReply,
        group: &mut Group,
    ) {
        assert!(reply.epoch >= self.epoch, "epochs do not go back");
        self.epoch = reply.epoch;
        self.heard = Some(sent);
        self.said = Some(owned);
        let Some(assignment) = reply.assignment else { return };
        let of_topic = |of: TopicPartitions| {
            of.partitions.into_iter().map(move |partition| TopicPartition { topic: of.topic, partition })
        };
        self.assigned = assignment.into_iter().flat_map(of_topic).collect();
        for (tp, has) in &mut self.has {
            *has = match *has {
                PartitionState::At(next) if !self.assigned.contains(tp) => {
                    PartitionState::Leaving(Some(next))
                }
                PartitionState::New if !self.assigned.contains(tp) => PartitionState::Leaving(None),
                has => has,
            };
        }
        for tp in &self.assigned {
            if !self.has.contains_key(tp) {
                group.claim(*tp, &self.id);
                self.has.insert(*tp, PartitionState::New);
            }
        }
    }

    fn begin(&mut self, reply: &ReadGroupOffsetsReply) {
        let positions: BTreeMap<_, _> =
            reply.topics.iter().flat_map(|of| &of.positions).map(|p| (p.partition, p.offset.0)).collect();
        for (tp, has) in self.has.iter_mut().filter(|(_, has)| **has == PartitionState::New) {
            let next = positions.get(&tp.partition).copied().unwrap_or(0);
            *has = PartitionState::At(next);
            self.committed.insert(*tp, next);
        }
    }

    fn process(&mut self, tp: TopicPartition, from: i64, body: &[u8], group: &mut Group) {
        let (prefix, mut frames) = DataPrefix::split(body).expect("a prefix");
        // The partition may have been revoked and assigned again meanwhile.
        let Some(PartitionState::At(next)) =
            self.has.get_mut(&tp).filter(|has| **has == PartitionState::At(from))
        else {
            return;
        };
        while !frames.is_empty() {
            let (header, kind) = FrameHeader::parse(frames).expect("a frame");
            let (frame, rest) = frames.split_at(header.frame_bytes());
            frames = rest;
            if kind == FrameKind::Batch {
                let end = FRAME_HEADER_BYTES + header.payload_bytes.get() as usize;
                let view = BatchView::parse(&frame[FRAME_HEADER_BYTES..end]).expect("a batch");
                let mut scratch = Vec::new();
                for record in view.records(&mut scratch).expect("records") {
                    let offset = record.expect("a record").offset.0;
                    if offset >= *next {
                        group.process(tp, offset, &self.id);
                    }
                }
            }
        }
        *next = prefix.next_offset.get().max(*next);
    }

    /// Sends the requests that it needs.
    fn send_requests(&mut self, group: &mut Group) {
        let committed = |tp: &TopicPartition, next: i64| self.committed.get(tp) == Some(&next);
        let done: Vec<_> = self
            .has
            .iter()
            .filter(|(tp, has)| match has {
                PartitionState::Leaving(Some(next)) => committed(tp, *next),
                PartitionState::Leaving(None) => true,
                _ => false,
            })
            .map(|(tp, _)| *tp)
            .collect();
        let is_free =
            |wire: &Option<(Wire, VecDeque<RequestKind>)>| wire.as_ref().is_some_and(|(_, a)| a.is_empty());
        if is_free(&self.wires[0]) {
            if !done.is_empty() || self.tick >= self.beat_at {
                for tp in done {
                    self.has.remove(&tp);
                    group.release(tp, &self.id);
                }
                self.beat_at = self.tick + self.rng.random_range(5..20);
                let kind = RequestKind::Beat { sent: self.tick, owned: self.has.keys().copied().collect() };
                let request = self.heartbeat();
                self.ask(0, &request, kind);
            } else if self.epoch > JOIN_EPOCH && self.has.values().any(|has| *has == PartitionState::New) {
                let member = Some((self.id.clone(), self.epoch));
                let request = ReadGroupOffsetsRequest { group: "billing".into(), member, partitions: None };
                self.ask(0, &request, RequestKind::Positions);
            } else {
                self.commit();
            }
        }
        for shard in 0..SHARDS {
            if is_free(&self.wires[usize::from(shard)]) && self.rng.random_bool(0.5) {
                self.fetch(shard);
            }
        }
    }

    fn commit(&mut self) {
        let positions: BTreeMap<TopicPartition, i64> = self
            .has
            .iter()
            .filter_map(|(tp, has)| match has {
                PartitionState::At(next) | PartitionState::Leaving(Some(next)) => Some((*tp, *next)),
                _ => None,
            })
            .filter(|(tp, next)| self.committed.get(tp) != Some(next))
            .collect();
        if positions.is_empty() {
            return;
        }
        let offsets = positions.iter().map(|(tp, next)| CommittedOffset {
            partition: tp.partition,
            offset: Offset(*next),
            leader_epoch: -1,
            metadata: String::new(),
        });
        let request = CommitGroupOffsetsRequest {
            group: "billing".into(),
            member: self.id.clone(),
            epoch: self.epoch,
            topics: vec![TopicPositions { topic: self.topic, positions: offsets.collect() }],
        };
        self.ask(0, &request, RequestKind::Commit(positions));
    }

    fn fetch(&mut self, shard: u16) {
        let here = self.has.iter().filter_map(|(tp, has)| match has {
            PartitionState::At(next) if self.shards[tp] == shard => Some((*tp, *next)),
            _ => None,
        });
        let here: Vec<_> = here.collect();
        if here.is_empty() {
            return;
        }
        let (tp, next) = here[self.rng.random_range(0..here.len())];
        let request = FetchRequest {
            topic: tp.topic,
            partition: tp.partition,
            start: Start::Offset(Offset(next)),
            max_bytes: self.rng.random_range(1..100_000),
            min_bytes: 0,
            wait_ms: 0,
        };
        self.ask(shard, &request, RequestKind::Fetch(tp, next));
    }

    fn ask(&mut self, shard: u16, request: &impl Body, kind: RequestKind) {
        if let Some((wire, waiting)) = &mut self.wires[usize::from(shard)] {
            wire.send(request);
            waiting.push_back(kind);
        }
    }

    fn heartbeat(&self) -> GroupHeartbeatRequest {
        let owned: BTreeSet<TopicPartition> = self.has.keys().copied().collect();
        let is_full = self.said.is_none();
        let partitions = owned.iter().map(|tp| tp.partition).collect();
        let topics = if owned.is_empty() {
            Vec::new()
        } else {
            vec![TopicPartitions { topic: self.topic, partitions }]
        };
        GroupHeartbeatRequest {
            group: "billing".into(),
            member: self.id.clone(),
            epoch: self.epoch,
            instance: None,
            rebalance_timeout_ms: is_full.then_some(60_000),
            topics: is_full.then(|| vec!["main".into()]),
            assignor: None,
            owned: (is_full || self.said.as_ref() != Some(&owned)).then_some(topics),
        }
    }
}
