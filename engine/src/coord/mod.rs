//! Coordinators: state machines over a durable log that serve groups of clients.

pub mod groups;
pub(crate) mod groups_log;
pub(crate) mod placement;
