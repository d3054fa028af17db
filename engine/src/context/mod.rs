//! What a protocol adapter may use of its shard: metadata, requests to other shards, jobs, and the replies of connections.
//!
//! ```text
//!   shard --- Context ---> adapter --- ask, ask_group, query ---> Calls ---> other shards
//!     ^                       |  \---- begin_job --------------> ClientJobs --- a slice a turn ---> finish(context)
//!     |                       v
//!   Clients <--- reply, answer, answer_in_pieces
//! ```
//!
//! A [`Context`] cannot access a partition. The shard lends it to an adapter for one request, and to the closures that finish calls and jobs.

mod answers;
mod ask;
mod clients;
mod fill;
mod groups;
mod jobs;
mod large_replies;
mod nodes;
mod producer_ids;

use std::sync::Arc;

use highwater_net::Reply;
use highwater_net::kafka::schema::Message as KafkaBody;
use highwater_net::kafka::{KafkaReply, response};
use highwater_runtime::plane::{ConnId, Plane};

pub(crate) use answers::BodyLimit;
pub(crate) use ask::Finish;
pub(crate) use clients::{AnswerTo, Clients, KafkaCall, NativeCall};
pub(crate) use jobs::{ClientJob, ClientJobs};
pub(crate) use large_replies::{LargeReply, ReplyMemory};
pub(crate) use nodes::{ReachableNode, nodes_for};
pub(crate) use producer_ids::ProducerIds;

use crate::address::HostPort;
use crate::calls::Calls;
use crate::coord::groups::Client;
use crate::counters::Counters;
use crate::leaders::Leaders;
use crate::message::Message;
use crate::meta::{Leadership, Metadata, Targets};
use crate::setup::ShardSetup;

/// The part of a shard that an adapter may use while it handles a request or the replies to a call.
pub(crate) struct Context<'a> {
    pub(crate) plane: &'a mut dyn Plane<Message>,
    pub(crate) setup: &'a Arc<ShardSetup>,
    /// `None` until shard 0 publishes it for the first time.
    pub(crate) metadata: Option<&'a Arc<Metadata>>,
    leaders: &'a Leaders,
    parts: Parts<'a>,
}

/// The components of a shard that a context uses on behalf of adapters.
pub(crate) struct Parts<'a> {
    /// Requests to other shards.
    pub(crate) calls: &'a mut Calls<dyn Finish>,
    pub(crate) clients: &'a mut dyn Clients,
    pub(crate) jobs: &'a mut ClientJobs,
    pub(crate) counted: &'a mut Counters,
    pub(crate) producer_ids: &'a mut ProducerIds,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        plane: &'a mut dyn Plane<Message>,
        setup: &'a Arc<ShardSetup>,
        (metadata, leaders): (Option<&'a Arc<Metadata>>, &'a Leaders),
        parts: Parts<'a>,
    ) -> Self {
        Self { plane, setup, metadata, leaders, parts }
    }

    /// Replies to a request of a native client.
    pub(crate) fn reply(&mut self, call: NativeCall, reply: Reply) {
        self.parts.counted.requests_failed += u64::from(matches!(reply, Reply::Error { .. }));
        self.parts.clients.reply(call, reply);
    }

    /// Answers a request of a Kafka client.
    pub(crate) fn answer<'b>(&mut self, call: KafkaCall, message: &impl KafkaBody<'b>) {
        self.kafka_reply(call, response(call.origin, message));
    }

    /// Sends a Kafka client a response that is already encoded.
    pub(crate) fn kafka_reply(&mut self, call: KafkaCall, reply: KafkaReply) {
        self.parts.clients.kafka_reply(call, reply);
    }

    /// Closes a connection because a request failed whose response has no field for an error. Earlier requests are answered first.
    pub(crate) fn close_after_replies(&mut self, call: KafkaCall) {
        self.parts.clients.close_after_replies(call.conn);
    }

    /// Returns a finder for the topics and partitions that requests name.
    pub(crate) fn targets(&self) -> Targets<'a> {
        Targets::new(self.metadata, self.leaders, self.setup.shards)
    }

    /// Returns who leads the partitions of topics; `None` before the metadata is published.
    pub(crate) fn leadership(&self) -> Option<Leadership> {
        Some(Leadership::new(self.metadata?, self.leaders, self.setup.shards))
    }

    /// Returns the address advertised to the client of a connection; `None` once the connection is closed.
    pub(crate) fn advertised_to(&self, conn: ConnId) -> Option<HostPort> {
        self.parts.clients.advertised_to(conn, &self.setup.advertised)
    }

    /// Returns a client's name and host for descriptions of groups. `id` is the client id in the request, if the protocol has one there.
    pub(crate) fn client(&self, conn: ConnId, id: Option<&str>) -> Client {
        let Some((name, address)) = self.parts.clients.name_and_address(conn) else {
            return Client::default();
        };
        Client { id: id.unwrap_or(name).to_owned(), host: format!("/{address}") }
    }

    /// Starts a client's job: runs a limited slice at once, and the rest in later turns.
    pub(crate) fn begin_job(&mut self, job: impl ClientJob + 'static) {
        let mut job = Box::new(job);
        let mut work = self.parts.jobs.work_at_once();
        let is_done = job.run_slice(self, &mut work);
        self.parts.jobs.count(&work);
        if is_done {
            job.finish(self);
        } else {
            self.parts.jobs.add(job);
        }
    }
}
