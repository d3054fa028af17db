//! The nodes of the cluster, as a client of this one reaches them.

use highwater_protocol::ids::NodeId;
use highwater_runtime::plane::ConnId;

use super::Context;
use crate::address::HostPort;
use crate::meta::{Node, NodeProtocol};

/// A node, with the address for a client.
#[derive(Debug)]
pub(crate) struct ReachableNode {
    pub(crate) id: NodeId,
    pub(crate) address: HostPort,
    pub(crate) rack: Option<String>,
    pub(crate) shards: u16,
}

impl ReachableNode {
    fn new(node: &Node, address: HostPort) -> Self {
        Self { id: node.id, address, rack: node.rack.clone(), shards: node.shards }
    }
}

impl Context<'_> {
    /// Returns the nodes of the cluster, by id, each with its address for clients of this protocol. This node's is the one that the client of the
    /// connection has connected to, unless another is advertised. `None` once the connection is closed.
    pub(crate) fn nodes_for(&self, conn: ConnId, protocol: NodeProtocol) -> Option<Vec<ReachableNode>> {
        let here = &self.setup.registration;
        let mut nodes = vec![ReachableNode::new(here, self.advertised_to(conn)?)];
        for node in self.metadata.into_iter().flat_map(|metadata| metadata.nodes().values()) {
            if let Some(address) = node.client_address(protocol).filter(|_| node.id != here.id) {
                nodes.push(ReachableNode::new(node, address.clone()));
            }
        }
        nodes.sort_by_key(|node| node.id);
        Some(nodes)
    }
}
