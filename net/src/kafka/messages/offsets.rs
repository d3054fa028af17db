//! Offsets of partitions.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Finds offsets by time, or the first or last.
    pub struct ListOffsetsRequest<'a> in 1..=11, flexible 6 {
        replica_id: i32 => 0..;
        isolation_level: i8 => 2..;
        topics: Vec<ListOffsetsTopic<'a>> => 0..;
        timeout_ms: i32 => 10..;
    }

    /// Partitions of one topic.
    pub struct ListOffsetsTopic<'a> {
        name: &'a str => 0..;
        partitions: Vec<ListOffsetsPartition> => 0..;
    }

    /// What to find in one partition.
    pub struct ListOffsetsPartition {
        partition_index: i32 => 0..;
        current_leader_epoch: i32 = -1 => 4..;
        /// A timestamp, or a special value: see [`ListOffsetsPartition::LATEST`] and the following constants.
        timestamp: i64 => 0..;
    }

    /// Found offsets.
    pub struct ListOffsetsResponse<'a> in 1..=11, flexible 6 {
        throttle_time_ms: i32 => 2..;
        topics: Vec<ListOffsetsTopicResponse<'a>> => 0..;
    }

    /// Offsets of one topic.
    pub struct ListOffsetsTopicResponse<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<ListOffsetsPartitionResponse> => 0..;
    }

    /// The offset found in one partition; -1 if there is none.
    pub struct ListOffsetsPartitionResponse {
        partition_index: i32 => 0..;
        error_code: KafkaError => 0..;
        timestamp: i64 = -1 => 0..;
        offset: i64 = -1 => 0..;
        leader_epoch: i32 = -1 => 4..;
    }

    /// Requests the end offsets of leader epochs.
    pub struct OffsetForLeaderEpochRequest<'a> in 2..=4, flexible 4 {
        replica_id: i32 = -2 => 3..;
        topics: Vec<EpochTopic<'a>> => 0..;
    }

    /// Partitions of one topic.
    pub struct EpochTopic<'a> {
        topic: &'a str => 0..;
        partitions: Vec<EpochPartition> => 0..;
    }

    /// The leader epoch whose end is requested.
    pub struct EpochPartition {
        partition: i32 => 0..;
        current_leader_epoch: i32 = -1 => 0..;
        leader_epoch: i32 => 0..;
    }

    /// End offsets of leader epochs.
    pub struct OffsetForLeaderEpochResponse<'a> in 2..=4, flexible 4 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<EpochTopicResponse<'a>> => 0..;
    }

    /// End offsets for one topic.
    pub struct EpochTopicResponse<'a> {
        topic: Cow<'a, str> => 0..;
        partitions: Vec<EpochPartitionResponse> => 0..;
    }

    /// The end of the largest epoch that is not above the requested one.
    pub struct EpochPartitionResponse {
        error_code: KafkaError => 0..;
        partition: i32 => 0..;
        leader_epoch: i32 = -1 => 0..;
        end_offset: i64 = -1 => 0..;
    }

    /// Deletes the records of partitions before an offset.
    pub struct DeleteRecordsRequest<'a> in 0..=2, flexible 2 {
        topics: Vec<DeleteRecordsTopic<'a>> => 0..;
        timeout_ms: i32 => 0..;
    }

    /// Partitions of one topic.
    pub struct DeleteRecordsTopic<'a> {
        name: &'a str => 0..;
        partitions: Vec<DeleteRecordsPartition> => 0..;
    }

    /// The new start of one partition.
    pub struct DeleteRecordsPartition {
        partition_index: i32 => 0..;
        /// -1 for the high watermark.
        offset: i64 => 0..;
    }

    /// The new starts of partitions.
    pub struct DeleteRecordsResponse<'a> in 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DeleteRecordsTopicResponse<'a>> => 0..;
    }

    /// Results for one topic.
    pub struct DeleteRecordsTopicResponse<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<DeleteRecordsPartitionResponse> => 0..;
    }

    /// The new start of one partition.
    pub struct DeleteRecordsPartitionResponse {
        partition_index: i32 => 0..;
        low_watermark: i64 => 0..;
        error_code: KafkaError => 0..;
    }
}

impl ListOffsetsPartition {
    /// After the last readable record.
    pub const LATEST: i64 = -1;
    /// The first record.
    pub const EARLIEST: i64 = -2;
    /// The record with the largest timestamp. Since version 7.
    pub const MAX_TIMESTAMP: i64 = -3;
    /// The first record on this node's disk. Since version 8.
    pub const EARLIEST_LOCAL: i64 = -4;
    /// After the last record in tiered storage. Since version 9.
    pub const LATEST_TIERED: i64 = -5;
    /// The first record that is not in tiered storage yet. Since version 11.
    pub const EARLIEST_PENDING_UPLOAD: i64 = -6;
}
