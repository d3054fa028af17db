//! What a client asked for.

use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::{
    Acks, AlterTopicRequest, CommitGroupOffsetsRequest, CommitOffsetsRequest, CreateTopicRequest,
    DeleteGroupRequest, DeleteRecordsRequest, DeleteTopicRequest, DescribeGroupRequest, DescribeTopicRequest,
    FetchRequest, GroupHeartbeatRequest, Hello, ListGroupsRequest, ListOffsetsRequest, MessageKind,
    MetadataRequest, ReadGroupOffsetsRequest, ReadOffsetsRequest, SubscribeRequest,
};
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};

/// A whole message of a client.
#[derive(Debug)]
pub struct Received<'a> {
    /// What its reply repeats; for messages about a subscription, the subscription's number.
    pub id: u64,
    /// Its kind, which its reply repeats.
    pub kind: MessageKind,
    /// Bytes of its body, as far as it is kept.
    pub bytes: usize,
    /// What it says.
    pub request: Request<'a>,
}

/// What a client asked for.
#[derive(Debug)]
pub enum Request<'a> {
    /// Greets. Always the first, and only the first.
    Hello(Hello),
    /// Nodes and topics.
    Metadata(MetadataRequest),
    /// A new topic.
    CreateTopic(CreateTopicRequest),
    /// A topic's end.
    DeleteTopic(DeleteTopicRequest),
    /// Other settings or more partitions.
    AlterTopic(AlterTopicRequest),
    /// A topic in detail.
    DescribeTopic(DescribeTopicRequest),
    /// A producer id.
    InitProducer,
    /// Append a batch.
    Produce(Produce<'a>),
    /// Push frames.
    Subscribe(SubscribeRequest),
    /// Go on pushing: this many bytes were released. Has no reply.
    Credit(u64),
    /// Stop pushing.
    Unsubscribe,
    /// Frames, once.
    Fetch(FetchRequest),
    /// Offsets by time or at the ends.
    ListOffsets(ListOffsetsRequest),
    /// Keep positions.
    CommitOffsets(CommitOffsetsRequest),
    /// Give positions.
    ReadOffsets(ReadOffsetsRequest),
    /// Move the start of partitions.
    DeleteRecords(DeleteRecordsRequest),
    /// What the broker has done so far.
    Stats,
    /// A member of a group joins, is there, or leaves.
    GroupHeartbeat(GroupHeartbeatRequest),
    /// Keep positions of a group.
    CommitGroupOffsets(CommitGroupOffsetsRequest),
    /// Give positions of a group.
    ReadGroupOffsets(ReadGroupOffsetsRequest),
    /// Which groups there are.
    ListGroups(ListGroupsRequest),
    /// A group with its members.
    DescribeGroup(DescribeGroupRequest),
    /// Forget a group.
    DeleteGroup(DeleteGroupRequest),
}

/// A batch to append. Nothing of the batch has been looked at.
#[derive(Debug)]
pub struct Produce<'a> {
    /// Where.
    pub to: TopicPartition,
    /// What its acknowledgement is to mean.
    pub acks: Acks,
    /// The batch.
    pub batch: Batch<'a>,
}

/// The bytes of a batch.
#[derive(Debug)]
pub enum Batch<'a> {
    /// In a receive buffer, to be copied.
    Small(&'a [u8]),
    /// In pages of its own, behind room for a frame header.
    Bulk {
        /// The batch is at `FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes`. What surrounds it is not defined.
        pages: AlignedBuf,
        /// Its length.
        batch_bytes: usize,
    },
    /// More than the broker takes, so nothing of it was kept.
    TooLarge {
        /// How much it was.
        bytes: usize,
    },
}

/// Pages for a large batch and the room in front of it, `end` bytes in all.
pub(crate) fn bulk_pages(end: usize) -> AlignedBuf {
    // Room for whatever padding has to follow the frame in the log, so that nothing moves there.
    let mut pages = AlignedBuf::new(end.saturating_add(PAGE_BYTES));
    pages.truncate(end);
    pages
}
