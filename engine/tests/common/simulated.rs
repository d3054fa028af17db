//! A broker in the simulated world, with the limits of a real one. Its clients are blocking; virtual time passes while they read.

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

/// The host of simulated clients in descriptions of groups.
pub const CLIENT_HOSTS: &str = "/10.255.";

const MEMORY_BYTES: u64 = 256 << 20;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Virtual time within which a broker stops.
const STOP_TIME_MAX: Duration = Duration::from_mins(1);

/// The settings of a broker that tests choose.
#[derive(Clone, Copy)]
pub struct Settings {
    pub shards: u16,
    /// Default number of partitions of new topics.
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
    /// The wall-clock time at the start of the world.
    began_ms: i64,
}

impl SimBroker {
    pub fn start() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let mut world = SimWorld::new(WorldConfig::new(1));
        let mut config = NodeConfig::new(settings.shards, 2);
        // Tests use the machine's clock for timestamps.
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

    /// Connects a native client.
    pub fn native(&self) -> Client {
        Client::on(self.connect(0), None)
    }

    /// Connects a native client to this shard.
    pub fn native_on(&self, shard: u16) -> Client {
        Client::on(self.connect(0), Some(shard))
    }

    pub fn wall_clock_ms(&self) -> i64 {
        self.began_ms + (self.world.borrow().now().0 / 1_000_000) as i64
    }

    pub fn kafka_addr(&self) -> SocketAddr {
        self.world.borrow().address(self.node, 1)
    }

    /// Returns the disk of its machine.
    pub fn disk(&self) -> SimDisk {
        self.world.borrow().disk(self.node)
    }

    /// Lets virtual time pass.
    pub fn run_for(&self, time: Duration) {
        self.world.borrow_mut().run_for(time);
    }

    /// Connects to the native listener (0) or to Kafka's (1).
    pub fn connect(&self, listener: usize) -> Stream {
        let address = self.world.borrow().address(self.node, listener);
        Stream::simulated(&self.world, address)
    }

    /// Starts the shutdown.
    pub fn shutdown(&self) {
        self.world.borrow_mut().shutdown(self.node);
    }

    /// Waits until it has stopped gracefully.
    pub fn wait(&self) {
        let mut world = self.world.borrow_mut();
        world.run_until(STOP_TIME_MAX, |world| world.end(self.node).is_some());
        assert!(matches!(world.end(self.node), Some(NodeEnd::Exited)), "{:?}", world.end(self.node));
    }

    /// Stops it gracefully.
    pub fn stop(&self) {
        self.shutdown();
        self.wait();
    }

    /// Stops it gracefully and starts it again.
    pub fn restart(&self) {
        self.stop();
        self.world.borrow_mut().start(self.node).expect("the broker starts");
    }
}
