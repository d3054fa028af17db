//! The Highwater broker: shards, partitions, cluster metadata and routing between cores.
//!
//! [`Broker`] starts and stops one in this process; [`TestBroker`] does so on a temporary directory and a free port.
#![forbid(unsafe_code)]

mod address;
pub mod api;
pub mod broker;
mod calls;
mod context;
mod coord;
pub mod counters;
pub mod data_dir;
pub mod join;
mod kafka;
mod kafka_message;
mod leaders;
pub mod limits;
pub mod message;
pub mod meta;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
mod names;
mod native;
mod partition;
mod peers;
mod read;
mod reply_to;
mod session;
pub mod setup;
pub mod shard;
mod start_error;
mod units;

pub use address::{HostPort, IpAddresses, Resolve};
pub use broker::{
    Broker, BrokerConfig, DurableChoice, GROUPS_PARTITIONS_DEFAULT, HostKind, KAFKA_PORT_DEFAULT, Listener,
    MemoryChoice, NATIVE_PORT_DEFAULT, ReadyInfo, TestBroker, memory_in_force, offline, repair,
};
pub use coord::groups;
pub use start_error::StartError;
