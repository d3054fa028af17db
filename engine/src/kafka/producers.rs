//! DescribeProducers: the idempotent producers of partitions.
//!
//! They are counted first, so that memory can be reserved: a request of a few bytes can describe very many.

use std::borrow::Cow;

use bytes::BytesMut;
use highwater_net::Entries;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::ShardIndex;
use highwater_storage::ActiveProducer;

use super::Call;
use super::error::{RequestError, request_error};
use super::names::{check_count, find_topic, target};
use crate::api::{FoundProducers, ProducerCounts, Producers};
use crate::calls::FanOut;
use crate::context::{AnswerTo, Context, ReplyMemory};
use crate::limits::PRODUCERS_PER_PART;

/// The producers of a partition of the response, or the error.
#[derive(Debug)]
struct PartitionProducers {
    index: i32,
    found: Result<Vec<ActiveProducer>, (KafkaError, Option<String>)>,
}

/// The topics and partitions of a request.
struct ProducersQuery {
    call: Call,
    topics: Vec<String>,
    /// Each with the index of its topic.
    partitions: Vec<(usize, PartitionProducers)>,
    /// Partitions that exist: the index in `partitions`, the owner, and the maximum number of producers to describe.
    known: Vec<(usize, TopicPartition, ShardIndex, usize)>,
}

pub(super) fn describe_producers(
    context: &mut Context<'_>,
    call: Call,
    request: &DescribeProducersRequest<'_>,
) {
    let count = check_count(request.topics.iter().map(|topic| 1 + topic.partition_indexes.len()).sum());
    let mut query = ProducersQuery { call, topics: Vec::new(), partitions: Vec::new(), known: Vec::new() };
    for topic in &request.topics {
        let named = find_topic(context, topic.name, [0; 16]);
        for index in &topic.partition_indexes {
            let found = match count.clone().and_then(|()| {
                target(context, &named, *index).map_err(|error| -> RequestError { (error, String::new()) })
            }) {
                Ok((tp, owner)) => {
                    query.known.push((query.partitions.len(), tp, owner, 0));
                    Ok(Vec::new())
                }
                Err((error, text)) => Err((error, (!text.is_empty()).then_some(text))),
            };
            query.partitions.push((query.topics.len(), PartitionProducers { index: *index, found }));
        }
        query.topics.push(topic.name.to_owned());
    }
    let mut items = FanOut::new();
    for (_, tp, owner, _) in &query.known {
        items.push(*owner, *tp);
    }
    context.query::<ProducerCounts>(call.conn, items, move |context, counts| {
        let mut all = 0;
        for ((.., max), count) in query.known.iter_mut().zip(counts) {
            let count = count.unwrap_or(0);
            // There may be more by the time they are read.
            *max = count + count / 8 + 1;
            all += *max;
        }
        let bytes = all * 2 * size_of::<ActiveProducer>();
        context.with_reply_memory(AnswerTo::Kafka(call), bytes, move |context, memory| match memory {
            Ok(memory) => read_producers(context, query, memory),
            Err(error) => {
                let (code, text) = request_error(&error);
                let mut query = query;
                for (place, ..) in &query.known {
                    query.partitions[*place].1.found = Err((code, Some(text.clone())));
                }
                answer(context, query, ReplyMemory::small());
            }
        });
    });
}

fn read_producers(context: &mut Context<'_>, mut query: ProducersQuery, memory: ReplyMemory) {
    let mut items = FanOut::new();
    for (_, tp, owner, max) in &query.known {
        items.push(*owner, (*tp, *max));
    }
    context.query::<Producers>(query.call.conn, items, move |context, found| {
        for ((place, ..), found) in query.known.iter().zip(found) {
            query.partitions[*place].1.found = outcome(found);
        }
        answer(context, query, memory);
    });
}

fn outcome(found: Option<FoundProducers>) -> Result<Vec<ActiveProducer>, (KafkaError, Option<String>)> {
    match found {
        Some(Ok(producers)) => Ok(producers),
        Some(Err(error)) => {
            let (code, text) = request_error(&error);
            Err((code, Some(text)))
        }
        None => Err((KafkaError::UNKNOWN_SERVER_ERROR, None)),
    }
}

fn answer(context: &mut Context<'_>, query: ProducersQuery, memory: ReplyMemory) {
    let ProducersQuery { call, topics, partitions, .. } = query;
    let version = call.version();
    let mut all: Vec<Topic> =
        topics.into_iter().map(|name| Topic { name, partitions: Vec::new(), parts: Vec::new() }).collect();
    for (topic, described) in partitions {
        let topic = &mut all[topic];
        let producers = described.found.as_ref().map_or(0, Vec::len).max(1);
        let number = topic.partitions.len();
        topic.parts.extend((0..producers).step_by(PRODUCERS_PER_PART).map(|from| (number, from)));
        topic.partitions.push(described);
    }
    let Frame { front, back } = DescribeProducersResponse::default().frame(version, all.len());
    let pieces = memory.hold(front, Topics { version, topics: all }, back);
    context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
}

/// A topic of the response.
#[derive(Debug)]
struct Topic {
    name: String,
    partitions: Vec<PartitionProducers>,
    /// The index of a partition, and of the first of its producers in this part.
    parts: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Topics {
    version: i16,
    topics: Vec<Topic>,
}

impl Entries for Topics {
    fn count(&self) -> usize {
        self.topics.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let (version, topic) = (self.version, &self.topics[entry]);
        if part == 0 {
            let head = TopicResponse { name: Cow::Borrowed(&topic.name), partitions: Vec::new() };
            head.put_front(version, topic.partitions.len(), out);
        }
        if let Some((partition, from)) = topic.parts.get(part) {
            put_producers(&topic.partitions[*partition], version, *from, out);
        }
        let more = part + 1 < topic.parts.len();
        if !more {
            DescribeProducersResponse::put_back(version, out);
        }
        more
    }

    fn memory_bytes(&self) -> usize {
        // A `ReplyMemory` counts the producers.
        let of = |topic: &Topic| {
            topic.name.len() + size_of_val(&topic.partitions[..]) + size_of_val(&topic.parts[..])
        };
        size_of_val(&self.topics[..]) + self.topics.iter().map(of).sum::<usize>()
    }
}

/// Writes producers of a partition, starting at index `from`.
fn put_producers(described: &PartitionProducers, version: i16, from: usize, out: &mut BytesMut) {
    let producers = described.found.as_ref().map_or(&[][..], Vec::as_slice);
    if from == 0 {
        let mut head = PartitionResponse { partition_index: described.index, ..Default::default() };
        if let Err((code, text)) = &described.found {
            (head.error_code, head.error_message) = (*code, text.as_deref().map(Cow::Borrowed));
        }
        head.put_front(version, producers.len(), out);
    }
    for producer in producers.iter().skip(from).take(PRODUCERS_PER_PART) {
        let state = ProducerState {
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.into(),
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_timestamp.0,
            ..Default::default()
        };
        state.put(version, out);
    }
    if from + PRODUCERS_PER_PART >= producers.len() {
        DescribeProducersResponse::put_back(version, out);
    }
}
