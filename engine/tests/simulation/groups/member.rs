//! A member of a group: its connection, its state, and the timing of its requests.

use std::collections::{BTreeSet, VecDeque};

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    LeaveGroupMember, LeaveGroupRequest, OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse,
    OffsetCommitTopic,
};
use highwater_net::kafka::schema::Message;
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use super::{RETRIED, Round, TOPIC};
use crate::kafka::wire::Wire;
use crate::kafka_wire::Answer;

/// The kind of a member, which is also its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemberKind {
    /// Classic protocol: revokes all partitions before it joins.
    Eager,
    /// Classic protocol: keeps its partitions, and joins twice.
    Cooperative,
    /// Classic protocol, with an instance id.
    Static,
    /// Consumer protocol.
    Modern,
}

impl MemberKind {
    pub(super) const ALL: [Self; 4] = [Self::Eager, Self::Cooperative, Self::Static, Self::Modern];

    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Cooperative => "cooperative",
            Self::Static => "static",
            Self::Modern => "modern",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Has to join.
    Out,
    Joining,
    Syncing,
    /// Reads its partitions.
    In,
}

/// A request without a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum InFlight {
    Join,
    Sync,
    Heartbeat,
    Commit { partition: i32, offset: i64 },
}

pub(super) struct Member {
    pub(super) kind: MemberKind,
    pub(super) phase: Phase,
    pub(super) id: String,
    pub(super) instance: Option<String>,
    /// The generation or the member epoch.
    pub(super) generation: i32,
    pub(super) owned: BTreeSet<i32>,
    /// Consumer protocol: the partitions that it was assigned.
    pub(super) assigned: BTreeSet<i32>,
    /// Consumer protocol: when the last heartbeat was sent, and the last one that was answered without an error.
    pub(super) sent_at: u64,
    pub(super) confirmed_at: u64,
    pub(super) next_at: u64,
    /// Another member has taken its place.
    pub(super) is_over: bool,
    /// Classic protocol: whether it leads its group, and how many partitions it has assigned.
    pub(super) leads: bool,
    pub(super) assigned_count: i32,
    pub(super) rng: SimRng,
    wire: Option<Wire>,
    sent: VecDeque<InFlight>,
}

impl Member {
    /// Creates member number `birth` in place `slot`. Members in the same place have the same instance id, if any.
    pub(super) fn new(slot: usize, birth: u64, tick: u64, rng: SimRng) -> Self {
        let kind = MemberKind::ALL[slot % MemberKind::ALL.len()];
        let is_modern = kind == MemberKind::Modern;
        let has_instance = kind == MemberKind::Static || (is_modern && slot < MemberKind::ALL.len());
        Self {
            kind,
            phase: Phase::Out,
            id: if is_modern { format!("member-{slot}-{birth}") } else { String::new() },
            instance: has_instance.then(|| format!("instance-{slot}")),
            generation: 0,
            owned: BTreeSet::new(),
            assigned: BTreeSet::new(),
            sent_at: tick,
            confirmed_at: tick,
            next_at: tick,
            is_over: false,
            leads: false,
            assigned_count: 0,
            rng,
            wire: None,
            sent: VecDeque::new(),
        }
    }

    pub(super) fn group(&self) -> &'static str {
        self.kind.group()
    }

    /// Returns the identity under which it owns partitions: a static member keeps its identity under new member ids.
    pub(super) fn name(&self) -> String {
        self.instance.clone().unwrap_or_else(|| self.id.clone())
    }

    /// Returns whether it reads exactly its assignment.
    pub(super) fn is_settled(&self) -> bool {
        self.phase == Phase::In && (self.kind != MemberKind::Modern || self.owned == self.assigned)
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} {:?}, generation {}, owns {:?}, assigned {:?}, waits for {:?}",
            self.name(),
            self.phase,
            self.generation,
            self.owned,
            self.assigned,
            self.sent
        )
    }

    /// Stalls for this many ticks.
    pub(super) fn stall(&mut self, ticks: u64) {
        self.next_at += ticks;
    }

    pub(super) fn poll(&mut self, round: &mut Round<'_>) {
        if self.wire.as_ref().is_none_or(Wire::is_over) {
            self.wire = Some(Wire::connect(round.world, round.address));
            self.sent.clear();
            if matches!(self.phase, Phase::Joining | Phase::Syncing) {
                self.phase = Phase::Out;
            }
        }
        while let Some((_, answer)) = self.wire.as_mut().and_then(|wire| wire.receive(usize::MAX)) {
            let sent = self.sent.pop_front().expect("a response has a request");
            self.take(sent, &answer, round);
            if self.is_over {
                round.ledger.forget(&self.id);
                return;
            }
        }
        let waits = self.sent.iter().any(|sent| !matches!(sent, InFlight::Commit { .. }));
        if !waits && round.tick >= self.next_at {
            self.next_at = round.tick + self.rng.random_range(5..20);
            if self.phase == Phase::In && self.rng.random_bool(0.3) {
                self.commit(round);
            }
            match self.kind {
                MemberKind::Modern => self.act_modern(round),
                _ => self.act_classic(round),
            }
        }
    }

    fn take(&mut self, sent: InFlight, answer: &Answer, round: &mut Round<'_>) {
        match sent {
            InFlight::Commit { partition, offset } => self.on_committed(partition, offset, answer, round),
            InFlight::Heartbeat if self.kind == MemberKind::Modern => self.on_modern_heartbeat(answer, round),
            InFlight::Heartbeat => self.on_heartbeat(answer),
            InFlight::Join => self.on_joined(answer, round),
            InFlight::Sync => self.on_synced(answer, round),
        }
    }

    fn send<'a>(&mut self, sent: InFlight, api: ApiKey, version: i16, body: &impl Message<'a>) {
        let wire = self.wire.as_mut().expect("connected before anything is sent");
        wire.send(api, version, body);
        self.sent.push_back(sent);
    }

    pub(super) fn send_join<'a>(&mut self, version: i16, body: &impl Message<'a>) {
        self.send(InFlight::Join, ApiKey::JoinGroup, version, body);
    }

    pub(super) fn send_sync<'a>(&mut self, version: i16, body: &impl Message<'a>) {
        self.send(InFlight::Sync, ApiKey::SyncGroup, version, body);
    }

    pub(super) fn send_heartbeat<'a>(&mut self, api: ApiKey, version: i16, body: &impl Message<'a>) {
        self.send(InFlight::Heartbeat, api, version, body);
    }

    fn commit(&mut self, round: &mut Round<'_>) {
        let Some(partition) = self.owned.first().copied() else { return };
        let group = self.group();
        let offset = round.ledger.next_offset(group, partition);
        let (id, instance) = (self.id.clone(), self.instance.clone());
        let committed = OffsetCommitPartition {
            partition_index: partition,
            committed_offset: offset,
            committed_leader_epoch: -1,
            committed_metadata: None,
        };
        let request = OffsetCommitRequest {
            group_id: group,
            generation_id_or_member_epoch: self.generation,
            member_id: &id,
            group_instance_id: instance.as_deref(),
            topics: vec![OffsetCommitTopic {
                name: TOPIC,
                partitions: vec![committed],
                ..Default::default()
            }],
            ..Default::default()
        };
        let version = if self.kind == MemberKind::Modern { 9 } else { self.rng.random_range(7..=9) };
        self.send(InFlight::Commit { partition, offset }, ApiKey::OffsetCommit, version, &request);
    }

    fn on_committed(&self, partition: i32, offset: i64, answer: &Answer, round: &mut Round<'_>) {
        let response: OffsetCommitResponse<'_> = answer.body();
        let error = response.topics[0].partitions[0].error_code;
        let fenced = [
            KafkaError::UNKNOWN_MEMBER_ID,
            KafkaError::ILLEGAL_GENERATION,
            KafkaError::REBALANCE_IN_PROGRESS,
            KafkaError::STALE_MEMBER_EPOCH,
            KafkaError::FENCED_INSTANCE_ID,
        ];
        if error == KafkaError::NONE {
            round.ledger.committed(self.group(), partition, offset);
        } else {
            assert!(fenced.contains(&error) || RETRIED.contains(&error), "{}: {error:?}", self.describe());
        }
    }

    /// Crashes, or sends a leave request, which may not arrive.
    pub(super) fn end(&mut self, says_goodbye: bool, round: &mut Round<'_>) {
        round.ledger.forget(&self.id);
        if !says_goodbye || self.wire.as_ref().is_none_or(Wire::is_over) {
            return;
        }
        if self.kind == MemberKind::Modern {
            self.leave_modern(round);
        } else {
            let (id, instance) = (self.id.clone(), self.instance.clone());
            let leaving = LeaveGroupMember {
                member_id: &id,
                group_instance_id: instance.as_deref(),
                ..Default::default()
            };
            let request =
                LeaveGroupRequest { group_id: self.group(), members: vec![leaving], ..Default::default() };
            let version = self.rng.random_range(3..=5);
            self.send(InFlight::Heartbeat, ApiKey::LeaveGroup, version, &request);
        }
    }
}
