//! Default ports for addresses written as a host with or without a port.

/// Port of the native protocol when an address has none.
pub const NATIVE_PORT_DEFAULT: u16 = 9191;

/// Port of Kafka's protocol when an address has none.
pub const KAFKA_PORT_DEFAULT: u16 = 9092;

/// Port of the listener for other nodes, unless an address names another one.
pub const PEER_PORT_DEFAULT: u16 = 9193;

/// Returns `host:port` for an address, adding `port` if it has none. An IPv6 address without a port may be written without
/// brackets.
pub fn with_default_port(address: &str, port: u16) -> String {
    let is_bare_ipv6 = !address.starts_with('[') && address.matches(':').count() > 1;
    let has_port = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.contains("]:"),
        None => address.contains(':'),
    };
    match (is_bare_ipv6, has_port) {
        (true, _) => format!("[{address}]:{port}"),
        (false, true) => address.to_owned(),
        (false, false) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_the_default_one() {
        for (written, address) in [
            ("localhost", "localhost:9191"),
            ("broker-0.example", "broker-0.example:9191"),
            ("broker-0.example:19191", "broker-0.example:19191"),
            ("10.0.0.1", "10.0.0.1:9191"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("::1", "[::1]:9191"),
            ("fe80::1%eth0", "[fe80::1%eth0]:9191"),
            ("[::1]", "[::1]:9191"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(with_default_port(written, NATIVE_PORT_DEFAULT), address);
        }
    }
}
