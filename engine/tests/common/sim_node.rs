//! A broker's node in a simulated world.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use highwater_engine::IpAddresses;
use highwater_engine::counters::ShardCounters;
use highwater_engine::data_dir::{self, DataDir, Identity};
use highwater_engine::groups::GroupConfig;
use highwater_engine::limits::ShardLimits;
use highwater_engine::meta::Node;
use highwater_engine::setup::{KafkaSetup, PeerNode, PeerSetup, ShardSetup};
use highwater_engine::shard::Shard;
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::DiskId;
use highwater_runtime::sim::{NodeConfig, SimNode, SimWorld};
use highwater_storage::DurableForm;

/// The directory of a simulated broker's data.
pub(crate) const DATA_DIR: &str = "/data";

/// The settings of a broker that tests choose.
#[derive(Clone, Copy)]
pub(crate) struct NodeSetup {
    pub(crate) limits: ShardLimits,
    pub(crate) durable_form: DurableForm,
    /// Default number of partitions of new topics.
    pub(crate) default_partitions: u32,
    pub(crate) groups: GroupConfig,
}

/// The nodes of a cluster, known to all of them when they start.
pub(crate) type Members = Rc<RefCell<Vec<PeerNode>>>;

/// Adds a broker without starting it. Listener 0 is the native one, listener 1 Kafka's.
pub(crate) fn add(world: &mut SimWorld<Shard>, config: NodeConfig, node: &NodeSetup) -> SimNode {
    add_node(world, config, node, (NodeId(0), NodeId(0)), None)
}

/// Adds a broker, as [`add`] does, that is a cluster of its own and knows other nodes. Listener 2 is the one for them.
#[allow(dead_code, reason = "not every test has several nodes")]
pub(crate) fn add_member(
    world: &mut SimWorld<Shard>,
    config: NodeConfig,
    node: &NodeSetup,
    id: NodeId,
    members: &Members,
) -> SimNode {
    add_node(world, config, node, (id, id), Some(Rc::clone(members)))
}

/// The same, of a broker that has joined the cluster of another one.
#[allow(dead_code, reason = "not every test has several nodes")]
pub(crate) fn add_joined(
    world: &mut SimWorld<Shard>,
    config: NodeConfig,
    node: &NodeSetup,
    (founder, id): (NodeId, NodeId),
    members: &Members,
) -> SimNode {
    add_node(world, config, node, (founder, id), Some(Rc::clone(members)))
}

/// Lets brokers with this number of shards know each other when they start: they have the ids from 0 on.
#[allow(dead_code, reason = "not every test has several nodes")]
pub(crate) fn introduce(world: &SimWorld<Shard>, nodes: &[SimNode], shards: u16, members: &Members) {
    let member = |(id, node): (u32, &SimNode)| PeerNode {
        id: NodeId(id),
        address: world.address(*node, 2).into(),
        shards,
    };
    *members.borrow_mut() = (0..).zip(nodes).map(member).collect();
}

/// Returns how a node registers itself.
pub(crate) fn registration(id: NodeId, shards: u16, members: &Members) -> Node {
    let members = members.borrow();
    let member = members.iter().find(|member| member.id == id);
    Node {
        id,
        incarnation: 0,
        disk: disk(id),
        rack: None,
        clients: Vec::new(),
        peer: member.map(|member| member.address.clone()),
        shards,
    }
}

fn disk(id: NodeId) -> DiskId {
    DiskId([id.0 as u8 + 8; 16])
}

fn add_node(
    world: &mut SimWorld<Shard>,
    config: NodeConfig,
    node: &NodeSetup,
    (founder, id): (NodeId, NodeId),
    members: Option<Members>,
) -> SimNode {
    let node = *node;
    let shards = config.shards;
    let mut setup: Option<Arc<ShardSetup>> = None;
    world.add_node(config, move |shard, plane| {
        if shard == 0 {
            let data_dir = Path::new(DATA_DIR);
            let new = Identity { founder, ..Identity::founder(ClusterId([7; 16]), id, disk(id)) };
            let data = data_dir::open(plane, data_dir, new)?;
            let registration = registration(id, shards, &members.clone().unwrap_or_default());
            let peers = members
                .as_ref()
                .map(|members| PeerSetup { first_listener: 2, nodes: members.borrow().clone() });
            setup = Some(Arc::new(setup_of(&node, &data, registration, peers)));
        }
        let setup = setup.as_ref().expect("shard 0 comes first");
        Ok(Shard::open(plane, setup)?)
    })
}

/// Returns what the shards of a node share, which registers itself like this.
pub(crate) fn setup_of(
    node: &NodeSetup,
    data: &DataDir,
    registration: Node,
    peers: Option<PeerSetup>,
) -> ShardSetup {
    let shards = registration.shards;
    ShardSetup {
        data_dir: data.path.clone(),
        identity: data.identity,
        registration,
        shards,
        stores: data.stores.max(shards),
        limits: node.limits,
        durable_form: node.durable_form,
        counters: ShardCounters::of_shards(shards),
        advertised: vec![None, None, None],
        kafka: KafkaSetup {
            first_listener: 1,
            default_partitions: node.default_partitions,
            ..KafkaSetup::default()
        },
        peers,
        names: Arc::new(IpAddresses),
        groups: node.groups,
        groups_partitions: 16,
        on_ready: Box::new(|_| {}),
    }
}
