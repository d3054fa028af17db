//! A group of the classic protocol: members meet at a barrier, the leader assigns partitions, and all receive their assignments.
//!
//! ```text
//!            first member joins               all have joined, or time is up
//!   Empty ----------------------> Preparing -------------------------------> Completing
//!     ^                            ^   |  ^                                     |  the leader sends assignments
//!     |   no member joined         |   |  |  a member joins, changes or leaves     v
//!     +----------------------------|---+  +------------------------------------ Stable
//! ```
//!
//! The members' metadata and assignments are opaque here. Only a complete generation is persisted: after a crash during a rebalance the group has
//! its last complete generation. Members that had already joined a later one are rejected, and rejoin.

mod join;
mod leave;
mod member;
mod rebalance;
mod record;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use highwater_protocol::ids::TopicId;

pub(super) use member::{Member, member_bytes};

use super::consumer_protocol::subscribed_topics;
use super::effects::Context;
use super::error::GroupError;
use super::limits::GROUP_BYTES;
use super::record::ClassicRecord;
use super::reply::{DescribedGroup, DescribedMember};
use super::topics::Topics;

/// The protocol type of groups of consumers.
const CONSUMER: &str = "consumer";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl State {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// The delay in which a group that was empty waits for more members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InitialDelay {
    delay_ms: u64,
    remaining_ms: u64,
    /// Whether a member has joined since the delay began.
    newcomers: bool,
}

/// A group of the classic protocol.
///
/// Invariant: a token is stored in at most one place, and gets its reply when it is removed from there.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    name: String,
    state: State,
    /// When it entered its state, in milliseconds since the Unix epoch.
    since_ms: i64,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids by instance id.
    instances: BTreeMap<String, String>,
    /// Ids given to clients that have not joined with them yet, with their deadlines.
    pending: BTreeMap<String, u64>,
    /// Members that have not sent SyncGroup yet.
    unsynced: BTreeSet<String>,
    initial: Option<InitialDelay>,
    join_deadline: Option<u64>,
    sync_deadline: Option<u64>,
    /// A time that is not later than any deadline of the group.
    alarm: Option<u64>,
    persisted: Option<Arc<ClassicRecord>>,
}

impl ClassicGroup {
    pub(super) fn new(name: &str, since_ms: i64) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Empty,
            since_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            initial: None,
            join_deadline: None,
            sync_deadline: None,
            alarm: None,
            persisted: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Returns whether it has no members, and none is about to join.
    pub(super) fn is_deserted(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    pub(super) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or("")
    }

    /// Returns since when all offsets have been unused; `None` if each offset expires by its own commit time.
    pub(super) fn idle_since_ms(&self) -> Option<i64> {
        (self.is_empty() && self.protocol_type.is_some()).then_some(self.since_ms)
    }

    /// Returns whether offsets of topics that no member subscribes to may expire.
    pub(super) fn offsets_may_expire(&self) -> bool {
        match (&self.protocol_type, self.state) {
            (None, _) | (_, State::Empty) => true,
            (Some(_), State::Stable) => self.subscription().is_some(),
            _ => false,
        }
    }

    /// Returns the topics that members subscribe to; `None` unless all members are consumers with metadata in the standard format.
    fn subscription(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let Some(protocol) = &self.protocol else {
            return self.members.is_empty().then(BTreeSet::new);
        };
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(member.metadata(protocol)?)?);
        }
        Some(topics)
    }

    /// Returns whether members subscribe to a topic. If that is unknown, consumers are assumed to subscribe to all topics, and others to none.
    pub(super) fn is_subscribed(&self, topics: &Topics, topic: TopicId) -> bool {
        if self.members.is_empty() {
            return false;
        }
        match self.subscription() {
            Some(names) => topics.name(topic).is_some_and(|name| names.contains(name)),
            None => self.protocol_type.as_deref() == Some(CONSUMER),
        }
    }

    /// Returns an error if no offsets may be deleted: other members than consumers do not show which topics they read.
    pub(super) fn check_delete_offsets(&self) -> Option<GroupError> {
        let is_rejected = !self.is_empty() && self.protocol_type.as_deref() != Some(CONSUMER);
        is_rejected.then_some(GroupError::NonEmptyGroup)
    }

    /// Checks a commit. `member` may be empty.
    pub(super) fn check_commit(
        &mut self,
        cx: &Context<'_>,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(member, instance)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::Completing {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_session(cx, member);
        Ok(())
    }

    /// Checks that a member id, and its instance id if any, are those of a member.
    fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if holder != member => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    pub(super) fn heartbeat(
        &mut self,
        cx: &Context<'_>,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Option<GroupError> {
        if let Err(error) = self.check_member(member, instance) {
            return Some(error);
        }
        if generation != self.generation {
            return Some(GroupError::IllegalGeneration);
        }
        self.renew_session(cx, member);
        (self.state == State::Preparing).then_some(GroupError::RebalanceInProgress)
    }

    /// Restarts a member's session timeout.
    fn renew_session(&mut self, cx: &Context<'_>, member: &str) {
        let Some(member) = self.members.get_mut(member) else { return };
        let deadline = cx.now.ms + member.session_timeout_ms.max(0) as u64;
        member.deadline = Some(deadline);
        self.arm(deadline);
    }

    fn arm(&mut self, at: u64) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }

    pub(super) fn alarm(&self) -> Option<u64> {
        self.alarm
    }

    fn transition(&mut self, cx: &Context<'_>, to: State) {
        self.state = to;
        self.since_ms = cx.now.wall_ms;
    }

    fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Returns the approximate memory of the group without offsets, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let is_kept = !self.members.is_empty() || self.persisted.is_some();
        let group = if is_kept { GROUP_BYTES + self.name.len() + self.protocol_type().len() } else { 0 };
        let members = self.members.iter().map(|(id, m)| id.len() + m.bytes());
        let pending = self.pending.keys().map(|id| 64 + id.len());
        group + members.chain(pending).sum::<usize>() + self.assignment_bytes()
    }

    /// Returns the memory of all assignments, in bytes.
    pub(super) fn assignment_bytes(&self) -> usize {
        self.members.values().map(|m| m.assignment.len()).sum()
    }

    /// Returns the approximate memory, in bytes, of the member that sends a join request, without its assignment; 0 for a new one.
    pub(super) fn bytes_of(&self, member: &str, instance: Option<&str>) -> usize {
        let holder = || self.instances.get(instance?).and_then(|id| self.members.get(id));
        self.members.get(member).or_else(holder).map_or(0, Member::bytes)
    }

    /// Returns the chosen protocol once the group is stable.
    fn described_protocol(&self) -> Option<&str> {
        self.protocol.as_deref().filter(|_| self.state == State::Stable)
    }

    /// Describes the group without its members.
    pub(super) fn describe(&self) -> DescribedGroup {
        DescribedGroup {
            state: self.state.name(),
            protocol_type: self.protocol_type().to_owned(),
            protocol: self.described_protocol().unwrap_or("").to_owned(),
            members: Vec::new(),
        }
    }

    /// Describes the members from this bound on, by id.
    pub(super) fn describe_members(&self, from: Bound<&str>) -> impl Iterator<Item = DescribedMember> {
        let protocol = self.described_protocol();
        self.members.range::<str, _>((from, Bound::Unbounded)).map(move |(id, m)| DescribedMember {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client.id.clone(),
            client_host: m.client.host.clone(),
            metadata: protocol.and_then(|p| m.metadata(p)).cloned().unwrap_or_default(),
            assignment: protocol.map(|_| m.assignment.clone()).unwrap_or_default(),
        })
    }
}
