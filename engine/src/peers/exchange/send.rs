//! From partitions to channels: messages, and entries as far as the channels take them.

use highwater_replication::peer::{Offer, PeerShard, Route};
use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::Plane;

use super::Exchange;
use crate::limits::PEER_SENDS_PER_TURN_MAX;
use crate::partition::{
    Attached, DueSend, FinishedRead, Grant, Partitions, PeerChange, PeerMessage, SendOutcome,
};
use crate::peers::SessionNumber;

impl Exchange {
    /// Sends what partitions have to send and their channels can take, up to the limit of a turn. Returns whether there is more.
    pub(crate) fn send<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions) -> bool {
        self.held.release(&mut self.peers, partitions);
        while let Some((partition, me, other)) = partitions.poll_gone() {
            self.peers.forget(other.node, &Route { partition, from: me.incarnation, to: other.incarnation });
        }
        self.post(partitions);
        while let Some(read) = partitions.poll_read() {
            self.finish_read(plane, partitions, read);
        }
        let mut left = PEER_SENDS_PER_TURN_MAX;
        while left > 0
            && let Some(due) = partitions.poll_due()
        {
            left -= 1;
            self.offer(plane, partitions, &due);
            self.post(partitions);
        }
        let active = self.peers.active();
        for peer in &active {
            while left > 0
                && let Some((route, bytes, session)) = self.peers.poll_turn(*peer)
            {
                left -= 1;
                self.take_turn(plane, partitions, *peer, (&route, bytes, session));
            }
        }
        self.peers.flush(plane);
        let more = left == 0;
        if more {
            for peer in active {
                self.peers.keep_active(peer);
            }
        }
        more || partitions.has_due() || std::mem::take(&mut self.has_changed)
    }

    /// Lets a partition know that a replica cannot be reached. What it does then needs another turn.
    fn report_lost<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions, due: &DueSend) {
        let wall_ms = plane.wall_clock_ms();
        partitions.handle_peer(plane, due.id, due.to, PeerChange::Lost, wall_ms);
        self.has_changed = true;
    }

    /// Hands messages over to the channels.
    fn post(&mut self, partitions: &mut Partitions) {
        while let Some(message) = partitions.poll_message() {
            let PeerMessage { tp, envelope, attached } = message;
            match attached {
                Attached::Nothing => self.peers.send(tp, envelope, Vec::new()),
                Attached::Frames(bytes) => self.peers.send(tp, envelope, vec![bytes]),
                Attached::StartOffset(offset) => self.peers.send_start(tp, &envelope, offset),
            }
        }
    }

    /// Sends a replica what it is due, or lets it wait for its turn.
    fn offer<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions, due: &DueSend) {
        let wall_ms = plane.wall_clock_ms();
        let peer = self.peers.owner(due.to.node, due.tp);
        if peer.is_some_and(|peer| self.peers.is_changing(peer)) {
            // It is listed again when the partition has handled the change.
            return;
        }
        let reached = peer.and_then(|peer| Some((peer, self.peers.session_with(peer, due.to)?)));
        let Some((peer, session)) = reached else { return self.report_lost(plane, partitions, due) };
        let Some(source) = due.entries else { return partitions.send_news(due) };
        match self.peers.offer(peer, route_of(due.tp, due.from, due.to), source) {
            Some(Offer::Now(bytes)) => {
                let grant = Grant { bytes, session: session.0, is_reserved: false };
                partitions.send_entries(plane, (due.tp, due.to), grant, wall_ms);
            }
            Some(Offer::Later) => partitions.park(due),
            None => self.report_lost(plane, partitions, due),
        }
    }

    /// Sends the entries of a partition whose turn it is, or begins to read them.
    fn take_turn<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        partitions: &mut Partitions,
        peer: PeerShard,
        (route, bytes, session): (&Route, usize, SessionNumber),
    ) {
        let tp = route.partition;
        let to = ReplicaId { node: peer.node, incarnation: route.to };
        let grant = Grant { bytes, session: session.0, is_reserved: true };
        let wall_ms = plane.wall_clock_ms();
        let outcome = if self.peers.owner(peer.node, tp) == Some(peer) {
            partitions.send_entries(plane, (tp, to), grant, wall_ms)
        } else {
            SendOutcome::Nothing
        };
        self.post(partitions);
        if outcome == SendOutcome::Nothing {
            // Perhaps it has stopped leading, because its log cannot be read.
            self.has_changed = true;
            self.peers.cancel(peer, session, route);
        }
    }

    /// Sends what was read for a replica, unless the session for which it was read has ended.
    fn finish_read<M>(&mut self, plane: &mut dyn Plane<M>, partitions: &mut Partitions, read: FinishedRead) {
        let session = SessionNumber(read.grant.session);
        let route = route_of(read.tp, read.from, read.to);
        let owner = self.peers.owner(read.to.node, read.tp);
        let peer = owner.filter(|peer| self.peers.session_with(*peer, read.to) == Some(session));
        let is_reserved = read.grant.is_reserved;
        let may_send = peer.is_some_and(|peer| is_reserved || self.peers.credit(peer) > 0);
        let wall_ms = plane.wall_clock_ms();
        let outcome = partitions.finish_read(plane, read, may_send, wall_ms);
        self.post(partitions);
        self.has_changed |= outcome == SendOutcome::Nothing;
        if let Some(peer) = peer.filter(|_| is_reserved && outcome == SendOutcome::Nothing) {
            self.peers.cancel(peer, session, &route);
        }
    }
}

fn route_of(partition: highwater_protocol::ids::TopicPartition, from: ReplicaId, to: ReplicaId) -> Route {
    Route { partition, from: from.incarnation, to: to.incarnation }
}
