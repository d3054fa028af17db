//! Metadata: the nodes that can be reached, and topics with the leaders of their partitions. Unknown topics are created if the client and the broker allow it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic,
};
use highwater_net::kafka::wire::Uuid;
use highwater_net::{Entries, Pieces};
use highwater_protocol::ids::{NodeId, TopicId};
use highwater_protocol::topic::{is_reserved_topic_name, validate_topic_name};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::cluster::{NO_NODE, cluster_id, node};
use super::names::find_topic;
use crate::api::{ApiError, CreateTopic, Replication};
use crate::context::{AnswerTo, ClientJob, Context};
use crate::counters::Work;
use crate::limits::{KAFKA_CHANGES_PER_REQUEST_MAX, PARTITIONS_PER_PART};
use crate::meta::{Leadership, Listed, NodeProtocol, Topic};
use crate::names::{Distinct, Names};

/// A topic of a request.
#[derive(Debug)]
struct RequestedTopic {
    /// The index of its name.
    name: u32,
    has_name: bool,
    id: Uuid,
    /// The error if it was not found.
    error: KafkaError,
    found: Option<Arc<Topic>>,
}

pub(super) fn metadata(context: &mut Context<'_>, call: Call, request: &MetadataRequest<'_>) {
    let requested = match &request.topics {
        None => return answer_all_topics(context, call),
        Some(topics) if topics.is_empty() && call.version() == 0 => return answer_all_topics(context, call),
        Some(topics) => topics,
    };
    let job = MetadataJob {
        call,
        may_create: request.allow_auto_topic_creation && context.setup.kafka.auto_create_topics,
        names: requested.iter().map(|topic| topic.name.unwrap_or_default()).collect(),
        requested: requested.iter().map(|topic| (topic.name.is_some(), topic.topic_id)).collect(),
        next: 0,
        seen: Distinct::new(requested.len(), || context.plane.random_u64()),
        topics: Vec::new(),
        created: Vec::new(),
        requests: Vec::new(),
    };
    context.begin_job(job);
}

/// Creates missing topics, as far as allowed, and answers.
fn create_topics(context: &mut Context<'_>, job: MetadataJob) {
    let MetadataJob { call, names, mut topics, created, requests, .. } = job;
    context.ask_each(call.conn, requests, move |context, replies| {
        for (number, outcome) in created.into_iter().zip(replies) {
            let topic: &mut RequestedTopic = &mut topics[number];
            let name = names.get(topic.name as usize);
            match outcome {
                // Another client may have created it meanwhile.
                Ok(_) | Err(ApiError::TopicExists(_)) => {
                    topic.found = find_topic(context, name, [0; 16]).known().cloned();
                }
                Err(error) => {
                    // The response has no field for the text.
                    tracing::info!(topic = name, "not created: {error}");
                    topic.error = error.into();
                }
            }
        }
        answer_metadata(context, call, TopicList::Requested(names, topics));
    });
}

/// Answers with all topics.
fn answer_all_topics(context: &mut Context<'_>, call: Call) {
    let Some(metadata) = context.metadata else { return };
    answer_metadata(context, call, TopicList::All(metadata.listed()));
}

/// Answers with these topics.
fn answer_metadata(context: &mut Context<'_>, call: Call, list: TopicList) {
    let Some(nodes) = context.nodes_for(call.conn, NodeProtocol::Kafka) else { return };
    let Some(leadership) = context.leadership() else { return };
    let brokers = nodes.into_iter().filter(|node| !node.is_offline).map(|node| MetadataBroker {
        node_id: node.id.0 as i32,
        host: Cow::Owned(node.address.host),
        port: node.address.port.into(),
        rack: node.rack.map(Cow::Owned),
    });
    let version = call.version();
    let entries = Topics { version, list, leadership };
    let response = MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(Cow::Owned(cluster_id(context))),
        controller_id: node(context),
        ..Default::default()
    };
    let Frame { front, back } = response.frame(version, entries.count());
    context.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, entries, back));
}

/// A request whose topics are being looked up.
struct MetadataJob {
    call: Call,
    may_create: bool,
    /// The requested names; whether each topic has a name, and its id.
    names: Names,
    requested: Vec<(bool, Uuid)>,
    next: usize,
    /// The topics so far. A repeated topic is answered once: its entry is many times as long as its name.
    seen: Distinct,
    topics: Vec<RequestedTopic>,
    /// Indexes of the topics to create, and the requests for them.
    created: Vec<usize>,
    requests: Vec<CreateTopic>,
}

impl ClientJob for MetadataJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over() && self.next < self.requested.len() {
            work.spend(2);
            let n = self.next;
            self.next += 1;
            let Self { names, requested, seen, .. } = self;
            let of = |n: usize| (requested[n], names.get(n));
            if seen.is_new(n, &of(n), |other| of(other) == of(n)) {
                self.look_up(context, n);
            }
        }
        self.next == self.requested.len()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        create_topics(context, *self);
    }
}

impl MetadataJob {
    fn look_up(&mut self, context: &Context<'_>, n: usize) {
        let (has_name, id) = self.requested[n];
        let name = self.names.get(n);
        let named = context.metadata.and_then(|metadata| match id {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => metadata.topic(name),
            id => metadata.topic_by_id(TopicId(id)),
        });
        let error =
            if id == [0; 16] { KafkaError::UNKNOWN_TOPIC_OR_PARTITION } else { KafkaError::UNKNOWN_TOPIC_ID };
        let mut topic = RequestedTopic { name: n as u32, has_name, id, error, found: named.cloned() };
        if has_name && id == [0; 16] {
            if validate_topic_name(name).is_err() {
                (topic.error, topic.found) = (KafkaError::INVALID_TOPIC_EXCEPTION, None);
            } else if self.may_create
                && !is_reserved_topic_name(name)
                && topic.found.is_none()
                // The client gets an error for the others, and retries.
                && self.created.len() < KAFKA_CHANGES_PER_REQUEST_MAX
            {
                tracing::info!(topic = name, "creating a topic for a Kafka client's metadata request");
                self.created.push(self.topics.len());
                self.requests.push(CreateTopic {
                    name: name.to_owned(),
                    partitions: context.setup.kafka.default_partitions,
                    replication: Replication::Default,
                    configs: Vec::new(),
                    validate_only: false,
                });
            }
        }
        self.topics.push(topic);
    }
}

/// The topics to describe.
#[derive(Debug)]
enum TopicList {
    All(Listed),
    Requested(Names, Vec<RequestedTopic>),
}

/// A topic's entry in the response.
enum TopicEntry<'a> {
    Topic(&'a Topic),
    Missing { error: KafkaError, name: Option<&'a str>, id: Uuid },
}

impl TopicList {
    fn get(&self, entry: usize) -> Option<TopicEntry<'_>> {
        match self {
            Self::All(topics) => topics.get(entry).map(|topic| TopicEntry::Topic(topic)),
            Self::Requested(names, topics) => topics.get(entry).map(|topic| topic.entry(names)),
        }
    }
}

impl RequestedTopic {
    fn entry<'a>(&'a self, names: &'a Names) -> TopicEntry<'a> {
        if let Some(topic) = &self.found {
            return TopicEntry::Topic(topic);
        }
        let name = self.has_name.then(|| names.get(self.name as usize));
        TopicEntry::Missing { error: self.error, name, id: self.id }
    }
}

/// Replaces the nodes of a list.
fn set_nodes(list: &mut Vec<i32>, nodes: impl Iterator<Item = NodeId>) {
    list.clear();
    list.extend(nodes.map(|node| node.0 as i32));
}

/// The topics of a response.
#[derive(Debug)]
struct Topics {
    version: i16,
    list: TopicList,
    leadership: Leadership,
}

impl Entries for Topics {
    fn count(&self) -> usize {
        match &self.list {
            TopicList::All(topics) => topics.len(),
            TopicList::Requested(_, topics) => topics.len(),
        }
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let Some(topic_entry) = self.list.get(entry) else { return false };
        let (topic, head) = match topic_entry {
            TopicEntry::Topic(topic) => {
                let name = Some(Cow::Borrowed(&topic.name[..]));
                let (topic_id, is_internal) = (topic.id.0, topic.is_internal());
                (topic, MetadataTopic { name, topic_id, is_internal, ..Default::default() })
            }
            TopicEntry::Missing { error, name, id } => {
                let name = name.map(Cow::Borrowed);
                let head = MetadataTopic { error_code: error, name, topic_id: id, ..Default::default() };
                head.put_front(self.version, 0, out);
                head.put_back(self.version, out);
                return false;
            }
        };
        if part == 0 {
            head.put_front(self.version, topic.partition_count(), out);
        }
        let mut partition = MetadataPartition {
            error_code: KafkaError::NONE,
            partition_index: 0,
            leader_id: 0,
            leader_epoch: 0,
            replica_nodes: Vec::new(),
            isr_nodes: Vec::new(),
            offline_replicas: Vec::new(),
        };
        let from = part * PARTITIONS_PER_PART;
        for (tp, _) in topic.partitions_from(from).take(PARTITIONS_PER_PART) {
            let led = self.leadership.of(topic, tp.partition);
            partition.partition_index = tp.partition.0 as i32;
            (partition.error_code, partition.leader_id) = match led.leader {
                Some(place) => (KafkaError::NONE, place.node.0 as i32),
                None => (KafkaError::LEADER_NOT_AVAILABLE, NO_NODE),
            };
            partition.leader_epoch = led.epoch.0;
            set_nodes(&mut partition.replica_nodes, topic.replicas(tp.partition).iter().copied());
            set_nodes(&mut partition.isr_nodes, led.in_sync.iter().copied());
            set_nodes(&mut partition.offline_replicas, self.leadership.offline(topic, tp.partition));
            partition.put(self.version, out);
        }
        let more = topic.partition_count() > from + PARTITIONS_PER_PART;
        if !more {
            head.put_back(self.version, out);
        }
        more
    }

    fn memory_bytes(&self) -> usize {
        match &self.list {
            TopicList::All(_) => 0,
            TopicList::Requested(names, topics) => names.memory_bytes() + size_of_val(&topics[..]),
        }
    }
}
