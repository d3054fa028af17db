//! Three brokers whose metadata is replicated: every node has the same, whichever of them lead, crash or are cut off.

use std::net::SocketAddr;
use std::time::Duration;

use highwater_engine::groups::GroupConfig;
use highwater_engine::limits::ShardLimits;
use highwater_engine::meta::Node;
use highwater_engine::shard::Shard;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::NodeId;
use highwater_protocol::native::{
    Body, CreateTopicRequest, DeleteTopicRequest, MetadataReply, MetadataRequest,
};
use highwater_runtime::sim::{CrashPolicy, NodeConfig, SimNode, WorldConfig};
use highwater_storage::DurableForm;

use crate::node::World;
use crate::sim_node::{self, Members, NodeSetup};
use crate::wire::Wire;

pub(crate) const NODES: u32 = 3;
const SHARDS: u16 = 2;
const FOUNDER: NodeId = NodeId(0);
/// Virtual time within which nodes agree once nothing is in the way.
const AGREE_TIME_MAX: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A topic: its name, the number of its partitions, and that of the replicas of each.
pub(crate) type Listed = (String, usize, usize);

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) nodes: Vec<SimNode>,
    members: Members,
}

impl Cluster {
    /// Starts the founder, and then the others, which have joined it.
    pub(crate) fn start(seed: u64) -> Self {
        let mut world = World::new(WorldConfig::new(seed));
        let members = Members::default();
        let durable_form =
            if seed.is_multiple_of(2) { DurableForm::Dsync } else { DurableForm::SyncPerRound };
        let setup = NodeSetup {
            limits: ShardLimits::tiny(),
            durable_form,
            default_partitions: 1,
            groups: GroupConfig::default(),
        };
        let ids = (0..NODES).map(NodeId);
        let config = || NodeConfig::new(SHARDS, 3);
        let nodes: Vec<SimNode> = ids
            .map(|id| sim_node::add_joined(&mut world, config(), &setup, (FOUNDER, id), &members))
            .collect();
        sim_node::introduce(&world, &nodes, SHARDS, &members);
        let mut cluster = Self { world, nodes, members };
        cluster.world.start(cluster.nodes[0]).expect("it starts");
        assert_eq!(cluster.agreed(&[0]), []);
        for number in 1..NODES {
            cluster.admit(number);
            cluster.world.start(cluster.nodes[number as usize]).expect("it starts");
        }
        cluster
    }

    /// Registers a node with the founder, as it is when it has joined.
    fn admit(&mut self, number: u32) {
        let node = sim_node::registration(NodeId(number), SHARDS, &self.members);
        self.world.app_mut(self.nodes[0], 0).expect("it runs").admit(node);
    }

    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        self.world.address(self.nodes[number], 0)
    }

    /// Sends a request to a node, and again while it fails with an error that says so. Returns the reply; `None` if the node does not reply.
    pub(crate) fn call(&mut self, number: usize, request: &impl Body) -> Option<Vec<u8>> {
        let until = self.world.now().after(AGREE_TIME_MAX);
        let mut last = String::new();
        while self.world.now() < until {
            let address = self.address(number);
            let mut wire = Wire::connect(&mut self.world, address, None);
            wire.send(request);
            match wire.wait(&mut self.world)?.body {
                Ok(body) => return Some(body),
                // The first attempt may have taken effect.
                Err((ErrorCode::TopicExists, _)) if !last.is_empty() => return Some(Vec::new()),
                Err((code, text)) => {
                    assert!(code.is_retryable(), "{text}");
                    last = text;
                }
            }
            self.world.run_for(POLL_INTERVAL);
        }
        panic!("node {number} answers: {last}");
    }

    /// Creates a topic through a node.
    fn create(&mut self, number: usize, name: &str, replicas: u8) {
        self.call(number, &new_topic(name, replicas)).expect("it replies");
    }

    fn listed(&mut self, number: usize) -> Vec<Listed> {
        let body = self.call(number, &MetadataRequest { topics: None }).expect("it replies");
        let reply = MetadataReply::decode(&body).expect("a reply");
        let topics = reply.topics.into_iter().filter(|topic| !topic.name.starts_with("__"));
        topics
            .map(|topic| {
                let replicas =
                    self.world.app(self.nodes[number], 0).expect("it runs").replicas_of(&topic.name);
                (topic.name, topic.partitions.len(), replicas)
            })
            .collect()
    }

    /// Waits until these nodes list the same topics and have applied as many records. Returns the topics.
    pub(crate) fn agreed(&mut self, numbers: &[usize]) -> Vec<Listed> {
        let until = self.world.now().after(AGREE_TIME_MAX);
        loop {
            let all: Vec<_> = numbers.iter().map(|number| self.listed(*number)).collect();
            let applied: Vec<_> = numbers.iter().map(|number| self.applied(*number)).collect();
            let is_same = all.iter().all(|of| *of == all[0]) && applied.iter().all(|of| *of == applied[0]);
            if is_same {
                return all.into_iter().next().expect("there is a node");
            }
            assert!(self.world.now() < until, "nodes differ: {all:?}, {applied:?}");
            self.world.run_for(POLL_INTERVAL);
        }
    }

    /// Returns how many records of the metadata a node has applied.
    fn applied(&self, number: usize) -> Option<i64> {
        self.world.app(self.nodes[number], 0).and_then(Shard::metadata_end).map(|end| end.0)
    }

    /// Returns the node that leads the metadata, as the nodes that run see it.
    fn leader(&self) -> Option<usize> {
        let leads =
            |number: &usize| self.world.app(self.nodes[*number], 0).is_some_and(Shard::decides_metadata);
        (0..NODES as usize).find(leads)
    }

    fn wait_for_leader(&mut self) -> usize {
        let until = self.world.now().after(AGREE_TIME_MAX);
        loop {
            if let Some(leader) = self.leader() {
                return leader;
            }
            assert!(self.world.now() < until, "nobody leads the metadata");
            self.world.run_for(POLL_INTERVAL);
        }
    }
}

pub(crate) fn new_topic(name: &str, replicas: u8) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.into(),
        partitions: 2,
        configs: Vec::new(),
        validate_only: false,
        replicas: Some(replicas),
    }
}

fn topic(name: &str, replicas: usize) -> Listed {
    (name.to_owned(), 2, replicas)
}

#[test]
fn a_node_of_which_something_has_changed_has_the_leader_register_it_again() {
    let mut cluster = Cluster::start(2);
    cluster.agreed(&[0, 1, 2]);
    let before = cluster.applied(0).expect("it runs");
    let outdated =
        Node { rack: Some("outdated".into()), ..sim_node::registration(NodeId(2), SHARDS, &cluster.members) };
    let leader = cluster.wait_for_leader();
    cluster.world.app_mut(cluster.nodes[leader], 0).expect("it runs").admit(outdated);
    cluster.create(1, "a", 1);
    let has_rack = |world: &World, number: usize| {
        let nodes = world.app(cluster.nodes[number], 0).expect("it runs").nodes();
        nodes.iter().any(|node| node.id == NodeId(2) && node.rack.is_some())
    };
    let reached =
        cluster.world.run_until(AGREE_TIME_MAX, |world| (0..3).all(|number| !has_rack(world, number)));
    assert!(reached, "it is registered as it is");
    cluster.agreed(&[0, 1, 2]);
    assert!(cluster.applied(0) >= Some(before + 3), "two registrations and a topic");
}

#[test]
fn nodes_that_join_get_the_metadata_and_change_it_through_whichever_node_they_like() {
    let mut cluster = Cluster::start(1);
    assert_eq!(cluster.agreed(&[0, 1, 2]), []);
    cluster.create(2, "a", 3);
    assert_eq!(cluster.listed(2), [topic("a", 3)], "it exists on the node that was asked");
    cluster.create(0, "b", 1);
    assert_eq!(cluster.agreed(&[0, 1, 2]), [topic("a", 3), topic("b", 1)]);
    cluster.call(1, &DeleteTopicRequest { name: "b".into() }).expect("it replies");
    assert_eq!(cluster.agreed(&[0, 1, 2]), [topic("a", 3)]);
}

/// Kills the leader of the metadata, has others go on, and cuts the power of all.
pub(crate) fn leader_is_killed(seed: u64) {
    let mut cluster = Cluster::start(seed);
    cluster.agreed(&[0, 1, 2]);
    cluster.create(1, "a", 3);
    let killed = cluster.wait_for_leader();
    cluster.world.kill(cluster.nodes[killed]);
    let others: Vec<usize> = (0..NODES as usize).filter(|number| *number != killed).collect();
    cluster.create(others[1], "b", 2);
    let expected = [topic("a", 3), topic("b", 2)];
    assert_eq!(cluster.agreed(&others), expected);
    cluster.world.start(cluster.nodes[killed]).expect("it starts again");
    assert_eq!(cluster.agreed(&[0, 1, 2]), expected);
    for node in cluster.nodes.clone() {
        cluster.world.crash(node, CrashPolicy::LOSE_ALL);
    }
    for node in cluster.nodes.clone() {
        cluster.world.start(node).expect("it starts again");
    }
    assert_eq!(cluster.agreed(&[0, 1, 2]), expected);
    cluster.create(0, "c", 3);
    assert_eq!(cluster.agreed(&[0, 1, 2]), [topic("a", 3), topic("b", 2), topic("c", 3)]);
}

#[test]
fn the_metadata_goes_on_when_its_leader_is_killed_and_a_node_that_comes_back_gets_what_it_has_missed() {
    for seed in 0..4 {
        println!("seed {seed}");
        leader_is_killed(seed);
    }
}

/// Cuts off the leader of the metadata with a request that it has decided and nobody else has, and has others go on.
pub(crate) fn leader_is_cut_off(seed: u64) {
    let mut cluster = Cluster::start(seed);
    cluster.agreed(&[0, 1, 2]);
    let cut_off = cluster.wait_for_leader();
    let others: Vec<usize> = (0..NODES as usize).filter(|number| *number != cut_off).collect();
    let address = cluster.address(cut_off);
    let mut waiting = Wire::connect(&mut cluster.world, address, None);
    cluster.world.run_for(POLL_INTERVAL);
    for other in &others {
        cluster.world.cut(cluster.nodes[cut_off], cluster.nodes[*other]);
    }
    waiting.send(&new_topic("lost", 1));
    cluster.world.run_for(POLL_INTERVAL);
    for name in ["a", "b", "c"] {
        cluster.create(others[0], name, 2);
    }
    let expected = ["a", "b", "c"].map(|name| topic(name, 2));
    assert_eq!(cluster.agreed(&others), expected);
    cluster.world.heal_network();
    assert_eq!(cluster.agreed(&[0, 1, 2]), expected);
    let reply = waiting.wait(&mut cluster.world).expect("a reply").body;
    assert!(matches!(&reply, Err((code, _)) if code.is_retryable()), "{reply:?}");
}

#[test]
fn a_leader_that_is_cut_off_decides_nothing_and_follows_when_it_is_back() {
    for seed in 0..4 {
        println!("seed {seed}");
        leader_is_cut_off(seed);
    }
}
