//! The group coordinators: state machines over durable logs.

pub(crate) mod carry_over;
pub(crate) mod coordinators;
pub mod groups;
mod partition_log;
pub(crate) mod placement;
