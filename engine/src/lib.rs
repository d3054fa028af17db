//! The Highwater broker: shards, partitions, cluster metadata and routing between cores.
//!
//! [`Broker`] starts and stops one in this process; [`TestBroker`] does so on a temporary directory and a free port.
#![forbid(unsafe_code)]

mod address;
mod broker;
mod config;
mod controller;
pub mod counters;
pub mod data_dir;
pub mod groups;
mod groups_log;
mod kafka_message;
pub mod limits;
mod listeners;
mod memory;
pub mod message;
pub mod metadata;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
mod native_groups;
pub mod offline;
pub mod shard;
mod test_broker;

pub use address::HostPort;
pub use broker::{Broker, ReadyInfo, StartError};
pub use config::{BrokerConfig, DurableChoice, HostKind, KAFKA_PORT_DEFAULT, Listener, NATIVE_PORT_DEFAULT};
pub use memory::{MemoryChoice, memory_in_force};
pub use test_broker::TestBroker;
