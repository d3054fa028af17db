//! What a log knows of leaders' epochs, and of what is committed. Answered in memory.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::Store;
use crate::api::Slot;
use crate::epochs::EpochEnd;
use crate::expect::LogPoint;

impl Store {
    /// Where an epoch ends in this log.
    pub fn epoch_end(&self, slot: Slot, epoch: LeaderEpoch) -> EpochEnd {
        let unknown = EpochEnd { epoch, end: None };
        self.partition(slot).map_or(unknown, |partition| partition.epochs.end_of(epoch))
    }

    /// Whether the log holds the frame with this index and epoch, durable or not. The frame in front of the first one counts, if the log knows
    /// its epoch: nothing needs to be in front of that.
    pub fn contains(&self, slot: Slot, index: LogIndex, epoch: LeaderEpoch) -> bool {
        self.partition(slot).is_some_and(|partition| {
            index < partition.append_index && partition.epochs.of(index) == Some(epoch)
        })
    }

    /// Notes that everything in front of this place is committed: a quorum has it. Kept lazily, in the headers of the frames that follow and in
    /// checkpoints. What the log does not reach yet does not count: say so again once it does.
    pub fn note_commit(&mut self, slot: Slot, commit: LogPoint) {
        let Some(partition) = self.partition_mut(slot) else { return };
        if commit.index > partition.commit.index && commit.index <= partition.append_index {
            assert!(commit.offset >= partition.commit.offset, "offsets do not fall along a log");
            partition.commit = commit;
        }
    }
}
