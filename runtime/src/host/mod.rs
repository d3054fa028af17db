//! Hosts: what runs a shard's turns, and sleeps when it is idle.

pub(crate) mod glommio;
mod setup;
pub(crate) mod thread;

pub(crate) use setup::{PanicWatch, ShardSetup};

/// What runs a shard's loop.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HostKind {
    /// A pinned glommio executor.
    #[default]
    Glommio,
    /// A plain pinned thread.
    Thread,
}
