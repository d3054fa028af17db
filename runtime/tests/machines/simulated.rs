//! The conformance suite on the simulated plane.

use std::net::SocketAddr;
use std::time::Duration;

use highwater_runtime::conformance::{ClientId, Machine, TestApp};
use highwater_runtime::sim::{NodeConfig, NodeEnd, SimClient, SimNode, SimRng, SimWorld, WorldConfig};

/// Seeds with which each scenario runs.
pub(crate) const SEEDS: u64 = 8;

/// Time limit, longer than anything takes.
const LIMIT: Duration = Duration::from_mins(5);

pub(crate) struct Simulated {
    world: SimWorld<TestApp>,
    node: Option<SimNode>,
    clients: Vec<SimClient>,
    /// The address that each client connected to.
    addresses: Vec<SocketAddr>,
}

impl Simulated {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            world: SimWorld::new(WorldConfig::new(seed)),
            node: None,
            clients: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn node(&self) -> SimNode {
        self.node.expect("the machine was started")
    }
}

impl Machine for Simulated {
    fn start(&mut self, shards: u16, listeners: u16) {
        let config = NodeConfig::new(shards, listeners);
        let node = self.world.add_node(config, |_, _| Ok(TestApp::new("/data".into())));
        self.world.start(node).expect("the application starts");
        self.node = Some(node);
    }

    fn connect(&mut self, listener: u16) -> ClientId {
        let address = self.world.address(self.node(), usize::from(listener));
        self.clients.push(self.world.connect(address));
        self.addresses.push(address);
        ClientId(self.clients.len() - 1)
    }

    fn address(&self, client: ClientId) -> SocketAddr {
        self.addresses[client.0]
    }

    fn refusing(&mut self) -> SocketAddr {
        // No node has it.
        SocketAddr::from(([10, 200, 0, 1], 9000))
    }

    fn unanswering(&mut self) -> SocketAddr {
        let node = self.world.add_node(NodeConfig::new(1, 1), |_, _| Ok(TestApp::new("/data".into())));
        self.world.isolate(node);
        self.world.address(node, 0)
    }

    fn send(&mut self, client: ClientId, data: &[u8]) {
        self.clients[client.0].send(data.to_vec());
    }

    fn receive(&mut self, client: ClientId, bytes_max: usize) -> Vec<u8> {
        let client = &mut self.clients[client.0];
        let done = self.world.run_until(LIMIT, |_| client.available_bytes() > 0 || client.end().is_some());
        assert!(done, "nothing arrived for {LIMIT:?}");
        client.receive_up_to(bytes_max)
    }

    fn finish(&mut self, client: ClientId) {
        self.clients[client.0].finish();
    }

    fn close(&mut self, client: ClientId) {
        self.clients[client.0].close();
    }

    fn reset(&mut self, client: ClientId) {
        self.clients[client.0].reset();
    }

    fn shutdown(&mut self) {
        self.world.shutdown(self.node());
    }

    fn wait(&mut self) {
        let node = self.node();
        let done = self.world.run_until(LIMIT, |world| world.end(node).is_some());
        assert!(done, "the shards did not end within {LIMIT:?}");
        assert_eq!(self.world.end(node), Some(&NodeEnd::Exited));
    }

    fn random(&mut self) -> &mut SimRng {
        self.world.workload()
    }
}
