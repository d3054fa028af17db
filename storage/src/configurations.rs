//! The configurations of a partition's replicas in its log.
//!
//! A short list, kept like the [epochs](crate::epochs): with checkpoints, and restored from frames. Recovery reads only the ends of logs, and the
//! frame of the configuration in effect may be far before that, or deleted. What a configuration means is known to replication only.

use bytes::Bytes;
use highwater_protocol::ids::LogIndex;

use crate::limits::CONFIGURATIONS_PER_PARTITION_MAX;
use crate::mutants::{Mutant, is_planted};

/// A configuration, and the index of its frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Configuration {
    pub(crate) index: LogIndex,
    pub(crate) payload: Bytes,
}

/// The configurations of a log. Invariant: indexes rise from `base` along `entries`.
#[derive(Clone, Default, Debug)]
pub(crate) struct Configurations {
    /// The last one at or before the log's start, or one that a leader gave with the start. It is committed, and never truncated.
    base: Option<Configuration>,
    /// Those of later frames.
    entries: Vec<Configuration>,
    /// There was one before these, which was lost with the map of the store.
    pub(crate) has_lost_one: bool,
    /// The map has not recorded all of them, or others.
    pub(crate) is_unrecorded: bool,
}

impl Configurations {
    /// The configurations of a log that begins after `base`.
    pub(crate) fn new(base: Option<Configuration>, entries: Vec<Configuration>) -> Self {
        Self { base, entries, ..Self::default() }
    }

    /// None, and there was one that is lost.
    pub(crate) fn lost() -> Self {
        Self { has_lost_one: true, is_unrecorded: true, ..Self::default() }
    }

    /// Returns whether there was one, and none is known.
    pub(crate) fn is_lost(&self) -> bool {
        self.has_lost_one && self.iter().next().is_none()
    }

    /// Returns whether there is one, or was.
    pub(crate) fn has_had_any(&self) -> bool {
        self.has_lost_one || self.iter().next().is_some()
    }

    pub(crate) fn base(&self) -> Option<&Configuration> {
        self.base.as_ref()
    }

    pub(crate) fn entries(&self) -> &[Configuration] {
        &self.entries
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Configuration> {
        self.base.iter().chain(&self.entries)
    }

    /// Returns whether there is one with this index.
    pub(crate) fn contains(&self, index: LogIndex) -> bool {
        self.iter().any(|known| known.index == index)
    }

    /// Returns whether all of them have lower indexes.
    pub(crate) fn are_below(&self, index: LogIndex) -> bool {
        self.entries.last().is_none_or(|last| last.index < index)
    }

    /// Notes the frame of a configuration, which is appended or was found. One that is known stays: a log that restarts may be given the configuration
    /// before its frame comes.
    pub(crate) fn note(&mut self, index: LogIndex, payload: Bytes) {
        if self.iter().last().is_some_and(|last| index <= last.index) {
            return;
        }
        self.is_unrecorded = true;
        self.entries.push(Configuration { index, payload });
        if self.entries.len() > CONFIGURATIONS_PER_PARTITION_MAX {
            // At most the last one is not committed.
            self.base = Some(self.entries.remove(0));
        }
    }

    /// Forgets those at or after this index: the log was cut off there.
    pub(crate) fn truncate(&mut self, index: LogIndex) {
        if !self.are_below(index) && !is_planted(Mutant::KeepTruncatedConfiguration) {
            self.is_unrecorded = true;
            self.entries.retain(|entry| entry.index < index);
        }
    }

    /// Forgets those of frames before this index, but for the last: it is in effect at the start of the log.
    pub(crate) fn forget_below(&mut self, index: LogIndex) {
        let gone = self.entries.partition_point(|entry| entry.index < index);
        let last = self.entries.drain(..gone).next_back();
        if last.is_some() {
            self.is_unrecorded = true;
            self.base = last.filter(|_| !is_planted(Mutant::LoseTrimmedConfiguration));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(indexes: &[u64]) -> Configurations {
        let mut configurations = Configurations::default();
        for index in indexes {
            configurations.note(LogIndex(*index), Bytes::new());
        }
        configurations
    }

    fn indexes(configurations: &Configurations) -> Vec<u64> {
        configurations.iter().map(|known| known.index.0).collect()
    }

    #[test]
    fn a_log_whose_start_moves_keeps_the_configuration_that_is_in_effect_there() {
        for (start, left) in [(0, &[3, 7, 9][..]), (3, &[3, 7, 9]), (4, &[3, 7, 9]), (8, &[7, 9]), (99, &[9])]
        {
            let mut configurations = of(&[3, 7, 9]);
            configurations.forget_below(LogIndex(start));
            assert_eq!(indexes(&configurations), left, "start {start}");
        }
    }

    #[test]
    fn a_log_that_is_cut_off_forgets_the_configurations_that_are_gone_and_never_the_one_before_its_start() {
        let mut configurations = of(&[3, 7, 9]);
        configurations.forget_below(LogIndex(5));
        for (end, left) in [(10, &[3, 7, 9][..]), (9, &[3, 7]), (7, &[3]), (5, &[3])] {
            configurations.truncate(LogIndex(end));
            assert_eq!(indexes(&configurations), left, "end {end}");
        }
        configurations.note(LogIndex(5), Bytes::new());
        assert_eq!(indexes(&configurations), [3, 5]);
    }

    #[test]
    fn a_configuration_that_was_given_with_the_start_of_a_log_is_not_noted_again_with_its_frame() {
        let base = Configuration { index: LogIndex(20), payload: Bytes::new() };
        let mut configurations = Configurations::new(Some(base), Vec::new());
        configurations.note(LogIndex(15), Bytes::new());
        configurations.note(LogIndex(20), Bytes::new());
        configurations.note(LogIndex(21), Bytes::new());
        assert_eq!(indexes(&configurations), [20, 21]);
    }

    #[test]
    fn the_oldest_of_too_many_configurations_are_forgotten() {
        let all: Vec<u64> = (0..CONFIGURATIONS_PER_PARTITION_MAX as u64 + 3).collect();
        let configurations = of(&all);
        assert_eq!(indexes(&configurations), all[2..]);
    }
}
