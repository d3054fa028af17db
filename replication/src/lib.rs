//! Quorum consensus per partition, as pure state machines.
//!
//! Invariant: this crate has no access to disks, sockets or clocks. Events go in through `handle_*`, which return their
//! consequences.
#![forbid(unsafe_code)]

mod quorum;

pub use quorum::{Quorum, Voter};
