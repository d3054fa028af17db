//! The way to one shard of another node: its channel, or the attempts to get one.

use highwater_replication::peer::{
    Attempt, Channel, CloseReason, Dialer, Event, Goodbye, Lent, PeerShard, Refusal,
};
use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::{Close, ConnId, Instant, Net, Plane};

use super::{PeerEvent, Peers, SessionNumber};
use crate::limits::PEER_SOCKET_BYTES_MAX;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The attempts, if this side opens the connection.
    pub(super) dialer: Option<Dialer>,
    /// The connection that is being opened, and the number of the attempt.
    pub(super) connecting: Option<(ConnId, u32)>,
    pub(super) open: Option<Box<Open>>,
    /// When there was a channel last, or when this side began to look for one.
    pub(super) seen: Option<Instant>,
    /// Changes of reachability that not all partitions have handled.
    pub(super) changes: usize,
    /// The last warning, which is not repeated.
    pub(super) warned: String,
}

/// A connection with a channel.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) conn: ConnId,
    pub(super) channel: Channel,
    pub(super) session: SessionNumber,
    /// The identity of the replicas that the session reaches, after the handshake.
    pub(super) replica: Option<ReplicaId>,
    /// The attempt of the peer, if it has opened the connection.
    pub(super) attempt: Option<Attempt>,
    /// Bytes that the connection has not sent.
    pub(super) queued: usize,
}

impl Link {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let channel = self.open.as_ref().and_then(|open| open.channel.next_deadline());
        let dialer = self.dialer.as_ref().and_then(Dialer::next_deadline);
        channel.into_iter().chain(dialer).min()
    }
}

impl Open {
    /// Hands what was sent over to the connection, while it takes it. Returns how many bytes.
    pub(super) fn flush<M>(&mut self, plane: &mut dyn Plane<M>) -> usize {
        let mut sent = 0;
        while self.queued < PEER_SOCKET_BYTES_MAX
            && let Some(bytes) = self.channel.poll_output(plane.now())
        {
            self.queued += bytes.len();
            sent += bytes.len();
            plane.send(self.conn, bytes);
        }
        sent
    }

    /// Receives the rest of a large frame directly into its pages, if one is being received.
    pub(super) fn lend_pages(&mut self, net: &mut dyn Net) -> usize {
        let Some(Lent { pages, filled, end }) = self.channel.lend_pages() else { return 0 };
        net.recv_into(self.conn, pages, filled, end);
        end - filled
    }
}

impl Peers {
    /// Takes the events of a channel. Handles those of the connection.
    pub(super) fn pump<M>(&mut self, plane: &mut dyn Plane<M>, peer: PeerShard) {
        let mut reason = None;
        while let Some(link) = self.links.get_mut(&peer)
            && let Some(open) = link.open.as_deref_mut()
            && let Some(event) = open.channel.poll_event()
        {
            let session = open.session;
            let event = match event {
                Event::Established(established) => {
                    let replica = ReplicaId { node: peer.node, incarnation: established.incarnation };
                    open.replica = Some(replica);
                    self.directory.note_incarnation(replica);
                    if let Some(dialer) = &mut link.dialer {
                        dialer.handle_established(plane.now());
                    }
                    link.changes += 1;
                    link.warned.clear();
                    tracing::info!(node = peer.node.0, shard = peer.shard.0, "connected to a peer");
                    self.counted.sessions += 1;
                    self.is_rearming = true;
                    PeerEvent::Reachable(replica)
                }
                Event::PeerLost => {
                    link.seen = Some(plane.now());
                    link.changes += 1;
                    self.counted.lost += 1;
                    PeerEvent::Lost(open.replica.expect("the handshake was complete"))
                }
                Event::Message(incoming) => PeerEvent::Message(session, Box::new(incoming)),
                Event::Controller { kind, body } => PeerEvent::Controller { session, kind, body },
                Event::Leaders(news) => PeerEvent::Leaders(session, news),
                Event::Elsewhere { route, shard } => PeerEvent::Elsewhere { route, shard },
                Event::Repair(repair) => {
                    // No replica asks for frames in the middle of its log yet.
                    open.channel.release(repair.frames_bytes);
                    continue;
                }
                Event::Closed(why) => {
                    reason = Some(why);
                    continue;
                }
            };
            self.push_event(peer, event);
        }
        if let Some(reason) = reason {
            self.end(plane, peer, &reason);
        }
    }

    /// Ends the connection of a channel that is closed. Its last message leaves.
    fn end<M>(&mut self, plane: &mut dyn Plane<M>, peer: PeerShard, reason: &CloseReason) {
        let random = plane.random_u64();
        let now = plane.now();
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(mut open) = link.open.take() else { return };
        if let Some(dialer) = &mut link.dialer {
            dialer.handle_closed(now, random);
        }
        self.conns.remove(&open.conn);
        while let Some(bytes) = open.channel.poll_output(now) {
            plane.send(open.conn, bytes);
        }
        plane.close(open.conn, Close::AfterSends);
        self.is_rearming = true;
        match reason {
            // Reported with the text that says what was violated.
            CloseReason::Local(_) => {}
            CloseReason::Violation(_) => {
                self.counted.violations += 1;
                self.warn(peer, &reason.to_string());
            }
            CloseReason::Refused(Refusal::Shard { shards }) => {
                tracing::info!(node = peer.node.0, shards, "the number of a node's shards has changed");
                self.directory.set_shards(peer.node, *shards);
                self.sync_links(plane);
            }
            CloseReason::Refused(Refusal::Superseded)
            | CloseReason::Goodbye { why: Goodbye::Stopping | Goodbye::Replaced, .. } => {
                tracing::debug!(
                    node = peer.node.0,
                    shard = peer.shard.0,
                    "disconnected from a peer: {reason}"
                );
            }
            CloseReason::Refused(_)
            | CloseReason::Goodbye { why: Goodbye::Violation, .. }
            | CloseReason::QueueFull(_) => self.warn(peer, &reason.to_string()),
            _ => {
                tracing::info!(
                    node = peer.node.0,
                    shard = peer.shard.0,
                    "disconnected from a peer: {reason}"
                );
            }
        }
    }

    /// Logs why a peer's channel ended, once while that stays the same.
    pub(super) fn warn(&mut self, peer: PeerShard, text: &str) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.warned != text {
            text.clone_into(&mut link.warned);
            tracing::warn!(node = peer.node.0, shard = peer.shard.0, "disconnected from a peer: {text}");
        }
    }
}
