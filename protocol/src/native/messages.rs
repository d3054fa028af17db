//! Bodies of native messages as Rust types.
//!
//! Rare messages are owned structs. Those of the data path ([`ProducePrefix`], [`DataPrefix`], [`Credit`]) are fixed zero-copy
//! structs before a batch or frames.

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
    /// Lowest version that the client supports.
    pub version_min: u16,
    /// Highest version that the client supports.
    pub version_max: u16,
    /// Bits of optional features that the client supports: [`FEATURE_GROUPS`](super::FEATURE_GROUPS), [`FEATURE_DAMAGE`].
    pub features: u64,
    /// Shard that should own the connection; `None` for any.
    pub shard: Option<ShardId>,
    /// Cluster that the client expects; the connection fails if the broker belongs to another one.
    pub cluster: Option<ClusterId>,
    /// Name for the broker's log.
    pub client_name: String,
}

/// Reply to [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloReply {
    /// Version used from now on.
    pub version: u16,
    /// Features that both sides support.
    pub features: u64,
    /// The node.
    pub node: NodeId,
    /// Shard that owns the connection.
    pub shard: ShardId,
    /// Number of shards of this node.
    pub shards: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// Version of the broker, as text.
    pub broker_version: String,
}

/// Requests nodes and topics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataRequest {
    /// Topics to return; `None` for all.
    pub topics: Option<Vec<String>>,
}

/// The nodes of a cluster and some or all of its topics: the reply to [`MetadataRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataReply {
    /// The cluster.
    pub cluster: ClusterId,
    /// Nodes of the cluster.
    pub nodes: Vec<NodeInfo>,
    /// One entry for each requested topic, in the order of the request; or all topics by name.
    pub topics: Vec<TopicInfo>,
}

/// A broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Node id.
    pub node: NodeId,
    /// Address at which clients reach it, `host:port`.
    pub address: String,
    /// Number of shards.
    pub shards: u16,
}

/// A topic in [`MetadataReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    /// Name.
    pub name: String,
    /// Error, in which case the other fields are empty.
    pub error: Option<ErrorCode>,
    /// Topic id. Zero bytes if `error` is set.
    pub id: TopicId,
    /// Partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

/// Location of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionInfo {
    /// Number of the partition.
    pub index: PartitionIndex,
    /// Node that leads it. `None`: no leader is known at the moment.
    pub leader: Option<NodeId>,
    /// Shard of that node.
    pub shard: ShardId,
    /// The latest leader epoch that is known.
    pub leader_epoch: LeaderEpoch,
}

/// Creates a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopicRequest {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Configuration entries: Kafka's names, with values as text.
    pub configs: Vec<(String, String)>,
    /// Whether to only validate the request.
    pub validate_only: bool,
    /// Replicas of each partition; `None` for the broker's default.
    pub replicas: Option<u8>,
}

/// Reply to [`CreateTopicRequest`]. The broker sends it when every shard can serve the topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateTopicReply {
    /// Topic id.
    pub id: TopicId,
}

/// Deletes a topic by name. The reply has an empty body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteTopicRequest {
    /// Name.
    pub name: String,
}

/// Changes a topic. The reply has an empty body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterTopicRequest {
    /// Name.
    pub name: String,
    /// Configuration entries to set (`Some`) or reset to the default (`None`).
    pub configs: Vec<(String, Option<String>)>,
    /// New number of partitions, which must not be lower than the current one.
    pub partitions: Option<u32>,
}

/// Requests a topic's details.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeTopicRequest {
    /// Name.
    pub name: String,
}

/// The configuration and the partitions of a topic: the reply to [`DescribeTopicRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeTopicReply {
    /// Topic id.
    pub id: TopicId,
    /// Every configuration entry as name and value, and whether it was set for this topic.
    pub configs: Vec<(String, String, bool)>,
    /// Partitions.
    pub partitions: Vec<PartitionDetail>,
}

/// A partition in [`DescribeTopicReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionDetail {
    /// Location.
    pub info: PartitionInfo,
    /// Nodes with replicas, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The nodes of them that were in sync when the leader last said so.
    pub in_sync: Vec<NodeId>,
    /// Its log, from the node that leads it. `None` in a reply of another node.
    pub log: Option<LogDetail>,
}

/// The log of a partition in [`PartitionDetail`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogDetail {
    /// First offset that can be read.
    pub log_start: Offset,
    /// Offset after the last acknowledged record.
    pub high_watermark: Offset,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether part of it cannot be read because of damage.
    pub faulty: bool,
    /// How far it is compacted. `None`: its topic is not compacted.
    pub compaction: Option<CompactionDetail>,
}

/// The state of compaction in [`LogDetail`]. Passes are those since the start of the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionDetail {
    /// Bytes that passes have compacted.
    pub clean_bytes: u64,
    /// Bytes that the next pass may compact.
    pub dirty_bytes: u64,
    /// The offset up to which every record has been compacted.
    pub compacted_to: Offset,
    /// Passes that have ended in order.
    pub passes: u64,
    /// When the last of them ended, by the broker's clock; `None`: there was none.
    pub last_pass: Option<Timestamp>,
    /// Bytes that passes have read and replaced.
    pub bytes_before: u64,
    /// Bytes that have replaced them.
    pub bytes_after: u64,
}

/// Reply to an `InitProducer` request, whose body is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitProducerReply {
    /// Producer id.
    pub producer: ProducerId,
    /// Producer epoch.
    pub epoch: i16,
}

/// Has a broker return its free space to the file system, all but this much. The reply has an empty body and is sent at once; the broker's
/// counters show the progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReleaseSpaceRequest {
    /// Bytes that are kept for new records.
    pub kept_bytes: u64,
}

/// The counters of a broker: the reply to a `Stats` request, whose body is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsReply {
    /// The broker's shards, in order.
    pub shards: Vec<ShardStats>,
}

/// A shard in [`StatsReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardStats {
    /// Number of the shard.
    pub shard: ShardId,
    /// Counters by name. The set depends on the broker's version.
    pub counters: Vec<(String, u64)>,
}

impl StatsReply {
    /// Returns the sum of a counter over the shards, or `None` if there is no such counter.
    pub fn total(&self, name: &str) -> Option<u64> {
        let counters = self.shards.iter().flat_map(|shard| &shard.counters);
        counters.filter(|(found, _)| found == name).map(|(_, value)| *value).reduce(u64::wrapping_add)
    }
}

/// When the broker acknowledges a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Acks {
    /// Never: there is no reply.
    None = 0,
    /// Once it is on the leader's stable storage.
    Leader = 1,
    /// Once it is on the stable storage of a majority of the replicas. The default.
    All = 2,
}

impl Acks {
    /// Returns the value with this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            2 => Some(Self::All),
            _ => None,
        }
    }
}

/// Fields before the batch in the body of a produce request.
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

/// Reply to a produce request.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProduceReply {
    /// Offset of the batch's first record.
    pub base_offset: I64,
    /// Timestamp that the broker gave the batch if the topic uses log append time, else -1.
    pub log_append_time: I64,
    /// First offset that can be read.
    pub log_start: I64,
}

/// Where to start reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The first available record.
    Earliest,
    /// After the last acknowledged record.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record with this timestamp or a later one.
    Timestamp(Timestamp),
}

/// Opens a subscription; its id is the request id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscribeRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where to start.
    pub start: Start,
    /// Bytes of frames that the server may send before it receives more credit.
    pub credit_bytes: u64,
}

/// Reply to [`SubscribeRequest`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SubscribeReply {
    /// Offset at which the subscription starts.
    pub start: I64,
    /// First offset that can be read.
    pub log_start: I64,
    /// Offset after the last acknowledged record.
    pub high_watermark: I64,
}

/// Body of a credit message.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Credit {
    /// Bytes released since the last credit message.
    pub bytes: U64,
}

/// Bit of [`Hello::features`]: the client knows that records can be lost, and continues after them.
///
/// The broker reports lost records with a data message or a fetch reply that has no frames and whose `next_offset` is after the
/// requested or current offset: the records before `next_offset` are damaged or lost. A client without this feature gets an error
/// instead and has to find out for itself where to continue.
pub const FEATURE_DAMAGE: u64 = 2;

/// Fields before the frames of a data message and of a fetch reply.
///
/// The first frame contains the requested offset, and may contain earlier records too. Padding and internal frames may be included;
/// clients skip them.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DataPrefix {
    /// Offset at which to continue: after the last record of these frames, or after records that are lost.
    pub next_offset: I64,
    /// First offset that can be read.
    pub log_start: I64,
    /// Offset after the last acknowledged record.
    pub high_watermark: I64,
}

/// Bytes of a [`DataPrefix`].
pub const DATA_PREFIX_BYTES: usize = 24;
const _: () = assert!(core::mem::size_of::<DataPrefix>() == DATA_PREFIX_BYTES);

/// Requests frames once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where to start.
    pub start: Start,
    /// Maximum bytes of frames; at least one whole frame is returned regardless.
    pub max_bytes: u32,
    /// Minimum bytes of frames to wait for; with 0 and 1 the reply is sent as soon as there is a record.
    pub min_bytes: u32,
    /// Maximum time to wait for `min_bytes`, in milliseconds.
    pub wait_ms: u32,
}

/// Requests offsets. Any shard of the node answers for all of its partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsRequest {
    /// The topic.
    pub topic: TopicId,
    /// Partitions, each with the position to look up.
    pub partitions: Vec<(PartitionIndex, Start)>,
}

/// Reply to [`ListOffsetsRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsReply {
    /// One entry per requested partition, in the order of the request.
    pub partitions: Vec<ListedOffset>,
}

/// An entry of [`ListOffsetsReply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// Offset and, for a lookup by timestamp, the timestamp of the record found. `Ok(None)`: no record is that late.
    pub found: Result<Option<(Offset, Option<Timestamp>)>, ErrorCode>,
}

/// Commits offsets of a named consumer. The reply has an empty body and is sent once the offsets are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitOffsetsRequest {
    /// Name of the consumer.
    pub consumer: String,
    /// The topic.
    pub topic: TopicId,
    /// Offsets to commit.
    pub positions: Vec<CommittedOffset>,
}

/// A committed offset of a partition: the next offset to consume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// Offset at which to continue.
    pub offset: Offset,
    /// Leader epoch of the last record consumed, or -1.
    pub leader_epoch: i32,
    /// Opaque metadata stored with the offset.
    pub metadata: String,
}

/// Requests the committed offsets of a named consumer in a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadOffsetsRequest {
    /// Name of the consumer.
    pub consumer: String,
    /// The topic.
    pub topic: TopicId,
}

/// Reply to [`ReadOffsetsRequest`]. Partitions without a committed offset are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadOffsetsReply {
    /// Committed offsets, by partition.
    pub positions: Vec<CommittedOffset>,
}

/// Advances the start of partitions. The reply has an empty body and is sent once the change is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordsRequest {
    /// The topic.
    pub topic: TopicId,
    /// New first offset of each partition.
    pub partitions: Vec<(PartitionIndex, Offset)>,
}
