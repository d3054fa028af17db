//! Metadata: the node and its topics, made on the way if they are asked for and may be.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic,
};
use highwater_net::kafka::wire::Uuid;
use highwater_net::{Entries, Pieces};
use highwater_protocol::topic::{is_reserved_topic_name, validate_topic_name};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::cluster::{cluster_id, node};
use super::names::find_topic;
use crate::api::{ApiError, CreateTopic};
use crate::limits::{KAFKA_CHANGES_PER_REQUEST_MAX, PARTITIONS_PER_PART};
use crate::meta::{Epochs, Topic};
use crate::shard::{AnswerTo, ClientJob, Context, Work};

/// What was asked: a name or an id, the topic, and why there is none if there is none.
struct Wanted {
    name: Option<String>,
    id: Uuid,
    error: KafkaError,
    found: Option<Arc<Topic>>,
}

pub(super) fn metadata(context: &mut Context<'_>, call: Call, request: &MetadataRequest<'_>) {
    let asked = match &request.topics {
        None => return tell_metadata(context, call, None),
        Some(topics) if topics.is_empty() && call.version() == 0 => {
            return tell_metadata(context, call, None);
        }
        Some(topics) => topics,
    };
    let named = asked.iter().map(|topic| (topic.name.map(str::to_owned), topic.topic_id));
    let named: Vec<_> = named.collect();
    let naming = Naming {
        call,
        may_create: request.allow_auto_topic_creation && context.setup.kafka.auto_create_topics,
        named: named.into_iter(),
        seen: BTreeSet::new(),
        topics: Vec::new(),
        made: Vec::new(),
        requests: Vec::new(),
    };
    context.begin_job(naming);
}

/// Topics are looked up: those that are not there are made, if they may be, and then all are told of.
fn make_topics(context: &mut Context<'_>, naming: &mut Naming) {
    let (mut topics, made) = (std::mem::take(&mut naming.topics), std::mem::take(&mut naming.made));
    let (call, requests) = (naming.call, std::mem::take(&mut naming.requests));
    context.ask_each(call.conn, requests, move |context, replies| {
        for (number, created) in made.into_iter().zip(replies) {
            let topic = &mut topics[number];
            match created {
                // Another client may have been faster.
                Ok(_) | Err(ApiError::TopicExists(_)) => {
                    let name = topic.name.as_deref().unwrap_or_default();
                    topic.found = find_topic(context, name, [0; 16]).known().cloned();
                }
                Err(error) => {
                    // The response has no field for the text.
                    tracing::info!(topic = topic.name, "not created: {error}");
                    topic.error = error.into();
                }
            }
        }
        tell_metadata(context, call, Some(topics));
    });
}

/// Answers with these topics; none: with all.
fn tell_metadata(context: &mut Context<'_>, call: Call, topics: Option<Vec<Wanted>>) {
    let Some(metadata) = context.metadata else { return };
    let Some(advertised) = context.advertised_to(call.conn) else { return };
    let topics = match topics {
        None => metadata.listed().iter().cloned().map(Told::Topic).collect(),
        Some(topics) => topics.into_iter().map(Told::from).collect(),
    };
    let version = call.version();
    let entries = Topics { version, node: node(context), list: topics, epochs: metadata.epochs() };
    let response = MetadataResponse {
        brokers: vec![MetadataBroker {
            node_id: node(context),
            host: Cow::Owned(advertised.host),
            port: advertised.port.into(),
            rack: None,
        }],
        cluster_id: Some(Cow::Owned(cluster_id(context))),
        controller_id: node(context),
        ..Default::default()
    };
    let Frame { front, back } = response.frame(version, entries.count());
    context.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, entries, back));
}

/// Topics that are looked up.
struct Naming {
    call: Call,
    may_create: bool,
    named: IntoIter<(Option<String>, Uuid)>,
    /// What is asked for is a set: the answer for a topic is many times as long as its name.
    seen: BTreeSet<(Option<String>, Uuid)>,
    topics: Vec<Wanted>,
    /// Which of these are to be made, and what is asked for that.
    made: Vec<usize>,
    requests: Vec<CreateTopic>,
}

impl ClientJob for Naming {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn go_on(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over()
            && let Some(named) = self.named.next()
        {
            work.spend(2);
            if !self.seen.contains(&named) {
                self.seen.insert(named.clone());
                self.look_up(context, named);
            }
        }
        self.named.len() == 0
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        make_topics(context, self);
    }
}

impl Naming {
    fn look_up(&mut self, context: &Context<'_>, (name, id): (Option<String>, Uuid)) {
        let named = find_topic(context, name.as_deref().unwrap_or_default(), id);
        let mut wanted = Wanted { name, id, error: named.missing(), found: named.known().cloned() };
        let by_name = wanted.name.as_deref().filter(|_| id == [0; 16]);
        if let Some(name) = by_name {
            if validate_topic_name(name).is_err() {
                (wanted.error, wanted.found) = (KafkaError::INVALID_TOPIC_EXCEPTION, None);
            } else if self.may_create
                && !is_reserved_topic_name(name)
                && wanted.found.is_none()
                // Of the others its client is told that there is none, and asks again.
                && self.made.len() < KAFKA_CHANGES_PER_REQUEST_MAX
            {
                tracing::info!(topic = name, "creating a topic that a Kafka client asked for");
                self.made.push(self.topics.len());
                self.requests.push(CreateTopic {
                    name: name.to_owned(),
                    partitions: context.setup.kafka.default_partitions,
                    configs: Vec::new(),
                    validate_only: false,
                });
            }
        }
        self.topics.push(wanted);
    }
}

impl From<Wanted> for Told {
    fn from(wanted: Wanted) -> Self {
        let Wanted { name, id, error, found } = wanted;
        found.map_or(Self::Missing { error, name, id }, Self::Topic)
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
