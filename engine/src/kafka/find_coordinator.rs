//! FindCoordinator: the coordinator of a group is the leader of the partition that keeps it.

use std::sync::Arc;

use bytes::BytesMut;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{FindCoordinatorRequest, FindCoordinatorResponse, FoundCoordinator};
use highwater_net::kafka::schema::Message as KafkaBody;
use highwater_net::kafka::wire::Wire;
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_net::{Entries, Pieces};
use highwater_protocol::ids::PartitionIndex;
use highwater_protocol::topic::GROUPS_TOPIC;
use highwater_runtime::plane::ConnId;

use super::Call;
use super::cluster::NO_NODE;
use super::transactions::{NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};
use crate::address::HostPort;
use crate::context::{AnswerTo, ClientJob, Context, ReachableNode};
use crate::coord::groups::limits::GROUPS_MAX;
use crate::coord::placement::partition_of_group;
use crate::counters::Work;
use crate::meta::{Leadership, NodeProtocol, Topic};
use crate::names::{Distinct, Names};

/// Kafka's codes for types of keys.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;

/// The first version with several groups in a request.
const KEYS_FROM: i16 = 4;

/// Where the coordinators of groups are.
#[derive(Debug)]
enum Places {
    /// The same for every key.
    All(Coordinator),
    /// On the node that leads the partition of the group.
    OfGroups { topic: Arc<Topic>, leadership: Leadership, nodes: Vec<ReachableNode> },
}

/// The coordinator of a group.
#[derive(Clone, Debug)]
struct Coordinator {
    node: i32,
    host: String,
    port: i32,
    error: KafkaError,
    text: Option<&'static str>,
}

impl Coordinator {
    fn at(node: &ReachableNode) -> Self {
        let HostPort { host, port } = node.address.clone();
        let (node, port) = (node.id.0 as i32, port.into());
        Self { node, host, port, error: KafkaError::NONE, text: None }
    }

    fn missing(error: KafkaError, text: &'static str) -> Self {
        Self { node: NO_NODE, host: String::new(), port: -1, error, text: Some(text) }
    }
}

impl Places {
    /// Returns where the coordinators of keys of a type are; `None` once the connection is closed.
    fn find(context: &Context<'_>, call: Call, key_type: i8) -> Option<Self> {
        let nodes = context.nodes_for(call.conn, NodeProtocol::Kafka)?;
        let topic = context.metadata.and_then(|metadata| metadata.topic(GROUPS_TOPIC));
        Some(match (key_type, topic, context.leadership()) {
            (GROUP_KEY, Some(topic), Some(leadership)) => {
                Self::OfGroups { topic: Arc::clone(topic), leadership, nodes }
            }
            // The first request about a group creates the topic, on whichever node it arrives.
            (GROUP_KEY, ..) => {
                let here = nodes.iter().find(|here| here.id == context.setup.identity.node)?;
                Self::All(Coordinator::at(here))
            }
            (TRANSACTION_KEY, ..) => Self::All(Coordinator::missing(NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT)),
            _ => {
                let text = "this broker only coordinates groups";
                Self::All(Coordinator::missing(KafkaError::INVALID_REQUEST, text))
            }
        })
    }

    fn of(&self, key: &str) -> Coordinator {
        match self {
            Self::All(coordinator) => coordinator.clone(),
            Self::OfGroups { topic, leadership, nodes } => {
                let partition = partition_of_group(key, topic.partition_count() as u32);
                let leader = leadership.of(topic, PartitionIndex(partition)).leader;
                let node = leader.and_then(|place| nodes.iter().find(|node| node.id == place.node));
                let text = "the partition of the group has no leader at the moment";
                let none = || Coordinator::missing(KafkaError::COORDINATOR_NOT_AVAILABLE, text);
                node.map_or_else(none, Coordinator::at)
            }
        }
    }
}

pub(super) fn find_coordinator(context: &mut Context<'_>, call: Call, request: &FindCoordinatorRequest<'_>) {
    let version = call.version();
    let key_type = if version == 0 { GROUP_KEY } else { request.key_type };
    let Some(places) = Places::find(context, call, key_type) else { return };
    if version < KEYS_FROM {
        let Coordinator { node, host, port, error, text } = places.of(request.key);
        let response = FindCoordinatorResponse {
            error_code: error,
            error_message: text.map(Into::into),
            node_id: node,
            host: host.into(),
            port,
            ..Default::default()
        };
        return context.answer(call, &response);
    }
    if request.coordinator_keys.len() > GROUPS_MAX {
        // There are never that many groups, and the response has no field for a request-level error.
        context.kafka_reply(call, KafkaReply::nothing());
        return context.close_after_replies(call);
    }
    let keys: Names = request.coordinator_keys.iter().copied().collect();
    let seen = Distinct::new(keys.len(), || context.plane.random_u64());
    let job = FindJob { call, places, keys, next: 0, seen, found: Vec::new() };
    context.begin_job(job);
}

/// A request whose groups are being deduplicated.
struct FindJob {
    call: Call,
    places: Places,
    keys: Names,
    next: usize,
    seen: Distinct,
    /// Indexes of the distinct keys.
    found: Vec<u32>,
}

impl ClientJob for FindJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, _: &Context<'_>, work: &mut Work) -> bool {
        let Self { keys, seen, found, .. } = self;
        while !work.is_over() && self.next < keys.len() {
            work.spend(1);
            let (n, key) = (self.next, keys.get(self.next));
            self.next += 1;
            if seen.is_new(n, &key, |other| keys.get(other) == key) {
                found.push(n as u32);
            }
        }
        self.next == keys.len()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { call, places, keys, found, .. } = *self;
        let version = call.version();
        let Frame { front, back } = FindCoordinatorResponse::default().frame(version, found.len());
        let pieces = Pieces::new(front, Coordinators { version, keys, found, places }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    }
}

/// The groups of a response.
#[derive(Debug)]
struct Coordinators {
    version: i16,
    keys: Names,
    found: Vec<u32>,
    places: Places,
}

impl Entries for Coordinators {
    fn count(&self) -> usize {
        self.found.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let key = self.keys.get(self.found[entry] as usize);
        let Coordinator { node, host, port, error, text } = self.places.of(key);
        let found = FoundCoordinator {
            key: key.into(),
            node_id: node,
            host: host.into(),
            port,
            error_code: error,
            error_message: text.map(Into::into),
        };
        found.write(out, FindCoordinatorResponse::form(self.version));
        false
    }

    fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + size_of_val(&self.found[..])
    }
}
