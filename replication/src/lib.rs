//! Consensus per partition, the protocol between nodes, and how nodes join a cluster, as pure state machines.
//!
//! Invariant: this crate has no access to disks, sockets or clocks. Events go in through `handle_*`; what follows from them is returned, or
//! taken by `poll_*`.
#![forbid(unsafe_code)]

pub mod join;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
pub mod peer;
pub mod raft;
