//! Placement of replicas on nodes. Each node then chooses the stores of its own replicas by itself, see [`place`](super::place).

use highwater_protocol::ids::NodeId;

/// What a node has already.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NodeLoad {
    /// Replicas.
    pub replicas: usize,
    /// Partitions that it leads when all replicas are well.
    pub leaders: usize,
}

/// A node that can get replicas.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The node.
    pub node: NodeId,
    /// Its rack, if it is known.
    pub rack: Option<&'a str>,
    /// What it has of all topics.
    pub all: NodeLoad,
    /// What it has of the topic that gets partitions.
    pub own: NodeLoad,
}

impl NodeLoad {
    /// Adds a replica.
    pub(super) fn add(&mut self, leads: bool) {
        self.replicas += 1;
        self.leaders += usize::from(leads);
    }

    /// Removes a replica.
    pub(super) fn remove(&mut self, leads: bool) {
        self.replicas -= 1;
        self.leaders -= usize::from(leads);
    }
}

impl Candidate<'_> {
    fn is_in_rack_of(&self, other: &Self) -> bool {
        self.rack.is_some() && self.rack == other.rack
    }
}

/// Returns the nodes of `count` new partitions of a topic: for each, `factor` nodes, the preferred leader first. `None` if there are fewer nodes.
///
/// No node gets two replicas of a partition, and no rack before all racks have one. A topic's leaders are spread over all nodes, then its other
/// replicas; among equals, the node with the fewest of all topics comes first.
pub fn spread(candidates: &[Candidate<'_>], count: usize, factor: usize) -> Option<Vec<Vec<NodeId>>> {
    if factor == 0 || factor > candidates.len() {
        return None;
    }
    let mut nodes = candidates.to_vec();
    Some((0..count).map(|_| spread_one(&mut nodes, factor)).collect())
}

fn spread_one(nodes: &mut [Candidate<'_>], factor: usize) -> Vec<NodeId> {
    let load = |at: &usize| {
        let Candidate { own, all, .. } = &nodes[*at];
        (own.leaders, own.replicas, all.leaders, all.replicas, *at)
    };
    let leader = (0..nodes.len()).min_by_key(load).expect("there is at least one");
    let mut chosen = vec![leader];
    while chosen.len() < factor {
        let load = |at: &usize| {
            let Candidate { own, all, .. } = &nodes[*at];
            let shares_rack = chosen.iter().any(|other| nodes[*at].is_in_rack_of(&nodes[*other]));
            // Equal followers are those after the leader: each leader's partitions have other followers, which share its load if it dies.
            let distance = (*at + nodes.len() - leader) % nodes.len();
            (shares_rack, own.replicas, all.replicas, distance)
        };
        let free = (0..nodes.len()).filter(|at| !chosen.contains(at));
        chosen.push(free.min_by_key(load).expect("there are as many nodes as replicas"));
    }
    for at in &chosen {
        nodes[*at].all.add(*at == leader);
        nodes[*at].own.add(*at == leader);
    }
    chosen.iter().map(|at| nodes[*at].node).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn nodes<'a>(racks: &[Option<&'a str>]) -> Vec<Candidate<'a>> {
        let (all, own) = (NodeLoad::default(), NodeLoad::default());
        let candidate = |(id, rack)| Candidate { node: NodeId(id), rack, all, own };
        (1..).zip(racks.iter().copied()).map(candidate).collect()
    }

    fn ids(partitions: &[Vec<NodeId>]) -> Vec<Vec<u32>> {
        partitions.iter().map(|nodes| nodes.iter().map(|node| node.0).collect()).collect()
    }

    #[test]
    fn replicas_of_a_partition_are_on_distinct_nodes_and_leaders_on_all_of_them() {
        let placed = spread(&nodes(&[None; 3]), 3, 2).expect("there are enough");
        assert_eq!(ids(&placed), [[1, 2], [3, 1], [2, 3]]);
        let placed = spread(&nodes(&[None; 3]), 4, 3).expect("there are enough");
        assert_eq!(ids(&placed), [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
        let alone = spread(&nodes(&[None]), 2, 1).expect("there are enough");
        assert_eq!(ids(&alone), [[1], [1]]);
    }

    #[test]
    fn more_replicas_than_nodes_cannot_be_placed() {
        assert_eq!(spread(&nodes(&[None; 2]), 1, 3), None);
        assert_eq!(spread(&[], 1, 1), None);
        assert_eq!(spread(&nodes(&[None; 2]), 1, 0), None);
    }

    #[test]
    fn no_rack_gets_a_second_replica_before_all_racks_have_one() {
        let racks = [Some("a"), Some("a"), Some("a"), Some("b"), Some("c"), None];
        let of = |node: &NodeId| racks[node.0 as usize - 1];
        for placed in spread(&nodes(&racks), 50, 3).expect("there are enough") {
            let distinct: BTreeSet<_> = placed.iter().map(of).collect();
            assert_eq!(distinct.len(), 3, "{placed:?}");
        }
        let two = spread(&nodes(&[Some("a"), Some("a"), Some("b")]), 1, 3).expect("there are enough");
        assert_eq!(ids(&two), [[1, 3, 2]]);
    }

    #[test]
    fn a_node_with_less_of_all_topics_comes_first_among_those_with_equally_much_of_this_one() {
        let mut nodes = nodes(&[None; 3]);
        nodes[0].all = NodeLoad { replicas: 9, leaders: 9 };
        nodes[1].all = NodeLoad { replicas: 9, leaders: 2 };
        let placed = spread(&nodes, 1, 2).expect("there are enough");
        assert_eq!(ids(&placed), [[3, 1]]);
        nodes[2].own = NodeLoad { replicas: 1, leaders: 1 };
        let placed = spread(&nodes, 1, 1).expect("there are enough");
        assert_eq!(ids(&placed), [[2]]);
    }

    #[test]
    fn replicas_and_leaders_of_a_topic_are_spread_evenly_whatever_their_numbers() {
        for count in 1..8 {
            for factor in 1..=count {
                for partitions in 1..30 {
                    let placed = spread(&nodes(&vec![None; count]), partitions, factor).expect("enough");
                    let mut loads: BTreeMap<u32, (usize, usize)> =
                        (1..=count as u32).map(|n| (n, (0, 0))).collect();
                    for nodes in ids(&placed) {
                        for (place, node) in nodes.iter().enumerate() {
                            let load = loads.get_mut(node).expect("a node");
                            *load = (load.0 + 1, load.1 + usize::from(place == 0));
                        }
                    }
                    let is_even = |of: fn(&(usize, usize)) -> usize| {
                        let all = || loads.values().map(of);
                        all().max().unwrap_or(0) - all().min().unwrap_or(0) <= 1
                    };
                    let case = (count, factor, partitions);
                    assert!(is_even(|load| load.0) && is_even(|load| load.1), "{case:?}: {loads:?}");
                }
            }
        }
    }
}
