//! Chooses the nodes of new partitions.

use std::collections::BTreeMap;

use highwater_protocol::ids::NodeId;
use highwater_replication::raft::REPLICAS_MAX;

use super::proposer::Proposer;
use crate::api::{ApiError, Replication};
use crate::limits::REPLICAS_DEFAULT;
use crate::meta::{Candidate, Metadata, NodeLoad, ReplicasRecord, Topic, spread};

impl Proposer {
    /// Returns the nodes of `count` new partitions, of an existing topic or of a new one.
    pub(super) fn plan_replicas(
        &self,
        topic: Option<&Topic>,
        replication: &Replication,
        count: usize,
    ) -> Result<ReplicasRecord, ApiError> {
        let tip = self.tip()?;
        let factor = match replication {
            Replication::Assigned(partitions) => return check_assigned(tip, partitions, count),
            Replication::Factor(factor) => *factor as usize,
            Replication::Default => match topic {
                Some(topic) => topic.assignment.replicas(0).len(),
                None => REPLICAS_DEFAULT.min(tip.nodes().len()),
            },
        };
        let candidates = self.candidates(tip, topic);
        let refuse = |why: String| ApiError::InvalidReplicationFactor(why);
        if factor == 0 {
            return Err(refuse(
                "Replication factor must be larger than 0, or -1 to use the default value.".into(),
            ));
        }
        if factor > REPLICAS_MAX {
            return Err(refuse(format!("a partition has at most {REPLICAS_MAX} replicas, not {factor}")));
        }
        let placed = spread(&candidates, count, factor).ok_or_else(|| {
            refuse(format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
                 reached because only {} broker(s) {}.",
                candidates.len(),
                if candidates.len() == tip.nodes().len() { "are registered" } else { "can be reached" }
            ))
        })?;
        Ok(record_of(tip, &placed))
    }

    /// Returns the nodes that can get replicas, and what they have. A node that cannot be reached gets none.
    fn candidates<'a>(&self, tip: &'a Metadata, topic: Option<&Topic>) -> Vec<Candidate<'a>> {
        let mut own: BTreeMap<NodeId, NodeLoad> = BTreeMap::new();
        for nodes in topic.iter().flat_map(|topic| topic.assignment.partitions()) {
            for (place, node) in nodes.iter().enumerate() {
                own.entry(*node).or_default().add(place == 0);
            }
        }
        let reachable = tip.nodes().values().filter(|node| !self.offline.contains(&node.id));
        let nodes = reachable.map(|node| Candidate {
            node: node.id,
            rack: node.rack.as_deref(),
            all: tip.node_load(node.id),
            own: own.get(&node.id).copied().unwrap_or_default(),
        });
        nodes.collect()
    }
}

/// Returns the record of partitions on these nodes.
fn record_of(tip: &Metadata, partitions: &[Vec<NodeId>]) -> ReplicasRecord {
    let ids = |nodes: &Vec<NodeId>| nodes.iter().map(|node| node.0).collect();
    let mut record = ReplicasRecord::new(partitions.iter().map(ids));
    for (at, node) in (0..).zip(partitions.iter().flatten()) {
        let incarnation = tip.nodes().get(node).map_or(0, |node| node.incarnation);
        record.incarnations.extend((incarnation > 0).then_some((at, incarnation)));
    }
    record
}

/// Checks nodes that a client has chosen for `count` partitions.
fn check_assigned(
    tip: &Metadata,
    partitions: &[Vec<NodeId>],
    count: usize,
) -> Result<ReplicasRecord, ApiError> {
    let refuse = |why: String| Err(ApiError::InvalidAssignment(why));
    if partitions.len() != count {
        return refuse(format!("{count} partitions have replicas for {}", partitions.len()));
    }
    let factor = partitions.first().map_or(0, Vec::len);
    for nodes in partitions {
        let has_twice = (1..nodes.len()).any(|at| nodes[..at].contains(&nodes[at]));
        if nodes.is_empty() || nodes.len() > REPLICAS_MAX || has_twice {
            return refuse(format!(
                "a partition has 1 to {REPLICAS_MAX} replicas on distinct nodes, not {nodes:?}"
            ));
        }
        if nodes.len() != factor {
            return refuse("all partitions of a topic have the same number of replicas".into());
        }
        if let Some(unknown) = nodes.iter().find(|node| !tip.nodes().contains_key(node)) {
            let known: Vec<u32> = tip.nodes().keys().map(|node| node.0).collect();
            return refuse(format!("a partition is assigned to node {unknown}; the nodes are {known:?}"));
        }
    }
    Ok(record_of(tip, partitions))
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{TopicId, TopicPartition};

    use super::super::Controller;
    use super::super::tests::{TO, commit, controller};
    use super::*;
    use crate::api::{ControllerReply, CreateTopic};

    /// Creates a topic with two partitions. Returns the nodes of each.
    fn created(controller: &mut Controller, replication: Replication) -> Result<Vec<Vec<u32>>, ApiError> {
        let partitions = 2;
        let replicas = controller.proposer.plan_replicas(None, &replication, partitions)?;
        let request = CreateTopic {
            name: format!("t{}", controller.metadata().topics().len()),
            partitions: partitions as u32,
            replication,
            configs: vec![],
            validate_only: false,
        };
        let id = TopicId([controller.metadata().topics().len() as u8; 16]);
        controller.create_topic(TO, &request, id);
        commit(controller);
        let topic = controller.metadata().topic(&request.name).expect("it is created");
        assert_eq!(topic.assignment.to_record(), replicas);
        Ok(topic.assignment.partitions().map(|nodes| nodes.iter().map(|node| node.0).collect()).collect())
    }

    #[test]
    fn topics_get_the_requested_replicas_on_distinct_nodes_and_racks() {
        let mut controller = controller();
        let factor = |controller: &mut Controller, factor| created(controller, Replication::Factor(factor));
        assert_eq!(factor(&mut controller, 2), Ok(vec![vec![1, 3], vec![2, 3]]));
        assert_eq!(factor(&mut controller, 1), Ok(vec![vec![3], vec![1]]));
        let assigned = Replication::Assigned(vec![vec![NodeId(3), NodeId(1)], vec![NodeId(2), NodeId(1)]]);
        assert_eq!(created(&mut controller, assigned), Ok(vec![vec![3, 1], vec![2, 1]]));
        let all = created(&mut controller, Replication::Default).expect("there are three nodes");
        assert!(all.iter().all(|nodes| nodes.len() == 3), "{all:?}");
        // Replicas on this node have stores, and no others.
        let topics = controller.metadata().topics();
        let has_store = |(tp, store): (TopicPartition, Option<_>), topic: &Topic| {
            topic.replicas(tp.partition).contains(&NodeId(1)) == store.is_some()
        };
        assert!(
            topics.flat_map(|topic| topic.partitions_from(0).map(|of| has_store(of, topic))).all(|it| it)
        );
    }

    #[test]
    fn more_partitions_of_a_topic_have_as_many_replicas_as_the_others() {
        let mut controller = controller();
        created(&mut controller, Replication::Factor(2)).expect("there are enough nodes");
        let topic = controller.metadata().topic("t0").cloned().expect("it exists");
        let more = controller
            .proposer
            .plan_replicas(Some(&topic), &Replication::Default, 3)
            .expect("there are enough");
        assert_eq!(more.counts, [2, 2, 2]);
        // Node 3 leads none of the first two partitions.
        assert_eq!(more.nodes[0], 3);
    }

    #[test]
    fn replicas_that_cannot_be_placed_are_refused_with_the_reason() {
        let controller = controller();
        let refused = |replication, count| {
            let refused = controller.proposer.plan_replicas(None, &replication, count);
            refused.expect_err("refused").to_string()
        };
        assert!(refused(Replication::Factor(0), 1).contains("larger than 0"));
        assert!(refused(Replication::Factor(4), 1).contains("only 3 broker(s) are registered"));
        assert!(refused(Replication::Factor(16), 1).contains("at most 15"));
        let assigned = |partitions: &[&[u32]]| {
            let nodes = partitions.iter().map(|nodes| nodes.iter().copied().map(NodeId).collect());
            refused(Replication::Assigned(nodes.collect()), 2)
        };
        for (partitions, says) in [
            (&[&[1_u32][..]][..], "2 partitions have replicas for 1"),
            (&[&[1], &[]], "distinct nodes"),
            (&[&[1, 1], &[2, 3]], "distinct nodes"),
            (&[&[1, 2], &[3]], "the same number"),
            (&[&[1], &[7]], "node 7; the nodes are [1, 2, 3]"),
        ] {
            assert!(assigned(partitions).contains(says), "{partitions:?}: {}", assigned(partitions));
        }
    }

    #[test]
    fn a_node_that_cannot_be_reached_gets_no_replicas_unless_it_is_named() {
        let mut controller = controller();
        controller.set_offline([NodeId(3)].into());
        for _ in 0..4 {
            let nodes = created(&mut controller, Replication::Factor(2)).expect("two can be reached");
            assert!(nodes.iter().flatten().all(|node| *node != 3), "{nodes:?}");
        }
        for replication in [Replication::Factor(3), Replication::Default] {
            let refused = created(&mut controller, replication).expect_err("two can be reached");
            assert!(refused.to_string().contains("only 2 broker(s) can be reached"), "{refused}");
        }
        let assigned = Replication::Assigned(vec![vec![NodeId(3)], vec![NodeId(1)]]);
        assert_eq!(created(&mut controller, assigned), Ok(vec![vec![3], vec![1]]));
        controller.set_offline([].into());
        assert!(created(&mut controller, Replication::Factor(3)).is_ok());
    }

    #[test]
    fn a_topic_that_is_only_validated_is_not_created() {
        let mut controller = controller();
        let before = controller.metadata().next_offset();
        for (factor, is_possible) in [(3, true), (4, false)] {
            let request = CreateTopic {
                name: "t".into(),
                partitions: 1,
                replication: Replication::Factor(factor),
                configs: vec![],
                validate_only: true,
            };
            let created = controller.proposer.create(&request, TopicId([1; 16]));
            assert_eq!(created.is_ok(), is_possible, "{created:?}");
            assert!(matches!(
                created,
                Ok(ControllerReply::Created(_)) | Err(ApiError::InvalidReplicationFactor(_))
            ));
        }
        assert_eq!(controller.metadata().next_offset(), before);
    }
}
