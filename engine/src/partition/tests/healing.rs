//! The end of a run: everything works again, and what was acknowledged is there.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::Offset;
use highwater_replication::raft::{Config, Replica, ReplicaId};

use super::node::Node;
use super::world::{NODES, RECORDS, World};

/// Maximum number of steps until all is well.
const HEALING_STEPS_MAX: usize = 60_000;

impl World {
    /// Lets everything work again, until all nodes have the whole log and no producer waits.
    pub(crate) fn heal(&mut self) {
        while !self.cut.is_empty() {
            self.restore_a_link();
        }
        for node in 0..NODES {
            self.nodes[node].is_slow = false;
            self.start(node);
        }
        for step in 0..HEALING_STEPS_MAX {
            let has_leader = self.nodes.iter().any(Node::serves);
            self.deliver();
            let node = self.any_node();
            if let Some(output) = self.nodes[node].step_disk() {
                self.take(node, output);
            }
            match step % 100 {
                0 if !has_leader => self.time_out(),
                50 => self.restore_replicas(),
                99 if step > HEALING_STEPS_MAX / 10 && self.has_converged() => return,
                _ => {}
            }
        }
        let states: Vec<String> = self.nodes.iter().map(|node| format!("{:?}", node.replica())).collect();
        panic!("the replicas do not converge: {:?}, {states:#?}", self.producers);
    }

    /// Makes all nodes voters, step by step.
    pub(crate) fn restore_replicas(&mut self) {
        let Some(leader) = self.nodes.iter().find(|node| node.serves()).and_then(Node::replica) else {
            return;
        };
        let config = leader.config().clone();
        let all: Vec<ReplicaId> = self.nodes.iter().map(Node::id).collect();
        if config == self.all_voters() {
            return;
        }
        let missing: Vec<ReplicaId> = all.iter().copied().filter(|id| !config.is_voter(*id)).collect();
        let target = if missing.iter().all(|id| config.part(*id).is_some()) {
            self.all_voters()
        } else {
            Config::new(all.iter().copied().filter(|id| config.is_voter(*id)), missing).expect("valid")
        };
        self.change_to(&target);
    }

    fn has_converged(&self) -> bool {
        let ends: Vec<Offset> = self.nodes.iter().map(|node| node.reader.high_watermark).collect();
        let all = self.all_voters();
        let is_complete = |node: &Node| {
            let has_all =
                |replica: &Replica| replica.commit_end() == replica.log_end().end && *replica.config() == all;
            node.reader.read_end >= node.reader.high_watermark && node.replica().is_some_and(has_all)
        };
        ends.iter().all(|end| *end == ends[0])
            && self.nodes.iter().all(is_complete)
            && self.network.values().all(VecDeque::is_empty)
            && self.producers.iter().all(|producer| producer.waits.is_none())
    }

    /// Checks that everything acknowledged is in the log at its offset, and every batch once.
    pub(crate) fn check_end(&self) {
        let mut places = BTreeMap::new();
        for (offset, value) in &self.committed {
            if let Some(other) = places.insert(value, offset) {
                panic!("a record is in the log twice, at {other} and at {offset}");
            }
        }
        for (producer, sequence, offset) in &self.acknowledged {
            for record in 0..RECORDS {
                let value = format!("{:>300}", format!("{producer}:{}", sequence + record));
                let found = self.committed.get(&(offset.0 + i64::from(record)));
                assert_eq!(
                    found.map(|found| String::from_utf8_lossy(found).into_owned()),
                    Some(value),
                    "the batch {producer}:{sequence} was acknowledged at {offset}"
                );
            }
        }
    }
}
