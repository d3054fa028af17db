//! What replication needs from a log: frames of other replicas, the ends of epochs, the commit point. See also [`super::replica_state`].

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_runtime::plane::Disk;

use super::Store;
use super::replica_state::check_configuration;
use crate::api::{
    AppendError, FrameContent, FramePlacement, PartitionSlot, ReplicateError, Replicated, ReplicatedFrame,
};
use crate::epochs::{EpochEnd, EpochStart};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Gaps, Partition};
use crate::position::LogPoint;

impl Store {
    /// Appends a frame of another replica's log. Its epoch, index and offset are the leader's, and its batch is unchanged. Its header is rebuilt for
    /// its place in this log. Idempotent: a frame that the log has is recognised by its index and epoch. A frame before which compaction has removed
    /// others in the leader's log goes into an extent that may have gaps.
    ///
    /// The caller has checked the batch.
    pub fn append_replicated(
        &mut self,
        _disk: &mut dyn Disk,
        slot: PartitionSlot,
        frame: ReplicatedFrame<'_>,
        wall_ms: i64,
    ) -> Result<Replicated, ReplicateError> {
        let partition = self.partition(slot).ok_or(AppendError::Deleted)?;
        self.check_phase(partition)?;
        if let Some(outcome) = compare(partition, &frame) {
            return outcome;
        }
        let ReplicatedFrame { index, epoch, offset, content, .. } = frame;
        self.check_stall(partition)?;
        let begin = LogPoint { index, offset };
        let gap = if begin == partition.append_point() { Gaps::None } else { Gaps::Allowed };
        let (bytes, placement) = match &content {
            FrameContent::Batch(payload) => {
                let header = &payload.header;
                if (header.base_offset(), header.leader_epoch()) != (offset, epoch) {
                    return Err(ReplicateError::Mismatch { what: "batch" });
                }
                (header.batch_bytes(), payload.placement())
            }
            FrameContent::EpochStart => (0, FramePlacement::Packed),
            FrameContent::Configuration(payload) => {
                check_configuration(payload)?;
                (payload.len(), FramePlacement::Packed)
            }
        };
        self.check_backlog(partition, bytes)?;
        self.ensure_room(slot, bytes, (placement, gap), epoch, wall_ms)?;
        self.append_with(slot, wall_ms, |partition, context| {
            partition.skip_to(context, begin, (bytes, placement));
            match content {
                FrameContent::Batch(payload) => drop(partition.push(context, payload, epoch)),
                FrameContent::EpochStart => drop(partition.push_epoch_start(context, epoch)),
                FrameContent::Configuration(payload) => {
                    partition.push_configuration(context, Bytes::copy_from_slice(payload), epoch);
                }
            }
        });
        Ok(Replicated::Appended)
    }

    /// Returns where the first frame is that this log has left; its end, if it has none.
    pub fn first_point(&self, slot: PartitionSlot) -> LogPoint {
        let partition = self.partition(slot).expect("the slot of a deleted partition is not used again");
        let first = partition.extents.front();
        first.map_or(partition.append_point(), |extent| LogPoint {
            index: extent.base_index,
            offset: extent.base_offset,
        })
    }

    /// Returns the epochs of this log in order, each with its first frame. The first one may have begun before the first frame that is left.
    pub fn epochs(&self, slot: PartitionSlot) -> impl Iterator<Item = EpochStart> {
        let partition = self.partition(slot).into_iter();
        partition.flat_map(|partition| partition.epochs.below(partition.append_index).copied())
    }

    /// Returns where an epoch ends in this log.
    pub fn epoch_end(&self, slot: PartitionSlot, epoch: LeaderEpoch) -> EpochEnd {
        let unknown = EpochEnd { epoch, end: None };
        self.partition(slot).map_or(unknown, |partition| partition.epochs.end_of(epoch))
    }

    /// Returns whether the log holds the frame with this index and epoch, durable or not. The frame before the first one counts if the log knows its
    /// epoch: nothing needs to be before it.
    pub fn contains(&self, slot: PartitionSlot, index: LogIndex, epoch: LeaderEpoch) -> bool {
        self.partition(slot).is_some_and(|partition| {
            index < partition.append_index && partition.epochs.of(index) == Some(epoch)
        })
    }

    /// Notes that everything before this place is committed, because a quorum has it. Kept lazily, in the headers of later frames and in checkpoints.
    /// A place beyond the end of the log has no effect: call it again when the log has reached it.
    pub fn note_commit(&mut self, slot: PartitionSlot, commit: LogPoint) {
        let Some(partition) = self.partition_mut(slot) else { return };
        if commit.index > partition.commit.index && commit.index <= partition.append_index {
            let cut = partition.cut.as_ref().and_then(|cut| cut.truncates_at());
            assert!(cut.is_none_or(|index| commit.index <= index), "what is being cut off is not committed");
            assert!(commit.offset >= partition.commit.offset, "offsets do not fall along a log");
            partition.commit = commit;
        }
    }
}

/// Compares a frame of another replica with the log. `None`: it is the next one.
///
/// | its index | the log there | answer |
/// |---|---|---|
/// | before what the log remembers | – | there already: only what is committed is forgotten |
/// | below the end | the same epoch | there already |
/// | below the end | another epoch | conflict |
/// | the end or above | it follows frames that are not here | ahead |
/// | the end or above | the epoch is lower | the epoch falls |
/// | the end or above | it begins at the end | the next one |
/// | the end or above | it begins after the end, and compaction has removed what is between | the next one |
/// | the end or above | its offset does not follow | mismatch |
fn compare(partition: &Partition, frame: &ReplicatedFrame<'_>) -> Option<Result<Replicated, ReplicateError>> {
    let end = partition.append_point();
    if frame.index < end.index {
        let known = partition.epochs.of(frame.index);
        let is_there =
            known.is_none_or(|epoch| epoch == frame.epoch) || frame.index < partition.first_index();
        return Some(if is_there {
            Ok(Replicated::AlreadyThere)
        } else {
            Err(ReplicateError::Conflict { index: frame.index })
        });
    }
    let LogPoint { index, offset } = frame.follows;
    if (frame.index > end.index && index > end.index) && !is_planted(Mutant::TakeGapUnasked) {
        return Some(Err(ReplicateError::Ahead { end: end.index }));
    }
    if let Some(last) = partition.epochs.last().filter(|last| *last > frame.epoch) {
        return Some(Err(ReplicateError::EpochFalls { epoch: frame.epoch, last }));
    }
    let is_next = (frame.index, frame.offset) == (end.index, end.offset);
    let is_behind_gap = index <= frame.index
        && offset <= end.offset
        && end.offset <= frame.offset
        && (frame.index > end.index || frame.offset > end.offset);
    let follows = is_next || is_behind_gap || is_planted(Mutant::TakeGapUnasked);
    (!follows).then_some(Err(ReplicateError::Mismatch { what: "offset" }))
}
