//! The commit point, as known from the frames of a log.
//!
//! Each frame records how far the log was known to be committed when it was written. So the commit point in the last frame is known after a crash. It
//! is a hint, and always below the end of the remaining log: the last frames may have been committed, or the next leader may truncate them.

use std::collections::VecDeque;

use highwater_protocol::ids::LogIndex;

use crate::mutants::{Mutant, is_planted};
use crate::position::LogPoint;

/// Tracks the commit point along the frames of a log.
pub(super) struct CommitTracker {
    commit: LogPoint,
    hint: LogIndex,
    /// Positions of the frames after `commit` that have been read.
    uncommitted: VecDeque<LogPoint>,
}

impl CommitTracker {
    pub(super) fn new(known: LogPoint) -> Self {
        Self { commit: known, hint: known.index, uncommitted: VecDeque::new() }
    }

    /// Notes the position of a frame that says that everything below `hint` was committed.
    pub(super) fn note(&mut self, at: LogPoint, hint: LogIndex) {
        self.hint = self.hint.max(hint);
        self.uncommitted.push_back(at);
        while let Some(next) = self.uncommitted.pop_front_if(|next| next.index <= self.hint) {
            self.commit = next;
        }
    }

    /// Returns the commit point according to the noted frames.
    pub(super) fn known(&self) -> LogPoint {
        self.commit
    }

    /// Returns the commit point of a log that ends here.
    pub(super) fn found(&self, end: LogPoint) -> LogPoint {
        let is_all = end.index <= self.hint || is_planted(Mutant::CommitWhatIsFound);
        if is_all { end } else { self.commit }
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::Offset;

    use super::*;

    fn at(index: u64) -> LogPoint {
        LogPoint { index: LogIndex(index), offset: Offset(10 * index as i64) }
    }

    #[test]
    fn what_frames_say_is_committed_is_found_with_its_offset_and_is_never_behind_the_end() {
        let found = |hints: &[u64], end| {
            let mut tracker = CommitTracker::new(at(5));
            for (index, hint) in (5..).zip(hints) {
                tracker.note(at(index), LogIndex(*hint));
            }
            tracker.found(at(end))
        };
        assert_eq!(found(&[], 5), at(5));
        assert_eq!(found(&[2, 5, 5], 8), at(5));
        assert_eq!(found(&[5, 6, 6, 7], 9), at(7));
        assert_eq!(found(&[5, 6, 7, 8, 7], 10), at(8), "a later frame that knows less takes nothing back");
        assert_eq!(found(&[5, 6, 7], 8), at(7));
    }
}
