//! Scans bytes of an extent for a reader. Pure: the store brings the bytes, piece by piece.
//!
//! A scan goes from the [`ScanCursor`] on through a [`View`] of the bytes towards a [`ReadGoal`]: [`by_offset`] for consumers and for
//! searches by timestamp, [`by_index`] for other replicas and for rewrites. [`lookup`] looks for a record inside one batch.

mod by_index;
mod by_offset;
mod lookup;

use std::ops::Range;

use bytes::Bytes;
use highwater_protocol::frame::{FrameError, FrameHeader, FrameKind};
use highwater_protocol::ids::{Incarnation, LogIndex, Offset, Timestamp};

use crate::mac::ExtentMacs;
use crate::mutants::{Mutant, is_planted};

pub(crate) use by_index::scan_by_index;
pub(crate) use by_offset::scan_by_offset;
pub(crate) use lookup::{Lookup, LookupResult, Wanted};

/// The goal of a read or search.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadGoal {
    /// Whole frames from an offset on.
    Frames { max_bytes: usize, up_to: Offset },
    /// The first record at or after a time.
    Time { at: Timestamp, log_start: Offset },
    /// The largest timestamp, for which the cursor goes to the end.
    Latest {
        log_start: Offset,
        /// The headers of batches, and what is known of extents, are not believed: every record is looked at.
        is_exact: bool,
    },
    /// Frames by their index: see [`by_index`].
    Index(IndexGoal),
}

/// The goal of a search by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexGoal {
    /// The frame to begin with; moves on with the frames that were passed.
    pub(crate) index: LogIndex,
    /// Take frames from there on. `None`: find out where it begins.
    pub(crate) take: Option<Take>,
}

/// Which frames to take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take {
    pub(crate) max_bytes: usize,
    /// Only frames with lower indexes.
    pub(crate) up_to: LogIndex,
    /// Who wants them.
    pub(crate) reader: IndexReader,
}

/// Who reads frames by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IndexReader {
    /// The owner of the store, for another replica.
    Owner,
    /// A rewrite of this part of the log.
    Rewrite,
}

/// Where a reader is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanCursor {
    /// Frames that end at or before this offset are passed over.
    pub(crate) offset: Offset,
    /// Where the next frame begins; when searching, where the next one may begin.
    pub(crate) position: u32,
    /// The frame that was expected is bad: looking for the next one that is not.
    pub(crate) searching: bool,
    /// While searching: the lowest offset of a good frame after the one that is wanted, and where to give up looking for that one.
    pub(crate) found: Option<(Offset, u32)>,
    /// Largest timestamp of the extent's batches before it, if it is known.
    pub(crate) max_timestamp: Option<i64>,
    /// Looking for the latest: the largest timestamp seen so far.
    pub(crate) latest: i64,
}

impl ScanCursor {
    /// Moves past a frame of this size, with this largest timestamp.
    pub(crate) fn pass(&mut self, behind: Offset, whole: usize, max_timestamp: Option<i64>) {
        self.offset = self.offset.max(behind);
        self.position += whole as u32;
        self.max_timestamp = match (self.max_timestamp, max_timestamp) {
            (Some(before), Some(here)) => Some(before.max(here)),
            _ => None,
        };
    }
}

/// Bytes of an extent.
pub(crate) struct View<'a> {
    pub(crate) bytes: &'a Bytes,
    /// Position of the first byte.
    pub(crate) from: u32,
    /// No frame after this position is to be read.
    pub(crate) limit: u32,
    /// The offsets of the records that lie in the extent and may be read.
    pub(crate) offsets: Range<Offset>,
    pub(crate) incarnation: Incarnation,
    pub(crate) tag: u32,
    /// See [`crate::mac`].
    pub(crate) macs: Option<ExtentMacs>,
    /// Frames may be missing between its frames.
    pub(crate) has_gaps: bool,
    /// A chunk of the cache: there are whole frames in it, and more of it cannot be had.
    pub(crate) is_chunk: bool,
}

impl View<'_> {
    /// Whether frames may be missing here and nothing be lost.
    pub(crate) fn may_skip(&self) -> bool {
        self.has_gaps || is_planted(Mutant::AcceptGap)
    }

    pub(crate) fn end(&self) -> u32 {
        self.limit.min(self.from + self.bytes.len() as u32)
    }

    pub(crate) fn at(&self, position: u32) -> &[u8] {
        let (from, to) = (position - self.from, self.end() - self.from);
        self.bytes.get(from as usize..to as usize).unwrap_or_default()
    }

    /// The header at this position, if it is one of this extent's.
    pub(crate) fn header(&self, position: u32) -> Result<(&FrameHeader, FrameKind), FrameError> {
        let (header, kind) = FrameHeader::parse(self.at(position))?;
        let ours = header.incarnation.get() == self.incarnation.0 && header.partition_tag.get() == self.tag;
        let fits = header.frame_bytes() <= (self.limit - position) as usize
            && header.base_offset.get() >= self.offsets.start.0
            && header.next_offset() <= self.offsets.end.0;
        if ours && fits { Ok((header, kind)) } else { Err(FrameError::HeaderChecksum) }
    }
}

/// The result of a scan.
#[derive(Debug)]
pub(crate) enum Step {
    /// Whole frames.
    Frames { bytes: Bytes, next: Offset, frame_bytes_max: u32 },
    /// A frame with a batch that may hold the goal; the cursor is after it.
    LookInto(Bytes),
    /// The next frame may not be read.
    End,
    /// More bytes are needed, from the cursor's position on, at least this many. `behind`: the offset after the frame that is there, if
    /// its header could be read.
    More { bytes: usize, behind: Option<Offset> },
    /// The extent has no more frames.
    EndOfExtent,
    /// The record at the cursor's offset cannot be read.
    Damaged { resume_at: Offset },
    /// Whole frames that were looked for by index, and the index after them.
    IndexFrames { bytes: Bytes, next: LogIndex },
    /// The frame of an index begins at the cursor's position, with this offset.
    Located { offset: Offset },
    /// The frame of this index is not where it should be.
    Lost,
    /// Nothing yet: look again from the cursor's position on.
    Again,
}
