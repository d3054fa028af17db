//! Appends batches of both protocols to the logs.

use std::fmt;

use highwater_protocol::batch::{BatchError, NO_TIMESTAMP, TimestampType};
use highwater_protocol::ids::{Offset, Timestamp, TopicPartition};
use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_runtime::plane::Disk;
use highwater_storage::{AppendError, CommitRule};

use super::acks::Ack;
use super::batch::{ParsedBatch, TimestampStamp};
use super::check::RejectedRecords;
use super::consensus::NotAppendable;
use super::rejected::{ProducerKey, SequenceStamp};
use super::replica::PartitionId;
use super::{PartitionEvent, Replicas};
use crate::api::{ApiError, RequiredAcks};
use crate::meta::configs::TimestampSource;
use crate::reply_to::ReplyTo;
use crate::units::mib;

/// A batch to append.
#[derive(Debug)]
pub struct AppendRequest<'a> {
    pub(crate) tp: TopicPartition,
    /// What has to be durable before the outcome is known.
    pub(crate) acks: RequiredAcks,
    pub(crate) reply_to: ReplyTo,
    pub(super) batch: ValidBatch<'a>,
}

/// A batch whose records have been checked against its header and the rules of its topic.
#[derive(Debug)]
pub(super) struct ValidBatch<'a> {
    pub(super) batch: ParsedBatch<'a>,
    /// The largest timestamp of its records; -1 if none has one.
    pub(super) max_timestamp: Timestamp,
}

/// The position of an appended batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendedAt {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The time that the broker stamped it with; [`NO_TIMESTAMP`] if the topic does not use log append time.
    pub log_append_time: Timestamp,
    /// Offset of the first record of the partition.
    pub log_start: Offset,
}

/// The outcome of an append.
pub(crate) type AppendOutcome = Result<AppendedAt, AppendFailure>;

/// Why a batch was not appended, or not acknowledged.
#[derive(Debug)]
pub enum AppendFailure {
    /// The bytes are not a valid batch.
    Invalid(BatchError),
    /// The batch is over the topic's limit.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The topic's `max.message.bytes`.
        max: usize,
    },
    /// Decompressing the records for the checks needs too much memory.
    DecoderTooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// The batch is over the broker's limit.
    TooLargeForBroker {
        /// Its size.
        bytes: usize,
        /// The broker's `--batch-bytes-max`.
        max: usize,
    },
    /// The batch belongs to a transaction.
    Transactional,
    /// The producer has set the timestamp type to log append time, which only the broker may do.
    LogAppendTime,
    /// Some of the records are not allowed in this topic.
    Records(Box<RejectedRecords>),
    /// Any other reason.
    Api(ApiError),
}

impl AppendRequest<'_> {
    fn sequence_stamp(&self) -> Option<SequenceStamp> {
        self.batch.batch.sequence_stamp(self.tp)
    }

    pub(super) fn into_owned(self) -> AppendRequest<'static> {
        let Self { tp, acks, reply_to, batch: ValidBatch { batch, max_timestamp } } = self;
        let batch = ValidBatch { batch: batch.into_owned(), max_timestamp };
        AppendRequest { tp, acks, reply_to, batch }
    }
}

impl ValidBatch<'_> {
    /// Returns what the broker has to write into the batch's timestamps.
    fn timestamp_stamp(&self, source: TimestampSource, wall_ms: i64) -> TimestampStamp {
        let header = self.batch.header();
        match source {
            TimestampSource::LogAppendTime => TimestampStamp::LogAppendTime(Timestamp(wall_ms)),
            TimestampSource::CreateTime
                if header.max_timestamp() == self.max_timestamp
                    && header.timestamp_type() == TimestampType::CreateTime =>
            {
                TimestampStamp::Keep
            }
            TimestampSource::CreateTime => TimestampStamp::CreateTime(self.max_timestamp),
        }
    }
}

impl fmt::Display for AppendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::TooLarge { bytes, max } => {
                write!(f, "a batch of {bytes} bytes is over the topic's max.message.bytes of {max}")
            }
            Self::DecoderTooLarge { max } => write!(
                f,
                "decompressing the records needs more memory than this broker has for it, {}: send smaller batches, use a lower \
                 compression level, or start the broker with a larger --memory",
                mib(*max as u64)
            ),
            Self::TooLargeForBroker { bytes, max } => {
                write!(
                    f,
                    "a batch of {bytes} bytes is over this broker's limit of {max} bytes, whatever the topic's \
                     max.message.bytes; "
                )?;
                if *max < BATCH_BYTES_MAX {
                    write!(f, "start it with a larger --batch-bytes-max, of at most {BATCH_BYTES_MAX}")
                } else {
                    f.write_str("send smaller ones")
                }
            }
            Self::Transactional => f.write_str(
                "the batch belongs to a transaction, and transactions are not available in this version",
            ),
            Self::LogAppendTime => f.write_str(
                "the producer has set the batch's timestamp type to LogAppendTime, which only the broker may do",
            ),
            Self::Records(records) => records.fmt(f),
            Self::Api(error) => error.fmt(f),
        }
    }
}

impl Replicas {
    /// Appends a batch, with its outcome as a [`PartitionEvent::Appended`]. Returns the batch if it has to wait for space.
    pub(super) fn try_append<'a>(
        &mut self,
        disk: &mut dyn Disk,
        request: AppendRequest<'a>,
        wall_ms: i64,
    ) -> Option<AppendRequest<'a>> {
        let stamp = request.sequence_stamp();
        if let Some(stamp) = stamp
            && let Some(sequence) = self.rejected.before(&stamp)
            && !self.has_rejected(stamp, sequence)
        {
            let error = ApiError::EarlierBatchRejected { sequence };
            self.fail(request.reply_to, request.tp, None, error);
            return None;
        }
        let Some(id) = self.table.find(request.tp) else {
            self.fail(request.reply_to, request.tp, stamp, ApiError::TopicDeleted);
            return None;
        };
        match self.may_append(id, &request, wall_ms) {
            Ok(true) => {}
            Ok(false) => return Some(request),
            Err(error) => {
                self.fail(request.reply_to, request.tp, stamp, error);
                return None;
            }
        }
        self.append_to(disk, id, request, stamp, wall_ms);
        None
    }

    /// Returns whether the log has the rejected batch with this sequence, of the producer of `stamp`: another replica led the partition
    /// when the batch was sent again.
    fn has_rejected(&mut self, stamp: SequenceStamp, sequence: i32) -> bool {
        let ProducerKey { partition, producer, epoch } = stamp.key;
        let Some(partition) = self.table.find(partition).and_then(|id| self.table.get(id)) else {
            return false;
        };
        let store = &self.stores[partition.store].store;
        let in_log = store
            .active_producers(partition.slot)
            .find(|known| (known.id, known.epoch) == (producer, epoch))
            .is_some_and(|known| known.last_sequence.wrapping_sub(sequence) >= 0);
        in_log && self.rejected.note_accepted(&SequenceStamp { sequence, ..stamp })
    }

    /// Returns whether this replica may append a batch now, and the store has space for it. False: the batch has to wait.
    fn may_append(
        &mut self,
        id: PartitionId,
        request: &AppendRequest<'_>,
        wall_ms: i64,
    ) -> Result<bool, ApiError> {
        let batch = &request.batch.batch;
        let partition = self.table.get(id).ok_or(ApiError::TopicDeleted)?;
        let store = &mut self.stores[partition.store].store;
        if let Err(why) = partition.consensus.check_append(request.acks) {
            // What the replica has to remember before it serves may wait for space, too.
            let waits_for_space = why == NotAppendable::NotYet && store.is_stalled();
            let why = if waits_for_space { NotAppendable::Store(AppendError::StorageFull) } else { why };
            return partition.refusal(why).map_or(Ok(false), Err);
        }
        Ok(!store.is_busy(partition.slot, batch.len(), batch.is_bulk(), wall_ms))
    }

    /// Appends a batch for which there is space. Its producer is acknowledged as `acks` requires.
    fn append_to(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        request: AppendRequest<'_>,
        stamp: Option<SequenceStamp>,
        wall_ms: i64,
    ) {
        let AppendRequest { tp, acks, reply_to, batch } = request;
        let Some(partition) = self.table.get_mut(id) else {
            return self.fail(reply_to, tp, stamp, ApiError::TopicDeleted);
        };
        let source = partition.topic.config.timestamp;
        let stamped = batch.timestamp_stamp(source, wall_ms);
        let payload = batch.batch.into_payload(stamped, &mut self.scratch);
        let store = &mut self.stores[partition.store].store;
        let (base_offset, end, stamped_at) =
            match store.append(disk, partition.slot, payload, partition.epoch(), wall_ms) {
                Ok(appended) => {
                    partition.consensus.note_appended(appended.index, appended.next_offset);
                    if partition.commit_rule == CommitRule::Quorum {
                        self.unfrozen.insert(id);
                    }
                    self.counted.batches += 1;
                    self.counted.records += (appended.next_offset.0 - appended.base_offset.0) as u64;
                    (appended.base_offset, appended.next_offset, Timestamp(wall_ms))
                }
                Err(AppendError::Duplicate { base_offset, next_offset, timestamp }) => {
                    (base_offset, next_offset, timestamp)
                }
                Err(error) => {
                    let error = ApiError::Append { partition: partition.name(), error };
                    return self.fail(reply_to, tp, stamp, error);
                }
            };
        if let Some(stamp) = stamp {
            self.rejected.note_accepted(&stamp);
        }
        let log_append_time =
            if source == TimestampSource::LogAppendTime { stamped_at } else { NO_TIMESTAMP };
        let ack = Ack { reply_to, end, base_offset, log_append_time };
        if acks == RequiredAcks::None || partition.wait(acks, ack) {
            let log_start = store.bounds(partition.slot).log_start;
            self.events.push_back(PartitionEvent::acknowledge(tp, ack, log_start));
        }
    }

    /// Rejects a batch, and remembers it if its producer will send it again.
    pub(super) fn fail(
        &mut self,
        reply_to: ReplyTo,
        tp: TopicPartition,
        stamp: Option<SequenceStamp>,
        error: ApiError,
    ) {
        if let Some(stamp) = stamp
            && (self.is_sent_again)(reply_to, &error)
        {
            self.rejected.note_rejected(stamp);
        }
        let outcome = Err(AppendFailure::Api(error));
        self.events.push_back(PartitionEvent::Appended { reply_to, tp, outcome });
    }
}

#[cfg(test)]
pub(super) fn sample_batch() -> (TopicPartition, ParsedBatch<'static>) {
    use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
    use highwater_protocol::ids::{PartitionIndex, TopicId};

    use super::batch::{BatchBytes, OwnedBatch};

    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(0), None, Some(b"value"))).expect("it fits");
    let bytes = builder.finish(BatchProducer::NONE).expect("there is a record").to_vec();
    let tp = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
    let batch = ParsedBatch::parse(BatchBytes::Owned(OwnedBatch::Small(bytes))).expect("a batch");
    (tp, batch)
}

#[cfg(test)]
pub(super) fn sample_request(tp: TopicPartition, reply_to: ReplyTo) -> AppendRequest<'static> {
    let batch = ValidBatch { batch: sample_batch().1, max_timestamp: Timestamp(0) };
    AppendRequest { tp, acks: RequiredAcks::All, reply_to, batch }
}
