//! The load generator: schedules, senders, readers, and what puts them together to a run.
//!
//! One thread or more, each with a runtime of its own on which producers are tasks; one more thread for consumers; the caller's thread
//! looks on. Latency counts from the moment that the schedule meant, so a broker or a generator that falls behind cannot hide it.

mod alarm;
pub mod check;
mod control;
pub mod floor;
mod generator;
mod look_on;
pub mod payload;
mod prefill;
mod reader;
mod recorder;
mod routes;
pub mod run;
pub mod schedule;
mod sender;
mod verdict;
