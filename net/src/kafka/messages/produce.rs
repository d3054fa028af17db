//! Produce: appends record batches. The broker has a hand-written decoder of the request (`kafka::produce`); the request type here is for clients.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;
use crate::kafka::wire::Uuid;

schema! {
    /// Appends record batches.
    pub struct ProduceRequest<'a> in 3..=13, flexible 9 {
        transactional_id: Option<&'a str> => 0..;
        acks: i16 => 0..;
        timeout_ms: i32 => 0..;
        topic_data: Vec<ProduceTopic<'a>> => 0..;
    }

    /// Batches for one topic.
    pub struct ProduceTopic<'a> {
        name: &'a str => 0..=12;
        topic_id: Uuid => 13..;
        partition_data: Vec<ProducePartition<'a>> => 0..;
    }

    /// A batch for one partition.
    pub struct ProducePartition<'a> {
        index: i32 => 0..;
        /// Exactly one record batch since version 3.
        records: Option<&'a [u8]> => 0..;
    }

    /// Results of the appends.
    pub struct ProduceResponse<'a> in 3..=13, flexible 9 {
        responses: Vec<ProduceTopicResponse<'a>> => 0..;
        throttle_time_ms: i32 => 0..;
        node_endpoints: Vec<ProduceNode<'a>> => 10.., tag 0;
    }

    /// Results for one topic.
    pub struct ProduceTopicResponse<'a> {
        name: Cow<'a, str> => 0..=12;
        topic_id: Uuid => 13..;
        partition_responses: Vec<ProducePartitionResponse<'a>> => 0..;
    }

    /// Address of a leader.
    pub struct ProduceNode<'a> {
        node_id: i32 => 10..;
        host: Cow<'a, str> => 10..;
        port: i32 => 10..;
        rack: Option<Cow<'a, str>> => 10..;
    }

    /// Result for one partition.
    pub struct ProducePartitionResponse<'a> {
        index: i32 => 0..;
        error_code: KafkaError => 0..;
        base_offset: i64 => 0..;
        /// -1 unless the topic uses LogAppendTime.
        log_append_time_ms: i64 = -1 => 0..;
        log_start_offset: i64 = -1 => 5..;
        record_errors: Vec<ProduceRecordError<'a>> => 8..;
        error_message: Option<Cow<'a, str>> => 8..;
        current_leader: ProduceLeader => 10.., tag 0;
    }

    /// Why one record of a batch was rejected.
    pub struct ProduceRecordError<'a> {
        batch_index: i32 => 8..;
        batch_index_error_message: Option<Cow<'a, str>> => 8..;
    }

    /// The current leader of the partition.
    pub struct ProduceLeader {
        leader_id: i32 = -1 => 10..;
        leader_epoch: i32 = -1 => 10..;
    }
}
