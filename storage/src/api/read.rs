//! Reads and searches: where they begin, their limits, and their results.

use bytes::Bytes;
use highwater_protocol::ids::{Offset, Timestamp};

use crate::position::ExtentRef;

/// A read or search that has to wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

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
    /// The offset is before the log's start or after its end, and the log is not damaged.
    OutOfRange {
        /// Where the log starts.
        log_start: Offset,
        /// Where it ends.
        durable_end: Offset,
    },
    /// The offset is after the end of a log that is damaged. The records between may have been lost with its end.
    AfterDamage {
        /// Where the log ends, as far as that is known.
        end: Offset,
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
    /// From disk: [`StoreEvent::Read`](crate::StoreEvent::Read) will bring it.
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
    /// From disk: [`StoreEvent::Searched`](crate::StoreEvent::Searched) will bring it.
    Pending(ReadId),
}
