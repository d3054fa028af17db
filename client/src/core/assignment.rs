//! Assignment of partitions to a consumer in a group.
//!
//! A partition that the group takes away is *revoking* first: nothing more of it is delivered, while delivered records
//! are processed and committed. All delivered records count as processed except the last batch, which counts when the
//! user asks for the next one.

use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{CommittedOffset, Start};

use super::partition_state::{Ownership, PartitionState};
use super::subscription::{ConsumerCore, UncommittedLoss};

/// What a revoked partition waits for before it can be released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReleaseBlocker {
    /// The user is still processing its last batch.
    Processing,
    /// Its position must be committed.
    Commit,
    /// It can be released.
    None,
}

impl ConsumerCore {
    /// Assigns a partition to this consumer.
    pub(crate) fn assign(&mut self, partition: u32, start: Start) -> usize {
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

    /// Stops delivering records of a partition, which the group has revoked.
    pub(crate) fn revoke(&mut self, partition: u32) -> Option<usize> {
        let index = self.index_of(partition)?;
        self.set_ownership(index, Ownership::Revoking);
        Some(index)
    }

    /// Releases a partition.
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
        // It may have been the last partition that had not reached its end.
        self.wake();
    }

    /// Records of this partition were returned to the user, which now processes them.
    pub(crate) fn begin_processing(&mut self, index: usize) {
        self.processing = Some(index);
    }

    /// The user asks for more records: the last batch is processed. Returns whether its partition waits to be released.
    pub(crate) fn note_processed(&mut self) -> bool {
        let Some(index) = self.processing.take() else { return false };
        let at = &mut self.partitions[index];
        at.processed = at.processed.max(at.delivered);
        at.ownership == Ownership::Revoking
    }

    /// The user will not ask again: its last batch counts as not processed.
    pub(crate) fn abandon_processing(&mut self) {
        self.processing = None;
    }

    /// Returns the progress lost since the last [`ConsumerCore::clear_lost`].
    pub(crate) fn lost(&self) -> UncommittedLoss {
        self.lost
    }

    pub(crate) fn clear_lost(&mut self) {
        self.lost = UncommittedLoss::default();
    }

    /// Returns whether a position of this generation may be committed.
    pub(crate) fn may_commit(&self, partition: u32, generation: u64) -> bool {
        let index = self.index_of(partition).map(|index| &self.partitions[index]);
        index.is_some_and(|at| at.generation == generation && at.ownership != Ownership::Released)
    }

    /// Returns whether the group's committed position is at or after this offset.
    pub(crate) fn is_committed(&self, partition: u32, offset: Offset) -> bool {
        self.index_of(partition).is_some_and(|index| self.partitions[index].committed >= Some(offset))
    }

    /// See [`PartitionState::generation`].
    pub(crate) fn generation_of(&self, partition: u32) -> Option<u64> {
        self.index_of(partition).map(|index| self.partitions[index].generation)
    }

    /// Returns what the partition waits for before it can be released.
    pub(crate) fn release_blocker(&self, partition: u32) -> ReleaseBlocker {
        let Some(index) = self.index_of(partition) else { return ReleaseBlocker::None };
        match &self.partitions[index] {
            _ if self.processing == Some(index) => ReleaseBlocker::Processing,
            at if at.is_uncommitted() => ReleaseBlocker::Commit,
            _ => ReleaseBlocker::None,
        }
    }

    /// Returns the positions after processed records, for partitions in which they are not committed.
    pub(crate) fn uncommitted_positions(&self) -> Vec<CommittedOffset> {
        self.positions(|at| at.processed.filter(|_| at.is_uncommitted()))
    }

    /// Returns the positions after delivered records.
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

    /// Records that a commit of a generation's position failed after its caller stopped waiting.
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

    /// Returns whether a commit failed after its caller stopped waiting, and no later commit succeeded.
    pub(crate) fn has_unreported_failure(&self) -> bool {
        self.released_with_unreported_failure
            || self.partitions.iter().any(PartitionState::has_unreported_failure)
    }

    /// Marks a generation's position as committed, or as one that can never be committed.
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

    /// Returns whether releasing the partition would deliver records before `until` again.
    fn loses_progress(&self, until: Option<Offset>) -> bool {
        self.ownership != Ownership::Released && until > self.committed && until > self.began_at
    }
}
