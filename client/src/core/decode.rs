//! Decodes received frames into records: checks, decompresses and trims them to the range wanted.

use bytes::Bytes;
use highwater_protocol::batch::{BatchError, BatchHeader, Compression, Records};
use highwater_protocol::frame::{FrameError, Frames};
use highwater_protocol::ids::Offset;

/// Size in bytes of decoded records at which a batch is complete. Bounds the memory used by decompression at a time.
const DECODED_BYTES: usize = 1 << 20;

/// The records of one stored batch, decompressed and fully validated.
#[derive(Clone, Debug)]
pub(crate) struct BatchPart {
    pub(crate) header: BatchHeader,
    pub(crate) records: Bytes,
    /// Records below this offset are skipped.
    pub(crate) from: Offset,
    /// Records at or above this offset are skipped.
    pub(crate) until: Offset,
}

impl BatchPart {
    pub(crate) fn wants(&self, offset: Offset) -> bool {
        self.from <= offset && offset < self.until
    }
}

/// The result of one [`Decoder::step`].
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) parts: Vec<BatchPart>,
    pub(crate) records: usize,
    /// The offset after these records.
    pub(crate) next_offset: Offset,
    pub(crate) leader_epoch: Option<i32>,
    /// All frames are decoded.
    pub(crate) done: bool,
}

/// Damage found in received bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("frame at byte {at}: {error}")]
    Frame { at: usize, error: FrameError },
    #[error("batch at offset {offset}: {error}")]
    Batch { offset: Offset, error: BatchError },
}

/// Decodes the frames of one message, step by step.
#[derive(Debug)]
pub(crate) struct Decoder {
    frames: Bytes,
    at: usize,
    /// The offset after the last record of the frames.
    next_offset: Offset,
}

impl Decoder {
    pub(crate) fn new(frames: Bytes, next_offset: Offset) -> Self {
        Self { frames, at: 0, next_offset }
    }

    /// Returns the total size of the frames.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// Decodes the next records from offset `from` on and, if there is an `end`, below it; up to about
    /// [`DECODED_BYTES`].
    pub(crate) fn step(&mut self, from: Offset, end: Option<Offset>) -> Result<Decoded, Damage> {
        let until = end.unwrap_or(Offset(i64::MAX));
        let mut decoded =
            Decoded { parts: Vec::new(), records: 0, next_offset: from, leader_epoch: None, done: false };
        let mut decoded_bytes = 0;
        let rest = self.frames.slice(self.at..);
        let mut frames = Frames::new(&rest);
        while decoded_bytes < DECODED_BYTES {
            let at = self.at + frames.position();
            let Some(frame) = frames.next() else {
                decoded.done = true;
                decoded.next_offset = decoded.next_offset.max(self.next_offset.min(until));
                break;
            };
            let frame = frame.map_err(|error| Damage::Frame { at, error })?;
            let header = frame.header();
            let (base, next) = (Offset(header.base_offset.get()), Offset(header.next_offset()));
            if base >= until {
                decoded.done = true;
                break;
            }
            // Skipped frames are not checked.
            if next <= from && next != base {
                continue;
            }
            frame.check().map_err(|error| Damage::Frame { at, error })?;
            let Some(batch) = frame.batch().filter(|batch| !batch.header().is_control()) else { continue };
            let damaged = |error| Damage::Batch { offset: base, error };
            let records = if batch.header().compression() == Some(Compression::None) {
                rest.slice_ref(batch.stored_records())
            } else {
                let mut out = Vec::new();
                batch.decompressed(&mut out).map_err(damaged)?;
                out.into()
            };
            let part = BatchPart { header: *batch.header(), records, from, until };
            let mut wanted = 0;
            for record in Records::new(&part.header, &part.records) {
                wanted += usize::from(part.wants(record.map_err(damaged)?.offset));
            }
            decoded.next_offset = decoded.next_offset.max(next.min(until));
            decoded.leader_epoch = Some(header.leader_epoch.get());
            if wanted > 0 {
                decoded_bytes += part.records.len();
                decoded.records += wanted;
                decoded.parts.push(part);
            }
        }
        self.at += frames.position();
        Ok(decoded)
    }
}
