//! Brokers that are nodes of a cluster: the channels between their shards.

use std::time::Duration;

use highwater_engine::groups::GroupConfig;
use highwater_engine::limits::ShardLimits;
use highwater_engine::shard::Shard;
use highwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, ShardId, TopicPartition};
use highwater_protocol::native::{Body as _, CreateTopicReply, CreateTopicRequest};
use highwater_runtime::sim::{NodeConfig, NodeEnd, SimNode, SimWorld, WorldConfig};
use highwater_storage::DurableForm;

use crate::sim_node::{self, Members, NodeSetup};
use crate::wire::Wire;

const NODES: u32 = 3;
const SHARDS: u16 = 2;
/// Channels of a node: from each of its shards to each shard of two others.
const CHANNELS: usize = (SHARDS * SHARDS * 2) as usize;

/// Time within which nodes have connected and told each other what they lead.
const REACHED_WITHIN: Duration = Duration::from_secs(10);

struct Cluster {
    world: SimWorld<Shard>,
    nodes: Vec<SimNode>,
}

impl Cluster {
    fn start() -> Self {
        let mut world = SimWorld::new(WorldConfig::new(5));
        let members = Members::default();
        let setup = NodeSetup {
            limits: ShardLimits::tiny(),
            durable_form: DurableForm::Dsync,
            default_partitions: 1,
            groups: GroupConfig::default(),
        };
        let ids = (0..NODES).map(NodeId);
        let nodes: Vec<SimNode> = ids
            .map(|id| sim_node::add_member(&mut world, NodeConfig::new(SHARDS, 3), &setup, id, &members))
            .collect();
        sim_node::introduce(&world, &nodes, SHARDS, &members);
        for node in &nodes {
            world.start(*node).expect("it starts");
        }
        Self { world, nodes }
    }

    fn channels(world: &SimWorld<Shard>, node: SimNode) -> usize {
        (0..SHARDS).filter_map(|shard| world.app(node, shard)).map(Shard::channels).sum()
    }

    /// Runs until each node has this many channels.
    fn wait_for(&mut self, channels: [usize; NODES as usize]) {
        let nodes = self.nodes.clone();
        let has_all = |world: &SimWorld<Shard>| {
            nodes.iter().zip(channels).all(|(node, count)| Self::channels(world, *node) == count)
        };
        let reached = self.world.run_until(REACHED_WITHIN, has_all);
        let found: Vec<_> = self.nodes.iter().map(|node| Self::channels(&self.world, *node)).collect();
        assert!(reached, "{found:?} channels instead of {channels:?}");
    }
}

#[test]
fn every_shard_has_a_channel_to_every_shard_of_the_other_nodes_and_finds_them_again() {
    let mut cluster = Cluster::start();
    cluster.wait_for([CHANNELS; 3]);
    let second = cluster.nodes[1];
    cluster.world.kill(second);
    cluster.wait_for([CHANNELS / 2, 0, CHANNELS / 2]);
    cluster.world.start(second).expect("it starts");
    cluster.wait_for([CHANNELS; 3]);
    let (first, third) = (cluster.nodes[0], cluster.nodes[2]);
    cluster.world.isolate(third);
    cluster.wait_for([CHANNELS / 2, CHANNELS / 2, 0]);
    cluster.world.rejoin(third);
    cluster.world.reset_connections(first, second);
    cluster.wait_for([CHANNELS; 3]);
}

#[test]
fn a_node_that_stops_says_goodbye_and_does_not_wait_for_the_others() {
    let mut cluster = Cluster::start();
    cluster.wait_for([CHANNELS; 3]);
    let first = cluster.nodes[0];
    cluster.world.shutdown(first);
    cluster.world.run_until(Duration::from_secs(10), |world| world.end(first).is_some());
    assert_eq!(cluster.world.end(first), Some(&NodeEnd::Exited));
    cluster.wait_for([0, CHANNELS / 2, CHANNELS / 2]);
}

#[test]
fn whatever_a_stranger_sends_to_the_listener_for_nodes_closes_its_connection_only() {
    let mut cluster = Cluster::start();
    cluster.wait_for([CHANNELS; 3]);
    let to = cluster.world.address(cluster.nodes[0], 2);
    for bytes in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0; 5000], &[0xff; 64]] {
        let mut client = cluster.world.connect(to);
        client.send(bytes);
        let closed = cluster.world.run_until(Duration::from_secs(5), |_| client.end().is_some());
        assert!(closed, "after {} bytes", bytes.len());
    }
    let silent = cluster.world.connect(to);
    let closed = cluster.world.run_until(Duration::from_secs(5), |_| silent.end().is_some());
    assert!(closed, "it says nothing");
    cluster.wait_for([CHANNELS; 3]);
}

#[test]
fn every_shard_knows_what_another_node_leads_and_that_it_is_out_of_reach() {
    const PARTITIONS: u32 = 5;
    let mut cluster = Cluster::start();
    let (first, second) = (cluster.nodes[0], cluster.nodes[1]);
    let address = cluster.world.address(first, 0);
    let mut wire = Wire::connect(&mut cluster.world, address, None);
    let (configs, validate_only) = (Vec::new(), false);
    let partitions = PARTITIONS;
    wire.send(&CreateTopicRequest { name: "t".into(), partitions, configs, validate_only, replicas: None });
    let body = wire.wait(&mut cluster.world).expect("an answer").body.expect("it is created");
    let topic = CreateTopicReply::decode(&body).expect("a reply").id;
    cluster.wait_for([CHANNELS; 3]);
    let known = |world: &SimWorld<Shard>, shard: u16, partition: u32| {
        let partition = PartitionIndex(partition);
        world.app(second, shard)?.known_leader(TopicPartition { topic, partition })
    };
    let all = || (0..SHARDS).flat_map(|shard| (0..PARTITIONS).map(move |partition| (shard, partition)));
    let is_on_first =
        |(node, shard, _): (NodeId, ShardId, LeaderEpoch)| node == NodeId(0) && shard.0 < SHARDS;
    let knows_all =
        |world: &SimWorld<Shard>| all().all(|(shard, n)| known(world, shard, n).is_some_and(is_on_first));
    let knows_none = |world: &SimWorld<Shard>| all().all(|(shard, n)| known(world, shard, n).is_none());
    assert!(cluster.world.run_until(REACHED_WITHIN, knows_all), "everything is told");
    cluster.world.kill(first);
    assert!(cluster.world.run_until(REACHED_WITHIN, knows_none), "nobody is sent to a node that is gone");
    assert!(cluster.world.app(second, 1).expect("it runs").is_offline(NodeId(0)));
    cluster.world.start(first).expect("it starts");
    assert!(cluster.world.run_until(REACHED_WITHIN, knows_all), "everything is told again");
    assert!(!cluster.world.app(second, 1).expect("it runs").is_offline(NodeId(0)));
}
