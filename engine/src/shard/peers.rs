//! Connections to other nodes, and what the partitions of this shard exchange over them. A broker that does not listen for other nodes has none of it.

use std::sync::Arc;

use highwater_protocol::ids::{ShardId, TopicPartition};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_replication::join::{JoinReply, NotNow};
use highwater_replication::peer::{Local, PeerShard, Settings};
use highwater_runtime::plane::{Close, ConnId, Plane};

use super::Shard;
use super::timers::Timer;
use crate::api::{ApiError, Join};
use crate::counters::Counters;
use crate::message::Message;
use crate::meta::{Node, Targets};
use crate::peers::{Arrival, Exchange, PeerNode};
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
    let mut exchange = Exchange::new(local, Settings::default(), Arc::clone(&setup.names));
    exchange.peers.set_nodes(plane, peers.nodes.clone());
    Some(Box::new(exchange))
}

/// Returns a node as this one connects to it, if it listens for others.
fn peer_node(node: &Node) -> Option<PeerNode> {
    Some(PeerNode { id: node.id, address: node.peer.clone()?, shards: node.shards })
}

/// Returns why a request to join cannot be decided now.
fn not_now(error: &ApiError) -> NotNow {
    match error {
        ApiError::Starting(_) => NotNow::Starting,
        ApiError::MetadataLogFull => NotNow::DiskFull,
        _ => NotNow::NoLeader,
    }
}

impl Shard {
    /// Connects to the nodes that the metadata has. They replace those that were known at the start.
    pub(super) fn update_nodes(&mut self, plane: &mut dyn Plane<Message>) {
        let (Some(exchange), Some(setup)) = (&mut self.peers, &self.setup.peers) else { return };
        let registered = self.metadata.iter().flat_map(|metadata| metadata.nodes().values());
        let nodes = setup.nodes.iter().cloned().chain(registered.filter_map(|node| peer_node(node)));
        let nodes: Vec<_> = nodes.collect();
        if let Some(table) = &mut self.leader_table {
            table.handle_nodes(plane.now(), nodes.iter().map(|node| node.id));
        }
        exchange.peers.set_nodes(plane, nodes);
    }

    /// Returns the nodes of the cluster, as far as this shard knows them.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.metadata.iter().flat_map(|metadata| metadata.nodes().values().cloned()).collect()
    }

    /// Returns the number of channels to shards of other nodes.
    pub fn channels(&self) -> usize {
        self.peers.as_ref().map_or(0, |exchange| exchange.peers.established())
    }

    /// Handles the first message of a connection to the listener for other nodes.
    pub(super) fn peer_arrived(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, arrival: Arrival) {
        match arrival {
            Arrival::Elsewhere(greeted) => {
                let hello = Message::PeerGreeted(Box::new(greeted.hello));
                plane.migrate(conn, greeted.shard.0, hello, greeted.unread);
            }
            Arrival::Join(request) => {
                self.context(plane).ask_for_shard(Join(request), move |context, reply| {
                    let reply = reply.unwrap_or_else(|error| JoinReply::NotNow(not_now(&error)));
                    context.plane.send(conn, reply.encode());
                    context.plane.close(conn, Close::AfterSends);
                });
            }
        }
    }

    /// Brings what was received from other nodes to the partitions, before the commit round begins. Returns whether there is more.
    pub(super) fn receive_from_peers(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Self { peers, partitions, metadata, leaders, setup, .. } = self;
        let Some(exchange) = peers else { return false };
        let targets = Targets::new(metadata.as_ref(), leaders, setup.shards);
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
