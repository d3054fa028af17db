//! The checks of a batch before it is appended: its size and header against its topic's rules, then its records against its header, in
//! steps of bounded work.

use std::fmt;

use highwater_protocol::batch::{
    BatchCheck, CheckedBatch, RecordRules, RejectReason, RejectedRecord, TimestampType, Unpacker, Work,
};
use highwater_protocol::ids::Timestamp;
use highwater_protocol::limits::decompressed_bytes_max;

use super::append::AppendFailure;
use super::batch::{BatchBytes, ParsedBatch};
use crate::limits::{CHECK_WORK_SHORT_MAX, DECODER_IDLE_BYTES_MAX, DECODERS_SHORT_PART, ShardLimits};
use crate::meta::configs::{TimestampSource, TopicConfig};

/// A check of one batch that is not finished.
#[derive(Debug)]
pub(super) struct OpenCheck {
    rules: RecordRules,
    /// The decoder with the results so far; `None` if the check has to restart.
    check: Option<Box<BatchCheck>>,
    /// Work done since the check started or restarted.
    spent: Work,
    /// Whether the check has ever used so much time or memory that short checks come first.
    is_long: bool,
}

/// The memory of the decoders of a shard's checks, in bytes.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "unit and qualifier come last in every limit's name")]
pub(super) struct DecoderLimits {
    /// The decoder of a long check. A batch that needs more is rejected.
    pub(super) long_bytes_max: usize,
    /// The decoders of all short checks together. A check that needs more by itself is a long one. The decoder of the running check may come on top.
    pub(super) short_bytes_max: usize,
    /// The decoder that is kept for the next batch when a check ends.
    pub(super) idle_bytes_max: usize,
}

impl DecoderLimits {
    /// Divides the memory of all decoders.
    pub(super) fn new(decoder_bytes_max: usize) -> Self {
        let short_bytes_max = decoder_bytes_max / DECODERS_SHORT_PART;
        Self {
            long_bytes_max: decoder_bytes_max - 3 * short_bytes_max,
            short_bytes_max,
            idle_bytes_max: short_bytes_max.min(DECODER_IDLE_BYTES_MAX),
        }
    }
}

/// The outcome of one step of a check.
pub(super) enum Verdict {
    /// The batch may be appended. Carries the largest timestamp of its records; -1 for none.
    Valid(Timestamp),
    Failed(AppendFailure),
    /// The check is not finished.
    Open(OpenCheck),
}

/// The records of a batch that are not allowed in its topic.
#[derive(Debug)]
pub struct RejectedRecords {
    checked: CheckedBatch,
    rules: RecordRules,
}

impl OpenCheck {
    pub(super) fn new(config: &TopicConfig, limits: &ShardLimits, wall_ms: i64) -> Self {
        let timestamps = match config.timestamp {
            TimestampSource::CreateTime => {
                wall_ms.saturating_sub(config.timestamp_before_max_ms)
                    ..=wall_ms.saturating_add(config.timestamp_after_max_ms)
            }
            TimestampSource::LogAppendTime => i64::MIN..=i64::MAX,
        };
        let rules = RecordRules {
            timestamps,
            keys: config.compaction.is_some(),
            trust_header: config.trusts_headers,
            decompressed_bytes_max: decompressed_bytes_max(limits.batch_bytes_max),
        };
        Self { rules, check: None, spent: 0, is_long: false }
    }

    /// Returns whether the check has used so much time or memory that short checks come first.
    pub(super) fn is_long(&self) -> bool {
        self.is_long
    }

    /// Returns whether the check has a decoder, and with it the results so far.
    pub(super) fn has_decoder(&self) -> bool {
        self.check.is_some()
    }

    /// Returns the memory of its decoder, in bytes.
    pub(super) fn decoder_bytes(&self) -> usize {
        self.check.as_ref().map_or(0, |check| check.memory_bytes())
    }

    /// Drops the decoder: the check will restart.
    pub(super) fn drop_decoder(&mut self) {
        self.check = None;
    }

    /// Runs until `work` is used up. A check that starts takes `unpacker`, and one that ends puts it back.
    pub(super) fn step(
        self,
        batch: &ParsedBatch<'_>,
        unpacker: &mut Unpacker,
        limits: &DecoderLimits,
        work: &mut Work,
    ) -> Verdict {
        let Self { rules, check, spent, is_long } = self;
        let (mut check, spent) = match check {
            Some(check) => (*check, spent),
            None => (BatchCheck::new(rules.clone(), std::mem::take(unpacker)), 0),
        };
        let before = *work;
        let outcome = check.step(&batch.view(), work);
        let spent = spent + before - *work;
        let verdict = match outcome {
            Ok(None) => {
                // Checked after the step: one step is so small that it cannot exceed the limit by much.
                let (bytes, max) = (check.memory_bytes(), limits.long_bytes_max);
                if bytes > max {
                    return Verdict::Failed(AppendFailure::DecoderTooLarge { max });
                }
                let is_long = is_long || spent >= CHECK_WORK_SHORT_MAX || bytes > limits.short_bytes_max;
                return Verdict::Open(Self { rules, check: Some(Box::new(check)), spent, is_long });
            }
            Ok(Some(checked)) if checked.rejected_count > 0 => {
                Verdict::Failed(AppendFailure::Records(Box::new(RejectedRecords { checked, rules })))
            }
            Ok(Some(checked)) => Verdict::Valid(checked.max_timestamp),
            Err(error) => Verdict::Failed(AppendFailure::Invalid(error)),
        };
        let used = check.into_unpacker();
        if used.memory_bytes() <= limits.idle_bytes_max {
            *unpacker = used;
        }
        verdict
    }
}

/// Parses the header of a batch. Rejects a batch that its size or its header rules out, so that its records need not be read.
pub(crate) fn parse_batch<'a>(
    bytes: BatchBytes<'a>,
    config: &TopicConfig,
) -> Result<ParsedBatch<'a>, AppendFailure> {
    let (length, max) = (bytes.as_slice().len(), config.max_message_bytes);
    if length > max {
        return Err(AppendFailure::TooLarge { bytes: length, max });
    }
    let batch = ParsedBatch::parse(bytes).map_err(AppendFailure::Invalid)?;
    let header = batch.header();
    if header.is_transactional() {
        return Err(AppendFailure::Transactional);
    }
    let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
    if stamped && config.timestamp == TimestampSource::LogAppendTime {
        return Err(AppendFailure::LogAppendTime);
    }
    Ok(batch)
}

impl RejectedRecords {
    /// Returns whether the first rejected record was rejected for its timestamp.
    pub(crate) fn have_invalid_timestamps(&self) -> bool {
        let first = self.checked.rejected.first();
        first.is_some_and(|record| matches!(record.reason, RejectReason::Timestamp(_)))
    }

    /// Returns the first rejected records by their numbers in the batch, with the reason for each.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (u32, String)> {
        self.checked.rejected.iter().map(|record| (record.number, self.reason(record)))
    }

    fn reason(&self, record: &RejectedRecord) -> String {
        let timestamps = &self.rules.timestamps;
        match record.reason {
            RejectReason::Timestamp(at) if at.0 > *timestamps.end() => format!(
                "timestamp {at} is later than {}, which message.timestamp.after.max.ms allows at the broker's time",
                timestamps.end()
            ),
            RejectReason::Timestamp(at) => format!(
                "timestamp {at} is earlier than {}, which message.timestamp.before.max.ms allows at the broker's time",
                timestamps.start()
            ),
            _ => "it has no key, which a topic with cleanup.policy=compact needs".to_owned(),
        }
    }
}

impl fmt::Display for RejectedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.checked.rejected.first();
        let why = first.map(|record| self.reason(record)).unwrap_or_default();
        let number = first.map_or(0, |record| record.number);
        write!(f, "record {number} of the batch: {why}")?;
        match self.checked.rejected_count {
            0 | 1 => Ok(()),
            count => write!(f, "; {} more are rejected too", count - 1),
        }
    }
}

#[cfg(test)]
impl OpenCheck {
    /// Creates an unfinished check with this decoder.
    pub(super) fn sample(is_long: bool, decoder: Unpacker) -> Self {
        let check = Some(Box::new(BatchCheck::new(RecordRules::FORMAT, decoder)));
        Self { rules: RecordRules::FORMAT, check, spent: 1, is_long }
    }
}
