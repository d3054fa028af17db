//! The address at which other nodes reach this one, and the settings that depend on it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::config::BrokerConfig;
use super::listeners::Bound;
use super::names::look_up;
use crate::address::HostPort;
use crate::start_error::StartError;

/// Seeds of a node.
const SEEDS_MAX: usize = 64;

/// Checks the settings about other nodes that need no lookup.
pub(super) fn check(config: &BrokerConfig) -> Result<(), StartError> {
    let wrong = |text: String| Err(StartError::Config(text));
    let seeds = &config.seeds;
    if !seeds.is_empty() && config.peer_listen.is_empty() {
        return wrong(
            "a node with seeds needs an address at which it listens for other nodes (--peer-listen)".into(),
        );
    }
    if seeds.len() > SEEDS_MAX {
        return wrong(format!(
            "{} seeds are too many: {SEEDS_MAX} are possible, and three to five are enough",
            seeds.len()
        ));
    }
    if let Some(twice) =
        (1..seeds.len()).map(|at| &seeds[at]).zip(1..).find(|(seed, at)| seeds[..*at].contains(seed))
    {
        return wrong(format!("the seed {} is listed twice", twice.0));
    }
    for seed in seeds {
        if let Err(why) = seed.check_advertised() {
            return wrong(format!("invalid seed: {why}"));
        }
    }
    if let Some(node) = config.node_id.filter(|node| i32::try_from(node.0).is_err()) {
        return wrong(format!("node id {node} is not possible: the range is 0 to {}", i32::MAX));
    }
    Ok(())
}

/// Returns the address at which other nodes reach this one; `None` if it does not listen for them. The advertised one; or else the seed that is this
/// node; or else the first socket that is not for all addresses of the machine.
pub(super) fn peer_address(config: &BrokerConfig, bound: &Bound) -> Result<Option<HostPort>, StartError> {
    let Some(first) = bound.peers.first() else { return Ok(None) };
    let advertised = config.peer_listen.iter().find_map(|listener| listener.advertised.clone());
    let resolve = |seed: &HostPort| match seed.ip() {
        Some(address) => vec![address],
        None => look_up(&seed.to_string()).unwrap_or_default(),
    };
    let specific = || bound.peers.iter().find(|socket| !socket.ip().is_unspecified());
    let address = advertised
        .or_else(|| own_seed(&config.seeds, &bound.peers, resolve, is_local))
        .or_else(|| specific().map(|socket| HostPort::from(*socket)))
        .ok_or_else(|| {
            StartError::Config(format!(
                "other nodes cannot connect to {first}, and no seed is this node: give the address at which they reach it (--peer-advertise)"
            ))
        })?;
    let is_loopback =
        |address: &HostPort| address.ip().map(|address| address.ip().to_canonical().is_loopback());
    let remote = config.seeds.iter().find(|seed| is_loopback(seed) == Some(false));
    match remote {
        Some(remote) if is_loopback(&address) == Some(true) => Err(StartError::Config(format!(
            "other nodes, such as {remote}, cannot connect to {address}: give the address at which they reach this one (--peer-advertise)"
        ))),
        _ => Ok(Some(address)),
    }
}

/// Returns the seed that is this node: one that resolves to an address of these sockets.
fn own_seed(
    seeds: &[HostPort],
    sockets: &[SocketAddr],
    resolve: impl Fn(&HostPort) -> Vec<SocketAddr>,
    is_local: impl Fn(IpAddr) -> bool,
) -> Option<HostPort> {
    let is_own = |address: &SocketAddr| {
        sockets.iter().filter(|socket| socket.port() == address.port()).any(|socket| {
            socket.ip() == address.ip() || (socket.ip().is_unspecified() && is_local(address.ip()))
        })
    };
    let has_port = |seed: &&HostPort| sockets.iter().any(|socket| socket.port() == seed.port);
    seeds.iter().filter(has_port).find(|seed| resolve(seed).iter().any(is_own)).cloned()
}

/// Returns whether this machine has an address.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::NodeId;

    use super::super::config::Listener;
    use super::*;

    fn address(text: &str) -> HostPort {
        text.parse().expect("an address")
    }

    fn config(listen: &str, seeds: &[&str]) -> BrokerConfig {
        let seeds = seeds.iter().map(|seed| address(seed)).collect();
        BrokerConfig { peer_listen: vec![address(listen).into()], seeds, ..BrokerConfig::default() }
    }

    fn bound(peers: &[&str]) -> Bound {
        Bound {
            sockets: Vec::new(),
            advertised: Vec::new(),
            native: Vec::new(),
            kafka: Vec::new(),
            peers: peers.iter().map(|text| text.parse().expect("an address")).collect(),
        }
    }

    #[test]
    fn the_seed_that_is_this_node_is_its_address() {
        let names = |seed: &HostPort| match seed.host.as_str() {
            "a" => vec![([10, 0, 0, 1], seed.port).into()],
            "b" => vec![([10, 0, 0, 2], seed.port).into()],
            _ => Vec::new(),
        };
        let is_local = |ip: IpAddr| ip == IpAddr::from([10, 0, 0, 2]);
        let seeds = ["a:9193", "b:9193", "c:9193"].map(address);
        let own = |socket: &str| own_seed(&seeds, &[socket.parse().expect("an address")], names, is_local);
        assert_eq!(own("0.0.0.0:9193"), Some(address("b:9193")));
        assert_eq!(own("10.0.0.1:9193"), Some(address("a:9193")));
        assert_eq!(own("10.0.0.9:9193"), None);
        assert_eq!(own("0.0.0.0:9194"), None);
    }

    #[test]
    fn an_address_that_is_configured_comes_before_the_seed_and_that_before_the_socket() {
        let found =
            |config: &BrokerConfig, sockets: &[&str]| peer_address(config, &bound(sockets)).expect("valid");
        let mut config = config("127.0.0.1:9193", &["127.0.0.1:9193", "127.0.0.1:9194"]);
        assert_eq!(found(&config, &["127.0.0.1:9193"]), Some(address("127.0.0.1:9193")));
        assert_eq!(found(&config, &["0.0.0.0:9194"]), Some(address("127.0.0.1:9194")));
        assert_eq!(found(&config, &[]), None);
        config.seeds = Vec::new();
        assert_eq!(found(&config, &["0.0.0.0:9193", "10.0.0.3:9193"]), Some(address("10.0.0.3:9193")));
        config.peer_listen =
            vec![Listener { advertised: Some(address("x.example.com:1")), ..address("0.0.0.0:9193").into() }];
        assert_eq!(found(&config, &["0.0.0.0:9193"]), Some(address("x.example.com:1")));
    }

    #[test]
    fn an_address_that_other_nodes_cannot_reach_is_refused() {
        for (seeds, socket) in [(&[][..], "0.0.0.0:9193"), (&["192.0.2.1:9193"], "127.0.0.1:9193")] {
            let error = peer_address(&config(socket, seeds), &bound(&[socket])).expect_err("refused");
            assert_eq!(error.exit_code(), 78);
            let text = error.to_string();
            assert!(text.contains(socket) && text.contains("--peer-advertise"), "{text}");
        }
    }

    #[test]
    fn impossible_settings_about_other_nodes_are_refused() {
        let says = |config: &BrokerConfig| check(config).expect_err("refused").to_string();
        let listening = config("127.0.0.1:0", &["a:1", "b:1"]);
        assert!(check(&listening).is_ok() && check(&BrokerConfig::default()).is_ok());
        let deaf = BrokerConfig { peer_listen: Vec::new(), ..listening.clone() };
        assert!(says(&deaf).contains("--peer-listen"));
        assert!(says(&config("127.0.0.1:0", &["a:1", "b:1", "a:1"])).contains("a:1 is listed twice"));
        assert!(says(&config("127.0.0.1:0", &["0.0.0.0:1"])).contains("0.0.0.0:1"));
        let many: Vec<String> = (0..=SEEDS_MAX).map(|n| format!("n{n}:1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(says(&config("127.0.0.1:0", &many)).contains("65 seeds"));
        let node_id = Some(NodeId(1 << 31));
        assert!(says(&BrokerConfig { node_id, ..listening }).contains("2147483648"));
    }
}
