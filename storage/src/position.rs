//! Positions in a partition's log, and the largest numbers they may have.

use highwater_protocol::ids::{ExtentSequence, Incarnation, LogIndex, Offset};

/// No partition gets there; below it, adding a batch's length cannot overflow.
pub(crate) const OFFSET_MAX: i64 = i64::MAX - (1 << 33);

/// No store gets there; below it, adding to an incarnation, a sequence, an index or a place cannot overflow.
pub(crate) const INCARNATION_MAX: u64 = 1 << 62;

/// A reference to an extent that stays valid when the extent is freed: its place in the chain, and its incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentRef {
    pub(crate) sequence: ExtentSequence,
    pub(crate) incarnation: Incarnation,
}

/// A place between two frames of a partition's log, whatever extent it lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPoint {
    /// Index of the next frame.
    pub index: LogIndex,
    /// Offset of the next record.
    pub offset: Offset,
}

/// A place between two frames of a partition's log, and where on disk that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The place of the extent in the partition's chain.
    pub sequence: ExtentSequence,
    /// The extent.
    pub incarnation: Incarnation,
    /// Where in the extent the next frame goes; a multiple of 8.
    pub position: u32,
    /// Index of the next frame.
    pub index: LogIndex,
    /// Offset of the next record.
    pub offset: Offset,
}

impl Mark {
    /// The extent.
    pub(crate) fn extent(&self) -> ExtentRef {
        ExtentRef { sequence: self.sequence, incarnation: self.incarnation }
    }

    /// The same, without where it is on disk.
    pub fn point(&self) -> LogPoint {
        LogPoint { index: self.index, offset: self.offset }
    }
}
