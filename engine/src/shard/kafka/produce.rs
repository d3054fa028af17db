//! Produce on the shard of the connection: batches go to the owners of their partitions, one message to each, and when all have
//! said what became of them the request is answered.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use highwater_net::Batch;
use highwater_net::kafka::messages::{
    ProducePartitionResponse, ProduceRecordError, ProduceResponse, ProduceTopicResponse,
};
use highwater_net::kafka::produce::{Produce, ProduceTo, Records};
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_protocol::batch::{
    BatchError, BatchHeader, BatchView, CheckedBatch, Compression, RecordRules, Work,
};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::Acks;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::append::NOWHERE;
use super::{Call, Named, Pending};
use crate::kafka::{NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};
use crate::limits::{CHECK_WORK_PER_BATCH, ShardLimits};
use crate::message::{Append, KafkaMessage, Message, OwnedBatch, Produced, ProducedFor, RequestId};
use crate::meta::Topic;
use crate::meta::configs::TopicConfig;
use crate::shard::Shard;
use crate::shard::checks::{
    OpenCheck, Verdict, Waiting, check_header, over_limit, rejected_because, rejection,
};
use crate::shard::produce::AnyBatch;

/// The first version in which batches may be compressed with zstd.
const ZSTD_VERSION_MIN: i16 = 7;

/// A request whose batches are on their way.
pub(in crate::shard) struct ProducePending {
    call: Call,
    /// Acks 0: there is no answer.
    silent: bool,
    /// Topics, each with how many of `partitions` are of it.
    topics: Vec<(Named, usize)>,
    partitions: Vec<PartitionOutcome>,
    /// Outcomes that have not come.
    missing: usize,
}

/// What became of the batch for one partition.
struct PartitionOutcome {
    index: i32,
    produced: Option<Produced>,
    /// Records that are the reason, and what is wrong with them.
    rejected: Vec<(u32, String)>,
}

/// Batches of a request that have not been handed to the owners of their partitions: the first is being checked.
pub(in crate::shard) struct KafkaCheck<'a> {
    request: RequestId,
    version: i16,
    acks: Acks,
    batches: VecDeque<Unchecked<'a>>,
}

struct Unchecked<'a> {
    /// Its number in the request.
    number: u32,
    topic: Arc<Topic>,
    tp: TopicPartition,
    owner: ShardIndex,
    batch: AnyBatch<'a>,
    check: OpenCheck,
    /// Its header was looked at.
    begun: bool,
}

impl KafkaCheck<'_> {
    /// The check of the first batch. There is one as long as this waits.
    pub(in crate::shard) fn check(&mut self) -> &mut OpenCheck {
        &mut self.batches.front_mut().expect("who waits has a batch to wait for").check
    }

    /// How many there are.
    pub(in crate::shard) fn batches(&self) -> usize {
        self.batches.len()
    }

    fn into_owned(self) -> KafkaCheck<'static> {
        let Self { request, version, acks, batches } = self;
        let batches = batches.into_iter().map(|unchecked| {
            let Unchecked { number, topic, tp, owner, batch, check, begun } = unchecked;
            let batch = AnyBatch::Owned(batch.into_owned());
            Unchecked { number, topic, tp, owner, batch, check, begun }
        });
        KafkaCheck { request, version, acks, batches: batches.collect() }
    }
}

impl Shard {
    pub(super) fn kafka_produce(&mut self, plane: &mut dyn Plane<Message>, call: Call, request: Produce<'_>) {
        let acks = match request.acks {
            _ if request.transactional_id.is_some() => Err((NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT.into())),
            0 => Ok(Acks::None),
            1 => Ok(Acks::Leader),
            -1 => Ok(Acks::All),
            acks => {
                Err((KafkaError::INVALID_REQUIRED_ACKS, format!("acks {acks}; 0, 1 and -1 are possible")))
            }
        };
        let count = request.partitions.len();
        let mut topics = Vec::new();
        let mut targets = Vec::with_capacity(count);
        let same = |a: &ProduceTo<'_>, b: &ProduceTo<'_>| a.topic == b.topic && a.topic_id == b.topic_id;
        for of in request.partitions.chunk_by(same) {
            let named = self.kafka_topic(of[0].topic, of[0].topic_id);
            targets.extend(of.iter().map(|to| {
                let (tp, owner) = self.kafka_target(&named, to.index)?;
                let topic = named.known().ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?;
                Ok((Arc::clone(topic), tp, owner))
            }));
            topics.push((named, of.len()));
        }
        let outcome =
            |to: &ProduceTo<'_>| PartitionOutcome { index: to.index, produced: None, rejected: Vec::new() };
        let partitions = request.partitions.iter().map(outcome).collect();
        let silent = request.acks == 0;
        // One more than there are, so that nothing is answered before all have been handed over.
        let pending = ProducePending { call, silent, topics, partitions, missing: count + 1 };
        let id = self.kafka_wait(Pending::Produce(pending));
        let wall_ms = plane.wall_clock_ms();
        let mut batches = VecDeque::with_capacity(count);
        for (number, (ProduceTo { records, .. }, target)) in
            (0..).zip(request.partitions.into_iter().zip(targets))
        {
            let unchecked = acks.clone().and_then(|_| {
                let (topic, tp, owner) = target
                    .map_err(|error: KafkaError| (error, "there is no such topic or partition".to_owned()))?;
                let batch = batch_of(records, &self.setup.limits)?;
                let check = OpenCheck::new(&topic.config, &self.setup.limits, wall_ms);
                Ok(Unchecked { number, topic, tp, owner, batch, check, begun: false })
            });
            match unchecked {
                Err(refused) => self.on_produced(id, number, Err(refused)),
                Ok(unchecked) => batches.push_back(unchecked),
            }
        }
        let mut work = self.checks.work_on_arrival(self.setup.limits.check_work_at_once);
        let before = work;
        // Where they are not valid there is no batch.
        let acks = acks.unwrap_or(Acks::None);
        let check = KafkaCheck { request: id, version: call.version(), acks, batches };
        let left = self.check_kafka(plane, check, &mut work);
        self.checks.note_arrival(before - work);
        if let Some(left) = left {
            self.checks.wait(call.conn, Waiting::Kafka(left));
        }
    }

    /// Goes on with the checks of a request's batches, and hands those that are done to the owners of their partitions. Gives back the
    /// others.
    pub(in crate::shard) fn check_kafka(
        &mut self,
        plane: &mut dyn Plane<Message>,
        mut kafka: KafkaCheck<'_>,
        work: &mut Work,
    ) -> Option<KafkaCheck<'static>> {
        let (request, version, acks) = (kafka.request, kafka.version, kafka.acks);
        let mut elsewhere: BTreeMap<ShardIndex, Vec<Append>> = BTreeMap::new();
        while let Some(unchecked) = kafka.batches.pop_front() {
            if *work == 0 {
                kafka.batches.push_front(unchecked);
                break;
            }
            let Unchecked { number, topic, tp, owner, batch, check, begun } = unchecked;
            if !begun {
                *work = work.saturating_sub(CHECK_WORK_PER_BATCH);
                if let Err(refused) = check_batch(batch.bytes(), version, &topic.config) {
                    self.on_produced(request, number, Err(refused));
                    continue;
                }
            }
            match self.checks.step(check, batch.bytes(), work) {
                Verdict::Open(check) => {
                    let unchecked = Unchecked { number, topic, tp, owner, batch, check, begun: true };
                    kafka.batches.push_front(unchecked);
                    break;
                }
                Verdict::Good(checked) => {
                    let to = ProducedFor { shard: self.me, request, number };
                    if owner == self.me {
                        self.kafka_append(plane, to, tp, acks, batch, checked);
                    } else {
                        let batch = Append { to, tp, acks, batch: batch.into_owned(), checked };
                        elsewhere.entry(owner).or_default().push(batch);
                    }
                }
                Verdict::Rejected(checked, rules) => {
                    let (code, text) = rejection(&checked, &rules);
                    self.note_rejected(request, number, &checked, &rules);
                    self.on_produced(request, number, Err((code.into(), text)));
                }
                Verdict::Bad(error) => {
                    let code = match error {
                        BatchError::Codec(_) => KafkaError::UNSUPPORTED_COMPRESSION_TYPE,
                        error => error.code().into(),
                    };
                    self.on_produced(request, number, Err((code, error.to_string())));
                }
            }
        }
        for (owner, batches) in elsewhere {
            plane.post(owner, Message::Kafka(Box::new(KafkaMessage::Append(batches))));
        }
        if !kafka.batches.is_empty() {
            return Some(kafka.into_owned());
        }
        self.produced_one_less(request);
        None
    }

    /// Some of a batch's records are refused: their producer hears which.
    fn note_rejected(
        &mut self,
        request: RequestId,
        number: u32,
        checked: &CheckedBatch,
        rules: &RecordRules,
    ) {
        if let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request)
            && let Some(outcome) = pending.partitions.get_mut(number as usize)
        {
            let told = checked.rejected.iter().map(|record| (record.number, rejected_because(record, rules)));
            outcome.rejected = told.collect();
        }
    }

    /// Nobody waits for a request any more of which some batches have not been appended.
    pub(in crate::shard) fn forget_kafka_produce(&mut self, kafka: &KafkaCheck<'static>) {
        self.kafka.pending.remove(&kafka.request);
    }

    /// What became of a batch.
    pub(super) fn on_produced(&mut self, request: RequestId, number: u32, produced: Produced) {
        if let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request)
            && let Some(outcome) = pending.partitions.get_mut(number as usize)
        {
            outcome.produced = Some(produced);
            self.produced_one_less(request);
        }
    }

    fn produced_one_less(&mut self, request: RequestId) {
        let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request) else { return };
        pending.missing -= 1;
        if pending.missing > 0 {
            return;
        }
        if let Some(Pending::Produce(pending)) = self.kafka.pending.remove(&request) {
            self.finish_produce(&pending);
        }
    }

    fn finish_produce(&mut self, pending: &ProducePending) {
        let refused =
            pending.partitions.iter().filter(|outcome| matches!(outcome.produced, Some(Err(_)))).count();
        self.counted.requests_refused += u64::from(refused > 0);
        if pending.silent {
            self.kafka_reply(pending.call, KafkaReply::nothing());
            if refused > 0 {
                self.kafka_end(pending.call);
            }
            return;
        }
        let mut partitions = pending.partitions.iter();
        let topics = pending.topics.iter().map(|(topic, count)| ProduceTopicResponse {
            name: Cow::Borrowed(topic.name()),
            topic_id: topic.id(),
            partition_responses: partitions.by_ref().take(*count).map(answer_of).collect(),
        });
        let response = ProduceResponse { responses: topics.collect(), ..Default::default() };
        self.kafka_answer(pending.call, &response);
    }
}

fn answer_of(outcome: &PartitionOutcome) -> ProducePartitionResponse<'_> {
    let (error_code, at, text) = match &outcome.produced {
        Some(Ok(at)) => (KafkaError::NONE, *at, None),
        Some(Err((error, text))) => (*error, NOWHERE, Some(Cow::Borrowed(&text[..]))),
        None => unreachable!("an answer is made when all outcomes are there"),
    };
    let record_errors = outcome.rejected.iter().map(|(number, why)| ProduceRecordError {
        batch_index: *number as i32,
        batch_index_error_message: Some(Cow::Borrowed(why)),
    });
    ProducePartitionResponse {
        index: outcome.index,
        error_code,
        record_errors: record_errors.collect(),
        base_offset: at.base_offset,
        log_append_time_ms: at.log_append_time,
        log_start_offset: at.log_start,
        error_message: text,
        ..Default::default()
    }
}

/// The batch in a request's bytes. Nothing of it is looked at.
fn batch_of<'a>(records: Records<'a>, limits: &ShardLimits) -> Result<AnyBatch<'a>, (KafkaError, String)> {
    Ok(match records {
        Records::Null => {
            return Err((
                KafkaError::INVALID_RECORD,
                "exactly one record batch is expected, not none".into(),
            ));
        }
        Records::Batch(Batch::TooLarge { bytes }) => {
            let (code, text) = over_limit(bytes, limits);
            return Err((code.into(), text));
        }
        Records::Batch(Batch::Small(bytes)) => AnyBatch::Small(bytes),
        Records::Batch(Batch::Bulk { pages, batch_bytes }) => {
            AnyBatch::Owned(OwnedBatch::Bulk { pages, batch_bytes })
        }
    })
}

/// Whether bytes look like a batch that may be appended; its records are looked at later.
fn check_batch(batch: &[u8], version: i16, config: &TopicConfig) -> Result<(), (KafkaError, String)> {
    // Retrying does not help against these two, whatever the native protocol calls them.
    if let Err(error @ BatchError::Trailing { .. }) = BatchView::parse(batch) {
        return Err((KafkaError::INVALID_RECORD, error.to_string()));
    }
    let header = BatchHeader::parse(batch);
    if header.as_ref().is_ok_and(|header| header.is_transactional()) {
        return Err((NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT.into()));
    }
    if version < ZSTD_VERSION_MIN && header.is_ok_and(|h| h.compression() == Some(Compression::Zstd)) {
        let text = format!("zstd needs Produce {ZSTD_VERSION_MIN} or newer, not {version}");
        return Err((KafkaError::UNSUPPORTED_COMPRESSION_TYPE, text));
    }
    check_header(batch, config).map_err(|(code, text)| (code.into(), text))
}
