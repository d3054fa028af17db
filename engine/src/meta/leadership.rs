//! Who leads the partitions of topics, for replies to clients: the metadata and the leader table together.
//!
//! | the partition | its leader |
//! |---|---|
//! | has a statement in the leader table | as the table says |
//! | has none, and its only replica is on this node | this node: nobody else can lead it |
//! | has none otherwise | is not known |

use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, ShardId, TopicPartition};

use super::state::{Epochs, Metadata};
use super::topic::Topic;
use crate::leaders::{LeaderPlace, Leaders, Led};

/// See the [module](self). A snapshot, for replies that are written piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    me: NodeId,
    shards: u16,
    epochs: Arc<Epochs>,
    leaders: Leaders,
}

impl Leadership {
    /// Creates the view of a node with that many shards.
    pub(crate) fn new(metadata: &Metadata, leaders: &Leaders, shards: u16) -> Self {
        Self { me: metadata.node(), shards, epochs: metadata.epochs(), leaders: leaders.clone() }
    }

    /// Returns what is known of the leader of a partition. Without a leader, `in_sync` is what the last one said.
    pub(crate) fn of<'a>(&'a self, topic: &'a Topic, partition: PartitionIndex) -> Led<'a> {
        let tp = TopicPartition { topic: topic.id, partition };
        if let Some(led) = self.leaders.get(tp) {
            return led;
        }
        let epoch = self.epochs.get(&tp).copied().unwrap_or(LeaderEpoch(0));
        let replicas = topic.replicas(partition);
        let store = topic.store(partition).filter(|_| replicas == [self.me]);
        let place = store.map(|store| LeaderPlace { node: self.me, shard: ShardId(store.0 % self.shards) });
        Led { epoch, leader: place, in_sync: if place.is_some() { replicas } else { &[] } }
    }

    /// Returns the replicas of a partition whose nodes cannot be reached.
    pub(crate) fn offline<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionIndex,
    ) -> impl Iterator<Item = NodeId> {
        topic.replicas(partition).iter().copied().filter(|node| self.leaders.is_offline(*node))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use highwater_protocol::ids::{StoreId, TopicId};
    use highwater_replication::peer::LeaderStatement;

    use super::*;
    use crate::leaders::SaidIn;
    use crate::meta::Assignment;
    use crate::meta::configs::TopicConfig;

    const ME: NodeId = NodeId(1);

    fn topic() -> Topic {
        let configs = BTreeMap::new();
        let config = TopicConfig::resolve(&configs).expect("the defaults");
        let mut assignment = Assignment::default();
        assignment.push(&[ME], Some(StoreId(5)));
        assignment.push(&[ME, NodeId(2)], Some(StoreId(6)));
        assignment.push(&[NodeId(2)], None);
        Topic { id: TopicId([4; 16]), name: "t".into(), assignment, configs, config }
    }

    #[test]
    fn the_table_says_who_leads_and_without_it_only_a_lone_replica_of_this_node_is_known_to() {
        let (topic, mut metadata, mut leaders) = (topic(), Metadata::new(ME), Leaders::default());
        let tp = |partition| TopicPartition { topic: topic.id, partition: PartitionIndex(partition) };
        metadata.learn_epoch(tp(0), LeaderEpoch(3));
        let check = |leaders: &Leaders, partition, place: Option<(u32, u16)>, epoch, in_sync: &[u32]| {
            let leadership = Leadership::new(&metadata, leaders, 4);
            let led = leadership.of(&topic, PartitionIndex(partition));
            let found = led.leader.map(|place| (place.node.0, place.shard.0));
            let found_in_sync: Vec<_> = led.in_sync.iter().map(|node| node.0).collect();
            assert_eq!(
                (found, led.epoch, &found_in_sync[..]),
                (place, LeaderEpoch(epoch), in_sync),
                "{partition}"
            );
        };
        check(&leaders, 0, Some((1, 1)), 3, &[1]);
        check(&leaders, 1, None, 0, &[]);
        check(&leaders, 2, None, 0, &[]);
        for partition in [0, 1] {
            let in_sync = [NodeId(2), ME].into();
            let epoch = LeaderEpoch(7);
            let statement =
                LeaderStatement { partition: tp(partition), epoch, leads: true, shard: ShardId(9), in_sync };
            leaders.put(NodeId(2), &statement, SaidIn(1));
            check(&leaders, partition, Some((2, 9)), 7, &[2, 1]);
        }
        leaders.set_offline(NodeId(2), true);
        check(&leaders, 1, None, 7, &[2, 1]);
        let leadership = Leadership::new(&metadata, &leaders, 4);
        assert!(leadership.offline(&topic, PartitionIndex(1)).eq([NodeId(2)]));
    }
}
