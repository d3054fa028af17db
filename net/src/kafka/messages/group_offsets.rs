//! Committed offsets of groups.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;
use crate::kafka::wire::Uuid;

schema! {
    /// Commits offsets.
    pub struct OffsetCommitRequest<'a> in 2..=10, flexible 8 {
        group_id: &'a str => 0..;
        generation_id_or_member_epoch: i32 = -1 => 0..;
        member_id: &'a str => 0..;
        group_instance_id: Option<&'a str> => 7..;
        retention_time_ms: i64 = -1 => 0..=4;
        topics: Vec<OffsetCommitTopic<'a>> => 0..;
    }

    /// Partitions of one topic.
    pub struct OffsetCommitTopic<'a> {
        name: &'a str => 0..=9;
        topic_id: Uuid => 10..;
        partitions: Vec<OffsetCommitPartition<'a>> => 0..;
    }

    /// The offset of one partition.
    pub struct OffsetCommitPartition<'a> {
        partition_index: i32 => 0..;
        committed_offset: i64 => 0..;
        committed_leader_epoch: i32 = -1 => 6..;
        committed_metadata: Option<&'a str> => 0..;
    }

    /// Results of the commit.
    pub struct OffsetCommitResponse<'a> in 2..=10, flexible 8 {
        throttle_time_ms: i32 => 3..;
        topics: Vec<OffsetCommitTopicResponse<'a>> => 0..;
    }

    /// Results for one topic.
    pub struct OffsetCommitTopicResponse<'a> {
        name: Cow<'a, str> => 0..=9;
        topic_id: Uuid => 10..;
        partitions: Vec<OffsetCommitPartitionResponse> => 0..;
    }

    /// Result for one partition.
    pub struct OffsetCommitPartitionResponse {
        partition_index: i32 => 0..;
        error_code: KafkaError => 0..;
    }

    /// Fetches committed offsets: of one group up to version 7, of several from version 8 on.
    pub struct OffsetFetchRequest<'a> in 1..=10, flexible 6 {
        group_id: &'a str => 0..=7;
        /// `None` for all.
        topics: Option<Vec<OffsetFetchTopic<'a>>> => 0..=7, null 2..=7;
        groups: Vec<OffsetFetchGroup<'a>> => 8..;
        require_stable: bool => 7..;
    }

    /// Partitions of one topic.
    pub struct OffsetFetchTopic<'a> {
        name: &'a str => 0..=7;
        partition_indexes: Vec<i32> => 0..=7;
    }

    /// A group.
    pub struct OffsetFetchGroup<'a> {
        group_id: &'a str => 8..;
        member_id: Option<&'a str> => 9..;
        member_epoch: i32 = -1 => 9..;
        /// `None` for all.
        topics: Option<Vec<OffsetFetchGroupTopic<'a>>> => 8..;
    }

    /// Partitions of one topic.
    pub struct OffsetFetchGroupTopic<'a> {
        name: &'a str => 8..=9;
        topic_id: Uuid => 10..;
        partition_indexes: Vec<i32> => 8..;
    }

    /// Committed offsets.
    pub struct OffsetFetchResponse<'a> in 1..=10, flexible 6 {
        throttle_time_ms: i32 => 3..;
        topics: Vec<OffsetFetchTopicResponse<'a>> => 0..=7;
        error_code: KafkaError => 2..=7;
        groups: Vec<OffsetFetchGroupResponse<'a>> => 8..;
    }

    /// Offsets of one topic.
    pub struct OffsetFetchTopicResponse<'a> {
        name: Cow<'a, str> => 0..=7;
        partitions: Vec<OffsetFetchPartitionResponse<'a>> => 0..=7;
    }

    /// Offsets of one group.
    pub struct OffsetFetchGroupResponse<'a> {
        group_id: Cow<'a, str> => 8..;
        topics: Vec<OffsetFetchGroupTopicResponse<'a>> => 8..;
        error_code: KafkaError => 8..;
    }

    /// The offset of one partition; -1 if there is none.
    pub struct OffsetFetchPartitionResponse<'a> {
        partition_index: i32 => 0..=7;
        committed_offset: i64 => 0..=7;
        committed_leader_epoch: i32 = -1 => 5..=7;
        metadata: Option<Cow<'a, str>> => 0..=7;
        error_code: KafkaError => 0..=7;
    }

    /// Offsets of one topic.
    pub struct OffsetFetchGroupTopicResponse<'a> {
        name: Cow<'a, str> => 8..=9;
        topic_id: Uuid => 10..;
        partitions: Vec<OffsetFetchGroupPartitionResponse<'a>> => 8..;
    }

    /// The offset of one partition; -1 if there is none.
    pub struct OffsetFetchGroupPartitionResponse<'a> {
        partition_index: i32 => 8..;
        committed_offset: i64 => 8..;
        committed_leader_epoch: i32 = -1 => 8..;
        metadata: Option<Cow<'a, str>> => 8..;
        error_code: KafkaError => 8..;
    }

    /// Deletes committed offsets.
    pub struct OffsetDeleteRequest<'a> in 0..=0 {
        group_id: &'a str => 0..;
        topics: Vec<OffsetDeleteTopic<'a>> => 0..;
    }

    /// Partitions of one topic.
    pub struct OffsetDeleteTopic<'a> {
        name: &'a str => 0..;
        partitions: Vec<OffsetDeletePartition> => 0..;
    }

    /// A partition.
    pub struct OffsetDeletePartition {
        partition_index: i32 => 0..;
    }

    /// Results of the deletion.
    pub struct OffsetDeleteResponse<'a> in 0..=0 {
        error_code: KafkaError => 0..;
        throttle_time_ms: i32 => 0..;
        topics: Vec<OffsetDeleteTopicResponse<'a>> => 0..;
    }

    /// Results for one topic.
    pub struct OffsetDeleteTopicResponse<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<OffsetDeletePartitionResponse> => 0..;
    }

    /// Result for one partition.
    pub struct OffsetDeletePartitionResponse {
        partition_index: i32 => 0..;
        error_code: KafkaError => 0..;
    }
}
