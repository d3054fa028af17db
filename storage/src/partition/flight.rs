//! Parts of a log on their way to the disk: queued, in flight, and from the journal to the extents.

use bytes::Bytes;

use crate::extent::FIRST_POSITION;
use crate::position::{ExtentRef, Mark};

/// A frozen part of the log that waits for a commit round. Whole pages.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) extent: ExtentRef,
    pub(crate) from: u32,
    pub(crate) data: Bytes,
    /// After its last frame.
    pub(crate) end: Mark,
    /// Bytes of frames that become durable with it.
    pub(crate) frame_bytes: u64,
}

impl Piece {
    /// Whether it has the first frame of its extent.
    pub(crate) fn begins_extent(&self) -> bool {
        u64::from(self.end.position) == u64::from(FIRST_POSITION) + self.frame_bytes
    }
}

/// How a part of the log becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// Frames are written to their place.
    Extent,
    /// The header of an extent is written to its place.
    Header,
    /// It is in this entry of the journal.
    Journal(u64),
}

/// A part of the log that the disk has been given. It keeps its bytes: if the disk has no space for them they are written again.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) piece: Piece,
    pub(crate) route: Route,
    pub(crate) writes_left: u32,
    /// The disk has answered everything: the writes, and the sync after them if there is one.
    pub(crate) landed: bool,
    /// There was no space for a part of it.
    pub(crate) failed: bool,
}

impl Flight {
    pub(super) fn is_durable(&self) -> bool {
        self.landed && !self.failed
    }

    /// After its last page.
    pub(super) fn to(&self) -> u32 {
        self.piece.from + self.piece.data.len() as u32
    }
}

/// A part of a log that is being written to the extents while the journal has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteBack {
    /// The first entry that it needs.
    pub(crate) need: u64,
    /// Where it ends.
    pub(crate) end: Mark,
}

/// The result of moving a durable end.
#[derive(Default, Debug)]
pub(crate) struct Advanced {
    /// Bytes of frames that have become durable.
    pub(crate) bytes: u64,
    /// Entries of the journal that the flights needed and the partition need not name: it needs an earlier one.
    pub(crate) released: Vec<u64>,
}
