//! Transactions are not supported: every transactional request gets an error that clients treat as final.
//!
//! Clients treat TRANSACTIONAL_ID_AUTHORIZATION_FAILED as final. INVALID_REQUEST would describe the error better, but librdkafka retries it
//! until the caller's timeout. librdkafka and franz-go show the error's text.

use std::borrow::Cow;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, AddPartitionsToTxnResult, AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult, EndTxnResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};
use highwater_net::kafka::topic_lists::ListedTopic;
use highwater_net::{Entries, Pieces};

use super::Call;
use super::topic_answer::{TopicsAnswer, put_topic};
use crate::context::{AnswerTo, Context};

/// The error code for transactional requests.
pub(crate) const NO_TRANSACTIONS: KafkaError = KafkaError::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;

/// The error message for transactional requests.
pub(crate) const NO_TRANSACTIONS_TEXT: &str =
    "transactions are not available in this version of Highwater; remove transactional.id from the producer";

pub(super) fn add_partitions_to_txn(
    context: &mut Context<'_>,
    call: Call,
    request: &AddPartitionsToTxnRequest<'_>,
) {
    let version = call.version();
    if version < TRANSACTIONS_FROM {
        return TopicsAnswer { call, topics: rejected_topics(&request.v3_and_below_topics) }.send(context);
    }
    let mut rejected = RejectedTransactions { version, transactions: Vec::new(), topics: Vec::new() };
    for transaction in &request.transactions {
        let topics = rejected_topics(&transaction.topics);
        rejected.transactions.push((transaction.transactional_id.to_owned(), topics.len()));
        if topics.is_empty() {
            rejected.topics.push((rejected.transactions.len() - 1, 0, None));
        }
        let of = topics.into_iter().enumerate();
        rejected.topics.extend(of.map(|(at, topic)| (rejected.transactions.len() - 1, at, Some(topic))));
    }
    // The request as a whole succeeds; each partition has an error.
    let response = AddPartitionsToTxnResponse::default();
    let Frame { front, back } = response.frame(version, rejected.transactions.len());
    context.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, rejected, back));
}

/// The first version of AddPartitionsToTxn with several transactions.
const TRANSACTIONS_FROM: i16 = 4;

/// The transactions of an AddPartitionsToTxn response, topic by topic.
#[derive(Debug)]
struct RejectedTransactions {
    version: i16,
    /// Each transaction's id, and the number of its topics.
    transactions: Vec<(String, usize)>,
    /// Each topic with the index of its transaction and its own index there. A transaction without topics has one entry of `None`.
    topics: Vec<(usize, usize, Option<AddPartitionsToTxnTopicResult<'static>>)>,
}

impl Entries for RejectedTransactions {
    fn count(&self) -> usize {
        self.topics.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let (transaction, at, topic) = &self.topics[entry];
        let (id, count) = &self.transactions[*transaction];
        if (*at, part) == (0, 0) {
            let result =
                AddPartitionsToTxnResult { transactional_id: Cow::Borrowed(id), topic_results: Vec::new() };
            result.put_front(self.version, *count, out);
        }
        let more = topic.as_ref().is_some_and(|topic| put_topic(topic, self.version, part, out));
        if !more && at + 1 >= *count {
            AddPartitionsToTxnResult::put_back(self.version, out);
        }
        more
    }

    fn memory_bytes(&self) -> usize {
        let ids: usize = self.transactions.iter().map(|(id, _)| id.len()).sum();
        let topics: usize =
            self.topics.iter().filter_map(|(.., topic)| Some(topic.as_ref()?.memory_bytes())).sum();
        ids + topics + size_of_val(&self.transactions[..]) + size_of_val(&self.topics[..])
    }
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
        name: topic.name.to_owned().into(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: NO_TRANSACTIONS,
            })
            .collect(),
    });
    TopicsAnswer { call, topics: topics.collect() }.send(context);
}

fn rejected_topics(topics: &[AddPartitionsToTxnTopic<'_>]) -> Vec<AddPartitionsToTxnTopicResult<'static>> {
    let partition = |index: &i32| AddPartitionsToTxnPartitionResult {
        partition_index: *index,
        partition_error_code: NO_TRANSACTIONS,
    };
    let topic = |topic: &AddPartitionsToTxnTopic<'_>| AddPartitionsToTxnTopicResult {
        name: topic.name.to_owned().into(),
        results_by_partition: topic.partitions.iter().map(partition).collect(),
    };
    topics.iter().map(topic).collect()
}
