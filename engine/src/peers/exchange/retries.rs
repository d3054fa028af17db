//! Replicas on nodes that did not have the partition: they are sent to again after a while.

use std::collections::{BTreeSet, VecDeque};

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_runtime::plane::Instant;

use crate::limits::PEER_RETRY_INTERVAL;

/// See the [module](self). Each replica is listed once.
#[derive(Default, Debug)]
pub(super) struct Retries {
    queue: VecDeque<(Instant, TopicPartition, NodeId)>,
    listed: BTreeSet<(TopicPartition, NodeId)>,
}

impl Retries {
    pub(super) fn add(&mut self, now: Instant, tp: TopicPartition, node: NodeId) {
        if self.listed.insert((tp, node)) {
            self.queue.push_back((now.after(PEER_RETRY_INTERVAL), tp, node));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(due, ..)| *due)
    }

    /// Takes a replica whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(TopicPartition, NodeId)> {
        let (_, tp, node) = self.queue.pop_front_if(|(due, ..)| *due <= now)?;
        self.listed.remove(&(tp, node));
        Some((tp, node))
    }
}
