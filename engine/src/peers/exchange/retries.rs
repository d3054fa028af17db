//! Replicas whose nodes did not have the partition: they are sent to again after a while.

use std::collections::{BTreeSet, VecDeque};

use highwater_protocol::ids::TopicPartition;
use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::Instant;

use crate::limits::PEER_RETRY_INTERVAL;

/// See the [module](self). Each replica is listed once.
#[derive(Default, Debug)]
pub(super) struct Retries {
    queue: VecDeque<(Instant, TopicPartition, ReplicaId)>,
    listed: BTreeSet<(TopicPartition, ReplicaId)>,
}

impl Retries {
    pub(super) fn add(&mut self, now: Instant, tp: TopicPartition, replica: ReplicaId) {
        if self.listed.insert((tp, replica)) {
            self.queue.push_back((now.after(PEER_RETRY_INTERVAL), tp, replica));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(due, ..)| *due)
    }

    /// Takes a replica whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(TopicPartition, ReplicaId)> {
        let (_, tp, replica) = self.queue.pop_front_if(|(due, ..)| *due <= now)?;
        self.listed.remove(&(tp, replica));
        Some((tp, replica))
    }
}
