//! Between channels and partitions, at the end of each turn: what was received goes to the partitions ([`Exchange::receive`]) before the commit
//! round begins, and what they have to send leaves ([`Exchange::send`]) after it has begun.

mod receive;
mod retries;
mod send;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::ids::{LogIndex, NodeId, ShardId, TopicPartition};
use highwater_replication::peer::{Local, PeerShard, Settings};
use highwater_runtime::plane::{Instant, Plane};

use super::elections::Elections;
use super::held::HeldFrames;
use super::visits::Visits;
use super::{NodeEvent, Peers, SessionNumber};
use crate::partition::PartitionId;
use retries::Retries;

use crate::address::Resolve;

/// Returns the shard of this node that has a partition; `None` if the node does not have it.
pub(crate) type OwnerOf<'a> = &'a dyn Fn(TopicPartition) -> Option<ShardId>;

/// Something from another node for the controller.
#[derive(Debug)]
pub(crate) enum ForController {
    /// A request.
    Request { peer: PeerShard, session: SessionNumber, body: Bytes },
    /// A reply.
    Reply { peer: PeerShard, session: SessionNumber, body: Bytes },
    /// The node cannot be reached.
    Lost(NodeId),
}

/// What a shard's partitions exchange with other nodes. See the [module](self).
pub(crate) struct Exchange {
    pub(crate) peers: Peers,
    visits: Visits,
    elections: Elections,
    held: HeldFrames,
    retries: Retries,
    /// What has come for the controller.
    controller: VecDeque<ForController>,
    /// What has happened between shard 0 of this node and those of others.
    node_events: VecDeque<(NodeId, NodeEvent)>,
    /// Partitions whose leadership is being handed over, and until when.
    transfers: VecDeque<(Instant, PartitionId)>,
    /// Leaders whose disks do not keep up: when to look at them again, and where their logs ended on disk.
    lagging: VecDeque<(Instant, PartitionId, LogIndex)>,
    peers_deadline: Option<Instant>,
    /// The deadline that was returned last and has not come.
    armed: Option<Instant>,
    /// Partitions have changed while something was sent.
    has_changed: bool,
    /// Elections begun.
    elections_begun: u64,
}

impl Exchange {
    pub(crate) fn new(local: Local, settings: Settings, names: Arc<dyn Resolve>) -> Self {
        Self {
            peers: Peers::new(local, settings, names),
            visits: Visits::default(),
            elections: Elections::default(),
            held: HeldFrames::default(),
            retries: Retries::default(),
            controller: VecDeque::new(),
            node_events: VecDeque::new(),
            transfers: VecDeque::new(),
            lagging: VecDeque::new(),
            peers_deadline: None,
            armed: None,
            has_changed: false,
            elections_begun: 0,
        }
    }

    /// Takes the next thing for the controller.
    pub(crate) fn poll_controller(&mut self) -> Option<ForController> {
        self.controller.pop_front()
    }

    /// Returns how many elections this shard's partitions have begun.
    pub(crate) fn elections_begun(&self) -> u64 {
        self.elections_begun
    }

    /// Returns the next event of a channel from shard 0 to shard 0. Other shards have none.
    pub(crate) fn poll_node_event(&mut self) -> Option<(NodeId, NodeEvent)> {
        self.node_events.pop_front()
    }

    /// Returns when [`handle_deadline`](Self::handle_deadline) is to be called, if that is earlier than what was returned before.
    pub(crate) fn poll_deadline(&mut self) -> Option<Instant> {
        self.peers.update_deadline(&mut self.peers_deadline);
        let transfer = self.transfers.front().map(|(until, _)| *until);
        let lagging = self.lagging.front().map(|(due, ..)| *due);
        let others = [self.elections.next_deadline(), self.retries.next_deadline(), transfer, lagging];
        let next = self.peers_deadline.into_iter().chain(others.into_iter().flatten()).min()?;
        if self.armed.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed = Some(next);
        Some(next)
    }

    /// Handles that time has passed. What is due for partitions is done by [`receive`](Self::receive) at the end of the turn.
    pub(crate) fn handle_deadline<M>(&mut self, plane: &mut dyn Plane<M>) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= plane.now());
        if is_due(self.armed) {
            self.armed = None;
        }
        if is_due(self.peers_deadline) {
            self.peers.handle_deadline(plane);
        }
    }

    /// Returns the number of messages whose frames are not durable.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}
