//! Leading: what is proposed, what is sent, and what is committed.
//!
//! - Entries are sent at the moment they are appended. The leader's own disk is one vote and not a condition (thesis, 10.2.1).
//! - An index is committed when a majority of the voters has it durably, and the entry before it is of the leader's own term (paper,
//!   5.4.2): entries of earlier terms are committed by the first entry of this one.
//! - An entry is acknowledged when it is committed and as many voters have it as `min.insync.replicas` asks for. What needs no such
//!   acknowledgement can be proposed with fewer voters in reach: see [`check_insync`](Replica::check_insync).

use highwater_protocol::ids::LogIndex;

use super::progress::{Leader, Progress, Sending};
use super::replica::{Replica, Role};
use super::types::{Action, Append, Due, Envelope, LogEnd, Message, ProposeError, ReplicaId};
use crate::mutants::{Mutant, is_planted};

impl Replica {
    /// Appends `entries` entries to the leader's log. Returns the index of the first. The owner appends them at that index, in the
    /// leader's term, before it takes further actions; or it has just done so, after [`check_propose`](Self::check_propose).
    pub fn propose(&mut self, entries: u64) -> Result<LogIndex, ProposeError> {
        self.check_propose()?;
        let first = self.log.end();
        self.log.extend(self.hard.term, &[], LogIndex(first.0 + entries));
        Ok(first)
    }

    /// Returns why [`propose`](Self::propose) would be refused: why the leader cannot append anything now.
    pub fn check_propose(&self) -> Result<(), ProposeError> {
        let Role::Leader(leader) = &self.role else { return Err(ProposeError::NotLeader) };
        // While a vote is being recorded, no action is carried out, and what was appended now would come before them in the log.
        if !self.is_serving() || !self.is_persisted() {
            return Err(ProposeError::NotServing);
        }
        if leader.transfer.is_some() { Err(ProposeError::Transferring) } else { Ok(()) }
    }

    /// Returns why what would be appended could not be acknowledged: fewer voters are within reach than that needs.
    pub fn check_insync(&self) -> Result<(), ProposeError> {
        let Role::Leader(leader) = &self.role else { return Err(ProposeError::NotLeader) };
        let reachable = |id: &ReplicaId| *id == self.id || leader.peer(*id).is_some_and(|peer| peer.live);
        let live = self.config().voters().filter(reachable).count();
        let needed = self.min_insync;
        if live < needed { Err(ProposeError::NotEnoughReplicas { live, needed }) } else { Ok(()) }
    }

    /// Returns the end of what another replica is known to have of this leader's log. `None`: this replica does not lead, or does not reach it.
    /// Of itself a leader has everything.
    pub fn reached_end(&self, id: ReplicaId) -> Option<LogIndex> {
        let Role::Leader(leader) = &self.role else { return None };
        if id == self.id {
            return Some(self.log.end());
        }
        leader.peer(id).filter(|peer| peer.live).map(|peer| peer.match_end)
    }

    /// Hands leadership over to another voter (thesis, 3.10). Nothing can be proposed until that has happened, or is
    /// [given up](Self::abort_transfer).
    pub fn transfer_leadership(&mut self, to: ReplicaId) -> Result<(), ProposeError> {
        let is_voter = self.config().is_voter(to);
        let Role::Leader(leader) = &mut self.role else { return Err(ProposeError::NotLeader) };
        if !is_voter || !leader.peer(to).is_some_and(|peer| peer.live) {
            return Err(ProposeError::NotATarget(to));
        }
        leader.transfer = Some((to, false));
        self.continue_transfer();
        Ok(())
    }

    /// Gives up handing over leadership. The owner calls this after an election timeout.
    pub fn abort_transfer(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.transfer = None;
        }
    }

    /// Asks the next leader to become a candidate, once it has the whole log.
    fn continue_transfer(&mut self) {
        let (term, end) = (self.hard.term, self.log.end());
        let Role::Leader(leader) = &mut self.role else { return };
        let Some((to, false)) = leader.transfer else { return };
        if leader.peer(to).is_some_and(|peer| peer.match_end == end) {
            leader.transfer = Some((to, true));
            self.send(to, Message::TimeoutNow { term });
        }
    }

    /// Stops leading, if another voter can be reached: the one that has most of the log is asked to take over at once.
    pub fn resign(&mut self) {
        if let Some(successor) = self.successor() {
            self.step_down(Some(successor));
        }
    }

    /// Stops leading. `successor` is asked to become a candidate at once.
    pub(super) fn step_down(&mut self, successor: Option<ReplicaId>) {
        let term = self.hard.term;
        if !matches!(self.role, Role::Leader(_)) {
            return;
        }
        self.become_follower(term, None);
        if let Some(to) = successor {
            self.send(to, Message::TimeoutNow { term });
        }
    }

    /// Returns the reachable voter that has most of the log.
    pub(super) fn successor(&self) -> Option<ReplicaId> {
        let Role::Leader(leader) = &self.role else { return None };
        leader.successor(self.config())
    }

    /// Returns the next replica for which there are entries, a probe or a newer commit end, in the order of ids. The owner reads
    /// as many entries from the index on as it likes, up to the log's end, and calls [`take_append`](Self::take_append).
    pub fn poll_due(&self) -> Option<(ReplicaId, LogIndex)> {
        self.due().next().map(|due| (due.to, due.next))
    }

    /// Returns all replicas for which [`poll_due`](Self::poll_due) has something, for an owner that cannot send to each of them now.
    pub fn due(&self) -> impl Iterator<Item = Due> {
        let leader = if let Role::Leader(leader) = &self.role { Some(leader) } else { None };
        // Until others are durably part of the log, a start may resume without it. See `resume.rs`.
        let peers =
            leader.filter(|_| !self.may_resume_without_others()).map_or(&[][..], |leader| &leader.peers);
        let is_due = |peer: &&Progress| peer.is_due(self.log.end(), self.commit_end);
        let due =
            |peer: &Progress| Due { to: peer.id, next: peer.next, has_news: peer.has_news(self.commit_end) };
        peers.iter().filter(is_due).map(due)
    }

    /// Returns the message for a replica with the entries from its next index up to `end`, which counts as sent. A replica whose next
    /// entry is no longer there is told to start its log where this one starts.
    pub fn take_append(&mut self, to: ReplicaId, end: LogIndex) -> Option<Envelope> {
        let (term, log, commit_end) = (self.hard.term, &self.log, self.commit_end);
        let Role::Leader(leader) = &mut self.role else { return None };
        let peer = leader.peer_mut(to)?;
        if peer.next < log.start() {
            peer.sending = Sending::Probing { sent: true };
            let start = log.first().unwrap_or(LogEnd { end: log.start(), epoch: term });
            let config = self.configs.first().expect("a replica has a configuration").clone();
            let message = Message::StartAt { term, start, config };
            return Some(Envelope { from: self.id, to, message });
        }
        let from = peer.next;
        let end = end.clamp(from, log.end());
        let prev_epoch = log.epoch_before(from);
        let runs = log.runs_between(prev_epoch, from, end);
        match &mut peer.sending {
            Sending::Probing { sent } => *sent = true,
            Sending::Streaming => peer.next = end,
        }
        peer.commit_sent = commit_end;
        let append = Append { term, from, prev_epoch, end, runs, commit_end };
        Some(Envelope { from: self.id, to, message: Message::Append(append) })
    }

    pub(super) fn handle_appended(&mut self, from: ReplicaId, durable_end: LogIndex) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peer_mut(from) else { return };
        peer.handle_appended(durable_end.min(self.log.end()));
        self.advance_commit();
        self.continue_transfer();
    }

    pub(super) fn handle_rejected(&mut self, from: ReplicaId, hint: LogEnd) {
        let next = self.log.last_match(hint).end;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peer_mut(from) else { return };
        peer.live = true;
        peer.probe(next);
    }

    /// Sends entries that another replica cannot read, if they are committed.
    pub(super) fn handle_fetch(&mut self, to: ReplicaId, from: LogIndex, until: LogIndex) {
        if matches!(self.role, Role::Leader(_)) && from < until && until <= self.commit_end {
            self.push(Action::SendCommitted { to, from, until });
        }
    }

    /// Moves the commit end to what a majority has, and the acknowledged end.
    pub(super) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let reached = |id: ReplicaId| self.durable_end_of(leader, id);
        let end = self.config().quorum_end(reached).min(self.log.end());
        let own_term = end > leader.term_start || is_planted(Mutant::CommitEarlierTerm);
        if own_term && end > self.commit_end {
            self.commit(end);
        }
        self.commit_alone();
        self.advance_acknowledged();
        self.advance_config();
    }

    fn advance_acknowledged(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let copies = if is_planted(Mutant::IgnoreMinInsync) { 1 } else { self.min_insync.max(1) };
        let copied = self.config().copies_end(copies, |id| self.durable_end_of(leader, id));
        let end = copied.min(self.commit_end);
        if end > self.acknowledged_end && self.is_serving() {
            self.acknowledged_end = end;
            self.note_committed();
        }
    }

    fn durable_end_of(&self, leader: &Leader, id: ReplicaId) -> LogIndex {
        if id == self.id {
            self.own_end()
        } else {
            leader.peer(id).map_or(LogIndex(0), |peer| peer.match_end)
        }
    }
}
