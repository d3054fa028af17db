//! Addresses in configuration: a host name or IP address, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// A host and a port. An IPv6 address is displayed in brackets, and stored in `host` without them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// A name, or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Maximum length of a host name and of a label in it, as in DNS.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

impl HostPort {
    /// Returns the address if the host is an IP address and not a name.
    pub(crate) fn ip(&self) -> Option<SocketAddr> {
        // A link-local address with a scope is only part of a socket's address.
        let scoped = || self.to_string().parse().ok();
        self.host.parse().map(|ip| SocketAddr::new(ip, self.port)).ok().or_else(scoped)
    }

    /// Checks that this address can be advertised to clients.
    pub(crate) fn check_advertised(&self) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("clients cannot connect to {self}: {why}"));
        if self.port == 0 {
            return wrong("port 0 is not a valid port");
        }
        match self.host.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => wrong(
                "it is the unspecified address; advertise a specific one, or none to use the address of each connection",
            ),
            Ok(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
                wrong("it is not a unicast address")
            }
            _ => Ok(()),
        }
    }
}

/// Finds the IP addresses of hosts.
pub trait Resolve: Send + Sync {
    /// Returns an address to connect to, or why there is none at the moment. Never blocks.
    fn resolve(&self, address: &HostPort) -> Result<SocketAddr, String>;
}

/// Resolves IP addresses only, and no names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpAddresses;

impl Resolve for IpAddresses {
    fn resolve(&self, address: &HostPort) -> Result<SocketAddr, String> {
        address.ip().ok_or_else(|| format!("{} is not an IP address", address.host))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not HOST:PORT: {why}");
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("the port is missing; an example is localhost:9092"))?;
        let port =
            Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit())).and_then(|p| p.parse().ok());
        let port = port.ok_or_else(|| wrong("the port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inside = rest.strip_suffix(']').filter(|host| is_ipv6(host));
                inside.ok_or_else(|| wrong("the brackets do not contain an IPv6 address"))?
            }
            None if host.contains(':') => {
                return Err(wrong("an IPv6 address needs brackets, such as [::1]:9092"));
            }
            None => {
                check_name(host).map_err(|why| wrong(&why))?;
                host
            }
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

fn is_ipv6(host: &str) -> bool {
    // `IpAddr` does not parse a scope, as in fe80::1%2.
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) || format!("[{host}]:0").parse::<SocketAddr>().is_ok()
}

/// Checks a host name, or an IPv4 address.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the host is missing".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a host name has at most {NAME_BYTES_MAX} characters"));
    }
    // A trailing dot marks a fully qualified name.
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    for label in labels.clone() {
        // Host names must not have underscores, but names of containers do.
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.chars().all(is_fine) {
            return Err(format!("{name:?} is not a host name"));
        }
    }
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    if labels.clone().next_back().is_some_and(is_number) && name.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{name} is not an IPv4 address"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_prints_as_it_is_read() {
        for (text, host, port) in [
            ("localhost:9092", "localhost", 9092),
            ("broker-0.example.com:1", "broker-0.example.com", 1),
            ("kafka_1:65535", "kafka_1", 65535),
            ("10.0.0.1:0", "10.0.0.1", 0),
            ("[::1]:9092", "::1", 9092),
            ("[fe80::1%2]:9092", "fe80::1%2", 9092),
        ] {
            let address: HostPort = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((&address.host[..], address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for text in [
            "",
            ":",
            "localhost",
            "localhost:",
            ":9092",
            "a b:1",
            "a:b:1",
            "::1:9092",
            "[::1:9092",
            "[x]:1",
            "[10.0.0.1]:1",
            "host:65536",
            "host:+1",
            "host:-1",
            "256.1.1.1:1",
            "1.2.3:1",
            "a..b:1",
            "http://host:1",
            "hôte:1",
        ] {
            let e = text.parse::<HostPort>().expect_err(text);
            assert!(e.contains(&format!("{text:?}")), "the error has the input: {e}");
        }
        assert!(format!("{}:1", "a".repeat(64)).parse::<HostPort>().is_err());
    }

    #[test]
    fn only_reachable_addresses_are_advertised() {
        let check = |text: &str| text.parse::<HostPort>().expect(text).check_advertised();
        for text in ["localhost:1", "10.0.0.1:9092", "[::1]:9092", "name.invalid:9092"] {
            assert_eq!(check(text), Ok(()));
        }
        for text in
            ["0.0.0.0:1", "[::]:9092", "localhost:0", "224.0.0.1:9092", "255.255.255.255:1", "[ff02::1]:1"]
        {
            let e = check(text).expect_err(text);
            assert!(e.contains(text), "{e}");
        }
    }
}
