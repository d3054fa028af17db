//! The events of the partitions of a shard.

use std::collections::BTreeSet;

use highwater_protocol::ids::{Offset, TopicId, TopicPartition};
use highwater_storage::{FindResult, ReadId, ReadResult};

use super::acks::Ack;
use super::append::{AppendFailure, AppendOutcome, AppendedAt};
use super::log_start::{LogStartMove, LogStartOutcome};
use super::replica::PartitionId;
use crate::api::ApiError;
use crate::partition::{ReaderId, Waiter};
use crate::reply_to::ReplyTo;

/// Something that has happened to the partitions of a shard.
#[derive(Debug)]
pub(crate) enum PartitionEvent {
    /// The outcome of an append is known.
    Appended { reply_to: ReplyTo, tp: TopicPartition, outcome: AppendOutcome },
    /// The high watermark of a partition has advanced.
    HighWatermarkMoved(PartitionId),
    /// A log start was moved durably, or could not be moved.
    LogStartMoved(LogStartMove, LogStartOutcome),
    /// A read of a store is done.
    Read { store: usize, id: ReadId, result: ReadResult },
    /// A search of a store is done.
    Searched { store: usize, id: ReadId, result: FindResult },
    /// A partition was deleted. Carries its readers, and those of them that waited for more.
    Deleted { id: PartitionId, waiters: BTreeSet<Waiter>, readers: BTreeSet<ReaderId> },
    /// This replica does not answer for a partition any more. Carries its readers, and those of them that waited for more.
    NotAnswering { id: PartitionId, waiters: BTreeSet<Waiter>, readers: BTreeSet<ReaderId>, error: ApiError },
    /// This replica has begun to answer for a partition that has others.
    Answering(PartitionId),
    /// The replicas that were to take part in a partition do, and no others. On its leader.
    MembersChanged(PartitionId),
    /// All space of a deleted topic on this shard is free.
    TopicFreed(TopicId),
    /// A disk is full.
    DiskFull,
    /// A disk failed so that its data cannot be trusted. The process has to end.
    Fatal(String),
}

impl PartitionEvent {
    /// Acknowledges a batch that is as durable as its producer required.
    pub(super) fn acknowledge(tp: TopicPartition, ack: Ack, log_start: Offset) -> Self {
        let at = AppendedAt { base_offset: ack.base_offset, log_append_time: ack.log_append_time, log_start };
        Self::Appended { reply_to: ack.reply_to, tp, outcome: Ok(at) }
    }

    /// Fails a batch whose producer waits for its acknowledgement.
    pub(super) fn fail(tp: TopicPartition, ack: Ack, error: ApiError) -> Self {
        let outcome = Err(AppendFailure::Api(error));
        Self::Appended { reply_to: ack.reply_to, tp, outcome }
    }
}
