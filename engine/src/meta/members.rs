//! Who has a replica of the metadata's log: a pure function of the registered nodes, and of what the replicas have.
//!
//! Every registered node has one. The first [`METADATA_VOTERS_MAX`] nodes, by id, are its voters, and the others learners: they are sent everything and count
//! for nothing. The leader changes the replicas step by step, each by one configuration in the log:
//!
//! | what is registered | the step |
//! |---|---|
//! | a node without a replica, or another incarnation of one | a learner is added |
//! | a node that is to be a voter, whose replica has caught up | it becomes one, instead of an earlier incarnation of the same node |
//! | a node that is a voter and not among the first | it becomes a learner, once those are voters |
//! | nothing of a replica | it is removed |
//!
//! An earlier incarnation votes until the later one has caught up: it has lost its disk, but without it the majority would be one of fewer replicas, and what
//! they have might not be everything.

use std::collections::BTreeSet;

use highwater_replication::raft::{Config, Member, Part, ReplicaId};

use super::Nodes;
use crate::limits::METADATA_VOTERS_MAX;

/// Returns the next configuration of the replicas of the metadata's log; `None` if there is nothing to change, or it has to wait. `current`: the one in
/// effect, not joint. `has_caught_up`: whether a replica has everything that is committed.
pub(crate) fn next_config(
    current: &Config,
    nodes: &Nodes,
    has_caught_up: impl Fn(ReplicaId) -> bool,
) -> Option<Config> {
    let part = |at: usize| if at < METADATA_VOTERS_MAX { Part::Voter } else { Part::Learner };
    let wanted = nodes.values().enumerate().map(|(at, node)| Member { id: node.replica(), part: part(at) });
    if wanted.eq(current.members().iter().copied()) {
        return None;
    }
    let replicas: BTreeSet<ReplicaId> = nodes.values().map(|node| node.replica()).collect();
    let first: BTreeSet<ReplicaId> = replicas.iter().copied().take(METADATA_VOTERS_MAX).collect();
    let is_ready = |id: &ReplicaId| current.is_voter(*id) || has_caught_up(*id);
    let mut voters: BTreeSet<ReplicaId> = first.iter().copied().filter(is_ready).collect();
    let are_complete = voters.len() == first.len();
    // Those that vote now stay until the ones that are to vote can.
    let is_succeeded = |id: &ReplicaId| voters.iter().any(|other| other.node == id.node);
    let stays = |id: &ReplicaId| !are_complete && !is_succeeded(id);
    let staying: Vec<ReplicaId> = current.voters().filter(stays).collect();
    voters.extend(staying);
    let learners: Vec<ReplicaId> = replicas.into_iter().filter(|id| !voters.contains(id)).collect();
    let next = Config::new(voters, learners)?;
    (next != *current).then_some(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use highwater_protocol::ids::NodeId;
    use highwater_replication::join::DiskId;

    use super::*;
    use crate::api::Node;

    fn id(node: u32, incarnation: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), incarnation }
    }

    fn registered(of: &[(u32, u32)]) -> Nodes {
        let node = |&(node, incarnation)| {
            let id = NodeId(node);
            let (rack, clients, peer) = (None, vec![], None);
            let node = Node { id, incarnation, disk: DiskId::default(), rack, clients, peer, shards: 1 };
            (id, Arc::new(node))
        };
        of.iter().map(node).collect()
    }

    fn config(voters: &[(u32, u32)], learners: &[(u32, u32)]) -> Config {
        let ids = |of: &[(u32, u32)]| of.iter().map(|&(node, inc)| id(node, inc)).collect::<Vec<_>>();
        Config::new(ids(voters), ids(learners)).expect("it is valid")
    }

    /// Returns the configurations up to the last one, with replicas that catch up at once.
    fn steps(from: Config, nodes: &Nodes) -> Vec<Config> {
        let mut steps = vec![from];
        while let Some(current) = steps.last()
            && let Some(next) = next_config(current, nodes, |id| current.part(id) == Some(Part::Learner))
        {
            steps.push(next);
            assert!(steps.len() < 10, "it comes to an end: {steps:?}");
        }
        steps
    }

    #[test]
    fn a_node_that_is_alone_changes_nothing() {
        let alone = config(&[(1, 0)], &[]);
        assert_eq!(next_config(&alone, &registered(&[(1, 0)]), |_| true), None);
        assert_eq!(next_config(&alone, &registered(&[]), |_| true), None, "before it is registered");
    }

    #[test]
    fn nodes_that_join_are_learners_and_the_first_three_become_voters_when_they_have_caught_up() {
        let nodes = registered(&[(1, 0), (2, 0), (3, 0), (4, 0)]);
        let alone = config(&[(1, 0)], &[]);
        let learning = config(&[(1, 0)], &[(2, 0), (3, 0), (4, 0)]);
        assert_eq!(next_config(&alone, &nodes, |_| false), Some(learning.clone()));
        assert_eq!(next_config(&learning, &nodes, |_| false), None, "nobody has caught up");
        let two = config(&[(1, 0), (2, 0)], &[(3, 0), (4, 0)]);
        assert_eq!(next_config(&learning, &nodes, |id| id.node == NodeId(2)), Some(two));
        let three = config(&[(1, 0), (2, 0), (3, 0)], &[(4, 0)]);
        assert_eq!(steps(alone.clone(), &nodes), [alone, learning, three]);
    }

    #[test]
    fn a_replaced_disk_votes_when_it_has_caught_up_and_its_predecessor_until_then() {
        let nodes = registered(&[(1, 0), (2, 1), (3, 0)]);
        let before = config(&[(1, 0), (2, 0), (3, 0)], &[]);
        let learning = config(&[(1, 0), (2, 0), (3, 0)], &[(2, 1)]);
        let after = config(&[(1, 0), (2, 1), (3, 0)], &[]);
        assert_eq!(next_config(&learning, &nodes, |_| false), None);
        assert_eq!(steps(before.clone(), &nodes), [before, learning, after]);
        // A learner's predecessor goes at once.
        let four = registered(&[(1, 0), (2, 0), (3, 0), (4, 7)]);
        let old = config(&[(1, 0), (2, 0), (3, 0)], &[(4, 6)]);
        let new = config(&[(1, 0), (2, 0), (3, 0)], &[(4, 7)]);
        assert_eq!(steps(old.clone(), &four), [old, new]);
    }

    #[test]
    fn a_node_with_a_lower_id_takes_over_the_vote_of_the_last_one() {
        let nodes = registered(&[(0, 0), (1, 0), (2, 0), (3, 0)]);
        let before = config(&[(1, 0), (2, 0), (3, 0)], &[]);
        let learning = config(&[(1, 0), (2, 0), (3, 0)], &[(0, 0)]);
        let after = config(&[(0, 0), (1, 0), (2, 0)], &[(3, 0)]);
        assert_eq!(next_config(&learning, &nodes, |_| false), None);
        assert_eq!(steps(before.clone(), &nodes), [before, learning, after]);
    }
}
