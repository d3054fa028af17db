//! Building a batch from records.

use bytes::{BufMut, BytesMut};
use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};

use super::compression::{Compression, Compressor};
use super::header::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BatchProducer, LENGTH_END};
use super::records::Header;
use super::varint;
use super::view::seal;
use crate::ids::Timestamp;
use crate::limits::{BATCH_BYTES_MAX, HEADERS_PER_RECORD_MAX, RECORDS_PER_BATCH_MAX};

/// A record to append to a batch.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Timestamp.
    pub timestamp: Timestamp,
    /// Key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: &'a [Header<'a>],
}

impl<'a> NewRecord<'a> {
    /// Creates a record without headers.
    pub const fn new(timestamp: Timestamp, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        Self { timestamp, key, value, headers: &[] }
    }
}

/// Why a record cannot be appended to a batch. The batch is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// This batch already has the maximum number of records or bytes; the next one can hold the record.
    #[error("the batch is full")]
    Full,
    /// No batch can hold the record.
    #[error("a batch with only this record would take {bytes} bytes, over the limit of {max}")]
    TooLarge {
        /// Bytes of a batch with this record alone.
        bytes: usize,
        /// Limit, in bytes.
        max: usize,
    },
    /// The record has more headers than allowed.
    #[error("the record has {0} headers; the limit is {HEADERS_PER_RECORD_MAX}")]
    Headers(usize),
}

/// Collects records into batches, one batch at a time.
///
/// Records are encoded as they are appended. Each batch is preceded by `prefix_bytes` of free space, in which the caller can put a
/// frame header or the head of a produce request without copying the batch.
///
/// Records are stored uncompressed if compression does not make them smaller, so [`BatchBuilder::bytes`] is an upper bound.
pub struct BatchBuilder {
    compression: Compression,
    prefix_bytes: usize,
    /// Prefix, header and encoded records; empty if there are no records.
    buffer: BytesMut,
    /// Capacity to reserve for the next batch: the size of the last one.
    expected_bytes: usize,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    compressor: Compressor,
}

impl BatchBuilder {
    /// Creates a builder that leaves `prefix_bytes` free before every batch.
    pub fn new(compression: Compression, prefix_bytes: usize) -> Self {
        Self {
            compression,
            prefix_bytes,
            buffer: BytesMut::new(),
            expected_bytes: 0,
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            compressor: Compressor::default(),
        }
    }

    /// Returns the number of records collected.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns an upper bound for the size of the batch, without the prefix.
    pub fn bytes(&self) -> usize {
        BATCH_HEADER_BYTES.max(self.buffer.len().saturating_sub(self.prefix_bytes))
    }

    /// Returns what [`BatchBuilder::bytes`] would be after appending `record`.
    pub fn bytes_with(&self, record: &NewRecord<'_>) -> usize {
        let body = self.body_bytes(record);
        self.bytes() + varint::len(body as i64) + body
    }

    /// Returns the largest timestamp of the records, or -1 if there are none.
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp)
    }

    /// Appends a record, which gets the next offset of the batch.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), AppendError> {
        if record.headers.len() > HEADERS_PER_RECORD_MAX {
            return Err(AppendError::Headers(record.headers.len()));
        }
        if self.count == RECORDS_PER_BATCH_MAX {
            return Err(AppendError::Full);
        }
        let body = self.body_bytes(record);
        let bytes = self.bytes() + varint::len(body as i64) + body;
        if bytes > BATCH_BYTES_MAX {
            let alone = bytes - self.bytes() + BATCH_HEADER_BYTES;
            return Err(if alone > BATCH_BYTES_MAX {
                AppendError::TooLarge { bytes: alone, max: BATCH_BYTES_MAX }
            } else {
                AppendError::Full
            });
        }
        if self.count == 0 {
            self.buffer.reserve(self.expected_bytes.max(self.prefix_bytes + bytes));
            self.buffer.put_bytes(0, self.prefix_bytes + BATCH_HEADER_BYTES);
            self.base_timestamp = record.timestamp.0;
            self.max_timestamp = record.timestamp.0;
        }
        self.put(record, body);
        self.max_timestamp = self.max_timestamp.max(record.timestamp.0);
        self.count += 1;
        debug_assert_eq!(self.bytes(), bytes, "the encoded length equals the computed one");
        Ok(())
    }

    /// Finishes the batch and returns it after `prefix_bytes` zero bytes, or `None` if there are no records.
    ///
    /// The builder is empty afterwards and ready for the next batch.
    pub fn finish(&mut self, producer: BatchProducer) -> Option<BytesMut> {
        if self.count == 0 {
            return None;
        }
        let records_at = self.prefix_bytes + BATCH_HEADER_BYTES;
        self.expected_bytes = self.buffer.len();
        let compressed = self.compressed(records_at);
        let codec = if compressed.is_some() { self.compression } else { Compression::None };
        let mut out = if let Some(out) = compressed {
            self.buffer.clear();
            out
        } else {
            core::mem::take(&mut self.buffer)
        };
        let batch = &mut out[self.prefix_bytes..];
        let header = BatchHeader {
            base_offset: I64::new(0),
            length: I32::new((batch.len() - LENGTH_END) as i32),
            leader_epoch: I32::new(-1),
            magic: BATCH_MAGIC,
            crc: U32::new(0),
            attributes: I16::new(codec as i16),
            last_offset_delta: I32::new(self.count as i32 - 1),
            base_timestamp: I64::new(self.base_timestamp),
            max_timestamp: I64::new(self.max_timestamp),
            producer_id: I64::new(producer.id.0),
            producer_epoch: I16::new(producer.epoch),
            base_sequence: I32::new(producer.sequence),
            count: I32::new(self.count as i32),
        };
        batch[..BATCH_HEADER_BYTES].copy_from_slice(header.as_bytes());
        seal(batch);
        self.count = 0;
        self.max_timestamp = -1;
        Some(out)
    }

    /// Swaps the codec contexts with `other`, so that many builders can share one set: a zstd context takes about a megabyte.
    pub fn swap_compressor(&mut self, other: &mut Compressor) {
        core::mem::swap(&mut self.compressor, other);
    }

    /// Reuses the memory of a batch that is no longer needed for the next batch.
    pub fn recycle(&mut self, mut buffer: BytesMut) {
        if self.count == 0 && buffer.capacity() > self.buffer.capacity() {
            buffer.clear();
            self.buffer = buffer;
        }
    }

    fn compressed(&mut self, records_at: usize) -> Option<BytesMut> {
        if self.compression == Compression::None {
            return None;
        }
        let mut out = BytesMut::with_capacity(self.buffer.len());
        out.put_bytes(0, records_at);
        let smaller = self.compressor.compress(self.compression, &self.buffer[records_at..], &mut out);
        smaller.then_some(out)
    }

    fn timestamp_delta(&self, record: &NewRecord<'_>) -> i64 {
        if self.count == 0 { 0 } else { record.timestamp.0.wrapping_sub(self.base_timestamp) }
    }

    /// Returns the bytes of the record after its length field.
    fn body_bytes(&self, record: &NewRecord<'_>) -> usize {
        let mut bytes = 1
            + varint::len(self.timestamp_delta(record))
            + varint::len(i64::from(self.count))
            + nullable_bytes(record.key)
            + nullable_bytes(record.value)
            + varint::len(record.headers.len() as i64);
        for header in record.headers {
            bytes += nullable_bytes(Some(header.key)) + nullable_bytes(header.value);
        }
        bytes
    }

    fn put(&mut self, record: &NewRecord<'_>, body: usize) {
        let timestamp_delta = self.timestamp_delta(record);
        let out = &mut self.buffer;
        out.reserve(varint::len(body as i64) + body);
        varint::put(out, body as i64);
        out.put_u8(0);
        varint::put(out, timestamp_delta);
        varint::put(out, i64::from(self.count));
        put_nullable(out, record.key);
        put_nullable(out, record.value);
        varint::put(out, record.headers.len() as i64);
        for header in record.headers {
            put_nullable(out, Some(header.key));
            put_nullable(out, header.value);
        }
    }
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        varint::put(out, bytes.len() as i64);
        out.put_slice(bytes);
    } else {
        varint::put(out, -1);
    }
}

impl core::fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("compression", &self.compression)
            .field("count", &self.count)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
