//! Metadata of the cluster: nodes, topics, and the APIs that are offered.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;
use crate::kafka::wire::Uuid;

schema! {
    /// Requests nodes and topics.
    pub struct MetadataRequest<'a> in 0..=13, flexible 9 {
        /// `None` for all topics. In version 0, which has no null, an empty list means all.
        topics: Option<Vec<MetadataRequestTopic<'a>>> => 0.., null 1..;
        allow_auto_topic_creation: bool = true => 4..;
        include_cluster_authorized_operations: bool => 8..=10;
        include_topic_authorized_operations: bool => 8..;
    }

    /// A topic, by name or id.
    pub struct MetadataRequestTopic<'a> {
        topic_id: Uuid => 10..;
        name: Option<&'a str> => 0.., null 10..;
    }

    /// Nodes and topics.
    pub struct MetadataResponse<'a> in 0..=13, flexible 9 {
        throttle_time_ms: i32 => 3..;
        brokers: Vec<MetadataBroker<'a>> => 0..;
        cluster_id: Option<Cow<'a, str>> => 2..;
        controller_id: i32 = -1 => 1..;
        topics: Vec<MetadataTopic<'a>> => 0..;
        cluster_authorized_operations: i32 = i32::MIN => 8..=10;
        error_code: KafkaError => 13..;
    }

    /// A node.
    pub struct MetadataBroker<'a> {
        node_id: i32 => 0..;
        host: Cow<'a, str> => 0..;
        port: i32 => 0..;
        rack: Option<Cow<'a, str>> => 1..;
    }

    /// A topic.
    pub struct MetadataTopic<'a> {
        error_code: KafkaError => 0..;
        name: Option<Cow<'a, str>> => 0.., null 12..;
        topic_id: Uuid => 10..;
        is_internal: bool => 1..;
        partitions: Vec<MetadataPartition> => 0..;
        topic_authorized_operations: i32 = i32::MIN => 8..;
    }

    /// A partition.
    pub struct MetadataPartition {
        error_code: KafkaError => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 = -1 => 7..;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        offline_replicas: Vec<i32> => 5..;
    }

    /// Requests the offered APIs.
    pub struct ApiVersionsRequest<'a> in 0..=4, flexible 3 {
        client_software_name: &'a str => 3..;
        client_software_version: &'a str => 3..;
    }

    /// The offered APIs. Its response header always has version 0.
    pub struct ApiVersionsResponse<'a> in 0..=4, flexible 3 {
        error_code: KafkaError => 0..;
        api_keys: Vec<ApiVersion> => 0..;
        throttle_time_ms: i32 => 1..;
        supported_features: Vec<SupportedFeature<'a>> => 3.., tag 0;
        finalized_features_epoch: i64 = -1 => 3.., tag 1;
        finalized_features: Vec<FinalizedFeature<'a>> => 3.., tag 2;
        zk_migration_ready: bool => 3.., tag 3;
    }

    /// An API and its offered versions.
    pub struct ApiVersion {
        api_key: i16 => 0..;
        min_version: i16 => 0..;
        max_version: i16 => 0..;
    }

    /// A feature and the levels that this node supports.
    pub struct SupportedFeature<'a> {
        name: Cow<'a, str> => 3..;
        min_version: i16 => 3..;
        max_version: i16 => 3..;
    }

    /// A feature and the levels that the cluster uses.
    pub struct FinalizedFeature<'a> {
        name: Cow<'a, str> => 3..;
        max_version_level: i16 => 3..;
        min_version_level: i16 => 3..;
    }

    /// Describes the cluster.
    pub struct DescribeClusterRequest in 0..=2, flexible 0 {
        include_cluster_authorized_operations: bool => 0..;
        endpoint_type: i8 = 1 => 1..;
        include_fenced_brokers: bool => 2..;
    }

    /// The cluster's nodes.
    pub struct DescribeClusterResponse<'a> in 0..=2, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        endpoint_type: i8 = 1 => 1..;
        cluster_id: Cow<'a, str> => 0..;
        controller_id: i32 = -1 => 0..;
        brokers: Vec<DescribeClusterBroker<'a>> => 0..;
        cluster_authorized_operations: i32 = i32::MIN => 0..;
    }

    /// A node.
    pub struct DescribeClusterBroker<'a> {
        broker_id: i32 => 0..;
        host: Cow<'a, str> => 0..;
        port: i32 => 0..;
        rack: Option<Cow<'a, str>> => 0..;
        is_fenced: bool => 2..;
    }

    /// Describes partitions of topics, in pages.
    pub struct DescribeTopicPartitionsRequest<'a> in 0..=0, flexible 0 {
        topics: Vec<DescribeTopicPartitionsRequestTopic<'a>> => 0..;
        response_partition_limit: i32 = 2000 => 0..;
        cursor: Option<DescribeTopicPartitionsRequestCursor<'a>> => 0..;
    }

    /// A topic, by name.
    pub struct DescribeTopicPartitionsRequestTopic<'a> {
        name: &'a str => 0..;
    }

    /// Where the page begins.
    pub struct DescribeTopicPartitionsRequestCursor<'a> {
        topic_name: &'a str => 0..;
        partition_index: i32 => 0..;
    }

    /// A page of topics.
    pub struct DescribeTopicPartitionsResponse<'a> in 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DescribedTopic<'a>> => 0..;
        next_cursor: Option<DescribeTopicPartitionsCursor<'a>> => 0..;
    }

    /// A topic.
    pub struct DescribedTopic<'a> {
        error_code: KafkaError => 0..;
        name: Option<Cow<'a, str>> => 0..;
        topic_id: Uuid => 0..;
        is_internal: bool => 0..;
        partitions: Vec<DescribedPartition> => 0..;
        topic_authorized_operations: i32 = i32::MIN => 0..;
    }

    /// Where the next page begins.
    pub struct DescribeTopicPartitionsCursor<'a> {
        topic_name: Cow<'a, str> => 0..;
        partition_index: i32 => 0..;
    }

    /// A partition.
    pub struct DescribedPartition {
        error_code: KafkaError => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 = -1 => 0..;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        eligible_leader_replicas: Option<Vec<i32>> => 0..;
        last_known_elr: Option<Vec<i32>> => 0..;
        offline_replicas: Vec<i32> => 0..;
    }
}
