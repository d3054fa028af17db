//! Fetch: reads record batches. The broker has a hand-written encoder of the response (`kafka::fetch`); the type here is for clients.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;
use crate::kafka::wire::Uuid;

schema! {
    /// Fetches record batches of several partitions.
    pub struct FetchRequest<'a> in 4..=18, flexible 12 {
        cluster_id: Option<&'a str> => 12.., tag 0;
        replica_id: i32 = -1 => 0..=14;
        replica_state: FetchReplicaState => 15.., tag 1;
        max_wait_ms: i32 => 0..;
        min_bytes: i32 => 0..;
        max_bytes: i32 = i32::MAX => 0..;
        isolation_level: i8 => 0..;
        session_id: i32 => 7..;
        session_epoch: i32 = -1 => 7..;
        topics: Vec<FetchTopic<'a>> => 0..;
        forgotten_topics_data: Vec<FetchForgottenTopic<'a>> => 7..;
        rack_id: &'a str => 11..;
    }

    /// State of the requesting replica.
    pub struct FetchReplicaState {
        replica_id: i32 = -1 => 15..;
        replica_epoch: i64 = -1 => 15..;
    }

    /// Partitions of one topic.
    pub struct FetchTopic<'a> {
        topic: &'a str => 0..=12;
        topic_id: Uuid => 13..;
        partitions: Vec<FetchPartition> => 0..;
    }

    /// Partitions that are removed from the fetch session.
    pub struct FetchForgottenTopic<'a> {
        topic: &'a str => 7..=12;
        topic_id: Uuid => 13..;
        partitions: Vec<i32> => 7..;
    }

    /// Where to read a partition.
    pub struct FetchPartition {
        partition: i32 => 0..;
        current_leader_epoch: i32 = -1 => 9..;
        fetch_offset: i64 => 0..;
        last_fetched_epoch: i32 = -1 => 12..;
        log_start_offset: i64 = -1 => 5..;
        partition_max_bytes: i32 => 0..;
        replica_directory_id: Uuid => 17.., tag 0;
        high_watermark: i64 = i64::MAX => 18.., tag 1;
    }

    /// Record batches.
    pub struct FetchResponse<'a> in 4..=18, flexible 12 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 7..;
        session_id: i32 => 7..;
        responses: Vec<FetchTopicResponse<'a>> => 0..;
        node_endpoints: Vec<FetchNode<'a>> => 16.., tag 0;
    }

    /// Record batches of one topic.
    pub struct FetchTopicResponse<'a> {
        topic: Cow<'a, str> => 0..=12;
        topic_id: Uuid => 13..;
        partitions: Vec<FetchPartitionResponse<'a>> => 0..;
    }

    /// Address of a leader.
    pub struct FetchNode<'a> {
        node_id: i32 => 16..;
        host: Cow<'a, str> => 16..;
        port: i32 => 16..;
        rack: Option<Cow<'a, str>> => 16..;
    }

    /// Record batches of one partition.
    pub struct FetchPartitionResponse<'a> {
        partition_index: i32 => 0..;
        error_code: KafkaError => 0..;
        high_watermark: i64 => 0..;
        last_stable_offset: i64 = -1 => 0..;
        log_start_offset: i64 = -1 => 5..;
        diverging_epoch: FetchEpochEndOffset => 12.., tag 0;
        current_leader: FetchLeader => 12.., tag 1;
        snapshot_id: FetchSnapshotId => 12.., tag 2;
        aborted_transactions: Option<Vec<FetchAbortedTransaction>> => 0..;
        preferred_read_replica: i32 = -1 => 11..;
        records: Option<&'a [u8]> => 0..;
    }

    /// Where the client's log diverges from this one.
    pub struct FetchEpochEndOffset {
        epoch: i32 = -1 => 12..;
        end_offset: i64 = -1 => 12..;
    }

    /// The current leader of the partition.
    pub struct FetchLeader {
        leader_id: i32 = -1 => 12..;
        leader_epoch: i32 = -1 => 12..;
    }

    /// A snapshot to fetch instead; only the metadata log has them.
    pub struct FetchSnapshotId {
        end_offset: i64 = -1 => 0..;
        epoch: i32 = -1 => 0..;
    }

    /// An aborted transaction, whose records a read-committed consumer drops.
    pub struct FetchAbortedTransaction {
        producer_id: i64 => 0..;
        first_offset: i64 => 0..;
    }
}
