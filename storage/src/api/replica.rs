//! Requests of replication to a store, and its answers: values without behaviour.

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset};

use super::{AppendError, CursorHint, Payload, ReadId};
use crate::position::LogPoint;

/// A place from which to read by index. Going on from the cursor that a read returned needs no search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexCursor {
    pub(crate) index: LogIndex,
    pub(crate) hint: Option<CursorHint>,
}

impl IndexCursor {
    /// Before the frame with this index.
    pub const fn at(index: LogIndex) -> Self {
        Self { index, hint: None }
    }

    /// The next index this cursor reads.
    pub const fn index(&self) -> LogIndex {
        self.index
    }
}

/// The result of a read by index.
#[derive(Clone, Debug)]
pub enum IndexRead {
    /// At least one frame: whole frames as they are on disk, of every kind, from the index on. Frames that are missing before the first or between two
    /// of them were removed by compaction: a read returns [`Damaged`](Self::Damaged) before a frame that is lost.
    Frames {
        /// The frames.
        bytes: Bytes,
        /// Bytes of memory that they keep from being freed.
        memory_bytes: usize,
        /// Where to go on.
        next: IndexCursor,
    },
    /// Every frame below the end that was given has been read. Also the answer to reads whose partition was deleted.
    AtEnd,
    /// The index is before the first frame that is here, or after the last.
    OutOfRange {
        /// Index of the first frame.
        first: LogIndex,
        /// Every frame with a lower index is durable.
        end: LogIndex,
    },
    /// The frame at this index is lost, cannot be read, or fails its checksum.
    Damaged,
    /// The frame at this index takes more memory than the read was allowed: try again with so many bytes of it.
    NeedsMemory(usize),
}

/// Answer to [`Store::read_from_index`](crate::Store::read_from_index).
#[derive(Clone, Debug)]
pub enum IndexReadOutcome {
    /// From memory.
    Ready(IndexRead),
    /// From disk: [`StoreEvent::ReadByIndex`](crate::StoreEvent::ReadByIndex) will bring it.
    Pending(ReadId),
}

/// What a replica must never forget, as the store keeps it. Its meaning is known to replication only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplicaState {
    /// The highest term that the replica has seen.
    pub term: LeaderEpoch,
    /// The candidate that got the replica's vote in this term: its node, and which of the node's disks.
    pub vote: Option<(NodeId, u32)>,
    /// The term in which the replica had lost the end of its log. `None`: it has not, or has recovered.
    pub lost_in: Option<LeaderEpoch>,
}

/// What a frame of another replica's log holds.
#[derive(Debug)]
pub enum FrameContent<'a> {
    /// A batch, with offset and epoch stamped.
    Batch(Payload<'a>),
    /// Nothing: it is an epoch start.
    EpochStart,
    /// A configuration of the partition's replicas.
    Configuration(&'a [u8]),
}

/// A frame of another replica's log, for [`Store::append_replicated`](crate::Store::append_replicated).
#[derive(Debug)]
pub struct ReplicatedFrame<'a> {
    /// Its index.
    pub index: LogIndex,
    /// Epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// Offset of its first record; of other frames than batches, of the next record.
    pub offset: Offset,
    /// Where the frame before it ended in the log that it was read from; for the first frame of a read, the place that the read began at. If that is not
    /// where this frame begins, compaction has removed what was between them.
    pub follows: LogPoint,
    /// What it holds.
    pub content: FrameContent<'a>,
}

/// The outcome of appending a frame of another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replicated {
    /// It was appended. Durable once [`StoreEvent::Durable`](crate::StoreEvent::Durable) names a higher index.
    Appended,
    /// The log has it already.
    AlreadyThere,
}

/// Why a frame of another replica was not appended. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// The log has a frame of another epoch at this index. Truncate it there first.
    #[error("the log has a frame of another epoch at index {index}")]
    Conflict {
        /// The index.
        index: LogIndex,
    },
    /// Frames are missing before it, which compaction has not removed.
    #[error("the log ends at index {end}, before this frame")]
    Ahead {
        /// The next index that would be taken.
        end: LogIndex,
    },
    /// Its epoch is below that of the frame before it.
    #[error("epoch {epoch} is below epoch {last} of the frame before it")]
    EpochFalls {
        /// Its epoch.
        epoch: LeaderEpoch,
        /// Epoch of the last frame.
        last: LeaderEpoch,
    },
    /// Its offset, or a field of its batch, does not follow from the frame before it.
    #[error("its {what} differs from what follows the frame before it")]
    Mismatch {
        /// The field that differs.
        what: &'static str,
    },
    /// It cannot be appended now.
    #[error(transparent)]
    Refused(#[from] AppendError),
}

/// Why a log is not cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// Committed frames are never cut off.
    #[error("index {index} is below the commit index {commit}")]
    BelowCommit {
        /// The requested index or offset.
        index: LogIndex,
        /// Every frame with a lower index is committed.
        commit: LogIndex,
    },
    /// A part of the log is being cut off already.
    #[error("a part of the log is being cut off already")]
    Busy,
    /// The partition was stopped because part of its log is damaged.
    #[error("the partition is stopped: part of its log is damaged")]
    Faulty,
    /// Where the log should end it cannot be read.
    #[error("the log cannot be read where it should end")]
    Damaged,
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
}
