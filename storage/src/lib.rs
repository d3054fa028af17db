//! The log: where records become durable and are read back.
//!
//! A [`Store`] keeps the logs of the partitions of one shard in a few large files. It is driven like a shard itself: commands
//! (`append`, `read`, ...) return at once, disk completions come in through [`Store::on_disk`], and notifications for the owner
//! go out through [`Store::poll_event`].
//!
//! Invariant, per partition: `extent_end <= durable_end <= append_end`. The frames between `extent_end` and `append_end` are contiguous and in memory.
//!
//! Invariant: nothing below the commit index is ever overwritten or truncated. Durable frames above it may be cut off, when a later leader's log
//! does not have them ([`Store::truncate_suffix`]). With one replica everything durable is committed. Readers only ever see durable frames.
//!
//! Invariant: along a log epochs never fall.
//!
//! The modules, in layers; each uses only those below it:
//!
//! ```text
//! compaction                             removes superseded values of keys
//! store       inspect                    opens, appends, commits, reads, frees | looks at a store that is not running
//! partition   journal                    one log in memory | small appends of many logs in one write
//! map         scan                       which extents hold which log | searches bytes for frames
//! extent      epochs      configurations one extent in memory | where epochs began | configurations of replicas in a log
//! config                                 settings
//! headers     limits                     what extents say when the map is lost | named limits
//! layout      producers   recovery       files and headers on disk | sequences of producers | finds the end of a log
//! mac         api                        codes of frames | requests and answers
//! position    state_log   mutants        places in a log | a durable list of changes | bugs to plant
//! ```
//!
//! This crate knows neither sockets nor topics' names, and nothing of replication: `durable` means on this disk.

#![forbid(unsafe_code)]

pub mod api;
pub mod compaction;
pub mod config;
mod configurations;
mod epochs;
mod extent;
mod headers;
pub mod inspect;
pub mod journal;
pub mod layout;
pub mod limits;
pub mod mac;
pub mod map;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
mod mutants;
mod partition;
pub mod position;
mod producers;
pub mod recovery;
mod scan;
pub mod state_log;
mod store;

pub use api::{
    AppendError, Appended, BatchFilter, Bounds, Cursor, CutError, FindOutcome, FindResult, FrameContent,
    Frames, IndexCursor, IndexRead, IndexReadOutcome, LogStartError, OpenError, PartitionFinding,
    PartitionSlot, Payload, ProducerCheck, ReadId, ReadLimits, ReadOutcome, ReadResult, RecoveryReport,
    ReplicaState, ReplicateError, Replicated, ReplicatedFrame, RewritableExtent, RewriteAborted,
    RewriteError, Rewritten, SearchMemory, StoreEvent, StoreStats, Verdict,
};
pub use config::{CommitRule, CompactionConfig, DurableForm, PartitionConfig, StoreConfig};
pub use epochs::{EpochEnd, EpochStart};
pub use limits::StoreLimits;
pub use mac::MacKey;
pub use position::LogPoint;
pub use producers::ActiveProducer;
pub use store::{AcceptLossError, GivenUp, Store};
