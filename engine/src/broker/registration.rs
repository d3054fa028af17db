//! What a node tells the cluster about itself.

use std::net::SocketAddr;

use highwater_protocol::ids::NodeId;
use highwater_replication::join::{DiskId, RACK_BYTES_MAX};

use super::config::BrokerConfig;
use super::listeners::Bound;
use super::peer_address::peer_address;
use crate::address::HostPort;
use crate::meta::{ClientAddress, Node, NodeProtocol};
use crate::start_error::StartError;

/// Returns the registration of a node with these listeners. Its identity is not known yet.
pub(super) fn registration(config: &BrokerConfig, bound: &Bound, shards: u16) -> Result<Node, StartError> {
    let rack = config.rack.clone();
    if let Some(rack) = &rack
        && (rack.trim().is_empty() || rack.len() > RACK_BYTES_MAX)
    {
        let text = format!("invalid rack {rack:?}: the name of a rack has 1 to {RACK_BYTES_MAX} bytes");
        return Err(StartError::Config(text));
    }
    Ok(Node {
        id: NodeId(0),
        incarnation: 0,
        disk: DiskId::default(),
        rack,
        clients: client_addresses(bound),
        peer: peer_address(config, bound)?,
        shards,
    })
}

/// Returns where clients of other nodes reach this one: the advertised addresses, or those of the sockets. A socket for all addresses of the machine
/// has none that works for everyone.
fn client_addresses(bound: &Bound) -> Vec<ClientAddress> {
    let sockets =
        |of: &[SocketAddr], protocol| of.iter().map(move |socket| (*socket, protocol)).collect::<Vec<_>>();
    let native = sockets(&bound.native, NodeProtocol::Native);
    let all = native.into_iter().chain(sockets(&bound.kafka, NodeProtocol::Kafka));
    let mut clients: Vec<ClientAddress> = Vec::new();
    for ((socket, protocol), advertised) in all.zip(&bound.advertised) {
        let address = advertised.clone().or_else(|| {
            let is_specific = !socket.ip().is_unspecified();
            is_specific.then(|| HostPort::from(socket))
        });
        let client = address.map(|address| ClientAddress { protocol, address });
        clients.extend(client.filter(|client| !clients.contains(client)));
    }
    clients
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> HostPort {
        text.parse().expect("an address")
    }

    #[test]
    fn other_nodes_learn_the_advertised_addresses_or_those_of_the_sockets() {
        let socket = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let bound = Bound {
            sockets: Vec::new(),
            advertised: vec![
                None,
                None,
                Some(address("b.example.com:19092")),
                Some(address("b.example.com:19092")),
            ],
            native: vec![socket("127.0.0.1:9191"), socket("0.0.0.0:9291")],
            kafka: vec![socket("0.0.0.0:9092"), socket("[::]:9092")],
            peers: vec![socket("0.0.0.0:9193"), socket("10.0.0.3:9193")],
        };
        let config = BrokerConfig { rack: Some("a".into()), ..BrokerConfig::default() };
        let node = registration(&config, &bound, 2).expect("valid");
        assert_eq!(node.client_address(NodeProtocol::Native), Some(&address("127.0.0.1:9191")));
        assert_eq!(node.client_address(NodeProtocol::Kafka), Some(&address("b.example.com:19092")));
        assert_eq!(node.peer, Some(address("10.0.0.3:9193")));
        assert_eq!((node.clients.len(), node.shards), (2, 2));
        for rack in [" ".to_owned(), "r".repeat(256)] {
            let config = BrokerConfig { rack: Some(rack), ..BrokerConfig::default() };
            let error = registration(&config, &bound, 2).expect_err("refused").to_string();
            assert!(error.contains("rack"), "{error}");
        }
    }
}
