//! A member of a group: what it says to the broker, and what becomes of its partitions.
//!
//! ```text
//!   assigned ---> Starting --(position read)--> Reading --(not assigned any more)--> Leaving --(processed, committed)--> gone
//! ```
//!
//! The broker decides, in the answers to heartbeats. A partition that is to go is kept among those that this member *has*, and heartbeats
//! say so, until everything that was delivered of it is processed and committed: only then does another member get it.
//!
//! A member whose epoch the broker refuses is *fenced*: others may have its partitions already. So has one that heard nothing for the session
//! timeout. It drops everything without committing and joins again.

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

/// What a member is told when it is made.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) assignor: Option<String>,
    pub(crate) rebalance_timeout: Duration,
    /// Topics with the ids that they are known to have.
    pub(crate) topics: Vec<(String, TopicId)>,
    /// Between commits of what is processed; none: only the user commits.
    pub(crate) commit_every: Option<Duration>,
}

/// Something is to be done with a partition of one of the topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PartitionChange {
    pub(crate) topic: usize,
    pub(crate) partition: u32,
    pub(crate) kind: ChangeKind,
}

/// What is to be done with a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChangeKind {
    /// Read it from its committed position, or from where the user wants to begin.
    Start(Option<Offset>),
    /// Deliver nothing of it any more.
    Stop,
    /// Forget it.
    Release,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum MembershipAction {
    /// Send this; the answer goes to [`Membership::handle_heartbeat`] with the number.
    Heartbeat(u64, GroupHeartbeatRequest),
    /// Send this; the answer goes to [`Membership::handle_positions`] with the number.
    ReadPositions(u64, ReadGroupOffsetsRequest),
    /// Commit what is processed; how that went goes to [`Membership::handle_committed`] with the number.
    Commit(u64),
    /// Ask for the topics' ids; they go to [`Membership::handle_topics`].
    Resolve(u64),
    /// Nothing until then, or until something happens.
    Sleep(Instant),
    /// The member is out of the group for good.
    Ended,
}

/// How a request went.
#[derive(Clone, Debug)]
pub(crate) enum RequestFailure {
    /// The broker says no.
    Rejected(ErrorCode),
    /// Nobody knows; it may go better next time.
    Unanswered,
    /// It will never go better.
    Fatal,
}

/// What the answer to a heartbeat means for the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeartbeatOutcome {
    /// All is well, or will be.
    Ok,
    /// The group does not take this member: that is the end.
    Rejected,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Joining,
    Joined,
    /// Asked to leave; once nothing is left it does.
    Leaving,
    Left,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OwnedState {
    Starting,
    Reading,
    Revoking,
}

/// See the module's doc.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Membership {
    member: Member,
    stage: Stage,
    epoch: i32,
    /// Counts fencings; answers to what was asked before are ignored.
    incarnation: u64,
    /// What the broker wants this member to have. None: not told yet in this life.
    assigned: Option<BTreeSet<TopicPartition>>,
    owned: BTreeMap<TopicPartition, OwnedState>,
    /// What the broker knows this member to have. None: it has to be told everything.
    reported: Option<BTreeSet<TopicPartition>>,
    /// What the heartbeat in flight says, and when it was sent.
    heartbeat_inflight: Option<(Instant, BTreeSet<TopicPartition>)>,
    request_inflight: bool,
    /// The last commit failed: whatever else there is to do comes before the next.
    last_commit_failed: bool,
    /// Topics of assigned partitions have to be looked up.
    topics_unresolved: bool,
    heartbeat_at: Instant,
    request_at: Instant,
    commit_at: Option<Instant>,
    session_until: Option<Instant>,
    /// The broker did not answer when it was told that this member leaves.
    leave_unanswered: bool,
    pause: Backoff,
    changes: VecDeque<PartitionChange>,
}

impl Membership {
    pub(crate) fn new(member: Member, now: Instant, pause: Backoff) -> Self {
        let commit_at = member.commit_every.map(|every| now + every);
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

    /// The epoch to commit with.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Whether the broker takes it for a member.
    pub(crate) fn is_joined(&self) -> bool {
        self.stage == Stage::Joined
    }

    /// Whether the broker knows that this member has left, or never knew it.
    pub(crate) fn is_leave_confirmed(&self) -> bool {
        !self.leave_unanswered
    }

    /// The partitions that records may come from.
    pub(crate) fn reading(&self) -> impl Iterator<Item = TopicPartition> {
        self.owned.iter().filter(|(_, owned)| **owned == OwnedState::Reading).map(|(tp, _)| *tp)
    }

    /// Whether it has all that it was told to have, and nothing else.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(assigned) = self.assigned.as_ref().filter(|_| self.changes.is_empty()) else { return false };
        assigned.len() == self.owned.len()
            && assigned.iter().all(|tp| self.owned.get(tp) == Some(&OwnedState::Reading))
    }

    /// The id that one of the topics has now.
    pub(crate) fn topic_id(&self, topic: usize) -> TopicId {
        self.member.topics[topic].1
    }

    /// Which of the topics this is.
    pub(crate) fn topic_of(&self, id: TopicId) -> Option<usize> {
        self.member.topics.iter().position(|(_, of)| *of == id)
    }

    // Commands.

    /// Leaves the group as soon as what is processed is committed.
    pub(crate) fn leave(&mut self, now: Instant) {
        match self.stage {
            Stage::Left | Stage::Leaving => {}
            // Nobody is told who was never told of it. Its answer may be on its way, so the broker is told once it has come.
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

    /// What to do with a partition, before anything else.
    pub(crate) fn poll_change(&mut self) -> Option<PartitionChange> {
        self.changes.pop_front()
    }

    /// What to do next, after all changes. `need` says what a partition that is read, or was, needs before it can be given up.
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
        // One that waits for an answer is woken by it.
        let at = times.into_iter().flatten().filter(|at| *at > now).min();
        MembershipAction::Sleep(at.unwrap_or(now + Duration::from_secs(1)))
    }

    fn is_heartbeat_due(&self, now: Instant) -> bool {
        if self.stage == Stage::Leaving && self.owned.is_empty() && !self.request_inflight {
            return true;
        }
        // Others wait for what was given up.
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

    /// The answer to a heartbeat of this life.
    pub(crate) fn handle_heartbeat(
        &mut self,
        now: Instant,
        incarnation: u64,
        answer: Result<GroupHeartbeatReply, RequestFailure>,
    ) -> HeartbeatOutcome {
        let (sent_at, reported) = self.heartbeat_inflight.take().expect("a heartbeat was sent");
        if self.stage == Stage::Leaving && self.owned.is_empty() {
            // Whether it was the one that leaves, or one before it that failed: nothing is left to be lost.
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
                self.fence(now)
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

    /// Others may have the partitions by now.
    fn fence(&mut self, now: Instant) {
        self.release_all();
        self.incarnation += 1;
        self.assigned = None;
        self.reported = None;
        self.session_until = None;
        self.epoch = JOIN_EPOCH;
        self.heartbeat_at = now;
        self.request_at = now;
        // Who was about to leave has left.
        self.stage = if self.stage == Stage::Leaving { Stage::Left } else { Stage::Joining };
    }
}

/// Whether the broker does not know the member in this epoch.
fn is_fenced(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownMember | ErrorCode::FencedMember | ErrorCode::UnknownGroup)
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
