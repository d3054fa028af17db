//! Where each leader's epoch began in a partition's log.
//!
//! A short list, one entry an epoch: kept in checkpoints, rebuilt from frames. It answers in memory the questions of followers and consumers after
//! a change of leaders: where an epoch ended here, and whether the log holds a certain frame.

use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};

use crate::limits::EPOCHS_PER_PARTITION_MAX;
use crate::mutants::{Mutant, is_planted};
use crate::position::LogPoint;

/// The first frame of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Index of its first frame.
    pub index: LogIndex,
    /// Offset of its first record.
    pub offset: Offset,
}

/// Where an epoch ends in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest epoch of the log that is not above the one that was asked for; that one, if there is none.
    pub epoch: LeaderEpoch,
    /// Where the next epoch begins. `None`: no later one has begun.
    pub end: Option<LogPoint>,
}

/// The epochs of a log, in order. Invariant: epochs rise, and indexes do not fall.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    /// The newest epoch that has a frame.
    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|start| start.epoch)
    }

    /// Notes a frame of this epoch, which is appended at this place.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, at: LogPoint) {
        if self.last() == Some(epoch) {
            return;
        }
        assert!(self.last().is_none_or(|last| last < epoch), "epochs never fall along a log");
        if self.starts.len() == EPOCHS_PER_PARTITION_MAX {
            // Epochs are asked about the end of a log.
            self.starts.remove(0);
        }
        let off = u64::from(is_planted(Mutant::EpochIndexOffByOne));
        self.starts.push(EpochStart { epoch, index: LogIndex(at.index.0 + off), offset: at.offset });
    }

    /// The epoch of the frame with this index, which the log holds or held before its start was moved. `None`: not known.
    pub(crate) fn of(&self, index: LogIndex) -> Option<LeaderEpoch> {
        let behind = self.starts.partition_point(|start| start.index <= index);
        behind.checked_sub(1).map(|at| self.starts[at].epoch)
    }

    /// Whether an epoch begins with the frame of this index.
    pub(crate) fn begins_at(&self, index: LogIndex) -> bool {
        self.starts.binary_search_by_key(&index, |start| start.index).is_ok()
    }

    /// Where an epoch ends.
    pub(crate) fn end_of(&self, epoch: LeaderEpoch) -> EpochEnd {
        let newer = self.starts.partition_point(|start| start.epoch <= epoch);
        let known = newer.checked_sub(1).map_or(epoch, |at| self.starts[at].epoch);
        let end = self.starts.get(newer).map(|next| LogPoint { index: next.index, offset: next.offset });
        EpochEnd { epoch: known, end }
    }

    /// Forgets the epochs that begin at or after this index: the log was cut off there.
    pub(crate) fn truncate(&mut self, index: LogIndex) {
        self.starts.retain(|start| start.index < index);
    }

    /// Forgets the epochs that end at or before this index. The epoch of the frame before it stays known: a leader
    /// compares it with the follower's.
    pub(crate) fn forget_below(&mut self, index: LogIndex) {
        let kept = self.starts.partition_point(|start| start.index < index);
        self.starts.drain(..kept.saturating_sub(1));
    }

    /// The epochs that begin before this index.
    pub(crate) fn below(&self, index: LogIndex) -> impl Iterator<Item = &EpochStart> {
        self.starts.iter().take_while(move |start| start.index < index)
    }
}

impl FromIterator<EpochStart> for Epochs {
    fn from_iter<T: IntoIterator<Item = EpochStart>>(starts: T) -> Self {
        Self { starts: starts.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, offset: i64) -> LogPoint {
        LogPoint { index: LogIndex(index), offset: Offset(offset) }
    }

    /// Epoch 1 from index 0 on, epoch 4 from 10 (offset 90), epoch 5 from 30 (offset 200).
    fn example() -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, point) in
            [(1, at(0, 0)), (1, at(3, 9)), (4, at(10, 90)), (5, at(30, 200)), (5, at(31, 200))]
        {
            epochs.note(LeaderEpoch(epoch), point);
        }
        epochs
    }

    fn of(epochs: &Epochs, index: u64) -> Option<i32> {
        epochs.of(LogIndex(index)).map(|epoch| epoch.0)
    }

    #[test]
    fn a_frame_has_the_epoch_that_began_last_at_or_in_front_of_it() {
        let epochs = example();
        assert_eq!([0, 9, 10, 29, 30, 99].map(|index| of(&epochs, index)), [1, 1, 4, 4, 5, 5].map(Some));
        assert_eq!(epochs.last(), Some(LeaderEpoch(5)));
        assert_eq!(of(&Epochs::default(), 0), None);
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_that_the_log_knows_begins() {
        let end = |epoch| {
            let EpochEnd { epoch, end } = example().end_of(LeaderEpoch(epoch));
            (epoch.0, end)
        };
        assert_eq!(end(0), (0, Some(at(0, 0))));
        assert_eq!(end(1), (1, Some(at(10, 90))));
        assert_eq!(end(3), (1, Some(at(10, 90))));
        assert_eq!(end(4), (4, Some(at(30, 200))));
        assert_eq!((end(5), end(9)), ((5, None), (5, None)));
    }

    #[test]
    fn a_log_that_is_cut_forgets_the_epochs_that_are_gone_and_the_one_in_front_stays_known() {
        let mut epochs = example();
        epochs.truncate(LogIndex(30));
        assert_eq!((epochs.last(), of(&epochs, 29)), (Some(LeaderEpoch(4)), Some(4)));
        for (from, first) in [(10, 1), (11, 4), (30, 4), (31, 5)] {
            let mut epochs = example();
            epochs.forget_below(LogIndex(from));
            assert_eq!(of(&epochs, from - 1), Some(first), "from {from} on");
            assert_eq!(epochs.starts.first().map(|start| start.epoch.0), Some(first));
        }
        let below = |index| example().below(LogIndex(index)).count();
        assert_eq!([below(0), below(1), below(10), below(11), below(99)], [0, 1, 1, 2, 3]);
    }

    #[test]
    fn the_oldest_of_too_many_epochs_are_forgotten() {
        let mut epochs = Epochs::default();
        for n in 0..EPOCHS_PER_PARTITION_MAX as u64 + 3 {
            epochs.note(LeaderEpoch(n as i32), at(n, 0));
        }
        assert_eq!((of(&epochs, 2), of(&epochs, 3)), (None, Some(3)));
    }
}
