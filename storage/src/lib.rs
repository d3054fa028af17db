//! The log of the broker: stores of extents, commit rounds on direct I/O, recovery, indexes, tail cache and retention.
#![forbid(unsafe_code)]

pub mod state_log;
