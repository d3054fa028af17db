//! Who leads what: the leader of each partition, as far as this node knows, and which nodes cannot be reached.
//!
//! [`Leaders`] is a snapshot that is never changed once it is shared. Shard 0 makes it of what the shards of this node and the other nodes say
//! (`peers/leader_table.rs`), and all shards get a copy with which they answer clients.
//!
//! | a statement about a partition | holds |
//! |---|---|
//! | in a higher epoch than the one that is known | yes |
//! | in the same epoch, by the same node | yes: it is the later one |
//! | in the same epoch, by another node | no: an epoch has one leader |
//! | in a lower epoch | no |
//!
//! A statement holds until its node has said everything again, in a later session, and not repeated it: a node that has lost its memory leads nothing. While a node
//! cannot be reached, nobody is sent to it.
//!
//! A partition whose only replica is on this node needs no entry: see `meta/leadership.rs`. A cluster of one has none.

mod chunked_map;

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, ShardId, TopicId, TopicPartition};
use highwater_replication::peer::LeaderStatement;

use crate::limits::LEADERS_MAX;
use crate::mutants::{Mutant, is_planted};
use chunked_map::ChunkedMap;

/// The session of a node in which it made a statement. Those of this node are in session 0, which does not end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct SaidIn(pub(crate) u64);

/// Where the leader of a partition is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeaderPlace {
    pub(crate) node: NodeId,
    /// The shard of that node.
    pub(crate) shard: ShardId,
}

/// What is known of the leader of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Led<'a> {
    /// The latest leader epoch.
    pub(crate) epoch: LeaderEpoch,
    /// The leader; `None` if it has ceased to lead, or cannot be reached.
    pub(crate) leader: Option<LeaderPlace>,
    /// The nodes that were in sync when the leader last said so, itself among them.
    pub(crate) in_sync: &'a [NodeId],
}

#[derive(Clone, Debug)]
struct Entry {
    epoch: LeaderEpoch,
    leads: bool,
    place: LeaderPlace,
    in_sync: Arc<[NodeId]>,
    said_in: SaidIn,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct NodeState {
    /// Statements of earlier sessions do not hold.
    holds_from: SaidIn,
    is_offline: bool,
}

/// See the [module](self).
#[derive(Clone, Default, Debug)]
pub struct Leaders {
    table: ChunkedMap<TopicPartition, Entry>,
    nodes: Arc<BTreeMap<NodeId, NodeState>>,
}

impl Leaders {
    /// Returns what is known of the leader of a partition; `None` if nothing was said about it.
    pub(crate) fn get(&self, partition: TopicPartition) -> Option<Led<'_>> {
        let entry = self.table.get(partition)?;
        let node = self.node(entry.place.node);
        let holds = entry.said_in >= node.holds_from || is_planted(Mutant::OldStatementsHold);
        let leader = (entry.leads && holds && !node.is_offline).then_some(entry.place);
        Some(Led { epoch: entry.epoch, leader, in_sync: &entry.in_sync })
    }

    /// Returns whether a node cannot be reached from this one.
    pub(crate) fn is_offline(&self, node: NodeId) -> bool {
        self.node(node).is_offline
    }

    /// Returns the nodes that cannot be reached from this one.
    pub(crate) fn offline(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, node)| node.is_offline).map(|(node, _)| *node)
    }

    fn node(&self, node: NodeId) -> NodeState {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// Takes a statement of a node about its replica. Returns false if it does not hold, or there is no room for it.
    pub(crate) fn put(&mut self, node: NodeId, statement: &LeaderStatement, said_in: SaidIn) -> bool {
        let LeaderStatement { partition, epoch, leads, shard, in_sync } = statement;
        if let Some(known) = self.table.get(*partition) {
            let is_earlier = *epoch < known.epoch && !is_planted(Mutant::LowerEpochHolds);
            if is_earlier || (*epoch == known.epoch && node != known.place.node) {
                return false;
            }
        } else if self.table.len() >= LEADERS_MAX {
            return false;
        }
        let place = LeaderPlace { node, shard: *shard };
        let entry = Entry { epoch: *epoch, leads: *leads, place, in_sync: Arc::clone(in_sync), said_in };
        self.table.insert(*partition, entry);
        true
    }

    /// Notes that a node has said everything in a session: what it said before, and not in this session, does not hold any more.
    pub(crate) fn hold_from(&mut self, node: NodeId, said_in: SaidIn) {
        Arc::make_mut(&mut self.nodes).entry(node).or_default().holds_from = said_in;
    }

    /// Notes whether a node cannot be reached.
    pub(crate) fn set_offline(&mut self, node: NodeId, is_offline: bool) {
        Arc::make_mut(&mut self.nodes).entry(node).or_default().is_offline = is_offline;
    }

    /// Forgets the partitions of a topic. Returns whether anything was known of them.
    pub(crate) fn forget_topic(&mut self, topic: TopicId) -> bool {
        let at = |index| TopicPartition { topic, partition: PartitionIndex(index) };
        self.table.remove_range(&(at(0)..=at(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TP: TopicPartition = TopicPartition { topic: TopicId([3; 16]), partition: PartitionIndex(5) };

    fn says(epoch: i32, leads: bool) -> LeaderStatement {
        let in_sync = [NodeId(1), NodeId(2)].into();
        LeaderStatement { partition: TP, epoch: LeaderEpoch(epoch), leads, shard: ShardId(1), in_sync }
    }

    fn leader(leaders: &Leaders) -> Option<(u32, i32)> {
        let led = leaders.get(TP)?;
        led.leader.map(|place| (place.node.0, led.epoch.0))
    }

    #[test]
    fn the_statement_in_the_highest_epoch_holds_and_of_those_of_one_node_the_last_one() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.get(TP), None);
        for (node, statement, holds, expected) in [
            (1, says(4, true), true, Some((1, 4))),
            (2, says(3, true), false, Some((1, 4))),
            (2, says(4, true), false, Some((1, 4))),
            (1, says(4, false), true, None),
            (2, says(4, true), false, None),
            (2, says(5, true), true, Some((2, 5))),
            (1, says(4, true), false, Some((2, 5))),
        ] {
            assert_eq!(leaders.put(NodeId(node), &statement, SaidIn(1)), holds, "{node} {statement:?}");
            assert_eq!(leader(&leaders), expected, "after {node} {statement:?}");
        }
        let led = leaders.get(TP).expect("it is known");
        assert_eq!((led.in_sync, led.epoch), (&[NodeId(1), NodeId(2)][..], LeaderEpoch(5)));
        assert!(leaders.forget_topic(TP.topic) && !leaders.forget_topic(TP.topic));
        assert_eq!(leaders.get(TP), None);
    }

    #[test]
    fn what_a_node_does_not_repeat_when_it_has_said_everything_does_not_hold() {
        let mut leaders = Leaders::default();
        leaders.put(NodeId(1), &says(4, true), SaidIn(1));
        leaders.hold_from(NodeId(1), SaidIn(1));
        assert_eq!(leader(&leaders), Some((1, 4)));
        leaders.hold_from(NodeId(1), SaidIn(2));
        assert_eq!(leader(&leaders), None);
        leaders.put(NodeId(1), &says(4, true), SaidIn(2));
        assert_eq!(leader(&leaders), Some((1, 4)));
    }

    #[test]
    fn nobody_is_sent_to_a_node_that_cannot_be_reached() {
        let mut leaders = Leaders::default();
        leaders.put(NodeId(1), &says(4, true), SaidIn(1));
        let before = leaders.clone();
        leaders.set_offline(NodeId(1), true);
        assert_eq!((leader(&leaders), leaders.is_offline(NodeId(1))), (None, true));
        assert_eq!((leader(&before), before.is_offline(NodeId(1))), (Some((1, 4)), false));
        leaders.set_offline(NodeId(1), false);
        assert_eq!(leader(&leaders), Some((1, 4)));
    }
}
