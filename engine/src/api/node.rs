//! A node of the cluster.

use highwater_protocol::ids::NodeId;
use highwater_replication::join::DiskId;
use highwater_replication::raft::ReplicaId;

use crate::address::HostPort;

/// A protocol that clients of a node speak.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NodeProtocol {
    /// Highwater's own.
    Native,
    /// Kafka's.
    Kafka,
}

/// An address at which clients reach a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    /// The protocol that is spoken there.
    pub protocol: NodeProtocol,
    /// The address.
    pub address: HostPort,
}

/// A node, as it has registered itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Which disk of this node it is: 0 for the first, higher for one that has replaced another.
    pub incarnation: u32,
    /// The id of this disk.
    pub disk: DiskId,
    /// The rack that it is in, if one is configured.
    pub rack: Option<String>,
    /// Where clients reach it, in the order of its listeners.
    pub clients: Vec<ClientAddress>,
    /// Where other nodes reach it; `None` if it does not listen for them.
    pub peer: Option<HostPort>,
    /// The number of its shards.
    pub shards: u16,
}

/// Whether this shard reaches another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// There is a channel.
    Connected,
    /// There was one a moment ago, or there has been no time yet to open one.
    Recent,
    /// There has been none for some time.
    Missed,
}

impl Node {
    /// Returns the identity of its replicas.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId { node: self.id, incarnation: self.incarnation }
    }

    /// Returns the first address for clients of a protocol.
    pub fn client_address(&self, protocol: NodeProtocol) -> Option<&HostPort> {
        self.clients.iter().find(|client| client.protocol == protocol).map(|client| &client.address)
    }
}
