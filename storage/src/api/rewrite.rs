//! Requests to rewrite a part of a log, and their outcome: values without behaviour.

use std::fmt;

use highwater_protocol::batch::{BatchHeader, BatchView};
use highwater_protocol::ids::{LogIndex, Offset};

/// Decides what is kept of the batches of a part of a log that is rewritten.
pub trait BatchFilter: fmt::Debug + Send {
    /// Decides about one batch. To replace it, writes a whole batch into `out`, which is empty: with the same offsets, producer, sequence numbers and
    /// leader epoch, and a right checksum. `keeps_header`: its header has to stay. It is the last of its producer, and a retry has to be recognised after
    /// the map of the store was lost too; or it is the last of the log, and readers have to get to the end.
    ///
    /// A batch may be shown more than once: a rewrite for which the space was too small begins again.
    fn filter(&mut self, batch: &BatchView<'_>, keeps_header: bool, out: &mut Vec<u8>) -> Verdict;

    /// Returns when more of a batch that was kept may be dropped, if time alone decides that. The store notes the latest of these times: see
    /// [`RewritableExtent::horizon_ms`].
    fn horizon_ms(&self, _kept: &BatchHeader) -> Option<i64> {
        None
    }
}

/// What is kept of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All of it.
    Keep,
    /// The batch that the filter made of it.
    Replace,
    /// Nothing.
    Drop,
    /// It takes long to decide: the batch is shown again in a later turn.
    Unfinished,
}

/// An extent that can be rewritten: it is sealed, everything in it is committed, and the log goes on in another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RewritableExtent {
    /// Index of its first frame.
    pub base_index: LogIndex,
    /// Index of the first frame of the next extent.
    pub end_index: LogIndex,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of the first record of the next extent.
    pub end_offset: Offset,
    /// Bytes of its frames.
    pub bytes: u64,
    /// How often its content was rewritten.
    pub generation: u32,
    /// When it was begun; of a rewritten extent, the last of those that it replaced.
    pub created_ms: i64,
    /// The latest of its records' timestamps, and of the times at which batches without one were appended; without batches, when it was begun.
    pub newest_ms: i64,
    /// The latest of the times that the filter of the rewrite gave for its batches. `None`: it gave none.
    pub horizon_ms: Option<i64>,
}

/// Why a rewrite cannot begin. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// Another part of a log of this store is being rewritten.
    #[error("another part of a log is being rewritten")]
    Busy,
    /// There are not so many extents that may be rewritten, or they are too large together.
    #[error("these extents cannot be rewritten together")]
    NotRewritable,
    /// The partition was deleted, is stopped for damage, or part of its log is being cut off; or the store is being closed.
    #[error("the log cannot be rewritten now")]
    Unavailable,
}

/// Why a rewrite was given up. The log is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteAborted {
    /// The partition was deleted, its start was moved, its end is being cut off, or the store is being closed.
    #[error("the log has changed meanwhile")]
    Changed,
    /// A frame is damaged.
    #[error("a frame is damaged")]
    Damaged,
    /// There is no space on the disk for the new extent.
    #[error("there is no space on the disk")]
    NoSpace,
    /// What the filter made of the batches is larger than any extent.
    #[error("the batches have grown and do not fit an extent any more")]
    TooLarge,
    /// The owner gave it up.
    #[error("it was given up on request")]
    Requested,
}

/// The outcome of a rewrite.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rewritten {
    /// Extents that one extent has replaced.
    pub extents: usize,
    /// Bytes of frames before.
    pub bytes_before: u64,
    /// Bytes of frames now.
    pub bytes_after: u64,
    /// Batches before.
    pub batches_before: u64,
    /// Batches now.
    pub batches_after: u64,
}
