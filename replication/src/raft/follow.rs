//! Following: entries that come from a leader, and their acknowledgement.
//!
//! 1. The message names the entry before its first one. If the log has that entry with that epoch, or knows that it is committed, the logs
//!    are the same up to there (*log matching*; paper, 5.3). Otherwise the follower rejects the message with a hint: the last position at
//!    which the logs may match.
//! 2. The log is cut off where it has an entry of another epoch than the message, and only there: a message that is late and has fewer
//!    entries than the log changes nothing. Nothing that is committed is ever cut off.
//! 3. The entries that the log lacks are appended.
//! 4. What is known to be the leader's and is durable is acknowledged; so much of it as the leader says is committed is committed here. A commit
//!    end above that is remembered, and changes nothing yet.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::log::Outline;
use super::replica::{Replica, Role};
use super::types::{Action, Append, AppendOutcome, ConfigEntry, LogEnd, Message, ReplicaId, Run};
use super::violation::ProtocolViolation;
use crate::mutants::{Mutant, is_planted};

/// Returns runs with epochs of at least `floor`.
fn raised(runs: &[Run], floor: LeaderEpoch) -> Vec<Run> {
    let mut raised: Vec<Run> = runs.iter().map(|run| Run { epoch: run.epoch.max(floor), ..*run }).collect();
    raised.dedup_by_key(|run| run.epoch);
    raised
}

/// How an append goes on from a log.
struct Match {
    /// Epoch of the entries before the first run.
    before: LeaderEpoch,
    /// Entries with lower indexes are the leader's.
    compared: LogIndex,
}

impl Replica {
    pub(super) fn handle_append(
        &mut self,
        from: ReplicaId,
        append: &Append,
        configs: &[ConfigEntry],
    ) -> AppendOutcome {
        self.follow(from);
        if self.cutting {
            return AppendOutcome::Dropped;
        }
        let Some(Match { before, compared }) = self.match_append(from, append) else {
            return AppendOutcome::Dropped;
        };
        // A leader that has forgotten epochs takes them for lower than they are.
        let floor = self.log.epoch_before(compared.min(self.log.end())).unwrap_or(LeaderEpoch(0));
        let (before, runs) = (before.max(floor), raised(&append.runs, floor));
        let conflict = self.log.first_conflict(Some(before), &runs, compared, append.end);
        let conflict = conflict.or_else(|| {
            (is_planted(Mutant::TruncateWithoutConflict) && append.end < self.log.end()).then_some(append.end)
        });
        if let Some(conflict) = conflict {
            if conflict < self.verified_end {
                return AppendOutcome::Violation(ProtocolViolation::EntryReplaced { index: conflict });
            }
            self.verify(conflict, append);
            self.truncate(conflict);
            return AppendOutcome::Dropped;
        }
        let old_end = self.log.end();
        // Entries go to the disk only in a term that cannot be forgotten.
        let takes = append.end > old_end && self.is_persisted();
        if takes {
            self.log.extend(before, &runs, append.end);
            let known = self.configs.last().map_or(LogIndex(0), |entry| entry.index);
            let new = configs.iter().filter(|entry| entry.index >= old_end && entry.index > known);
            self.configs.extend(new.filter(|entry| entry.index < append.end).cloned());
        }
        self.verify(append.end.min(self.log.end()), append);
        if takes {
            return AppendOutcome::Accepted { from: old_end };
        }
        if append.end > old_end {
            // The answer leaves when the term is durable.
            self.ask_for_more();
        } else {
            self.acknowledge();
        }
        AppendOutcome::Dropped
    }

    /// Finds out whether the logs are the same up to the first entry of an append. If they may not be, rejects it, or cuts the log off.
    fn match_append(&mut self, from: ReplicaId, append: &Append) -> Option<Match> {
        let own = self.log.epoch_before(append.from);
        let (known, prev) = match append.prev_epoch {
            Some(prev) => (append.from <= self.commit_end || own == Some(prev), prev),
            None => return self.match_unknown(append),
        };
        if append.from > self.log.end() || !known {
            self.reject(from, append);
            return None;
        }
        Some(Match { before: prev, compared: append.from.max(self.commit_end) })
    }

    /// The same for an append whose leader has forgotten the epochs of its first entries: it only knows that these are committed.
    ///
    /// | this log | what happens |
    /// |---|---|
    /// | ends before the append | rejected |
    /// | has nothing but what is committed, or the leader's | the entries follow |
    /// | has the first entry whose epoch the message gives, with this epoch | the logs are the same up to there (log matching) |
    /// | has another entry there | it lacks a committed entry, so no majority counts on what it has after its commit end: that is cut off |
    /// | ends where the append begins, without such an entry in the message | the same: the forgotten entries go on after it |
    /// | goes on after that | rejected: the leader looks for a match near the end of this log |
    fn match_unknown(&mut self, append: &Append) -> Option<Match> {
        let (certain, end) = (self.commit_end.max(self.verified_end), self.log.end());
        let before = self.log.last().epoch;
        if append.from > end {
            self.ask_for_more();
            return None;
        }
        if end <= certain {
            return Some(Match { before, compared: append.end });
        }
        let Some(Run { start, epoch }) = append.runs.first().copied() else {
            if append.from == end {
                self.truncate(certain);
            } else {
                self.ask_for_more();
            }
            return None;
        };
        if start < certain || self.log.epoch_before(start.next()) == Some(epoch) {
            return Some(Match { before, compared: start.max(self.commit_end) });
        }
        self.truncate(certain);
        None
    }

    /// Rejects an append: the leader goes on from where the logs match.
    fn reject(&mut self, to: ReplicaId, append: &Append) {
        let prev = LogEnd { end: append.from, epoch: append.prev_epoch.unwrap_or(LeaderEpoch(0)) };
        let hint = if append.from > self.log.end() { self.log.last() } else { self.log.last_match(prev) };
        let hint = if hint.end < self.commit_end { self.commit_point() } else { hint };
        self.send(to, Message::Rejected { term: self.hard.term, hint });
    }

    fn commit_point(&self) -> LogEnd {
        let epoch = self.log.epoch_before(self.commit_end).unwrap_or(LeaderEpoch(0));
        LogEnd { end: self.commit_end, epoch }
    }

    /// Handles that the log is the leader's up to `end`.
    fn verify(&mut self, end: LogIndex, append: &Append) {
        self.verified_end = self.verified_end.max(end);
        self.known_commit = self.known_commit.max(append.commit_end);
        self.follow_commit();
    }

    /// Moves the commit end to that of the leader, as far as the log is the leader's and durable.
    ///
    /// What is not durable may never get to the disk ([`handle_refused`](Self::handle_refused)). It is committed, by others; and this replica does
    /// not have it.
    fn follow_commit(&mut self) {
        let known = if is_planted(Mutant::CommitUnverified) { self.log.end() } else { self.verified_end };
        self.commit(self.known_commit.min(known).min(self.durable_end));
    }

    fn truncate(&mut self, from: LogIndex) {
        assert!(from >= self.commit_end, "nothing that is committed is cut off");
        self.log.truncate(from);
        self.durable_end = self.durable_end.min(from);
        self.verified_end = self.verified_end.min(from);
        self.cut_hole(from);
        if !is_planted(Mutant::KeepTruncatedConfig) {
            let kept = self.configs.partition_point(|entry| entry.index < from).max(1);
            self.configs.truncate(kept);
        }
        self.cutting = true;
        self.push(Action::Truncate { from });
    }

    /// Handles that the log was cut off where [`Action::Truncate`] said.
    pub fn handle_truncated(&mut self) {
        self.cutting = false;
        self.ask_for_more();
    }

    /// Handles that the storage did not take entries that were accepted: its log ends at `end`. They may be committed; none of them was durable
    /// here, so this replica has neither acknowledged nor committed them. The owner calls [`handle_space`](Self::handle_space) when the storage may take
    /// them.
    pub fn handle_refused(&mut self, end: LogIndex) {
        if matches!(self.role, Role::Leader(_)) || end >= self.log.end() {
            return;
        }
        assert!(end >= self.durable_end && end >= self.commit_end, "only what is new is refused");
        self.log.truncate(end);
        self.verified_end = self.verified_end.min(end);
        self.cut_hole(end);
        let kept = self.configs.partition_point(|entry| entry.index < end).max(1);
        self.configs.truncate(kept);
    }

    /// Handles that the storage may take entries again after it has [refused](Self::handle_refused) some: asks the leader for them. If the
    /// replica asked at once, it would get them again and refuse them again, as fast as the channel carries them.
    pub fn handle_space(&mut self) {
        if !self.cutting {
            self.ask_for_more();
        }
    }

    /// Asks the leader to go on from the end of the log.
    fn ask_for_more(&mut self) {
        if let Some(leader) = self.leader.filter(|leader| *leader != self.id) {
            self.send(leader, Message::Rejected { term: self.hard.term, hint: self.log.last() });
        }
    }

    pub(super) fn handle_start_at(&mut self, from: ReplicaId, start: LogEnd, config: &ConfigEntry) {
        self.follow(from);
        if self.cutting {
            return;
        }
        let has_start = self.log.epoch_before(start.end) == Some(start.epoch);
        if start.end <= self.commit_end || has_start || !self.is_persisted() {
            self.ask_for_more();
            return;
        }
        self.log = Outline::new(start);
        self.durable_end = start.end;
        self.verified_end = start.end;
        self.hole = None;
        self.configs = vec![config.clone()];
        self.cutting = true;
        self.push(Action::StartAt { start, config: config.clone() });
    }

    /// Handles that the log was restarted where [`Action::StartAt`] said.
    pub fn handle_started(&mut self) {
        self.cutting = false;
        self.commit(self.log.start());
        self.end_loss();
        self.ask_for_more();
    }

    /// Handles that the replica's own disk has every entry before `end`.
    ///
    /// While the log is being cut off, reports are about what it was before. They count up to the cut: the entries before it stay.
    pub fn handle_durable(&mut self, end: LogIndex) {
        let end = if self.cutting { end.min(self.log.end()) } else { end };
        if end <= self.durable_end {
            return;
        }
        assert!(end <= self.log.end(), "what is durable was appended");
        self.durable_end = end;
        self.end_loss();
        if matches!(self.role, Role::Leader(_)) {
            self.advance_commit();
        } else {
            self.commit_alone();
            self.follow_commit();
            self.acknowledge();
        }
    }

    /// Tells the leader what is durable and the leader's.
    pub(super) fn acknowledge(&mut self) {
        let Some(leader) = self.leader.filter(|leader| *leader != self.id) else { return };
        let own = self.own_end();
        let end = if is_planted(Mutant::AckUnverified) { own } else { own.min(self.verified_end) };
        self.send(leader, Message::Appended { term: self.hard.term, durable_end: end });
    }
}
