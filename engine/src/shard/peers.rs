//! Connections to other nodes, and what the partitions of this shard exchange over them. A broker that does not listen for other nodes has none of it.

use std::net::SocketAddr;

use highwater_protocol::ids::{ShardId, TopicPartition};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_replication::peer::{Local, PeerShard, Settings};
use highwater_runtime::plane::Plane;

use super::Shard;
use super::timers::Timer;
use crate::counters::Counters;
use crate::message::Message;
use crate::meta::{Node, Targets};
use crate::peers::{Exchange, PeerNode};
use crate::setup::ShardSetup;

/// Returns what a shard exchanges with other nodes; `None` if this broker does not listen for any.
pub(super) fn open(plane: &mut dyn Plane<Message>, setup: &ShardSetup) -> Option<Box<Exchange>> {
    let peers = setup.peers.as_ref()?;
    let me = setup.replica();
    let local = Local {
        cluster: setup.identity.cluster,
        me: PeerShard { node: me.node, shard: ShardId(plane.shard()) },
        incarnation: me.incarnation,
        shards: setup.shards,
        process: plane.random_u64(),
    };
    let mut exchange = Exchange::new(local, Settings::default());
    exchange.peers.set_nodes(plane, peers.nodes.clone());
    Some(Box::new(exchange))
}

/// Returns where other nodes reach a node, if it listens for them.
fn peer_node(node: &Node) -> Option<PeerNode> {
    let peer = node.peer.as_ref()?;
    let Ok(ip) = peer.host.parse() else {
        tracing::error!(node = node.id.0, "the address for other nodes is not an IP address: {peer}");
        return None;
    };
    Some(PeerNode { id: node.id, address: SocketAddr::new(ip, peer.port), shards: node.shards })
}

impl Shard {
    /// Connects to the nodes that the metadata has. They replace those that were known at the start.
    pub(super) fn update_nodes(&mut self, plane: &mut dyn Plane<Message>) {
        let (Some(exchange), Some(setup)) = (&mut self.peers, &self.setup.peers) else { return };
        let registered = self.metadata.iter().flat_map(|metadata| metadata.nodes().values());
        let nodes = setup.nodes.iter().copied().chain(registered.filter_map(|node| peer_node(node)));
        exchange.peers.set_nodes(plane, nodes.collect());
    }

    /// Returns the number of channels to shards of other nodes.
    pub fn channels(&self) -> usize {
        self.peers.as_ref().map_or(0, |exchange| exchange.peers.established())
    }

    /// Brings what was received from other nodes to the partitions, before the commit round begins. Returns whether there is more.
    pub(super) fn receive_from_peers(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Self { peers, partitions, metadata, setup, .. } = self;
        let Some(exchange) = peers else { return false };
        let targets = Targets::new(metadata.as_ref(), setup.shards);
        let owner_of = |tp: TopicPartition| {
            if tp == METADATA_PARTITION {
                return Some(ShardId(0));
            }
            let topic = targets.topic_by_id(tp.topic).ok()?;
            let (_, owner) = targets.partition(topic, tp.partition).ok()?;
            Some(ShardId(owner))
        };
        let more = exchange.receive(plane, partitions, &owner_of);
        self.receive_for_controller(plane);
        more
    }

    /// Sends what partitions have for other nodes, while the commit round runs. Returns whether there is more.
    pub(super) fn send_to_peers(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Some(exchange) = &mut self.peers else { return false };
        let more = exchange.send(plane, &mut self.partitions);
        if let Some(at) = exchange.poll_deadline() {
            self.timers.set(plane, at, Timer::Peers);
        }
        more
    }

    pub(super) fn peers_are_due(&mut self, plane: &mut dyn Plane<Message>) {
        if let Some(exchange) = &mut self.peers {
            exchange.handle_deadline(plane);
        }
    }

    /// Closes the channels to other nodes.
    pub(super) fn leave_peers(&mut self, plane: &mut dyn Plane<Message>) {
        if let Some(exchange) = &mut self.peers {
            exchange.peers.stop(plane);
        }
    }

    pub(super) fn count_peers(&self, now: &mut Counters) {
        let Some(exchange) = &self.peers else { return };
        let counted = exchange.peers.counted();
        now.peers = exchange.peers.established() as u64;
        now.peer_sessions = counted.sessions;
        now.peer_violations = counted.violations;
        now.peer_received = counted.received;
        now.peer_sent = counted.sent;
        now.elections = exchange.elections_begun();
    }
}
