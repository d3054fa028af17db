//! Creation and deletion of topics, and adding partitions.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;
use crate::kafka::wire::Uuid;

schema! {
    /// Creates topics.
    pub struct CreateTopicsRequest<'a> in 2..=7, flexible 5 {
        topics: Vec<CreatableTopic<'a>> => 0..;
        timeout_ms: i32 = 60000 => 0..;
        validate_only: bool => 0..;
    }

    /// A topic to create.
    pub struct CreatableTopic<'a> {
        name: &'a str => 0..;
        /// -1 for the broker's default, or if there are assignments.
        num_partitions: i32 => 0..;
        replication_factor: i16 => 0..;
        assignments: Vec<CreatableAssignment> => 0..;
        configs: Vec<CreatableConfig<'a>> => 0..;
    }

    /// Replica assignment of one partition.
    pub struct CreatableAssignment {
        partition_index: i32 => 0..;
        broker_ids: Vec<i32> => 0..;
    }

    /// A configuration entry.
    pub struct CreatableConfig<'a> {
        name: &'a str => 0..;
        value: Option<&'a str> => 0..;
    }

    /// Results of the creation.
    pub struct CreateTopicsResponse<'a> in 2..=7, flexible 5 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<CreatedTopic<'a>> => 0..;
    }

    /// Result for one topic.
    pub struct CreatedTopic<'a> {
        name: Cow<'a, str> => 0..;
        topic_id: Uuid => 7..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        topic_config_error_code: KafkaError => 5.., tag 0;
        num_partitions: i32 = -1 => 5..;
        replication_factor: i16 = -1 => 5..;
        configs: Option<Vec<CreatedTopicConfig<'a>>> => 5..;
    }

    /// A configuration entry of the new topic.
    pub struct CreatedTopicConfig<'a> {
        name: Cow<'a, str> => 5..;
        value: Option<Cow<'a, str>> => 5..;
        read_only: bool => 5..;
        config_source: i8 = -1 => 5..;
        is_sensitive: bool => 5..;
    }

    /// Deletes topics: by name up to version 5, by name or id from version 6 on.
    pub struct DeleteTopicsRequest<'a> in 1..=6, flexible 4 {
        topics: Vec<DeleteTopic<'a>> => 6..;
        topic_names: Vec<&'a str> => 0..=5;
        timeout_ms: i32 => 0..;
    }

    /// A topic, by name or id.
    pub struct DeleteTopic<'a> {
        name: Option<&'a str> => 6..;
        topic_id: Uuid => 6..;
    }

    /// Results of the deletion.
    pub struct DeleteTopicsResponse<'a> in 1..=6, flexible 4 {
        throttle_time_ms: i32 => 0..;
        responses: Vec<DeletedTopic<'a>> => 0..;
    }

    /// Result for one topic.
    pub struct DeletedTopic<'a> {
        name: Option<Cow<'a, str>> => 0.., null 6..;
        topic_id: Uuid => 6..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 5..;
    }

    /// Adds partitions.
    pub struct CreatePartitionsRequest<'a> in 0..=3, flexible 2 {
        topics: Vec<CreatePartitionsTopic<'a>> => 0..;
        timeout_ms: i32 => 0..;
        validate_only: bool => 0..;
    }

    /// A topic with its new number of partitions.
    pub struct CreatePartitionsTopic<'a> {
        name: &'a str => 0..;
        count: i32 => 0..;
        assignments: Option<Vec<CreatePartitionsAssignment>> => 0..;
    }

    /// Replica assignment of one new partition.
    pub struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> => 0..;
    }

    /// Results of adding partitions.
    pub struct CreatePartitionsResponse<'a> in 0..=3, flexible 2 {
        throttle_time_ms: i32 => 0..;
        results: Vec<CreatePartitionsTopicResponse<'a>> => 0..;
    }

    /// Result for one topic.
    pub struct CreatePartitionsTopicResponse<'a> {
        name: Cow<'a, str> => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
    }
}
