//! The simulated world: nodes, the network between them, and time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::blocks::DiskImage;
use super::client::SimClient;
use super::clock::SimClock;
use super::core::{Core, Next, ScheduleConfig, Trace};
use super::disk::{Latency, SimDisk};
use super::ledger::CrashPolicy;
use super::network::{Network, NetworkConfig};
use super::node::{Event, Life, Node, NodeEnd, Shard, SimNode, Source, TurnWork};
use super::rng::{SimRng, stream};
use super::simplane::SimPlane;
use super::turn::Turn;
use crate::BoxError;
use crate::plane::{Instant, Plane, ShardApp, ShardIndex};

/// Parameters of a world. The seed decides everything else.
#[derive(Clone, Default, Debug)]
pub struct WorldConfig {
    /// The same seed and the same calls produce the same run.
    pub seed: u64,
    /// The network.
    pub network: NetworkConfig,
    /// The scheduling of shards.
    pub schedule: ScheduleConfig,
    /// The disks.
    pub disk: Latency,
}

impl WorldConfig {
    /// Returns the default parameters with this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// Parameters of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Number of shards.
    pub shards: u16,
    /// Addresses it listens on, in the order of their [`ListenerId`](crate::plane::ListenerId)s.
    pub listeners: Vec<SocketAddr>,
    /// Initial content of its disk.
    pub image: DiskImage,
    /// Its wall clock at the start of the world, in milliseconds since the Unix epoch.
    pub wall_clock_ms: i64,
}

/// Default wall clock of nodes: in November 2023.
const WALL_CLOCK_MS: i64 = 1_700_000_000_000;

impl NodeConfig {
    /// Returns the parameters of a node with these numbers of shards and listeners, and an empty disk.
    pub fn new(shards: u16, listeners: u16) -> Self {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let listeners = vec![any; usize::from(listeners)];
        Self { shards, listeners, image: DiskImage::default(), wall_clock_ms: WALL_CLOCK_MS }
    }
}

type MakeApp<A> = Box<dyn FnMut(ShardIndex, &mut dyn Plane<<A as ShardApp>::Message>) -> Result<A, BoxError>>;

/// Nodes that run applications, in one thread and in virtual time.
///
/// Everything happens in [`step`](SimWorld::step) and the methods built on it.
pub struct SimWorld<A: ShardApp> {
    seed: u64,
    disk_latency: Latency,
    pub(super) core: Core<A::Message>,
    apps: Vec<Vec<Option<A>>>,
    make: Vec<MakeApp<A>>,
    starts: u64,
    workload: SimRng,
}

impl<A: ShardApp> SimWorld<A> {
    /// Creates a world without nodes.
    pub fn new(config: WorldConfig) -> Self {
        let WorldConfig { seed, network, schedule, disk } = config;
        let clock = SimClock::default();
        let network = Network::new(clock.clone(), stream(seed, "network", 0), network);
        Self {
            seed,
            disk_latency: disk,
            core: Core::new(clock, schedule, stream(seed, "schedule", 0), network, Trace::new(seed)),
            apps: Vec::new(),
            make: Vec::new(),
            starts: 0,
            workload: stream(seed, "workload", 0),
        }
    }

    /// Adds a node without starting it. `make_app` creates the application of each shard at every start.
    pub fn add_node(
        &mut self,
        config: NodeConfig,
        make_app: impl FnMut(ShardIndex, &mut dyn Plane<A::Message>) -> Result<A, BoxError> + 'static,
    ) -> SimNode {
        let NodeConfig { shards, mut listeners, image, wall_clock_ms } = config;
        assert!(shards > 0, "a node has shards");
        let id = SimNode(self.apps.len());
        for (at, listener) in listeners.iter_mut().enumerate().filter(|(_, address)| address.port() == 0) {
            *listener = SocketAddr::from((id.address(), 9000 + at as u16));
        }
        let disk =
            SimDisk::with_clock(&image, stream(self.seed, "disk", id.0 as u64), self.core.clock.clone());
        disk.set_latency(self.disk_latency.clone());
        let now = self.core.clock.now();
        let idle = |shard| Shard::new(stream(self.seed, "idle", shard), now);
        self.core.nodes.push(Node {
            listeners,
            disk,
            shards: (0..u64::from(shards)).map(idle).collect(),
            end: Some(NodeEnd::NeverStarted),
            paused: false,
            started: now,
            wall_clock_ms,
            sockets: std::collections::BTreeMap::new(),
            moving: std::collections::BTreeMap::new(),
        });
        self.core.node(id).stop();
        self.apps.push((0..shards).map(|_| None).collect());
        self.make.push(Box::new(make_app));
        id
    }

    /// Starts a node, for the first time or again.
    pub fn start(&mut self, id: SimNode) -> Result<(), BoxError> {
        assert!(self.end(id).is_some(), "{id:?} is running");
        let now = self.core.clock.now();
        self.starts += 1;
        let (seed, starts) = (self.seed, self.starts);
        let node = self.core.node(id);
        for (number, shard) in (0..).zip(&mut node.shards) {
            *shard = Shard::new(stream(seed, "shard", starts << 16 | number), now);
        }
        node.end = None;
        node.paused = false;
        node.started = now;
        for shard in 0..self.apps[id.0].len() {
            let shard = shard as ShardIndex;
            let mut plane = SimPlane { core: &mut self.core, node: id, shard };
            let made = (self.make[id.0])(shard, &mut plane);
            let made = match (made, &self.core.nodes[id.0].end) {
                (Ok(_), Some(NodeEnd::Fatal(code, why))) => Err(format!("exit code {code}: {why}").into()),
                (made, _) => made,
            };
            match made {
                Ok(app) => self.apps[id.0][usize::from(shard)] = Some(app),
                Err(why) => {
                    self.core.node(id).end.get_or_insert(NodeEnd::Exited);
                    self.process_over(id, true);
                    self.disk(id).kill();
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// Performs the next event. Returns false if there is none until the test does something.
    pub fn step(&mut self) -> bool {
        let Some((due, next)) = self.core.next() else { return false };
        self.core.clock.advance_to(due);
        match next {
            Next::Network => self.core.advance_network(),
            Next::Mesh => self.core.advance_mesh(),
            Next::Timeout => self.core.advance_timeouts(),
            Next::Disk(node) => self.core.advance_disk(node),
            Next::Turn(node, shard) => self.turn(node, shard),
        }
        true
    }

    /// Runs for this duration.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now().after(time);
        while self.core.next().is_some_and(|(due, _)| due <= until) {
            self.step();
        }
        self.core.clock.advance_to(until);
    }

    /// Runs until `holds` returns true, at most for this duration. Returns whether it did.
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now().after(limit);
        loop {
            if holds(self) {
                return true;
            }
            if self.core.next().is_none_or(|(due, _)| due > until) {
                return false;
            }
            self.step();
        }
    }

    /// Connects a client to an address.
    pub fn connect(&mut self, to: SocketAddr) -> SimClient {
        let at = self.core.listener(to).map(|(node, _)| node);
        let socket = self.core.network.borrow_mut().connect(None, to, at);
        SimClient::new(self.core.network.clone(), socket)
    }

    /// Returns the address of a node's listener.
    pub fn address(&self, node: SimNode, listener: usize) -> SocketAddr {
        self.core.nodes[node.0].listeners[listener]
    }

    /// Returns the disk of a node.
    pub fn disk(&self, node: SimNode) -> SimDisk {
        self.core.nodes[node.0].disk.clone()
    }

    /// Returns the application of a shard, if it is running.
    pub fn app(&self, node: SimNode, shard: ShardIndex) -> Option<&A> {
        self.apps[node.0][usize::from(shard)].as_ref()
    }

    /// Returns the application of a shard for modification, if it is running.
    pub fn app_mut(&mut self, node: SimNode, shard: ShardIndex) -> Option<&mut A> {
        self.apps[node.0][usize::from(shard)].as_mut()
    }

    /// Returns the maximum work of a turn of this node's shards since its start, separately for each kind of work.
    pub fn busiest_turn(&self, node: SimNode) -> TurnWork {
        let shards = self.core.nodes[node.0].shards.iter();
        shards.fold(TurnWork::default(), |most, shard| most.max(shard.busiest))
    }

    /// Returns the bytes of the disk reads that a shard has in flight.
    pub fn disk_read_bytes_inflight(&self, node: SimNode, shard: ShardIndex) -> usize {
        self.core.nodes[node.0].shards[usize::from(shard)].reads_inflight.values().sum()
    }

    /// Returns why a node is not running; `None` if it is.
    pub fn end(&self, node: SimNode) -> Option<&NodeEnd> {
        self.core.nodes[node.0].end.as_ref()
    }

    /// Asks every shard of a node to stop, like SIGTERM.
    pub fn shutdown(&mut self, id: SimNode) {
        for shard in 0..self.apps[id.0].len() as ShardIndex {
            let state = self.core.node(id).shard(shard);
            if state.is_running() && !std::mem::replace(&mut state.shutdown_sent, true) {
                state.inbox.push(Source::Shutdown, Event::Shutdown);
                self.core.wake(id, shard);
            }
        }
    }

    /// Cuts the power of a node: data that its disk had not made durable survives as the policy says.
    pub fn crash(&mut self, id: SimNode, policy: CrashPolicy) {
        self.core.node(id).end.get_or_insert(NodeEnd::Crashed);
        self.process_over(id, true);
        self.disk(id).crash(policy);
    }

    /// Kills the process of a node, like SIGKILL. Its disk keeps its power.
    pub fn kill(&mut self, id: SimNode) {
        self.core.node(id).end.get_or_insert(NodeEnd::Crashed);
        self.process_over(id, true);
        self.disk(id).kill();
    }

    /// Pauses the process of a node, like SIGSTOP. Its disk and its sockets continue.
    pub fn pause(&mut self, node: SimNode) {
        self.core.node(node).paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self, node: SimNode) {
        self.core.node(node).paused = false;
    }

    /// Makes the wall clock of a node jump.
    pub fn jump_wall_clock(&mut self, node: SimNode, by_ms: i64) {
        self.core.node(node).wall_clock_ms += by_ms;
    }

    /// Returns the virtual time since the start of the world.
    pub fn now(&self) -> Instant {
        self.core.clock.now()
    }

    /// Returns a random generator for the test, independent of all others.
    pub fn workload(&mut self) -> &mut SimRng {
        &mut self.workload
    }

    /// Returns a hash of all events so far: runs with equal hashes were equal.
    pub fn trace_hash(&self) -> u64 {
        self.core.trace.hash()
    }

    /// Returns the number of events so far.
    pub fn trace_events(&self) -> u64 {
        self.core.trace.events()
    }

    fn turn(&mut self, node: SimNode, shard: ShardIndex) {
        let at = usize::from(shard);
        let mut app = self.apps[node.0][at].take().expect("a running shard has an application");
        Turn { core: &mut self.core, app: &mut app, node, shard }.run();
        self.apps[node.0][at] = Some(app);
        if self.end(node).is_some() {
            self.kill(node);
        } else if self.core.node(node).shard(shard).life == Life::Exiting {
            self.shard_over(node, shard);
        }
    }

    fn shard_over(&mut self, id: SimNode, shard: ShardIndex) {
        self.apps[id.0][usize::from(shard)] = None;
        let node = self.core.node(id);
        let sockets: Vec<_> =
            node.sockets.iter().filter(|(_, owner)| owner.0 == shard).map(|(socket, _)| *socket).collect();
        let arriving = node.shard(shard).end();
        for socket in sockets.into_iter().chain(arriving) {
            self.core.node(id).sockets.remove(&socket);
            self.core.network.borrow_mut().abandon(socket, false);
        }
        if self.core.nodes[id.0].shards.iter().all(|shard| !shard.is_running()) {
            self.core.node(id).end = Some(NodeEnd::Exited);
            self.process_over(id, false);
            self.disk(id).kill();
        }
    }

    fn process_over(&mut self, id: SimNode, reset: bool) {
        self.core.clean_up(id, reset);
        for app in &mut self.apps[id.0] {
            *app = None;
        }
    }
}
