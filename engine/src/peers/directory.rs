//! The other nodes, and which of their shards have which partitions.
//!
//! Where a partition is on another node is a guess until a message about it has come from there, or a shard has answered that another one has it.
//! What was learned takes memory only where the guess is wrong.

use std::collections::{BTreeMap, HashMap};

use highwater_protocol::ids::{NodeId, ShardId, TopicPartition};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_replication::peer::PeerShard;
use highwater_replication::raft::ReplicaId;

use crate::address::HostPort;

use super::CONTROLLER_SHARD;

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerNode {
    /// Its number.
    pub id: NodeId,
    /// Where it listens for other nodes: an IP address, or a name that is resolved at each attempt to connect.
    pub address: HostPort,
    /// The number of its shards.
    pub shards: u16,
}

/// See the [module](self).
pub(super) struct Directory {
    nodes: BTreeMap<NodeId, PeerNode>,
    /// Which disk each node had when it was last reached.
    incarnations: BTreeMap<NodeId, u32>,
    /// Owners that are not the guessed ones.
    learned: HashMap<(NodeId, TopicPartition), ShardId, ahash::RandomState>,
}

impl Default for Directory {
    fn default() -> Self {
        // Fixed keys: the same run has the same order everywhere.
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        Self { nodes: BTreeMap::new(), incarnations: BTreeMap::new(), learned: HashMap::with_hasher(state) }
    }
}

impl Directory {
    pub(super) fn get(&self, node: NodeId) -> Option<&PeerNode> {
        self.nodes.get(&node)
    }

    /// Returns whether there is such a shard.
    pub(super) fn knows(&self, peer: PeerShard) -> bool {
        self.get(peer.node).is_some_and(|node| peer.shard.0 < node.shards)
    }

    /// Returns all shards of all nodes.
    pub(super) fn shards(&self) -> impl Iterator<Item = PeerShard> {
        self.nodes
            .values()
            .flat_map(|node| (0..node.shards).map(|shard| PeerShard { node: node.id, shard: ShardId(shard) }))
    }

    /// Replaces all nodes. What is known about the partitions of those whose number of shards has changed is forgotten.
    pub(super) fn set(&mut self, nodes: impl IntoIterator<Item = PeerNode>) {
        let nodes: BTreeMap<NodeId, PeerNode> = nodes.into_iter().map(|node| (node.id, node)).collect();
        let before = std::mem::replace(&mut self.nodes, nodes);
        let shards = |nodes: &BTreeMap<NodeId, PeerNode>, id: &NodeId| nodes.get(id).map(|node| node.shards);
        self.learned.retain(|(id, _), _| shards(&before, id) == shards(&self.nodes, id));
        self.incarnations.retain(|id, _| self.nodes.contains_key(id));
    }

    /// Notes how many shards a node has.
    pub(super) fn set_shards(&mut self, id: NodeId, shards: u16) {
        let changed = self.nodes.get_mut(&id).filter(|node| node.shards != shards && shards > 0);
        if let Some(node) = changed {
            node.shards = shards;
            self.learned.retain(|(other, _), _| *other != id);
        }
    }

    /// Notes that a node was reached. Nothing is known of where its partitions are on another disk than before.
    pub(super) fn note_incarnation(&mut self, of: ReplicaId) {
        let before = self.incarnations.insert(of.node, of.incarnation);
        if before.is_some_and(|before| before != of.incarnation) {
            self.learned.retain(|(other, _), _| *other != of.node);
        }
    }

    /// Returns whether a replica is on the disk that its node had when it was last reached.
    pub(super) fn is_current(&self, replica: ReplicaId) -> bool {
        self.incarnations.get(&replica.node).is_none_or(|current| *current == replica.incarnation)
    }

    /// Returns the shard of a node that has a partition, as far as is known.
    pub(super) fn owner(&self, node: NodeId, tp: TopicPartition) -> Option<PeerShard> {
        let shards = self.get(node)?.shards;
        let shard = self.learned.get(&(node, tp)).copied().unwrap_or_else(|| guess(tp, shards));
        Some(PeerShard { node, shard })
    }

    /// Notes which shard has a partition. Returns whether another one was thought to have it.
    pub(super) fn learn(&mut self, owner: PeerShard, tp: TopicPartition) -> bool {
        let Some(node) = self.get(owner.node).filter(|node| owner.shard.0 < node.shards) else {
            return false;
        };
        if self.owner(owner.node, tp) == Some(owner) {
            return false;
        }
        if guess(tp, node.shards) == owner.shard {
            self.learned.remove(&(owner.node, tp));
        } else {
            self.learned.insert((owner.node, tp), owner.shard);
        }
        true
    }

    /// Returns how many owners are not the guessed ones.
    #[cfg(test)]
    pub(super) fn learned(&self) -> usize {
        self.learned.len()
    }

    /// Forgets a partition.
    pub(super) fn forget(&mut self, node: NodeId, tp: TopicPartition) {
        self.learned.remove(&(node, tp));
    }
}

/// Returns the shard that is tried first: neighbours go to different shards.
fn guess(tp: TopicPartition, shards: u16) -> ShardId {
    if tp == METADATA_PARTITION {
        return CONTROLLER_SHARD;
    }
    let topic = crc32c::crc32c(&tp.topic.0);
    ShardId((topic.wrapping_add(tp.partition.0) % u32::from(shards.max(1))) as u16)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use highwater_protocol::ids::{PartitionIndex, TopicId};

    use super::*;

    fn node(id: u32, shards: u16) -> PeerNode {
        PeerNode { id: NodeId(id), address: SocketAddr::from(([10, 0, 0, 1], 9193)).into(), shards }
    }

    fn tp(partition: u32) -> TopicPartition {
        TopicPartition { topic: TopicId([3; 16]), partition: PartitionIndex(partition) }
    }

    #[test]
    fn only_what_differs_from_the_guess_is_remembered_and_it_is_forgotten_with_the_number_of_shards() {
        let mut directory = Directory::default();
        assert_eq!(directory.owner(NodeId(1), tp(0)), None);
        directory.set([node(1, 4), node(2, 4)]);
        let guessed = directory.owner(NodeId(1), tp(0)).expect("a known node");
        let other = PeerShard { shard: ShardId((guessed.shard.0 + 1) % 4), ..guessed };
        assert!(!directory.learn(guessed, tp(0)));
        assert!(directory.learn(other, tp(0)) && !directory.learn(other, tp(0)));
        assert_eq!(directory.owner(NodeId(1), tp(0)), Some(other));
        assert_ne!(directory.owner(NodeId(1), tp(1)), Some(guessed), "neighbours are on different shards");
        assert!(directory.learn(guessed, tp(0)) && directory.learned.is_empty());
        assert!(directory.learn(other, tp(0)));
        directory.set([node(1, 3), node(2, 4)]);
        assert!(directory.learned.is_empty());
    }

    #[test]
    fn what_was_learned_of_a_node_is_forgotten_when_its_disk_was_replaced() {
        let mut directory = Directory::default();
        directory.set([node(1, 4), node(2, 4)]);
        let replica = |node, incarnation| ReplicaId { node: NodeId(node), incarnation };
        directory.note_incarnation(replica(1, 0));
        directory.note_incarnation(replica(2, 0));
        for id in 1..=2 {
            let guessed = directory.owner(NodeId(id), tp(0)).expect("a known node");
            let other = ShardId((guessed.shard.0 + 1) % 4);
            assert!(directory.learn(PeerShard { shard: other, ..guessed }, tp(0)));
        }
        directory.note_incarnation(replica(1, 0));
        assert_eq!(directory.learned(), 2, "the same disk as before");
        directory.note_incarnation(replica(1, 1));
        assert_eq!(directory.learned(), 1, "the other node has its disk");
        assert!(!directory.is_current(replica(1, 0)) && directory.is_current(replica(1, 1)));
    }

    #[test]
    fn a_shard_that_a_node_does_not_have_is_not_learned() {
        let mut directory = Directory::default();
        directory.set([node(1, 2)]);
        let nowhere = PeerShard { node: NodeId(1), shard: ShardId(2) };
        assert!(!directory.learn(nowhere, tp(0)) && !directory.knows(nowhere));
        directory.set_shards(NodeId(1), 3);
        assert!(directory.knows(nowhere));
        assert_eq!(directory.shards().count(), 3);
    }
}
