//! Maps errors to the codes of the native protocol.

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_storage::AppendError;

use crate::api::ApiError;
use crate::context::{Context, NativeCall};
use crate::partition::AppendFailure;

impl Context<'_> {
    /// Replies to a native client with an error.
    pub(crate) fn reply_error(&mut self, call: NativeCall, error: &ApiError) {
        self.reply(call, reply_of(error));
    }
}

/// Returns the native protocol's code. The message is the error's text.
pub(crate) const fn code_of(error: &ApiError) -> ErrorCode {
    match error {
        ApiError::Starting(_)
        | ApiError::Stopping(_)
        | ApiError::LeaderNotReady { .. }
        | ApiError::UnknownLeaderEpoch { .. }
        | ApiError::LoadingGroups(_)
        | ApiError::GroupsDamaged(_)
        | ApiError::GroupsAwaitSpace(_) => ErrorCode::Unavailable,
        ApiError::UnknownTopic(_) | ApiError::UnknownTopicId(_) | ApiError::TopicDeleted => {
            ErrorCode::UnknownTopic
        }
        ApiError::NotController => ErrorCode::NotController,
        ApiError::NotCoordinator(_) => ErrorCode::NotCoordinator,
        ApiError::UnknownPartition { .. } => ErrorCode::UnknownPartition,
        ApiError::WrongShard { .. } => ErrorCode::WrongShard,
        ApiError::NotLeader { .. } | ApiError::FencedLeaderEpoch { .. } => ErrorCode::NotLeader,
        ApiError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        ApiError::NotEnoughReplicasAfterAppend { .. } => ErrorCode::NotEnoughReplicasAfterAppend,
        ApiError::TopicExists(_) => ErrorCode::TopicExists,
        ApiError::InvalidTopicName(_) | ApiError::InternalTopic => ErrorCode::InvalidTopicName,
        ApiError::InvalidPartitionCount(_)
        | ApiError::InvalidReplicationFactor(_)
        | ApiError::InvalidAssignment(_)
        | ApiError::InvalidNode(_)
        | ApiError::TooManyProducers => ErrorCode::InvalidArgument,
        ApiError::ReplyTooLarge { .. } | ApiError::SearchTooLarge { .. } => ErrorCode::TooLarge,
        ApiError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        ApiError::MetadataLogFull => ErrorCode::StorageFull,
        ApiError::ProducerIdsTaken | ApiError::TooManyConnections(_) => ErrorCode::Overloaded,
        ApiError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ApiError::PartitionDamaged | ApiError::RecordsDamaged { .. } | ApiError::OffsetAfterDamage { .. } => {
            ErrorCode::PartitionFaulty
        }
        ApiError::EarlierBatchRejected { .. } => ErrorCode::OutOfOrderSequence,
        ApiError::Append { error, .. } => match error {
            AppendError::StorageFull => ErrorCode::StorageFull,
            AppendError::Faulty => ErrorCode::PartitionFaulty,
            AppendError::TooLarge { .. } => ErrorCode::TooLarge,
            AppendError::Busy => ErrorCode::Overloaded,
            AppendError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequence,
            AppendError::Fenced => ErrorCode::ProducerFenced,
            AppendError::Deleted => ErrorCode::UnknownTopic,
            // It is acknowledged as appended.
            AppendError::Duplicate { .. } => ErrorCode::Internal,
        },
        ApiError::ProducerIdsExhausted | ApiError::Internal(_) => ErrorCode::Internal,
    }
}

/// Returns the code for a batch that was not appended.
pub(crate) fn code_of_append(failure: &AppendFailure) -> ErrorCode {
    match failure {
        AppendFailure::Api(error) => code_of(error),
        AppendFailure::Invalid(error) => error.code(),
        AppendFailure::TooLarge { .. }
        | AppendFailure::TooLargeForBroker { .. }
        | AppendFailure::DecoderTooLarge { .. } => ErrorCode::TooLarge,
        AppendFailure::LogAppendTime => ErrorCode::InvalidTimestamp,
        AppendFailure::Records(records) if records.have_invalid_timestamps() => ErrorCode::InvalidTimestamp,
        AppendFailure::Transactional | AppendFailure::Records(_) => ErrorCode::InvalidBatch,
    }
}

/// Returns the error reply to a request.
pub(crate) fn reply_of(error: &ApiError) -> Reply {
    Reply::error(code_of(error), error.to_string())
}
