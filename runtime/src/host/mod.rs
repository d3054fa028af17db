//! Hosts: what runs a shard's turns, and sleeps when it is idle.

pub(crate) mod glommio;
pub(crate) mod thread;
