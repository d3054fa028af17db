//! How many connections there may be: of one address, of one protocol, and of all.

use std::collections::BTreeMap;
use std::net::IpAddr;

use highwater_runtime::plane::ConnId;

use crate::api::ApiError;
use crate::limits::CONNECTIONS_PER_ADDRESS_MAX;

/// The protocol that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Speaks {
    Native,
    Kafka,
}

impl Speaks {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kafka => "Kafka",
        }
    }
}

/// The connections of a shard, counted, and which of them have not spoken.
#[derive(Debug)]
pub(crate) struct Places {
    connections_max: usize,
    count: usize,
    by_address: BTreeMap<(IpAddr, Speaks), usize>,
    by_protocol: [usize; 2],
    /// Those that have not spoken, the oldest of each address first.
    silent: BTreeMap<(IpAddr, Speaks, u64), ConnId>,
    last_silent: u64,
}

impl Places {
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

    /// The connection that has to go before another one of this address comes in: of too many, the one that has been silent longest.
    pub(crate) fn to_drop(&self, address: IpAddr, speaks: Speaks) -> Option<ConnId> {
        if !self.is_full(address, speaks) {
            return None;
        }
        let of_address = (address, speaks, 0)..=(address, speaks, u64::MAX);
        self.silent.range(of_address).next().map(|(_, conn)| *conn)
    }

    fn is_full(&self, address: IpAddr, speaks: Speaks) -> bool {
        self.by_address.get(&(address, speaks)).is_some_and(|count| *count >= CONNECTIONS_PER_ADDRESS_MAX)
    }

    /// Whether another connection may come in.
    pub(crate) fn check(&self, address: IpAddr, speaks: Speaks) -> Result<(), ApiError> {
        if self.is_full(address, speaks) {
            let text =
                format!("this shard has {CONNECTIONS_PER_ADDRESS_MAX} connections from {address}, the limit");
            return Err(ApiError::TooManyConnections(text));
        }
        // The last quarter is for those of the other protocol.
        let (max, count, of_protocol) = (self.connections_max, self.count, self.by_protocol[speaks as usize]);
        if count >= max || of_protocol >= max - max / 4 {
            let text = format!(
                "this shard has {count} connections, {of_protocol} of {} clients: its limit",
                speaks.name()
            );
            return Err(ApiError::TooManyConnections(text));
        }
        Ok(())
    }

    /// A connection comes in. Returns its number among the silent ones, if it has not spoken.
    pub(crate) fn insert(
        &mut self,
        conn: ConnId,
        address: IpAddr,
        speaks: Speaks,
        is_silent: bool,
    ) -> Option<u64> {
        self.count += 1;
        *self.by_address.entry((address, speaks)).or_default() += 1;
        self.by_protocol[speaks as usize] += 1;
        is_silent.then(|| {
            self.last_silent += 1;
            self.silent.insert((address, speaks, self.last_silent), conn);
            self.last_silent
        })
    }

    /// A silent connection has spoken.
    pub(crate) fn has_spoken(&mut self, address: IpAddr, speaks: Speaks, number: u64) {
        self.silent.remove(&(address, speaks, number));
    }

    /// A connection is gone.
    pub(crate) fn remove(&mut self, address: IpAddr, speaks: Speaks) {
        self.count -= 1;
        self.by_protocol[speaks as usize] -= 1;
        if let Some(count) = self.by_address.get_mut(&(address, speaks)) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&(address, speaks));
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
    fn of_too_many_from_one_address_the_one_that_has_been_silent_longest_goes() {
        let mut places = Places::new(10 * CONNECTIONS_PER_ADDRESS_MAX);
        let numbers: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX as u64)
            .map(|id| {
                assert!(places.check(HERE, Speaks::Native).is_ok());
                places.insert(ConnId(id), HERE, Speaks::Native, true)
            })
            .collect();
        assert!(places.check(HERE, Speaks::Native).is_err() && places.check(HERE, Speaks::Kafka).is_ok());
        assert_eq!(places.to_drop(HERE, Speaks::Native), Some(ConnId(0)));
        places.has_spoken(HERE, Speaks::Native, numbers[0].expect("it is silent"));
        assert_eq!(places.to_drop(HERE, Speaks::Native), Some(ConnId(1)));
        places.remove(HERE, Speaks::Native);
        assert!(places.check(HERE, Speaks::Native).is_ok());
        assert_eq!(places.to_drop(HERE, Speaks::Native), None, "there is room");
    }

    #[test]
    fn the_last_quarter_is_for_the_other_protocol() {
        let mut places = Places::new(8);
        for id in 0..6 {
            assert!(places.check(HERE, Speaks::Kafka).is_ok());
            places.insert(ConnId(id), HERE, Speaks::Kafka, false);
        }
        let error = places.check(HERE, Speaks::Kafka).expect_err("six of eight");
        assert!(error.to_string().contains("6 of Kafka clients"), "{error}");
        for id in 6..8 {
            assert!(places.check(HERE, Speaks::Native).is_ok());
            places.insert(ConnId(id), HERE, Speaks::Native, false);
        }
        assert!(places.check(HERE, Speaks::Native).is_err(), "all are taken");
    }
}
