//! Where the leader of a partition is, for responses to requests that went to another node.

use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::NodeId;

use super::names::Named;
use crate::context::ReachableNode;
use crate::meta::Leadership;

/// Finds the leaders of partitions, and collects the nodes that the response has to name with them.
#[derive(Debug)]
pub(crate) struct LeaderHints {
    leadership: Leadership,
    nodes: Vec<ReachableNode>,
    /// The nodes that have been named, by id.
    named: Vec<NodeId>,
}

/// The leader of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeaderHint {
    pub(crate) node: i32,
    pub(crate) epoch: i32,
}

impl LeaderHints {
    /// Returns whether clients look for another leader after this error.
    pub(crate) fn are_for(error: KafkaError) -> bool {
        matches!(error, KafkaError::NOT_LEADER_OR_FOLLOWER | KafkaError::FENCED_LEADER_EPOCH)
    }

    pub(crate) fn new(leadership: Leadership, nodes: Vec<ReachableNode>) -> Self {
        Self { leadership, nodes, named: Vec::new() }
    }

    /// Returns the leader of a partition that was answered with an error, if it is known.
    pub(crate) fn find(&mut self, topic: &Named, index: i32, error: KafkaError) -> Option<LeaderHint> {
        let partition = topic.partition(index).filter(|_| Self::are_for(error))?.partition;
        let led = self.leadership.of(topic.known()?, partition);
        let node = led.leader?.node;
        let hint = LeaderHint { node: node.0 as i32, epoch: led.epoch.0 };
        if !self.named.contains(&node) {
            self.named.push(node);
        }
        Some(hint)
    }

    /// Returns the nodes of the leaders that were found.
    pub(crate) fn into_nodes(self) -> impl Iterator<Item = ReachableNode> {
        let Self { nodes, named, .. } = self;
        nodes.into_iter().filter(move |node| named.contains(&node.id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, ShardId, TopicId, TopicPartition};
    use highwater_replication::peer::LeaderStatement;

    use super::*;
    use crate::address::HostPort;
    use crate::leaders::{Leaders, SaidIn};
    use crate::meta::configs::TopicConfig;
    use crate::meta::{Assignment, Metadata, Topic};

    fn node(id: u32) -> ReachableNode {
        let address = HostPort { host: format!("host-{id}"), port: 9092 };
        ReachableNode { id: NodeId(id), address, rack: None, shards: 1, is_offline: false }
    }

    #[test]
    fn a_client_that_asked_the_wrong_node_gets_the_leader_with_its_epoch_and_address() {
        let configs = BTreeMap::new();
        let config = TopicConfig::resolve(&configs).expect("the defaults");
        let mut assignment = Assignment::default();
        assignment.push(&[NodeId(2)], None);
        assignment.push(&[NodeId(3)], None);
        let id = TopicId([4; 16]);
        let topic = Named::Known(Arc::new(Topic { id, name: "t".into(), assignment, configs, config }));
        let mut leaders = Leaders::default();
        let partition = TopicPartition { topic: id, partition: PartitionIndex(0) };
        let in_sync = [NodeId(2)].into();
        let (epoch, shard) = (LeaderEpoch(7), ShardId(0));
        leaders.put(NodeId(2), &LeaderStatement { partition, epoch, leads: true, shard, in_sync }, SaidIn(1));
        let leadership = Leadership::new(&Metadata::new(NodeId(1)), &leaders, 1);
        let mut hints = LeaderHints::new(leadership, vec![node(1), node(2), node(3)]);
        let hint = Some(LeaderHint { node: 2, epoch: 7 });
        for (index, error, expected) in [
            (0, KafkaError::NOT_LEADER_OR_FOLLOWER, hint),
            (0, KafkaError::FENCED_LEADER_EPOCH, hint),
            (0, KafkaError::NONE, None),
            (1, KafkaError::NOT_LEADER_OR_FOLLOWER, None),
            (2, KafkaError::NOT_LEADER_OR_FOLLOWER, None),
        ] {
            assert_eq!(hints.find(&topic, index, error), expected, "{index} {error:?}");
        }
        let named: Vec<_> = hints.into_nodes().map(|node| (node.id, node.address.host)).collect();
        assert_eq!(named, [(NodeId(2), "host-2".to_owned())]);
    }
}
