//! What shards say to each other.

use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, TopicId, TopicPartition};
use highwater_protocol::native::Hello;

use crate::api::{ApiError, ControllerReply, ControllerRequest, PartitionAnswer, PartitionQuery};
use crate::coord::groups::{GroupReply, GroupRequest};
pub use crate::kafka_message::{FetchAsk, Fetched, KafkaMessage, RequestId, Want};
use crate::meta::{Change, Metadata};
pub use crate::partition::{
    AppendFailure, AppendOutcome, AppendRequest, AppendedAt, LogStartOutcome, RejectedRecords,
};
pub use crate::reply_to::{ReplyTo, RequestBatch};

/// Names a request to another shard; its reply repeats it. Unique on the shard that sends the request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket {
    /// The call that the request is of.
    pub call: u64,
    /// The number of the request in it.
    pub number: u32,
}

/// A message from one shard to another, or to itself.
#[derive(Debug)]
pub enum Message {
    /// Comes with a connection that moves to the shard its hello names.
    Greeted(Box<Greeting>),
    /// Comes with a connection of a Kafka client that moves to the shard whose turn it is.
    Placed,
    /// To shard 0: this shard has opened its stores.
    Opened(Box<Opened>),
    /// From shard 0: what is about to change in the metadata, for the coordinator of this shard.
    Prepare(Prepare),
    /// To shard 0: the coordinator of this shard knows everything up to this version.
    Prepared(u64),
    /// From shard 0, after every shard has said so: what has changed in the metadata.
    Publish(Publish),
    /// To shard 0: everything up to this version is in effect here.
    Applied(u64),
    /// To shard 0: nothing of these topics is left on this shard's stores.
    Gone(Vec<TopicId>),
    /// To shard 0.
    ControllerRequest(Ticket, Box<ControllerRequest>),
    /// From shard 0.
    ControllerReply(Ticket, Result<ControllerReply, ApiError>),
    /// To the shard with the coordinator of the groups.
    GroupRequest(Ticket, Box<GroupRequest>),
    /// From it.
    GroupReply(Ticket, Result<GroupReply, ApiError>),
    /// To a shard that owns the partitions.
    PartitionQuery(Ticket, PartitionQuery),
    /// From it.
    PartitionAnswer(Ticket, PartitionAnswer),
    /// On behalf of a Kafka client.
    Kafka(Box<KafkaMessage>),
    /// To every shard: connections wait for memory on this one, so clients that take nothing of what is theirs are cut off.
    MemoryShort,
    /// To itself: there is more to do than fits one turn.
    Continue,
    /// To shard 0: this shard has answered its clients and stopped.
    Drained,
    /// From shard 0: all have; close the stores and end.
    Close,
}

/// Changes of the metadata that are durable.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The first time: all of it, with these changes.
    pub first: Option<Arc<Metadata>>,
    /// The version that it has with them.
    pub version: u64,
    /// In their order.
    pub changes: Arc<[Change]>,
}

/// Changes of the metadata for the coordinators of groups, which know them before any shard answers with them.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// The version that the metadata has with them.
    pub version: u64,
    /// In their order.
    pub changes: Arc<[Change]>,
}

/// A hello that was read on another shard.
#[derive(Debug)]
pub struct Greeting {
    /// What it said.
    pub hello: Hello,
    /// The id that its reply repeats.
    pub id: u64,
}

/// What a shard found in its stores.
#[derive(Debug)]
pub struct Opened {
    /// Partitions whose leader's term is not 0.
    pub epochs: Vec<(TopicPartition, LeaderEpoch)>,
    /// Topics that have something in these stores.
    pub topics: Vec<TopicId>,
    /// What a person should read.
    pub warnings: Vec<String>,
}
