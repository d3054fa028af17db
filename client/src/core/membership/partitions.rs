//! A member's partitions: the requests for them and their transitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use highwater_protocol::native::{ReadGroupOffsetsReply, ReadGroupOffsetsRequest, TopicPartitions};

use super::{
    ChangeKind, Membership, MembershipAction, OwnedState, PartitionChange, RequestFailure, Stage, is_fenced,
};
use crate::core::assignment::ReleaseBlocker;

impl Membership {
    pub(super) fn finish_revocations(&mut self, blocker_of: &impl Fn(TopicPartition) -> ReleaseBlocker) {
        let leaving =
            self.owned.iter().filter(|(_, owned)| **owned == OwnedState::Revoking).map(|(tp, _)| *tp);
        let done: Vec<_> =
            leaving.filter(|tp| self.blocker(*tp, blocker_of) == ReleaseBlocker::None).collect();
        for tp in done {
            self.owned.remove(&tp);
            self.change(tp, ChangeKind::Release);
            // It was assigned again while it was being revoked.
            if self.stage == Stage::Joined && self.assigned.as_ref().is_some_and(|all| all.contains(&tp)) {
                self.owned.insert(tp, OwnedState::Starting);
            }
        }
    }

    /// A user who commits by hand is expected to commit before asking for more records.
    fn blocker(
        &self,
        tp: TopicPartition,
        blocker_of: &impl Fn(TopicPartition) -> ReleaseBlocker,
    ) -> ReleaseBlocker {
        match blocker_of(tp) {
            ReleaseBlocker::Commit if self.member.auto_commit_interval.is_none() => ReleaseBlocker::None,
            blocker => blocker,
        }
    }

    /// Returns the next request other than a heartbeat, if one is needed.
    pub(super) fn work(
        &mut self,
        now: Instant,
        blocker_of: &impl Fn(TopicPartition) -> ReleaseBlocker,
    ) -> Option<MembershipAction> {
        let is_due = self.commit_at.is_some_and(|at| at <= now);
        let commits = self.owned.iter().any(|(tp, owned)| match owned {
            OwnedState::Starting => false,
            OwnedState::Reading => is_due && self.blocker(*tp, blocker_of) == ReleaseBlocker::Commit,
            OwnedState::Revoking => self.blocker(*tp, blocker_of) == ReleaseBlocker::Commit,
        });
        // A commit that keeps failing must not delay other requests.
        let other = if commits && !self.last_commit_failed { None } else { self.next_start_request() };
        if other.is_some() {
            self.last_commit_failed = false;
            return other;
        }
        if is_due {
            self.commit_at = self.member.auto_commit_interval.map(|every| now + every);
        }
        commits.then_some(MembershipAction::Commit(self.incarnation))
    }

    /// Returns the request needed before assigned partitions can be read.
    fn next_start_request(&self) -> Option<MembershipAction> {
        if self.stage != Stage::Joined {
            return None;
        }
        if self.topics_unresolved {
            return Some(MembershipAction::Resolve(self.incarnation));
        }
        let starting: BTreeSet<_> = self
            .owned
            .iter()
            .filter(|(_, owned)| **owned == OwnedState::Starting)
            .map(|(tp, _)| *tp)
            .collect();
        (!starting.is_empty()).then(|| {
            let request = ReadGroupOffsetsRequest {
                group: self.member.group.clone(),
                member: Some((self.member.id.clone(), self.epoch)),
                partitions: Some(by_topic(&starting)),
            };
            MembershipAction::ReadPositions(self.incarnation, request)
        })
    }

    /// The committed positions of partitions that start.
    pub(crate) fn handle_positions(
        &mut self,
        now: Instant,
        incarnation: u64,
        asked: &ReadGroupOffsetsRequest,
        answer: Result<ReadGroupOffsetsReply, RequestFailure>,
    ) {
        self.request_inflight = false;
        if incarnation != self.incarnation {
            return;
        }
        match answer {
            Ok(reply) => {
                let committed: BTreeMap<TopicPartition, Offset> = reply
                    .topics
                    .iter()
                    .flat_map(|of| of.positions.iter().map(|p| (of.topic, p)))
                    .map(|(topic, p)| (TopicPartition { topic, partition: p.partition }, p.offset))
                    .collect();
                for tp in asked.partitions.iter().flat_map(|topics| partitions(topics)) {
                    if self.owned.get(&tp) == Some(&OwnedState::Starting) {
                        self.owned.insert(tp, OwnedState::Reading);
                        self.change(tp, ChangeKind::Start(committed.get(&tp).copied()));
                    }
                }
            }
            Err(failure) => self.work_failed(now, &failure),
        }
    }

    /// The result of a commit of processed records.
    pub(crate) fn handle_committed(
        &mut self,
        now: Instant,
        incarnation: u64,
        outcome: Result<(), RequestFailure>,
    ) {
        self.request_inflight = false;
        if incarnation != self.incarnation {
            return;
        }
        self.last_commit_failed = outcome.is_err();
        if let Err(failure) = outcome {
            if self.stage == Stage::Leaving {
                // The commit was retried for as long as a call may take. The next owners of these partitions get the
                // records again.
                self.release_all();
            }
            self.work_failed(now, &failure);
        }
    }

    /// The current ids of the topics, in order; none for a missing topic.
    pub(crate) fn handle_topics(&mut self, now: Instant, incarnation: u64, ids: &[Option<TopicId>]) {
        self.request_inflight = false;
        if incarnation != self.incarnation {
            return;
        }
        for (topic, id) in ids.iter().enumerate() {
            let old = self.member.topics[topic].1;
            let Some(id) = id.filter(|id| *id != old) else { continue };
            // The old topic was deleted, and its positions with it.
            let gone: Vec<_> = self.owned.keys().filter(|tp| tp.topic == old).copied().collect();
            for tp in gone {
                self.owned.remove(&tp);
                self.change(tp, ChangeKind::Release);
            }
            self.member.topics[topic].1 = id;
        }
        self.reconcile();
        if self.topics_unresolved {
            self.request_at = now + self.pause.fail(1.0);
        }
    }

    fn work_failed(&mut self, now: Instant, failure: &RequestFailure) {
        match failure {
            RequestFailure::Rejected(code) if is_fenced(*code) => self.fence(now),
            // A heartbeat updates the epoch.
            RequestFailure::Rejected(ErrorCode::StaleEpoch) => self.heartbeat_at = now,
            _ => {}
        }
        self.request_at = now + self.pause.fail(1.0);
    }

    /// Starts and revokes partitions to match the assignment.
    pub(super) fn reconcile(&mut self) {
        let Some(assigned) = self.assigned.clone() else { return };
        let lost: Vec<_> = self.owned.keys().filter(|tp| !assigned.contains(tp)).copied().collect();
        for tp in lost {
            self.revoke(tp);
        }
        self.topics_unresolved = false;
        if self.stage != Stage::Joined {
            return;
        }
        for tp in assigned {
            if self.topic_of(tp.topic).is_none() {
                self.topics_unresolved = true;
            } else {
                self.owned.entry(tp).or_insert(OwnedState::Starting);
            }
        }
    }

    pub(super) fn revoke(&mut self, tp: TopicPartition) {
        match self.owned.get_mut(&tp) {
            Some(owned @ OwnedState::Reading) => {
                *owned = OwnedState::Revoking;
                self.change(tp, ChangeKind::Stop);
            }
            Some(OwnedState::Starting) => {
                self.owned.remove(&tp);
            }
            Some(OwnedState::Revoking) | None => {}
        }
    }

    pub(super) fn release_all(&mut self) {
        self.changes.clear();
        for tp in std::mem::take(&mut self.owned).into_keys() {
            self.change(tp, ChangeKind::Release);
        }
    }

    fn change(&mut self, tp: TopicPartition, kind: ChangeKind) {
        if let Some(topic) = self.topic_of(tp.topic) {
            self.changes.push_back(PartitionChange { topic, partition: tp.partition.0, kind });
        }
    }
}

pub(super) fn partitions(topics: &[TopicPartitions]) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|of| {
        of.partitions.iter().map(|partition| TopicPartition { topic: of.topic, partition: *partition })
    })
}

pub(super) fn by_topic(partitions: &BTreeSet<TopicPartition>) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
    for tp in partitions {
        topics.entry(tp.topic).or_default().push(tp.partition);
    }
    topics.into_iter().map(|(topic, partitions)| TopicPartitions { topic, partitions }).collect()
}
