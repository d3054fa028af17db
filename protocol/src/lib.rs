//! What travels and what rests in Highwater: record batches, frames, native messages, ids, error codes and limits.
//!
//! Invariant: this crate is pure. No I/O, no async, no clock, no randomness; every decoder is bounded by the bytes that remain.
#![forbid(unsafe_code)]

pub mod batch;
pub mod error;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod native;
pub mod partitioner;
pub mod topic;
