//! Lends adapters the part of the shard that they may use.

use highwater_runtime::plane::Plane;

use super::Shard;
use crate::context::{Context, Parts};
use crate::message::Message;

impl Shard {
    pub(super) fn context<'a>(&'a mut self, plane: &'a mut dyn Plane<Message>) -> Context<'a> {
        let parts = Parts {
            calls: &mut self.calls,
            clients: &mut self.connections,
            jobs: self.jobs.of_clients(),
            counted: &mut self.counted,
            producer_ids: &mut self.producer_ids,
        };
        Context::new(plane, &self.setup, (self.metadata.as_ref(), &self.leaders), parts)
    }
}

#[cfg(test)]
mod tests {
    use highwater_net::kafka::KafkaError;

    use crate::api::ApiError;
    use crate::native;

    /// Codes after which Kafka's clients send the same request again.
    const RETRIED: [KafkaError; 13] = [
        KafkaError::NOT_CONTROLLER,
        KafkaError::NOT_COORDINATOR,
        KafkaError::COORDINATOR_NOT_AVAILABLE,
        KafkaError::COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError::NOT_LEADER_OR_FOLLOWER,
        KafkaError::FENCED_LEADER_EPOCH,
        KafkaError::UNKNOWN_LEADER_EPOCH,
        KafkaError::NOT_ENOUGH_REPLICAS,
        KafkaError::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        KafkaError::KAFKA_STORAGE_ERROR,
        KafkaError::REQUEST_TIMED_OUT,
        KafkaError::THROTTLING_QUOTA_EXCEEDED,
    ];

    #[test]
    fn an_error_that_native_clients_may_retry_is_retried_by_kafka_clients_too() {
        for error in ApiError::samples() {
            let (kafka, native) = (KafkaError::from(&error), native::code_of(&error));
            assert!(kafka.is_err() && kafka.name().is_some(), "{error:?}: {kafka}");
            let is_retried = RETRIED.contains(&kafka);
            assert!(
                is_retried || !native.is_retryable(),
                "{error:?}: {native} is retryable, {kafka} is final"
            );
        }
    }
}
