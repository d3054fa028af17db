//! The client as state machines without I/O, clock or tasks: they take bytes, answers and times, and return bytes and
//! results.
//!
//! Invariant: nothing in this module reads a clock, sleeps, spawns or touches a socket; `now` is always an argument.
//! `io` drives the state machines.

pub(crate) mod assignment;
pub(crate) mod backoff;
pub(crate) mod conn;
pub(crate) mod decode;
pub(crate) mod failures;
pub(crate) mod lane;
pub(crate) mod membership;
pub(crate) mod partition_state;
pub(crate) mod producer;
pub(crate) mod split;
pub(crate) mod subscription;
pub(crate) mod ticket;

#[cfg(test)]
pub(crate) mod test_frames;
