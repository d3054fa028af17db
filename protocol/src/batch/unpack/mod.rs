//! Streaming decompression of a batch's records, chunk by chunk and with bounded memory, for every codec.
//!
//! All stored bytes are available from the start; only the output is produced in chunks. A decoder therefore never keeps a partial
//! input field. It resumes at a position in the stored bytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod gzip;
mod lz4;
mod snappy;
mod window;
mod zstandard;

use core::fmt;

use super::compression::Compression;
use super::error::BatchError;
use window::Window;

/// Bytes of uncompressed records that one step copies.
const COPY_CHUNK_BYTES: usize = 128 << 10;

/// Memory of a gzip decoder apart from the decompressed bytes, in bytes: the history of 32 KiB, and tables.
const GZIP_BYTES: usize = 48 << 10;

/// Why a decoder cannot continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DecompressError {
    /// The stored bytes are not valid output of the codec.
    Corrupt,
    /// The output would exceed the limit.
    TooLarge,
}

/// State of a decoder after a step. Every step consumes or writes at least one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    More,
    Ended,
}

/// Decompresses the records of batches, one batch at a time.
///
/// It keeps codec contexts and its buffer for the next batch; [`Unpacker::start`] begins one. It is empty and cheap to move until
/// its first use.
#[derive(Default)]
pub struct Unpacker {
    state: Option<Box<State>>,
}

#[derive(Default)]
struct State {
    codec: Compression,
    /// Position in the stored bytes.
    at: usize,
    /// Bytes written so far, and their limit.
    produced: usize,
    max: usize,
    ended: bool,
    window: Window,
    gzip: Option<Box<gzip::Gzip>>,
    snappy: snappy::Snappy,
    lz4: lz4::Lz4,
    zstd: Option<zstandard::Zstd>,
}

impl Unpacker {
    /// Begins with the records of a batch that may decompress to at most `max` bytes.
    pub fn start(&mut self, codec: Compression, max: usize) -> Result<(), BatchError> {
        self.state.get_or_insert_default().start(codec, max)
    }

    /// Returns the decompressed bytes that have not been consumed.
    pub fn unread(&self) -> &[u8] {
        self.state.as_ref().map_or(&[], |state| state.window.unread())
    }

    /// Drops the first `bytes` of [`Unpacker::unread`].
    pub fn consume(&mut self, bytes: usize) {
        if let Some(state) = &mut self.state {
            state.window.consume(bytes);
        }
    }

    /// Returns whether all records have been decompressed, or no batch was started.
    pub fn is_done(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.ended)
    }

    /// Returns the number of stored bytes read. An LZ4 frame may end before the last one.
    pub fn read_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.at)
    }

    /// Returns the memory that decoders and decompressed bytes take, in bytes. It grows by no more than a step reads and writes, apart
    /// from what a decoder takes to begin with.
    pub fn memory_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.memory_bytes())
    }

    /// Decompresses the next chunk: up to about 128 KiB, or one block of LZ4. `stored` must be the same in every call. Returns the
    /// sum of bytes read and written, which is 0 only at the end.
    pub fn fill(&mut self, stored: &[u8]) -> Result<usize, BatchError> {
        match &mut self.state {
            Some(state) if !state.ended => state.fill(stored),
            _ => Ok(0),
        }
    }

    /// Decompresses all of `stored` into `out`, up to `max` bytes. Replaces the content of `out`.
    pub fn unpack(
        &mut self,
        codec: Compression,
        max: usize,
        stored: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        out.clear();
        self.start(codec, max)?;
        while !self.is_done() {
            self.fill(stored)?;
            let chunk = self.unread();
            out.extend_from_slice(chunk);
            let bytes = chunk.len();
            self.consume(bytes);
        }
        Ok(())
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
            Compression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstandard::Zstd::new().ok_or(BatchError::Compressed(codec))?),
                };
                zstd.start().map_err(|_| BatchError::Compressed(codec))?;
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let gzip = if self.gzip.is_some() { GZIP_BYTES } else { 0 };
        let zstd = self.zstd.as_ref().map_or(0, zstandard::Zstd::memory_bytes);
        size_of::<Self>().saturating_add(self.window.memory_bytes()).saturating_add(gzip).saturating_add(zstd)
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
            Compression::Zstd => match &mut self.zstd {
                Some(zstd) => zstd.step(stored, &mut self.at, &mut self.window, left),
                None => Err(DecompressError::Corrupt),
            },
        };
        let too_large = BatchError::DecompressedTooLarge { max: self.max };
        let progress = result.map_err(|error| match error {
            DecompressError::Corrupt => BatchError::Compressed(self.codec),
            DecompressError::TooLarge => too_large,
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
        let chunk = rest.get(..COPY_CHUNK_BYTES).unwrap_or(rest);
        self.window.push(chunk);
        self.at = self.at.saturating_add(chunk.len());
        if self.at >= stored.len() { Progress::Ended } else { Progress::More }
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.as_ref().map(|state| (state.codec, state.at, state.produced));
        f.debug_struct("Unpacker").field("state", &state).finish_non_exhaustive()
    }
}
