//! Requests to a store and its answers: values without behaviour.

use bytes::Bytes;
use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset, Timestamp, TopicPartition};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::slab::Key;

use crate::expect::LogPoint;
use crate::extent::ExtentRef;
use crate::placement::FramePlacement;
use crate::replica::{CutError, IndexRead};
use crate::rewrite::{RewriteAborted, Rewritten};

/// A partition within its store, for as long as the store is open. The place of a deleted partition is used again, its `PartitionSlot` is not: it
/// names nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionSlot(pub Key);

/// A read or search that has to wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// A record batch to append, and its header, so that the store need not parse it. The caller has checked the batch.
#[derive(Debug)]
pub struct Payload<'a> {
    pub(crate) header: BatchHeader,
    pub(crate) bytes: PayloadBytes<'a>,
}

/// The bytes of a batch to append.
#[derive(Debug)]
pub(crate) enum PayloadBytes<'a> {
    /// Copied once, into the partition's tail page.
    Small(&'a [u8]),
    /// Pages of the frame's own: room for the frame's header, then the batch.
    Bulk(AlignedBuf),
}

impl<'a> Payload<'a> {
    /// A batch that is copied once, into the partition's tail page.
    ///
    /// Panics if the header is that of a batch of another length.
    pub fn small(header: BatchHeader, batch: &'a [u8]) -> Self {
        assert!(header.batch_bytes() == batch.len(), "the header is that of the batch");
        Self { header, bytes: PayloadBytes::Small(batch) }
    }

    /// A batch that is written, cached and sent from where it is. It begins at `pages[FRAME_HEADER_BYTES..]`; the frame's header is
    /// written before it.
    ///
    /// Panics if the pages end before the batch does.
    pub fn bulk(header: BatchHeader, pages: AlignedBuf) -> Self {
        assert!(pages.len() >= FRAME_HEADER_BYTES + header.batch_bytes(), "the batch is in the pages");
        Self { header, bytes: PayloadBytes::Bulk(pages) }
    }

    pub(crate) fn placement(&self) -> FramePlacement {
        match self.bytes {
            PayloadBytes::Small(_) => FramePlacement::Packed,
            PayloadBytes::Bulk(_) => FramePlacement::OwnPages,
        }
    }
}

/// Where a batch went. It is not durable yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Its index: durable once [`StoreEvent::Durable`] names a higher one.
    pub index: LogIndex,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub next_offset: Offset,
}

/// Why a batch was not appended. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// No space for another slab, or for frames appended before. Appends succeed again after [`StoreEvent::SpaceAvailable`].
    #[error("the disk is full")]
    StorageFull,
    /// The partition was stopped because part of its log is damaged.
    #[error("the partition is stopped: part of its log is damaged")]
    Faulty,
    /// The batch does not fit an extent.
    #[error("a batch of {bytes} bytes is larger than the {max} bytes that fit an extent")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too much is waiting for the disk already.
    #[error("too many bytes are waiting for the disk")]
    Busy,
    /// The batch is in the log already.
    #[error("the batch was appended before, at offset {base_offset}")]
    Duplicate {
        /// Where it is.
        base_offset: Offset,
        /// The offset after its last record: the batch is durable once `durable_end` reaches it.
        next_offset: Offset,
        /// Its largest timestamp.
        timestamp: Timestamp,
    },
    /// The batch does not follow the producer's last one.
    #[error("the batch does not follow the producer's last one: sequence {expected} was expected")]
    OutOfOrder {
        /// The sequence number that would.
        expected: i32,
    },
    /// A newer instance of the producer has written here.
    #[error("a newer instance of the producer has written here")]
    Fenced,
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
}

/// A producer's batch compared with the partition's memory of the producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerCheck {
    /// Not seen before: append it.
    New,
    /// In the log already.
    Duplicate {
        /// Where.
        base_offset: Offset,
        /// The offset after its last record.
        next_offset: Offset,
        /// Its largest timestamp.
        timestamp: Timestamp,
    },
    /// It does not follow the last one.
    OutOfOrder {
        /// The sequence number that would.
        expected: i32,
    },
    /// A newer epoch of the producer has written here.
    Fenced,
}

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

/// A reader's place in a partition. Going on from the cursor that a read returned needs no search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub(crate) offset: Offset,
    pub(crate) hint: Option<CursorHint>,
}

/// Where the frame of a cursor's offset begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CursorHint {
    pub(crate) extent: ExtentRef,
    pub(crate) position: u32,
    /// Size of the largest frame of the last read: the next one is made large enough for one of that kind.
    pub(crate) frame_bytes: u32,
}

impl Cursor {
    /// Before the record with this offset.
    pub const fn at(offset: Offset) -> Self {
        Self { offset, hint: None }
    }

    /// Returns the size of the largest frame of the read that it is from. 0: unknown.
    pub fn frame_bytes(&self) -> usize {
        self.hint.map_or(0, |hint| hint.frame_bytes as usize)
    }

    /// The next offset this cursor reads.
    pub const fn offset(&self) -> Offset {
        self.offset
    }
}

/// Whole frames as they are on disk, each slice contiguous. The first batch may begin before the offset that was asked for;
/// frames of other kinds than batches are among them.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The slices, in order. None splits a frame.
    pub bytes: Vec<Bytes>,
    /// Bytes of memory that the slices keep from being freed.
    pub memory_bytes: usize,
    /// Where to go on.
    pub next: Cursor,
}

/// How much a read may return, and allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// Bytes of frames, unless a single one is larger.
    pub bytes_max: usize,
    /// Bytes of memory that it may allocate, and that its frames may keep from being freed.
    pub memory_bytes_max: usize,
}

/// The result of a read.
#[derive(Clone, Debug)]
pub enum ReadResult {
    /// At least one batch.
    Frames(Frames),
    /// Every record below the end that was given has been read. Never the answer for a record that is below it and lost: that is
    /// [`ReadResult::Damaged`]. Also the answer to reads whose partition was deleted.
    AtEnd,
    /// The offset is before the log's start or after its end.
    OutOfRange {
        /// Where the log starts.
        log_start: Offset,
        /// Where it ends.
        durable_end: Offset,
    },
    /// The frame at this offset is lost, cannot be read, or fails its checksum.
    Damaged {
        /// The next offset that can be read; the end, if no record after this one can.
        resume_at: Offset,
    },
    /// The frame at this offset takes more memory than the read was allowed: try again with so many bytes of it.
    NeedsMemory(usize),
}

/// Answer to [`Store::read`](crate::Store::read).
#[derive(Clone, Debug)]
pub enum ReadOutcome {
    /// From memory.
    Ready(ReadResult),
    /// From disk: [`StoreEvent::Read`] will bring it.
    Pending(ReadId),
}

/// The result of a search by timestamp: the first record at or after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindResult {
    /// This record.
    At(Offset, Timestamp),
    /// No record is that late.
    None,
    /// A frame that has to be looked into takes more memory than the search was allowed: search again with so many bytes of it.
    NeedsMemory(usize),
    /// Decompressing a batch has taken so many bytes of memory, more than it was allowed, and may take more: search again with more of it.
    NeedsDecoder(usize),
    /// A frame that had to be looked into is lost or cannot be read; the frames after it were not searched.
    Damaged {
        /// The first offset that is lost.
        at: Offset,
        /// The next offset that can be read.
        resume_at: Offset,
    },
}

/// The memory that a search may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SearchMemory {
    /// Bytes of the one buffer or cached chunk that it holds at a time.
    pub buffer_bytes_max: usize,
    /// Bytes of its decoder, with the window and what it has decompressed. They are checked after each chunk of a batch, so that it may use a
    /// chunk more.
    pub decoder_bytes_max: usize,
}

impl SearchMemory {
    /// As much as it needs.
    pub const UNLIMITED: Self = Self { buffer_bytes_max: usize::MAX, decoder_bytes_max: usize::MAX };
}

/// Answer to [`Store::find_time`](crate::Store::find_time).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindOutcome {
    /// From memory.
    Ready(FindResult),
    /// From disk: [`StoreEvent::Searched`] will bring it.
    Pending(ReadId),
}

/// Why the start of a log cannot be moved there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStartError {
    /// Records that are not durable yet, or do not exist.
    #[error("offset {offset} is behind the end of the log, {durable_end}")]
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
