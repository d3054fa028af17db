//! Who receives the outcome of an append.

use highwater_net::ReplySlot;
use highwater_net::kafka::KafkaError;
use highwater_runtime::plane::{ConnId, ShardIndex};

use crate::api::ApiError;
use crate::{kafka, native};

/// The client that receives the outcome of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyTo {
    /// A native client, whose connection is on this shard.
    Native {
        /// The client's connection.
        conn: ConnId,
        /// The place of the reply; none with acks 0, where only a failure is reported, by closing the connection.
        slot: Option<ReplySlot>,
        /// The client's number of the request.
        id: u64,
    },
    /// A Kafka client, whose connection may be on any shard.
    Kafka(RequestBatch),
}

/// A pending request of a Kafka client. Unique on the shard of its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A batch of a Kafka client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestBatch {
    /// The shard of the connection.
    pub shard: ShardIndex,
    /// The request there.
    pub request: RequestId,
    /// The batch's number in the request.
    pub number: u32,
}

impl ReplyTo {
    /// Returns the connection that handles no further request until the batch has been appended. A Kafka client's connection continues:
    /// the memory for its requests limits what it may have in flight.
    pub(crate) fn waiting_conn(self) -> Option<ConnId> {
        match self {
            Self::Native { conn, .. } => Some(conn),
            Self::Kafka(_) => None,
        }
    }

    /// Returns whether the client sends a batch that failed with this error again, unchanged. Clients decide by the code of their own
    /// protocol.
    ///
    /// Clients also send a corrupt batch again, but its header, which names the producer, cannot be trusted.
    pub(crate) fn is_sent_again(self, error: &ApiError) -> bool {
        match self {
            Self::Native { .. } => native::code_of(error).is_retryable(),
            Self::Kafka(_) => kafka::producers_retry(KafkaError::from(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_storage::AppendError;

    use super::*;

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
            assert_eq!(native.is_sent_again(&error), by_native, "{error}");
            assert_eq!(kafka.is_sent_again(&error), by_kafka, "{error}");
        }
    }
}
