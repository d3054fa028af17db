//! A start without an election.
//!
//! A replica that is the only member of its partition, and led it when it stopped, may lead on in the same term: no election, no new
//! epoch, and nothing to write. A node with ten thousand partitions of one replica starts without ten thousand writes.
//!
//! An election makes the term a new one because entries of the old term may be elsewhere, with other contents at the same index. With a
//! sole member nothing is elsewhere, if
//!
//! 1. *nobody else has led the term.* A configuration that is in no entry names the replica that has been alone from the start. Any other
//!    one came with an entry, perhaps from another leader, in that entry's term. In a later term, each election needs the vote of the only
//!    member: either under this configuration, or under the joint one before it, which a majority of the earlier voters had before this
//!    one was appended. The replica gave that vote to itself.
//! 2. *nobody has entries of the term that this replica has lost.* The leader was alone since the entry with its configuration, and sent
//!    nothing to anyone. When it adds a replica, it sends nothing before the entry that says so is on its own disk
//!    ([`may_resume_without_others`](Replica::may_resume_without_others)); with that entry in its log, it does not resume.
//! 3. *nothing of its own was lost but what was never acknowledged.* The owner does not resume a log of which it knows that frames are
//!    gone: parts of them may be on the disk, with the same index and term as those that would be appended in their places.
//!
//! What the only member has on its disk is committed, of whatever term it is (`commit_alone`): nobody can have anything else in its place. So is what a
//! start finds and has to write again, once that is done.

use super::progress::Leader;
use super::replica::{Replica, Role};

impl Replica {
    /// Leads again in the term that the replica led before it stopped, if it is the only member and nothing can have come in between.
    /// Called once, after [`new`](Self::new). Returns false, and changes nothing, if there has to be an election.
    ///
    /// The owner must not call it if it knows that frames of the log are gone.
    pub fn resume(&mut self) -> bool {
        if !self.can_resume() {
            return false;
        }
        let end = self.durable_end;
        self.commit(end);
        self.acknowledged_end = end;
        self.lead(Leader { term_start: end, resumed: true, peers: Vec::new(), transfer: None });
        true
    }

    /// Commits what is durable, without other members.
    pub(super) fn commit_alone(&mut self) {
        let Some(last) = self.configs.last() else { return };
        let end = self.own_end();
        let is_in_effect = last.index.0 == 0 || end > last.index;
        let leads_itself = self.leader.is_none_or(|leader| leader == self.id);
        if last.config.is_only(self.id) && is_in_effect && leads_itself && end > self.commit_end {
            self.commit(end);
        }
    }

    fn can_resume(&self) -> bool {
        let is_idle = matches!(self.role, Role::Follower) && self.leader.is_none() && !self.cutting;
        let term = self.hard.term;
        let led = self.log.last().epoch == term && self.is_persisted();
        let Some(last) = self.configs.last() else { return false };
        let voted = self.hard.vote == Some(self.id);
        // The first configuration is in no entry. See the module's doc.
        let alone_since_start = last.index.0 == 0 && (voted || self.hard.vote.is_none());
        let alone_since_earlier_term =
            voted && self.log.highest_epoch_before(last.index.next()).is_some_and(|epoch| epoch < term);
        is_idle
            && led
            && !self.is_damaged()
            && last.config.is_only(self.id)
            && (alone_since_start || alone_since_earlier_term)
    }

    /// Returns whether this replica could start again without those that its last configuration adds: it was alone before, and the entry
    /// with that configuration is not on its disk. It sends them nothing until then.
    pub(super) fn may_resume_without_others(&self) -> bool {
        self.configs.len() > 1 && self.configs[0].config.is_only(self.id)
    }
}
