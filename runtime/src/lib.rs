//! The plane: what a shard sees of the machine, and nothing else.
//!
//! A shard is a [`ShardApp`]: a synchronous state machine driven by completions. It never blocks, never awaits and owns what it
//! touches. Everything it asks of the world goes through a [`Plane`], and everything that happens reaches it through one of
//! its `on_*` methods. Three implementations drive the same application:
//!
//! - the io_uring plane hosted in a pinned glommio executor (what a broker runs),
//! - the io_uring plane on a bare thread (comparison and fallback),
//! - the simulated plane: virtual time, seeded order, disks and networks that fail on purpose.
//!
//! Invariant: glommio and io-uring are named in this crate only, and appear in none of its public signatures.

pub mod buf;
#[doc(hidden)]
pub mod conformance;
pub mod fs;
pub mod limits;
pub mod measure;
pub mod plane;
pub mod signals;
pub mod sim;

mod cpus;
mod host;
mod listen;
mod locked_memory;
mod memory;
mod osfs;
mod preflight;
pub mod slab;
mod start;
mod uring;

pub use cpus::{Cpu, available_cpus};
pub use listen::bind;
pub use memory::{AvailableMemory, MemoryLimit, available_memory};
pub use osfs::{FILES_OPEN_MAX, OsFs};
pub use preflight::check as preflight;
pub use start::{
    BoxError, HostKind, RunError, Runtime, RuntimeConfig, SHARDS_MAX, ShutdownHandle, StartError, start,
};

/// Directives for a log filter, to go before those of whoever runs the program: they hide what says nothing about the broker. glommio warns
/// when it cannot register buffers for files of its own, which are not on the data path.
pub const QUIET_LOG_FILTER: &str = "glommio::sys::uring=error";
