//! Following: entries that come from a leader, and their acknowledgement.
//!
//! 1. The message names the entry before its first one. If the log has that entry with that epoch, or knows that it is committed, the logs
//!    are the same up to there (*log matching*; paper, 5.3). Otherwise the follower rejects the message with a hint: the last position at
//!    which the logs may match.
//! 2. The log is cut off where it has an entry of another epoch than the message, and only there: a message that is late and has fewer
//!    entries than the log changes nothing. Nothing that is committed is ever cut off.
//! 3. The entries that the log lacks are appended.
//! 4. What is known to be the leader's and is durable is acknowledged; what is known to be the leader's, and committed there, is committed here.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::log::Outline;
use super::replica::{Replica, Role};
use super::types::{Action, Append, AppendOutcome, ConfigEntry, LogEnd, Message, ReplicaId, Run};
use super::violation::ProtocolViolation;
use crate::mutants::{Mutant, is_planted};

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
        let Some(before) = self.matching_epoch(append) else {
            self.reject(from, append);
            return AppendOutcome::Dropped;
        };
        let from_here = append.from.max(self.commit_end);
        let conflict = self.log.first_conflict(Some(before), &append.runs, from_here, append.end);
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
        // Committed entries are not compared, so what follows them may not fit.
        if let Some((run, last)) = self.log.first_decrease(before, &append.runs, append.end) {
            let Run { start: index, epoch } = run;
            return AppendOutcome::Violation(ProtocolViolation::EpochDecreases { index, epoch, last });
        }
        if takes {
            self.log.extend(before, &append.runs, append.end);
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

    /// Returns the epoch of the entry before an append, if the logs are the same up to there.
    fn matching_epoch(&self, append: &Append) -> Option<LeaderEpoch> {
        if append.from > self.log.end() {
            return None;
        }
        let own = self.log.epoch_before(append.from);
        if append.from <= self.commit_end {
            return Some(append.prev_epoch.or(own).unwrap_or(LeaderEpoch(0)));
        }
        own.filter(|own| append.prev_epoch == Some(*own))
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
        let known = if is_planted(Mutant::CommitUnverified) { self.log.end() } else { self.verified_end };
        self.commit(append.commit_end.min(known));
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

    /// Handles that the storage did not take entries that were accepted: its log ends at `end`.
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
        self.ask_for_more();
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
