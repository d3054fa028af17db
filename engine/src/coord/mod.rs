//! The group coordinators: state machines over durable logs.

pub(crate) mod carry_over;
pub(crate) mod coordinators;
#[cfg(test)]
mod failover;
pub mod groups;
pub(crate) mod loader;
mod partition_log;
pub(crate) mod placement;
