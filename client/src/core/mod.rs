//! The client as state machines without I/O, clock or tasks: bytes, answers and moments go in, bytes and results come out.
//!
//! Invariant: nothing in here reads a clock, sleeps, spawns or touches a socket; `now` is always an argument. `io` drives it.

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
