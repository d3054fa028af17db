//! A broker in a process: configuration, data directory, listeners, start and stop.

mod config;
mod listeners;
mod lock;
mod membership;
mod memory;
mod names;
pub mod offline;
mod peer_address;
mod registration;
pub mod repair;
mod signals;
mod start;
mod test_broker;

pub use config::{
    BrokerConfig, DurableChoice, GROUPS_PARTITIONS_DEFAULT, HostKind, KAFKA_PORT_DEFAULT, Listener,
    NATIVE_PORT_DEFAULT,
};
pub use memory::{MemoryChoice, memory_in_force};
pub use start::{Broker, ReadyInfo};
pub use test_broker::TestBroker;
