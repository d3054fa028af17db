//! The check of a batch that a producer sends: the header against the format's rules, and the records against the header.
//!
//! A producer's header is not taken for its records. What Kafka's broker works out itself is worked out here too (the largest
//! timestamp), and a batch is refused whose records are not those that its header tells of.
//!
//! The check is made in steps of bounded work: a batch of a few kilobytes may hold records of many megabytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::ops::{ControlFlow, RangeInclusive};

use super::error::BatchError;
use super::header::{CRC_START, TimestampType};
use super::stream::{RecordStream, Streamed, Work};
use super::unpack::Unpacker;
use super::view::BatchView;
use super::walk::{OffsetOrder, RecordHead};
use crate::ids::Timestamp;
use crate::limits::{
    DECOMPRESSED_BYTES_ANY_RATIO, DECOMPRESSED_BYTES_MAX_DEFAULT, DECOMPRESSED_RATIO_MAX,
    REJECTED_RECORDS_TOLD_MAX,
};

/// Bytes that are checksummed for one unit of work.
const CHECKSUM_BYTES_PER_WORK: usize = 8;

/// What stands for "no timestamp".
pub const NO_TIMESTAMP: Timestamp = Timestamp(-1);

/// What is asked of a batch beyond the rules of the format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordRules {
    /// Timestamps that records may have, in milliseconds. A record without a timestamp passes.
    pub timestamps: RangeInclusive<i64>,
    /// Every record needs a key.
    pub keys: bool,
    /// The records are not looked at and the header is taken for them.
    pub trust_header: bool,
    /// Bytes that compressed records may grow to.
    pub decompressed_bytes_max: usize,
}

impl RecordRules {
    /// The rules of the format alone, with the limits that a broker has by default.
    pub const FORMAT: Self = Self {
        timestamps: RangeInclusive::new(i64::MIN, i64::MAX),
        keys: false,
        trust_header: false,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX_DEFAULT,
    };
}

/// Why a record is refused that obeys the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RejectedBecause {
    /// Its timestamp is out of range.
    Timestamp(Timestamp),
    /// It has no key.
    NoKey,
}

/// A record that is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RejectedRecord {
    /// Its place in the batch, from 0.
    pub number: u32,
    /// Why.
    pub because: RejectedBecause,
}

/// What a check found in a batch whose bytes are in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedBatch {
    /// The largest timestamp of its records; -1 if none has one.
    pub max_timestamp: Timestamp,
    /// The first of the records that are refused. If there is one, the batch is.
    pub rejected: Vec<RejectedRecord>,
    /// How many there are.
    pub rejected_count: u32,
}

impl Default for CheckedBatch {
    fn default() -> Self {
        Self { max_timestamp: NO_TIMESTAMP, rejected: Vec::new(), rejected_count: 0 }
    }
}

impl CheckedBatch {
    fn note(&mut self, rules: &RecordRules, number: u32, timestamp: i64, has_key: bool) {
        let timestamp = Timestamp(timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let because = if rules.keys && !has_key {
            RejectedBecause::NoKey
        } else if timestamp != NO_TIMESTAMP && !rules.timestamps.contains(&timestamp.0) {
            RejectedBecause::Timestamp(timestamp)
        } else {
            return;
        };
        self.rejected_count = self.rejected_count.saturating_add(1);
        if self.rejected.len() < REJECTED_RECORDS_TOLD_MAX {
            self.rejected.push(RejectedRecord { number, because });
        }
    }
}

/// A check that is under way.
///
/// The batch's bytes are handed to every [`step`](Self::step) and must be the same each time. The order of the checks: length and
/// magic, the checksum, the header's rules, the records.
#[derive(Debug)]
pub struct BatchCheck {
    rules: RecordRules,
    phase: Phase,
    found: CheckedBatch,
}

#[derive(Debug)]
enum Phase {
    /// Checksummed up to this byte.
    Checksum {
        at: usize,
        crc: u32,
        unpacker: Unpacker,
    },
    Records(RecordStream),
    Done(Unpacker),
}

impl BatchCheck {
    /// Begins. `unpacker` is used if the records are compressed.
    pub fn new(rules: RecordRules, unpacker: Unpacker) -> Self {
        Self {
            rules,
            phase: Phase::Checksum { at: CRC_START, crc: 0, unpacker },
            found: CheckedBatch::default(),
        }
    }

    /// Goes on while there is `work` left, and takes off it what was done. `None`: more is to be done.
    pub fn step(&mut self, batch: &[u8], work: &mut Work) -> Result<Option<CheckedBatch>, BatchError> {
        let batch = BatchView::parse(batch)?;
        let header = batch.header();
        if let Phase::Checksum { at, crc, unpacker } = &mut self.phase {
            let rest = batch.bytes().get(*at..).unwrap_or_default();
            let bytes = work.saturating_add(1).saturating_mul(CHECKSUM_BYTES_PER_WORK);
            let piece = rest.get(..bytes).unwrap_or(rest);
            *crc = crc32c::crc32c_append(*crc, piece);
            *at = at.saturating_add(piece.len());
            *work = work.saturating_sub(piece.len().div_euclid(CHECKSUM_BYTES_PER_WORK));
            if piece.len() < rest.len() {
                return Ok(None);
            }
            if *crc != header.crc.get() {
                return Err(BatchError::Checksum { stored: header.crc.get(), computed: *crc });
            }
            batch.check_produced()?;
            let unpacker = core::mem::take(unpacker);
            if self.rules.trust_header {
                self.note_header(&batch);
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
            found.note(rules, record.number, timestamp, record.has_key);
            ControlFlow::Continue(())
        };
        match stream.step(batch.stored_records(), work, &mut visit)? {
            Streamed::More => Ok(None),
            Streamed::Stopped | Streamed::End => Ok(Some(core::mem::take(&mut self.found))),
        }
    }

    /// What the header says stands for the records: the first one's timestamp, and the largest.
    fn note_header(&mut self, batch: &BatchView<'_>) {
        let header = batch.header();
        let max = header.max_timestamp.get();
        let last = header.last_offset_delta.get().max(0) as u32;
        if header.timestamp_type() == TimestampType::CreateTime && max != NO_TIMESTAMP.0 {
            self.found.note(&self.rules, 0, header.base_timestamp.get(), true);
        }
        self.found.max_timestamp = NO_TIMESTAMP;
        self.found.note(&self.rules, last, max, true);
    }

    /// Gives back what can be used for another check.
    pub fn into_unpacker(self) -> Unpacker {
        match self.phase {
            Phase::Checksum { unpacker, .. } | Phase::Done(unpacker) => unpacker,
            Phase::Records(stream) => stream.into_unpacker(),
        }
    }
}

/// Bytes that records may have which are stored in so many, where none may have more than `most`. Up to a few megabytes they may be
/// compressed as well as can be.
pub fn decompressed_max(stored_bytes: usize, most: usize) -> usize {
    stored_bytes.saturating_mul(DECOMPRESSED_RATIO_MAX).max(DECOMPRESSED_BYTES_ANY_RATIO).min(most)
}

/// Checks a batch in one go.
pub fn check(batch: &[u8], rules: RecordRules) -> Result<CheckedBatch, BatchError> {
    let mut check = BatchCheck::new(rules, Unpacker::default());
    loop {
        let mut work = Work::MAX;
        if let Some(checked) = check.step(batch, &mut work)? {
            return Ok(checked);
        }
    }
}
