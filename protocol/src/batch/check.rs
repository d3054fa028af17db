//! Validates a batch from a producer: the header against the rules of the format, and the records against the header.
//!
//! The broker does not trust a producer's header about its records. It computes the largest timestamp itself, as Kafka's broker
//! does, and rejects a batch whose records do not match the header.
//!
//! Validation runs in steps of bounded work, because a batch of a few kilobytes can expand to many megabytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::ops::{ControlFlow, RangeInclusive};

use super::error::BatchError;
use super::header::{CRC_START, TimestampType};
use super::stream::{RecordStream, StreamOutcome, Work};
use super::unpack::Unpacker;
use super::view::BatchView;
use super::walk::{OffsetOrder, RecordHead};
use crate::ids::Timestamp;
use crate::limits::{
    DECOMPRESSED_BYTES_ANY_RATIO, DECOMPRESSED_BYTES_MAX_DEFAULT, DECOMPRESSED_RATIO_MAX,
    REJECTED_RECORDS_REPORTED_MAX,
};

/// Bytes checksummed per unit of work.
const CHECKSUM_BYTES_PER_WORK: usize = 8;

/// Timestamp of a record without one.
pub const NO_TIMESTAMP: Timestamp = Timestamp(-1);

/// Rules for a batch beyond those of the format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordRules {
    /// Allowed timestamps, in milliseconds. A record without a timestamp passes.
    pub timestamps: RangeInclusive<i64>,
    /// Whether every record needs a key.
    pub keys: bool,
    /// Whether to trust the header and skip the records.
    pub trust_header: bool,
    /// Limit on the decompressed size of the records, in bytes.
    pub decompressed_bytes_max: usize,
}

impl RecordRules {
    /// Only the rules of the format, with a broker's default limits.
    pub const FORMAT: Self = Self {
        timestamps: RangeInclusive::new(i64::MIN, i64::MAX),
        keys: false,
        trust_header: false,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX_DEFAULT,
    };
}

/// Why a record that follows the format is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RejectReason {
    /// The timestamp is out of range.
    Timestamp(Timestamp),
    /// The record has no key.
    NoKey,
}

/// A rejected record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RejectedRecord {
    /// Position in the batch, from 0.
    pub number: u32,
    /// Why it is rejected.
    pub reason: RejectReason,
}

/// Result of checking a batch that follows the format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedBatch {
    /// Largest timestamp of the records; -1 if none has one.
    pub max_timestamp: Timestamp,
    /// The first [`REJECTED_RECORDS_REPORTED_MAX`] rejected records. The whole batch is rejected if there are any.
    pub rejected: Vec<RejectedRecord>,
    /// Number of rejected records.
    pub rejected_count: u32,
}

impl Default for CheckedBatch {
    fn default() -> Self {
        Self { max_timestamp: NO_TIMESTAMP, rejected: Vec::new(), rejected_count: 0 }
    }
}

impl CheckedBatch {
    fn add_record(&mut self, rules: &RecordRules, number: u32, timestamp: i64, has_key: bool) {
        let timestamp = Timestamp(timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let reason = if rules.keys && !has_key {
            RejectReason::NoKey
        } else if timestamp != NO_TIMESTAMP && !rules.timestamps.contains(&timestamp.0) {
            RejectReason::Timestamp(timestamp)
        } else {
            return;
        };
        self.rejected_count = self.rejected_count.saturating_add(1);
        if self.rejected.len() < REJECTED_RECORDS_REPORTED_MAX {
            self.rejected.push(RejectedRecord { number, reason });
        }
    }
}

/// Validation of a batch in progress.
///
/// The caller passes the batch to every [`step`](Self::step); its bytes must not change between steps. The checks run in this
/// order: checksum, rules for the header, records. Whoever made the [`BatchView`] has checked length and magic.
#[derive(Debug)]
pub struct BatchCheck {
    rules: RecordRules,
    phase: Phase,
    found: CheckedBatch,
}

#[derive(Debug)]
enum Phase {
    /// Checksumming; `at` is the position of the next byte.
    Checksum {
        at: usize,
        crc: u32,
        unpacker: Unpacker,
    },
    Records(RecordStream),
    Done(Unpacker),
}

impl BatchCheck {
    /// Starts a check. `unpacker` decompresses the records if they are compressed.
    pub fn new(rules: RecordRules, unpacker: Unpacker) -> Self {
        Self {
            rules,
            phase: Phase::Checksum { at: CRC_START, crc: 0, unpacker },
            found: CheckedBatch::default(),
        }
    }

    /// Runs until `work` is used up, and subtracts the work done from it. Returns `None` if the check is not finished.
    pub fn step(
        &mut self,
        batch: &BatchView<'_>,
        work: &mut Work,
    ) -> Result<Option<CheckedBatch>, BatchError> {
        let header = batch.header();
        if let Phase::Checksum { at, crc, unpacker } = &mut self.phase {
            let rest = batch.bytes().get(*at..).unwrap_or_default();
            let bytes = work.saturating_add(1).saturating_mul(CHECKSUM_BYTES_PER_WORK);
            let chunk = rest.get(..bytes).unwrap_or(rest);
            *crc = crc32c::crc32c_append(*crc, chunk);
            *at = at.saturating_add(chunk.len());
            *work = work.saturating_sub(chunk.len().div_euclid(CHECKSUM_BYTES_PER_WORK));
            if chunk.len() < rest.len() {
                return Ok(None);
            }
            if *crc != header.crc.get() {
                return Err(BatchError::Checksum { stored: header.crc.get(), computed: *crc });
            }
            batch.check_produced()?;
            let unpacker = core::mem::take(unpacker);
            if self.rules.trust_header {
                self.check_header_only(batch);
                self.phase = Phase::Done(unpacker);
                return Ok(Some(core::mem::take(&mut self.found)));
            }
            let max = decompressed_max(batch.stored_records().len(), self.rules.decompressed_bytes_max);
            self.phase = Phase::Records(RecordStream::new(header, OffsetOrder::Contiguous, max, unpacker)?);
        }
        let Phase::Records(stream) = &mut self.phase else { return Ok(None) };
        let base = header.base_timestamp.get();
        let (found, rules) = (&mut self.found, &self.rules);
        let mut visit = |record: RecordHead| {
            let timestamp = base.wrapping_add(record.timestamp_delta);
            found.add_record(rules, record.number, timestamp, record.has_key);
            ControlFlow::Continue(())
        };
        match stream.step(batch.stored_records(), work, &mut visit)? {
            StreamOutcome::More => Ok(None),
            StreamOutcome::Stopped | StreamOutcome::End => Ok(Some(core::mem::take(&mut self.found))),
        }
    }

    /// Checks the header in place of the records: the first record's timestamp and the largest one.
    fn check_header_only(&mut self, batch: &BatchView<'_>) {
        let header = batch.header();
        let max = header.max_timestamp.get();
        let last = header.last_offset_delta.get().max(0) as u32;
        if header.timestamp_type() == TimestampType::CreateTime && max != NO_TIMESTAMP.0 {
            self.found.add_record(&self.rules, 0, header.base_timestamp.get(), true);
        }
        self.found.max_timestamp = NO_TIMESTAMP;
        self.found.add_record(&self.rules, last, max, true);
    }

    /// Returns the memory that decompression takes, in bytes. See [`Unpacker::memory_bytes`].
    pub fn memory_bytes(&self) -> usize {
        match &self.phase {
            Phase::Checksum { unpacker, .. } | Phase::Done(unpacker) => unpacker.memory_bytes(),
            Phase::Records(stream) => stream.memory_bytes(),
        }
    }

    /// Returns the unpacker for use by another check.
    pub fn into_unpacker(self) -> Unpacker {
        match self.phase {
            Phase::Checksum { unpacker, .. } | Phase::Done(unpacker) => unpacker,
            Phase::Records(stream) => stream.into_unpacker(),
        }
    }
}

/// Returns the limit on the decompressed size of records that take `stored_bytes`. It is at most `most`. Records that decompress to
/// a few megabytes may have any compression ratio.
pub fn decompressed_max(stored_bytes: usize, most: usize) -> usize {
    stored_bytes.saturating_mul(DECOMPRESSED_RATIO_MAX).max(DECOMPRESSED_BYTES_ANY_RATIO).min(most)
}

/// Checks a batch in one go.
pub fn check(batch: &[u8], rules: RecordRules) -> Result<CheckedBatch, BatchError> {
    let batch = BatchView::parse(batch)?;
    let mut check = BatchCheck::new(rules, Unpacker::default());
    loop {
        let mut work = Work::MAX;
        if let Some(checked) = check.step(&batch, &mut work)? {
            return Ok(checked);
        }
    }
}
