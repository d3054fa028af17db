//! Kafka clients: a producer to all partitions, whose requests cross between shards, and a consumer of all partitions, which commits its positions
//! to a group.

mod consumer;
mod deletion;
mod producer;
pub(crate) mod wire;

use highwater_net::kafka::KafkaError;

pub(crate) use consumer::KafkaConsumer;
pub(crate) use producer::KafkaProducer;

/// The topic that all clients use.
const TOPIC: &str = "main";

/// Returns whether a request succeeded. If not, checks that clients retry the error.
fn succeeded(error: KafkaError) -> bool {
    let retried = [
        KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError::NOT_LEADER_OR_FOLLOWER,
        KafkaError::COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError::NOT_COORDINATOR,
        KafkaError::COORDINATOR_NOT_AVAILABLE,
        KafkaError::KAFKA_STORAGE_ERROR,
    ];
    assert!(error == KafkaError::NONE || retried.contains(&error), "{error:?}");
    error == KafkaError::NONE
}
