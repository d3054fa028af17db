//! The records of a stored batch as a stream: decompressed and walked over piece by piece.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::ops::ControlFlow;

use super::compression::Compression;
use super::error::BatchError;
use super::header::BatchHeader;
use super::unpack::Unpacker;
use super::walk::{OffsetOrder, RecordHead, RecordWalk, Walked};

/// Units of work that may be done. One is about a nanosecond on a core of a server; it is counted, not measured, so that the same bytes
/// are walked over in the same steps everywhere.
pub type Work = usize;

/// What one piece of decompression costs besides its bytes.
const PIECE_WORK: Work = 200;

/// How a step of [`RecordStream::step`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streamed {
    /// The work that was allowed is done; records are left.
    More,
    /// The visitor stopped.
    Stopped,
    /// Every record was passed, and nothing follows the last one.
    End,
}

/// The records of one batch. Holds no reference to the batch: its bytes are handed to every step again.
#[derive(Debug)]
pub struct RecordStream {
    codec: Compression,
    order: OffsetOrder,
    walk: RecordWalk,
    unpacker: Unpacker,
    /// Position in records that are not compressed.
    at: usize,
}

impl RecordStream {
    /// A stream over the records of the batch with this header, which may grow to `decompressed_max` bytes.
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

    /// Walks over records while there is `work` left, and takes off it what was done; one piece may be more than there was. `stored` are
    /// the bytes behind the batch's header, the same in every call.
    pub fn step(
        &mut self,
        stored: &[u8],
        work: &mut Work,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<Streamed, BatchError> {
        if self.codec == Compression::None {
            let rest = stored.get(self.at..).unwrap_or_default();
            let (passed, walked) = self.walk.walk(rest, true, work, visit)?;
            self.at = self.at.saturating_add(passed);
            return Ok(streamed(walked));
        }
        loop {
            let is_last = self.unpacker.is_done();
            let (passed, walked) = self.walk.walk(self.unpacker.unread(), is_last, work, visit)?;
            self.unpacker.consume(passed);
            let is_whole = self.unpacker.read_bytes() == stored.len();
            if walked == Walked::End && !is_whole && self.order == OffsetOrder::Contiguous {
                return Err(BatchError::Compressed(self.codec));
            }
            if walked != Walked::More || *work == 0 || is_last {
                return Ok(streamed(walked));
            }
            let bytes = self.unpacker.fill(stored)?;
            *work = work.saturating_sub(PIECE_WORK.saturating_add(bytes.saturating_mul(self.byte_work())));
        }
    }

    /// Gives back what can be used for another batch.
    pub fn into_unpacker(self) -> Unpacker {
        self.unpacker
    }

    /// What a byte costs that is read or written.
    fn byte_work(&self) -> Work {
        match self.codec {
            Compression::None => 0,
            Compression::Gzip => 3,
            Compression::Snappy | Compression::Lz4 | Compression::Zstd => 1,
        }
    }
}

fn streamed(walked: Walked) -> Streamed {
    match walked {
        Walked::More => Streamed::More,
        Walked::Stopped => Streamed::Stopped,
        Walked::End => Streamed::End,
    }
}
