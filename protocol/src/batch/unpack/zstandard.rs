//! Zstandard, by the library, with an account of the memory that it uses.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::window::Window;
use super::{DecompressError, Progress};

/// Maximum bytes that one step writes. A frame whose content fits is decompressed without a separate window.
const CHUNK_BYTES: usize = 128 << 10;

/// Largest window that any level uses.
const WINDOW_LOG_MAX: u32 = 27;

/// Memory of a decoder apart from the window of its frame, in bytes: tables, and a buffer for the largest block.
const CONTEXT_BYTES: usize = 256 << 10;

pub(super) struct Zstd {
    context: DCtx<'static>,
    /// Bytes written for this batch.
    written: usize,
    /// The most that were written for one batch.
    written_max: usize,
}

impl Zstd {
    pub(super) fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).ok()?;
        Some(Self { context, written: 0, written_max: 0 })
    }

    pub(super) fn start(&mut self) -> Result<(), DecompressError> {
        self.written = 0;
        self.context.reset(ResetDirective::SessionOnly).map(drop).map_err(|_| DecompressError::Corrupt)
    }

    /// Returns the memory that is used, in bytes. The library allocates the window that a frame asks for whole, up to 128 MiB, but touches
    /// only as much of it as it writes, and memory that is not touched is none.
    pub(super) fn memory_bytes(&self) -> usize {
        let allocated = self.context.sizeof();
        let window = allocated.saturating_sub(CONTEXT_BYTES);
        allocated.min(CONTEXT_BYTES).saturating_add(window.min(self.written_max))
    }

    /// Decompresses up to one chunk.
    pub(super) fn step(
        &mut self,
        stored: &[u8],
        at: &mut usize,
        window: &mut Window,
        left: usize,
    ) -> Result<Progress, DecompressError> {
        let mut input = InBuffer::around(stored.get(*at..).unwrap_or_default());
        let mut output = OutBuffer::around(window.room(CHUNK_BYTES.min(left.saturating_add(1))));
        let result = self.context.decompress_stream(&mut output, &mut input);
        let (read, wrote) = (input.pos(), output.pos());
        let remaining = result.map_err(|_| DecompressError::Corrupt)?;
        *at = at.saturating_add(read);
        window.written(wrote);
        self.written = self.written.saturating_add(wrote);
        self.written_max = self.written_max.max(self.written);
        if remaining == 0 && *at >= stored.len() {
            return Ok(Progress::Ended);
        }
        if read == 0 && wrote == 0 { Err(DecompressError::Corrupt) } else { Ok(Progress::More) }
    }
}
