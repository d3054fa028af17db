//! Who leads what: this shard's part of the leader table. Shard 0 has the table itself, and the others its snapshots.

use highwater_protocol::ids::{LeaderEpoch, NodeId, ShardId, TopicPartition};
use highwater_replication::peer::LeaderStatement;
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::timers::Timer;
use crate::context::{Clients, nodes_for};
use crate::kafka::LeaderHints;
use crate::limits::LEADERS_REPORTED_PER_TURN_MAX;
use crate::message::Message;
use crate::meta::{Leadership, NodeProtocol, Targets};
use crate::peers::LeaderTable;
use crate::setup::ShardSetup;

/// Returns the leader table of a broker that connects to others, on its shard 0.
pub(super) fn open_table(plane: &mut dyn Plane<Message>, setup: &ShardSetup) -> Option<Box<LeaderTable>> {
    let peers = setup.peers.as_ref().filter(|_| plane.shard() == 0)?;
    let mut table = LeaderTable::new(setup.identity.node);
    table.handle_nodes(plane.now(), peers.nodes.iter().map(|node| node.id));
    Some(Box::new(table))
}

impl Shard {
    /// Reports what this shard's partitions lead; on shard 0, tells the other nodes and publishes the table. Called once a turn, before the channels send. Returns
    /// whether there is more.
    pub(super) fn run_leaders(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if self.peers.is_none() {
            return false;
        }
        let reports = self.partitions.poll_reports(LEADERS_REPORTED_PER_TURN_MAX);
        if !reports.is_empty() {
            match &mut self.leader_table {
                Some(table) => table.handle_local(reports),
                None => plane.post(0, Message::Led(reports)),
            }
        }
        let more = self.partitions.has_reports();
        let (Some(exchange), Some(table)) = (&mut self.peers, &mut self.leader_table) else { return more };
        while let Some((node, event)) = exchange.poll_node_event() {
            table.handle_event(plane.now(), node, event);
        }
        for (node, session, news) in table.poll_news() {
            exchange.peers.send_leaders(node, session, &news);
        }
        if let Some(leaders) = table.poll_leaders() {
            for shard in 1..plane.shards() {
                plane.post(shard, Message::Leaders(leaders.clone()));
            }
            if let Some(lead) = &mut self.lead {
                lead.controller.set_offline(leaders.offline().collect());
            }
            self.leaders = leaders;
        }
        if let Some(at) = table.next_deadline() {
            self.timers.set(plane, at, Timer::Nodes);
        }
        more || table.has_news()
    }

    /// Handles what the partitions of another shard lead.
    pub(super) fn handle_led(&mut self, statements: Vec<LeaderStatement>) {
        if let Some(table) = &mut self.leader_table {
            table.handle_local(statements);
        }
    }

    /// Handles that a node may have been out of reach for too long.
    pub(super) fn nodes_are_due(&mut self, plane: &mut dyn Plane<Message>) {
        if let Some(table) = &mut self.leader_table {
            table.handle_time(plane.now());
        }
    }

    /// Returns a finder for the topics and partitions that requests name.
    pub(super) fn targets(&self) -> Targets<'_> {
        Targets::new(self.metadata.as_ref(), &self.leaders, self.setup.shards)
    }

    /// Returns who leads the partitions of topics; `None` before the metadata is published.
    pub(super) fn leadership(&self) -> Option<Leadership> {
        Some(Leadership::new(self.metadata.as_ref()?, &self.leaders, self.setup.shards))
    }

    /// Returns a finder of the leaders that responses to a Kafka client name. `None`: nobody waits for the response.
    pub(super) fn leader_hints(&self, conn: ConnId) -> Option<LeaderHints> {
        let address = self.connections.advertised_to(conn, &self.setup.advertised)?;
        let here = (&self.setup.registration, address);
        let nodes = nodes_for(here, self.metadata.as_ref(), &self.leaders, NodeProtocol::Kafka);
        Some(LeaderHints::new(self.leadership()?, nodes))
    }

    /// Returns the node and its shard that lead a partition, and the leader epoch, as far as this shard has been told.
    pub fn known_leader(&self, partition: TopicPartition) -> Option<(NodeId, ShardId, LeaderEpoch)> {
        let led = self.leaders.get(partition)?;
        led.leader.map(|place| (place.node, place.shard, led.epoch))
    }

    /// Returns whether a node cannot be reached from this one.
    pub fn is_offline(&self, node: NodeId) -> bool {
        self.leaders.is_offline(node)
    }
}
