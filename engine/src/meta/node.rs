//! The nodes of the cluster, as they have registered themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::ids::NodeId;
use highwater_replication::join::{ClientListener, DiskId, Registration};
use highwater_runtime::SHARDS_MAX;

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

    /// Returns what it tells its cluster about itself when it joins; `None` if it does not listen for other nodes.
    pub fn to_registration(&self) -> Option<Registration> {
        let client = |of: &ClientAddress| ClientListener {
            protocol: number_of(of.protocol),
            address: of.address.to_string(),
        };
        Some(Registration {
            address: self.peer.as_ref()?.to_string(),
            shards: self.shards,
            rack: self.rack.clone(),
            clients: self.clients.iter().map(client).collect(),
        })
    }

    /// Returns the node that a registration is of, without an id and with incarnation 0; or what is wrong with it. Addresses of protocols that this build
    /// does not know are left out.
    pub(super) fn of_registration(registration: &Registration, disk: DiskId) -> Result<Self, String> {
        let Registration { address, shards, rack, clients } = registration;
        if *shards == 0 || usize::from(*shards) > SHARDS_MAX {
            return Err(format!("a node has 1 to {SHARDS_MAX} shards, not {shards}"));
        }
        let clients = clients.iter().filter_map(|client| {
            let protocol = protocol_of(client.protocol)?;
            Some(client.address.parse().map(|address| ClientAddress { protocol, address }))
        });
        Ok(Self {
            id: NodeId(0),
            incarnation: 0,
            disk,
            rack: rack.clone(),
            clients: clients.collect::<Result<_, _>>()?,
            peer: Some(address.parse()?),
            shards: *shards,
        })
    }

    pub(super) fn to_record(&self) -> NodeRecord {
        let address = |of: &HostPort| AddressRecord { host: of.host.clone(), port: of.port };
        let client = |of: &ClientAddress| ClientAddressRecord {
            protocol: number_of(of.protocol),
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
            Some(ClientAddress { protocol: protocol_of(of.protocol)?, address: address(&of.address) })
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

fn number_of(protocol: NodeProtocol) -> u8 {
    match protocol {
        NodeProtocol::Native => 0,
        NodeProtocol::Kafka => 1,
    }
}

fn protocol_of(number: u8) -> Option<NodeProtocol> {
    match number {
        0 => Some(NodeProtocol::Native),
        1 => Some(NodeProtocol::Kafka),
        _ => None,
    }
}
