//! Produce on the shard of the connection: batches go to the owners of their partitions, one message to each, and when all have
//! said what became of them the request is answered.

use std::borrow::Cow;
use std::collections::BTreeMap;

use highwater_net::Batch;
use highwater_net::kafka::messages::{ProducePartitionResponse, ProduceResponse, ProduceTopicResponse};
use highwater_net::kafka::produce::{Produce, ProduceTo, Records};
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_protocol::batch::{BatchError, BatchHeader, BatchView, Compression};
use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_protocol::native::Acks;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::append::NOWHERE;
use super::transactions::{NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};
use super::{Call, Named, Pending};
use crate::message::{Append, KafkaMessage, Message, OwnedBatch, Produced, ProducedFor, RequestId};
use crate::shard::Shard;
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
    partitions: Vec<(i32, Option<Produced>)>,
    /// Outcomes that have not come.
    missing: usize,
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
            targets.extend(of.iter().map(|to| self.kafka_target(&named, to.index)));
            topics.push((named, of.len()));
        }
        let partitions = request.partitions.iter().map(|partition| (partition.index, None)).collect();
        let silent = request.acks == 0;
        // One more than there are, so that nothing is answered before all have been handed over.
        let pending = ProducePending { call, silent, topics, partitions, missing: count + 1 };
        let id = self.kafka_wait(Pending::Produce(pending));
        let mut elsewhere: BTreeMap<ShardIndex, Vec<Append>> = BTreeMap::new();
        for (number, (ProduceTo { records, .. }, target)) in
            (0..).zip(request.partitions.into_iter().zip(targets))
        {
            let to = ProducedFor { shard: self.me, request: id, number };
            let checked = acks.clone().and_then(|acks| {
                let (tp, owner) =
                    target.map_err(|error| (error, "there is no such topic or partition".into()))?;
                Ok((acks, tp, owner, check(records, call.version())?))
            });
            match checked {
                Err(refused) => self.on_produced(id, number, Err(refused)),
                Ok((acks, tp, owner, batch)) if owner == self.me => {
                    self.kafka_append(plane, to, tp, acks, batch);
                }
                Ok((acks, tp, owner, batch)) => {
                    let batch = Append { to, tp, acks, batch: batch.into_owned() };
                    elsewhere.entry(owner).or_default().push(batch);
                }
            }
        }
        for (owner, batches) in elsewhere {
            plane.post(owner, Message::Kafka(Box::new(KafkaMessage::Append(batches))));
        }
        self.produced_one_less(id);
    }

    /// What became of a batch.
    pub(super) fn on_produced(&mut self, request: RequestId, number: u32, produced: Produced) {
        if let Some(Pending::Produce(pending)) = self.kafka.pending.get_mut(&request)
            && let Some((_, place)) = pending.partitions.get_mut(number as usize)
        {
            *place = Some(produced);
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
            pending.partitions.iter().filter(|(_, produced)| matches!(produced, Some(Err(_)))).count();
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

fn answer_of((index, produced): &(i32, Option<Produced>)) -> ProducePartitionResponse<'_> {
    let (error_code, at, text) = match produced {
        Some(Ok(at)) => (KafkaError::NONE, *at, None),
        Some(Err((error, text))) => (*error, NOWHERE, Some(Cow::Borrowed(&text[..]))),
        None => unreachable!("an answer is made when all outcomes are there"),
    };
    ProducePartitionResponse {
        index: *index,
        error_code,
        base_offset: at.base_offset,
        log_append_time_ms: at.log_append_time,
        log_start_offset: at.log_start,
        error_message: text,
        ..Default::default()
    }
}

/// What Kafka asks of the bytes beyond what is asked of every batch.
fn check(records: Records<'_>, version: i16) -> Result<AnyBatch<'_>, (KafkaError, String)> {
    let batch = match records {
        Records::Null => {
            return Err((
                KafkaError::INVALID_RECORD,
                "exactly one record batch is expected, not none".into(),
            ));
        }
        Records::TooLarge { bytes } => {
            let text = format!(
                "a batch of {bytes} bytes is over this broker's limit of {BATCH_BYTES_MAX} bytes, whatever the topic's \
                 max.message.bytes"
            );
            return Err((KafkaError::MESSAGE_TOO_LARGE, text));
        }
        Records::Batch(Batch::Small(bytes)) => AnyBatch::Small(bytes),
        Records::Batch(Batch::Bulk { pages, batch_bytes }) => {
            AnyBatch::Owned(OwnedBatch::Bulk { pages, batch_bytes })
        }
    };
    // Retrying does not help against these two, whatever the native protocol calls them.
    if let Err(error @ BatchError::Trailing { .. }) = BatchView::parse(batch.bytes()) {
        return Err((KafkaError::INVALID_RECORD, error.to_string()));
    }
    let header = BatchHeader::parse(batch.bytes());
    if header.as_ref().is_ok_and(|header| header.is_transactional()) {
        return Err((NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT.into()));
    }
    if version < ZSTD_VERSION_MIN && header.is_ok_and(|h| h.compression() == Some(Compression::Zstd)) {
        let text = format!("zstd needs Produce {ZSTD_VERSION_MIN} or newer, not {version}");
        return Err((KafkaError::UNSUPPORTED_COMPRESSION_TYPE, text));
    }
    Ok(batch)
}
