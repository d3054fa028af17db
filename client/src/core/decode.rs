//! Frames that arrived into records: checked, decompressed, and cut to what the consumer wants.

use bytes::Bytes;
use highwater_protocol::batch::{BatchError, BatchHeader, Compression, Records};
use highwater_protocol::frame::{FrameError, Frames};
use highwater_protocol::ids::Offset;

/// Bytes of records after which a batch for the user is big enough. Bounds what compressed frames grow to at a time.
const DECODED_BYTES: usize = 1 << 20;

/// The records of one stored batch, decompressed and read through once, so that they can be relied on.
#[derive(Clone, Debug)]
pub(crate) struct BatchPart {
    pub(crate) header: BatchHeader,
    pub(crate) records: Bytes,
    /// Records before this are not wanted.
    pub(crate) from: Offset,
    /// Nor are those from here on.
    pub(crate) until: Offset,
}

impl BatchPart {
    pub(crate) fn wants(&self, offset: Offset) -> bool {
        self.from <= offset && offset < self.until
    }
}

/// What a step of [`Decoder::step`] brought.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) parts: Vec<BatchPart>,
    pub(crate) records: usize,
    /// Where the first record after these would be.
    pub(crate) next_offset: Offset,
    pub(crate) leader_epoch: Option<i32>,
    /// Nothing is left.
    pub(crate) done: bool,
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("frame at byte {at}: {error}")]
    Frame { at: usize, error: FrameError },
    #[error("batch at offset {offset}: {error}")]
    Batch { offset: Offset, error: BatchError },
}

/// Works through the frames of one message.
#[derive(Debug)]
pub(crate) struct Decoder {
    frames: Bytes,
    at: usize,
    /// Behind the last record of the frames.
    next_offset: Offset,
}

impl Decoder {
    pub(crate) fn new(frames: Bytes, next_offset: Offset) -> Self {
        Self { frames, at: 0, next_offset }
    }

    /// Bytes of all the frames.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The next records that are not before `from` and, with an `end`, before that; up to about [`DECODED_BYTES`].
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
            // What is skipped is not read, so it need not be whole.
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
