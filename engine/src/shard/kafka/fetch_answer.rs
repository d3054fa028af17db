//! The response to a fetch: encoded fields, and records as slices of the log's pages. It may have a hundred thousand partitions, so it is built in
//! slices.

use std::borrow::Cow;
use std::vec::IntoIter;

use bytes::Bytes;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::fetch::FetchAnswer;
use highwater_net::kafka::messages::{FetchLeader, FetchNode, FetchPartitionResponse};
use highwater_runtime::plane::Plane;

use super::Call;
use super::fetch::FetchPending;
use crate::counters::Work;
use crate::kafka::{LeaderHint, LeaderHints, Named};
use crate::kafka_message::Fetched;
use crate::limits::FETCHED_PER_UNIT;
use crate::message::Message;
use crate::shard::Shard;
use crate::shard::work::Job;

/// Builds the response to a fetch.
struct AnswerJob {
    call: Call,
    answer: FetchAnswer,
    topics: IntoIter<(Named, usize)>,
    partitions: IntoIter<(i32, Option<Fetched>)>,
    /// Number of partitions of the last topic that have not been written.
    of_topic: usize,
    /// Bytes of records so far.
    taken: usize,
    max_bytes: usize,
    committed: bool,
    /// There if a partition is led elsewhere.
    hints: Option<LeaderHints>,
    topic: Option<Named>,
}

impl Job for AnswerJob {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        _: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if shard.connections.contains_key(&self.call.conn) && !self.run_slice(work) {
            return Some(self);
        }
        shard.send_fetch_answer(*self);
        None
    }
}

impl AnswerJob {
    fn new(pending: FetchPending, hints: Option<LeaderHints>) -> Self {
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
            hints,
            topic: None,
        }
    }

    /// Writes partitions. Returns true when all have been written.
    fn run_slice(&mut self, work: &mut Work) -> bool {
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

    /// Writes a partition, or the head of the next topic. Returns false at the end.
    fn put_next(&mut self) -> bool {
        let answer = &mut self.answer;
        if self.of_topic == 0 {
            let Some((topic, count)) = self.topics.next() else { return false };
            answer.topic(topic.name(), topic.id(), count);
            self.of_topic = count;
            self.topic = Some(topic);
            return true;
        }
        self.of_topic -= 1;
        let Some((index, fetched)) = self.partitions.next() else { return false };
        let fetched = fetched.expect("the response is built after all owners have replied");
        // Owners read independently, so together they may exceed the limit. The excess is left out; the client fetches it again.
        let fits = self.taken == 0 || self.taken + fetched.bytes <= self.max_bytes;
        let records: &[Bytes] = if fits { &fetched.records } else { &[] };
        self.taken += if fits { fetched.bytes } else { 0 };
        let mut head = FetchPartitionResponse {
            partition_index: index,
            error_code: fetched.error,
            high_watermark: fetched.high_watermark.0,
            // There are no transactions, so everything committed is stable.
            last_stable_offset: fetched.high_watermark.0,
            log_start_offset: fetched.log_start.0,
            aborted_transactions: self.committed.then(Vec::new),
            ..Default::default()
        };
        let leader = self.hints.as_mut().zip(self.topic.as_ref());
        let leader = leader.and_then(|(hints, topic)| hints.find(topic, index, fetched.error));
        if let Some(LeaderHint { node: leader_id, epoch: leader_epoch }) = leader {
            head.current_leader = FetchLeader { leader_id, leader_epoch };
        }
        answer.partition(&head, records);
        true
    }
}

impl Shard {
    /// Responds to a fetch with an error for the whole request.
    pub(super) fn fail_fetch(&mut self, call: Call, error: KafkaError) {
        let reply = FetchAnswer::new(call.origin, 0, error, 0).finish(&[]);
        self.counted.requests_failed += 1;
        self.kafka_reply(call, reply);
    }

    /// Builds and sends the response to a fetch, in slices if there are many partitions.
    pub(super) fn begin_fetch_answer(&mut self, pending: FetchPending) {
        let is_elsewhere = |(_, fetched): &(i32, Option<Fetched>)| {
            fetched.as_ref().is_some_and(|fetched| LeaderHints::are_for(fetched.error))
        };
        let any_elsewhere = pending.partitions.iter().any(is_elsewhere);
        let hints = if any_elsewhere { self.leader_hints(pending.call.conn) } else { None };
        let mut job = AnswerJob::new(pending, hints);
        if self.at_once(|_, work| job.run_slice(work)) {
            self.send_fetch_answer(job);
        } else {
            self.jobs.add(Box::new(job));
        }
    }

    fn send_fetch_answer(&mut self, job: AnswerJob) {
        if !self.connections.contains_key(&job.call.conn) {
            return;
        }
        let nodes = job.hints.into_iter().flat_map(LeaderHints::into_nodes).map(|node| FetchNode {
            node_id: node.id.0 as i32,
            host: Cow::Owned(node.address.host),
            port: node.address.port.into(),
            rack: node.rack.map(Cow::Owned),
        });
        let nodes: Vec<_> = nodes.collect();
        self.kafka_reply(job.call, job.answer.finish(&nodes));
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

    fn job(slot: ReplySlot) -> AnswerJob {
        let origin = Origin { api: ApiKey::Fetch, version: 12, correlation_id: 7 };
        let topics =
            (0..TOPICS).map(|n| (Named::Unknown { name: format!("t{n}"), id: [0; 16] }, PARTITIONS as usize));
        // One topic has no partitions in the request, and one partition has records.
        let mut topics: Vec<_> = topics.collect();
        topics.insert(3, (Named::Unknown { name: "none".to_owned(), id: [0; 16] }, 0));
        let partitions = (0..TOPICS as i32 * PARTITIONS).map(|n| {
            let mut fetched = Fetched::nothing(n as u32, KafkaError::NONE);
            if n == 500 {
                (fetched.records, fetched.bytes) = (vec![Bytes::from(vec![1; 3000])], 3000);
            }
            (n % PARTITIONS, Some(fetched))
        });
        AnswerJob {
            call: Call { conn: ConnId(1), slot, origin },
            answer: FetchAnswer::new(origin, 0, KafkaError::NONE, topics.len()),
            partitions: partitions.collect::<Vec<_>>().into_iter(),
            topics: topics.into_iter(),
            of_topic: 0,
            taken: 0,
            max_bytes: 1 << 20,
            committed: true,
            hints: None,
            topic: None,
        }
    }

    fn bytes_of(job: AnswerJob) -> (BytesMut, Vec<Bytes>) {
        let reply = job.answer.finish(&[]);
        (BytesMut::from(&reply.head[..]), reply.rest)
    }

    #[test]
    fn a_response_that_is_built_in_slices_equals_one_that_is_built_at_once() {
        let slot = KafkaReplies::default().open(1, 1);
        for units in [1, 7] {
            let mut pieces = job(slot);
            let mut steps = 1;
            while !pieces.run_slice(&mut Work::new(units)) {
                steps += 1;
            }
            assert!(steps >= TOPICS * PARTITIONS as usize / FETCHED_PER_UNIT / units, "{steps} steps");
            let mut whole = job(slot);
            assert!(whole.run_slice(&mut Work::new(usize::MAX)));
            assert_eq!(bytes_of(pieces), bytes_of(whole));
        }
    }
}
