//! FindCoordinator: this node coordinates every group.

use std::collections::BTreeSet;
use std::vec::IntoIter;

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
use crate::coord::groups::limits::GROUPS_MAX;
use crate::shard::{AnswerTo, ClientJob, Context, Work};

/// Kinds of coordinators.
const OF_GROUP: i8 = 0;
const OF_TRANSACTION: i8 = 1;

/// From this version on, a request is about several groups.
const KEYS_FROM: i16 = 4;

/// What is said of each group.
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
    let key_type = if version == 0 { OF_GROUP } else { request.key_type };
    let nowhere =
        |error, text| Coordinator { node: -1, host: String::new(), port: -1, error, text: Some(text) };
    let coordinator = match key_type {
        OF_GROUP => Coordinator {
            node: node(context),
            host: advertised.host,
            port: advertised.port.into(),
            error: KafkaError::NONE,
            text: None,
        },
        OF_TRANSACTION => nowhere(NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT),
        _ => nowhere(KafkaError::INVALID_REQUEST, "this broker coordinates groups only"),
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
        // There are not so many groups, and the answer has no place to say so.
        context.kafka_reply(call, KafkaReply::nothing());
        return context.end_after_answers(call);
    }
    let keys: Vec<String> = request.coordinator_keys.iter().map(|key| (*key).to_owned()).collect();
    let keys = keys.into_iter();
    let finding = Finding { call, coordinator, keys, seen: BTreeSet::new(), found: Vec::new() };
    context.begin_job(finding);
}

/// A request whose groups are compared: each is told of once.
struct Finding {
    call: Call,
    coordinator: Coordinator,
    keys: IntoIter<String>,
    seen: BTreeSet<String>,
    found: Vec<String>,
}

impl ClientJob for Finding {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn go_on(&mut self, _: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over()
            && let Some(key) = self.keys.next()
        {
            work.spend(1);
            if self.seen.insert(key.clone()) {
                self.found.push(key);
            }
        }
        self.keys.len() == 0
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        let (keys, coordinator) = (std::mem::take(&mut self.found), self.coordinator.clone());
        let version = self.call.version();
        let Frame { front, back } = FindCoordinatorResponse::default().frame(version, keys.len());
        let pieces = Pieces::new(front, Coordinators { version, keys, coordinator }, back);
        context.answer_in_pieces(AnswerTo::Kafka(self.call), pieces);
    }
}

/// The groups of an answer.
#[derive(Debug)]
struct Coordinators {
    version: i16,
    keys: Vec<String>,
    coordinator: Coordinator,
}

impl Entries for Coordinators {
    fn count(&self) -> usize {
        self.keys.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let Coordinator { node, host, port, error, text } = &self.coordinator;
        let found = FoundCoordinator {
            key: self.keys[entry].as_str().into(),
            node_id: *node,
            host: host.as_str().into(),
            port: *port,
            error_code: *error,
            error_message: text.map(Into::into),
        };
        found.write(out, FindCoordinatorResponse::form(self.version));
        false
    }
}
