//! What shards say to each other.

use std::sync::Arc;

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{LeaderEpoch, Offset, Timestamp, TopicId, TopicPartition};
use highwater_protocol::native::{
    AlterTopicRequest, CreateTopicRequest, DeleteTopicRequest, Hello, PartitionDetail, StartAt,
};

use highwater_storage::ActiveProducer;

use crate::coord::groups::{GroupReply, GroupRequest};
pub use crate::coord::native_groups::NativeAsk;
pub use crate::kafka_message::{
    Append, FetchAsk, Fetched, KafkaMessage, OwnedBatch, Produced, ProducedAt, ProducedFor, RequestId, Want,
};
use crate::meta::config_changes::ConfigChanges;
use crate::meta::{Change, Metadata};

/// Names a question; its answer repeats it. Unique on the shard that asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// A message from one shard to another, or to itself.
#[derive(Debug)]
pub enum Message {
    /// Comes with a connection that moves to the shard its hello names.
    Greeted(Box<Greeting>),
    /// Comes with a connection of a Kafka client that moves to the shard whose turn it is.
    Placed,
    /// To shard 0: this shard has opened its stores.
    Opened(Box<Opened>),
    /// From shard 0: what has changed in the metadata.
    Publish(Publish),
    /// To shard 0: everything up to this version is in effect here.
    Applied(u64),
    /// To shard 0: nothing of these topics is left on this shard's stores.
    Gone(Vec<TopicId>),
    /// To shard 0.
    Ask(Ticket, Box<Ask>),
    /// From shard 0.
    Answer(Ticket, Answer),
    /// To a shard that has the partitions.
    Query(Ticket, Query),
    /// From it.
    QueryAnswer(Ticket, QueryAnswer),
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

/// What only shard 0 can do.
#[derive(Debug)]
pub enum Ask {
    /// A new topic.
    CreateTopic(CreateTopicRequest),
    /// A topic's end.
    DeleteTopic(DeleteTopicRequest),
    /// The same, and of no other topic that may have got its name.
    DeleteTopicById(TopicId),
    /// Other settings or more partitions.
    AlterTopic(AlterTopicRequest),
    /// Other settings, or only whether they can be.
    ConfigureTopic {
        /// The topic.
        name: String,
        /// What is to become of its settings.
        changes: ConfigChanges,
        /// Whether nothing is to happen.
        validate_only: bool,
    },
    /// Ids for producers.
    ProducerIds,
    /// Anything about groups, for a client of the native protocol.
    NativeGroup(NativeAsk),
    /// Anything about groups, for a Kafka client.
    Group(GroupRequest),
}

/// What it answers.
#[derive(Debug)]
pub enum Answer {
    /// The reply for the client.
    Reply(Reply),
    /// Ids from the first up to, and without, the second.
    ProducerIds(i64, i64),
    /// The coordinator's.
    Group(GroupReply),
}

/// A question about partitions. The number of each is given back with its answer.
#[derive(Debug)]
pub enum Query {
    /// Offsets by time or at the ends.
    Offsets(Vec<(u32, TopicPartition, StartAt)>),
    /// The records with the largest timestamps.
    LastTimes(Vec<(u32, TopicPartition)>),
    /// Where leader epochs end: partition and epoch.
    EpochEnds(Vec<(u32, TopicPartition, i32)>),
    /// Bounds.
    Details(Vec<(u32, TopicPartition)>),
    /// Idempotent producers.
    Producers(Vec<(u32, TopicPartition)>),
    /// Move the start.
    DeleteRecords(Vec<NewStart>),
}

/// A new start of a partition.
#[derive(Clone, Copy, Debug)]
pub struct NewStart {
    /// Given back with the outcome.
    pub number: u32,
    /// Of which partition.
    pub tp: TopicPartition,
    /// None for the end of what can be read.
    pub to: Option<Offset>,
}

/// Offset and, for a search by time, timestamp of what was found.
pub type FoundOffset = Result<Option<(Offset, Option<Timestamp>)>, ErrorCode>;

/// The producers of a partition, or why they are not described.
pub type FoundProducers = Result<Vec<ActiveProducer>, (ErrorCode, String)>;

/// Where a partition begins now, or why its start was not moved.
pub type Moved = Result<Offset, (ErrorCode, String)>;

/// The answer to a [`Query`].
#[derive(Debug)]
pub enum QueryAnswer {
    /// To `Offsets` and `LastTimes`.
    Offsets(Vec<(u32, FoundOffset)>),
    /// To `EpochEnds`: the largest epoch that is not above the one asked for, and its end.
    EpochEnds(Vec<(u32, Option<(i32, i64)>)>),
    /// To `Details`.
    Details(Vec<(u32, PartitionDetail)>),
    /// To `Producers`.
    Producers(Vec<(u32, FoundProducers)>),
    /// To `DeleteRecords`: where each begins now, durably, or why it was not moved.
    DeleteRecords(Vec<(u32, Moved)>),
}
