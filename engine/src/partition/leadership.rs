//! Whether this replica may answer for its partition: one check for the requests of both protocols, before anything is done for them.
//!
//! | this replica | the request | the answer |
//! |---|---|---|
//! | in any role | names an earlier leader epoch than that of the replica | [`ApiError::FencedLeaderEpoch`]: the client's metadata is old |
//! | in any role | names a later one | [`ApiError::UnknownLeaderEpoch`]: the replica has not heard of that leader yet |
//! | has no others beside it | any other | it is answered: nothing can be committed elsewhere |
//! | does not lead | any other | [`ApiError::NotLeader`], with the leader that the replica knows |
//! | leads, and no entry of its term is committed and on its own disk | any other | [`ApiError::LeaderNotReady`]: what is committed is not known here yet |
//! | leads, and one is | any other | it is answered |
//!
//! Batches are checked when they are appended ([`Consensus::check_append`](super::consensus::Consensus::check_append)), because they may wait for a
//! new leader to be ready. Whatever reads is checked when it begins, and whenever it continues: a reader of a replica that does not answer any
//! more is ended by [`PartitionEvent::NotAnswering`](super::PartitionEvent::NotAnswering).

use highwater_protocol::ids::{LeaderEpoch, NodeId, TopicPartition};

use super::replica::{Partition, PartitionId};
use super::{PartitionEvent, Partitions, Replicas};
use crate::api::ApiError;
use crate::mutants::{Mutant, is_planted};

impl Partition {
    /// Returns why this replica cannot answer a request about its partition. `known`: the leader epoch that the client believes to be
    /// current, if it names one. See the [module](self).
    pub(crate) fn check_answers(&self, known: Option<LeaderEpoch>) -> Result<(), ApiError> {
        let epoch = self.epoch();
        match known {
            Some(known) if known < epoch => {
                return Err(ApiError::FencedLeaderEpoch { partition: self.name(), known, epoch });
            }
            Some(known) if known > epoch => {
                return Err(ApiError::UnknownLeaderEpoch { partition: self.name(), known, epoch });
            }
            _ => {}
        }
        if self.consensus.is_answering()
            || !self.consensus.has_others()
            || is_planted(Mutant::FollowerAnswers)
        {
            Ok(())
        } else if self.consensus.is_leader() {
            Err(ApiError::LeaderNotReady { partition: self.name() })
        } else {
            Err(self.not_leader())
        }
    }

    /// Returns the error for requests to a replica that does not lead, with the leader as far as it is known.
    pub(super) fn not_leader(&self) -> ApiError {
        let leader = self.consensus.leader();
        ApiError::NotLeader { partition: self.name(), leader, epoch: self.epoch() }
    }
}

impl Partition {
    /// Returns the term in which this replica leads, if it may answer.
    pub(crate) fn led(&self) -> Option<LeaderEpoch> {
        self.consensus.is_answering().then(|| self.epoch())
    }

    /// Returns whether this replica leads, whether or not it may answer yet.
    pub(crate) fn is_leader(&self) -> bool {
        self.consensus.is_leader()
    }

    /// Returns the node that leads in this term, if that is known.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.consensus.leader()
    }

    /// Returns whether there are no other replicas.
    pub(crate) fn is_alone(&self) -> bool {
        !self.consensus.has_others()
    }
}

impl Partitions {
    /// Returns the partition that a request concerns, if this replica may answer for it. See the [module](self).
    pub(crate) fn answering(
        &self,
        tp: TopicPartition,
        known: Option<LeaderEpoch>,
    ) -> Result<(PartitionId, &Partition), ApiError> {
        let id = self.find(tp).ok_or(ApiError::TopicDeleted)?;
        let partition = self.get(id).ok_or(ApiError::TopicDeleted)?;
        partition.check_answers(known)?;
        Ok((id, partition))
    }

    /// Returns why this replica cannot answer for a partition any more.
    pub(crate) fn check_answers(&self, id: PartitionId) -> Result<(), ApiError> {
        self.get(id).ok_or(ApiError::TopicDeleted)?.check_answers(None)
    }
}

impl Replicas {
    /// Ends the readers of a partition for which this replica does not answer any more, and reports that it was deposed.
    pub(super) fn end_readers(&mut self, id: PartitionId, is_deposed: bool) {
        let Some(partition) = self.table.get_mut(id) else { return };
        if !is_deposed && partition.waiters.is_empty() && partition.readers.is_empty() {
            return;
        }
        let Err(error) = partition.check_answers(None) else { return };
        let waiters = std::mem::take(&mut partition.waiters);
        let readers = std::mem::take(&mut partition.readers);
        self.events.push_back(PartitionEvent::NotAnswering { id, waiters, readers, error });
    }
}
