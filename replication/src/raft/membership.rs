//! Changes of the replicas (paper, section 6; thesis, chapter 4).
//!
//! 1. A new replica is added as a learner, and gets the log. It counts for nothing, so it may take its time.
//! 2. When it has everything that is committed, it can be made a voter. The leader appends the joint configuration, which is in effect as
//!    soon as it is in the log: from then on, elections and commits need both majorities.
//! 3. When the joint configuration is committed, the leader appends the new one, in the same way.
//! 4. When that is committed, a leader that is not a voter any more stops leading and asks another to take over.
//!
//! One change at a time: the next one begins when the last configuration is committed, and an entry of the leader's own term is.
//! A follower whose entry with a configuration is cut off goes back to the one before it.

use super::config::Config;
use super::replica::{Replica, Role};
use super::types::{Action, ConfigEntry, ProposeError, ReplicaId};

impl Replica {
    /// Changes the replicas to those of `target`, by the leader, also with fewer replicas in reach than `min.insync.replicas`: the change may
    /// replace those that are not. Completed when [`config`](Self::config) is `target` and committed.
    pub fn propose_config(&mut self, target: &Config) -> Result<(), ProposeError> {
        self.check_propose()?;
        if target.is_joint() {
            return Err(ProposeError::InvalidConfig);
        }
        if !self.is_config_committed() || self.config().is_joint() {
            return Err(ProposeError::ChangeInProgress);
        }
        for id in target.voters().filter(|id| !self.config().is_voter(*id)) {
            if !self.has_caught_up(id) {
                return Err(ProposeError::NotCaughtUp(id));
            }
        }
        // A leader that has resumed may have no vote on record. Others are about to count on what it remembers.
        self.hard.vote = Some(self.id);
        let config = self.config().towards(target);
        self.append_config(config);
        Ok(())
    }

    /// Returns whether a replica has everything that is committed, as far as this replica knows, which leads.
    pub fn has_caught_up(&self, id: ReplicaId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.peer(id).is_some_and(|peer| peer.match_end >= self.commit_end)
    }

    /// Returns whether the configuration in effect is committed.
    pub fn is_config_committed(&self) -> bool {
        // The first configuration is in no entry. There is no other one then.
        self.configs.last().is_none_or(|entry| entry.index < self.commit_end) || self.configs.len() == 1
    }

    fn append_config(&mut self, config: Config) {
        let index = self.log.end();
        let epoch = self.hard.term;
        self.log.extend(epoch, &[], index.next());
        let entry = ConfigEntry { index, config };
        self.configs.push(entry.clone());
        self.push(Action::AppendConfig { entry: entry.clone(), epoch });
        if let Role::Leader(leader) = &mut self.role {
            leader.handle_config(&entry.config, self.id, index);
        }
    }

    /// Takes the next step of a change, if the last one is committed.
    pub(super) fn advance_config(&mut self) {
        if !matches!(self.role, Role::Leader(_)) || !self.is_config_committed() {
            return;
        }
        if self.config().is_joint() {
            // The joint configuration may be of an earlier term, whose leader did not finish the change.
            if self.is_serving() {
                let config = self.config().after_joint();
                self.append_config(config);
            }
        } else if !self.config().is_voter(self.id) {
            self.step_down(self.successor());
        }
    }
}
