//! A group of the consumer protocol (KIP-848): the coordinator computes the assignment, and each member reaches it through its own heartbeats.
//!
//! There are three epochs: the *group epoch* increases with every change of members, subscriptions or topics; the epoch of the *target assignment* is the
//! group epoch for which it was computed; the epoch of a *member* is that of the target that it has reached.
//!
//! Invariant: a partition is in `assigned` or `revoking` of at most one member. A partition that a member has to revoke stays in its `revoking` until
//! the member no longer reports it, or is fenced.

mod assign;
mod assigning;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
mod record;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

pub(super) use assign::Assignor;

use assigning::Assigning;
use member::{Assigned, Member, MemberState};

use super::effects::Context;
use super::error::GroupError;
use super::limits::GROUP_BYTES;
use super::reply::{DescribedConsumerGroup, DescribedConsumerMember};
use super::request::{CommittedPartition, Now};
use super::topics::Topics;

/// Partitions by topic.
type Target = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// Epoch of a static member that has left temporarily.
const LEFT_TEMPORARILY: GroupEpoch = GroupEpoch(-2);

/// Epoch with which a member joins.
const JOINING: GroupEpoch = GroupEpoch(0);

/// A group of the consumer protocol.
#[derive(Debug)]
pub(super) struct ConsumerGroup {
    name: String,
    epoch: GroupEpoch,
    target_epoch: GroupEpoch,
    /// Hash of the topics with subscribers: their ids and numbers of partitions.
    topics_hash: u64,
    /// The version of the topics for which the hash was computed; `None` if subscriptions have changed since.
    topics_seen: Option<u64>,
    members: BTreeMap<String, Member>,
    /// Approximate memory of all members, in bytes.
    ///
    /// Invariant: the sum of `counted_bytes` of all members.
    members_bytes: usize,
    /// The next assignment, while it is being computed.
    assigning: Option<Box<Assigning>>,
    /// When it became empty, in milliseconds since the Unix epoch; `None` while it has members.
    empty_since_ms: Option<i64>,
    /// Member ids by instance id.
    ///
    /// Invariant: has exactly the instance ids of the members, each with its member.
    instances: BTreeMap<String, String>,
    /// Regular expressions of members, with the number of members for each.
    regexes: BTreeMap<String, usize>,
    /// New and changed members that have not been persisted yet; the same for removed ones.
    changed: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// A time that is not later than any deadline of the group.
    alarm: Option<u64>,
}

impl ConsumerGroup {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            epoch: GroupEpoch(0),
            target_epoch: GroupEpoch(0),
            topics_hash: 0,
            topics_seen: None,
            members: BTreeMap::new(),
            members_bytes: 0,
            assigning: None,
            empty_since_ms: None,
            instances: BTreeMap::new(),
            regexes: BTreeMap::new(),
            changed: BTreeSet::new(),
            removed: BTreeSet::new(),
            alarm: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns since when the offsets have been unused, if they are.
    pub(super) fn idle_since_ms(&self) -> Option<i64> {
        self.empty_since_ms
    }

    /// Returns whether topics have changed. The next heartbeat checks whether that concerns this group.
    pub(in crate::coord::groups) fn has_new_topics(&self, topics: &Topics) -> bool {
        self.topics_seen != Some(topics.version())
    }

    pub(super) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(|m| m.is_reconciled(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    pub(super) fn alarm(&self) -> Option<u64> {
        self.alarm
    }

    fn arm(&mut self, at: u64) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }

    /// Restarts a member's session timeout.
    fn renew_session(&mut self, cx: &Context<'_>, member: &str) {
        let Some(member) = self.members.get_mut(member) else { return };
        let deadline = cx.now.ms + cx.config.consumer_session_timeout_ms;
        member.session_deadline = Some(deadline);
        self.arm(deadline);
    }

    /// Handles deadlines that have passed, and computes the next one.
    pub(super) fn handle_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.ms;
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| is_due(m.session_deadline) || is_due(m.revoke_deadline))
            .map(|(id, _)| id.clone())
            .collect();
        if !late.is_empty() {
            for id in late {
                self.remove(&id);
            }
            self.epoch = self.epoch.next();
            self.persist(cx);
        }
        self.alarm =
            self.members.values().flat_map(|m| [m.session_deadline, m.revoke_deadline]).flatten().min();
    }

    /// Starts all timeouts after a restart: each member has a session timeout to send a heartbeat, and a rebalance timeout to revoke partitions.
    pub(super) fn resume(&mut self, cx: &Context<'_>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.renew_session(cx, &id);
            self.start_revocation_timeout(cx.now, &id);
        }
    }

    /// Starts the timeout of a member that is revoking partitions.
    fn start_revocation_timeout(&mut self, now: Now, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.revoke_deadline = (member.state == MemberState::Revoking)
            .then(|| now.ms + member.rebalance_timeout_ms.max(0) as u64);
        if let Some(deadline) = member.revoke_deadline {
            self.arm(deadline);
        }
    }

    /// Checks a commit as a whole. Returns whether [`Self::check_commit_of`] has to check each partition as well.
    pub(super) fn check_commit(
        &self,
        member: &str,
        epoch: GroupEpoch,
        knows_epochs: bool,
    ) -> Result<bool, GroupError> {
        if epoch.is_negative() && self.members.is_empty() {
            return Ok(false);
        }
        let member = self.members.get(member).ok_or(GroupError::UnknownMemberId)?;
        if !knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        match epoch.cmp(&member.epoch) {
            std::cmp::Ordering::Equal => Ok(false),
            std::cmp::Ordering::Greater => Err(GroupError::StaleMemberEpoch),
            std::cmp::Ordering::Less => Ok(true),
        }
    }

    /// Checks a commit of a member with an older epoch: it may commit partitions that it has owned since then.
    pub(super) fn check_commit_of(
        &self,
        member: &str,
        epoch: GroupEpoch,
        of: &CommittedPartition,
    ) -> Result<(), GroupError> {
        let since = self.members.get(member).and_then(|m| {
            let of_topic = |assigned: &Assigned| assigned.get(&of.topic)?.get(&of.partition).copied();
            of_topic(&m.assigned).or_else(|| of_topic(&m.revoking))
        });
        if since.is_some_and(|since| epoch >= since) { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }

    /// Checks whether a member may read offsets.
    pub(super) fn check_fetch(&self, member: &str, epoch: GroupEpoch) -> Result<(), GroupError> {
        if member.is_empty() && epoch.is_negative() {
            return Ok(());
        }
        let member = self.members.get(member).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }

    /// Returns the approximate memory of the group without offsets, in bytes.
    pub(super) fn bytes(&self) -> usize {
        GROUP_BYTES + self.name.len() + self.members_bytes
    }

    /// Describes the group without its members.
    pub(super) fn describe(&self) -> DescribedConsumerGroup {
        DescribedConsumerGroup {
            state: self.state_name(),
            epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: self.assignor().name().to_owned(),
            members: Vec::new(),
        }
    }

    /// Describes the members from this bound on, by id.
    pub(super) fn describe_members(
        &self,
        from: Bound<&str>,
    ) -> impl Iterator<Item = DescribedConsumerMember> {
        self.members.range::<str, _>((from, Bound::Unbounded)).map(|(id, m)| DescribedConsumerMember {
            member: id.clone(),
            instance: m.instance.clone(),
            rack: m.rack.clone(),
            epoch: m.epoch,
            client_id: m.client.id.clone(),
            client_host: m.client.host.clone(),
            topic_names: m.topic_names.iter().cloned().collect(),
            topic_regex: m.topic_regex.clone(),
            assignment: member::partitions_of(&m.assigned),
            target: m.target.iter().map(|(t, p)| (*t, p.iter().copied().collect())).collect(),
        })
    }

    /// Returns whether members subscribe to a topic.
    pub(super) fn is_subscribed(&self, topics: &Topics, topic: TopicId) -> bool {
        let is_matched = |regex: &str| {
            topics.matches(regex).is_some_and(|found| found.is_ok_and(|m| topics.is_matched(m, topic)))
        };
        let is_named = |name: &str| self.members.values().any(|m| m.topic_names.contains(name));
        topics.name(topic).is_some_and(is_named) || self.regexes().any(is_matched)
    }
}
