//! Metadata: the node and its topics, made on the way if they are asked for and may be.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic,
};
use highwater_net::{Entries, Pieces, Reply};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::CreateTopicRequest;
use highwater_protocol::topic::{is_reserved_topic_name, validate_topic_name};
use highwater_runtime::plane::Plane;

use super::topics::distinct;
use super::{Call, Named};
use crate::limits::{KAFKA_CHANGES_PER_REQUEST_MAX, PARTITIONS_PER_PART};
use crate::message::{Answer, Ask, Message};
use crate::metadata::{Epochs, Topic};
use crate::shard::Shard;
use crate::shard::long_answers::AnswerTo;

/// What was asked: a name or an id, and why there is none.
struct Wanted {
    name: Option<String>,
    id: [u8; 16],
    error: Option<KafkaError>,
}

impl Shard {
    pub(super) fn kafka_metadata(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &MetadataRequest<'_>,
    ) {
        let asked = match &request.topics {
            None => return self.tell_metadata(call, None),
            Some(topics) if topics.is_empty() && call.version() == 0 => {
                return self.tell_metadata(call, None);
            }
            Some(topics) => topics,
        };
        // What is asked for is a set: the answer for a topic is many times as long as its name.
        let asked = distinct(asked.iter().map(|topic| (topic.name, topic.topic_id)));
        let mut topics: Vec<Wanted> =
            asked.map(|(name, id)| Wanted { name: name.map(str::to_owned), id, error: None }).collect();
        let may_create = request.allow_auto_topic_creation && self.setup.kafka.auto_create_topics;
        let (mut made, mut asks) = (Vec::new(), Vec::new());
        for (number, wanted) in topics.iter_mut().enumerate() {
            let Some(name) = wanted.name.as_deref().filter(|_| wanted.id == [0; 16]) else { continue };
            if validate_topic_name(name).is_err() {
                wanted.error = Some(KafkaError::INVALID_TOPIC_EXCEPTION);
            } else if may_create
                && !is_reserved_topic_name(name)
                && matches!(self.kafka_topic(name, [0; 16]), Named::Unknown { .. })
            {
                if made.len() == KAFKA_CHANGES_PER_REQUEST_MAX {
                    // Its client is told that there is none, and asks again.
                    continue;
                }
                tracing::info!(topic = name, "creating a topic that a Kafka client asked for");
                made.push(number);
                asks.push(Ask::CreateTopic(CreateTopicRequest {
                    name: name.to_owned(),
                    partitions: self.setup.kafka.default_partitions,
                    configs: Vec::new(),
                    validate_only: false,
                }));
            }
        }
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            for (number, answer) in made.into_iter().zip(answers) {
                // Somebody else may have been faster.
                if let Answer::Reply(Reply::Error { code, .. }) = answer
                    && code != ErrorCode::TopicExists
                {
                    topics[number].error = Some(code.into());
                }
            }
            shard.tell_metadata(call, Some(topics));
        });
    }

    /// Answers with these topics; none: with all.
    fn tell_metadata(&mut self, call: Call, topics: Option<Vec<Wanted>>) {
        let Some(metadata) = &self.metadata else { return };
        let Some(advertised) = self.advertised_to(call.conn) else { return };
        let topics = match topics {
            None => metadata.listed().iter().cloned().map(Told::Topic).collect(),
            Some(topics) => topics.into_iter().map(|wanted| self.wanted_topic(wanted)).collect(),
        };
        let version = call.version();
        let entries = Topics { version, node: self.kafka_node(), list: topics, epochs: metadata.epochs() };
        let response = MetadataResponse {
            brokers: vec![MetadataBroker {
                node_id: self.kafka_node(),
                host: Cow::Owned(advertised.host),
                port: advertised.port.into(),
                rack: None,
            }],
            cluster_id: Some(Cow::Owned(self.kafka_cluster_id())),
            controller_id: self.kafka_node(),
            ..Default::default()
        };
        let Frame { front, back } = response.frame(version, entries.count());
        self.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, entries, back));
    }

    fn wanted_topic(&self, wanted: Wanted) -> Told {
        let named = self.kafka_topic(wanted.name.as_deref().unwrap_or_default(), wanted.id);
        match (named, wanted.error) {
            (Named::Known(topic), None) => Told::Topic(topic),
            (named, error) => Told::Missing {
                error: error.unwrap_or_else(|| named.missing()),
                name: wanted.name,
                id: wanted.id,
            },
        }
    }
}

/// What is told of a topic.
#[derive(Debug)]
enum Told {
    Topic(Arc<Topic>),
    Missing { error: KafkaError, name: Option<String>, id: [u8; 16] },
}

/// The topics of an answer.
#[derive(Debug)]
struct Topics {
    version: i16,
    node: i32,
    list: Vec<Told>,
    epochs: Arc<Epochs>,
}

impl Entries for Topics {
    fn count(&self) -> usize {
        self.list.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let (topic, head) = match &self.list[entry] {
            Told::Topic(topic) => {
                let name = Some(Cow::Borrowed(&topic.name[..]));
                (topic, MetadataTopic { name, topic_id: topic.id.0, ..Default::default() })
            }
            Told::Missing { error, name, id } => {
                let name = name.as_deref().map(Cow::Borrowed);
                let head = MetadataTopic { error_code: *error, name, topic_id: *id, ..Default::default() };
                head.put_front(self.version, 0, out);
                head.put_back(self.version, out);
                return false;
            }
        };
        if part == 0 {
            head.put_front(self.version, topic.stores.len(), out);
        }
        let mut partition = MetadataPartition {
            error_code: KafkaError::NONE,
            partition_index: 0,
            leader_id: self.node,
            leader_epoch: 0,
            replica_nodes: vec![self.node],
            isr_nodes: vec![self.node],
            offline_replicas: Vec::new(),
        };
        let from = part * PARTITIONS_PER_PART;
        for (tp, _) in topic.partitions_from(from).take(PARTITIONS_PER_PART) {
            partition.partition_index = tp.partition.0 as i32;
            partition.leader_epoch = self.epochs.get(&tp).map_or(0, |epoch| epoch.0);
            partition.put(self.version, out);
        }
        let more = topic.stores.len() > from + PARTITIONS_PER_PART;
        if !more {
            head.put_back(self.version, out);
        }
        more
    }
}
