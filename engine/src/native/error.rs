//! Why a request is not carried out, in the native protocol's codes.

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;

use crate::api::ApiError;

/// The code of the native protocol. The text for people is the error itself.
pub(crate) const fn code_of(error: &ApiError) -> ErrorCode {
    match error {
        ApiError::Starting(_) | ApiError::Stopping(_) => ErrorCode::Unavailable,
        ApiError::UnknownTopic(_) | ApiError::UnknownTopicId(_) | ApiError::TopicDeleted => {
            ErrorCode::UnknownTopic
        }
        ApiError::UnknownPartition { .. } => ErrorCode::UnknownPartition,
        ApiError::WrongShard { .. } => ErrorCode::WrongShard,
        ApiError::TopicExists(_) => ErrorCode::TopicExists,
        ApiError::InvalidTopicName(_) => ErrorCode::InvalidTopicName,
        ApiError::InvalidPartitionCount { .. } | ApiError::TooManyProducers => ErrorCode::InvalidArgument,
        ApiError::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        ApiError::MetadataLogFull => ErrorCode::StorageFull,
        ApiError::ProducerIdsTaken | ApiError::TooManyConnections(_) => ErrorCode::Overloaded,
        ApiError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ApiError::PartitionDamaged => ErrorCode::PartitionFaulty,
        ApiError::ProducerIdsExhausted | ApiError::Internal(_) => ErrorCode::Internal,
    }
}

/// The reply to a request that is not carried out.
pub(crate) fn reply_of(error: &ApiError) -> Reply {
    Reply::error(code_of(error), error.to_string())
}

impl From<ApiError> for (ErrorCode, String) {
    fn from(error: ApiError) -> Self {
        (code_of(&error), error.to_string())
    }
}
