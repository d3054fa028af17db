//! Streaming decompression of a batch's records: any codec, piece by piece, with bounded memory.
//!
//! All stored bytes are at hand from the beginning; only what comes out is taken in pieces. So a decoder never has to remember
//! half a field of its input, and one that stops after a piece goes on later from a position in the stored bytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod gzip;
mod lz4;
mod snappy;
mod window;

use core::fmt;

use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

use super::compression::Compression;
use super::error::BatchError;
use window::Window;

/// Bytes that one step of zstd writes at most. A frame whose content fits is decompressed without a window of its own.
const ZSTD_PIECE_BYTES: usize = 128 << 10;

/// The largest window that any level of zstd writes. The library touches only as much of it as comes out.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Why a decoder cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    /// The stored bytes are not what the codec writes.
    Corrupt,
    /// More would come out than is allowed.
    TooLarge,
}

/// Where a decoder stands after a step. Every step consumes stored bytes or writes some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    More,
    Ended,
}

/// Decompresses the records of one batch after the other.
///
/// It keeps the codecs' contexts and its buffer, so it is worth using again: [`Unpacker::start`] begins with another batch. Until it is used
/// for the first time it is empty, and it is cheap to move.
#[derive(Default)]
pub struct Unpacker {
    state: Option<Box<State>>,
}

#[derive(Default)]
struct State {
    codec: Compression,
    /// Position in the stored bytes.
    at: usize,
    /// Bytes that came out, and how many may.
    produced: usize,
    max: usize,
    ended: bool,
    window: Window,
    gzip: Option<Box<gzip::Gzip>>,
    snappy: snappy::Snappy,
    lz4: lz4::Lz4,
    zstd: Option<ZstdDecoder<'static>>,
}

impl Unpacker {
    /// Begins with the records of a batch that may grow to `max` bytes.
    pub fn start(&mut self, codec: Compression, max: usize) -> Result<(), BatchError> {
        self.state.get_or_insert_default().start(codec, max)
    }

    /// What came out and was not consumed yet.
    pub fn unread(&self) -> &[u8] {
        self.state.as_ref().map_or(&[], |state| state.window.unread())
    }

    /// Drops the first `bytes` of [`Unpacker::unread`].
    pub fn consume(&mut self, bytes: usize) {
        if let Some(state) = &mut self.state {
            state.window.consume(bytes);
        }
    }

    /// Everything has come out, or nothing was begun.
    pub fn is_done(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.ended)
    }

    /// Stored bytes that were read. An LZ4 frame may end in front of the last.
    pub fn read_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.at)
    }

    /// Decompresses another piece: up to about 128 KiB, of LZ4 one block. `stored` are the same bytes in every call. Returns how many
    /// bytes were read and written together, which is 0 only at the end.
    pub fn fill(&mut self, stored: &[u8]) -> Result<usize, BatchError> {
        match &mut self.state {
            Some(state) if !state.ended => state.fill(stored),
            _ => Ok(0),
        }
    }
}

impl State {
    fn start(&mut self, codec: Compression, max: usize) -> Result<(), BatchError> {
        self.codec = codec;
        self.at = 0;
        self.produced = 0;
        self.max = max;
        self.ended = false;
        self.window.start();
        match codec {
            Compression::None => {}
            Compression::Gzip => self.gzip.get_or_insert_default().start(),
            Compression::Snappy => self.snappy = snappy::Snappy::default(),
            Compression::Lz4 => self.lz4 = lz4::Lz4::default(),
            Compression::Zstd => self.start_zstd().map_err(|_| BatchError::Compressed(codec))?,
        }
        Ok(())
    }

    fn start_zstd(&mut self) -> std::io::Result<()> {
        if let Some(decoder) = &mut self.zstd {
            return decoder.reinit();
        }
        let mut decoder = ZstdDecoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        self.zstd = Some(decoder);
        Ok(())
    }

    fn fill(&mut self, stored: &[u8]) -> Result<usize, BatchError> {
        let (at, before) = (self.at, self.window.len());
        let left = self.max.saturating_sub(self.produced);
        let result = match self.codec {
            Compression::None => Ok(self.copy(stored)),
            Compression::Gzip => {
                self.gzip.get_or_insert_default().step(stored, &mut self.at, &mut self.window, left)
            }
            Compression::Snappy => self.snappy.step(stored, &mut self.at, &mut self.window, left),
            Compression::Lz4 => self.lz4.step(stored, &mut self.at, &mut self.window),
            Compression::Zstd => self.step_zstd(stored, left),
        };
        let too_large = BatchError::DecompressedTooLarge { max: self.max };
        let progress = result.map_err(|broken| match broken {
            Broken::Corrupt => BatchError::Compressed(self.codec),
            Broken::TooLarge => too_large,
        })?;
        let wrote = self.window.len().saturating_sub(before);
        self.produced = self.produced.saturating_add(wrote);
        if self.produced > self.max {
            return Err(too_large);
        }
        let read = self.at.saturating_sub(at);
        self.ended = progress == Progress::Ended;
        Ok(read.saturating_add(wrote))
    }

    fn copy(&mut self, stored: &[u8]) -> Progress {
        let rest = stored.get(self.at..).unwrap_or_default();
        let piece = rest.get(..ZSTD_PIECE_BYTES).unwrap_or(rest);
        self.window.push(piece);
        self.at = self.at.saturating_add(piece.len());
        if self.at >= stored.len() { Progress::Ended } else { Progress::More }
    }

    fn step_zstd(&mut self, stored: &[u8], left: usize) -> Result<Progress, Broken> {
        let decoder = self.zstd.as_mut().ok_or(Broken::Corrupt)?;
        let input = stored.get(self.at..).unwrap_or_default();
        let room = self.window.room(ZSTD_PIECE_BYTES.min(left.saturating_add(1)));
        let status = decoder.run_on_buffers(input, room).map_err(|_| Broken::Corrupt)?;
        self.at = self.at.saturating_add(status.bytes_read);
        self.window.written(status.bytes_written);
        if status.remaining == 0 && self.at >= stored.len() {
            return Ok(Progress::Ended);
        }
        if status.bytes_read == 0 && status.bytes_written == 0 {
            return Err(Broken::Corrupt);
        }
        Ok(Progress::More)
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.as_ref().map(|state| (state.codec, state.at, state.produced));
        f.debug_struct("Unpacker").field("state", &state).finish_non_exhaustive()
    }
}
