//! Listening sockets: resolves names, checks addresses, and binds sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _};

use highwater_runtime::{ReservedAddress, reserve};

use crate::address::HostPort;
use crate::broker::config::{BrokerConfig, KAFKA_PORT_DEFAULT, Listener, NATIVE_PORT_DEFAULT};
use crate::start_error::StartError;

/// A listener with its resolved addresses.
struct Resolved<'a> {
    listener: &'a Listener,
    addresses: Vec<SocketAddr>,
}

/// The listeners of a broker, checked and not yet bound.
pub(crate) struct Listeners<'a> {
    native: Vec<Resolved<'a>>,
    kafka: Vec<Resolved<'a>>,
    peers: Vec<Resolved<'a>>,
}

/// Addresses that this process has reserved, and the address to advertise for each. Nothing listens there yet.
pub(crate) struct Bound {
    /// Those for native clients, then those for Kafka clients, then those for other nodes.
    pub(crate) sockets: Vec<ReservedAddress>,
    /// One for each socket; `None` to advertise the address that a client has connected to.
    pub(crate) advertised: Vec<Option<HostPort>>,
    /// Addresses of the native sockets, with their actual ports.
    pub(crate) native: Vec<SocketAddr>,
    /// Addresses of the Kafka sockets.
    pub(crate) kafka: Vec<SocketAddr>,
    /// Addresses of the sockets for other nodes.
    pub(crate) peers: Vec<SocketAddr>,
}

impl<'a> Listeners<'a> {
    /// Checks the configuration, and resolves names.
    pub(crate) fn check(config: &'a BrokerConfig) -> Result<Self, StartError> {
        if config.listen.is_empty() {
            let text = format!(
                "no address to listen on; give at least one, such as 127.0.0.1:{NATIVE_PORT_DEFAULT}"
            );
            return Err(StartError::Config(text));
        }
        for advertised in config
            .listen
            .iter()
            .chain(&config.kafka_listen)
            .chain(&config.peer_listen)
            .filter_map(|l| l.advertised.as_ref())
        {
            advertised.check_advertised().map_err(|why| {
                let example = format!("such as broker.example.com:{KAFKA_PORT_DEFAULT}");
                StartError::Config(format!(
                    "invalid advertised address: {why}; use a host and a port, {example}"
                ))
            })?;
        }
        let listeners = Self {
            native: resolve_all(&config.listen)?,
            kafka: resolve_all(&config.kafka_listen)?,
            peers: resolve_all(&config.peer_listen)?,
        };
        let all = listeners.native.iter().chain(&listeners.kafka).chain(&listeners.peers);
        let mut addresses = all.flat_map(|listener| &listener.addresses);
        match addresses.find(|address| !address.ip().to_canonical().is_loopback()) {
            Some(open) if !config.insecure => Err(StartError::Config(format!(
                "{open} is reachable from other machines, and connections are neither encrypted nor authenticated; \
                 listen on 127.0.0.1, or accept that with --insecure"
            ))),
            _ => Ok(listeners),
        }
    }

    /// Reserves all addresses.
    pub(crate) fn bind(self) -> Result<Bound, StartError> {
        let mut bound = Bound {
            sockets: Vec::new(),
            advertised: Vec::new(),
            native: Vec::new(),
            kafka: Vec::new(),
            peers: Vec::new(),
        };
        for listener in self.native {
            let sockets = listener.bind()?;
            bound.native.extend(sockets.iter().map(ReservedAddress::address));
            bound.take(listener.listener, sockets);
        }
        for listener in self.kafka {
            let sockets = listener.bind()?;
            bound.kafka.extend(sockets.iter().map(ReservedAddress::address));
            bound.take(listener.listener, sockets);
        }
        for listener in self.peers {
            let sockets = listener.bind()?;
            bound.peers.extend(sockets.iter().map(ReservedAddress::address));
            bound.take(listener.listener, sockets);
        }
        Ok(bound)
    }
}

impl Bound {
    /// Listens at all addresses.
    pub(crate) fn listen(&self) -> Result<Vec<TcpListener>, StartError> {
        listen(&self.sockets)
    }

    /// Listens at the addresses for other nodes.
    pub(crate) fn listen_for_peers(&self) -> Result<Vec<TcpListener>, StartError> {
        listen(&self.sockets[self.sockets.len() - self.peers.len()..])
    }

    fn take(&mut self, listener: &Listener, sockets: Vec<ReservedAddress>) {
        self.advertised.extend(sockets.iter().map(|_| listener.advertised.clone()));
        self.sockets.extend(sockets);
    }
}

fn listen(sockets: &[ReservedAddress]) -> Result<Vec<TcpListener>, StartError> {
    sockets
        .iter()
        .map(ReservedAddress::listen)
        .collect::<Result<_, _>>()
        .map_err(|e| StartError::Listen(e.to_string()))
}

fn resolve_all(listeners: &[Listener]) -> Result<Vec<Resolved<'_>>, StartError> {
    listeners
        .iter()
        .map(|listener| Ok(Resolved { listener, addresses: resolve(&listener.address)? }))
        .collect()
}

/// Returns every address of a host, IPv4 and IPv6.
fn resolve(listen: &HostPort) -> Result<Vec<SocketAddr>, StartError> {
    let failed = |why: &dyn std::fmt::Display| {
        StartError::Listen(format!(
            "cannot listen on {listen}: {why}; use an address of this machine, or 0.0.0.0 for all"
        ))
    };
    let found: Vec<SocketAddr> = if let Ok(ip) = listen.host.parse::<IpAddr>() {
        vec![SocketAddr::new(ip, listen.port)]
    } else {
        let found = listen.to_string().to_socket_addrs();
        found.map_err(|e| failed(&format_args!("the name cannot be resolved ({e})")))?.collect()
    };
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(failed(&"the name has no address")) } else { Ok(addresses) }
}

impl Resolved<'_> {
    /// Binds every address of the host. Skips addresses that this machine does not have, if it has another one: `localhost` often resolves to an
    /// IPv6 address even if IPv6 is disabled.
    fn bind(&self) -> Result<Vec<ReservedAddress>, StartError> {
        let mut sockets: Vec<ReservedAddress> = Vec::new();
        let mut missing = None;
        for address in &self.addresses {
            match reserve(*address) {
                Ok(socket) => sockets.push(socket),
                Err(e) if e.kind() == ErrorKind::AddrNotAvailable => missing = Some(e),
                Err(e) => return Err(StartError::Listen(e.to_string())),
            }
        }
        match missing {
            Some(e) if sockets.is_empty() => Err(StartError::Listen(e.to_string())),
            Some(e) => {
                tracing::info!(listener = %self.listener.address, "skipping an address of this name: {e}");
                Ok(sockets)
            }
            None => Ok(sockets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &[&str], insecure: bool) -> BrokerConfig {
        let listeners = listen.iter().map(|text| text.parse::<HostPort>().expect("an address").into());
        BrokerConfig {
            listen: listeners.collect(),
            kafka_listen: Vec::new(),
            insecure,
            ..BrokerConfig::default()
        }
    }

    #[test]
    fn addresses_that_are_reachable_from_outside_have_to_be_configured() {
        for listen in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
            assert!(Listeners::check(&config(&[listen], false)).is_ok(), "{listen}");
        }
        assert!(Listeners::check(&config(&["0.0.0.0:9191"], true)).is_ok());
        let error =
            Listeners::check(&config(&["127.0.0.1:0", "0.0.0.0:9191"], false)).err().expect("refused");
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("0.0.0.0:9191") && error.to_string().contains("--insecure"));
        assert!(Listeners::check(&config(&[], false)).is_err());
    }

    #[test]
    fn a_host_name_is_bound_at_every_address_of_this_machine_that_it_resolves_to() {
        let config = config(&["localhost:0"], false);
        let bound = Listeners::check(&config).and_then(Listeners::bind).expect("localhost is here");
        assert!(!bound.native.is_empty() && bound.native.iter().all(|a| a.ip().is_loopback()));
        assert_eq!(bound.advertised.len(), bound.sockets.len());
    }

    #[test]
    fn an_unresolvable_host_name_is_an_error_that_names_it() {
        let config = config(&["no-such-host.invalid:9092"], true);
        let error = Listeners::check(&config).err().expect("refused");
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("no-such-host.invalid:9092"), "{error}");
    }

    #[test]
    fn unreachable_addresses_are_not_advertised() {
        for advertised in ["0.0.0.0:1", "[::]:9092", "localhost:0"] {
            let mut config = config(&["127.0.0.1:0"], false);
            config.kafka_listen.clone_from(&config.listen);
            config.kafka_listen[0].advertised = Some(advertised.parse().expect("it can be read"));
            let error = Listeners::check(&config).err().expect("refused");
            assert_eq!(error.exit_code(), 78);
            assert!(error.to_string().contains(advertised), "{error}");
        }
    }
}
