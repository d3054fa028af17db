//! The plane: a shard's only interface to the machine.
//!
//! A shard is a [`ShardApp`]: a synchronous state machine driven by completions. It never blocks, never awaits, and owns the data
//! it uses. It makes requests through a [`Plane`], and its `on_*` methods receive all events. Three implementations drive the same
//! application:
//!
//! - the io_uring plane hosted in a pinned glommio executor (what a broker runs),
//! - the io_uring plane on a bare thread (for comparison, and as a fallback),
//! - the simulated plane: virtual time, seeded order, and injected faults of disks and networks.
//!
//! Invariant: glommio and io-uring are named in this crate only, and appear in none of its public signatures.

pub mod baseline;
pub mod buf;
#[doc(hidden)]
pub mod conformance;
pub mod fs;
pub mod measure;
pub mod offline;
pub mod plane;
pub mod signals;
pub mod sim;

mod cpus;
mod errors;
mod host;
mod listen;
mod locked_memory;
mod memory;
mod osfs;
mod planted;
mod preflight;
pub mod slab;
mod start;
mod uring;

pub use cpus::{Cpu, available_cpus};
pub use errors::{BoxError, RunError, StartError};
pub use host::HostKind;
pub use listen::{ReservedAddress, bind, reserve};
pub use memory::{AvailableMemory, MemoryLimit, available_memory};
pub use osfs::{FILES_OPEN_MAX, OsFs};
pub use preflight::check as preflight;
pub use start::{Runtime, RuntimeConfig, SHARDS_MAX, ShutdownHandle, start};

/// Log filter directives that go before the user's: they hide messages that do not concern the broker. glommio warns when it cannot
/// register buffers for its own files, which are not on the data path.
pub const QUIET_LOG_FILTER: &str = "glommio::sys::uring=error";
