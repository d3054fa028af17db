//! Replicas that have lost a part of their log.
//!
//! *A hole*: entries cannot be read, and it is known which, with those after them. The replica votes, because it knows how long its log was.
//! It does not lead. It acknowledges nothing after the hole, fetches the entries from the leader, and is as before when it has them.
//!
//! *A lost end*: entries at the end are lost, and it is not known how many. The replica may have acknowledged entries that a candidate lacks,
//! so it does not vote. It enters the next term, and remembers durably in which term the loss happened: everything that it acknowledged is of
//! that term or an earlier one. A leader of a later term is elected without its vote, so it has everything that was committed before
//! (paper, 5.4.3, with the majority of the others). When the replica has an entry of a later term, its log is that leader's up to there, and it votes again.
//!
//! While a majority of the voters has lost their ends, nobody leads: that some of them have everything that was acknowledged would be a guess.
//!
//! *Everything lost*, with (term, vote): the replica gets a new id, and joins as a learner. See [`ReplicaId`](super::ReplicaId).

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::replica::{Replica, Role};
use super::types::Message;

impl Replica {
    /// Begins without the end of the log: see the [module](self).
    pub(super) fn begin_new_term_without_end(&mut self) {
        let term = self.hard.term;
        self.hard.lost_in = Some(term);
        self.hard.term = LeaderEpoch(term.0 + 1);
        self.hard.vote = None;
    }

    /// Ends the loss of the log's end, if the log has an entry of a later term.
    pub(super) fn end_loss(&mut self) {
        let last = self.log.epoch_before(self.durable_end);
        if let (Some(lost_in), Some(last)) = (self.hard.lost_in, last)
            && last > lost_in
        {
            self.hard.lost_in = None;
        }
    }

    /// Handles that the entries `from..until` cannot be read. A leader stops leading and asks another to take over.
    ///
    /// The disk may find that before it reports the entries durable, so any entry of the log can be among them. A hole that was dropped here
    /// would be acknowledged with the next report.
    pub fn handle_hole(&mut self, from: LogIndex, until: LogIndex) {
        let (from, until) = (from.max(self.log.start()), until.min(self.log.end()));
        if from >= until {
            return;
        }
        let (first, last) = self.hole.unwrap_or((from, until));
        self.hole = Some((first.min(from), last.max(until)));
        match self.role {
            Role::Leader(_) => self.step_down(self.successor()),
            Role::PreCandidate(_) | Role::Candidate(_) => self.become_follower(self.hard.term, None),
            Role::Follower => {}
        }
        self.fetch_hole();
    }

    /// Forgets the entries from `end` on, which leave the log.
    pub(super) fn cut_hole(&mut self, end: LogIndex) {
        self.hole = self.hole.and_then(|(from, until)| (from < end).then_some((from, until.min(end))));
    }

    /// Returns the entries that are lost.
    pub fn hole(&self) -> Option<(LogIndex, LogIndex)> {
        self.hole
    }

    /// Asks the leader for the entries that are lost. Returns false if there are none, there is no leader, or they may not be the
    /// leader's. The owner asks again from time to time.
    pub fn fetch_hole(&mut self) -> bool {
        let Some((from, until)) = self.hole else { return false };
        let Some(leader) = self.leader.filter(|leader| *leader != self.id) else { return false };
        if until > self.commit_end.max(self.verified_end) {
            return false;
        }
        self.send(leader, Message::Fetch { term: self.hard.term, from, until });
        true
    }

    /// Handles that the entries `from..until` are durable again.
    pub fn handle_repaired(&mut self, from: LogIndex, until: LogIndex) {
        let Some((first, last)) = self.hole else { return };
        let rest = (if from <= first { first.max(until) } else { first }, last);
        self.hole = (rest.0 < rest.1).then_some(rest);
        self.acknowledge();
    }
}
