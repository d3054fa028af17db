//! Tasks on tokio that drive the state machines of `core`.

mod by_leader;
pub(crate) mod calls;
pub(crate) mod cluster;
mod commits;
pub(crate) mod conn;
mod conn_slot;
pub(crate) mod connect;
pub(crate) mod consumer;
mod destination;
mod driver;
pub(crate) mod group;
mod group_commits;
mod metadata;
pub(crate) mod producer;
mod sink;

#[cfg(test)]
mod failure_tests;
#[cfg(test)]
pub(crate) mod fake_broker;
#[cfg(test)]
mod fake_group;
#[cfg(test)]
mod tests;
