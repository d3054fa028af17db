//! Consensus per partition, and the protocol between nodes, as pure state machines.
//!
//! Invariant: this crate has no access to disks, sockets or clocks. Events go in through `handle_*`; what follows from them is returned, or
//! taken by `poll_*`.
#![forbid(unsafe_code)]

#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
pub mod peer;
pub mod raft;
