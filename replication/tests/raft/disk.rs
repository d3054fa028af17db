//! What a simulated node has on its disk and in memory, with the entries that the core never sees.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_replication::raft::{Config, ConfigEntry, HardState, LogEnd, ReplicaId, Restored, Run};

/// What an entry holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Value {
    EpochStart,
    Data(u32),
    Config(Config),
    /// The entry cannot be read.
    Lost,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) value: Value,
}

/// A log: entries from `start` on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    pub(crate) start: LogEnd,
    pub(crate) config_at_start: ConfigEntry,
    pub(crate) entries: Vec<Entry>,
}

impl Log {
    pub(crate) fn new(config: &Config) -> Self {
        let config_at_start = ConfigEntry { index: LogIndex(0), config: config.clone() };
        Self { start: LogEnd::EMPTY, config_at_start, entries: Vec::new() }
    }

    pub(crate) fn end(&self) -> LogIndex {
        LogIndex(self.start.end.0 + self.entries.len() as u64)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.start.end.0)?).expect("small"))
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(index.checked_sub(self.start.end.0)?).expect("small"))
    }

    pub(crate) fn slice(&self, from: LogIndex, end: LogIndex) -> Vec<Entry> {
        (from.0..end.0).filter_map(|index| self.get(index).cloned()).collect()
    }

    /// Returns whether the log has the position with this epoch before it.
    pub(crate) fn contains(&self, position: LogEnd) -> bool {
        let before = position.end.0.checked_sub(1).and_then(|index| self.get(index));
        position == self.start || before.is_some_and(|entry| entry.epoch == position.epoch)
    }

    /// Returns the range from the first entry that cannot be read to the last one.
    pub(crate) fn unreadable(&self) -> Option<(LogIndex, LogIndex)> {
        let lost = |entry: &Entry| entry.value == Value::Lost;
        let first = self.entries.iter().position(lost)? as u64;
        let last = self.entries.iter().rposition(lost)? as u64;
        Some((LogIndex(self.start.end.0 + first), LogIndex(self.start.end.0 + last + 1)))
    }

    pub(crate) fn truncate(&mut self, end: LogIndex) {
        self.entries.truncate(end.0.saturating_sub(self.start.end.0) as usize);
    }

    pub(crate) fn configs(&self) -> Vec<ConfigEntry> {
        let in_log = (self.start.end.0..).zip(&self.entries).filter_map(|(index, entry)| {
            let Value::Config(config) = &entry.value else { return None };
            Some(ConfigEntry { index: LogIndex(index), config: config.clone() })
        });
        std::iter::once(self.config_at_start.clone()).chain(in_log).collect()
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (index, entry) in (self.start.end.0..).zip(&self.entries) {
            if runs.last().is_none_or(|run| run.epoch != entry.epoch) {
                runs.push(Run { start: LogIndex(index), epoch: entry.epoch });
            }
        }
        runs
    }

    /// Removes the entries before `start`.
    pub(crate) fn start_at(&mut self, start: LogIndex) {
        let gone = (start.0 - self.start.end.0) as usize;
        if gone == 0 {
            return;
        }
        let configs = self.configs();
        let before = configs.iter().rev().find(|entry| entry.index < start);
        self.config_at_start = before.unwrap_or(&self.config_at_start).clone();
        self.start = LogEnd { end: start, epoch: self.entries[gone - 1].epoch };
        self.entries.drain(..gone);
    }
}

/// What survives a crash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    pub(crate) log: Log,
    pub(crate) commit_hint: LogIndex,
    /// A start finds that the end of the log is lost.
    pub(crate) end_lost: bool,
}

impl Disk {
    pub(crate) fn new(config: &Config) -> Self {
        Self { hard: HardState::NEW, log: Log::new(config), commit_hint: LogIndex(0), end_lost: false }
    }

    pub(crate) fn restore(&self) -> Restored {
        Restored {
            hard: self.hard,
            start: self.log.start,
            runs: self.log.runs(),
            end: self.log.end(),
            durable_end: self.log.end(),
            commit_end: self.commit_hint,
            configs: self.log.configs(),
            end_lost: self.end_lost,
        }
    }
}

/// Returns the replica of a node whose disk was replaced so many times.
pub(crate) fn replica(node: u32, incarnation: u32) -> ReplicaId {
    ReplicaId { node: highwater_protocol::ids::NodeId(node), incarnation }
}
