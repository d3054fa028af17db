//! Queries about partitions, which their owners answer.
//!
//! A query is a list; each item has a number that its answer repeats.

use highwater_protocol::ids::{LeaderEpoch, Offset, Timestamp, TopicPartition};
use highwater_storage::ActiveProducer;
use highwater_storage::compaction::Backlog;

use crate::api::ApiError;

/// The offset of a partition to look up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetSpec {
    /// The first that can be read.
    Earliest,
    /// After the last that can be read.
    Latest,
    /// This offset, if it can be read.
    At(Offset),
    /// The first record with this timestamp or a later one.
    Since(Timestamp),
    /// The record with the largest timestamp.
    MaxTimestamp,
}

/// A partition that a request concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InEpoch {
    /// The partition.
    pub tp: TopicPartition,
    /// The leader epoch that the client believes to be current, if it names one.
    pub known: Option<LeaderEpoch>,
}

/// A new log start of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewStart {
    /// The partition.
    pub tp: TopicPartition,
    /// The new log start; `None` for the high watermark.
    pub to: Option<Offset>,
}

/// A query about partitions of one owner.
#[derive(Debug)]
pub enum PartitionQuery {
    /// Offsets by timestamp, or of the ends of the log.
    Offsets(Vec<(u32, (InEpoch, OffsetSpec))>),
    /// End offsets of leader epochs.
    EpochEnds(Vec<(u32, (InEpoch, LeaderEpoch))>),
    /// Bounds and sizes.
    Details(Vec<(u32, TopicPartition)>),
    /// Idempotent producers, at most the given number for each partition.
    Producers(Vec<(u32, (TopicPartition, usize))>),
    /// Numbers of idempotent producers.
    ProducerCounts(Vec<(u32, TopicPartition)>),
    /// Move the log start.
    DeleteRecords(Vec<(u32, NewStart)>),
}

/// An offset that was looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocatedOffset {
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, if it was searched for by timestamp.
    pub timestamp: Option<Timestamp>,
    /// The epoch of the leader that says so. The offset is before the end of this epoch, or at it, in the log of every later leader.
    pub epoch: LeaderEpoch,
}

/// `Ok(None)`: no record is that late.
pub type FoundOffset = Result<Option<LocatedOffset>, ApiError>;

/// The end of a leader epoch. `Ok(None)`: the epoch is not known.
pub type FoundEpochEnd = Result<Option<EpochEnd>, ApiError>;

/// The largest leader epoch that is not above the requested one, and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end: Offset,
}

/// Bounds and size of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionDetails {
    /// The epoch of its leader.
    pub epoch: LeaderEpoch,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The offset after the last acknowledged record.
    pub high_watermark: Offset,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether part of it cannot be read because of damage.
    pub faulty: bool,
    /// How far it is compacted. `None`: its topic is not compacted.
    pub compaction: Option<CompactionDetails>,
}

/// How far a partition is compacted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionDetails {
    /// What there is to compact.
    pub backlog: Backlog,
    /// The passes so far.
    pub passes: PassHistory,
}

/// The passes of compaction over a partition since the start of the broker.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PassHistory {
    /// Passes that have ended in order.
    pub passes: u64,
    /// When the last of them ended, in milliseconds; `None`: there was none.
    pub last_ms: Option<i64>,
    /// Bytes of frames that were replaced.
    pub bytes_before: u64,
    /// Bytes of frames that replaced them.
    pub bytes_after: u64,
}

/// The producers of a partition.
pub type FoundProducers = Result<Vec<ActiveProducer>, ApiError>;

/// The answer to a [`PartitionQuery`]. An item without an answer names a partition that this shard does not have.
#[derive(Debug)]
pub enum PartitionAnswer {
    /// To `Offsets`.
    Offsets(Vec<(u32, FoundOffset)>),
    /// To `EpochEnds`.
    EpochEnds(Vec<(u32, FoundEpochEnd)>),
    /// To `Details`.
    Details(Vec<(u32, PartitionDetails)>),
    /// To `Producers`.
    Producers(Vec<(u32, FoundProducers)>),
    /// To `ProducerCounts`.
    ProducerCounts(Vec<(u32, usize)>),
    /// To `DeleteRecords`: the new log start of each partition, which is durable.
    DeleteRecords(Vec<(u32, Result<Offset, ApiError>)>),
}

/// A kind of query about partitions, with the types of its items and answers.
pub trait PartitionCall: 'static {
    /// An item of the query.
    type Item;
    /// The answer to an item.
    type Answer: 'static;

    /// Returns the query to send.
    fn query(items: Vec<(u32, Self::Item)>) -> PartitionQuery;

    /// Returns the answers, if they are of the right kind.
    fn found(answer: PartitionAnswer) -> Result<Vec<(u32, Self::Answer)>, ApiError>;
}

macro_rules! partition_calls {
    ($($(#[$doc:meta])* $call:ident: $variant:ident, $item:ty => $found:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $call {}

        impl PartitionCall for $call {
            type Item = $item;
            type Answer = $found;

            fn query(items: Vec<(u32, Self::Item)>) -> PartitionQuery {
                PartitionQuery::$variant(items)
            }

            fn found(answer: PartitionAnswer) -> Result<Vec<(u32, Self::Answer)>, ApiError> {
                match answer {
                    PartitionAnswer::$variant(found) => Ok(found),
                    other => Err(ApiError::wrong_reply(&other)),
                }
            }
        }
    )+};
}

partition_calls! {
    /// Lists offsets.
    ListOffsets: Offsets, (InEpoch, OffsetSpec) => FoundOffset;
    /// Finds where leader epochs end.
    EpochEnds: EpochEnds, (InEpoch, LeaderEpoch) => FoundEpochEnd;
    /// Reads bounds and sizes.
    Details: Details, TopicPartition => PartitionDetails;
    /// Describes idempotent producers.
    Producers: Producers, (TopicPartition, usize) => FoundProducers;
    /// Counts idempotent producers.
    ProducerCounts: ProducerCounts, TopicPartition => usize;
    /// Moves log starts.
    DeleteRecords: DeleteRecords, NewStart => Result<Offset, ApiError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_kind_fails_only_its_query() {
        assert_eq!(
            EpochEnds::found(PartitionAnswer::EpochEnds(vec![(0, Ok(None))])),
            Ok(vec![(0, Ok(None))])
        );
        let error = EpochEnds::found(PartitionAnswer::Details(Vec::new())).expect_err("another kind");
        assert!(matches!(error, ApiError::Internal(_)), "{error}");
    }
}
