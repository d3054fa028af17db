//! The answer to a fetch: a head, and pages as they rest.

use bytes::Bytes;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::fetch::FetchAnswer;
use highwater_net::kafka::messages::FetchPartitionResponse;

use super::Call;
use super::fetch::FetchPending;
use crate::shard::Shard;

impl Shard {
    /// Nothing is read, because of the request as a whole.
    pub(super) fn refuse_fetch(&mut self, call: Call, error: KafkaError) {
        let reply = FetchAnswer::new(call.origin, 0, error, 0).finish();
        self.counted.requests_refused += 1;
        self.kafka_reply(call, reply);
    }

    /// All that could be read has been. Owners read without knowing of each other, so there may be more than was asked for: what is over
    /// is left out, and read again later.
    pub(super) fn tell_fetched(&mut self, pending: FetchPending) {
        let FetchPending { call, topics, partitions, max_bytes, committed, .. } = pending;
        let mut answer = FetchAnswer::new(call.origin, 0, KafkaError::NONE, topics.len());
        let mut partitions = partitions.into_iter();
        let mut taken = 0;
        for (topic, count) in &topics {
            answer.topic(topic.name(), topic.id(), *count);
            for (index, fetched) in partitions.by_ref().take(*count) {
                let fetched = fetched.expect("an answer is made when all owners have answered");
                let fits = taken == 0 || taken + fetched.bytes <= max_bytes;
                let records: &[Bytes] = if fits { &fetched.records } else { &[] };
                taken += if fits { fetched.bytes } else { 0 };
                let head = FetchPartitionResponse {
                    partition_index: index,
                    error_code: fetched.error,
                    high_watermark: fetched.high_watermark,
                    // There are no transactions: what is committed is stable.
                    last_stable_offset: fetched.high_watermark,
                    log_start_offset: fetched.log_start,
                    aborted_transactions: committed.then(Vec::new),
                    ..Default::default()
                };
                answer.partition(&head, records);
            }
        }
        self.kafka_reply(call, answer.finish());
    }
}
