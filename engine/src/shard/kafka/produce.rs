//! Produce on the shard of the connection: checks the batches, has them appended by the owners of their partitions, and answers when all
//! outcomes are known.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use highwater_net::Batch;
use highwater_net::kafka::messages::{
    ProduceLeader, ProduceNode, ProducePartitionResponse, ProduceRecordError, ProduceResponse,
    ProduceTopicResponse,
};
use highwater_net::kafka::produce::{Produce, ProduceTo, Records};
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_protocol::batch::{BatchProducer, Compression, NO_TIMESTAMP};
use highwater_protocol::ids::{Offset, TopicId, TopicPartition};
use highwater_runtime::plane::{ConnId, Plane, ShardIndex};

use super::{Call, Named, Pending};
use crate::api::{ApiError, RequiredAcks};
use crate::kafka::{self, LeaderHint, LeaderHints, NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};
use crate::limits::ShardLimits;
use crate::message::Message;
use crate::meta::Topic;
use crate::meta::configs::TopicConfig;
use crate::partition::{
    AppendFailure, AppendOutcome, AppendedAt, BatchBytes, CheckJob, OwnedBatch, ParsedBatch, Unchecked,
    parse_batch,
};
use crate::reply_to::{ReplyTo, RequestBatch, RequestId};
use crate::session::RequestBytes;
use crate::shard::Shard;

/// The first version in which batches may be compressed with zstd.
const ZSTD_VERSION_MIN: i16 = 7;

/// A request whose batches are being checked or appended.
pub(in crate::shard) struct ProducePending {
    call: Call,
    /// Bytes charged for the request until all outcomes are known, even if its connection is closed: its batches may be on their way to another
    /// shard or wait for space there.
    held: usize,
    /// Whether there is no response (acks 0).
    silent: bool,
    /// Topics, each with the number of its entries in `partitions`.
    topics: Vec<(Named, usize)>,
    partitions: Vec<PartitionOutcome>,
    /// Number of batches without an outcome.
    missing: usize,
}

impl ProducePending {
    /// Returns its connection and the bytes charged for it.
    pub(super) fn charged(&self) -> (ConnId, usize) {
        (self.call.conn, self.held)
    }
}

/// The outcome of the batch for one partition.
struct PartitionOutcome {
    /// The index of its topic.
    topic: usize,
    index: i32,
    /// The idempotent producer, if the batch has one.
    producer: Option<BatchProducer>,
    produced: Option<BatchResult>,
    /// The rejected records, with the reason for each.
    rejected: Vec<(u32, String)>,
}

/// The outcome of a batch for the client.
type BatchResult = Result<AppendedAt, RequestError>;

/// Why a batch is refused, for the client.
type RequestError = (KafkaError, String);

/// A batch for a known partition.
struct RoutedBatch<'a> {
    topic: Arc<Topic>,
    target: (TopicPartition, ShardIndex),
    batch: ParsedBatch<'a>,
}

impl Shard {
    /// Handles a request that is charged with `held` bytes of memory.
    pub(super) fn kafka_produce(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: Produce<'_>,
        held: usize,
    ) {
        let acks = match request.acks {
            _ if request.transactional_id.is_some() => Err((NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT.into())),
            0 => Ok(RequiredAcks::None),
            1 => Ok(RequiredAcks::Leader),
            -1 => Ok(RequiredAcks::All),
            acks => {
                Err((KafkaError::INVALID_REQUIRED_ACKS, format!("invalid acks {acks}: must be 0, 1 or -1")))
            }
        };
        let (silent, missing) = (request.acks == 0, request.partitions.len());
        let mut topics: Vec<(Named, usize)> = Vec::new();
        let (mut partitions, mut routed) = (Vec::with_capacity(missing), Vec::with_capacity(missing));
        let mut last = None;
        for to in request.partitions {
            if last.replace((to.topic, to.topic_id)) != Some((to.topic, to.topic_id)) {
                topics.push((self.kafka_topic(to.topic, to.topic_id), 0));
            }
            let (named, count) = topics.last_mut().expect("a topic was added for the first partition");
            *count += 1;
            let index = to.index;
            let (producer, batch) = match &acks {
                Ok(_) => self.route_batch(call, named, to),
                Err(refused) => (None, Err(refused.clone())),
            };
            routed.push(batch);
            let topic = topics.len() - 1;
            partitions.push(PartitionOutcome {
                topic,
                index,
                producer,
                produced: None,
                rejected: Vec::new(),
            });
        }
        let pending = ProducePending { call, held, silent, topics, partitions, missing };
        if missing == 0 {
            return self.finish_produce(&pending);
        }
        if let Some(connection) = self.connections.get_mut(&call.conn) {
            connection.producing += held;
        }
        let id = self.kafka_wait(Pending::Produce(pending));
        let wall_ms = plane.wall_clock_ms();
        let mut batches = VecDeque::with_capacity(missing);
        for (number, routed) in (0..).zip(routed) {
            match routed {
                Err(refused) => self.set_result(id, number, Err(refused)),
                Ok(RoutedBatch { topic, target, batch }) => {
                    let reply_to = ReplyTo::Kafka(RequestBatch { shard: self.me, request: id, number });
                    let limits = &self.setup.limits;
                    batches.push_back(Unchecked::new(
                        target,
                        reply_to,
                        batch,
                        &topic.config,
                        limits,
                        wall_ms,
                    ));
                }
            }
        }
        // If the acks are invalid, there is no batch.
        let acks = acks.unwrap_or(RequiredAcks::None);
        if let Some(job) = CheckJob::of_many(call.conn, acks, batches) {
            self.partitions.produce(plane, job, self.setup.limits.check_work_at_once, wall_ms);
            self.route_partition_events(plane);
        }
    }

    /// Finds the partition of a batch, and checks that no other batch has to be appended first. Also returns the batch's producer, if the batch
    /// could be parsed.
    fn route_batch<'a>(
        &mut self,
        call: Call,
        named: &Named,
        to: ProduceTo<'a>,
    ) -> (Option<BatchProducer>, Result<RoutedBatch<'a>, RequestError>) {
        let target = self.kafka_target(named, to.index);
        let known = named.known().ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        let (topic, target) = match known.and_then(|topic| Ok((Arc::clone(topic), target?))) {
            Ok(found) => found,
            Err(error) => {
                let text = "unknown topic or partition".to_owned();
                return (self.producer_of(to.records), Err((error, text)));
            }
        };
        if let Err(error) = topic.check_writable() {
            return (None, Err(kafka::append_error(&AppendFailure::Api(error))));
        }
        let batch = match batch_of(to.records, call.version(), &topic.config, &self.setup.limits) {
            Ok(batch) => batch,
            Err(refused) => return (None, Err(refused)),
        };
        let producer = batch.header().producer();
        if let Err(sequence) = self.kafka.unrouted.pass(call.conn, &topic.name, to.index, producer) {
            let error = ApiError::EarlierBatchRejected { sequence };
            return (producer, Err(kafka::append_error(&AppendFailure::Api(error))));
        }
        (producer, Ok(RoutedBatch { topic, target, batch }))
    }

    /// Returns the idempotent producer of a batch that cannot be appended.
    fn producer_of(&self, records: Records<'_>) -> Option<BatchProducer> {
        let bytes = bytes_of(records, &self.setup.limits).ok()?;
        ParsedBatch::parse(bytes).ok()?.header().producer()
    }

    /// Handles the outcome of a batch.
    pub(in crate::shard) fn on_produced(&mut self, request: RequestId, number: u32, outcome: AppendOutcome) {
        let produced = outcome.map_err(|failure| {
            if let AppendFailure::Records(records) = &failure {
                self.note_rejected(request, number, records.reasons().collect());
            }
            kafka::append_error(&failure)
        });
        self.set_result(request, number, produced);
    }

    /// Notes the rejected records of a batch, for the response.
    fn note_rejected(&mut self, request: RequestId, number: u32, rejected: Vec<(u32, String)>) {
        if let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request)
            && let Some(outcome) = pending.partitions.get_mut(number as usize)
        {
            outcome.rejected = rejected;
        }
    }

    fn set_result(&mut self, request: RequestId, number: u32, produced: BatchResult) {
        let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request) else { return };
        let Some(outcome) = pending.partitions.get_mut(number as usize) else { return };
        let mut decided = None;
        if let Some(producer) = outcome.producer
            && let Some((topic, _)) = pending.topics.get(outcome.topic)
        {
            let conn = pending.call.conn;
            match &produced {
                Err((KafkaError::UNKNOWN_TOPIC_OR_PARTITION, _)) if self.connections.contains_key(&conn) => {
                    self.kafka.unrouted.note_rejected(conn, topic.name(), outcome.index, producer);
                }
                Err((error, _)) if kafka::producers_retry(*error) => {}
                // It will not be sent again. It may have been noted when its topic was deleted.
                _ => {
                    let is_noted = self.kafka.unrouted.settle(conn, topic.name(), outcome.index, producer);
                    decided = topic.known().filter(|_| is_noted).map(|topic| topic.id);
                }
            }
        }
        outcome.produced = Some(produced);
        pending.missing -= 1;
        let missing = pending.missing;
        if let Some(topic) = decided {
            self.note_undecided(topic);
        }
        if missing == 0
            && let Some(Pending::Produce(pending)) = self.kafka.pending.remove(&request)
        {
            self.uncharge_produce(&pending);
            self.finish_produce(&pending);
        }
    }

    /// Notes the batches without an outcome of a topic that was deleted as unrouted until their outcomes are known. A topic of the same name may
    /// be created before that, and must not get later batches of the same producers. Returns the number of requests that were examined.
    pub(in crate::shard) fn note_undecided(&mut self, topic: TopicId) -> usize {
        // Requests are numbered in order of arrival, so the first batch of each producer is noted first.
        for pending in self.kafka.pending.values() {
            let Pending::Produce(produce) = pending else { continue };
            let conn = produce.call.conn;
            if !self.connections.contains_key(&conn) {
                continue;
            }
            let is_of = |named: &Named| named.known().is_some_and(|known| known.id == topic);
            if !produce.topics.iter().any(|(named, _)| is_of(named)) {
                continue;
            }
            for outcome in produce.partitions.iter().filter(|outcome| outcome.produced.is_none()) {
                if let Some(producer) = outcome.producer
                    && let Some((named, _)) = produce.topics.get(outcome.topic)
                    && is_of(named)
                {
                    self.kafka.unrouted.note_rejected(conn, named.name(), outcome.index, producer);
                }
            }
        }
        self.kafka.pending.len()
    }

    /// Drops a batch whose connection is closed or closing: nobody waits for its outcome.
    pub(in crate::shard) fn abandon_batch(&mut self, request: RequestId) {
        let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request) else { return };
        pending.missing -= 1;
        if pending.missing == 0
            && let Some(Pending::Produce(pending)) = self.kafka.pending.remove(&request)
        {
            self.uncharge_produce(&pending);
        }
    }

    /// Releases the memory of a request whose batches all have outcomes.
    fn uncharge_produce(&mut self, pending: &ProducePending) {
        let (conn, held) = pending.charged();
        match self.connections.get_mut(&conn) {
            Some(connection) => connection.producing -= held,
            None => {
                self.admission.recharge(
                    RequestBytes { whole: held, ..RequestBytes::default() },
                    RequestBytes::default(),
                );
            }
        }
    }

    fn finish_produce(&mut self, pending: &ProducePending) {
        let refused =
            pending.partitions.iter().filter(|outcome| matches!(outcome.produced, Some(Err(_)))).count();
        self.counted.requests_failed += u64::from(refused > 0);
        if pending.silent {
            self.kafka_reply(pending.call, KafkaReply::nothing());
            if refused > 0 {
                self.kafka_close(pending.call);
            }
            return;
        }
        let is_elsewhere = |outcome: &PartitionOutcome| match &outcome.produced {
            Some(Err((error, _))) => LeaderHints::are_for(*error),
            _ => false,
        };
        let any_elsewhere = pending.partitions.iter().any(is_elsewhere);
        let mut hints = if any_elsewhere { self.leader_hints(pending.call.conn) } else { None };
        let mut partitions = pending.partitions.iter();
        let topics = pending.topics.iter().map(|(topic, count)| {
            let answers = partitions.by_ref().take(*count).map(|outcome| {
                let mut answer = answer_of(outcome);
                let hints = hints.as_mut();
                let leader = hints.and_then(|hints| hints.find(topic, answer.index, answer.error_code));
                if let Some(LeaderHint { node: leader_id, epoch: leader_epoch }) = leader {
                    answer.current_leader = ProduceLeader { leader_id, leader_epoch };
                }
                answer
            });
            ProduceTopicResponse {
                name: Cow::Borrowed(topic.name()),
                topic_id: topic.id(),
                partition_responses: answers.collect(),
            }
        });
        let responses = topics.collect();
        let nodes = hints.into_iter().flat_map(LeaderHints::into_nodes).map(|node| ProduceNode {
            node_id: node.id.0 as i32,
            host: Cow::Owned(node.address.host),
            port: node.address.port.into(),
            rack: node.rack.map(Cow::Owned),
        });
        let response = ProduceResponse { responses, node_endpoints: nodes.collect(), ..Default::default() };
        self.kafka_answer(pending.call, &response);
    }
}

fn answer_of(outcome: &PartitionOutcome) -> ProducePartitionResponse<'_> {
    let (error_code, at, text) = match &outcome.produced {
        Some(Ok(at)) => (KafkaError::NONE, *at, None),
        Some(Err((error, text))) => (*error, NOT_APPENDED, Some(Cow::Borrowed(&text[..]))),
        None => unreachable!("the response is built after all outcomes are known"),
    };
    let record_errors = outcome.rejected.iter().map(|(number, why)| ProduceRecordError {
        batch_index: *number as i32,
        batch_index_error_message: Some(Cow::Borrowed(why)),
    });
    ProducePartitionResponse {
        index: outcome.index,
        error_code,
        record_errors: record_errors.collect(),
        base_offset: at.base_offset.0,
        log_append_time_ms: at.log_append_time.0,
        log_start_offset: at.log_start.0,
        error_message: text,
        ..Default::default()
    }
}

/// Parses the batch in a request's bytes.
fn batch_of<'a>(
    records: Records<'a>,
    version: i16,
    config: &TopicConfig,
    limits: &ShardLimits,
) -> Result<ParsedBatch<'a>, RequestError> {
    let bytes = bytes_of(records, limits)?;
    let batch = parse_batch(bytes, config).map_err(|failure| kafka::append_error(&failure))?;
    if version < ZSTD_VERSION_MIN && batch.header().compression() == Some(Compression::Zstd) {
        let text = format!("zstd requires version {ZSTD_VERSION_MIN} or later of Produce, not {version}");
        return Err((KafkaError::UNSUPPORTED_COMPRESSION_TYPE, text));
    }
    Ok(batch)
}

/// Returns the bytes of a batch that is not too large.
fn bytes_of<'a>(records: Records<'a>, limits: &ShardLimits) -> Result<BatchBytes<'a>, RequestError> {
    match records {
        Records::Null => {
            let text = "a partition needs exactly one record batch, and the request has none";
            Err((KafkaError::INVALID_RECORD, text.into()))
        }
        Records::Batch(Batch::TooLarge { bytes }) => {
            let max = limits.batch_bytes_max;
            Err(kafka::append_error(&AppendFailure::TooLargeForBroker { bytes, max }))
        }
        Records::Batch(Batch::Small(bytes)) => Ok(BatchBytes::Borrowed(bytes)),
        Records::Batch(Batch::Bulk { pages, batch_bytes }) => {
            Ok(BatchBytes::Owned(OwnedBatch::Bulk { pages, batch_bytes }))
        }
    }
}

/// The position of a batch that was not appended.
const NOT_APPENDED: AppendedAt =
    AppendedAt { base_offset: Offset(-1), log_append_time: NO_TIMESTAMP, log_start: Offset(-1) };
