//! Decoded requests.

use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::{
    Acks, AlterTopicRequest, CommitGroupOffsetsRequest, CommitOffsetsRequest, CreateTopicRequest,
    DeleteGroupRequest, DeleteRecordsRequest, DeleteTopicRequest, DescribeGroupRequest, DescribeTopicRequest,
    FetchRequest, GroupHeartbeatRequest, Hello, ListGroupsRequest, ListOffsetsRequest, MessageKind,
    MetadataRequest, ReadGroupOffsetsRequest, ReadOffsetsRequest, ReleaseSpaceRequest, SubscribeRequest,
};
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};

/// A complete message from a client.
#[derive(Debug)]
pub struct Received<'a> {
    /// Request id, which the reply repeats; for messages about a subscription, the number of the subscription.
    pub id: u64,
    /// Kind, which the reply repeats.
    pub kind: MessageKind,
    /// Size of the part of its body that is kept, in bytes.
    pub bytes: usize,
    /// The request.
    pub request: Request<'a>,
}

/// A request.
#[derive(Debug)]
pub enum Request<'a> {
    /// Opens the connection. Always the first request, and only the first.
    Hello(Hello),
    /// Returns nodes and topics.
    Metadata(MetadataRequest),
    /// Creates a topic.
    CreateTopic(CreateTopicRequest),
    /// Deletes a topic.
    DeleteTopic(DeleteTopicRequest),
    /// Changes the settings of a topic, or adds partitions.
    AlterTopic(AlterTopicRequest),
    /// Describes a topic.
    DescribeTopic(DescribeTopicRequest),
    /// Returns a producer id.
    InitProducer,
    /// Appends a batch.
    Produce(Produce<'a>),
    /// Subscribes to a partition.
    Subscribe(SubscribeRequest),
    /// Returns this many bytes of credit to a subscription. Has no reply.
    Credit(u64),
    /// Ends a subscription.
    Unsubscribe,
    /// Fetches frames once.
    Fetch(FetchRequest),
    /// Finds offsets by time, or the first or last.
    ListOffsets(ListOffsetsRequest),
    /// Commits offsets of a named consumer.
    CommitOffsets(CommitOffsetsRequest),
    /// Returns the committed offsets of a named consumer.
    ReadOffsets(ReadOffsetsRequest),
    /// Deletes the records of partitions before an offset.
    DeleteRecords(DeleteRecordsRequest),
    /// Returns the broker's counters.
    Stats,
    /// Heartbeat of a group member, which also joins and leaves with it.
    GroupHeartbeat(GroupHeartbeatRequest),
    /// Commits offsets of a group.
    CommitGroupOffsets(CommitGroupOffsetsRequest),
    /// Returns the committed offsets of a group.
    ReadGroupOffsets(ReadGroupOffsetsRequest),
    /// Lists groups.
    ListGroups(ListGroupsRequest),
    /// Describes a group and its members.
    DescribeGroup(DescribeGroupRequest),
    /// Deletes a group.
    DeleteGroup(DeleteGroupRequest),
    /// Returns free space to the file system.
    ReleaseSpace(ReleaseSpaceRequest),
}

/// A batch to append. It has not been checked.
#[derive(Debug)]
pub struct Produce<'a> {
    /// The partition.
    pub to: TopicPartition,
    /// When to acknowledge it.
    pub acks: Acks,
    /// The batch.
    pub batch: Batch<'a>,
}

/// The bytes of a batch.
#[derive(Debug)]
pub enum Batch<'a> {
    /// In a receive buffer, from which it has to be copied.
    Small(&'a [u8]),
    /// In pages of its own, after space for a frame header.
    Bulk {
        /// The batch is at `FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes`. The bytes around it are unspecified.
        pages: AlignedBuf,
        /// Size of the batch in bytes.
        batch_bytes: usize,
    },
    /// Larger than the broker accepts. Its bytes were discarded.
    TooLarge {
        /// Size of the batch in bytes.
        bytes: usize,
    },
}

/// Allocates pages for a large batch and the space before it, `end` bytes together.
pub(crate) fn bulk_pages(end: usize) -> AlignedBuf {
    // With space for the padding that follows the frame in the log, so that the batch need not be moved.
    let mut pages = AlignedBuf::new(end.saturating_add(PAGE_BYTES));
    pages.truncate(end);
    pages
}
