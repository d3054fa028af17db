//! What runs a shard's turns and sleeps when there is nothing to do.

pub(crate) mod glommio;
pub(crate) mod thread;
