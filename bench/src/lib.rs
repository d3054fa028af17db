//! The load generator behind `highwater bench`: drives a broker with a named workload, in open or closed loop, checks that nothing
//! was lost, doubled or reordered, and measures latency from the moment a record was *meant* to be sent.
//!
//! | module | what it has |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`scenario`], [`scenarios`] | what a workload is, as a TOML file, and those that come with the program |
//! | [`backend`] | the clients that can carry it out, behind one trait |
//! | [`load`] | the generator |
//! | [`ladder`] | the search for the highest rate |
//! | [`server`] | a broker of the run's own |
//! | [`outcome`] | what one run of it came to |
//! | [`limits`] | what the machine can do, which results are a percentage of |
//! | [`process`] | what the broker's process used meanwhile |
//! | [`environment`] | where it was measured |
//! | [`report`] | all of it as JSON, text, percentile files and plots; comparing two |
#![forbid(unsafe_code)]

pub mod backend;
pub mod cli;
pub mod environment;
mod error;
pub mod ladder;
pub mod limits;
pub mod load;
pub mod outcome;
pub mod process;
pub mod report;
pub mod scenario;
pub mod scenarios;
pub mod server;

pub use error::BenchError;
