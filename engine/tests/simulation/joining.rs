//! Nodes with empty disks that found a cluster together, or join one: the same processes as the program runs, over a network that fails.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_engine::data_dir::{self, Identity, Membership};
use highwater_engine::groups::GroupConfig;
use highwater_engine::join::{JoinEnd, Joining};
use highwater_engine::limits::{NODE_MISSED_AFTER, ShardLimits};
use highwater_engine::message::Message;
use highwater_engine::meta::Node;
use highwater_engine::setup::{PeerNode, PeerSetup, ShardSetup};
use highwater_engine::shard::Shard;
use highwater_engine::{HostPort, IpAddresses};
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{
    Contact, DiskId, JoinReply, JoinRequest, Joined, JoinerConfig, Membership as Admitted, Registration,
    SeedList,
};
use highwater_runtime::BoxError;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::sim::{CrashPolicy, Latency, NodeConfig, SimNode, SimWorld, WorldConfig};
use highwater_storage::DurableForm;
use rand::RngExt as _;

use crate::sim_node::{NodeSetup, setup_of};

const SHARDS: u16 = 2;
const STEP: Duration = Duration::from_millis(20);
/// Maximum time until all nodes are members.
const LIMIT: Duration = Duration::from_mins(1);

/// What a shard of a process runs.
#[expect(clippy::large_enum_variant, reason = "there are few, and most of them are brokers")]
enum App {
    Broker(Shard),
    Joining(Joining),
    /// The other shards of a node that joins.
    Idle,
}

/// A node, as its operator and its disk know it.
struct State {
    seeds: Vec<String>,
    wanted: Option<NodeId>,
    /// Number of its disk: each has a directory of its own.
    disk: u32,
    end: Option<JoinEnd>,
    /// Set when it starts as a broker.
    identity: Option<Identity>,
}

struct Cluster {
    world: SimWorld<App>,
    nodes: Vec<SimNode>,
    states: Vec<Arc<Mutex<State>>>,
}

impl Cluster {
    /// Creates nodes that are not started. All of them have the first `seeds` of them as seeds.
    fn new(seed: u64, nodes: usize, seeds: usize) -> Self {
        let mut cluster =
            Self { world: SimWorld::new(WorldConfig::new(seed)), nodes: Vec::new(), states: Vec::new() };
        for _ in 0..nodes {
            cluster.add();
        }
        let seeds: Vec<String> = (0..seeds).map(|node| cluster.address(node).to_string()).collect();
        for node in 0..nodes {
            cluster.state(node).seeds.clone_from(&seeds);
        }
        cluster
    }

    fn add(&mut self) {
        let state = State { seeds: Vec::new(), wanted: None, disk: 0, end: None, identity: None };
        let state = Arc::new(Mutex::new(state));
        let address = SocketAddr::from(([10, 0, 0, self.nodes.len() as u8 + 1], 9002));
        let mut setup = None;
        let make = {
            let state = Arc::clone(&state);
            move |shard: ShardIndex, plane: &mut dyn Plane<Message>| {
                if shard == 0 {
                    setup = prepare(plane, &state, address)?;
                }
                match &setup {
                    Some(setup) => Ok(App::Broker(Shard::open(plane, setup)?)),
                    None if shard == 0 => Ok(App::Joining(joining(plane, &state, address)?)),
                    None => {
                        plane.stop_accepting();
                        Ok(App::Idle)
                    }
                }
            }
        };
        let node = self.world.add_node(NodeConfig::new(SHARDS, 3), make);
        assert_eq!(self.world.address(node, 2), address);
        self.nodes.push(node);
        self.states.push(state);
    }

    fn state(&self, node: usize) -> std::sync::MutexGuard<'_, State> {
        self.states[node].lock().expect("nothing has panicked")
    }

    fn address(&self, node: usize) -> SocketAddr {
        self.world.address(self.nodes[node], 2)
    }

    fn start(&mut self, node: usize) {
        self.world.start(self.nodes[node]).expect("it starts");
    }

    fn is_up(&self, node: usize) -> bool {
        self.world.end(self.nodes[node]).is_none()
    }

    fn kill(&mut self, node: usize) {
        if self.is_up(node) {
            self.world.kill(self.nodes[node]);
        }
    }

    /// Gives a node another disk, which is empty.
    fn replace_disk(&mut self, node: usize) {
        self.kill(node);
        let mut state = self.state(node);
        state.disk += 1;
        (state.end, state.identity) = (None, None);
    }

    fn broker(&self, node: usize) -> Option<&Shard> {
        match self.world.app(self.nodes[node], 0) {
            Some(App::Broker(shard)) => Some(shard),
            _ => None,
        }
    }

    /// Starts the brokers of nodes that have become members.
    fn start_brokers(&mut self) {
        for node in 0..self.nodes.len() {
            let has_joined = matches!(self.state(node).end, Some(JoinEnd::Joined(_)));
            if has_joined && self.broker(node).is_none() {
                self.kill(node);
                self.start(node);
            }
        }
    }

    /// Runs for a while. Nodes that become members start their brokers.
    fn run_for(&mut self, time: Duration) {
        let until = self.world.now().after(time);
        while self.world.now() < until {
            self.world.run_for(STEP);
            self.start_brokers();
        }
    }

    /// Runs until all of these nodes are members, and returns who they are.
    fn join_all(&mut self, nodes: &[usize]) -> Vec<Identity> {
        let until = self.world.now().after(LIMIT);
        while !nodes.iter().all(|node| self.broker(*node).is_some()) {
            assert!(self.world.now() < until, "not all nodes have joined: {:?}", self.ends());
            self.run_for(STEP);
        }
        nodes.iter().map(|node| self.state(*node).identity.expect("it is a member")).collect()
    }

    fn ends(&self) -> Vec<Option<JoinEnd>> {
        (0..self.nodes.len()).map(|node| self.state(node).end.clone()).collect()
    }

    /// Returns the ids and incarnations of the nodes that a member's metadata has.
    fn registered(&self, node: usize) -> Vec<(u32, u32)> {
        let nodes = self.broker(node).map(Shard::nodes).unwrap_or_default();
        nodes.iter().map(|node| (node.id.0, node.incarnation)).collect()
    }

    /// Runs until these members are connected, and for some time after that: their metadata has as many voters as it can.
    fn settle(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.wait_for_channels(*node, nodes.len() - 1);
        }
        self.run_for(Duration::from_secs(5));
    }

    /// Runs until a member has channels to all shards of so many other nodes.
    fn wait_for_channels(&mut self, node: usize, others: usize) {
        let count = others * usize::from(SHARDS * SHARDS);
        let of = |world: &SimWorld<App>, node| {
            let apps = (0..SHARDS).filter_map(|shard| world.app(node, shard));
            apps.map(|app| if let App::Broker(shard) = app { shard.channels() } else { 0 }).sum::<usize>()
        };
        let node = self.nodes[node];
        assert!(self.world.run_until(LIMIT, |world| of(world, node) == count), "{}", of(&self.world, node));
    }
}

/// Returns what the shards of a member share, as the program decides it; `None`: it has to join first.
fn prepare(
    plane: &mut dyn Plane<Message>,
    state: &Mutex<State>,
    address: SocketAddr,
) -> Result<Option<Arc<ShardSetup>>, BoxError> {
    let mut state = state.lock().expect("nothing has panicked");
    let state = &mut *state;
    let dir = PathBuf::from(format!("/data-{}", state.disk));
    let new = DiskId(random_id(plane));
    let (identity, contacts) = match (data_dir::membership(plane, &dir, new)?, state.end.take()) {
        (Membership::Member(identity, contacts), _) => (identity, contacts),
        (Membership::None(disk), Some(JoinEnd::Joined(Joined::Founder))) => {
            let node = state.wanted.unwrap_or(NodeId(0));
            (Identity::founder(ClusterId(random_id(plane)), node, disk), Vec::new())
        }
        (Membership::None(disk), Some(JoinEnd::Joined(Joined::Member(admitted, contacts)))) => {
            data_dir::keep_welcome(plane, &dir, admitted, contacts.clone())?;
            let Admitted { cluster, node, incarnation, founder } = admitted;
            (Identity { cluster, node, incarnation, founder, disk }, contacts)
        }
        _ => return Ok(None),
    };
    let data = data_dir::open(plane, &dir, identity)?;
    state.identity = Some(data.identity);
    let peers = PeerSetup { first_listener: 2, nodes: contacts.iter().map(peer_node).collect() };
    let node = NodeSetup {
        limits: ShardLimits::tiny(),
        durable_form: DurableForm::Dsync,
        default_partitions: 1,
        groups: GroupConfig::default(),
    };
    let registration = Node {
        id: data.identity.node,
        incarnation: data.identity.incarnation,
        disk: data.identity.disk,
        rack: None,
        clients: Vec::new(),
        peer: Some(HostPort::from(address)),
        shards: SHARDS,
    };
    let setup = setup_of(&node, &data, registration, Some(peers));
    Ok(Some(Arc::new(setup)))
}

fn peer_node(contact: &Contact) -> PeerNode {
    let address = contact.address.parse().expect("an IP address");
    PeerNode { id: contact.node, address, shards: contact.shards }
}

fn joining(
    plane: &mut dyn Plane<Message>,
    state: &Arc<Mutex<State>>,
    address: SocketAddr,
) -> Result<Joining, BoxError> {
    let known = state.lock().expect("nothing has panicked");
    let dir = PathBuf::from(format!("/data-{}", known.disk));
    let new = DiskId(random_id(plane));
    let Membership::None(disk) = data_dir::membership(plane, &dir, new)? else {
        return Err("a member does not ask".into());
    };
    let config = JoinerConfig {
        disk,
        node: known.wanted,
        member_of: None,
        registration: registration(address),
        seeds: known.seeds.clone(),
    };
    let state = Arc::clone(state);
    let on_end = Box::new(move |end| state.lock().expect("nothing has panicked").end = Some(end));
    Ok(Joining::new(plane, config, Arc::new(IpAddresses), on_end))
}

fn registration(address: SocketAddr) -> Registration {
    Registration { address: address.to_string(), shards: SHARDS, ..Registration::default() }
}

fn random_id(plane: &mut dyn Plane<Message>) -> [u8; 16] {
    let (low, high) = (plane.random_u64(), plane.random_u64());
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

/// Passes a call on to what a shard runs.
macro_rules! pass {
    ($app:expr, $method:ident($($argument:expr),*)) => {
        match $app {
            App::Broker(shard) => shard.$method($($argument),*),
            App::Joining(joining) => joining.$method($($argument),*),
            App::Idle => {}
        }
    };
}

impl ShardApp for App {
    type Message = Message;

    fn on_accept(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
    ) {
        pass!(self, on_accept(plane, conn, listener, peer));
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        token: Token,
        outcome: Result<(), ConnectError>,
    ) {
        pass!(self, on_connected(plane, conn, token, outcome));
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, data: &[u8]) {
        pass!(self, on_recv(plane, conn, data));
    }

    fn on_bulk(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, buf: AlignedBuf) {
        pass!(self, on_bulk(plane, conn, buf));
    }

    fn on_sent(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: usize) {
        pass!(self, on_sent(plane, conn, bytes));
    }

    fn on_closed(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, reason: CloseReason) {
        pass!(self, on_closed(plane, conn, reason));
    }

    fn on_disk(&mut self, plane: &mut dyn Plane<Message>, token: Token, completion: Completion) {
        pass!(self, on_disk(plane, token, completion));
    }

    fn on_message(&mut self, plane: &mut dyn Plane<Message>, from: ShardIndex, message: Message) {
        pass!(self, on_message(plane, from, message));
    }

    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
        payload: Message,
    ) {
        pass!(self, on_migrated(plane, conn, listener, peer, payload));
    }

    fn on_timer(&mut self, plane: &mut dyn Plane<Message>, token: Token) {
        pass!(self, on_timer(plane, token));
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<Message>) {
        match self {
            Self::Idle => plane.exit(),
            other => pass!(other, on_shutdown(plane)),
        }
    }

    fn on_turn_end(&mut self, plane: &mut dyn Plane<Message>) {
        pass!(self, on_turn_end(plane));
    }
}

#[test]
fn three_nodes_with_the_same_seeds_become_one_cluster_whatever_the_order_in_which_they_start() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut cluster = Cluster::new(1, 3, 3);
        for node in order {
            cluster.start(node);
            cluster.run_for(Duration::from_secs(2));
            assert!(
                node == order[2] || cluster.ends().iter().all(Option::is_none),
                "a seed has never been up"
            );
        }
        let members = cluster.join_all(&[0, 1, 2]);
        assert!(members.iter().all(|member| member.cluster == members[0].cluster), "{members:?}");
        assert!(members.iter().all(|member| member.founder == NodeId(0)), "{members:?}");
        assert_eq!(members[0].node, NodeId(0), "the first seed founds the cluster");
        cluster.wait_for_channels(0, 2);
        assert_eq!(cluster.registered(0), [(0, 0), (1, 0), (2, 0)]);
    }
}

#[test]
fn a_node_joins_a_cluster_of_one_later_with_the_id_that_it_wants() {
    let mut cluster = Cluster::new(2, 2, 1);
    cluster.state(1).wanted = Some(NodeId(7));
    cluster.start(0);
    let founder = cluster.join_all(&[0])[0];
    cluster.start(1);
    let joined = cluster.join_all(&[1])[0];
    assert_eq!((joined.cluster, joined.founder), (founder.cluster, founder.node));
    assert_eq!((joined.node, joined.incarnation), (NodeId(7), 0));
    cluster.wait_for_channels(0, 1);
    cluster.wait_for_channels(1, 1);
}

#[test]
fn a_member_that_starts_again_does_not_ask() {
    let mut cluster = Cluster::new(3, 2, 2);
    cluster.start(0);
    cluster.start(1);
    let before = cluster.join_all(&[0, 1]);
    cluster.kill(0);
    cluster.kill(1);
    cluster.state(1).seeds = vec!["10.9.9.9:1".to_owned()];
    cluster.start(1);
    cluster.start(0);
    assert_eq!(cluster.join_all(&[0, 1]), before);
    cluster.wait_for_channels(0, 1);
    assert_eq!(cluster.registered(0), [(0, 0), (1, 0)]);
}

#[test]
fn a_node_that_loses_the_reply_asks_again_and_is_the_same_member() {
    let mut repeated = 0;
    for delay in 0..40 {
        let mut cluster = Cluster::new(4, 2, 1);
        cluster.start(0);
        cluster.join_all(&[0]);
        cluster.start(1);
        // It dies at some time between the first connection and its first start as a member.
        cluster.world.run_for(Duration::from_micros(100 * delay));
        cluster.kill(1);
        cluster.run_for(Duration::from_secs(1));
        cluster.state(1).end = None;
        repeated += usize::from(cluster.registered(0).len() == 2);
        cluster.start(1);
        let joined = cluster.join_all(&[1])[0];
        assert_eq!((joined.node, joined.incarnation), (NodeId(1), 0), "after {delay}");
        assert_eq!(cluster.registered(0), [(0, 0), (1, 0)], "after {delay}");
    }
    assert!((1..40).contains(&repeated), "{repeated} of 40 nodes were registered when they died");
}

#[test]
fn a_node_with_an_emptied_disk_is_the_same_node_with_the_next_incarnation() {
    let mut cluster = Cluster::new(5, 3, 3);
    (0..3).for_each(|node| cluster.start(node));
    let before = cluster.join_all(&[0, 1, 2]);
    cluster.settle(&[0, 1, 2]);
    cluster.replace_disk(1);
    let died = cluster.world.now();
    cluster.start(1);
    let after = cluster.join_all(&[1])[0];
    assert!(cluster.world.now().since(died) >= NODE_MISSED_AFTER, "the old disk is missed first");
    assert_eq!((after.node, after.incarnation, after.cluster), (before[1].node, 1, before[0].cluster));
    assert_ne!(after.disk, before[1].disk);
    cluster.settle(&[0, 1, 2]);
    assert!(cluster.registered(0).contains(&(after.node.0, 1)));
}

#[test]
fn the_id_of_a_running_node_is_not_given_to_another_one() {
    let mut cluster = Cluster::new(6, 3, 1);
    cluster.state(1).wanted = Some(NodeId(5));
    cluster.state(2).wanted = Some(NodeId(5));
    cluster.start(0);
    cluster.join_all(&[0]);
    // Together: the second one is decided when the first is registered and maybe not connected yet.
    cluster.start(1);
    cluster.start(2);
    cluster.run_for(Duration::from_secs(20));
    let ends = cluster.ends();
    let refused: Vec<&String> = ends
        .iter()
        .filter_map(|end| match end {
            Some(JoinEnd::Refused(why)) => Some(why),
            _ => None,
        })
        .collect();
    assert_eq!(refused.len(), 1, "{ends:?}");
    assert!(refused[0].contains("node 5 is running at 10.0.0."), "{}", refused[0]);
    assert_eq!(cluster.registered(0), [(0, 0), (5, 0)]);
}

#[test]
fn nodes_with_different_seeds_found_nothing_until_they_agree() {
    let mut cluster = Cluster::new(7, 2, 2);
    let right = cluster.state(0).seeds.clone();
    cluster.state(1).seeds.reverse();
    cluster.start(0);
    cluster.start(1);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.ends(), [None, None]);
    cluster.kill(1);
    cluster.state(1).seeds = right;
    cluster.start(1);
    cluster.join_all(&[0, 1]);
}

#[test]
fn a_process_that_is_asked_to_stop_while_it_waits_stops() {
    let mut cluster = Cluster::new(8, 2, 2);
    cluster.start(0);
    cluster.run_for(Duration::from_secs(1));
    cluster.world.shutdown(cluster.nodes[0]);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.ends()[0], Some(JoinEnd::Stopped));
    assert!(!cluster.is_up(0));
}

/// A node has the same id and incarnation for ever once it was told, whatever the founder loses in a power cut right after the reply.
pub(crate) fn welcomes_are_durable() {
    let mut cluster = Cluster::new(9, 1, 1);
    cluster.start(0);
    cluster.join_all(&[0]);
    let slow = Duration::from_millis(20)..=Duration::from_millis(30);
    cluster.world.disk(cluster.nodes[0]).set_latency(Latency {
        sync: slow.clone(),
        write: slow,
        ..Latency::default()
    });
    let to = cluster.address(0);
    let mut given = Vec::new();
    for disk in 1..=4 {
        let registration = registration(SocketAddr::from(([10, 0, 0, 100 + disk], 9002)));
        let disk = DiskId([disk; 16]);
        let request = JoinRequest { disk, seeds: SeedList(0), node: None, member_of: None, registration };
        let membership = loop {
            let mut client = cluster.world.connect(to);
            client.send(request.encode());
            let mut received = Vec::new();
            let reply = loop {
                received.extend(client.receive());
                match JoinReply::take(&received) {
                    Ok(Some(reply)) => break Some(reply),
                    Ok(None) if client.end().is_none() => {}
                    other => panic!("{other:?}, {:?}", client.end()),
                }
                assert!(cluster.world.step(), "it replies");
            };
            match reply {
                Some(JoinReply::Welcome(membership, _)) => break membership,
                Some(JoinReply::NotNow(_)) => cluster.world.run_for(STEP),
                other => panic!("{other:?}"),
            }
        };
        assert!(!given.contains(&membership.node), "two disks are node {}", membership.node);
        given.push(membership.node);
        cluster.world.crash(cluster.nodes[0], CrashPolicy::LOSE_ALL);
        cluster.start(0);
    }
}

#[test]
fn a_welcome_survives_a_power_cut_of_the_founder_right_after_it() {
    welcomes_are_durable();
}

#[test]
fn whatever_fails_while_nodes_join_there_is_one_cluster_and_each_disk_is_one_incarnation() {
    for seed in highwater_runtime::sim::seeds("HIGHWATER_JOIN_SIM_SEEDS", 6) {
        println!("seed {seed}");
        let mut cluster = Cluster::new(seed, 4, 3);
        for _ in 0..60 {
            let (node, other) =
                (cluster.world.workload().random_range(0..4), cluster.world.workload().random_range(0..4));
            let (one, two) = (cluster.nodes[node], cluster.nodes[other]);
            match cluster.world.workload().random_range(0..9) {
                0..4 if !cluster.is_up(node) => cluster.start(node),
                4 => cluster.kill(node),
                5 if cluster.is_up(node) => {
                    let policy = CrashPolicy::LOSE_ALL;
                    cluster.world.crash(one, policy);
                }
                6 if node != other => cluster.world.cut(one, two),
                7 if node != other => cluster.world.reset_connections(one, two),
                8 => cluster.world.heal_network(),
                _ => {}
            }
            let time = cluster.world.workload().random_range(1..700);
            cluster.run_for(Duration::from_millis(time));
        }
        cluster.world.heal_network();
        (0..4)
            .filter(|node| !cluster.is_up(*node))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| cluster.start(node));
        let members = cluster.join_all(&[0, 1, 2, 3]);
        cluster.settle(&[0, 1, 2, 3]);
        assert!(members.iter().all(|member| member.cluster == members[0].cluster), "{members:?}");
        let ids = |members: &[Identity]| {
            let mut ids: Vec<(u32, u32)> =
                members.iter().map(|member| (member.node.0, member.incarnation)).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&members), cluster.registered(0), "seed {seed}");
        let replaced = (seed % 3) as usize + 1;
        cluster.replace_disk(replaced);
        cluster.start(replaced);
        let members = cluster.join_all(&[0, 1, 2, 3]);
        cluster.settle(&[0, 1, 2, 3]);
        assert_eq!(ids(&members), cluster.registered(0), "seed {seed}");
    }
}
