//! The response to a fetch: encoded fields, and records as slices of the log's pages. It may be about a hundred thousand partitions, so it is put together in pieces.

use std::vec::IntoIter;

use bytes::Bytes;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::fetch::FetchAnswer;
use highwater_net::kafka::messages::FetchPartitionResponse;
use highwater_runtime::plane::Plane;

use super::Call;
use super::fetch::FetchPending;
use crate::kafka::Named;
use crate::limits::FETCHED_PER_UNIT;
use crate::message::{Fetched, Message};
use crate::shard::Shard;
use crate::shard::work::{Job, Work};

/// An answer that is being put together.
struct Answering {
    call: Call,
    answer: FetchAnswer,
    topics: IntoIter<(Named, usize)>,
    partitions: IntoIter<(i32, Option<Fetched>)>,
    /// Partitions of the last topic that are not written yet.
    of_topic: usize,
    /// Bytes of records so far.
    taken: usize,
    max_bytes: usize,
    committed: bool,
}

impl Job for Answering {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        _: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if shard.connections.contains_key(&self.call.conn) && !self.go_on(work) {
            return Some(self);
        }
        shard.send_fetch_answer(*self);
        None
    }
}

impl Answering {
    fn new(pending: FetchPending) -> Self {
        let FetchPending { call, topics, partitions, max_bytes, committed, .. } = pending;
        Self {
            call,
            answer: FetchAnswer::new(call.origin, 0, KafkaError::NONE, topics.len()),
            topics: topics.into_iter(),
            partitions: partitions.into_iter(),
            of_topic: 0,
            taken: 0,
            max_bytes,
            committed,
        }
    }

    /// Writes partitions. True when all are.
    fn go_on(&mut self, work: &mut Work) -> bool {
        while !work.is_over() {
            work.spend(1);
            for _ in 0..FETCHED_PER_UNIT {
                if !self.put_next() {
                    return true;
                }
            }
        }
        self.topics.len() == 0 && self.of_topic == 0
    }

    /// Writes a partition, or what is in front of those of a topic. False if that was all.
    fn put_next(&mut self) -> bool {
        let answer = &mut self.answer;
        if self.of_topic == 0 {
            let Some((topic, count)) = self.topics.next() else { return false };
            answer.topic(topic.name(), topic.id(), count);
            self.of_topic = count;
            return true;
        }
        self.of_topic -= 1;
        let Some((index, fetched)) = self.partitions.next() else { return false };
        let fetched = fetched.expect("an answer is made when all owners have answered");
        // Owners read without knowing of each other, so there may be more than was asked for: what is over is left out, and read again later.
        let fits = self.taken == 0 || self.taken + fetched.bytes <= self.max_bytes;
        let records: &[Bytes] = if fits { &fetched.records } else { &[] };
        self.taken += if fits { fetched.bytes } else { 0 };
        let head = FetchPartitionResponse {
            partition_index: index,
            error_code: fetched.error,
            high_watermark: fetched.high_watermark.0,
            // There are no transactions, so everything committed is stable.
            last_stable_offset: fetched.high_watermark.0,
            log_start_offset: fetched.log_start.0,
            aborted_transactions: self.committed.then(Vec::new),
            ..Default::default()
        };
        answer.partition(&head, records);
        true
    }
}

impl Shard {
    /// Answers a fetch that fails as a whole.
    pub(super) fn refuse_fetch(&mut self, call: Call, error: KafkaError) {
        let reply = FetchAnswer::new(call.origin, 0, error, 0).finish();
        self.counted.requests_refused += 1;
        self.kafka_reply(call, reply);
    }

    /// Answers a fetch with what its owners have read, in pieces if there are many partitions.
    pub(super) fn begin_fetch_answer(&mut self, pending: FetchPending) {
        let mut answering = Answering::new(pending);
        if self.at_once(|_, work| answering.go_on(work)) {
            self.send_fetch_answer(answering);
        } else {
            self.jobs.add(Box::new(answering));
        }
    }

    fn send_fetch_answer(&mut self, answering: Answering) {
        if self.connections.contains_key(&answering.call.conn) {
            self.kafka_reply(answering.call, answering.answer.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use highwater_net::ReplySlot;
    use highwater_net::kafka::api::ApiKey;
    use highwater_net::kafka::{KafkaReplies, Origin};
    use highwater_runtime::plane::ConnId;

    use super::*;

    const TOPICS: usize = 50;
    const PARTITIONS: i32 = 30;

    fn answering(slot: ReplySlot) -> Answering {
        let origin = Origin { api: ApiKey::Fetch, version: 12, correlation_id: 7 };
        let topics =
            (0..TOPICS).map(|n| (Named::Unknown { name: format!("t{n}"), id: [0; 16] }, PARTITIONS as usize));
        // One of them has nothing that is wanted, and one has records.
        let mut topics: Vec<_> = topics.collect();
        topics.insert(3, (Named::Unknown { name: "none".to_owned(), id: [0; 16] }, 0));
        let partitions = (0..TOPICS as i32 * PARTITIONS).map(|n| {
            let mut fetched = Fetched::nothing(n as u32, KafkaError::NONE);
            if n == 500 {
                (fetched.records, fetched.bytes) = (vec![Bytes::from(vec![1; 3000])], 3000);
            }
            (n % PARTITIONS, Some(fetched))
        });
        Answering {
            call: Call { conn: ConnId(1), slot, origin },
            answer: FetchAnswer::new(origin, 0, KafkaError::NONE, topics.len()),
            partitions: partitions.collect::<Vec<_>>().into_iter(),
            topics: topics.into_iter(),
            of_topic: 0,
            taken: 0,
            max_bytes: 1 << 20,
            committed: true,
        }
    }

    fn bytes_of(answering: Answering) -> (BytesMut, Vec<Bytes>) {
        let reply = answering.answer.finish();
        (BytesMut::from(&reply.head[..]), reply.rest)
    }

    #[test]
    fn an_answer_about_many_partitions_is_put_together_in_pieces_and_the_same_as_at_once() {
        let slot = KafkaReplies::default().open(1, 1);
        for units in [1, 7] {
            let mut pieces = answering(slot);
            let mut steps = 1;
            while !pieces.go_on(&mut Work::new(units)) {
                steps += 1;
            }
            assert!(steps >= TOPICS * PARTITIONS as usize / FETCHED_PER_UNIT / units, "{steps} steps");
            let mut whole = answering(slot);
            assert!(whole.go_on(&mut Work::new(usize::MAX)));
            assert_eq!(bytes_of(pieces), bytes_of(whole));
        }
    }
}
