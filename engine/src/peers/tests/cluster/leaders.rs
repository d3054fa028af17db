//! What the nodes know of who leads what.

use highwater_protocol::ids::NodeId;

use super::{Cluster, NODES, PARTITIONS, Replica, TestShard, shard_of};
use crate::leaders::Leaders;
use crate::peers::tests::node::tp;

impl Cluster {
    /// Returns what the shard 0 of a node knows of leaders; `None` if its process has ended.
    pub(in crate::peers::tests) fn known_leaders(&self, node: usize) -> Option<&Leaders> {
        self.world.app(self.nodes[node], 0).map(TestShard::leaders)
    }

    /// Checks that every node knows who leads each partition, where and since when, and that all replicas are in sync.
    pub(super) fn check_known_leaders(&self) {
        let all: Vec<NodeId> = (0..NODES as u32).map(NodeId).collect();
        for node in 0..NODES {
            let leaders = self.known_leaders(node).expect("it runs");
            for partition in 0..PARTITIONS {
                let leader = self.leader(partition).expect("it has converged");
                let term = self.replica(leader, partition).map(Replica::term);
                let led = leaders.get(tp(partition)).expect("it is known");
                let place = led.leader.map(|place| (place.node.0 as usize, place.shard.0));
                let expected = (Some((leader, shard_of(leader, partition))), term);
                assert_eq!((place, Some(led.epoch)), expected, "partition {partition} on node {node}");
                assert_eq!(led.in_sync, all, "partition {partition} on node {node}");
            }
            assert!(all.iter().all(|other| !leaders.is_offline(*other)));
        }
    }
}
