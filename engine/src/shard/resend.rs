//! Which rejected batches are sent again.

use highwater_net::kafka::KafkaError;

use crate::api::ApiError;
use crate::reply_to::ReplyTo;
use crate::{kafka, native};

/// Returns whether the client sends a batch that failed with this error again, unchanged. Clients decide by the code of their own
/// protocol.
///
/// Clients also send a corrupt batch again, but its header, which names the producer, cannot be trusted.
pub(super) fn is_sent_again(reply_to: ReplyTo, error: &ApiError) -> bool {
    match reply_to {
        ReplyTo::Native { .. } => native::code_of(error).is_retryable(),
        ReplyTo::Kafka(_) => kafka::producers_retry(KafkaError::from(error)),
        // They have no producer's sequence, and see to the order themselves.
        ReplyTo::Coordinators | ReplyTo::Controller(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use highwater_runtime::plane::ConnId;
    use highwater_storage::AppendError;

    use super::*;
    use crate::reply_to::{RequestBatch, RequestId};

    #[test]
    fn each_protocols_clients_send_a_batch_again_by_the_codes_of_their_own_protocol() {
        let native = ReplyTo::Native { conn: ConnId(1), slot: None, id: 0 };
        let kafka = ReplyTo::Kafka(RequestBatch { shard: 0, request: RequestId(0), number: 0 });
        let append = |error| ApiError::Append { partition: "t/0".to_owned(), error };
        for (error, by_native, by_kafka) in [
            (append(AppendError::StorageFull), true, true),
            (append(AppendError::Busy), true, true),
            (append(AppendError::Faulty), false, true),
            (append(AppendError::Deleted), false, true),
            (append(AppendError::Fenced), false, false),
            (append(AppendError::OutOfOrder { expected: 1 }), false, false),
            (append(AppendError::TooLarge { bytes: 2, max: 1 }), false, false),
            (ApiError::TopicDeleted, false, true),
            (ApiError::EarlierBatchRejected { sequence: 1 }, false, false),
        ] {
            assert_eq!(is_sent_again(native, &error), by_native, "{error}");
            assert_eq!(is_sent_again(kafka, &error), by_kafka, "{error}");
        }
    }
}
