//! Commits of a group's positions: by the user, in the background, and on leaving.

use std::sync::Arc;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicPartition};
use highwater_protocol::native::{
    CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommittedOffset, TopicPositions,
};

use tokio::sync::OwnedMutexGuard;

use super::calls::RetryPolicy;
use super::commits;
use super::consumer::{CommitBatch, CommitFuture, ConsumerShared};
use super::group::{GroupShared, failure};
use crate::core::membership::RequestFailure;
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, CommitError, CommitErrorKind, WriteOutcome, commit_kind};
use crate::events::Event;
use crate::lock::lock;

/// Positions that the broker rejected, with the reasons.
type RejectedPositions = Vec<(TopicPartition, ErrorCode)>;

/// A position being committed.
#[derive(Clone, Debug)]
struct PendingCommit {
    topic: usize,
    tp: TopicPartition,
    /// The partition's generation when the position was collected.
    generation: Option<u64>,
    offset: Offset,
}

/// Held during a commit: a later commit must not be overtaken by an earlier one.
type CommitGuard = OwnedMutexGuard<()>;

impl GroupShared {
    /// Collects the positions to commit, with the request that commits them.
    fn collect(
        &self,
        mut positions_of: impl FnMut(&ConsumerShared, &ConsumerCore) -> Vec<CommittedOffset>,
    ) -> (CommitGroupOffsetsRequest, Vec<PendingCommit>) {
        let membership = self.core();
        let mut pending = Vec::new();
        let mut topics = Vec::new();
        for (number, shared) in self.topics.iter().enumerate() {
            let topic = membership.topic_id(number);
            let core = shared.core();
            let positions = positions_of(shared, &core);
            pending.extend(positions.iter().map(|position| PendingCommit {
                topic: number,
                tp: TopicPartition { topic, partition: position.partition },
                generation: core.generation_of(position.partition.get()),
                offset: position.offset,
            }));
            if !positions.is_empty() {
                topics.push(TopicPositions { topic, positions });
            }
        }
        let request = CommitGroupOffsetsRequest {
            group: self.name.clone(),
            member: membership.member().id.clone(),
            epoch: membership.epoch(),
            topics,
        };
        (request, pending)
    }

    async fn send_commit(
        &self,
        request: CommitGroupOffsetsRequest,
        pending: &[PendingCommit],
    ) -> Result<RejectedPositions, CallError> {
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let rejected = match self.cluster.call_group(&request, RetryPolicy::Always).await {
            Ok(CommitGroupOffsetsReply { rejected }) => {
                let tp = |topic, partition: PartitionIndex| TopicPartition { topic, partition };
                rejected.into_iter().map(|p| (tp(p.topic, p.partition), p.error)).collect()
            }
            // The broker rejects the whole request if the reason applies to all positions.
            Err(CallError::Rejected { code, .. }) if is_topic_gone(code) => {
                pending.iter().map(|pending| (pending.tp, code)).collect::<RejectedPositions>()
            }
            Err(error) => return Err(error),
        };
        for PendingCommit { topic, tp, generation, offset } in pending {
            let code = rejected.iter().find(|(at, _)| at == tp).map(|(_, code)| *code);
            if code.is_none_or(is_topic_gone) {
                self.topics[*topic].core().mark_committed(tp.partition.get(), *generation, *offset);
            }
        }
        Ok(rejected)
    }

    /// Commits positions for a caller who may stop waiting.
    async fn commit_picked(
        self: &Arc<Self>,
        turn: CommitGuard,
        (request, pending): (CommitGroupOffsetsRequest, Vec<PendingCommit>),
        then: impl FnOnce(&Self) -> Result<(), CommitError> + Send + 'static,
    ) -> Result<(), CommitError> {
        let (shared, watching, asked) = (self.clone(), self.clone(), pending.clone());
        let running = self.user_commits.clone().read_owned().await;
        let commit = async move {
            let _guards = (turn, running);
            let sent = shared.send_commit(request, &pending).await;
            shared.to_commit_result(sent)?;
            then(&shared)
        };
        let on_unreported = move |error: CommitError| {
            for PendingCommit { topic, tp, generation, offset } in &asked {
                let mut core = watching.topics[*topic].core();
                core.record_unreported_failure(tp.partition.get(), *generation, *offset);
            }
            watching.emit_commit_failed(&error);
            *lock(&watching.unreported_commit) = Some(error);
        };
        commits::run(&self.cluster.runtime, commit, on_unreported).await
    }

    /// Commits the position after a batch.
    async fn commit_position(
        self: &Arc<Self>,
        topic: &str,
        generation: u64,
        position: CommittedOffset,
    ) -> Result<(), CommitError> {
        let turn = self.committing.clone().lock_owned().await;
        let partition = position.partition.get();
        let mut may_commit = false;
        let pending = self.collect(|shared, core| {
            if &*shared.topic != topic {
                return Vec::new();
            }
            may_commit = core.may_commit(partition, generation);
            // An older batch must not move the group's position back.
            let is_news = may_commit && !core.is_committed(partition, position.offset);
            if is_news { vec![position.clone()] } else { Vec::new() }
        });
        if !may_commit {
            return Err(self.fenced(WriteOutcome::NotWritten));
        }
        self.commit_picked(turn, pending, |_| Ok(())).await
    }

    /// Commits the positions after all delivered records.
    pub(crate) async fn commit_delivered(self: &Arc<Self>) -> Result<(), CommitError> {
        let turn = self.committing.clone().lock_owned().await;
        let mut has_lost = false;
        let pending = self.collect(|_, core| {
            has_lost |= core.lost().delivered;
            core.delivered_positions()
        });
        let then = move |shared: &Self| {
            // The loss is reported now, or it happened during this commit and the broker accepted the positions.
            shared.topics.iter().for_each(|topic| topic.core().clear_lost());
            if has_lost { Err(shared.fenced(WriteOutcome::NotWritten)) } else { Ok(()) }
        };
        self.commit_picked(turn, pending, then).await
    }

    fn fenced(&self, outcome: WriteOutcome) -> CommitError {
        let text = format!(
            "cannot commit positions of group {}: a partition was, or may have been, reassigned to another member, which gets the records again",
            self.name
        );
        CommitError::new(CommitErrorKind::Fenced, outcome, text)
    }

    fn to_commit_result(&self, sent: Result<RejectedPositions, CallError>) -> Result<(), CommitError> {
        let what = format_args!("cannot commit positions of group {}", self.name).to_string();
        match sent {
            Ok(rejected) => match rejected.first() {
                None => Ok(()),
                Some((tp, code)) => {
                    let topic = self.core().topic_of(tp.topic).map(|topic| self.topics[topic].topic.clone());
                    let topic = topic.map_or_else(|| tp.topic.to_string(), |topic| topic.to_string());
                    let text = format!("{what}: {topic}/{}: {code}", tp.partition);
                    Err(CommitError::with_code(commit_kind(*code), WriteOutcome::NotWritten, *code, text))
                }
            },
            Err(error) => Err(CommitError::from_call(what, &error)),
        }
    }

    /// Commits the positions of processed records in the background. Rejections because a topic or partition no longer
    /// exists are ignored.
    pub(super) async fn commit_processed(self: &Arc<Self>) -> Result<(), RequestFailure> {
        let _turn = self.committing.clone().lock_owned().await;
        let (request, pending) = self.collect(|_, core| core.uncommitted_positions());
        let mut sent = self.send_commit(request, &pending).await;
        if let Ok(rejected) = &mut sent {
            rejected.retain(|(_, code)| !is_topic_gone(*code));
        }
        let outcome = match &sent {
            Ok(rejected) => rejected.first().map_or(Ok(()), |(_, code)| Err(RequestFailure::Rejected(*code))),
            Err(error) => Err(failure(error)),
        };
        let error = self.to_commit_result(sent).err();
        let before = std::mem::replace(&mut *lock(&self.failed_commit), error.clone());
        // Emit one event, however often the commit is retried.
        if let (Some(error), None) = (error, before) {
            self.emit_commit_failed(&error);
        }
        outcome
    }

    fn emit_commit_failed(&self, error: &CommitError) {
        let (group, reason) = (self.name.clone(), error.to_string());
        self.cluster.events.emit(&Event::CommitFailed { group, reason });
    }

    /// Waits for the user's pending commits.
    pub(crate) async fn finish_commits(&self) {
        drop(self.user_commits.write().await);
    }

    /// Returns the result of leaving: an error if a processed record is not committed, if a commit failed after its
    /// caller stopped waiting, or if the broker did not confirm the leave.
    pub(crate) fn leave_result(&self) -> Result<(), CommitError> {
        let (commits_by_itself, is_confirmed) = {
            let membership = self.core();
            (membership.member().auto_commit_interval.is_some(), membership.is_leave_confirmed())
        };
        let has = |what: fn(&ConsumerCore) -> bool| self.topics.iter().any(|topic| what(&topic.core()));
        if commits_by_itself && has(|core| core.lost().processed) {
            // If no commit failed, one was in flight when the partitions were reassigned.
            let why = lock(&self.failed_commit).take();
            return Err(why.unwrap_or_else(|| self.fenced(WriteOutcome::Unknown)));
        }
        if has(ConsumerCore::has_unreported_failure) {
            let why = lock(&self.unreported_commit).take();
            return Err(why.unwrap_or_else(|| self.fenced(WriteOutcome::Unknown)));
        }
        if !is_confirmed {
            let text = format!(
                "group {}: the broker did not confirm that this member left; its positions are committed, and its partitions are \
                 reassigned after the session timeout",
                self.name
            );
            return Err(CommitError::new(CommitErrorKind::Unavailable, WriteOutcome::Written, text));
        }
        Ok(())
    }
}

impl CommitBatch for GroupShared {
    fn commit_batch(
        self: Arc<Self>,
        topic: Arc<str>,
        generation: u64,
        position: CommittedOffset,
    ) -> CommitFuture {
        Box::pin(async move { self.commit_position(&topic, generation, position).await })
    }
}

/// Returns whether the topic or partition of a position no longer exists.
fn is_topic_gone(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
}
