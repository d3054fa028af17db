//! Requests to a store and its answers: values without behaviour.

mod append;
mod read;
mod replica;
mod report;
mod rewrite;

use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset, TopicPartition};
use highwater_runtime::slab::Key;

use crate::position::LogPoint;

pub use append::{AppendError, Appended, Payload, ProducerCheck};
pub(crate) use append::{FramePlacement, PayloadBytes};
pub(crate) use read::CursorHint;
pub use read::{
    Cursor, FindOutcome, FindResult, Frames, ReadId, ReadLimits, ReadOutcome, ReadResult, SearchMemory,
};
pub use replica::{
    CutError, FrameContent, IndexCursor, IndexRead, IndexReadOutcome, ReplicaState, ReplicateError,
    Replicated, ReplicatedFrame,
};
pub use report::{OpenError, PartitionFinding, RecoveryReport};
pub use rewrite::{BatchFilter, RewritableExtent, RewriteAborted, RewriteError, Rewritten, Verdict};

/// A partition within its store, for as long as the store is open. The place of a deleted partition is used again, its `PartitionSlot` is not: it
/// names nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionSlot(pub Key);

/// Where the log of a partition begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Offset of the first record that may be read.
    pub log_start: Offset,
    /// Every record below is on stable storage here.
    pub durable_end: Offset,
    /// Offset of the next record.
    pub append_end: Offset,
    /// Every frame with a lower index is on stable storage here.
    pub durable_index: LogIndex,
    /// Index of the next frame.
    pub append_index: LogIndex,
    /// Every frame with a lower index, and every record with a lower offset, is known to be committed. May be below the real one: after a start
    /// it is the one known when the last remaining frames were written.
    pub commit: LogPoint,
    /// Bytes of frames in the partition's extents.
    pub bytes: u64,
    /// Part of the log is damaged: appends are refused.
    pub faulty: bool,
    /// The newest epoch: that of the last frame, or one that recovery began because frames of that one, never acknowledged, are gone.
    pub last_epoch: Option<LeaderEpoch>,
    /// The log has no frame of that epoch yet.
    pub epoch_is_new: bool,
}

/// Why the start of a log cannot be moved there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStartError {
    /// Records that are not durable yet, or do not exist.
    #[error("offset {offset} is after the end of the log, {durable_end}")]
    BeyondEnd {
        /// The requested index or offset.
        offset: Offset,
        /// Where the log ends.
        durable_end: Offset,
    },
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
}

/// Something that the owner of a store must handle. Taken with [`Store::poll_event`](crate::Store::poll_event).
#[derive(Clone, Debug)]
pub enum StoreEvent {
    /// More of a partition's log is on stable storage.
    Durable {
        /// The partition.
        slot: PartitionSlot,
        /// Every frame with a lower index is durable.
        durable_index: LogIndex,
        /// Every record with a lower offset is durable.
        durable_offset: Offset,
    },
    /// A read is done.
    Read {
        /// Which.
        id: ReadId,
        /// Its result.
        result: ReadResult,
    },
    /// A search is done.
    Searched {
        /// Which.
        id: ReadId,
        /// Its result.
        result: FindResult,
    },
    /// A read by index is done.
    ReadByIndex {
        /// Which.
        id: ReadId,
        /// Its result.
        result: IndexRead,
    },
    /// A log was truncated, or could not be. It is not durable yet, and nothing that is appended from here on is durable before it.
    Truncated {
        /// The partition.
        slot: PartitionSlot,
        /// Where it ends now.
        end: Result<LogPoint, CutError>,
    },
    /// A log was abandoned and restarted: [`Store::start_at`](crate::Store::start_at).
    Started {
        /// The partition.
        slot: PartitionSlot,
    },
    /// A part of a log was rewritten, or is as it was: [`Store::rewrite`](crate::Store::rewrite).
    Rewritten {
        /// The partition.
        slot: PartitionSlot,
        /// What has become of it.
        outcome: Result<Rewritten, RewriteAborted>,
    },
    /// The start of a log was moved, durably.
    LogStart {
        /// The partition.
        slot: PartitionSlot,
        /// Its first offset now.
        offset: Offset,
    },
    /// The state of a replica is durable: [`Store::set_replica_state`](crate::Store::set_replica_state).
    ReplicaStateDurable {
        /// The partition.
        slot: PartitionSlot,
        /// The state. A later one may have been set.
        state: ReplicaState,
    },
    /// A partition was deleted, durably.
    Deleted {
        /// Which it was.
        tp: TopicPartition,
    },
    /// The disk is full: appends that need space fail until [`StoreEvent::SpaceAvailable`].
    StorageFull(String),
    /// Frames appended to a partition wait for space on the disk. They may become durable when there is some; clients
    /// that wait for that should not be kept waiting. Appends fail with [`AppendError::StorageFull`] until then.
    Stalled {
        /// The partition.
        slot: PartitionSlot,
    },
    /// Appends that failed with [`AppendError::StorageFull`] may succeed now.
    SpaceAvailable,
    /// A partition was deleted, or its writes in flight have ended: appends that failed with [`AppendError::Busy`] may
    /// succeed now. For a partition that is there [`StoreEvent::Durable`] says the same.
    RoomAvailable,
    /// The disk is not to be trusted any more: end the process.
    Fatal(String),
    /// Everything is durable and checkpointed after [`Store::shutdown`](crate::Store::shutdown).
    Closed,
}

/// Counters since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreStats {
    /// Disk writes of log data.
    pub writes: u64,
    /// Those of them that are durable by themselves.
    pub durable_writes: u64,
    /// Bytes of them.
    pub bytes_written: u64,
    /// Syncs of slabs.
    pub syncs: u64,
    /// Entries written to the journal.
    pub journal_entries: u64,
    /// Bytes of them, which are among the bytes written.
    pub journal_bytes: u64,
    /// Commit rounds.
    pub rounds: u64,
    /// Frames appended.
    pub frames_appended: u64,
    /// Bytes of them.
    pub bytes_appended: u64,
    /// Reads answered from the cache.
    pub reads_cached: u64,
    /// Disk reads.
    pub reads_disk: u64,
    /// Bytes of them.
    pub bytes_read: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Parts of logs that were rewritten.
    pub rewrites: u64,
    /// Bytes of their frames before.
    pub rewritten_bytes_before: u64,
    /// Bytes of their frames after.
    pub rewritten_bytes_after: u64,
    /// The most bytes of the map that went into a snapshot in one turn.
    pub snapshot_bytes_per_turn_max: u64,
    /// Bytes of frozen chunks held for readers.
    pub cache_bytes: u64,
    /// Appended and not yet durable.
    pub unacked_bytes: u64,
    /// Bytes of slabs.
    pub slab_bytes: u64,
    /// Of them, free.
    pub free_bytes: u64,
    /// Of those, without space on the disk: they were returned to the file system.
    pub hole_bytes: u64,
    /// Bytes returned to the file system.
    pub punched_bytes: u64,
}
