//! Producer ids, and the state of producers in partitions.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Requests a producer id, or the next epoch of one.
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

    /// Describes the active producers of partitions.
    pub struct DescribeProducersRequest<'a> in 0..=0, flexible 0 {
        topics: Vec<TopicRequest<'a>> => 0..;
    }

    /// Partitions of one topic.
    pub struct TopicRequest<'a> {
        name: &'a str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }

    /// Active producers.
    pub struct DescribeProducersResponse<'a> in 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<TopicResponse<'a>> => 0..;
    }

    /// Producers of one topic.
    pub struct TopicResponse<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<PartitionResponse<'a>> => 0..;
    }

    /// Producers of one partition.
    pub struct PartitionResponse<'a> {
        partition_index: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        active_producers: Vec<ProducerState> => 0..;
    }

    /// State of a producer.
    pub struct ProducerState {
        producer_id: i64 => 0..;
        producer_epoch: i32 => 0..;
        last_sequence: i32 = -1 => 0..;
        last_timestamp: i64 = -1 => 0..;
        coordinator_epoch: i32 => 0..;
        current_txn_start_offset: i64 = -1 => 0..;
    }
}
