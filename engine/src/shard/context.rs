//! The part of a shard that the protocol adapters may use.

use std::sync::Arc;

use highwater_net::Reply;
use highwater_net::kafka::schema::Message as KafkaBody;
use highwater_net::kafka::{KafkaReply, response};
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::connection_map::Connections;
use super::long_answers::AnswerTo;
use super::producer_ids::ProducerIds;
use super::work::{ClientJob, Jobs};
use crate::address::HostPort;
use crate::api::ApiError;
use crate::calls::Calls;
use crate::coord::groups::Client;
use crate::counters::Counters;
use crate::message::Message;
use crate::meta::{Metadata, Targets};
use crate::setup::ShardSetup;
use crate::{kafka, native};

/// The part of a shard that an adapter may use while it handles a request or the replies to a call.
pub(crate) struct Context<'a> {
    pub(crate) plane: &'a mut dyn Plane<Message>,
    pub(crate) setup: &'a Arc<ShardSetup>,
    /// `None` until shard 0 publishes it for the first time.
    pub(crate) metadata: Option<&'a Arc<Metadata>>,
    /// Requests to other shards.
    pub(crate) calls: &'a mut Calls,
    pub(super) connections: &'a mut Connections,
    pub(super) jobs: &'a mut Jobs,
    pub(super) counted: &'a mut Counters,
    pub(super) producer_ids: &'a mut ProducerIds,
}

impl Shard {
    pub(super) fn context<'a>(&'a mut self, plane: &'a mut dyn Plane<Message>) -> Context<'a> {
        Context {
            plane,
            setup: &self.setup,
            metadata: self.metadata.as_ref(),
            calls: &mut self.calls,
            connections: &mut self.connections,
            jobs: &mut self.jobs,
            counted: &mut self.counted,
            producer_ids: &mut self.producer_ids,
        }
    }
}

impl<'a> Context<'a> {
    /// Replies to a request of a native client.
    pub(crate) fn reply(&mut self, call: native::Call, reply: Reply) {
        self.counted.requests_refused += u64::from(matches!(reply, Reply::Error { .. }));
        self.connections.reply(call, reply);
    }

    /// Replies to a native client with an error.
    pub(crate) fn reply_error(&mut self, call: native::Call, error: &ApiError) {
        self.reply(call, native::reply_of(error));
    }

    /// Answers a request of a Kafka client.
    pub(crate) fn answer<'b>(&mut self, call: kafka::Call, message: &impl KafkaBody<'b>) {
        self.kafka_reply(call, response(call.origin, message));
    }

    /// Sends a Kafka client a response that is already encoded.
    pub(crate) fn kafka_reply(&mut self, call: kafka::Call, reply: KafkaReply) {
        self.connections.kafka_reply(call, reply);
    }

    /// Closes a connection because a request failed whose response has no field for an error. Earlier requests are answered first.
    pub(crate) fn close_after_replies(&mut self, call: kafka::Call) {
        self.connections.close_after_replies(call.conn);
    }

    /// Returns a finder for the topics and partitions that requests name.
    pub(crate) fn targets(&self) -> Targets<'a> {
        Targets::new(self.metadata, self.setup.shards)
    }

    /// Returns the address advertised to the client of a connection; `None` once the connection is closed.
    pub(crate) fn advertised_to(&self, conn: ConnId) -> Option<HostPort> {
        self.connections.advertised_to(conn, &self.setup.advertised)
    }

    /// Returns a client's name and host for descriptions of groups. `id` is the client id in the request, if the protocol has one there.
    pub(crate) fn client(&self, conn: ConnId, id: Option<&str>) -> Client {
        let Some(connection) = self.connections.get(&conn) else { return Client::default() };
        let id = id.unwrap_or(&connection.client_name).to_owned();
        Client { id, host: format!("/{}", connection.via.peer.ip()) }
    }

    /// Starts a client's job: runs a limited slice at once, and the rest in later turns.
    pub(crate) fn begin_job(&mut self, job: impl ClientJob + 'static) {
        let mut job = Box::new(job);
        let mut work = self.jobs.work_at_once();
        let is_done = job.run_slice(self, &mut work);
        self.jobs.count(&work);
        if is_done {
            job.finish(self);
        } else {
            self.jobs.add(job);
        }
    }

    /// Assigns a producer id, now or when shard 0 has reserved more.
    pub(crate) fn assign_producer_id(&mut self, to: AnswerTo) {
        self.producer_ids.wait(to);
        self.assign_producer_ids();
    }
}

#[cfg(test)]
mod tests {
    use highwater_net::kafka::KafkaError;

    use super::*;

    /// Codes after which Kafka's clients send the same request again.
    const RETRIED: [KafkaError; 9] = [
        KafkaError::NOT_CONTROLLER,
        KafkaError::NOT_COORDINATOR,
        KafkaError::COORDINATOR_NOT_AVAILABLE,
        KafkaError::COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError::NOT_LEADER_OR_FOLLOWER,
        KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        KafkaError::KAFKA_STORAGE_ERROR,
        KafkaError::REQUEST_TIMED_OUT,
        KafkaError::THROTTLING_QUOTA_EXCEEDED,
    ];

    #[test]
    fn an_error_that_native_clients_may_retry_is_retried_by_kafka_clients_too() {
        for error in ApiError::samples() {
            let (kafka, native) = (KafkaError::from(&error), native::code_of(&error));
            assert!(kafka.is_err() && kafka.name().is_some(), "{error:?}: {kafka}");
            let is_retried = RETRIED.contains(&kafka);
            assert!(
                is_retried || !native.is_retryable(),
                "{error:?}: {native} is retryable, {kafka} is final"
            );
        }
    }
}
