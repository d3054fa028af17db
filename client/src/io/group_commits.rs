//! A group's positions: what is committed when the user says so, in the background, and at the end.

use std::sync::Arc;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicPartition};
use highwater_protocol::native::{
    CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommittedOffset, TopicPositions,
};

use super::calls::Repeat;
use super::consumer::ConsumerShared;
use super::group::{GroupShared, failure};
use crate::core::membership::Failure;
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, CommitError, CommitErrorKind, Outcome, commit_kind};
use crate::lock::lock;

/// Positions that the broker did not take.
type Refused = Vec<(TopicPartition, ErrorCode)>;

/// A position on its way to the broker.
struct Picked {
    topic: usize,
    place: TopicPartition,
    /// Of the partition when it was picked.
    tenure: Option<u64>,
    offset: Offset,
}

impl GroupShared {
    /// Commits what is picked of each topic.
    async fn send_commit(
        self: &Arc<Self>,
        mut pick: impl FnMut(&ConsumerShared, &ConsumerCore) -> Vec<CommittedOffset>,
    ) -> Result<Refused, CallError> {
        let _one_at_a_time = self.committing.lock().await;
        let (request, picked) = {
            let membership = self.core();
            let mut picked = Vec::new();
            let mut topics = Vec::new();
            for (number, shared) in self.topics.iter().enumerate() {
                let topic = membership.topic_id(number);
                let core = shared.core();
                let positions = pick(shared, &core);
                picked.extend(positions.iter().map(|position| Picked {
                    topic: number,
                    place: TopicPartition { topic, partition: position.partition },
                    tenure: core.tenure_of(position.partition.get()),
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
            (request, picked)
        };
        if picked.is_empty() {
            return Ok(Vec::new());
        }
        let refused = match self.cluster.call(&request, Repeat::Always).await {
            Ok(CommitGroupOffsetsReply { refused }) => {
                let place = |topic, partition: PartitionIndex| TopicPartition { topic, partition };
                refused.into_iter().map(|p| (place(p.topic, p.partition), p.error)).collect()
            }
            // The broker refuses altogether what it refuses for one reason.
            Err(CallError::Refused { code, .. }) if is_gone(code) => {
                picked.iter().map(|picked| (picked.place, code)).collect::<Refused>()
            }
            Err(error) => return Err(error),
        };
        for Picked { topic, place, tenure, offset } in picked {
            let code = refused.iter().find(|(at, _)| *at == place).map(|(_, code)| *code);
            if code.is_none_or(is_gone) {
                self.topics[topic].core().committed(place.partition.get(), tenure, offset);
            }
        }
        Ok(refused)
    }

    /// Commits the position behind a batch.
    pub(crate) async fn commit_batch(
        self: &Arc<Self>,
        topic: &str,
        tenure: u64,
        position: CommittedOffset,
    ) -> Result<(), CommitError> {
        let partition = position.partition.get();
        let mut may_commit = false;
        let sent = self.send_commit(|shared, core| {
            if &*shared.topic != topic {
                return Vec::new();
            }
            may_commit = core.may_commit(partition, tenure);
            // An older batch must not move the group back.
            let is_news = may_commit && !core.is_committed(partition, position.offset);
            if is_news { vec![position.clone()] } else { Vec::new() }
        });
        let sent = sent.await;
        if may_commit { self.judge(sent) } else { Err(self.fenced(Outcome::NotWritten)) }
    }

    /// Commits the positions behind everything that was delivered.
    pub(crate) async fn commit_delivered(self: &Arc<Self>) -> Result<(), CommitError> {
        let mut has_lost = false;
        let sent = self.send_commit(|_, core| {
            has_lost |= core.lost().delivered;
            core.delivered_positions()
        });
        let sent = sent.await;
        self.judge(sent)?;
        // It has been told, or what went while this was on its way was taken all the same.
        self.topics.iter().for_each(|topic| topic.core().forget_lost());
        if has_lost { Err(self.fenced(Outcome::NotWritten)) } else { Ok(()) }
    }

    fn fenced(&self, outcome: Outcome) -> CommitError {
        let text = format!(
            "positions of group {} not committed: a partition has gone to another member, or may have, and it gets the records again",
            self.name
        );
        CommitError::new(CommitErrorKind::Fenced, outcome, text)
    }

    fn judge(&self, sent: Result<Refused, CallError>) -> Result<(), CommitError> {
        let what = format_args!("positions of group {} not committed", self.name).to_string();
        match sent {
            Ok(refused) => match refused.first() {
                None => Ok(()),
                Some((tp, code)) => {
                    let text = format!("{what}: partition {} of topic {}: {code}", tp.partition, tp.topic);
                    Err(CommitError::with_code(commit_kind(*code), Outcome::NotWritten, *code, text))
                }
            },
            Err(error) => Err(CommitError::from_call(what, &error)),
        }
    }

    /// Commits what was processed, for nobody in particular. Positions in what is gone are of no interest to anybody.
    pub(super) async fn commit_processed(self: &Arc<Self>) -> Result<(), Failure> {
        let mut sent = self.send_commit(|_, core| core.uncommitted()).await;
        if let Ok(refused) = &mut sent {
            refused.retain(|(_, code)| !is_gone(*code));
        }
        let outcome = match &sent {
            Ok(refused) => refused.first().map_or(Ok(()), |(_, code)| Err(Failure::Refused(*code))),
            Err(error) => Err(failure(error)),
        };
        *lock(&self.failed_commit) = self.judge(sent).err();
        outcome
    }

    /// Whether everything that was processed was committed before the end.
    pub(crate) fn left(&self) -> Result<(), CommitError> {
        let commits_by_itself = self.core().member().commit_every.is_some();
        let has_lost = self.topics.iter().any(|topic| topic.core().lost().processed);
        if !(commits_by_itself && has_lost) {
            return Ok(());
        }
        // Without a failure it was on its way when others got the partitions.
        let why = lock(&self.failed_commit).take();
        Err(why.unwrap_or_else(|| self.fenced(Outcome::Unknown)))
    }
}

/// Whether there is nothing any more that a position could be in.
fn is_gone(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
}
