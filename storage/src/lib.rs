//! The log: where records become durable and are read back.
//!
//! A [`Store`] keeps the logs of the partitions of one shard in a few large files. It is driven like a shard itself: commands
//! (`append`, `read`, ...) return at once, disk completions come in through [`Store::on_disk`], and notifications for the owner
//! goes out through [`Store::poll_event`].
//!
//! Invariant, per partition: `extent_end <= durable_end <= append_end`. The frames between `extent_end` and `append_end` are contiguous and in memory.
//!
//! Invariant: nothing below the commit index is ever overwritten or truncated. Durable frames above it may be cut off, when a later leader's log
//! does not have it ([`Store::truncate_suffix`]). With one replica everything durable is committed. Readers only ever see durable frames.
//!
//! Invariant: along a log epochs never fall.
//!
//! This crate knows neither sockets nor topics' names, and nothing of replication: `durable` means on this disk.

#![forbid(unsafe_code)]

mod alloc;
pub mod api;
mod bound;
mod cache;
pub mod compaction;
pub mod config;
mod epochs;
pub mod expect;
mod extent;
mod headers;
mod index;
pub mod inspect;
pub mod journal;
pub mod layout;
pub mod limits;
mod lookup;
pub mod mac;
pub mod map;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
mod padding;
mod partition;
mod placement;
mod producers;
pub mod recovery;
pub mod replica;
pub mod report;
pub mod rewrite;
mod scan_chunk;
mod scan_index;
pub mod state_log;
mod store;
mod tail;

pub use api::{
    AppendError, Appended, Bounds, Cursor, FindOutcome, FindResult, Frames, LogStartError, PartitionSlot,
    Payload, ProducerCheck, ReadId, ReadLimits, ReadOutcome, ReadResult, SearchMemory, StoreEvent,
    StoreStats,
};
pub use config::{CommitRule, CompactionConfig, DurableForm, PartitionConfig, StoreConfig};
pub use epochs::{EpochEnd, EpochStart};
pub use expect::LogPoint;
pub use limits::StoreLimits;
pub use mac::MacKey;
pub use producers::ActiveProducer;
pub use replica::{
    CutError, IndexCursor, IndexRead, IndexReadOutcome, ReplicateError, Replicated, ReplicatedFrame,
};
pub use report::{OpenError, PartitionFinding, RecoveryReport};
pub use rewrite::{BatchFilter, RewritableExtent, RewriteAborted, RewriteError, Rewritten, Verdict};
pub use store::Store;
