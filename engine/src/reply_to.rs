//! Who receives the outcome of an append.

use highwater_net::ReplySlot;
use highwater_runtime::plane::{ConnId, ShardIndex};

/// Who receives the outcome of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReplyTo {
    /// A native client, whose connection is on this shard.
    Native {
        /// The client's connection.
        conn: ConnId,
        /// The place of the reply; none with acks 0, where only a failure is reported, by closing the connection.
        slot: Option<ReplySlot>,
        /// The client's number of the request.
        id: u64,
    },
    /// A Kafka client, whose connection may be on any shard.
    Kafka(RequestBatch),
    /// The coordinators of this shard.
    Coordinators,
    /// The controller: its batch with this number.
    Controller(u64),
}

/// A pending request of a Kafka client. Unique on the shard of its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A batch of a Kafka client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestBatch {
    /// The shard of the connection.
    pub shard: ShardIndex,
    /// The request there.
    pub request: RequestId,
    /// The batch's number in the request.
    pub number: u32,
}

impl ReplyTo {
    /// Returns the connection that handles no further request until the batch has been appended. A Kafka client's connection continues:
    /// the memory for its requests limits what it may have in flight.
    pub(crate) fn waiting_conn(self) -> Option<ConnId> {
        match self {
            Self::Native { conn, .. } => Some(conn),
            Self::Kafka(_) | Self::Coordinators | Self::Controller(_) => None,
        }
    }
}
