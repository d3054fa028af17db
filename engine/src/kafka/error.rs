//! Maps errors to Kafka's codes.

use highwater_net::kafka::KafkaError;
use highwater_protocol::batch::BatchError;
use highwater_storage::AppendError;

use super::{NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};
use crate::api::{ApiError, Service};
use crate::coord::groups::GroupError;
use crate::partition::AppendFailure;

/// The error of a request, or of one of its entries: Kafka's code and the message.
pub(crate) type RequestError = (KafkaError, String);

/// Fails with an error code and a message.
pub(super) fn reject<T>(error: KafkaError, text: impl Into<String>) -> Result<T, RequestError> {
    Err((error, text.into()))
}

impl From<&ApiError> for KafkaError {
    /// Clients decide by the code whether to retry, so transient errors become codes that they retry.
    fn from(error: &ApiError) -> Self {
        match error {
            ApiError::Starting(Service::Controller)
            | ApiError::Stopping(Service::Controller)
            | ApiError::NotController => Self::NOT_CONTROLLER,
            ApiError::Starting(Service::ProducerIds)
            | ApiError::Stopping(Service::ProducerIds)
            | ApiError::ProducerIdsTaken
            // Members wait and try again: the partition may be whole after the next start.
            | ApiError::GroupsDamaged(_)
            | ApiError::GroupsAwaitSpace(_) => Self::COORDINATOR_NOT_AVAILABLE,
            ApiError::Starting(Service::Groups) | ApiError::LoadingGroups(_) => {
                Self::COORDINATOR_LOAD_IN_PROGRESS
            }
            ApiError::Stopping(Service::Groups) | ApiError::NotCoordinator(_) => Self::NOT_COORDINATOR,
            ApiError::Starting(Service::Partitions)
            | ApiError::Stopping(Service::Partitions)
            | ApiError::WrongShard { .. }
            | ApiError::NotLeader { .. }
            // Clients of all requests send them again after this code.
            | ApiError::LeaderNotReady { .. } => Self::NOT_LEADER_OR_FOLLOWER,
            ApiError::FencedLeaderEpoch { .. } => Self::FENCED_LEADER_EPOCH,
            ApiError::UnknownLeaderEpoch { .. } => Self::UNKNOWN_LEADER_EPOCH,
            ApiError::NotEnoughReplicas { .. } => Self::NOT_ENOUGH_REPLICAS,
            ApiError::NotEnoughReplicasAfterAppend { .. } => Self::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            ApiError::UnknownTopic(_)
            | ApiError::UnknownTopicId(_)
            | ApiError::TopicDeleted
            | ApiError::UnknownPartition { .. } => Self::UNKNOWN_TOPIC_OR_PARTITION,
            ApiError::TopicExists(_) => Self::TOPIC_ALREADY_EXISTS,
            ApiError::InvalidTopicName(_) | ApiError::InternalTopic => Self::INVALID_TOPIC_EXCEPTION,
            ApiError::InvalidPartitionCount(_) => Self::INVALID_PARTITIONS,
            ApiError::InvalidReplicationFactor(_) => Self::INVALID_REPLICATION_FACTOR,
            ApiError::InvalidAssignment(_) => Self::INVALID_REPLICA_ASSIGNMENT,
            ApiError::InvalidConfig(_) => Self::INVALID_CONFIG,
            // Java's clients refresh their metadata on this code before they give up, as they should.
            ApiError::MetadataLogFull
            | ApiError::PartitionDamaged
            // Consumers keep their position and try again, instead of another one that their settings choose.
            | ApiError::OffsetAfterDamage { .. } => Self::KAFKA_STORAGE_ERROR,
            ApiError::RecordsDamaged { .. } => Self::CORRUPT_MESSAGE,
            ApiError::EarlierBatchRejected { .. } => Self::OUT_OF_ORDER_SEQUENCE_NUMBER,
            ApiError::Append { error, .. } => match error {
                // Producers refresh their metadata after this code, and send the batch again.
                AppendError::StorageFull | AppendError::Faulty => Self::KAFKA_STORAGE_ERROR,
                AppendError::TooLarge { .. } => Self::MESSAGE_TOO_LARGE,
                AppendError::Busy => Self::REQUEST_TIMED_OUT,
                AppendError::OutOfOrder { .. } => Self::OUT_OF_ORDER_SEQUENCE_NUMBER,
                AppendError::Fenced => Self::INVALID_PRODUCER_EPOCH,
                AppendError::Deleted => Self::UNKNOWN_TOPIC_OR_PARTITION,
                // It is acknowledged as appended.
                AppendError::Duplicate { .. } => Self::UNKNOWN_SERVER_ERROR,
            },
            ApiError::TooManyProducers
            | ApiError::InvalidNode(_)
            | ApiError::ReplyTooLarge { .. }
            | ApiError::SearchTooLarge { .. } => Self::INVALID_REQUEST,
            ApiError::TooManyConnections(_) => Self::THROTTLING_QUOTA_EXCEEDED,
            ApiError::OffsetOutOfRange { .. } => Self::OFFSET_OUT_OF_RANGE,
            ApiError::ProducerIdsExhausted | ApiError::Internal(_) => Self::UNKNOWN_SERVER_ERROR,
        }
    }
}

impl From<ApiError> for KafkaError {
    fn from(error: ApiError) -> Self {
        Self::from(&error)
    }
}

/// Returns whether Kafka's producers send a batch that failed with this code again, unchanged.
pub(crate) fn producers_retry(error: KafkaError) -> bool {
    matches!(
        error,
        KafkaError::UNKNOWN_TOPIC_OR_PARTITION
            | KafkaError::NOT_LEADER_OR_FOLLOWER
            | KafkaError::NOT_ENOUGH_REPLICAS
            | KafkaError::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | KafkaError::REQUEST_TIMED_OUT
            | KafkaError::KAFKA_STORAGE_ERROR
    )
}

/// Returns the code and message for a batch that was not appended. Clients retry only if a retry can succeed, whatever the code of the
/// native protocol is.
pub(crate) fn append_error(failure: &AppendFailure) -> RequestError {
    let code = match failure {
        AppendFailure::Api(error) => error.into(),
        AppendFailure::Transactional => return (NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT.into()),
        AppendFailure::TooLarge { .. }
        | AppendFailure::TooLargeForBroker { .. }
        | AppendFailure::DecoderTooLarge { .. } => KafkaError::MESSAGE_TOO_LARGE,
        AppendFailure::LogAppendTime => KafkaError::INVALID_TIMESTAMP,
        AppendFailure::Records(records) if records.have_invalid_timestamps() => KafkaError::INVALID_TIMESTAMP,
        AppendFailure::Records(_) => KafkaError::INVALID_RECORD,
        AppendFailure::Invalid(error) => match error {
            BatchError::TooLarge { .. } | BatchError::DecompressedTooLarge { .. } => {
                KafkaError::MESSAGE_TOO_LARGE
            }
            BatchError::Truncated { .. } | BatchError::Length(_) | BatchError::Checksum { .. } => {
                KafkaError::CORRUPT_MESSAGE
            }
            BatchError::Codec(_) => KafkaError::UNSUPPORTED_COMPRESSION_TYPE,
            BatchError::Trailing { .. }
            | BatchError::Magic(_)
            | BatchError::Count { .. }
            | BatchError::BaseOffset(_)
            | BatchError::Attributes(_)
            | BatchError::Producer { .. }
            | BatchError::Compressed(_)
            | BatchError::Record { .. }
            | BatchError::TrailingRecords { .. }
            | BatchError::MaxTimestamp { .. } => KafkaError::INVALID_RECORD,
        },
    };
    (code, failure.to_string())
}

/// Returns the code and message of an error.
pub(super) fn request_error(error: &ApiError) -> RequestError {
    (error.into(), error.to_string())
}

/// Returns the code and message fields of a response.
pub(super) fn error_fields(outcome: Result<(), RequestError>) -> (KafkaError, Option<String>) {
    match outcome {
        Ok(()) => (KafkaError::NONE, None),
        Err((error, text)) => (error, Some(text)),
    }
}

/// Returns Kafka's code for an error of the group coordinator.
pub(super) fn code(error: Option<GroupError>) -> KafkaError {
    error.map_or(KafkaError::NONE, |error| KafkaError(error.kafka_code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_starts_or_stops_returns_a_code_that_its_clients_retry() {
        for (error, code) in [
            (ApiError::Starting(Service::Controller), KafkaError::NOT_CONTROLLER),
            (ApiError::Starting(Service::Groups), KafkaError::COORDINATOR_LOAD_IN_PROGRESS),
            (ApiError::Stopping(Service::Groups), KafkaError::NOT_COORDINATOR),
            (ApiError::Starting(Service::ProducerIds), KafkaError::COORDINATOR_NOT_AVAILABLE),
            (ApiError::Stopping(Service::Partitions), KafkaError::NOT_LEADER_OR_FOLLOWER),
        ] {
            assert_eq!(KafkaError::from(&error), code, "{error:?}");
        }
    }
}
