//! What becomes of a member's partitions: what is asked and committed for them, and the way there and away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use highwater_protocol::native::{ReadGroupOffsetsReply, ReadGroupOffsetsRequest, TopicPartitions};

use super::{Action, Change, Failure, Has, Membership, Stage, What, is_fenced};
use crate::core::tenure::Need;

impl Membership {
    pub(super) fn finish_leaving(&mut self, need: &impl Fn(TopicPartition) -> Need) {
        let leaving = self.has.iter().filter(|(_, has)| **has == Has::Leaving).map(|(tp, _)| *tp);
        let done: Vec<_> = leaving.filter(|tp| self.need(*tp, need) == Need::Nothing).collect();
        for tp in done {
            self.has.remove(&tp);
            self.change(tp, What::Free);
            // It came back while it was on its way out.
            if self.stage == Stage::In && self.assigned.as_ref().is_some_and(|all| all.contains(&tp)) {
                self.has.insert(tp, Has::Starting);
            }
        }
    }

    /// A user who commits by hand has done so before asking for more.
    fn need(&self, tp: TopicPartition, need: &impl Fn(TopicPartition) -> Need) -> Need {
        match need(tp) {
            Need::Commit if self.member.commit_every.is_none() => Need::Nothing,
            need => need,
        }
    }

    /// A request beside the heartbeats, if one has to be made.
    pub(super) fn work(&mut self, now: Instant, need: &impl Fn(TopicPartition) -> Need) -> Option<Action> {
        let is_due = self.commit_at.is_some_and(|at| at <= now);
        let commits = self.has.iter().any(|(tp, has)| match has {
            Has::Starting => false,
            Has::Reading => is_due && self.need(*tp, need) == Need::Commit,
            Has::Leaving => self.need(*tp, need) == Need::Commit,
        });
        // One that fails again and again keeps nothing else waiting.
        let other = if commits && !self.commits_last { None } else { self.towards_reading() };
        if other.is_some() {
            self.commits_last = false;
            return other;
        }
        if is_due {
            self.commit_at = self.member.commit_every.map(|every| now + every);
        }
        commits.then_some(Action::Commit(self.life))
    }

    /// What has to be asked before partitions that were assigned can be read.
    fn towards_reading(&self) -> Option<Action> {
        if self.stage != Stage::In {
            return None;
        }
        if self.unresolved {
            return Some(Action::Resolve(self.life));
        }
        let starting: BTreeSet<_> =
            self.has.iter().filter(|(_, has)| **has == Has::Starting).map(|(tp, _)| *tp).collect();
        (!starting.is_empty()).then(|| {
            let request = ReadGroupOffsetsRequest {
                group: self.member.group.clone(),
                member: Some((self.member.id.clone(), self.epoch)),
                partitions: Some(by_topic(&starting)),
            };
            Action::Read(self.life, request)
        })
    }

    /// Positions of the partitions that begin.
    pub(crate) fn handle_positions(
        &mut self,
        now: Instant,
        life: u64,
        asked: &ReadGroupOffsetsRequest,
        answer: Result<ReadGroupOffsetsReply, Failure>,
    ) {
        self.working = false;
        if life != self.life {
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
                    if self.has.get(&tp) == Some(&Has::Starting) {
                        self.has.insert(tp, Has::Reading);
                        self.change(tp, What::Start(committed.get(&tp).copied()));
                    }
                }
            }
            Err(failure) => self.work_failed(now, &failure),
        }
    }

    /// What was processed is committed, or not.
    pub(crate) fn handle_committed(&mut self, now: Instant, life: u64, outcome: Result<(), Failure>) {
        self.working = false;
        if life != self.life {
            return;
        }
        self.commits_last = outcome.is_err();
        if let Err(failure) = outcome {
            if self.stage == Stage::Leaving {
                // It was tried for as long as a call may take. The next to have these partitions gets the records again.
                self.drop_all();
            }
            self.work_failed(now, &failure);
        }
    }

    /// The ids that the topics have now, in their order; none for one that is not there.
    pub(crate) fn handle_topics(&mut self, now: Instant, life: u64, ids: &[Option<TopicId>]) {
        self.working = false;
        if life != self.life {
            return;
        }
        for (topic, id) in ids.iter().enumerate() {
            let old = self.member.topics[topic].1;
            let Some(id) = id.filter(|id| *id != old) else { continue };
            // The old topic is gone, and positions in it with it.
            let gone: Vec<_> = self.has.keys().filter(|tp| tp.topic == old).copied().collect();
            for tp in gone {
                self.has.remove(&tp);
                self.change(tp, What::Free);
            }
            self.member.topics[topic].1 = id;
        }
        self.follow();
        if self.unresolved {
            self.work_at = now + self.pause.fail(1.0);
        }
    }

    fn work_failed(&mut self, now: Instant, failure: &Failure) {
        match failure {
            Failure::Refused(code) if is_fenced(*code) => self.fence(now),
            // A heartbeat brings the epoch up to date.
            Failure::Refused(ErrorCode::StaleEpoch) => self.beat_at = now,
            _ => {}
        }
        self.work_at = now + self.pause.fail(1.0);
    }

    /// Towards what the broker wants this member to have.
    pub(super) fn follow(&mut self) {
        let Some(assigned) = self.assigned.clone() else { return };
        let lost: Vec<_> = self.has.keys().filter(|tp| !assigned.contains(tp)).copied().collect();
        for tp in lost {
            self.give_up(tp);
        }
        self.unresolved = false;
        if self.stage != Stage::In {
            return;
        }
        for tp in assigned {
            if self.topic_of(tp.topic).is_none() {
                self.unresolved = true;
            } else {
                self.has.entry(tp).or_insert(Has::Starting);
            }
        }
    }

    pub(super) fn give_up(&mut self, tp: TopicPartition) {
        match self.has.get_mut(&tp) {
            Some(has @ Has::Reading) => {
                *has = Has::Leaving;
                self.change(tp, What::Stop);
            }
            Some(Has::Starting) => {
                self.has.remove(&tp);
            }
            Some(Has::Leaving) | None => {}
        }
    }

    pub(super) fn drop_all(&mut self) {
        self.changes.clear();
        for tp in std::mem::take(&mut self.has).into_keys() {
            self.change(tp, What::Free);
        }
    }

    fn change(&mut self, tp: TopicPartition, what: What) {
        if let Some(topic) = self.topic_of(tp.topic) {
            self.changes.push_back(Change { topic, partition: tp.partition.0, what });
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
