//! The load generator: schedules, senders, readers, and their combination to a run.
//!
//! Producers are tasks on one or more generator threads, each with its own runtime. Consumers run on another thread, and the caller's thread
//! supervises. Latency counts from the scheduled time, so that a broker or a generator that falls behind cannot hide it.

mod alarm;
mod bottleneck;
pub mod check;
mod control;
pub mod floor;
mod generator;

pub mod payload;
mod prefill;
mod reader;
pub(crate) mod recorder;
mod routes;
pub mod run;
pub mod schedule;
mod sender;
mod supervise;
