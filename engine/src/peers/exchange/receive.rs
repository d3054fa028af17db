//! From channels to partitions: messages, changes of reachability, elections.

use highwater_protocol::ids::{PartitionIndex, ShardId, TopicPartition};
use highwater_replication::peer::{Incoming, Kind, PeerShard, Route};
use highwater_replication::raft::{Message, ReplicaId};
use highwater_runtime::plane::Plane;

use super::{Exchange, ForController, OwnerOf};
use crate::limits::{DISK_LAG_MAX, ELECTIONS_PER_TURN_MAX, PEER_EVENTS_PER_TURN_MAX, TRANSFER_TIME_MAX};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partitions, PeerChange, ReceivedMessage};
use crate::peers::held::Held;
use crate::peers::{CONTROLLER_SHARD, NodeEvent, PeerEvent, SessionNumber};

/// Statements about leaders that take about as much work as one message to a replica.
const STATEMENTS_PER_MESSAGE: usize = 8;

/// Returns how many messages of a turn an event counts as.
fn cost(event: &PeerEvent) -> usize {
    if let PeerEvent::Leaders(_, news) = event {
        1 + news.statements.len() / STATEMENTS_PER_MESSAGE
    } else {
        1
    }
}

impl Exchange {
    /// Brings what was received to the partitions, and has those that are due begin elections, up to the limits of a turn. Returns whether there is
    /// more.
    pub(crate) fn receive<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        partitions: &mut Partitions,
        owner_of: OwnerOf<'_>,
    ) -> bool {
        let wall_ms = plane.wall_clock_ms();
        let visits = &mut self.visits;
        visits.run(plane, &mut self.peers, partitions, wall_ms);
        let mut left = PEER_EVENTS_PER_TURN_MAX;
        while left > 0
            && let Some((peer, event)) = self.peers.poll_event(|peer| self.visits.hold(peer))
        {
            left = left.saturating_sub(cost(&event));
            self.handle_event(plane, partitions, owner_of, (peer, event));
        }
        self.retry(plane, partitions);
        self.end_transfers(plane, partitions);
        self.check_lagging(plane, partitions);
        let more = self.hold_elections(plane, partitions);
        more || !self.visits.is_empty() || self.peers.has_events(|peer| self.visits.hold(peer))
    }

    fn handle_event<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        partitions: &mut Partitions,
        owner_of: OwnerOf<'_>,
        (peer, event): (PeerShard, PeerEvent),
    ) {
        let is_between_first_shards = peer.shard.0 == 0 && self.peers.local.me.shard.0 == 0;
        if is_between_first_shards {
            let node_event = match &event {
                PeerEvent::Reachable(replica) => self.peers.session_with(peer, *replica).map(NodeEvent::Up),
                PeerEvent::Lost(_) => Some(NodeEvent::Down),
                _ => None,
            };
            self.node_events.extend(node_event.map(|event| (peer.node, event)));
        }
        match event {
            PeerEvent::Reachable(replica) => self.visits.begin(peer, replica, PeerChange::Reachable),
            PeerEvent::Lost(_) if is_planted(Mutant::LeaseOutlivesSession) => self.peers.change_handled(peer),
            PeerEvent::Lost(replica) => {
                if peer.shard == CONTROLLER_SHARD {
                    self.controller.push_back(ForController::Lost(peer.node));
                }
                self.visits.begin(peer, replica, PeerChange::Lost);
            }
            PeerEvent::Controller { session, kind, body } => {
                let of_controller =
                    self.peers.local.me.shard == CONTROLLER_SHARD && peer.shard == CONTROLLER_SHARD;
                if !of_controller {
                    return self.peers.reject(plane, peer, session, "shard 0 has the controller");
                }
                self.controller.push_back(match kind {
                    Kind::ControllerReply => ForController::Reply { peer, session, body },
                    _ => ForController::Request { peer, session, body },
                });
            }
            PeerEvent::Message(session, incoming) => {
                self.handle_message(plane, partitions, owner_of, (peer, session), *incoming);
            }
            PeerEvent::Leaders(session, news) if is_between_first_shards => {
                self.node_events.push_back((peer.node, NodeEvent::Said(session, news)));
            }
            PeerEvent::Leaders(session, _) => {
                self.peers.reject(plane, peer, session, "only shard 0 says to shard 0 what its node leads");
            }
            PeerEvent::Elsewhere { route, shard } => {
                self.handle_elsewhere(plane, partitions, peer, &route, shard);
            }
        }
    }

    fn handle_message<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        partitions: &mut Partitions,
        owner_of: OwnerOf<'_>,
        (peer, session): (PeerShard, SessionNumber),
        incoming: Incoming,
    ) {
        let Incoming { handle, partition: tp, envelope, frames, frames_bytes, start_offset } = incoming;
        let tp = match &envelope.message {
            Message::Appended { .. } if is_planted(Mutant::AckOfAnotherPartition) => {
                TopicPartition { partition: PartitionIndex(tp.partition.0 ^ 1), ..tp }
            }
            _ => tp,
        };
        let Some(id) = partitions.find(tp) else {
            if !is_planted(Mutant::WrongShardNotRefused) {
                // This shard may be about to create it.
                let owner = owner_of(tp).filter(|shard| *shard != self.peers.local.me.shard);
                self.peers.refuse(peer, session, handle, owner);
            }
            return self.peers.release(peer, session, frames_bytes);
        };
        let wall_ms = plane.wall_clock_ms();
        let before = self.peers.owner(peer.node, tp);
        if self.peers.learn(peer, tp) {
            let route = Route { partition: tp, from: envelope.to.incarnation, to: envelope.from.incarnation };
            if let Some(before) = before {
                self.peers.forget_route(before, &route);
            }
            partitions.handle_peer(plane, id, envelope.from, PeerChange::Moved, wall_ms);
        }
        let end = if let Message::Append(append) = &envelope.message { Some(append.end) } else { None };
        let message = ReceivedMessage { tp, envelope, frames, start_offset };
        let outcome = partitions.handle_message(plane, message, wall_ms);
        match partitions.get(id).zip(end) {
            Some((partition, end)) if frames_bytes > 0 => {
                let end = end.min(partitions.bounds(partition).append_index);
                self.held.add(partition.store, Held { peer, session, id, end, bytes: frames_bytes });
            }
            _ => self.peers.release(peer, session, frames_bytes),
        }
        if let Err(violation) = outcome {
            self.peers.reject(plane, peer, session, &violation.to_string());
        }
    }

    /// Handles that a peer does not have a partition: the replica is sent to again on the right shard, or later.
    fn handle_elsewhere<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        partitions: &mut Partitions,
        peer: PeerShard,
        route: &Route,
        shard: Option<ShardId>,
    ) {
        self.peers.forget_route(peer, route);
        let tp = route.partition;
        let Some(id) = partitions.find(tp) else { return };
        if let Some(shard) = shard.filter(|shard| *shard != peer.shard) {
            self.peers.learn(PeerShard { shard, ..peer }, tp);
        }
        let replica = ReplicaId { node: peer.node, incarnation: route.to };
        let owner = self.peers.owner(peer.node, tp).filter(|owner| *owner != peer);
        let change = if owner.is_some_and(|owner| self.peers.session_with(owner, replica).is_some()) {
            PeerChange::Moved
        } else {
            // If the right shard is known, it will be reachable some time.
            self.retries.add(plane.now(), tp, replica);
            PeerChange::Lost
        };
        let wall_ms = plane.wall_clock_ms();
        partitions.handle_peer(plane, id, replica, change, wall_ms);
    }

    /// Sends again to replicas whose nodes did not have the partition.
    fn retry<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions) {
        while let Some((tp, replica)) = self.retries.pop(plane.now()) {
            if self.is_reachable(replica, tp)
                && let Some(id) = partitions.find(tp)
            {
                let wall_ms = plane.wall_clock_ms();
                partitions.handle_peer(plane, id, replica, PeerChange::Reachable, wall_ms);
            }
        }
    }

    /// Lets leaders go on whose leadership could not be handed over in time.
    fn end_transfers<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions) {
        let (now, wall_ms) = (plane.now(), plane.wall_clock_ms());
        while let Some(id) = partitions.poll_transfer() {
            self.transfers.push_back((now.after(TRANSFER_TIME_MAX), id));
        }
        while let Some((_, id)) = self.transfers.pop_front_if(|(until, _)| *until <= now) {
            partitions.end_transfer(plane, id, wall_ms);
        }
    }

    /// Has leaders hand over whose disks stand still.
    fn check_lagging<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions) {
        let (now, wall_ms) = (plane.now(), plane.wall_clock_ms());
        let due = now.after(DISK_LAG_MAX);
        while let Some((_, id, seen)) = self.lagging.pop_front_if(|(due, ..)| *due <= now) {
            if let Some(end) = partitions.check_lag(plane, id, seen, wall_ms) {
                self.lagging.push_back((due, id, end));
            }
        }
        while let Some((id, end)) = partitions.poll_lagging() {
            self.lagging.push_back((due, id, end));
        }
    }

    fn is_reachable(&self, replica: ReplicaId, tp: TopicPartition) -> bool {
        let owner = self.peers.owner(replica.node, tp);
        owner.is_some_and(|peer| self.peers.session_with(peer, replica).is_some())
    }

    /// Lists partitions that have lost their leaders, and has those whose time has come begin an election. Returns whether there are more.
    fn hold_elections<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions) -> bool {
        let (now, wall_ms) = (plane.now(), plane.wall_clock_ms());
        while let Some(id) = partitions.poll_leaderless() {
            self.elections.add(now, plane.random_u64(), id);
        }
        for _ in 0..ELECTIONS_PER_TURN_MAX {
            let Some(id) = self.elections.pop(now) else { return false };
            if partitions.still_leaderless(id) {
                self.elections_begun += 1;
                partitions.handle_election_timeout(plane, id, wall_ms);
                self.elections.add_again(now, plane.random_u64(), id);
            }
        }
        true
    }
}
