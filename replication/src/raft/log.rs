//! What the core knows of a replica's log: where it begins and ends, and which epoch each entry has. The entries are in the storage.
//!
//! Epochs never decrease along a log, so a short list of runs describes all of them. The list is exact also where compaction has
//! removed entries: followers learn runs from their leader's list, not from the entries.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::types::{LogEnd, Run};

/// Maximum number of runs that are known. The oldest are forgotten, if they are committed.
///
/// A leader knows nothing of entries before its first run but that they are committed, and the epoch of the last of them. A follower that gets
/// such entries gives them the epoch of the entry before them, which is too low. That is safe: what is committed last is never among
/// them, and the voters that have that know its epoch. What a follower had in their place is never taken for them
/// (`match_unknown` in `follow.rs`), and when it leads, others raise its epochs to their own.
pub const RUNS_MAX: usize = 1024;

/// The outline of a log. Invariant: runs are ordered by start, and by epoch; the first one starts at `base.end`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Outline {
    /// Index of the first entry that the storage has.
    start: LogIndex,
    /// The position from which on epochs are known.
    base: LogEnd,
    runs: Vec<Run>,
    end: LogIndex,
}

impl Outline {
    /// Creates the outline of a log without entries.
    pub(crate) fn new(base: LogEnd) -> Self {
        Self { start: base.end, base, runs: Vec::new(), end: base.end }
    }

    pub(crate) fn start(&self) -> LogIndex {
        self.start
    }

    pub(crate) fn end(&self) -> LogIndex {
        self.end
    }

    /// Returns the end with the epoch of the last entry.
    pub(crate) fn last(&self) -> LogEnd {
        LogEnd { end: self.end, epoch: self.runs.last().map_or(self.base.epoch, |run| run.epoch) }
    }

    /// Returns the first position of the log.
    pub(crate) fn first(&self) -> Option<LogEnd> {
        Some(LogEnd { end: self.start, epoch: self.epoch_before(self.start)? })
    }

    /// Returns the epoch of the entry before `end`. `None`: it is not known, or the log ends before it.
    pub(crate) fn epoch_before(&self, end: LogIndex) -> Option<LeaderEpoch> {
        if end == self.base.end {
            return Some(self.base.epoch);
        }
        if end < self.base.end || end > self.end {
            return None;
        }
        self.epoch_of(LogIndex(end.0 - 1))
    }

    /// Returns the highest epoch that an entry before `end` can have. `None`: the log ends before it.
    pub(crate) fn highest_epoch_before(&self, end: LogIndex) -> Option<LeaderEpoch> {
        if end < self.base.end { Some(self.base.epoch) } else { self.epoch_before(end) }
    }

    /// Returns the epoch of an entry.
    fn epoch_of(&self, index: LogIndex) -> Option<LeaderEpoch> {
        epoch_at(&self.runs, index)
    }

    /// Appends entries up to `end`. Their runs are those of `runs` that start in the log's end or after it; before the first of them,
    /// `epoch`.
    pub(crate) fn extend(&mut self, epoch: LeaderEpoch, runs: &[Run], end: LogIndex) {
        if end <= self.end {
            return;
        }
        for run in runs_after(self.end, epoch, runs, end) {
            let last = self.last().epoch;
            assert!(run.epoch >= last, "epochs never decrease along a log");
            if run.epoch > last || self.runs.is_empty() {
                self.runs.push(run);
            }
        }
        self.end = end;
    }

    /// Forgets the oldest runs that are too many and end at or before `commit_end`.
    pub(crate) fn forget(&mut self, commit_end: LogIndex) {
        while self.runs.len() > RUNS_MAX && self.runs[1].start <= commit_end {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        self.base = LogEnd { end: self.runs[1].start, epoch: self.runs[0].epoch };
        self.runs.remove(0);
    }

    /// Cuts the log off at `end`.
    pub(crate) fn truncate(&mut self, end: LogIndex) {
        assert!(end >= self.base.end, "what is forgotten is committed");
        self.runs.retain(|run| run.start < end);
        self.end = self.end.min(end);
    }

    /// Handles that the storage has removed the entries before `start`.
    pub(crate) fn start_at(&mut self, start: LogIndex) {
        assert!(start <= self.end, "a log starts in front of its end");
        self.start = self.start.max(start);
        while self.runs.get(1).is_some_and(|run| run.start <= start) {
            self.forget_first();
        }
    }

    /// Returns the runs that start among the entries `from..end`, if the entry before them has the epoch `before`. The first known epoch is that of
    /// the last entry that is forgotten: it says whether another log is the same up to there.
    pub(crate) fn runs_between(
        &self,
        before: Option<LeaderEpoch>,
        from: LogIndex,
        end: LogIndex,
    ) -> Vec<Run> {
        if from >= end {
            return Vec::new();
        }
        let known = from.max(LogIndex(self.base.end.0.saturating_sub(1)));
        let epoch = self.epoch_before(known.next()).filter(|_| known < end);
        let first = epoch.map(|epoch| Run { start: known, epoch });
        let first = first.filter(|run| Some(run.epoch) != before);
        let later = self.runs.iter().filter(|run| run.start > known && run.start < end);
        let later = later.filter(|run| Some(run.epoch) != epoch);
        first.into_iter().chain(later.copied()).collect()
    }

    /// Returns the first index in `from..end` at which this log has an entry of another epoch than a log whose entry before `from` has
    /// the epoch `before` and whose runs are `runs`.
    pub(crate) fn first_conflict(
        &self,
        before: Option<LeaderEpoch>,
        runs: &[Run],
        from: LogIndex,
        end: LogIndex,
    ) -> Option<LogIndex> {
        let end = end.min(self.end);
        let inside = |run: &&Run| run.start > from && run.start < end;
        let starts = self.runs.iter().filter(inside).chain(runs.iter().filter(inside)).map(|run| run.start);
        // Between two starts of runs, both epochs stay the same.
        let differs = |index: &LogIndex| epoch_at(runs, *index).or(before) != self.epoch_of(*index);
        std::iter::once(from).filter(|from| *from < end).chain(starts).filter(differs).min()
    }

    /// Returns the last position up to `hint` at which the logs may match: its entry has no higher epoch than that of the hint.
    pub(crate) fn last_match(&self, hint: LogEnd) -> LogEnd {
        let mut end = hint.end.min(self.end);
        loop {
            match self.epoch_before(end) {
                Some(epoch) if epoch <= hint.epoch => return LogEnd { end, epoch },
                None => return LogEnd { end, epoch: LeaderEpoch(0) },
                Some(_) => {
                    let run = self.runs.partition_point(|run| run.start < end);
                    end = run.checked_sub(1).map_or(self.base.end, |at| self.runs[at].start);
                    if end == self.base.end && self.base.epoch > hint.epoch {
                        // Nowhere in what is known. A leader whose log starts here has the follower restart.
                        let end = LogIndex(end.0.saturating_sub(1));
                        return LogEnd { end, epoch: LeaderEpoch(0) };
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }
}

/// Returns the runs of the entries `from..end`: those of `runs`, and before the first of them, `epoch`.
fn runs_after(from: LogIndex, epoch: LeaderEpoch, runs: &[Run], end: LogIndex) -> impl Iterator<Item = Run> {
    let first = Run { start: from, epoch: epoch_at(runs, from).unwrap_or(epoch) };
    let later = runs.iter().filter(move |run| run.start > from && run.start < end);
    std::iter::once(first).chain(later.copied())
}

fn epoch_at(runs: &[Run], index: LogIndex) -> Option<LeaderEpoch> {
    let after = runs.partition_point(|run| run.start <= index);
    after.checked_sub(1).map(|at| runs[at].epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, epoch: i32) -> Run {
        Run { start: LogIndex(start), epoch: LeaderEpoch(epoch) }
    }

    fn at(end: u64, epoch: i32) -> LogEnd {
        LogEnd { end: LogIndex(end), epoch: LeaderEpoch(epoch) }
    }

    /// Entries 0..4 of epoch 1, 4..6 of epoch 3, 6..9 of epoch 4.
    fn example() -> Outline {
        let mut outline = Outline::new(LogEnd::EMPTY);
        outline.extend(LeaderEpoch(0), &[run(0, 1), run(4, 3), run(6, 4)], LogIndex(9));
        outline
    }

    #[test]
    fn every_entry_has_the_epoch_of_its_run() {
        let outline = example();
        let epochs = (0..=10).map(|end| outline.epoch_before(LogIndex(end)).map(|epoch| epoch.0));
        let some = [0, 1, 1, 1, 1, 3, 3, 4, 4, 4].map(Some);
        assert_eq!(epochs.collect::<Vec<_>>(), [&some[..], &[None]].concat());
        assert_eq!(outline.last(), at(9, 4));
    }

    #[test]
    fn runs_that_are_sent_rebuild_the_same_outline() {
        let outline = example();
        for from in 0..9 {
            for end in from..=9 {
                let (from, end) = (LogIndex(from), LogIndex(end));
                let before = outline.epoch_before(from);
                let mut copy = example();
                copy.truncate(from);
                copy.extend(before.expect("known"), &outline.runs_between(before, from, end), end);
                let mut want = example();
                want.truncate(end);
                assert_eq!(copy, want);
            }
        }
    }

    #[test]
    fn the_first_entry_of_another_epoch_is_the_conflict() {
        let outline = example();
        let conflict = |runs: &[Run], from, end| {
            let from = LogIndex(from);
            outline.first_conflict(outline.epoch_before(from), runs, from, LogIndex(end)).map(|at| at.0)
        };
        assert_eq!(conflict(&[run(4, 3), run(6, 4)], 2, 9), None);
        assert_eq!(conflict(&[run(4, 3), run(6, 4)], 2, 20), None);
        assert_eq!(conflict(&[run(4, 3)], 2, 9), Some(6));
        assert_eq!(conflict(&[run(5, 3), run(6, 4)], 2, 9), Some(4));
        assert_eq!(conflict(&[run(7, 5)], 6, 9), Some(6));
        assert_eq!(conflict(&[run(6, 5)], 6, 6), None);
    }

    #[test]
    fn logs_may_match_where_the_epoch_is_not_above_the_hint() {
        let outline = example();
        for (hint, want) in [
            (at(9, 4), at(9, 4)),
            (at(20, 4), at(9, 4)),
            (at(8, 3), at(6, 3)),
            (at(8, 2), at(4, 1)),
            (at(3, 0), at(0, 0)),
        ] {
            assert_eq!(outline.last_match(hint), want, "{hint:?}");
        }
    }

    #[test]
    fn a_log_whose_start_moves_knows_the_epoch_before_its_start() {
        for (start, first, runs) in [(3, at(3, 1), 3), (4, at(4, 1), 2), (5, at(5, 3), 2), (9, at(9, 4), 1)] {
            let mut outline = example();
            outline.start_at(LogIndex(start));
            assert_eq!((outline.first(), outline.runs().len()), (Some(first), runs), "start {start}");
        }
    }

    #[test]
    fn only_committed_runs_are_forgotten() {
        let mut outline = Outline::new(LogEnd::EMPTY);
        for n in 0..RUNS_MAX as u64 + 3 {
            outline.extend(LeaderEpoch(n as i32 + 1), &[], LogIndex(n + 1));
        }
        outline.forget(LogIndex(2));
        assert_eq!(outline.runs().len(), RUNS_MAX + 1);
        assert_eq!(
            (outline.epoch_before(LogIndex(1)), outline.epoch_before(LogIndex(2))),
            (None, Some(LeaderEpoch(2)))
        );
        outline.forget(LogIndex(50));
        assert_eq!(outline.runs().len(), RUNS_MAX);
    }
}
