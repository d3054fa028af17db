//! Connections of Kafka clients, and the data path: Produce and Fetch, which have messages of their own (see [`crate::kafka_message`]). All other
//! requests are translated in [`crate::kafka`].

mod connection;
mod fetch;
mod fetch_ahead;
mod fetch_answer;
mod fetch_read;
mod fetch_tasks;
mod produce;
mod records;
mod rotation;
mod unrouted;

use std::collections::{BTreeMap, BTreeSet};

use highwater_net::kafka::schema::Message as KafkaBody;
use highwater_net::kafka::{KafkaError, KafkaReply, Received, Request, response};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{ConnId, Plane, ShardIndex};

use super::Shard;
use crate::context::{Clients as _, KafkaCall as Call};
use crate::kafka::Named;
use crate::kafka_message::KafkaMessage;
use crate::limits::{KAFKA_ANSWER_BYTES_EXPECTED, SMALL_REPLY_BYTES_MAX};
use crate::message::Message;
use crate::partition::AppendOutcome;
use crate::reply_to::{RequestBatch, RequestId};
use crate::session::{Retained, held_bytes};

pub(super) use fetch::NextFetch;

/// The state of a shard for Kafka clients.
#[derive(Default)]
pub(super) struct Kafka {
    pending: BTreeMap<RequestId, Pending>,
    last_request: u64,
    /// Outcomes for other shards, sent once a turn.
    pub(super) produced: Vec<(RequestBatch, AppendOutcome)>,
    /// Batches that producers will send again because their partition was unknown.
    unrouted: unrouted::UnroutedBatches,
    /// Connections that have fetched: owners store cursors for them.
    fetching: BTreeSet<ConnId>,
    /// Closed connections that have fetched: other shards have to be notified.
    gone: Vec<ConnId>,
    /// Assigns new connections to shards.
    rotation: rotation::ShardRotation,
    read: fetch_tasks::FetchTasks,
}

/// A request that waits for other shards or for the disk, with its results so far.
pub(super) enum Pending {
    Produce(produce::ProducePending),
    Fetch(fetch::FetchPending),
}

impl Kafka {
    /// Returns the bytes of memory that reads on this shard hold for Kafka connections.
    pub(super) fn held(&self) -> usize {
        self.read.held()
    }

    /// Returns the charged bytes of each Produce request with pending batches, with its connection.
    pub(super) fn producing(&self) -> impl Iterator<Item = (ConnId, usize)> {
        self.pending.values().filter_map(|pending| match pending {
            Pending::Produce(produce) => Some(produce.charged()),
            Pending::Fetch(_) => None,
        })
    }
}

/// Returns the bytes charged for the reply to a request before its size is known.
fn small_reply_bytes(request: &Request<'_>) -> usize {
    match request {
        Request::OffsetFetch(_)
        | Request::DescribeGroups(_)
        | Request::ListGroups(_)
        | Request::ConsumerGroupDescribe(_)
        | Request::DescribeLogDirs(_)
        | Request::DescribeProducers(_) => SMALL_REPLY_BYTES_MAX,
        _ => 0,
    }
}

impl Shard {
    /// Handles a request of a Kafka client, or sends it to other shards.
    fn kafka_request(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, received: Received<'_>) {
        let Received { header, bytes, entries, request } = received;
        self.counted.requests += 1;
        self.admission.admit(matches!(request, Request::Produce(_)), entries);
        let reply_bytes = self.kafka_bytes_expected(&request);
        let Some(kafka) = self.connections.get_mut(&conn).and_then(super::connection::Connection::kafka)
        else {
            return;
        };
        let retained = match &request {
            Request::Produce(request) => Retained::Batches(request.partitions.len()),
            Request::OffsetFetch(request) => Retained::Groups(request.groups.len()),
            _ => Retained::Lists,
        };
        let held = held_bytes(bytes, retained) + small_reply_bytes(&request);
        let slot = kafka.replies.open(held, reply_bytes);
        kafka.replies.count_if_large(slot, bytes);
        let call = Call { conn, slot, origin: header.origin() };
        let client = header.client_id.unwrap_or_default();
        match request {
            Request::Produce(request) => self.kafka_produce(plane, call, request, held),
            Request::Fetch(request) => self.kafka_fetch(plane, call, &request),
            request => crate::kafka::handle_request(&mut self.context(plane), call, client, request),
        }
    }

    /// Returns the bytes to reserve for the response to a request that has to wait; zero for a request that is answered at once.
    fn kafka_bytes_expected(&self, request: &Request<'_>) -> usize {
        match request {
            Request::Fetch(fetch) => self.kafka_fetch_bytes_max(fetch.max_bytes),
            Request::ListOffsets(_)
            | Request::OffsetForLeaderEpoch(_)
            | Request::JoinGroup(_)
            | Request::SyncGroup(_) => KAFKA_ANSWER_BYTES_EXPECTED,
            _ => 0,
        }
    }

    /// Answers a request.
    pub(super) fn kafka_answer<'a>(&mut self, call: Call, message: &impl KafkaBody<'a>) {
        self.kafka_reply(call, response(call.origin, message));
    }

    /// Sends a response that is already encoded.
    pub(super) fn kafka_reply(&mut self, call: Call, reply: KafkaReply) {
        self.connections.kafka_reply(call, reply);
    }

    /// Closes a connection because a request without a response failed: the client has no other way to notice. Earlier requests are answered
    /// first.
    pub(super) fn kafka_close(&mut self, call: Call) {
        self.connections.close_after_replies(call.conn);
    }

    /// Stores a request that waits.
    pub(super) fn kafka_wait(&mut self, pending: Pending) -> RequestId {
        self.kafka.last_request += 1;
        let request = RequestId(self.kafka.last_request);
        self.kafka.pending.insert(request, pending);
        request
    }

    pub(super) fn on_kafka_message(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        message: KafkaMessage,
    ) {
        match message {
            KafkaMessage::Append(requests) => {
                let wall_ms = plane.wall_clock_ms();
                for request in requests {
                    self.partitions.append(plane, request, wall_ms);
                }
                self.route_partition_events(plane);
            }
            KafkaMessage::Appended(outcomes) => {
                for (batch, outcome) in outcomes {
                    self.on_produced(batch.request, batch.number, outcome);
                }
            }
            KafkaMessage::Fetch(fetch) => self.kafka_read(plane, from, fetch),
            KafkaMessage::FetchBytes(request, bytes) => self.on_fetch_bytes(plane, from, request, bytes),
            KafkaMessage::FetchNow { conn, request, has_some } => {
                self.kafka_read_now(from, conn, request, has_some);
            }
            KafkaMessage::Fetched(request, fetched) => self.on_fetched(plane, from, request, fetched),
            KafkaMessage::Closed(conn) => self.forget_kafka_reader(plane, from, conn),
        }
    }

    /// Finds a topic by name or, if the request has ids, by id.
    pub(super) fn kafka_topic(&self, name: &str, id: [u8; 16]) -> Named {
        Named::find(self.metadata.as_ref(), name, id)
    }

    /// Finds a partition of a topic, and its owner.
    pub(super) fn kafka_target(
        &self,
        topic: &Named,
        index: i32,
    ) -> Result<(TopicPartition, ShardIndex), KafkaError> {
        topic.target(self.targets(), index)
    }
}
