//! A view of a batch in its encoded bytes: checks, and the fields that a broker writes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use zerocopy::{FromBytes, IntoBytes as _};

use super::compression::Compression;
use super::error::BatchError;
use super::header::{
    BATCH_HEADER_BYTES, BROKER_ONLY, BatchHeader, BatchProducer, CRC_START, LOG_APPEND_TIME,
    RECORD_BYTES_MIN, TimestampType,
};
use super::records::Records;
use crate::ids::{LeaderEpoch, Offset, Timestamp};
use crate::limits::RECORDS_PER_BATCH_MAX;

/// Exactly one batch in borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
    records: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Returns the batch that fills `bytes`. Checks only magic and length; use it for batches whose frame has been checked.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let need = header.batch_bytes();
        if let Some(extra @ 1..) = bytes.len().checked_sub(need) {
            return Err(BatchError::Trailing { bytes: extra });
        }
        let records = bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        if bytes.len() < need {
            return Err(BatchError::Truncated { have: bytes.len(), need });
        }
        Ok(Self { header, bytes, records })
    }

    /// Returns the batch that fills `bytes`, whose header was parsed before.
    ///
    /// Panics if the header is that of a batch of another length.
    pub fn with_header(header: &'a BatchHeader, bytes: &'a [u8]) -> Self {
        assert!(header.batch_bytes() == bytes.len(), "the header is that of the batch");
        debug_assert!(bytes.starts_with(header.as_bytes()), "the header is that of the batch");
        Self { header, bytes, records: bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default() }
    }

    /// Returns the header.
    #[inline]
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// Returns the whole batch.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the stored records, which are compressed if the header says so.
    #[inline]
    pub fn stored_records(&self) -> &'a [u8] {
        self.records
    }

    /// Computes the checksum of the bytes that it covers.
    pub fn checksum(&self) -> u32 {
        checksum(self.bytes)
    }

    /// Compares the stored checksum with the computed one.
    pub fn check_checksum(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc.get(), self.checksum());
        if stored == computed { Ok(()) } else { Err(BatchError::Checksum { stored, computed }) }
    }

    /// Returns the decompressed records. Compressed records are decompressed into `scratch`, whose content is replaced.
    pub fn decompressed<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], BatchError>
    where
        'a: 's,
    {
        match self.header.compression() {
            Some(Compression::None) => Ok(self.records),
            Some(codec) => {
                codec.decompress(self.records, scratch)?;
                Ok(scratch)
            }
            None => Err(BatchError::Codec(self.header.codec())),
        }
    }

    /// Iterates over the records, decompressing them into `scratch` if necessary.
    pub fn records<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<Records<'s>, BatchError>
    where
        'a: 's,
    {
        Ok(Records::new(self.header, self.decompressed(scratch)?))
    }

    /// Reads every record and checks that the offsets have no gaps and that the header's max timestamp is that of the records.
    pub fn verify_records(&self, scratch: &mut Vec<u8>) -> Result<(), BatchError> {
        let mut max = Timestamp(-1);
        let mut expected = self.header.base_offset.get();
        for (number, record) in (0_u32..).zip(self.records(scratch)?) {
            let record = record?;
            if record.offset.0 != expected {
                return Err(BatchError::Record { number, field: "offset" });
            }
            expected = expected.saturating_add(1);
            max = max.max(record.timestamp);
        }
        let header = self.header.max_timestamp();
        if self.header.timestamp_type() == TimestampType::CreateTime && header != max {
            return Err(BatchError::MaxTimestamp { header: header.0, records: max.0 });
        }
        Ok(())
    }

    /// Checks the header against the rules for producers.
    pub(super) fn check_produced(&self) -> Result<(), BatchError> {
        let header = self.header;
        let compression = header.compression().ok_or(BatchError::Codec(header.codec()))?;
        if header.base_offset.get() != 0 {
            return Err(BatchError::BaseOffset(header.base_offset.get()));
        }
        if header.attributes.get() & BROKER_ONLY != 0 {
            return Err(BatchError::Attributes(header.attributes.get()));
        }
        let (count, last_offset_delta) = (header.count.get(), header.last_offset_delta.get());
        let fits = compression != Compression::None
            || (header.count() as usize).saturating_mul(RECORD_BYTES_MIN) <= self.records.len();
        if count <= 0
            || header.count() > RECORDS_PER_BATCH_MAX
            || last_offset_delta.checked_add(1) != Some(count)
            || !fits
        {
            return Err(BatchError::Count { count, last_offset_delta, bytes: self.records.len() });
        }
        let (id, epoch) = (header.producer_id.get(), header.producer_epoch.get());
        let sequence = header.base_sequence.get();
        let consistent = if id >= 0 { epoch >= 0 && sequence >= 0 } else { !header.is_transactional() };
        if id < -1 || !consistent {
            return Err(BatchError::Producer { id, epoch, sequence });
        }
        Ok(())
    }
}

/// Checks that `bytes` are exactly one batch with a valid checksum, and that its header follows the rules for producers. Does not
/// look at the records; see [`BatchCheck`](super::BatchCheck).
pub fn validate(bytes: &[u8]) -> Result<BatchView<'_>, BatchError> {
    let batch = BatchView::parse(bytes)?;
    batch.check_checksum()?;
    batch.check_produced()?;
    Ok(batch)
}

fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_START..).unwrap_or_default())
}

fn header_mut(batch: &mut [u8]) -> &mut BatchHeader {
    let (header, _) = BatchHeader::mut_from_prefix(batch).expect("only checked batches are written to");
    header
}

/// Writes base offset and leader epoch, which the checksum does not cover.
///
/// Panics if `batch` is shorter than a header.
pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    header_mut(batch).stamp(base_offset, epoch);
}

/// Writes the checksum of the current content of `batch`. Returns the header.
///
/// Panics if `batch` is shorter than a header.
pub fn seal(batch: &mut [u8]) -> &BatchHeader {
    let crc = checksum(batch);
    let header = header_mut(batch);
    header.crc.set(crc);
    header
}

/// Sets the timestamp type to create time and the max timestamp to `max`, the largest of the producer's timestamps, and writes the
/// new checksum. Returns the new header.
///
/// Panics if `batch` is shorter than a header.
pub fn stamp_create_time(batch: &mut [u8], max: Timestamp) -> &BatchHeader {
    let header = header_mut(batch);
    header.attributes.set(header.attributes.get() & !LOG_APPEND_TIME);
    header.max_timestamp.set(max.0);
    seal(batch)
}

/// Sets the timestamp type to log append time and the timestamp to `at`, and writes the new checksum. Returns the new header.
///
/// Panics if `batch` is shorter than a header.
pub fn stamp_log_append_time(batch: &mut [u8], at: Timestamp) -> &BatchHeader {
    let header = header_mut(batch);
    header.attributes.set(header.attributes.get() | LOG_APPEND_TIME);
    header.max_timestamp.set(at.0);
    seal(batch)
}

/// Replaces producer id, epoch and sequence, and writes the new checksum. Used when a batch is sent again with a new epoch.
///
/// Panics if `batch` is shorter than a header.
pub fn stamp_producer(batch: &mut [u8], producer: BatchProducer) {
    let header = header_mut(batch);
    header.producer_id.set(producer.id.0);
    header.producer_epoch.set(producer.epoch);
    header.base_sequence.set(producer.sequence);
    seal(batch);
}
