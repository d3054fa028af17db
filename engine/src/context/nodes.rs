//! The nodes of the cluster, as a client of this one reaches them.

use std::sync::Arc;

use highwater_protocol::ids::NodeId;
use highwater_runtime::plane::ConnId;

use super::Context;
use crate::address::HostPort;
use crate::leaders::Leaders;
use crate::meta::{Metadata, Node, NodeProtocol};

/// A node, with the address for a client.
#[derive(Clone, Debug)]
pub(crate) struct ReachableNode {
    pub(crate) id: NodeId,
    pub(crate) address: HostPort,
    pub(crate) rack: Option<String>,
    pub(crate) shards: u16,
    /// It cannot be reached from this node.
    pub(crate) is_offline: bool,
}

impl ReachableNode {
    fn new(node: &Node, address: HostPort, leaders: &Leaders) -> Self {
        let is_offline = leaders.is_offline(node.id);
        Self { id: node.id, address, rack: node.rack.clone(), shards: node.shards, is_offline }
    }
}

/// Returns the nodes of the cluster, by id, each with its address for clients of this protocol. `here`: this node, and its address for the client.
pub(crate) fn nodes_for(
    (here, address): (&Node, HostPort),
    metadata: Option<&Arc<Metadata>>,
    leaders: &Leaders,
    protocol: NodeProtocol,
) -> Vec<ReachableNode> {
    let mut nodes = vec![ReachableNode::new(here, address, leaders)];
    for node in metadata.into_iter().flat_map(|metadata| metadata.nodes().values()) {
        if let Some(address) = node.client_address(protocol).filter(|_| node.id != here.id) {
            nodes.push(ReachableNode::new(node, address.clone(), leaders));
        }
    }
    nodes.sort_by_key(|node| node.id);
    nodes
}

impl Context<'_> {
    /// Returns the nodes of the cluster, by id, each with its address for clients of this protocol. This node's is the one that the client of the
    /// connection has connected to, unless another is advertised. `None` once the connection is closed.
    pub(crate) fn nodes_for(&self, conn: ConnId, protocol: NodeProtocol) -> Option<Vec<ReachableNode>> {
        let here = (&self.setup.registration, self.advertised_to(conn)?);
        Some(nodes_for(here, self.metadata, self.leaders, protocol))
    }
}
