//! Who takes part in a partition: its leader changes the replicas step by step, from those that take part to those that are to.
//!
//! | what differs | the step |
//! |---|---|
//! | a replica is to take part, and does not | it is added as a learner: it gets the log, and counts for nothing |
//! | each that is to vote does, or has everything that is committed | they are the voters, by a joint configuration; all others are removed |
//!
//! Each step is one configuration in the log, and the next one begins when it is committed. Until the last step nothing is taken away: the old replicas vote
//! while the new ones catch up.
//!
//! Those that are to take part are the replicas that were [asked for](Partitions::set_members), or else those that take part now. A node whose disk was replaced
//! comes back with a replica of a later incarnation, which takes the place of the earlier one. A later leader goes on with what an earlier one has begun.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_replication::raft::{Config, Part, ReplicaId};
use highwater_runtime::plane::Disk;

use super::replica::PartitionId;
use super::{PartitionEvent, Partitions, Replicas};

/// The latest incarnation of each node's disk that was reached.
pub(super) type Incarnations = BTreeMap<NodeId, u32>;

/// Returns the replicas that are to take part: `of`, each on the disk that its node has now.
fn on_current_disks(of: impl Iterator<Item = ReplicaId>, current: &Incarnations) -> BTreeSet<ReplicaId> {
    let mut newest: BTreeMap<NodeId, u32> = BTreeMap::new();
    for ReplicaId { node, incarnation } in of {
        let known = current.get(&node).copied().unwrap_or(0);
        let newest = newest.entry(node).or_default();
        *newest = (*newest).max(incarnation).max(known);
    }
    newest.into_iter().map(|(node, incarnation)| ReplicaId { node, incarnation }).collect()
}

/// Returns the next configuration on the way from one that is committed and not joint to one with the voters `wanted`; `None`: there is nothing to change, or
/// it has to wait.
fn next_config(
    now: &Config,
    wanted: &BTreeSet<ReplicaId>,
    has_caught_up: impl Fn(ReplicaId) -> bool,
) -> Option<Config> {
    let mut missing = wanted.iter().copied().filter(|id| now.part(*id).is_none()).peekable();
    let next = if missing.peek().is_some() {
        let learners = now.members().iter().map(|member| member.id).filter(|id| !now.is_voter(*id));
        let stay = learners.filter(|id| wanted.contains(id));
        Config::new(now.voters(), stay.chain(missing))?
    } else if wanted.iter().all(|id| now.is_voter(*id) || has_caught_up(*id)) {
        Config::new(wanted.iter().copied(), [])?
    } else {
        return None;
    };
    (next != *now).then_some(next)
}

impl Partitions {
    /// Sets the replicas that are to take part in a partition, on any of its replicas: the one that leads changes them. [`PartitionEvent::MembersChanged`]
    /// follows on the leader when nothing is left to change, and again on each later one.
    #[cfg_attr(not(test), expect(dead_code, reason = "no request changes the replicas yet"))]
    pub(crate) fn set_members(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        members: &[ReplicaId],
        wall_ms: i64,
    ) {
        let Some(id) = self.find(tp) else { return };
        let Some(partition) = self.get_mut(id) else { return };
        partition.members = Some(members.into());
        self.replicas.settle(disk, id, wall_ms);
        self.retry_after_changes(disk, wall_ms);
    }
}

impl Replicas {
    /// Notes that the replicas on a node's disk can be reached.
    pub(super) fn note_incarnation(&mut self, of: ReplicaId) {
        if of.incarnation > 0 {
            let newest = self.incarnations.entry(of.node).or_default();
            *newest = of.incarnation.max(*newest);
        }
    }

    /// Takes the next step of a change of the replicas, if this one leads. Returns whether it did: there is something to carry out.
    pub(super) fn change_members(&mut self, id: PartitionId) -> bool {
        let Some(partition) = self.table.get_mut(id) else { return false };
        let consensus = &mut partition.consensus;
        let now = consensus.config();
        let is_old = |id: ReplicaId| self.incarnations.get(&id.node).is_some_and(|of| *of > id.incarnation);
        let differs = || now.members().iter().any(|of| of.part == Part::Learner || is_old(of.id));
        // The log of the metadata has replicas according to which nodes are registered (`meta/members.rs`).
        let is_other = partition.tp != METADATA_PARTITION && (partition.members.is_some() || differs());
        if !is_other || consensus.changeable_config().is_none() {
            return false;
        }
        let wanted = match &partition.members {
            Some(members) => on_current_disks(members.iter().copied(), &self.incarnations),
            None => on_current_disks(now.members().iter().map(|member| member.id), &self.incarnations),
        };
        if let Some(next) = next_config(now, &wanted, |id| consensus.has_caught_up(id)) {
            return consensus.propose_config(&next).is_ok();
        }
        let is_done = now.members().iter().map(|member| member.id).eq(wanted);
        if is_done && partition.members.take().is_some() {
            self.events.push_back(PartitionEvent::MembersChanged(id));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u32, incarnation: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), incarnation }
    }

    fn config(voters: &[u32], learners: &[u32]) -> Config {
        let ids = |of: &[u32]| of.iter().map(|node| id(*node, 0)).collect::<Vec<_>>();
        Config::new(ids(voters), ids(learners)).expect("it is valid")
    }

    fn wanted(nodes: &[u32]) -> BTreeSet<ReplicaId> {
        nodes.iter().map(|node| id(*node, 0)).collect()
    }

    #[test]
    fn new_replicas_learn_first_and_the_old_ones_go_when_all_new_ones_have_caught_up() {
        let (now, to) = (config(&[1, 2, 3], &[]), wanted(&[3, 4, 5]));
        let learning = config(&[1, 2, 3], &[4, 5]);
        assert_eq!(next_config(&now, &to, |_| false), Some(learning.clone()));
        assert_eq!(next_config(&learning, &to, |_| false), None);
        assert_eq!(next_config(&learning, &to, |id| id.node == NodeId(4)), None, "one is not enough");
        assert_eq!(next_config(&learning, &to, |_| true), Some(config(&[3, 4, 5], &[])));
        assert_eq!(next_config(&config(&[3, 4, 5], &[]), &to, |_| true), None);
    }

    #[test]
    fn a_change_that_is_replaced_by_another_one_leaves_no_learners() {
        let learning = config(&[1, 2, 3], &[4, 5]);
        assert_eq!(next_config(&learning, &wanted(&[1, 2, 3]), |_| false), Some(config(&[1, 2, 3], &[])));
        assert_eq!(
            next_config(&learning, &wanted(&[1, 5, 6]), |_| false),
            Some(config(&[1, 2, 3], &[5, 6])),
            "the one that is to stay has what it has got"
        );
    }

    #[test]
    fn replicas_on_replaced_disks_are_followed_by_those_on_the_new_ones() {
        let current = Incarnations::from([(NodeId(2), 3)]);
        let members = [id(1, 0), id(2, 0), id(2, 3), id(3, 1)];
        let expected = BTreeSet::from([id(1, 0), id(2, 3), id(3, 1)]);
        assert_eq!(on_current_disks(members.into_iter(), &current), expected);
        let old = on_current_disks([id(2, 5)].into_iter(), &current);
        assert_eq!(old, BTreeSet::from([id(2, 5)]), "no earlier disk is put in its place");
    }
}
