//! The simulated machine: the same [`Plane`](crate::plane::Plane), [`Disk`](crate::plane::Disk) and [`Fs`](crate::fs::Fs) as the
//! real one, in one thread and in virtual time, with every decision derived from one seed.
//!
//! - [`SimWorld`] runs nodes, each with shards that run any [`ShardApp`](crate::plane::ShardApp) and a disk, and [`SimClient`]s
//!   that talk to them. Nodes connect to each other over paths that a test can slow down, clog, cut and heal.
//! - [`SimDisk`] is a disk with a volatile cache, injected faults and a recording of its operations. [`DiskHarness`] drives one
//!   directly, for storage tests that need no node.
//! - [`Recording`] replays the operations into every image that a power cut could have left.
//!
//! Invariant: nothing in here reads a clock, starts a thread or iterates over a map without a fixed order. The same seed and the
//! same calls produce the same run.

mod blocks;
mod client;
mod clock;
mod connect;
mod core;
mod disk;
mod faults;
mod harness;
mod jobs;
mod ledger;
mod network;
mod node;
mod outages;
mod paths;
mod pipe;
mod record;
mod rng;
mod seeds;
mod service;
mod simfs;
mod simplane;
mod timed_queue;
mod turn;
mod world;

pub use self::core::ScheduleConfig;
pub use blocks::DiskImage;
pub use client::{ClientEnd, SimClient};
pub use clock::SimClock;
pub use disk::{DiskStats, Latency, SimDisk};
pub use faults::{Damage, Fault};
pub use harness::DiskHarness;
pub use ledger::{CrashPolicy, Event, Inode};
pub use network::NetworkConfig;
pub use node::{NodeEnd, SimNode, TurnWork};
pub use record::{CrashImage, CrashImages, Recording};
pub use rng::{SimRng, stream};
pub use seeds::seeds;
pub use world::{NodeConfig, SimWorld, WorldConfig};
