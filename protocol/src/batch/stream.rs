//! Streams over the records of a stored batch: decompresses and walks them chunk by chunk.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::ops::ControlFlow;

use super::compression::Compression;
use super::error::BatchError;
use super::header::BatchHeader;
use super::unpack::Unpacker;
use super::walk::{OffsetOrder, RecordHead, RecordWalk, WalkOutcome};

/// Units of work a step may do. A unit takes about a nanosecond on a server core. Work is counted, not measured, so that the same
/// bytes are processed in the same steps everywhere.
pub type Work = usize;

/// Fixed cost of decompressing one chunk, in addition to its bytes.
const CHUNK_WORK: Work = 200;

/// How a call of [`RecordStream::step`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamOutcome {
    /// The allowed work is used up; records remain.
    More,
    /// The visitor stopped.
    Stopped,
    /// All records were visited, and nothing follows the last one.
    End,
}

/// The records of one batch. It does not borrow the batch; the caller passes the stored bytes to every step.
#[derive(Debug)]
pub struct RecordStream {
    codec: Compression,
    order: OffsetOrder,
    walk: RecordWalk,
    unpacker: Unpacker,
    /// Position in uncompressed records.
    at: usize,
}

impl RecordStream {
    /// Creates a stream over the records of the batch with this header, which may decompress to at most `decompressed_max` bytes.
    pub fn new(
        header: &BatchHeader,
        order: OffsetOrder,
        decompressed_max: usize,
        mut unpacker: Unpacker,
    ) -> Result<Self, BatchError> {
        let codec = header.compression().ok_or(BatchError::Codec(header.codec()))?;
        if codec != Compression::None {
            unpacker.start(codec, decompressed_max)?;
        }
        Ok(Self { codec, order, walk: RecordWalk::new(header, order), unpacker, at: 0 })
    }

    /// Visits records until `work` is used up, and subtracts the work done from it; one chunk may exceed what was left. `stored`
    /// holds the bytes after the batch's header and must be the same in every call.
    pub fn step(
        &mut self,
        stored: &[u8],
        work: &mut Work,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<StreamOutcome, BatchError> {
        if self.codec == Compression::None {
            let rest = stored.get(self.at..).unwrap_or_default();
            let (passed, walked) = self.walk.walk(rest, true, work, visit)?;
            self.at = self.at.saturating_add(passed);
            return Ok(outcome(walked));
        }
        loop {
            let is_last = self.unpacker.is_done();
            let (passed, walked) = self.walk.walk(self.unpacker.unread(), is_last, work, visit)?;
            self.unpacker.consume(passed);
            let is_whole = self.unpacker.read_bytes() == stored.len();
            if walked == WalkOutcome::End && !is_whole && self.order == OffsetOrder::Contiguous {
                return Err(BatchError::Compressed(self.codec));
            }
            if walked != WalkOutcome::More || *work == 0 || is_last {
                return Ok(outcome(walked));
            }
            let bytes = self.unpacker.fill(stored)?;
            *work = work.saturating_sub(CHUNK_WORK.saturating_add(bytes.saturating_mul(self.byte_work())));
        }
    }

    /// Returns the memory that decompression takes, in bytes. See [`Unpacker::memory_bytes`].
    pub fn memory_bytes(&self) -> usize {
        self.unpacker.memory_bytes()
    }

    /// Returns the unpacker for use with another batch.
    pub fn into_unpacker(self) -> Unpacker {
        self.unpacker
    }

    /// Returns the cost of a byte read or written.
    fn byte_work(&self) -> Work {
        match self.codec {
            Compression::None => 0,
            Compression::Gzip => 3,
            Compression::Snappy | Compression::Lz4 | Compression::Zstd => 1,
        }
    }
}

fn outcome(walked: WalkOutcome) -> StreamOutcome {
    match walked {
        WalkOutcome::More => StreamOutcome::More,
        WalkOutcome::Stopped => StreamOutcome::Stopped,
        WalkOutcome::End => StreamOutcome::End,
    }
}
