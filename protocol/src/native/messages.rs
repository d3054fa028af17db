//! The bodies of native messages, as values.
//!
//! Small, rare messages are owned structs; those of the data path ([`ProducePrefix`], [`DataPrefix`], [`Credit`]) are fixed
//! zero-copy structs in front of a batch or of frames.

use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::ErrorCode;
use crate::ids::{
    ClusterId, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, ShardId, Timestamp, TopicId,
};

/// First eight bytes of a hello's body.
pub const HELLO_MAGIC: [u8; 8] = *b"HIGHWATR";

/// The only version of the protocol so far.
pub const PROTOCOL_VERSION: u16 = 1;

/// First message of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Lowest version the client speaks.
    pub version_min: u16,
    /// Highest version the client speaks.
    pub version_max: u16,
    /// Bits of optional features the client understands: [`FEATURE_GROUPS`](super::FEATURE_GROUPS), [`FEATURE_DAMAGE`].
    pub features: u64,
    /// The shard to live on; none: any.
    pub shard: Option<ShardId>,
    /// Refuse to talk to another cluster than this.
    pub cluster: Option<ClusterId>,
    /// A name for logs.
    pub client_name: String,
}

/// Answer to [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloReply {
    /// The version spoken from here on.
    pub version: u16,
    /// Features both sides understand.
    pub features: u64,
    /// The node.
    pub node: NodeId,
    /// The shard this connection lives on now.
    pub shard: ShardId,
    /// Shards of this node.
    pub shards: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// Version of the broker, for people.
    pub broker_version: String,
}

/// Asks for nodes and topics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataRequest {
    /// The topics wanted; none: all.
    pub topics: Option<Vec<String>>,
}

/// Answer to [`MetadataRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataReply {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its nodes.
    pub nodes: Vec<NodeInfo>,
    /// One entry for each topic asked for, in that order; or all topics by name.
    pub topics: Vec<TopicInfo>,
}

/// A broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Its number.
    pub node: NodeId,
    /// Address that clients reach it at, `host:port`.
    pub address: String,
    /// Its shards.
    pub shards: u16,
}

/// A topic in [`MetadataReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Why the rest is missing, if it is; otherwise none.
    pub error: Option<ErrorCode>,
    /// Its identity. Zero bytes where `error` is set.
    pub id: TopicId,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

/// Where a partition lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionInfo {
    /// Its number.
    pub index: PartitionIndex,
    /// The node that leads it.
    pub leader: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
}

/// Creates a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopicRequest {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Configuration: Kafka's names, values as text.
    pub configs: Vec<(String, String)>,
    /// Check only.
    pub validate_only: bool,
}

/// Answer to [`CreateTopicRequest`]: sent when the topic can be used on every shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateTopicReply {
    /// Its identity.
    pub id: TopicId,
}

/// Deletes a topic by name. The reply has an empty body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteTopicRequest {
    /// Its name.
    pub name: String,
}

/// Changes a topic. The reply has an empty body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterTopicRequest {
    /// Its name.
    pub name: String,
    /// Configuration to set (`Some`) or to return to its default (`None`).
    pub configs: Vec<(String, Option<String>)>,
    /// New number of partitions, never fewer than before.
    pub partitions: Option<u32>,
}

/// Asks for a topic in detail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeTopicRequest {
    /// Its name.
    pub name: String,
}

/// Answer to [`DescribeTopicRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeTopicReply {
    /// Its identity.
    pub id: TopicId,
    /// Every configuration entry with its value; `true` where it was set for this topic.
    pub configs: Vec<(String, String, bool)>,
    /// Its partitions.
    pub partitions: Vec<PartitionDetail>,
}

/// A partition in [`DescribeTopicReply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionDetail {
    /// Where it lives.
    pub info: PartitionInfo,
    /// First offset that can be read.
    pub log_start: Offset,
    /// Offset behind the last acknowledged record.
    pub high_watermark: Offset,
    /// Bytes on disk.
    pub bytes: u64,
    /// Damage was found; part of it cannot be read.
    pub faulty: bool,
}

/// Answer to an `InitProducer` request, whose body is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitProducerReply {
    /// The producer's identity.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: i16,
}

/// Answer to a `Stats` request, whose body is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsReply {
    /// The shards of the broker that was asked, in their order.
    pub shards: Vec<ShardStats>,
}

/// A shard in [`StatsReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardStats {
    /// Its number.
    pub shard: ShardId,
    /// Counters by name. Other versions of the broker have others.
    pub counters: Vec<(String, u64)>,
}

impl StatsReply {
    /// A counter, added up over the shards; none if there is none of that name.
    pub fn total(&self, name: &str) -> Option<u64> {
        let counters = self.shards.iter().flat_map(|shard| &shard.counters);
        counters.filter(|(found, _)| found == name).map(|(_, value)| *value).reduce(u64::wrapping_add)
    }
}

/// What an acknowledgement is to mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Acks {
    /// No reply.
    None = 0,
    /// On stable storage of the leader.
    Leader = 1,
    /// On stable storage of a majority of the replicas. The default.
    All = 2,
}

impl Acks {
    /// The value with this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            2 => Some(Self::All),
            _ => None,
        }
    }
}

/// In front of the batch in the body of a produce request.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProducePrefix {
    /// The topic.
    pub topic: [u8; 16],
    /// The partition.
    pub partition: U32,
    /// An [`Acks`].
    pub acks: u8,
    /// Must be zero.
    pub reserved: [u8; 3],
}

/// Bytes of a [`ProducePrefix`].
pub const PRODUCE_PREFIX_BYTES: usize = 24;
const _: () = assert!(core::mem::size_of::<ProducePrefix>() == PRODUCE_PREFIX_BYTES);

/// Answer to a produce request.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProduceReply {
    /// Offset of the batch's first record.
    pub base_offset: I64,
    /// The time the broker gave the batch if the topic uses log append time, else -1.
    pub log_append_time: I64,
    /// First offset that can be read.
    pub log_start: I64,
}

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// The first record there is.
    Earliest,
    /// Behind the last acknowledged record.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record with this timestamp or a later one.
    Timestamp(Timestamp),
}

/// Opens a subscription; its number is the request id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscribeRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where to begin.
    pub start: StartAt,
    /// Bytes of frames the server may send before more credit arrives.
    pub credit_bytes: u64,
}

/// Answer to [`SubscribeRequest`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SubscribeReply {
    /// The offset the subscription begins at.
    pub start: I64,
    /// First offset that can be read.
    pub log_start: I64,
    /// Offset behind the last acknowledged record.
    pub high_watermark: I64,
}

/// Body of a credit message.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Credit {
    /// Bytes released since the last one.
    pub bytes: U64,
}

/// Bit of [`Hello::features`]: a client knows that records can be lost, and goes on behind them.
///
/// It is told so by a data message, or the reply to a fetch, without frames and with a `next_offset` behind the offset asked for or
/// reached: the records up to there are damaged or lost. A client that does not know this gets an error, and has to find out by itself
/// where to go on.
pub const FEATURE_DAMAGE: u64 = 2;

/// In front of the frames in a data message and in the reply to a fetch.
///
/// The frames begin with the one that holds the offset asked for (which may hold earlier records too) and may include padding
/// and internal frames, which a client skips.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DataPrefix {
    /// Offset behind the last record of these frames, or behind records that are lost: where to continue.
    pub next_offset: I64,
    /// First offset that can be read.
    pub log_start: I64,
    /// Offset behind the last acknowledged record.
    pub high_watermark: I64,
}

/// Bytes of a [`DataPrefix`].
pub const DATA_PREFIX_BYTES: usize = 24;
const _: () = assert!(core::mem::size_of::<DataPrefix>() == DATA_PREFIX_BYTES);

/// Asks for frames once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where to begin.
    pub start: StartAt,
    /// Stop before this many bytes, but give at least one whole frame.
    pub max_bytes: u32,
    /// Answer as soon as this many bytes are there; 0 and 1: at once, or with the first record.
    pub min_bytes: u32,
    /// Answer after this time in any case.
    pub wait_ms: u32,
}

/// Asks for offsets. Answered by the whole node, whatever shard it reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsRequest {
    /// The topic.
    pub topic: TopicId,
    /// What to look for in which partition.
    pub partitions: Vec<(PartitionIndex, StartAt)>,
}

/// Answer to [`ListOffsetsRequest`], in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsReply {
    /// One entry each.
    pub partitions: Vec<ListedOffset>,
}

/// An entry of [`ListOffsetsReply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset and, for a search by time, the timestamp of the record found. `Ok(None)`: no record is that late.
    pub found: Result<Option<(Offset, Option<Timestamp>)>, ErrorCode>,
}

/// Stores positions of a named consumer. Answered, with an empty body, once they are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitOffsetsRequest {
    /// The consumer.
    pub consumer: String,
    /// The topic.
    pub topic: TopicId,
    /// The positions.
    pub positions: Vec<CommittedOffset>,
}

/// The next offset a consumer wants of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset to continue at.
    pub offset: Offset,
    /// The epoch of the last record consumed, or -1.
    pub leader_epoch: i32,
    /// Whatever the consumer wants to keep with it.
    pub metadata: String,
}

/// Asks for the positions of a named consumer in a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadOffsetsRequest {
    /// The consumer.
    pub consumer: String,
    /// The topic.
    pub topic: TopicId,
}

/// Answer to [`ReadOffsetsRequest`]: the partitions that have a position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadOffsetsReply {
    /// The positions, by partition.
    pub positions: Vec<CommittedOffset>,
}

/// Moves the start of partitions forward. Answered, with an empty body, once that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordsRequest {
    /// The topic.
    pub topic: TopicId,
    /// New first offsets.
    pub partitions: Vec<(PartitionIndex, Offset)>,
}
