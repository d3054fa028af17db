//! The facts that recovery needs to scan an extent, and its access to the extent's bytes.
//!
//! Positions are relative to the start of the extent, its header block included: the first frame is at [`EXTENT_HEADER_BYTES`](crate::layout::EXTENT_HEADER_BYTES).

use std::io;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use crate::mac::ExtentMacs;
use crate::position::Mark;

/// The facts that must hold for the frames from a place on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expectation {
    /// Where to start, and the incarnation, the index and the offset expected there.
    pub start: Mark,
    /// Epoch of the frame before it, if there is one: epochs never fall along a log.
    pub epoch: Option<LeaderEpoch>,
    /// Frames may be missing between frames: the extent was compacted.
    pub has_gaps: bool,
    /// [`TopicPartition::tag`](highwater_protocol::ids::TopicPartition::tag) of the partition.
    pub tag: u32,
    /// The codes of frames that are found by searching. `None`: the extent was written by a version without codes.
    pub macs: Option<ExtentMacs>,
    /// Size of the extent, header block included.
    pub extent_bytes: u32,
    /// Where the extent was sealed, if the store's map says so: every frame before it had been written.
    pub sealed_at: Option<u32>,
    /// The store's map says that every frame with an index below this was durable.
    pub durable_hint: LogIndex,
    /// How far after a bad frame to look for proof that it had been acknowledged.
    pub unacked_bytes_max: u32,
    /// No frame of this incarnation was ever written at or after this position, as the store's map says. The size of the extent if the map
    /// says nothing.
    pub write_bound: u32,
}

/// The bytes of one extent.
pub trait ExtentBytes {
    /// Reads from this position of the extent until `buf` is full or the file ends. Returns the number of bytes.
    /// `at` and the length are multiples of the page size.
    fn read_at(&mut self, at: u32, buf: &mut [u8]) -> io::Result<usize>;
}
