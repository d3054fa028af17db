//! Removes records from a stored batch, as log compaction does.
//!
//! The encoded records that stay are copied as they are, because their offsets and timestamps are relative to fields of the header that do not
//! change. Only a new delete horizon, which takes the place of the base timestamp, requires new timestamps.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::fmt;
use core::ops::Range;

use bytes::{BufMut, BytesMut};
use zerocopy::IntoBytes as _;

use super::compression::{Compression, Compressor};
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, CODEC_MASK, DELETE_HORIZON, LENGTH_END, TimestampType};
use super::records::{Record, Records};
use super::unpack::Unpacker;
use super::varint;
use super::view::{BatchView, seal};
use crate::ids::Timestamp;
use crate::limits::BATCH_BYTES_MAX;

/// Largest buffer that is kept for the next batch, in bytes.
const RETAINED_BYTES_MAX: usize = 1 << 20;

/// The same for the list of records that stay.
const RETAINED_RUNS_MAX: usize = RETAINED_BYTES_MAX / size_of::<Range<u32>>();

/// Base timestamp of a batch without records, as Kafka writes it.
const NO_BASE_TIMESTAMP: i64 = -1;

/// Filters batches, one at a time. It keeps its buffers and codec contexts for the next batch.
pub struct BatchFilter {
    unpacker: Unpacker,
    compressor: Compressor,
    /// The decompressed records of a batch.
    decompressed: Vec<u8>,
    /// The records that stay, before they are compressed.
    encoded: Vec<u8>,
    compressed: BytesMut,
    runs: Vec<Range<u32>>,
}

impl fmt::Debug for BatchFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchFilter").finish_non_exhaustive()
    }
}

impl Default for BatchFilter {
    fn default() -> Self {
        Self {
            unpacker: Unpacker::default(),
            // A broker filters batches beside everything else that it does.
            compressor: Compressor::fast(),
            decompressed: Vec::new(),
            encoded: Vec::new(),
            compressed: BytesMut::new(),
            runs: Vec::new(),
        }
    }
}

impl BatchFilter {
    /// Iterates over the records of a batch, which may decompress to at most `decompressed_max` bytes.
    pub fn records<'s>(
        &'s mut self,
        batch: BatchView<'s>,
        decompressed_max: usize,
    ) -> Result<Records<'s>, BatchError> {
        let stored = decompress(&mut self.unpacker, &mut self.decompressed, batch, decompressed_max)?;
        Ok(Records::new(batch.header(), stored))
    }

    /// Selects the records of a batch for which `keep` returns true. The batch may decompress to at most `decompressed_max` bytes. Fails
    /// if a record is malformed.
    pub fn select<'s>(
        &'s mut self,
        batch: BatchView<'s>,
        decompressed_max: usize,
        mut keep: impl FnMut(&Record<'s>) -> bool,
    ) -> Result<Selection<'s>, BatchError> {
        let Self { unpacker, compressor, decompressed, encoded, compressed, runs } = self;
        release_if_large(encoded);
        if compressed.capacity() > RETAINED_BYTES_MAX {
            *compressed = BytesMut::new();
        }
        runs.clear();
        if runs.capacity() > RETAINED_RUNS_MAX {
            *runs = Vec::new();
        }
        let records = decompress(unpacker, decompressed, batch, decompressed_max)?;
        let position = |rest: usize| records.len().saturating_sub(rest) as u32;
        let (mut count, mut max_timestamp) = (0_u32, Timestamp(i64::MIN));
        let mut iter = Records::new(batch.header(), records);
        loop {
            let start = position(iter.rest_bytes());
            let Some(record) = iter.next() else { break };
            let record = record?;
            if !keep(&record) {
                continue;
            }
            let end = position(iter.rest_bytes());
            match runs.last_mut().filter(|run| run.end == start) {
                Some(run) => run.end = end,
                None => runs.push(start..end),
            }
            count = count.saturating_add(1);
            max_timestamp = max_timestamp.max(record.timestamp);
        }
        Ok(Selection { batch, records, runs, count, max_timestamp, compressor, encoded, compressed })
    }
}

fn decompress<'s>(
    unpacker: &mut Unpacker,
    out: &'s mut Vec<u8>,
    batch: BatchView<'s>,
    max: usize,
) -> Result<&'s [u8], BatchError> {
    let codec = batch.header().compression().ok_or(BatchError::Codec(batch.header().codec()))?;
    if codec == Compression::None {
        return Ok(batch.stored_records());
    }
    release_if_large(out);
    unpacker.unpack(codec, max, batch.stored_records(), out)?;
    Ok(out)
}

fn release_if_large(buffer: &mut Vec<u8>) {
    if buffer.capacity() > RETAINED_BYTES_MAX {
        *buffer = Vec::new();
    }
}

/// The records of a batch that stay.
pub struct Selection<'s> {
    batch: BatchView<'s>,
    records: &'s [u8],
    runs: &'s [Range<u32>],
    count: u32,
    max_timestamp: Timestamp,
    compressor: &'s mut Compressor,
    encoded: &'s mut Vec<u8>,
    compressed: &'s mut BytesMut,
}

impl fmt::Debug for Selection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Selection<'_> {
    /// Returns the number of records that stay.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns whether all records stay.
    pub fn is_all(&self) -> bool {
        self.count == self.batch.header().count()
    }

    /// Appends a batch of the selected records to `out`, with a new checksum. Returns false and leaves `out` unchanged if the batch would take
    /// more than `bytes_max` bytes.
    ///
    /// Offsets, leader epoch, producer and attributes are those of the original. The codec is too, unless the records that stay are not smaller
    /// compressed. The max timestamp is that of the records that stay, unless the topic uses log append time. A batch without records keeps
    /// the original's, and has neither codec nor delete horizon: it is what Kafka leaves of the last batch of a producer.
    ///
    /// `delete_horizon` is the time from which the batch's tombstones may be removed. `None` leaves it as it is.
    pub fn write(&mut self, delete_horizon: Option<Timestamp>, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let mut header = *self.batch.header();
        let horizon = delete_horizon.filter(|_| self.count > 0);
        let codec = if self.count == 0 { None } else { header.compression() };
        out.extend_from_slice(header.as_bytes());
        let is_compressed = match codec {
            None | Some(Compression::None) => {
                self.encode(horizon, out);
                false
            }
            Some(codec) => {
                let mut encoded = core::mem::take(self.encoded);
                encoded.clear();
                self.encode(horizon, &mut encoded);
                self.compressed.clear();
                let is_smaller = self.compressor.compress(codec, &encoded, self.compressed);
                out.extend_from_slice(if is_smaller { self.compressed } else { &encoded });
                *self.encoded = encoded;
                is_smaller
            }
        };
        let bytes = out.len().saturating_sub(start);
        if bytes > bytes_max.min(BATCH_BYTES_MAX) {
            out.truncate(start);
            return false;
        }
        finish_header(&mut header, (self.count, self.max_timestamp), horizon, is_compressed, bytes);
        let batch = out.get_mut(start..).unwrap_or_default();
        if let Some(head) = batch.get_mut(..BATCH_HEADER_BYTES) {
            head.copy_from_slice(header.as_bytes());
        }
        seal(batch);
        true
    }

    /// Appends the records, uncompressed, to `out`.
    fn encode(&self, base_timestamp: Option<Timestamp>, out: &mut impl BufMut) {
        let shift = base_timestamp.map(|new| self.batch.header().base_timestamp.get().wrapping_sub(new.0));
        for run in self.runs {
            let mut run = self.records.get(run.start as usize..run.end as usize).unwrap_or_default();
            let Some(shift) = shift else {
                out.put_slice(run);
                continue;
            };
            while !run.is_empty() {
                shift_timestamp(&mut run, shift, out).expect("the records were read before");
            }
        }
    }
}

/// Sets the fields of the header of a batch of which `count` records stay, the latest of them at `max_timestamp`.
pub(super) fn finish_header(
    header: &mut BatchHeader,
    (count, max_timestamp): (u32, Timestamp),
    horizon: Option<Timestamp>,
    is_compressed: bool,
    bytes: usize,
) {
    let mut attributes = header.attributes.get();
    if !is_compressed {
        attributes &= !CODEC_MASK;
    }
    if let Some(horizon) = horizon {
        attributes |= DELETE_HORIZON;
        header.base_timestamp.set(horizon.0);
    }
    if count == 0 {
        attributes &= !DELETE_HORIZON;
        header.base_timestamp.set(NO_BASE_TIMESTAMP);
    } else if header.timestamp_type() == TimestampType::CreateTime {
        header.max_timestamp.set(max_timestamp.0);
    }
    header.attributes.set(attributes);
    header.count.set(count as i32);
    header.length.set(bytes.saturating_sub(LENGTH_END) as i32);
}

/// Takes a record and appends it to `out` with `shift` added to its timestamp delta.
pub(super) fn shift_timestamp(records: &mut &[u8], shift: i64, out: &mut impl BufMut) -> Option<()> {
    let bytes = usize::try_from(varint::take_i32(records)?).ok()?;
    let (body, rest) = records.split_at_checked(bytes)?;
    *records = rest;
    let (attributes, mut fields) = body.split_first()?;
    let delta = varint::take_i64(&mut fields)?.wrapping_add(shift);
    let bytes = fields.len().checked_add(varint::len(delta))?.checked_add(1)?;
    varint::put(out, bytes as i64);
    out.put_u8(*attributes);
    varint::put(out, delta);
    out.put_slice(fields);
    Some(())
}
