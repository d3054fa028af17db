//! The processes of nodes that join: what each of their shards runs, and the cluster that they become.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_engine::data_dir::{self, Identity, Membership};
use highwater_engine::groups::GroupConfig;
use highwater_engine::join::{JoinEnd, Joining};
use highwater_engine::limits::ShardLimits;
use highwater_engine::message::Message;
use highwater_engine::meta::Node;
use highwater_engine::setup::{PeerNode, PeerSetup, ShardSetup};
use highwater_engine::shard::Shard;
use highwater_engine::{HostPort, IpAddresses};
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{
    Contact, DiskId, Joined, JoinerConfig, Membership as Admitted, Registration,
};
use highwater_runtime::BoxError;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::sim::{NodeConfig, SimNode, SimWorld, WorldConfig};
use highwater_storage::DurableForm;

use crate::sim_node::{NodeSetup, setup_of};

pub(super) const SHARDS: u16 = 2;
pub(super) const STEP: Duration = Duration::from_millis(20);
/// Maximum time until all nodes are members.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// What a shard of a process runs.
#[expect(clippy::large_enum_variant, reason = "there are few, and most of them are brokers")]
pub(super) enum App {
    Broker(Shard),
    Joining(Joining),
    /// The other shards of a node that joins.
    Idle,
}

/// A node, as its operator and its disk know it.
pub(super) struct State {
    pub(super) seeds: Vec<String>,
    pub(super) wanted: Option<NodeId>,
    /// Number of its disk: each has a directory of its own.
    pub(super) disk: u32,
    pub(super) end: Option<JoinEnd>,
    /// Set when it starts as a broker.
    pub(super) identity: Option<Identity>,
}

pub(super) struct Cluster {
    pub(super) world: SimWorld<App>,
    pub(super) nodes: Vec<SimNode>,
    pub(super) states: Vec<Arc<Mutex<State>>>,
}

impl Cluster {
    /// Creates nodes that are not started. All of them have the first `seeds` of them as seeds.
    pub(super) fn new(seed: u64, nodes: usize, seeds: usize) -> Self {
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

    pub(super) fn add(&mut self) {
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

    pub(super) fn state(&self, node: usize) -> std::sync::MutexGuard<'_, State> {
        self.states[node].lock().expect("nothing has panicked")
    }

    pub(super) fn address(&self, node: usize) -> SocketAddr {
        self.world.address(self.nodes[node], 2)
    }

    pub(super) fn start(&mut self, node: usize) {
        self.world.start(self.nodes[node]).expect("it starts");
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.world.end(self.nodes[node]).is_none()
    }

    pub(super) fn kill(&mut self, node: usize) {
        if self.is_up(node) {
            self.world.kill(self.nodes[node]);
        }
    }

    /// Gives a node another disk, which is empty.
    pub(super) fn replace_disk(&mut self, node: usize) {
        self.kill(node);
        let mut state = self.state(node);
        state.disk += 1;
        (state.end, state.identity) = (None, None);
    }

    pub(super) fn broker(&self, node: usize) -> Option<&Shard> {
        match self.world.app(self.nodes[node], 0) {
            Some(App::Broker(shard)) => Some(shard),
            _ => None,
        }
    }

    /// Starts the brokers of nodes that have become members.
    pub(super) fn start_brokers(&mut self) {
        for node in 0..self.nodes.len() {
            let has_joined = matches!(self.state(node).end, Some(JoinEnd::Joined(_)));
            if has_joined && self.broker(node).is_none() {
                self.kill(node);
                self.start(node);
            }
        }
    }

    /// Runs for a while. Nodes that become members start their brokers.
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.world.now().after(time);
        while self.world.now() < until {
            self.world.run_for(STEP);
            self.start_brokers();
        }
    }

    /// Runs until all of these nodes are members, and returns who they are.
    pub(super) fn join_all(&mut self, nodes: &[usize]) -> Vec<Identity> {
        let until = self.world.now().after(LIMIT);
        while !nodes.iter().all(|node| self.broker(*node).is_some()) {
            assert!(self.world.now() < until, "not all nodes have joined: {:?}", self.ends());
            self.run_for(STEP);
        }
        nodes.iter().map(|node| self.state(*node).identity.expect("it is a member")).collect()
    }

    pub(super) fn ends(&self) -> Vec<Option<JoinEnd>> {
        (0..self.nodes.len()).map(|node| self.state(node).end.clone()).collect()
    }

    /// Returns the ids and incarnations of the nodes that a member's metadata has.
    pub(super) fn registered(&self, node: usize) -> Vec<(u32, u32)> {
        let nodes = self.broker(node).map(Shard::nodes).unwrap_or_default();
        nodes.iter().map(|node| (node.id.0, node.incarnation)).collect()
    }

    /// Runs until these members are connected, and for some time after that: their metadata has as many voters as it can.
    pub(super) fn settle(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.wait_for_channels(*node, nodes.len() - 1);
        }
        self.run_for(Duration::from_secs(5));
    }

    /// Runs until a member has channels to all shards of so many other nodes.
    pub(super) fn wait_for_channels(&mut self, node: usize, others: usize) {
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
pub(super) fn prepare(
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

pub(super) fn peer_node(contact: &Contact) -> PeerNode {
    let address = contact.address.parse().expect("an IP address");
    PeerNode { id: contact.node, address, shards: contact.shards }
}

pub(super) fn joining(
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

pub(super) fn registration(address: SocketAddr) -> Registration {
    Registration { address: address.to_string(), shards: SHARDS, ..Registration::default() }
}

pub(super) fn random_id(plane: &mut dyn Plane<Message>) -> [u8; 16] {
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
