//! The one way in for messages: who they are for, and what their term means.

use super::replica::{Replica, Role};
use super::types::{AppendOutcome, ConfigEntry, Envelope, Message, ReplicaId};
use crate::mutants::{Mutant, is_planted};

impl Replica {
    /// Handles a message. `configs`: the entries of an append that hold configurations, in order.
    ///
    /// Messages may be lost, doubled, and late by any time; those of channels are not, within a session, which is why nothing is repeated
    /// unless a channel is lost.
    pub fn handle_message(&mut self, envelope: &Envelope, configs: &[ConfigEntry]) -> AppendOutcome {
        let Envelope { from, to, message } = envelope;
        if !self.is_me(*to) || *from == self.id {
            return AppendOutcome::Dropped;
        }
        if let Err(violation) = self.check_message(message) {
            return AppendOutcome::Violation(violation);
        }
        let from = self.sender(*from);
        if !self.admit_term(from, message) {
            return AppendOutcome::Dropped;
        }
        match message {
            Message::Append(append) => return self.handle_append(from, append, configs),
            Message::StartAt { start, config, .. } => self.handle_start_at(from, *start, config),
            Message::Appended { durable_end, .. } => self.handle_appended(from, *durable_end),
            Message::Rejected { hint, .. } => self.handle_rejected(from, *hint),
            Message::PreVote { term, last } => self.handle_pre_vote(from, *term, *last),
            Message::PreVoted { asked, granted, .. } => self.handle_pre_voted(from, *asked, *granted),
            Message::Vote { term, last, .. } => self.handle_vote(from, *term, *last),
            Message::Voted { granted, .. } => self.handle_voted(from, *granted),
            Message::TimeoutNow { .. } => self.handle_timeout_now(),
            Message::SteppedDown { term } => {
                if self.leader == Some(from) {
                    self.become_follower(*term, None);
                }
            }
            // A leader of this term is what the sender needs.
            Message::LostEnd { .. } => {}
            Message::Fetch { from: first, until, .. } => self.handle_fetch(from, *first, *until),
        }
        AppendOutcome::Dropped
    }

    /// Returns whether a message is for this replica, and not for one that was on the node before its disk was wiped.
    fn is_me(&self, to: ReplicaId) -> bool {
        to == self.id || (is_planted(Mutant::WipedReplicaVotes) && to.node == self.id.node)
    }

    /// Returns the sender. A node's new replica is another sender than the one before.
    fn sender(&self, from: ReplicaId) -> ReplicaId {
        let same_node = self.config().members().iter().find(|m| m.id.node == from.node);
        same_node.filter(|_| is_planted(Mutant::WipedReplicaVotes)).map_or(from, |m| m.id)
    }

    /// Enters the term of a message, if it is a later one. Returns whether the message is to be handled.
    ///
    /// | the message's term | message | what happens |
    /// |---|---|---|
    /// | later | pre-vote | handled; the term stays |
    /// | later | request for a vote, no transfer, and the leader's lease lasts | dropped (thesis, 4.2.3) |
    /// | later | end lost, and this replica leads | it asks for votes in the term after that, at once |
    /// | later | any other | the replica follows in the later term (paper, 5.1) |
    /// | current | any | handled |
    /// | earlier | append, or start of the log | rejected, with the current term; `LostEnd` from a replica that has lost its end |
    /// | earlier | request for a vote | denied, with the current term |
    /// | earlier | answer to a pre-vote | handled: the voter's term may be any |
    /// | earlier | any other | dropped |
    fn admit_term(&mut self, from: ReplicaId, message: &Message) -> bool {
        let Some(term) = message.term() else { return true };
        if term == self.hard.term {
            return true;
        }
        if term > self.hard.term {
            if matches!(message, Message::Vote { transfer: false, .. }) && self.leader_live {
                return false;
            }
            let led = matches!(self.role, Role::Leader(_));
            self.become_follower(term, None);
            if matches!(message, Message::LostEnd { .. }) && led {
                self.handle_timeout_now();
            }
            return true;
        }
        match message {
            Message::Append(_) | Message::StartAt { .. } => {
                if is_planted(Mutant::FollowStaleLeader) && matches!(self.role, Role::Follower) {
                    return true;
                }
                let (term, hint) = (self.hard.term, self.log.last());
                let lost = self.hard.lost_in.is_some();
                self.send(
                    from,
                    if lost { Message::LostEnd { term } } else { Message::Rejected { term, hint } },
                );
                false
            }
            // A voter stays in its term when it grants a pre-vote.
            Message::Vote { .. } | Message::PreVoted { .. } => true,
            Message::Appended { .. } => is_planted(Mutant::CountStaleAck),
            _ => false,
        }
    }

    /// Follows the sender of an append or of a start, which leads this term. That this replica does not is checked before.
    pub(super) fn follow(&mut self, from: ReplicaId) {
        assert!(!matches!(self.role, Role::Leader(_)), "a term has one leader");
        if self.leader != Some(from) || !matches!(self.role, Role::Follower) {
            self.become_follower(self.hard.term, Some(from));
        }
        self.leader_live = true;
    }
}
