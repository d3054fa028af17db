//! FindCoordinator: this node coordinates every group.

use bytes::BytesMut;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{FindCoordinatorRequest, FindCoordinatorResponse, FoundCoordinator};
use highwater_net::kafka::schema::Message as KafkaBody;
use highwater_net::kafka::wire::Wire;
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_net::{Entries, Pieces};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::cluster::node;
use super::transactions::{NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};
use crate::context::{AnswerTo, ClientJob, Context};
use crate::coord::groups::limits::GROUPS_MAX;
use crate::counters::Work;
use crate::names::{Distinct, Names};

/// Kafka's codes for types of keys.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;

/// The first version with several groups in a request.
const KEYS_FROM: i16 = 4;

/// The coordinator of each group.
#[derive(Clone, Debug)]
struct Coordinator {
    node: i32,
    host: String,
    port: i32,
    error: KafkaError,
    text: Option<&'static str>,
}

pub(super) fn find_coordinator(context: &mut Context<'_>, call: Call, request: &FindCoordinatorRequest<'_>) {
    let version = call.version();
    let Some(advertised) = context.advertised_to(call.conn) else { return };
    let key_type = if version == 0 { GROUP_KEY } else { request.key_type };
    let no_coordinator =
        |error, text| Coordinator { node: -1, host: String::new(), port: -1, error, text: Some(text) };
    let coordinator = match key_type {
        GROUP_KEY => Coordinator {
            node: node(context),
            host: advertised.host,
            port: advertised.port.into(),
            error: KafkaError::NONE,
            text: None,
        },
        TRANSACTION_KEY => no_coordinator(NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT),
        _ => no_coordinator(KafkaError::INVALID_REQUEST, "this broker only coordinates groups"),
    };
    if version < KEYS_FROM {
        let Coordinator { node, host, port, error, text } = coordinator;
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
    let job = FindJob { call, coordinator, keys, next: 0, seen, found: Vec::new() };
    context.begin_job(job);
}

/// A request whose groups are being deduplicated.
struct FindJob {
    call: Call,
    coordinator: Coordinator,
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
        let Self { call, coordinator, keys, found, .. } = *self;
        let version = call.version();
        let Frame { front, back } = FindCoordinatorResponse::default().frame(version, found.len());
        let pieces = Pieces::new(front, Coordinators { version, keys, found, coordinator }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    }
}

/// The groups of a response.
#[derive(Debug)]
struct Coordinators {
    version: i16,
    keys: Names,
    found: Vec<u32>,
    coordinator: Coordinator,
}

impl Entries for Coordinators {
    fn count(&self) -> usize {
        self.found.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let Coordinator { node, host, port, error, text } = &self.coordinator;
        let found = FoundCoordinator {
            key: self.keys.get(self.found[entry] as usize).into(),
            node_id: *node,
            host: host.as_str().into(),
            port: *port,
            error_code: *error,
            error_message: text.map(Into::into),
        };
        found.write(out, FindCoordinatorResponse::form(self.version));
        false
    }

    fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + size_of_val(&self.found[..])
    }
}
