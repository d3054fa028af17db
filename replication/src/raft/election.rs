//! Elections.
//!
//! 1. The owner calls [`handle_election_timeout`](Replica::handle_election_timeout) when the leader's lease has ended and the replica's share of
//!    random delay has passed. The replica asks all voters whether it would get their vote in the next term (*pre-vote*; thesis, 9.6).
//!    Nobody's term changes, so a replica that was cut off does not depose a leader when it comes back.
//! 2. With a majority for it, the replica enters the next term, votes for itself, and asks for votes (paper, 5.2).
//! 3. A voter votes once a term, for a candidate whose log is up to date with its own (paper, 5.4.1). It ignores candidates while its leader's
//!    lease lasts (thesis, 4.2.3), unless the leader itself has asked the candidate to take over (thesis, 3.10).
//!    A leader that asks for votes itself does not lead any more.
//! 4. With a majority of votes the candidate leads. It appends an epoch start, and serves once that is committed (paper, section 8).
//!
//! A voter votes whatever its own configuration says about the candidate and itself, because it may not have the latest one (thesis,
//! 4.2.2). Candidates count the voters of their own configuration.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::progress::{Leader, Progress};
use super::replica::{Replica, Role};
use super::types::{Action, LogEnd, Message, ReplicaId};
use super::violation::TERM_MAX;
use crate::mutants::{Mutant, is_planted};

/// Returns whether a session with `peer` reaches a replica.
fn is_reached(replica: ReplicaId, peer: ReplicaId) -> bool {
    replica == peer || (is_planted(Mutant::WipedReplicaReached) && replica.node == peer.node)
}

impl Replica {
    /// Handles that there has been no leader for an election timeout: the replica tries to become one.
    pub fn handle_election_timeout(&mut self) {
        if matches!(self.role, Role::Leader(_)) {
            return;
        }
        self.leader_live = false;
        if !self.can_lead() {
            return;
        }
        self.become_follower(self.hard.term, None);
        self.role = Role::PreCandidate(vec![self.id]);
        if self.has_quorum_of_votes() {
            self.campaign(false);
            return;
        }
        let term = LeaderEpoch(self.hard.term.0 + 1);
        self.send_voters(&Message::PreVote { term, last: self.log.last() });
    }

    /// Handles that another replica can be reached again, over a new session. A leader sends to it again.
    ///
    /// A session reaches one incarnation of a node's disk. The replicas of earlier ones are gone, and are not in reach again with it.
    pub fn handle_peer_alive(&mut self, peer: ReplicaId) {
        let next = self.log.end();
        let Role::Leader(leader) = &mut self.role else { return };
        for peer in leader.peers.iter_mut().filter(|other| is_reached(other.id, peer) && !other.live) {
            peer.live = true;
            peer.probe(next);
        }
    }

    /// Handles that the channel to another replica has been silent for too long, or was replaced by another session: messages that were under
    /// way are lost, and the leases that it carried have ended. The next message from the leader begins a new one.
    pub fn handle_peer_lost(&mut self, peer: ReplicaId) {
        if self.leader == Some(peer) && peer != self.id {
            self.leader_live = false;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peer_mut(peer) {
            peer.live = false;
        }
        leader.transfer = leader.transfer.filter(|(to, _)| *to != peer);
        if !self.reaches_quorum() {
            // Others may have elected another leader. Clients look for it.
            self.step_down(None);
        }
    }

    /// Handles that messages that were under way to another replica are lost, although it can be reached: they went to a shard of its node that
    /// does not have the partition. A leader finds out again where the logs match, and a candidate asks again.
    pub fn handle_peer_moved(&mut self, peer: ReplicaId) {
        let next = self.log.end();
        let (term, last) = (self.hard.term, self.log.last());
        let request = match &mut self.role {
            Role::Leader(leader) => {
                if let Some(peer) = leader.peer_mut(peer) {
                    peer.probe(next);
                }
                return;
            }
            Role::Follower => return,
            Role::PreCandidate(_) => Message::PreVote { term: LeaderEpoch(term.0 + 1), last },
            Role::Candidate(_) => Message::Vote { term, last, transfer: false },
        };
        if peer != self.id && self.config().is_voter(peer) {
            self.send(peer, request);
        }
    }

    /// Returns whether this replica votes, and neither leads nor follows a leader whose lease lasts: an election timeout may help.
    pub fn lacks_leader(&self) -> bool {
        !self.leader_live && self.votes()
    }

    /// Returns whether the leader reaches a majority.
    fn reaches_quorum(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        self.config().is_quorum(|id| id == self.id || leader.peer(id).is_some_and(|peer| peer.live))
    }

    fn can_lead(&self) -> bool {
        let sound = !self.is_damaged() || (self.hole.is_some() && is_planted(Mutant::DamagedReplicaLeads));
        sound && !self.cutting && self.votes() && self.hard.term < TERM_MAX
    }

    /// A voter that leaves may be the only one with the entry that says so (thesis, 4.2.2): until that is committed, it may lead. It does not
    /// count itself.
    fn votes(&self) -> bool {
        self.configs.iter().any(|entry| entry.config.is_voter(self.id))
    }

    /// Enters the next term as a candidate. `transfer`: the leader asked for it.
    pub(super) fn campaign(&mut self, transfer: bool) {
        let term = LeaderEpoch(self.hard.term.0 + 1);
        self.become_follower(term, None);
        self.hard.vote = Some(self.id);
        // The replica's own vote counts when it is durable.
        self.role = Role::Candidate(Vec::new());
        self.send_voters(&Message::Vote { term, last: self.log.last(), transfer });
        if self.is_persisted() {
            self.count_own_vote();
        }
    }

    pub(super) fn count_own_vote(&mut self) {
        let voted = self.hard.vote == Some(self.id);
        if let Role::Candidate(votes) = &mut self.role {
            if voted && !votes.contains(&self.id) {
                votes.push(self.id);
            }
            if self.has_quorum_of_votes() {
                self.become_leader();
            }
        }
    }

    fn has_quorum_of_votes(&self) -> bool {
        let (Role::PreCandidate(votes) | Role::Candidate(votes)) = &self.role else { return false };
        self.config().is_quorum(|id| votes.contains(&id))
    }

    fn become_leader(&mut self) {
        assert!(matches!(self.role, Role::Candidate(_)), "only candidates are elected");
        assert!(self.hard.vote == Some(self.id), "a leader has its own vote");
        let term = self.hard.term;
        let term_start = self.log.end();
        self.log.extend(term, &[], term_start.next());
        self.verified_end = LogIndex(0);
        let others = self.config().members().iter().filter(|m| m.id != self.id);
        let peers = others.map(|m| Progress::new(m.id, term_start)).collect();
        self.lead(Leader { term_start, resumed: false, peers, transfer: None });
        self.push(Action::AppendEpochStart { index: term_start, epoch: term });
    }

    pub(super) fn lead(&mut self, leader: Leader) {
        self.role = Role::Leader(Box::new(leader));
        self.leader = Some(self.id);
        self.leader_live = true;
        self.note_role_changed();
    }

    /// Returns whether this replica may vote for a candidate whose log ends there.
    fn would_vote(&self, last: LogEnd) -> bool {
        let up_to_date = last.is_up_to_date_with(self.log.last()) || is_planted(Mutant::VoteForOutdatedLog);
        // What it has lost may be what a candidate lacks.
        up_to_date && (self.hard.lost_in.is_none() || is_planted(Mutant::DamagedReplicaVotes))
    }

    pub(super) fn handle_pre_vote(&mut self, from: ReplicaId, asked: LeaderEpoch, last: LogEnd) {
        if self.leader == Some(from) {
            // A candidate of a later term has deposed it. Its channel may last, and the lease with it.
            self.leader_live = false;
        }
        let granted = asked > self.hard.term && !self.leader_live && self.would_vote(last);
        self.send(from, Message::PreVoted { term: self.hard.term, asked, granted });
    }

    pub(super) fn handle_pre_voted(&mut self, from: ReplicaId, asked: LeaderEpoch, granted: bool) {
        if !granted || asked.0 != self.hard.term.0 + 1 {
            return;
        }
        let member = self.config().part(from).is_some();
        let Role::PreCandidate(votes) = &mut self.role else { return };
        // Others do not count, and could be any number.
        if member && !votes.contains(&from) {
            votes.push(from);
        }
        if self.has_quorum_of_votes() {
            self.campaign(false);
        }
    }

    /// Handles a request for a vote in the current term or an earlier one.
    pub(super) fn handle_vote(&mut self, from: ReplicaId, term: LeaderEpoch, last: LogEnd) {
        let free = self.hard.vote.is_none_or(|vote| vote == from) || is_planted(Mutant::VoteTwice);
        let granted = term == self.hard.term && free && self.would_vote(last);
        if granted {
            self.hard.vote = Some(from);
        }
        self.send(from, Message::Voted { term: self.hard.term, granted });
    }

    pub(super) fn handle_voted(&mut self, from: ReplicaId, granted: bool) {
        let member = self.config().part(from).is_some();
        let Role::Candidate(votes) = &mut self.role else { return };
        if granted && member && !votes.contains(&from) {
            votes.push(from);
        }
        if self.has_quorum_of_votes() {
            self.become_leader();
        }
    }

    /// Handles that the leader wants this replica to take over.
    pub(super) fn handle_timeout_now(&mut self) {
        if matches!(self.role, Role::Follower) && self.can_lead() {
            self.campaign(true);
        }
    }
}
