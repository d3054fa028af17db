//! A broker in the simulated world, with the limits of a real one. Its clients are blocking, and reading lets virtual time pass.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use highwater_engine::groups::GroupConfig;
use highwater_engine::limits::ShardLimits;
use highwater_runtime::sim::{NodeConfig, NodeEnd, SimDisk, SimNode, SimWorld, WorldConfig};
use highwater_storage::DurableForm;

use super::sim_node::{self, NodeSetup};
use super::stream::{Stream, World};
use super::{Client, now_ms};

/// How groups name the hosts of simulated clients.
pub const CLIENT_HOSTS: &str = "/10.255.";

const MEMORY_BYTES: u64 = 256 << 20;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Virtual time in which a broker stops.
const STOP_TIME_MAX: Duration = Duration::from_mins(1);

/// What differs between the brokers of tests.
#[derive(Clone, Copy)]
pub struct Settings {
    pub shards: u16,
    /// Partitions of topics whose creator does not say how many.
    pub default_partitions: u32,
    pub groups: GroupConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self { shards: 2, default_partitions: 1, groups: GroupConfig::default() }
    }
}

pub struct SimBroker {
    world: World,
    node: SimNode,
    /// The wall clock when the world began.
    began_ms: i64,
}

impl SimBroker {
    pub fn start() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let mut world = SimWorld::new(WorldConfig::new(1));
        let mut config = NodeConfig::new(settings.shards, 2);
        // Tests stamp records with the time of the machine.
        let began_ms = now_ms();
        config.wall_clock_ms = began_ms;
        let setup = NodeSetup {
            limits: ShardLimits::production(MEMORY_BYTES, settings.shards, 1, BATCH_BYTES_MAX),
            durable_form: DurableForm::Dsync,
            default_partitions: settings.default_partitions,
            groups: settings.groups,
        };
        let node = sim_node::add(&mut world, config, &setup);
        world.start(node).expect("the broker starts");
        Self { world: Rc::new(RefCell::new(world)), node, began_ms }
    }

    /// A client of the native protocol.
    pub fn native(&self) -> Client {
        Client::on(self.connect(0), None)
    }

    /// A client of the native protocol that is served by this shard.
    pub fn native_on(&self, shard: u16) -> Client {
        Client::on(self.connect(0), Some(shard))
    }

    pub fn wall_clock_ms(&self) -> i64 {
        self.began_ms + (self.world.borrow().now().0 / 1_000_000) as i64
    }

    pub fn kafka_addr(&self) -> SocketAddr {
        self.world.borrow().address(self.node, 1)
    }

    /// The disk of its machine.
    pub fn disk(&self) -> SimDisk {
        self.world.borrow().disk(self.node)
    }

    /// Lets virtual time pass.
    pub fn run_for(&self, time: Duration) {
        self.world.borrow_mut().run_for(time);
    }

    /// A connection to the native listener, 0, or Kafka's, 1.
    pub fn connect(&self, listener: usize) -> Stream {
        let address = self.world.borrow().address(self.node, listener);
        Stream::simulated(&self.world, address)
    }

    /// Begins to stop.
    pub fn shutdown(&self) {
        self.world.borrow_mut().shutdown(self.node);
    }

    /// Waits until it has stopped, in order.
    pub fn wait(&self) {
        let mut world = self.world.borrow_mut();
        world.run_until(STOP_TIME_MAX, |world| world.end(self.node).is_some());
        assert!(matches!(world.end(self.node), Some(NodeEnd::Exited)), "{:?}", world.end(self.node));
    }

    /// Stops it in order.
    pub fn stop(&self) {
        self.shutdown();
        self.wait();
    }

    /// Stops it in order and starts it again.
    pub fn restart(&self) {
        self.stop();
        self.world.borrow_mut().start(self.node).expect("the broker starts");
    }
}
