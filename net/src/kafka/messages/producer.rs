//! Producer ids.

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// A producer id, or the next epoch of one.
    pub struct InitProducerIdRequest<'a> in 0..=5, flexible 2 {
        transactional_id: Option<&'a str> => 0..;
        transaction_timeout_ms: i32 => 0..;
        producer_id: i64 = -1 => 3..;
        producer_epoch: i16 = -1 => 3..;
    }

    /// The producer id.
    pub struct InitProducerIdResponse in 0..=5, flexible 2 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        producer_id: i64 = -1 => 0..;
        producer_epoch: i16 => 0..;
    }
}
