//! The clients whose requests are answered.

use std::net::IpAddr;

use highwater_net::kafka::{KafkaReply, Origin};
use highwater_net::{Reply, ReplySlot};
use highwater_runtime::plane::ConnId;

use super::LargeReply;
use crate::address::HostPort;

/// A request of a native client: its connection and the slot of its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeCall {
    pub(crate) conn: ConnId,
    pub(crate) slot: ReplySlot,
}

/// A request of a Kafka client: its connection, the slot of its response, and the header fields that the response echoes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KafkaCall {
    pub(crate) conn: ConnId,
    pub(crate) slot: ReplySlot,
    pub(crate) origin: Origin,
}

impl KafkaCall {
    /// Returns the version of the request, which is also that of the response.
    pub(crate) fn version(&self) -> i16 {
        self.origin.version
    }
}

/// The request that is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnswerTo {
    Native(NativeCall),
    Kafka(KafkaCall),
}

impl AnswerTo {
    pub(crate) fn conn(self) -> ConnId {
        match self {
            Self::Native(call) => call.conn,
            Self::Kafka(call) => call.conn,
        }
    }

    pub(crate) fn slot(self) -> ReplySlot {
        match self {
            Self::Native(call) => call.slot,
            Self::Kafka(call) => call.slot,
        }
    }
}

/// The connections of a shard, as far as adapters need them to answer requests. A command for a connection that is closed has no effect.
pub(crate) trait Clients {
    /// Sets the reply to a request of a native client.
    fn reply(&mut self, call: NativeCall, reply: Reply);

    /// Sets the response to a request of a Kafka client.
    fn kafka_reply(&mut self, call: KafkaCall, reply: KafkaReply);

    /// Closes a connection once its requests have been answered. No new request is handled.
    fn close_after_replies(&mut self, conn: ConnId);

    /// Returns the address advertised to the client of a connection; `None` once the connection is closed. `advertised` has the advertised
    /// addresses of the listeners that have one.
    fn advertised_to(&self, conn: ConnId, advertised: &[Option<HostPort>]) -> Option<HostPort>;

    /// Returns the name in a client's hello and the client's address; `None` once the connection is closed.
    fn name_and_address(&self, conn: ConnId) -> Option<(&str, IpAddr)>;

    /// Counts a long answer of a connection, which handles no further request until it is sent. Returns whether the connection is open.
    fn add_long_answer(&mut self, conn: ConnId) -> bool;

    /// Counts a long answer less, which will not be sent.
    fn remove_long_answer(&mut self, conn: ConnId);

    /// Stores a reply that waits until it is the next to be sent and there is memory for it.
    fn add_large_reply(&mut self, to: AnswerTo, reply: LargeReply);
}
