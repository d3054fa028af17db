//! The nodes of the cluster, as they have registered themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ids::NodeId;
use highwater_replication::join::DiskId;

use super::record::{AddressRecord, ClientAddressRecord, NodeRecord};
use crate::address::HostPort;
use crate::api::{ClientAddress, Node, NodeProtocol};

/// The registered nodes, by id.
pub type Nodes = BTreeMap<NodeId, Arc<Node>>;

impl Node {
    /// Returns its approximate bytes in a snapshot.
    pub(super) fn snapshot_bytes(&self) -> usize {
        let rack = self.rack.as_ref().map_or(0, String::len);
        let clients: usize = self.clients.iter().map(|client| 24 + client.address.host.len()).sum();
        64 + rack + clients + self.peer.as_ref().map_or(0, |peer| peer.host.len())
    }

    pub(super) fn to_record(&self) -> NodeRecord {
        let address = |of: &HostPort| AddressRecord { host: of.host.clone(), port: of.port };
        let client = |of: &ClientAddress| ClientAddressRecord {
            protocol: match of.protocol {
                NodeProtocol::Native => 0,
                NodeProtocol::Kafka => 1,
            },
            address: address(&of.address),
        };
        NodeRecord {
            id: self.id.0,
            incarnation: self.incarnation,
            disk: self.disk.0,
            rack: self.rack.clone(),
            clients: self.clients.iter().map(client).collect(),
            peer: self.peer.as_ref().map(address),
            shards: self.shards,
        }
    }

    /// Returns the node of a record. Addresses of protocols that this build does not know are left out.
    pub(super) fn of(record: &NodeRecord) -> Self {
        let address = |of: &AddressRecord| HostPort { host: of.host.clone(), port: of.port };
        let client = |of: &ClientAddressRecord| {
            let protocol = match of.protocol {
                0 => NodeProtocol::Native,
                1 => NodeProtocol::Kafka,
                _ => return None,
            };
            Some(ClientAddress { protocol, address: address(&of.address) })
        };
        Self {
            id: NodeId(record.id),
            incarnation: record.incarnation,
            disk: DiskId(record.disk),
            rack: record.rack.clone(),
            clients: record.clients.iter().filter_map(client).collect(),
            peer: record.peer.as_ref().map(address),
            shards: record.shards,
        }
    }
}
