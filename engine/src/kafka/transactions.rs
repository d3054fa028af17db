//! Transactions are not supported: every request of a transaction gets an error that clients treat as final.
//!
//! Clients treat TRANSACTIONAL_ID_AUTHORIZATION_FAILED as final; INVALID_REQUEST, which would be closer to the truth, is retried by
//! librdkafka until the caller's time is up. librdkafka and franz-go show the text that goes with it.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, AddPartitionsToTxnResult, AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult, EndTxnResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};

use super::Call;
use crate::shard::Context;

/// The error for requests of transactions.
pub(crate) const NO_TRANSACTIONS: KafkaError = KafkaError::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;

/// The message.
pub(crate) const NO_TRANSACTIONS_TEXT: &str =
    "transactions are not available in this version of Highwater; remove transactional.id from the producer";

pub(super) fn add_partitions_to_txn(
    context: &mut Context<'_>,
    call: Call,
    request: &AddPartitionsToTxnRequest<'_>,
) {
    let transactions = request.transactions.iter().map(|transaction| AddPartitionsToTxnResult {
        transactional_id: transaction.transactional_id.into(),
        topic_results: refused(&transaction.topics),
    });
    let response = AddPartitionsToTxnResponse {
        // That of the whole request; each partition has its own as well.
        error_code: KafkaError::NONE,
        results_by_transaction: transactions.collect(),
        results_by_topic_v3_and_below: refused(&request.v3_and_below_topics),
        ..Default::default()
    };
    context.answer(call, &response);
}

pub(super) fn add_offsets_to_txn(context: &mut Context<'_>, call: Call) {
    let response = AddOffsetsToTxnResponse { error_code: NO_TRANSACTIONS, ..Default::default() };
    context.answer(call, &response);
}

pub(super) fn end_txn(context: &mut Context<'_>, call: Call) {
    context.answer(call, &EndTxnResponse { error_code: NO_TRANSACTIONS, ..Default::default() });
}

pub(super) fn txn_offset_commit(context: &mut Context<'_>, call: Call, request: &TxnOffsetCommitRequest<'_>) {
    let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
        name: topic.name.into(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: NO_TRANSACTIONS,
            })
            .collect(),
    });
    let response = TxnOffsetCommitResponse { throttle_time_ms: 0, topics: topics.collect() };
    context.answer(call, &response);
}

fn refused<'a>(topics: &[AddPartitionsToTxnTopic<'a>]) -> Vec<AddPartitionsToTxnTopicResult<'a>> {
    let partition = |index: &i32| AddPartitionsToTxnPartitionResult {
        partition_index: *index,
        partition_error_code: NO_TRANSACTIONS,
    };
    let topic = |topic: &AddPartitionsToTxnTopic<'a>| AddPartitionsToTxnTopicResult {
        name: topic.name.into(),
        results_by_partition: topic.partitions.iter().map(partition).collect(),
    };
    topics.iter().map(topic).collect()
}
