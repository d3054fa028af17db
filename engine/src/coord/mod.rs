//! Coordinators: state machines over a durable log that serve groups of clients.

pub(crate) mod carry_over;
pub(crate) mod coordinators;
pub mod groups;
mod partition_log;
pub(crate) mod placement;
