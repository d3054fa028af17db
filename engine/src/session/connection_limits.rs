//! The limits on the number of connections: for each address, for each protocol, and in total.

use std::collections::BTreeMap;
use std::net::IpAddr;

use highwater_runtime::plane::ConnId;

use crate::api::ApiError;
use crate::limits::CONNECTIONS_PER_ADDRESS_MAX;

/// The protocol that a connection uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum ClientProtocol {
    Native,
    Kafka,
}

impl ClientProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kafka => "Kafka",
        }
    }
}

/// Counts the connections of a shard, and knows which have not sent anything.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    connections_max: usize,
    count: usize,
    by_address: BTreeMap<(IpAddr, ClientProtocol), usize>,
    by_protocol: [usize; 2],
    /// Connections that have not sent anything, the oldest of each address first.
    silent: BTreeMap<(IpAddr, ClientProtocol, u64), ConnId>,
    last_silent: u64,
}

impl ConnectionLimits {
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            count: 0,
            by_address: BTreeMap::new(),
            by_protocol: [0; 2],
            silent: BTreeMap::new(),
            last_silent: 0,
        }
    }

    /// Returns the connection to drop before another one of this address is accepted, if there are too many: the one that has been silent
    /// longest.
    pub(crate) fn to_drop(&self, address: IpAddr, protocol: ClientProtocol) -> Option<ConnId> {
        if !self.is_full(address, protocol) {
            return None;
        }
        let of_address = (address, protocol, 0)..=(address, protocol, u64::MAX);
        self.silent.range(of_address).next().map(|(_, conn)| *conn)
    }

    fn is_full(&self, address: IpAddr, protocol: ClientProtocol) -> bool {
        self.by_address.get(&(address, protocol)).is_some_and(|count| *count >= CONNECTIONS_PER_ADDRESS_MAX)
    }

    /// Checks whether another connection may be accepted.
    pub(crate) fn check(&self, address: IpAddr, protocol: ClientProtocol) -> Result<(), ApiError> {
        if self.is_full(address, protocol) {
            let text =
                format!("this shard has {CONNECTIONS_PER_ADDRESS_MAX} connections from {address}, the limit");
            return Err(ApiError::TooManyConnections(text));
        }
        // One protocol cannot use the last quarter: it is for clients of the other.
        let (max, count, of_protocol) =
            (self.connections_max, self.count, self.by_protocol[protocol as usize]);
        if count >= max || of_protocol >= max - max / 4 {
            let text = format!(
                "this shard has {count} connections, {of_protocol} of {} clients: its limit",
                protocol.name()
            );
            return Err(ApiError::TooManyConnections(text));
        }
        Ok(())
    }

    /// Counts an accepted connection. Returns its number among the silent ones, if it is silent.
    pub(crate) fn insert(
        &mut self,
        conn: ConnId,
        address: IpAddr,
        protocol: ClientProtocol,
        is_silent: bool,
    ) -> Option<u64> {
        self.count += 1;
        *self.by_address.entry((address, protocol)).or_default() += 1;
        self.by_protocol[protocol as usize] += 1;
        is_silent.then(|| {
            self.last_silent += 1;
            self.silent.insert((address, protocol, self.last_silent), conn);
            self.last_silent
        })
    }

    /// Notes that a silent connection has sent something.
    pub(crate) fn note_active(&mut self, address: IpAddr, protocol: ClientProtocol, number: u64) {
        self.silent.remove(&(address, protocol, number));
    }

    /// Stops counting a connection that was closed or moved.
    pub(crate) fn remove(&mut self, address: IpAddr, protocol: ClientProtocol) {
        self.count -= 1;
        self.by_protocol[protocol as usize] -= 1;
        if let Some(count) = self.by_address.get_mut(&(address, protocol)) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&(address, protocol));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn above_the_limit_per_address_the_longest_silent_connection_is_closed() {
        let mut limits = ConnectionLimits::new(10 * CONNECTIONS_PER_ADDRESS_MAX);
        let numbers: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX as u64)
            .map(|id| {
                assert!(limits.check(HERE, ClientProtocol::Native).is_ok());
                limits.insert(ConnId(id), HERE, ClientProtocol::Native, true)
            })
            .collect();
        assert!(
            limits.check(HERE, ClientProtocol::Native).is_err()
                && limits.check(HERE, ClientProtocol::Kafka).is_ok()
        );
        assert_eq!(limits.to_drop(HERE, ClientProtocol::Native), Some(ConnId(0)));
        limits.note_active(HERE, ClientProtocol::Native, numbers[0].expect("it is silent"));
        assert_eq!(limits.to_drop(HERE, ClientProtocol::Native), Some(ConnId(1)));
        limits.remove(HERE, ClientProtocol::Native);
        assert!(limits.check(HERE, ClientProtocol::Native).is_ok());
        assert_eq!(limits.to_drop(HERE, ClientProtocol::Native), None, "there is room");
    }

    #[test]
    fn the_last_quarter_of_connections_is_reserved_for_the_other_protocol() {
        let mut limits = ConnectionLimits::new(8);
        for id in 0..6 {
            assert!(limits.check(HERE, ClientProtocol::Kafka).is_ok());
            limits.insert(ConnId(id), HERE, ClientProtocol::Kafka, false);
        }
        let error = limits.check(HERE, ClientProtocol::Kafka).expect_err("six of eight");
        assert!(error.to_string().contains("6 of Kafka clients"), "{error}");
        for id in 6..8 {
            assert!(limits.check(HERE, ClientProtocol::Native).is_ok());
            limits.insert(ConnId(id), HERE, ClientProtocol::Native, false);
        }
        assert!(limits.check(HERE, ClientProtocol::Native).is_err(), "all are taken");
    }
}
