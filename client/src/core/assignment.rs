//! A consumer in a group: partitions come and go.
//!
//! A partition that goes is *leaving* first: nothing of it is delivered any more, while what was delivered is processed and committed.
//! What counts as processed is everything but the batch that the user got last, until the user asks for the next one.

use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{CommittedOffset, StartAt};

use super::partition_state::{Ownership, PartitionState};
use super::subscription::{ConsumerCore, UncommittedLoss};

/// What has to happen before a partition can be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReleaseBlocker {
    /// The user is still at it.
    Processing,
    /// Its position is to be committed.
    Commit,
    /// Nothing.
    None,
}

impl ConsumerCore {
    /// A partition is this consumer's from now on.
    pub(crate) fn assign(&mut self, partition: u32, start: StartAt) -> usize {
        let index = self.index_of(partition).unwrap_or_else(|| {
            self.partitions.push(PartitionState::new(partition, start));
            self.partitions.len() - 1
        });
        self.seek(index, start);
        let at = &mut self.partitions[index];
        at.ownership = Ownership::Owned;
        at.generation += 1;
        at.paused = false;
        at.unreported_failed_commit = None;
        at.end = None;
        at.leader_epoch = -1;
        at.began_at = at.delivered;
        at.processed = at.delivered;
        at.committed = at.delivered;
        self.share_buffer();
        index
    }

    /// Nothing of a partition is delivered any more.
    pub(crate) fn revoke(&mut self, partition: u32) -> Option<usize> {
        let index = self.index_of(partition)?;
        self.set_ownership(index, Ownership::Revoking);
        Some(index)
    }

    /// A partition is not this consumer's any more.
    pub(crate) fn release(&mut self, partition: u32) -> Option<usize> {
        let index = self.index_of(partition)?;
        let at = &self.partitions[index];
        self.lost.delivered |= at.loses_progress(at.delivered);
        self.lost.processed |= at.loses_progress(at.processed);
        self.released_with_unreported_failure |= at.has_unreported_failure();
        self.partitions[index].unreported_failed_commit = None;
        self.set_ownership(index, Ownership::Released);
        if self.processing == Some(index) {
            self.processing = None;
        }
        Some(index)
    }

    fn set_ownership(&mut self, index: usize, ownership: Ownership) {
        self.drop_chunks(index);
        self.end_subscription(index);
        self.partitions[index].ownership = ownership;
        self.share_buffer();
        // Perhaps it was the last one that had not come to its end.
        self.wake();
    }

    /// The user has got records of this place.
    pub(crate) fn begin_processing(&mut self, index: usize) {
        self.processing = Some(index);
    }

    /// The user asks for more: what was given is processed. Says whether that is of a partition that somebody waits for.
    pub(crate) fn note_processed(&mut self) -> bool {
        let Some(index) = self.processing.take() else { return false };
        let at = &mut self.partitions[index];
        at.processed = at.processed.max(at.delivered);
        at.ownership == Ownership::Revoking
    }

    /// The user will not ask again: what it has counts as not processed.
    pub(crate) fn abandon_processing(&mut self) {
        self.processing = None;
    }

    /// What was lost since that was last forgotten.
    pub(crate) fn lost(&self) -> UncommittedLoss {
        self.lost
    }

    pub(crate) fn clear_lost(&mut self) {
        self.lost = UncommittedLoss::default();
    }

    /// Whether a position of this tenure may be committed.
    pub(crate) fn may_commit(&self, partition: u32, generation: u64) -> bool {
        let index = self.index_of(partition).map(|index| &self.partitions[index]);
        index.is_some_and(|at| at.generation == generation && at.ownership != Ownership::Released)
    }

    /// Whether the group is at this offset or behind it already.
    pub(crate) fn is_committed(&self, partition: u32, offset: Offset) -> bool {
        self.index_of(partition).is_some_and(|index| self.partitions[index].committed >= Some(offset))
    }

    /// See [`PartitionState::generation`].
    pub(crate) fn generation_of(&self, partition: u32) -> Option<u64> {
        self.index_of(partition).map(|index| self.partitions[index].generation)
    }

    /// See [`ReleaseBlocker`].
    pub(crate) fn release_blocker(&self, partition: u32) -> ReleaseBlocker {
        let Some(index) = self.index_of(partition) else { return ReleaseBlocker::None };
        match &self.partitions[index] {
            _ if self.processing == Some(index) => ReleaseBlocker::Processing,
            at if at.is_uncommitted() => ReleaseBlocker::Commit,
            _ => ReleaseBlocker::None,
        }
    }

    /// The positions behind what was processed, where they are not committed.
    pub(crate) fn uncommitted_positions(&self) -> Vec<CommittedOffset> {
        self.positions(|at| at.processed.filter(|_| at.is_uncommitted()))
    }

    /// The positions behind what was delivered.
    pub(crate) fn delivered_positions(&self) -> Vec<CommittedOffset> {
        self.positions(|at| at.delivered)
    }

    fn positions(&self, position: impl Fn(&PartitionState) -> Option<Offset>) -> Vec<CommittedOffset> {
        let held = self.partitions.iter().filter(|at| at.ownership != Ownership::Released);
        let positions = held.filter_map(|at| {
            Some(CommittedOffset {
                partition: PartitionIndex(at.partition),
                offset: position(at)?,
                leader_epoch: at.leader_epoch,
                metadata: String::new(),
            })
        });
        positions.collect()
    }

    /// A commit of this position of a tenure failed, and nobody waited for the answer.
    pub(crate) fn record_unreported_failure(
        &mut self,
        partition: u32,
        generation: Option<u64>,
        offset: Offset,
    ) {
        if let Some(index) = self.index_of(partition).filter(|_| self.generation_of(partition) == generation)
        {
            let at = &mut self.partitions[index];
            at.unreported_failed_commit = at.unreported_failed_commit.max(Some(offset));
        }
    }

    /// Whether a commit failed that nobody waited for, and no later one made up for it.
    pub(crate) fn has_unreported_failure(&self) -> bool {
        self.released_with_unreported_failure
            || self.partitions.iter().any(PartitionState::has_unreported_failure)
    }

    /// This position of a tenure is committed, or never will be.
    pub(crate) fn mark_committed(&mut self, partition: u32, generation: Option<u64>, offset: Offset) {
        if let Some(index) = self.index_of(partition).filter(|_| self.generation_of(partition) == generation)
        {
            let at = &mut self.partitions[index];
            at.committed = at.committed.max(Some(offset));
            at.processed = at.processed.max(Some(offset));
        }
    }
}

impl PartitionState {
    fn is_uncommitted(&self) -> bool {
        self.ownership != Ownership::Released && self.processed > self.committed
    }

    fn has_unreported_failure(&self) -> bool {
        self.unreported_failed_commit > self.committed
    }

    /// Whether there is something before this offset that the next to have the partition gets again.
    fn loses_progress(&self, until: Option<Offset>) -> bool {
        self.ownership != Ownership::Released && until > self.committed && until > self.began_at
    }
}
