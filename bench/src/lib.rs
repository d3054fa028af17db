//! The load generator behind `highwater bench`: drives a broker with a named workload, in open or closed loop, checks that no record was
//! lost, duplicated or reordered, and measures latency from the moment a record was *scheduled* to be sent.
//!
//! | module | contents |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`scenario`], [`scenarios`] | the definition of a workload as a TOML file, and the built-in workloads |
//! | [`backend`] | clients of brokers, behind one trait |
//! | [`load`] | the generator |
//! | [`ladder`] | the search for the highest sustainable rate |
//! | [`server`] | a broker process started for a run |
//! | [`outcome`] | the results of a run |
//! | [`groups`] | loads on the coordinators of groups |
//! | [`limits`] | the limits of the machine, to compare results with |
//! | [`process`] | resource usage of the broker's process |
//! | [`environment`] | the machine and software measured |
//! | [`report`] | reports as JSON, text, percentile files and plots; comparison of reports |
#![forbid(unsafe_code)]

pub mod backend;
pub mod cli;
pub mod environment;
mod error;
pub mod groups;
pub mod ladder;
pub mod limits;
pub mod load;
pub mod outcome;
mod output;
pub mod process;
pub mod report;
pub mod scenario;
pub mod scenarios;
pub mod server;

pub use error::BenchError;
