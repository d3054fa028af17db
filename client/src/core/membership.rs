//! A member of a group: its heartbeats and the states of its partitions.
//!
//! ```text
//!   assigned ---> Starting --(position read)--> Reading --(not assigned any more)--> Leaving --(processed, committed)--> gone
//!   assigned ---> Starting --(position read)--> Reading --(revoked)--> Revoking --(processed, committed)--> released
//!
//! The broker assigns partitions in its answers to heartbeats. A revoked partition stays *owned*, and heartbeats report
//! it as owned, until everything delivered from it is processed and committed: only then does the broker assign it to
//! another member.
//!
//! A member whose epoch the broker rejects is *fenced*: its partitions may already be assigned to others. The same
//! holds for a member that got no answer for the session timeout. It releases everything without committing and joins
//! again.

mod partitions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, TopicId, TopicPartition};
use highwater_protocol::native::{
    GroupHeartbeatReply, GroupHeartbeatRequest, JOIN_EPOCH, LEAVE_EPOCH, ReadGroupOffsetsRequest,
    TEMPORARY_LEAVE_EPOCH,
};

use self::partitions::{by_topic, partitions};
use super::assignment::ReleaseBlocker;
use super::backoff::Backoff;

/// The configuration of a member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) assignor: Option<String>,
    pub(crate) rebalance_timeout: Duration,
    /// Topics with their last known ids.
    pub(crate) topics: Vec<(String, TopicId)>,
    /// Interval between commits of processed records. None: only the user commits.
    pub(crate) auto_commit_interval: Option<Duration>,
}

/// A change to one partition of a subscribed topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PartitionChange {
    pub(crate) topic: usize,
    pub(crate) partition: u32,
    pub(crate) kind: ChangeKind,
}

/// The kinds of change to a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChangeKind {
    /// Read it from its committed position, or from the configured start.
    Start(Option<Offset>),
    /// Stop delivering its records.
    Stop,
    /// Release it.
    Release,
}

/// The next action.
#[derive(Debug)]
pub(crate) enum MembershipAction {
    /// Send this heartbeat; pass the answer to [`Membership::handle_heartbeat`] with the incarnation.
    Heartbeat(u64, GroupHeartbeatRequest),
    /// Send this request; pass the answer to [`Membership::handle_positions`] with the incarnation.
    ReadPositions(u64, ReadGroupOffsetsRequest),
    /// Commit processed records; pass the result to [`Membership::handle_committed`] with the incarnation.
    Commit(u64),
    /// Look up the topics' ids; pass them to [`Membership::handle_topics`] with the incarnation.
    Resolve(u64),
    /// Wait until this time or the next event.
    Sleep(Instant),
    /// The member has left the group for good.
    Ended,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) enum RequestFailure {
    /// The broker rejected it.
    Rejected(ErrorCode),
    /// No answer: the outcome is unknown, and a retry may succeed.
    Unanswered,
    /// A retry cannot succeed.
    Fatal,
}

/// The outcome of a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeartbeatOutcome {
    /// The member continues, after a retry or a rejoin if necessary.
    Ok,
    /// The group does not accept this member. It has left for good.
    Rejected,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Joining,
    Joined,
    /// The user asked to leave. The member leaves once it owns no partition.
    Leaving,
    Left,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OwnedState {
    Starting,
    Reading,
    Revoking,
}

/// See the module documentation.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Membership {
    member: Member,
    stage: Stage,
    epoch: i32,
    /// Incremented when the member is fenced. Answers to requests of earlier incarnations are ignored.
    incarnation: u64,
    /// The broker's assignment. None until the first one of this incarnation.
    assigned: Option<BTreeSet<TopicPartition>>,
    owned: BTreeMap<TopicPartition, OwnedState>,
    /// The owned partitions that the broker knows of. None: the next heartbeat must contain everything.
    reported: Option<BTreeSet<TopicPartition>>,
    /// When the heartbeat in flight was sent, and the owned partitions it reports.
    heartbeat_inflight: Option<(Instant, BTreeSet<TopicPartition>)>,
    request_inflight: bool,
    /// The last commit failed: other requests go before the next one.
    last_commit_failed: bool,
    /// Some assigned partition belongs to an unknown topic id, which must be looked up.
    topics_unresolved: bool,
    heartbeat_at: Instant,
    request_at: Instant,
    commit_at: Option<Instant>,
    session_until: Option<Instant>,
    /// The broker did not answer the heartbeat that leaves the group.
    leave_unanswered: bool,
    pause: Backoff,
    changes: VecDeque<PartitionChange>,
}

impl Membership {
    pub(crate) fn new(member: Member, now: Instant, pause: Backoff) -> Self {
        let commit_at = member.auto_commit_interval.map(|every| now + every);
        Self {
            member,
            stage: Stage::Joining,
            epoch: JOIN_EPOCH,
            incarnation: 0,
            assigned: None,
            owned: BTreeMap::new(),
            reported: None,
            heartbeat_inflight: None,
            request_inflight: false,
            last_commit_failed: false,
            topics_unresolved: false,
            heartbeat_at: now,
            request_at: now,
            commit_at,
            session_until: None,
            leave_unanswered: false,
            pause,
            changes: VecDeque::new(),
        }
    }

    // Getters.

    /// Returns the epoch to commit with.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Returns whether the member has joined.
    pub(crate) fn is_joined(&self) -> bool {
        self.stage == Stage::Joined
    }

    /// Returns whether the broker knows that this member has left, or never knew the member.
    pub(crate) fn is_leave_confirmed(&self) -> bool {
        !self.leave_unanswered
    }

    /// Returns the partitions being read.
    pub(crate) fn reading(&self) -> impl Iterator<Item = TopicPartition> {
        self.owned.iter().filter(|(_, owned)| **owned == OwnedState::Reading).map(|(tp, _)| *tp)
    }

    /// Returns whether the member reads exactly the partitions assigned to it.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(assigned) = self.assigned.as_ref().filter(|_| self.changes.is_empty()) else { return false };
        assigned.len() == self.owned.len()
            && assigned.iter().all(|tp| self.owned.get(tp) == Some(&OwnedState::Reading))
    }

    /// Returns the current id of a subscribed topic.
    pub(crate) fn topic_id(&self, topic: usize) -> TopicId {
        self.member.topics[topic].1
    }

    /// Returns the index of the subscribed topic with this id.
    pub(crate) fn topic_of(&self, id: TopicId) -> Option<usize> {
        self.member.topics.iter().position(|(_, of)| *of == id)
    }

    // Commands.

    /// Leaves the group once processed records are committed.
    pub(crate) fn leave(&mut self, now: Instant) {
        match self.stage {
            Stage::Left | Stage::Leaving => {}
            // The broker does not know the member if no heartbeat was sent. If one is in flight, the member leaves
            // after its answer.
            Stage::Joining if self.heartbeat_inflight.is_none() => self.stage = Stage::Left,
            Stage::Joining | Stage::Joined => {
                self.stage = Stage::Leaving;
                for tp in self.owned.keys().copied().collect::<Vec<_>>() {
                    self.revoke(tp);
                }
                self.request_at = now;
            }
        }
    }

    /// Returns the next change to a partition. Apply all changes before anything else.
    pub(crate) fn poll_change(&mut self) -> Option<PartitionChange> {
        self.changes.pop_front()
    }

    /// Returns the next action, after all changes were applied. `blocker_of` returns what a partition waits for before
    /// it can be released.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        blocker_of: impl Fn(TopicPartition) -> ReleaseBlocker,
    ) -> MembershipAction {
        if self.session_until.is_some_and(|until| until <= now) {
            self.fence(now);
        }
        self.finish_revocations(&blocker_of);
        if self.stage == Stage::Left {
            return MembershipAction::Ended;
        }
        if !self.request_inflight && now >= self.request_at {
            let work = self.work(now, &blocker_of);
            self.request_inflight = work.is_some();
            if let Some(work) = work {
                return work;
            }
        }
        if self.heartbeat_inflight.is_none() && self.is_heartbeat_due(now) {
            let request = self.heartbeat();
            self.heartbeat_inflight = Some((now, self.owned.keys().copied().collect()));
            return MembershipAction::Heartbeat(self.incarnation, request);
        }
        let heartbeat_at = self.heartbeat_inflight.is_none().then_some(self.heartbeat_at);
        let request_at = (!self.request_inflight && self.request_at > now).then_some(self.request_at);
        let times = [heartbeat_at, request_at, self.commit_at, self.session_until];
        // Requests in flight wake the caller with their answers.
        let at = times.into_iter().flatten().filter(|at| *at > now).min();
        MembershipAction::Sleep(at.unwrap_or(now + Duration::from_secs(1)))
    }

    fn is_heartbeat_due(&self, now: Instant) -> bool {
        if self.stage == Stage::Leaving && self.owned.is_empty() && !self.request_inflight {
            return true;
        }
        // Report released partitions at once: other members wait for them.
        let gave_up = self
            .reported
            .as_ref()
            .is_some_and(|reported| reported.iter().any(|tp| !self.owned.contains_key(tp)));
        now >= self.heartbeat_at || (gave_up && self.stage == Stage::Joined)
    }

    fn heartbeat(&self) -> GroupHeartbeatRequest {
        let member = &self.member;
        let leaves = self.stage == Stage::Leaving && self.owned.is_empty();
        let is_full = self.reported.is_none() && !leaves;
        let owned: BTreeSet<_> = self.owned.keys().copied().collect();
        let is_news = self.reported.as_ref() != Some(&owned) && !leaves;
        GroupHeartbeatRequest {
            group: member.group.clone(),
            member: member.id.clone(),
            epoch: match &member.instance {
                Some(_) if leaves => TEMPORARY_LEAVE_EPOCH,
                None if leaves => LEAVE_EPOCH,
                _ => self.epoch,
            },
            instance: member.instance.clone(),
            rebalance_timeout_ms: is_full
                .then(|| u32::try_from(member.rebalance_timeout.as_millis()).unwrap_or(u32::MAX)),
            topics: is_full.then(|| member.topics.iter().map(|(name, _)| name.clone()).collect()),
            assignor: member.assignor.clone().filter(|_| is_full),
            owned: (is_full || is_news).then(|| by_topic(&owned)),
        }
    }

    // Events.

    /// The answer to a heartbeat of this incarnation.
    pub(crate) fn handle_heartbeat(
        &mut self,
        now: Instant,
        incarnation: u64,
        answer: Result<GroupHeartbeatReply, RequestFailure>,
    ) -> HeartbeatOutcome {
        let (sent_at, reported) = self.heartbeat_inflight.take().expect("a heartbeat was sent");
        if self.stage == Stage::Leaving && self.owned.is_empty() {
            // The answer to the heartbeat that leaves the group, or to one before it that failed: nothing is left to
            // lose.
            let left = !matches!(&answer, Ok(reply) if reply.epoch > 0);
            if left {
                self.leave_unanswered = matches!(answer, Err(RequestFailure::Unanswered));
                self.stage = Stage::Left;
                return HeartbeatOutcome::Ok;
            }
        }
        if incarnation != self.incarnation {
            return HeartbeatOutcome::Ok;
        }
        match answer {
            Ok(reply) => {
                self.pause.succeed();
                self.reported = Some(reported);
                self.epoch = reply.epoch;
                self.heartbeat_at = sent_at + Duration::from_millis(reply.heartbeat_interval_ms.into());
                self.session_until =
                    Some(sent_at + Duration::from_millis(reply.session_timeout_ms.max(1).into()));
                if self.stage == Stage::Joining {
                    self.stage = Stage::Joined;
                }
                if let Some(assignment) = reply.assignment {
                    self.assigned = Some(partitions(&assignment).collect());
                    self.reconcile();
                }
            }
            Err(RequestFailure::Fatal) => return self.reject(),
            Err(RequestFailure::Rejected(code)) if is_fenced(code) && self.stage != Stage::Joining => {
                self.fence(now);
            }
            Err(RequestFailure::Rejected(code)) if !code.is_retryable() => return self.reject(),
            Err(_) => {
                self.reported = None;
                self.heartbeat_at = now + self.pause.fail(1.0);
            }
        }
        HeartbeatOutcome::Ok
    }

    fn reject(&mut self) -> HeartbeatOutcome {
        self.release_all();
        self.stage = Stage::Left;
        HeartbeatOutcome::Rejected
    }

    /// Releases everything and joins again: others may own the partitions by now.
    fn fence(&mut self, now: Instant) {
        self.release_all();
        self.incarnation += 1;
        self.assigned = None;
        self.reported = None;
        self.session_until = None;
        self.epoch = JOIN_EPOCH;
        self.heartbeat_at = now;
        self.request_at = now;
        // A fenced member that was leaving has left.
        self.stage = if self.stage == Stage::Leaving { Stage::Left } else { Stage::Joining };
    }
}

/// Returns whether the broker no longer knows the member in this epoch.
fn is_fenced(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownMember | ErrorCode::FencedMember | ErrorCode::UnknownGroup)
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
