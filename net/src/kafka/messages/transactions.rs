//! Transactions: decoded, so that they can be refused with the right error.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Adds partitions to transactions: one up to version 3, from clients; several from version 4 on, from brokers.
    pub struct AddPartitionsToTxnRequest<'a> in 0..=5, flexible 3 {
        transactions: Vec<AddPartitionsToTxnTransaction<'a>> => 4..;
        v3_and_below_transactional_id: &'a str => ..=3;
        v3_and_below_producer_id: i64 => ..=3;
        v3_and_below_producer_epoch: i16 => ..=3;
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic<'a>> => ..=3;
    }

    /// A transaction.
    pub struct AddPartitionsToTxnTransaction<'a> {
        transactional_id: &'a str => 4..;
        producer_id: i64 => 4..;
        producer_epoch: i16 => 4..;
        verify_only: bool => 4..;
        topics: Vec<AddPartitionsToTxnTopic<'a>> => 4..;
    }

    /// Partitions of one topic.
    pub struct AddPartitionsToTxnTopic<'a> {
        name: &'a str => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// Results for each partition.
    pub struct AddPartitionsToTxnResponse<'a> in 0..=5, flexible 3 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 4..;
        results_by_transaction: Vec<AddPartitionsToTxnResult<'a>> => 4..;
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult<'a>> => ..=3;
    }

    /// Results for one transaction.
    pub struct AddPartitionsToTxnResult<'a> {
        transactional_id: Cow<'a, str> => 4..;
        topic_results: Vec<AddPartitionsToTxnTopicResult<'a>> => 4..;
    }

    /// Results for one topic.
    pub struct AddPartitionsToTxnTopicResult<'a> {
        name: Cow<'a, str> => 0..;
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> => 0..;
    }

    /// Result for one partition.
    pub struct AddPartitionsToTxnPartitionResult {
        partition_index: i32 => 0..;
        partition_error_code: KafkaError => 0..;
    }

    /// Adds the offsets of a group to a transaction.
    pub struct AddOffsetsToTxnRequest<'a> in 0..=4, flexible 3 {
        transactional_id: &'a str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        group_id: &'a str => 0..;
    }

    /// Result of adding the offsets.
    pub struct AddOffsetsToTxnResponse in 0..=4, flexible 3 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
    }

    /// Ends a transaction.
    pub struct EndTxnRequest<'a> in 0..=5, flexible 3 {
        transactional_id: &'a str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        committed: bool => 0..;
    }

    /// Result of ending the transaction.
    pub struct EndTxnResponse in 0..=5, flexible 3 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        producer_id: i64 = -1 => 5..;
        producer_epoch: i16 = -1 => 5..;
    }

    /// Commits offsets in a transaction.
    pub struct TxnOffsetCommitRequest<'a> in 0..=5, flexible 3 {
        transactional_id: &'a str => 0..;
        group_id: &'a str => 0..;
        producer_id: i64 => 0..;
        producer_epoch: i16 => 0..;
        generation_id: i32 = -1 => 3..;
        member_id: &'a str => 3..;
        group_instance_id: Option<&'a str> => 3..;
        topics: Vec<TxnOffsetCommitRequestTopic<'a>> => 0..;
    }

    /// Offsets of one topic.
    pub struct TxnOffsetCommitRequestTopic<'a> {
        name: &'a str => 0..;
        partitions: Vec<TxnOffsetCommitRequestPartition<'a>> => 0..;
    }

    /// The offset of one partition.
    pub struct TxnOffsetCommitRequestPartition<'a> {
        partition_index: i32 => 0..;
        committed_offset: i64 => 0..;
        committed_leader_epoch: i32 = -1 => 2..;
        committed_metadata: Option<&'a str> => 0..;
    }

    /// Results of the commit.
    pub struct TxnOffsetCommitResponse<'a> in 0..=5, flexible 3 {
        throttle_time_ms: i32 => 0..;
        topics: Vec<TxnOffsetCommitResponseTopic<'a>> => 0..;
    }

    /// Results for one topic.
    pub struct TxnOffsetCommitResponseTopic<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<TxnOffsetCommitResponsePartition> => 0..;
    }

    /// Result for one partition.
    pub struct TxnOffsetCommitResponsePartition {
        partition_index: i32 => 0..;
        error_code: KafkaError => 0..;
    }

    /// Lists transactions.
    pub struct ListTransactionsRequest<'a> in 0..=2, flexible 0 {
        state_filters: Vec<&'a str> => 0..;
        producer_id_filters: Vec<i64> => 0..;
        duration_filter: i64 = -1 => 1..;
        transactional_id_pattern: Option<&'a str> => 2..;
    }

    /// Transactions.
    pub struct ListTransactionsResponse<'a> in 0..=2, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        unknown_state_filters: Vec<Cow<'a, str>> => 0..;
        transaction_states: Vec<TransactionState<'a>> => 0..;
    }

    /// A transaction.
    pub struct TransactionState<'a> {
        transactional_id: Cow<'a, str> => 0..;
        producer_id: i64 => 0..;
        transaction_state: Cow<'a, str> => 0..;
    }
}
