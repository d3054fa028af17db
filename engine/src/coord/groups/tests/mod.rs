//! Tests of single rules of the coordinator. The simulation of the whole broker (`engine/tests/simulation/groups`) tests their interaction.

mod assigning;
mod classic;
mod consumer;
mod consumer_instances;
mod durability;
mod instances;
mod long;
mod offsets;

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_protocol::batch::validate;
use highwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use super::*;

/// The session timeout of members, unless a test sets another one.
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

/// A coordinator with a clock and a log.
struct Harness {
    coordinator: GroupCoordinator,
    ms: u64,
    /// Whether batches are durable at once.
    persists_at_once: bool,
    topics: Vec<(TopicId, &'static str, u32)>,
    log: Vec<GroupBatch>,
    tokens: u64,
    replies: BTreeMap<Token, GroupReply>,
}

fn topic(n: u8) -> TopicId {
    TopicId([n; 16])
}

impl Harness {
    fn new() -> Self {
        let now = Now { ms: 1_000, wall_ms: 1_001_000 };
        let mut harness = Self {
            coordinator: GroupCoordinator::keyed(GroupConfig::default(), now),
            ms: now.ms,
            persists_at_once: true,
            topics: Vec::new(),
            log: Vec::new(),
            tokens: 0,
            replies: BTreeMap::new(),
        };
        harness.add_topics();
        harness
    }

    /// Adds topics 1 and 2: "one" with four partitions and "two" with two.
    fn add_topics(&mut self) {
        self.add_topic(1, "one", 4);
        self.add_topic(2, "two", 2);
    }

    /// Adds a topic, or partitions to an existing one.
    fn add_topic(&mut self, id: u8, name: &'static str, partitions: u32) {
        self.topics.retain(|(known, ..)| *known != topic(id));
        self.topics.push((topic(id), name, partitions));
        self.coordinator.handle_topic(topic(id), name, partitions);
    }

    fn delete_topic(&mut self, id: u8) {
        self.topics.retain(|(known, ..)| *known != topic(id));
        self.coordinator.handle_topic_deleted(topic(id));
    }

    fn now(&self) -> Now {
        Now { ms: self.ms, wall_ms: 1_000_000 + self.ms as i64 }
    }

    /// Sends a request, and runs turns until there is no more work.
    fn send(&mut self, request: GroupRequest) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.tokens.to_le_bytes());
        self.coordinator.handle(self.now(), token, request, random);
        while self.coordinator.run(self.now()) {}
        self.drain();
        token
    }

    /// Reports that the disk is full, or that it has space again.
    fn stall(&mut self, is_stalled: bool) {
        self.coordinator.handle_stalled(self.now(), is_stalled);
        self.persists_at_once = !is_stalled;
        self.drain();
    }

    /// Makes batches durable, unless that is held back, and collects the replies.
    fn drain(&mut self) {
        if self.persists_at_once {
            self.write();
        }
        while let Some((token, reply)) = self.coordinator.poll_reply() {
            assert!(self.replies.insert(token, reply).is_none(), "{token:?} got two replies");
        }
    }

    fn write(&mut self) {
        while let Some((seq, batch)) = self.coordinator.poll_batch() {
            self.log.push(batch);
            self.coordinator.handle_durable(seq);
        }
    }

    /// Returns the reply to a request, which must be available at once.
    fn call(&mut self, request: GroupRequest) -> GroupReply {
        let token = self.send(request);
        self.reply(token).expect("an immediate reply")
    }

    fn reply(&mut self, token: Token) -> Option<GroupReply> {
        self.replies.remove(&token)
    }

    /// Advances the clock, and handles all deadlines in between.
    fn advance(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.coordinator.next_deadline() <= end {
            self.ms = self.ms.max(self.coordinator.next_deadline());
            self.coordinator.handle_time(self.now());
            while self.coordinator.run(self.now()) {}
            self.drain();
        }
        self.ms = end;
    }

    /// Crashes the broker, and restarts it from its log.
    fn crash(&mut self) {
        self.crash_for(0);
    }

    /// Crashes the broker. It reads its log immediately, but serves requests only after this time.
    fn crash_for(&mut self, ms: u64) {
        self.coordinator = self.recovered(GroupConfig::default());
        self.ms += ms;
        self.coordinator.resume(self.now());
        while self.coordinator.run(self.now()) {}
        self.drain();
    }

    /// Carries over the state log of an earlier version.
    fn recover_payloads<'a>(&mut self, payloads: impl Iterator<Item = &'a [u8]>) {
        let mut old =
            GroupCoordinator::recover(GroupConfig::default(), self.now(), None, payloads).expect("readable");
        for (id, name, partitions) in &self.topics {
            old.handle_topic(*id, name, *partitions);
        }
        let mut cursor = SnapshotCursor::default();
        let pieces = std::iter::from_fn(|| old.batches_of_all(&mut cursor, 200));
        self.log = pieces.flatten().collect();
    }

    /// Returns a coordinator that was restored from the log, with the existing topics.
    fn recovered(&self, config: GroupConfig) -> GroupCoordinator {
        let mut replay = Replay::default();
        for batch in &self.log {
            let bytes = batch.encode(Timestamp(self.now().wall_ms), 64);
            replay.apply_batch(&validate(&bytes[64..]).expect("a valid batch")).expect("readable");
        }
        let mut coordinator = GroupCoordinator::keyed(config, self.now());
        for (id, name, partitions) in &self.topics {
            coordinator.handle_topic(*id, name, *partitions);
        }
        while coordinator.restore_next(self.now(), &mut replay).is_some() {}
        coordinator
    }

    fn joined(&mut self, token: Token) -> JoinReply {
        match self.reply(token) {
            Some(GroupReply::Join(reply)) => reply,
            other => panic!("{other:?} is not the reply to a join"),
        }
    }

    fn synced(&mut self, token: Token) -> SyncReply {
        match self.reply(token) {
            Some(GroupReply::Sync(reply)) => reply,
            other => panic!("{other:?} is not the reply to a sync"),
        }
    }

    fn heartbeat(&mut self, group: &str, member: &str, generation: i32) -> Option<GroupError> {
        let request =
            HeartbeatRequest { group: group.into(), member: member.into(), instance: None, generation };
        match self.call(GroupRequest::Heartbeat(request)) {
            GroupReply::Heartbeat(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, group: &str, members: &[(&str, Option<&str>)]) -> Vec<Option<GroupError>> {
        let members = members.iter().map(|(m, i)| ((*m).to_owned(), i.map(str::to_owned))).collect();
        match self.call(GroupRequest::Leave(LeaveRequest { group: group.into(), members })) {
            GroupReply::Leave(reply) => reply.members.into_iter().map(|(_, _, error)| error).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends a JoinGroup request of an old client, which gets its id with its first generation.
    fn join(&mut self, group: &str, member: &str) -> Token {
        self.send(GroupRequest::Join(join(group, member)))
    }

    fn sync(&mut self, joined: &JoinReply, group: &str, assignments: &[(&str, &[u8])]) -> Token {
        let assignments =
            assignments.iter().map(|(m, a)| ((*m).to_owned(), Bytes::copy_from_slice(a))).collect();
        self.send(GroupRequest::Sync(SyncRequest {
            group: group.into(),
            member: joined.member.clone(),
            instance: None,
            generation: joined.generation,
            protocol_type: None,
            protocol: None,
            assignments,
        }))
    }

    /// Makes a stable group of this many members. Returns them with the leader first. Member n has the assignment `[n]`.
    fn stable_group(&mut self, group: &str, members: usize) -> Vec<JoinReply> {
        let tokens: Vec<Token> = (0..members).map(|_| self.join(group, "")).collect();
        self.advance(6_000);
        let mut joined: Vec<JoinReply> = tokens.into_iter().map(|t| self.joined(t)).collect();
        joined.sort_by_key(|j| j.member != j.leader);
        self.sync_all(group, &joined);
        joined
    }

    fn sync_all(&mut self, group: &str, joined: &[JoinReply]) {
        let ids: Vec<&str> = joined.iter().map(|j| j.member.as_str()).collect();
        let plan: Vec<[u8; 1]> = (0..ids.len()).map(|n| [n as u8]).collect();
        let plan: Vec<(&str, &[u8])> = ids.iter().copied().zip(plan.iter().map(|p| &p[..])).collect();
        let leader = joined[0].leader.clone();
        let tokens: Vec<Token> = joined
            .iter()
            .map(|j| self.sync(j, group, if j.member == leader { &plan } else { &[] }))
            .collect();
        for (n, token) in tokens.into_iter().enumerate() {
            let synced = self.synced(token);
            assert_eq!((synced.error, &synced.assignment[..]), (None, &[n as u8][..]));
        }
    }

    fn state(&mut self, group: &str) -> &'static str {
        let listed = match self.call(GroupRequest::List(ListRequest::default())) {
            GroupReply::List { groups: listed, .. } => listed,
            other => panic!("{other:?}"),
        };
        listed.iter().find(|g| g.group == group).map_or("Dead", |g| g.state)
    }

    /// Returns the id of a static member.
    fn member_of(&mut self, group: &str, instance: &str) -> String {
        let GroupReply::Describe(mut described) = self.call(GroupRequest::Describe(vec![group.into()]))
        else {
            panic!("another reply");
        };
        let members = described.remove(0).1.expect("the group exists").members;
        members.into_iter().find(|m| m.instance.as_deref() == Some(instance)).expect("a member").member
    }

    fn commit(&mut self, request: CommitRequest) -> Option<GroupError> {
        match self.call(GroupRequest::Commit(request)) {
            GroupReply::Commit(outcomes) => outcomes[0].2,
            other => panic!("{other:?}"),
        }
    }

    fn offset(&mut self, group: &str, of: u8, partition: u32) -> Option<i64> {
        let request = FetchRequest {
            group: group.into(),
            member: None,
            partitions: Some(vec![(topic(of), vec![PartitionIndex(partition)])]),
            require_stable: true,
        };
        match self.call(GroupRequest::Fetch(vec![request])) {
            GroupReply::Fetch(replies) => replies[0].offsets.first().map(|o| o.offset.0),
            other => panic!("{other:?}"),
        }
    }
}

fn indexes<const N: usize>(numbers: [u32; N]) -> Vec<PartitionIndex> {
    numbers.map(PartitionIndex).to_vec()
}

fn join(group: &str, member: &str) -> JoinRequest {
    JoinRequest {
        group: group.into(),
        member: member.into(),
        instance: None,
        client: Client { id: "client".into(), host: "/127.0.0.1".into() },
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x03one"))],
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        requires_member_id: false,
        can_skip_assignment: false,
    }
}

/// Returns a commit of an offset in partition 0 of topic "one".
fn commit(group: &str, member: &str, generation: i32, offset: i64) -> CommitRequest {
    CommitRequest {
        group: group.into(),
        member: member.into(),
        instance: None,
        generation,
        knows_epochs: true,
        forever: false,
        offsets: vec![CommittedPartition {
            topic: topic(1),
            partition: PartitionIndex(0),
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(5),
            metadata: "kept".into(),
        }],
    }
}
