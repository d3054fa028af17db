//! Where the replicas of a topic's partitions are: the nodes of each partition, and the store of the replica on this node.

use std::collections::BTreeMap;

use highwater_protocol::ids::{NodeId, StoreId};
use highwater_replication::raft::{REPLICAS_MAX, ReplicaId};

use super::record::ReplicasRecord;

/// The replicas of a topic's partitions, by number of the partition.
///
/// Invariant: `ends` and `stores` have an entry for each partition, and the last of `ends` is the length of `nodes`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Assignment {
    /// The nodes of all partitions, one partition after the other.
    nodes: Vec<NodeId>,
    /// Where the nodes of each partition end.
    ends: Vec<u32>,
    /// The store of this node's replica; `None` if it has none.
    stores: Vec<Option<StoreId>>,
    /// Incarnations other than 0, by index in `nodes`.
    incarnations: BTreeMap<u32, u32>,
}

impl Assignment {
    /// Creates an assignment of partitions whose only replicas are in these stores of node `me`.
    pub fn local(me: NodeId, stores: impl IntoIterator<Item = StoreId>) -> Self {
        let mut assignment = Self::default();
        for store in stores {
            assignment.push(&[me], Some(store));
        }
        assignment
    }

    /// Adds a partition with its replicas, and the store of the one on this node.
    pub fn push(&mut self, nodes: &[NodeId], store: Option<StoreId>) {
        self.nodes.extend_from_slice(nodes);
        self.ends.push(self.nodes.len() as u32);
        self.stores.push(store);
    }

    /// Adds the partitions of a record. `stores`: of the replicas on node `me`, in the order of their partitions. Fails unless both fit.
    pub(super) fn extend(
        &mut self,
        record: &ReplicasRecord,
        me: NodeId,
        stores: &[u16],
    ) -> Result<(), String> {
        let mut stores = stores.iter().copied().map(StoreId);
        let first = self.nodes.len() as u32;
        for nodes in record.partitions() {
            let nodes = nodes.ok_or("a list of replicas does not add up")?;
            let has_twice = (1..nodes.len()).any(|at| nodes[..at].contains(&nodes[at]));
            if nodes.is_empty() || nodes.len() > REPLICAS_MAX || has_twice {
                return Err(format!("a partition has the replicas {nodes:?}"));
            }
            let is_here = nodes.contains(&me.0);
            let store = if is_here {
                Some(stores.next().ok_or("a replica on this node has no store")?)
            } else {
                None
            };
            self.nodes.extend(nodes.iter().copied().map(NodeId));
            self.ends.push(self.nodes.len() as u32);
            self.stores.push(store);
        }
        for (at, incarnation) in &record.incarnations {
            if *at as usize >= record.nodes.len() {
                return Err(format!("replica {at} has an incarnation and does not exist"));
            }
            self.incarnations.insert(first + at, *incarnation);
        }
        if stores.next().is_some() {
            return Err("a store is given for a replica that is not on this node".into());
        }
        Ok(())
    }

    /// Returns the number of partitions.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no partitions.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the nodes that have replicas of a partition, the preferred leader first; none if there is no such partition.
    pub fn replicas(&self, partition: usize) -> &[NodeId] {
        let Some(end) = self.ends.get(partition) else { return &[] };
        let start = partition.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.nodes[start as usize..*end as usize]
    }

    /// Returns the replicas that a partition was created with.
    pub fn created_with(&self, partition: usize) -> impl Iterator<Item = ReplicaId> {
        let end = self.ends.get(partition).copied().unwrap_or(0);
        let start = end - self.replicas(partition).len() as u32;
        (start..end).map(|at| ReplicaId {
            node: self.nodes[at as usize],
            incarnation: self.incarnations.get(&at).copied().unwrap_or(0),
        })
    }

    /// Returns the store of this node's replica of a partition, if there is one.
    pub fn store(&self, partition: usize) -> Option<StoreId> {
        *self.stores.get(partition)?
    }

    /// Returns the store of each partition from number `first` on.
    pub fn stores_from(&self, first: usize) -> impl ExactSizeIterator<Item = Option<StoreId>> {
        self.stores[first.min(self.stores.len())..].iter().copied()
    }

    /// Returns the number of replicas of all partitions.
    pub fn replica_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the nodes of each partition.
    pub fn partitions(&self) -> impl Iterator<Item = &[NodeId]> {
        (0..self.len()).map(|partition| self.replicas(partition))
    }

    pub(super) fn to_record(&self) -> ReplicasRecord {
        let counts = (0..self.len()).map(|partition| self.replicas(partition).len() as u8).collect();
        let nodes = self.nodes.iter().map(|node| node.0).collect();
        let incarnations = self.incarnations.iter().map(|(at, incarnation)| (*at, *incarnation)).collect();
        ReplicasRecord { nodes, counts, incarnations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn extended(partitions: &[&[u32]], stores: &[u16]) -> Result<Assignment, String> {
        let mut assignment = Assignment::default();
        let record = ReplicasRecord::new(partitions.iter().map(|nodes| nodes.to_vec()));
        assignment.extend(&record, ME, stores).map(|()| assignment)
    }

    #[test]
    fn replicas_on_this_node_have_stores_and_others_have_none() {
        let assignment = extended(&[&[1, 2], &[2, 3, 4], &[3, 1]], &[5, 7]).expect("it fits");
        assert_eq!(assignment.replicas(0), [NodeId(1), NodeId(2)]);
        assert_eq!(assignment.replicas(1), [2, 3, 4].map(NodeId));
        assert_eq!((assignment.replicas(2).len(), assignment.replicas(3).len()), (2, 0));
        let stores: Vec<_> = assignment.stores_from(0).collect();
        assert_eq!(stores, [Some(StoreId(5)), None, Some(StoreId(7))]);
        assert_eq!((assignment.store(1), assignment.store(2)), (None, Some(StoreId(7))));
        assert_eq!((assignment.len(), assignment.replica_count()), (3, 7));
        let mut again = Assignment::default();
        again.extend(&assignment.to_record(), ME, &[5, 7]).expect("it fits");
        assert_eq!(again, assignment);
    }

    #[test]
    fn replicas_and_stores_that_do_not_fit_each_other_are_an_error() {
        for (partitions, stores) in [
            (&[&[1_u32][..]][..], &[][..]),
            (&[&[2]], &[0]),
            (&[&[1]], &[0, 1]),
            (&[&[]], &[]),
            (&[&[2, 3, 2]], &[]),
        ] {
            assert!(extended(partitions, stores).is_err(), "{partitions:?} {stores:?}");
        }
        let cut = ReplicasRecord { nodes: vec![2, 3], counts: vec![1, 2], incarnations: vec![] };
        assert!(Assignment::default().extend(&cut, ME, &[]).is_err());
        let more = ReplicasRecord { nodes: vec![2, 3], counts: vec![1], incarnations: vec![] };
        assert!(Assignment::default().extend(&more, ME, &[]).is_err());
        let nobody = ReplicasRecord { nodes: vec![2], counts: vec![1], incarnations: vec![(1, 5)] };
        assert!(Assignment::default().extend(&nobody, ME, &[]).is_err());
    }

    #[test]
    fn a_partition_keeps_the_incarnations_that_its_nodes_had_when_it_was_created() {
        let mut assignment = extended(&[&[2, 3]], &[]).expect("it fits");
        let mut later = ReplicasRecord::new([vec![3, 2], vec![4, 3]]);
        later.incarnations = vec![(0, 7), (3, 7)];
        assignment.extend(&later, ME, &[]).expect("it fits");
        let mut again = Assignment::default();
        again.extend(&assignment.to_record(), ME, &[]).expect("it fits");
        for assignment in [assignment, again] {
            let replicas = |partition| {
                let replicas = assignment.created_with(partition);
                replicas.map(|id| (id.node.0, id.incarnation)).collect::<Vec<_>>()
            };
            assert_eq!((replicas(0), replicas(1)), (vec![(2, 0), (3, 0)], vec![(3, 7), (2, 0)]));
            assert_eq!((replicas(2), replicas(3)), (vec![(4, 0), (3, 7)], vec![]));
        }
    }
}
