//! Removes records from a batch in steps of bounded work, with memory for one record at a time.
//!
//! [`BatchFilter`](super::BatchFilter) needs the decompressed records of a batch at once, and takes as long as it takes. A batch that is too large for
//! that is decompressed twice here: once to count what stays, and once to write it.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::fmt;

use zerocopy::IntoBytes as _;

use super::compression::{Compression, StreamCompressor};
use super::error::BatchError;
use super::filter::{finish_header, shift_timestamp};
use super::header::BatchHeader;
use super::records::{Record, Records};
use super::stream::Work;
use super::unpack::Unpacker;
use super::varint;
use super::view::seal;
use crate::ids::Timestamp;
use crate::limits::BATCH_BYTES_MAX;

/// Cost of a record in addition to its bytes.
const RECORD_WORK: Work = 20;

/// Cost of a byte that is decompressed.
const DECOMPRESS_WORK: Work = 3;

/// Cost of a byte that is compressed.
const COMPRESS_WORK: Work = 10;

/// Bytes of the longest varint that is a record's length.
const LENGTH_BYTES_MAX: usize = 5;

/// Memory and size that a [`StreamFilter`] may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// Bytes that the batch may decompress to.
    pub decompressed_max: usize,
    /// Bytes of memory for the decoder and what it has decompressed: at least one record.
    pub memory_max: usize,
}

/// The filter of one batch, which must be compressed.
pub struct StreamFilter {
    header: BatchHeader,
    codec: Compression,
    limits: StreamLimits,
    unpacker: Unpacker,
    records: Records<'static>,
    count: u32,
    max_timestamp: Timestamp,
    output: Option<Output>,
}

/// The batch that is being written.
struct Output {
    compressor: StreamCompressor,
    horizon: Option<Timestamp>,
    /// A record, if its timestamp changes.
    shifted: Vec<u8>,
    bytes_max: usize,
}

impl fmt::Debug for StreamFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamFilter").field("count", &self.count).finish_non_exhaustive()
    }
}

impl StreamFilter {
    /// Begins with the records of the batch with this header.
    pub fn new(header: &BatchHeader, limits: StreamLimits) -> Result<Self, BatchError> {
        let codec = header.compression().ok_or(BatchError::Codec(header.codec()))?;
        let mut filter = Self {
            header: *header,
            codec,
            limits,
            unpacker: Unpacker::default(),
            records: Records::new(header, &[]),
            count: 0,
            max_timestamp: Timestamp(i64::MIN),
            output: None,
        };
        filter.begin()?;
        Ok(filter)
    }

    /// Begins again at the first record.
    pub fn begin(&mut self) -> Result<(), BatchError> {
        self.unpacker.start(self.codec, self.limits.decompressed_max)?;
        self.records = Records::new(&self.header, &[]);
        (self.count, self.max_timestamp) = (0, Timestamp(i64::MIN));
        self.output = None;
        Ok(())
    }

    /// Begins again at the first record, and writes those that stay to a batch of at most `bytes_max` bytes. `horizon`: see
    /// [`Selection::write`](super::Selection::write).
    pub fn begin_write(&mut self, horizon: Option<Timestamp>, bytes_max: usize) -> Result<(), BatchError> {
        self.begin()?;
        let compressor = StreamCompressor::new(self.codec, self.header.as_bytes())
            .ok_or(BatchError::Compressed(self.codec))?;
        let bytes_max = bytes_max.min(BATCH_BYTES_MAX);
        self.output = Some(Output { compressor, horizon, shifted: Vec::new(), bytes_max });
        Ok(())
    }

    /// Returns the number of records that stay, of those that were visited since the filter began.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns whether all records stay.
    pub fn is_all(&self) -> bool {
        self.count == self.header.count()
    }

    /// Visits records until `work` is used up, and subtracts the work done from it; a single record may exceed what was left. Those for which `keep`
    /// returns true stay. Returns whether all were visited. `stored` holds the bytes after the batch's header and must be the same in every call.
    pub fn step(
        &mut self,
        stored: &[u8],
        work: &mut Work,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<bool, BatchError> {
        let Self { unpacker, records, output, count, max_timestamp, .. } = self;
        while *work > 0 {
            let unread = unpacker.unread();
            let Some(bytes) = whole_record(unread).filter(|_| !records.is_complete()) else {
                if unpacker.is_done() {
                    // What is left is an incomplete record, or one too many.
                    let rest = records.clone().on(unread).next();
                    return rest.transpose().map(|_| true);
                }
                let filled = unpacker.fill(stored)?;
                if unpacker.memory_bytes() > self.limits.memory_max {
                    return Err(BatchError::DecompressedTooLarge { max: self.limits.memory_max });
                }
                *work = work.saturating_sub(filled.saturating_mul(DECOMPRESS_WORK).saturating_add(1));
                continue;
            };
            let raw = unread.get(..bytes).unwrap_or_default();
            let mut here = records.clone().on(raw);
            let record = here.next().unwrap_or(Err(BatchError::Compressed(self.codec)))?;
            *work = work.saturating_sub(RECORD_WORK);
            if keep(&record) {
                *count = count.saturating_add(1);
                *max_timestamp = (*max_timestamp).max(record.timestamp);
                if let Some(output) = output {
                    output.put(&self.header, raw);
                    *work = work.saturating_sub(bytes.saturating_mul(COMPRESS_WORK));
                }
            }
            *records = here.on(&[]);
            unpacker.consume(bytes);
        }
        Ok(false)
    }

    /// Appends the batch that was written to `out`, with a new checksum, when all records were visited. Returns false and leaves `out` unchanged if it
    /// takes more bytes than it may.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(Output { compressor, horizon, bytes_max, .. }) = self.output.take() else { return false };
        let (mut header, mut batch) = (self.header, compressor.finish());
        let is_compressed = self.count > 0;
        if !is_compressed {
            batch.truncate(header.as_bytes().len());
        }
        if batch.len() > bytes_max {
            return false;
        }
        let horizon = horizon.filter(|_| is_compressed);
        finish_header(&mut header, (self.count, self.max_timestamp), horizon, is_compressed, batch.len());
        let start = out.len();
        out.extend_from_slice(&batch);
        let batch = out.get_mut(start..).unwrap_or_default();
        if let Some(head) = batch.get_mut(..header.as_bytes().len()) {
            head.copy_from_slice(header.as_bytes());
        }
        seal(batch);
        true
    }
}

impl Output {
    /// Adds a record, unless the batch is too large already.
    fn put(&mut self, header: &BatchHeader, raw: &[u8]) {
        if self.compressor.bytes() > self.bytes_max {
            return;
        }
        let Some(horizon) = self.horizon else {
            self.compressor.put(raw);
            return;
        };
        let shift = header.base_timestamp.get().wrapping_sub(horizon.0);
        self.shifted.clear();
        let mut rest = raw;
        shift_timestamp(&mut rest, shift, &mut self.shifted).expect("the record was read before");
        self.compressor.put(&self.shifted);
    }
}

/// Returns the size of the record at the start of these bytes. `None`: not all of it is there.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let body = usize::try_from(varint::take_i32(&mut rest)?).ok()?;
    let head = bytes.len().saturating_sub(rest.len());
    debug_assert!(head <= LENGTH_BYTES_MAX);
    let whole = head.checked_add(body)?;
    (whole <= bytes.len()).then_some(whole)
}
