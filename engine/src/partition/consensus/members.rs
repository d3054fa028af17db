//! Who takes part in the partition, and changes of that and of who leads.

use highwater_protocol::ids::{LogIndex, NodeId};
use highwater_replication::raft::{Config, ProposeError, ReplicaId};

use super::Consensus;

impl Consensus {
    /// Returns the other replicas.
    pub(crate) fn others(&self) -> impl Iterator<Item = ReplicaId> {
        let me = self.replica.id();
        self.replica.config().members().iter().map(|member| member.id).filter(move |id| *id != me)
    }

    /// Returns whether a replica on a node takes part.
    pub(crate) fn has_replica_on(&self, node: NodeId) -> bool {
        self.replica.config().members().iter().any(|member| member.id.node == node)
    }

    /// Returns whether another replica takes part, or leads: this one may not have the configuration that added its leader.
    pub(crate) fn is_peer(&self, peer: ReplicaId) -> bool {
        self.replica.config().part(peer).is_some() || self.replica.leader() == Some(peer)
    }

    /// Returns whether this replica leads, and its disk lacks entries that are committed.
    pub(crate) fn lags(&self) -> bool {
        self.is_leader() && self.durable.index < self.committed.index
    }

    /// Returns the end of the log on this replica's disk.
    pub(crate) fn durable_index(&self) -> LogIndex {
        self.durable.index
    }

    /// Stops leading, if another replica can take over.
    pub(crate) fn resign(&mut self) {
        self.replica.resign();
    }

    /// Hands leadership over to the replica on a node, on the leader. Batches wait meanwhile.
    pub(crate) fn transfer_leadership(&mut self, to: NodeId) -> Result<(), ProposeError> {
        let voter = self.replica.config().voters().find(|id| id.node == to);
        self.replica.transfer_leadership(voter.unwrap_or(ReplicaId { node: to, incarnation: 0 }))
    }

    /// Gives up handing leadership over, if that is under way.
    pub(crate) fn abort_transfer(&mut self) {
        self.replica.abort_transfer();
    }

    /// Returns the replicas, on a leader that may change them: no change of them is under way.
    pub(crate) fn changeable_config(&self) -> Option<&Config> {
        let config = self.replica.config();
        let is_settled = self.replica.is_config_committed() && !config.is_joint();
        (self.is_serving() && is_settled && self.held.is_none()).then_some(config)
    }

    /// Returns the configuration in effect.
    pub(crate) fn config(&self) -> &Config {
        self.replica.config()
    }

    /// Returns whether another replica has everything that is committed, as far as this one knows as a leader.
    pub(crate) fn has_caught_up(&self, id: ReplicaId) -> bool {
        self.replica.has_caught_up(id)
    }

    /// Changes the replicas, on the leader.
    pub(crate) fn propose_config(&mut self, target: &Config) -> Result<(), ProposeError> {
        // An entry after one that the store has not taken would have another index there.
        if self.held.is_some() {
            return Err(ProposeError::NotServing);
        }
        self.replica.propose_config(target)
    }
}
