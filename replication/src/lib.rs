//! Quorum consensus per partition, as pure state machines.
//!
//! Invariant: this crate knows neither disk nor socket nor clock. Facts go in by `handle_*`, conclusions come out.
#![forbid(unsafe_code)]

mod quorum;

pub use quorum::{Quorum, Voter};
