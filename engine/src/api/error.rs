//! Errors of requests, independent of any wire format.

use highwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId};
use highwater_protocol::text::counted;
use highwater_protocol::topic::GROUPS_TOPIC;
use highwater_storage::AppendError;

/// A service of the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// The controller: topics and their configuration.
    Controller,
    /// The controller, as the source of producer ids.
    ProducerIds,
    /// The group coordinator.
    Groups,
    /// The owner of a partition.
    Partitions,
}

/// Why a request, or a part of one, failed. Displays as the text for the client: what failed, on which thing, and what to do. Requests that
/// concern one topic have its name, and clients put it before the text, so errors of these do not repeat it.
///
/// Each protocol maps it to its own codes in one place: `native/error.rs` and `kafka/error.rs`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApiError {
    /// The broker is starting, and this service is not ready.
    #[error("the broker is starting; try again")]
    Starting(Service),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping(Service),
    /// No topic has this name.
    #[error("there is no topic {0}")]
    UnknownTopic(String),
    /// No topic has this id.
    #[error("there is no topic with id {0}")]
    UnknownTopicId(TopicId),
    /// The topic was deleted while the request was pending.
    #[error("the topic was deleted")]
    TopicDeleted,
    /// The topic has no such partition.
    #[error("the topic has {}, numbered from 0, and no partition {partition}", counted(*count, "partition"))]
    UnknownPartition {
        /// The partition in the request.
        partition: PartitionIndex,
        /// The number of partitions that the topic has.
        count: usize,
    },
    /// Another shard owns the partition.
    #[error(
        "{topic}/{partition} lives on shard {owner} of this node, this connection on shard {here}; ask for metadata and connect there"
    )]
    WrongShard {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
        /// The shard that owns it.
        owner: ShardId,
        /// The shard of the connection.
        here: ShardId,
    },
    /// A topic with this name exists.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// The topic name is invalid, for this reason.
    #[error("{0}")]
    InvalidTopicName(String),
    /// The number of partitions is invalid, for this reason.
    #[error("{0}")]
    InvalidPartitionCount(String),
    /// Partitions cannot have so many replicas, for this reason.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// Partitions cannot have their replicas on the requested nodes, for this reason.
    #[error("{0}")]
    InvalidAssignment(String),
    /// The topic belongs to the broker: clients can only read it.
    #[error("the topic is the broker's own: clients can read it, but not write, change or delete it")]
    InternalTopic,
    /// A setting of a topic is invalid, for this reason, which names the setting.
    #[error("{0}")]
    InvalidConfig(String),
    /// Too many connections are open.
    #[error("{0}")]
    TooManyConnections(String),
    /// A node cannot be registered like this, for this reason.
    #[error("{0}")]
    InvalidNode(String),
    /// Another node leads the metadata, or none.
    #[error("this node does not lead the cluster's metadata; try again")]
    NotController,
    /// The metadata log cannot grow.
    #[error("the disk is full: the metadata log cannot grow; free some space and try again")]
    MetadataLogFull,
    /// More producers request ids at this moment than a block has.
    #[error("producer ids are used up for the moment; try again")]
    ProducerIdsTaken,
    /// No producer id is left.
    #[error("all producer ids are used up")]
    ProducerIdsExhausted,
    /// The answer would describe more producers than one answer may.
    #[error("the partitions have too many producers for one answer; ask for fewer partitions")]
    TooManyProducers,
    /// The reply would take more memory than there is for all replies.
    #[error(
        "the reply would take {bytes} bytes of memory, and there are {max} for replies; ask for less, or start the broker with a larger --memory"
    )]
    ReplyTooLarge {
        /// The memory that it would take.
        bytes: usize,
        /// The memory of the shard for what it sends.
        max: usize,
    },
    /// A search by time would have to decompress a batch with more memory than there is.
    #[error(
        "a search by time has to decompress a batch that takes more than {bytes} bytes of memory, and there are {max} for searches; start the broker with a larger --memory"
    )]
    SearchTooLarge {
        /// The memory that it has taken.
        bytes: usize,
        /// The memory of the shard for what it reads and sends.
        max: usize,
    },
    /// The offset is not between the start and the end of the partition.
    #[error("{partition}: offset {offset} is out of range: the partition has {start} to {end}")]
    OffsetOutOfRange {
        /// Topic and partition.
        partition: String,
        /// The offset in the request.
        offset: Offset,
        /// The first offset that can be read.
        start: Offset,
        /// The offset after the last that can be read.
        end: Offset,
    },
    /// The offset is after the end of a damaged partition.
    #[error(
        "{partition}: offset {offset} is after {end}, the end of a damaged partition: the records between may be lost; \
         `highwater log repair` shows what is"
    )]
    OffsetAfterDamage {
        /// Topic and partition.
        partition: String,
        /// The offset in the request.
        offset: Offset,
        /// The offset after the last known record.
        end: Offset,
    },
    /// The partition that keeps a group lacks acknowledged records.
    #[error(
        "the groups in {GROUPS_TOPIC}/{0} are out of service, because that partition is damaged or lacks records that the disk had no space for; see the broker's log"
    )]
    GroupsDamaged(PartitionIndex),
    /// The partition that keeps groups of this core has records that can be read when there is disk space.
    #[error(
        "the groups of this core are out of service until there is space on the disk for records of {GROUPS_TOPIC}/{0} that were found at the start"
    )]
    GroupsAwaitSpace(PartitionIndex),
    /// Part of the partition cannot be read.
    #[error("part of the partition cannot be read; see the broker's log")]
    PartitionDamaged,
    /// The records at an offset are damaged on disk.
    #[error(
        "{partition}: the records at offset {offset} are damaged on disk; the next readable record is at offset {resume_at}"
    )]
    RecordsDamaged {
        /// Topic and partition.
        partition: String,
        /// The first damaged offset.
        offset: Offset,
        /// The next offset that can be read.
        resume_at: Offset,
    },
    /// This replica does not lead the partition.
    #[error("{partition}: this node does not lead the partition; {}", leader_hint(*leader, *epoch))]
    NotLeader {
        /// Topic and partition.
        partition: String,
        /// The node that leads it, if this one knows.
        leader: Option<NodeId>,
        /// The latest leader epoch that this node knows.
        epoch: LeaderEpoch,
    },
    /// This replica has just become the leader.
    #[error(
        "{partition}: this node is the new leader and does not know yet which records are committed; try again"
    )]
    LeaderNotReady {
        /// Topic and partition.
        partition: String,
    },
    /// The client's metadata is older than the leader.
    #[error(
        "{partition}: leader epoch {known} has ended, and {epoch} is the current one; ask for metadata and try again"
    )]
    FencedLeaderEpoch {
        /// Topic and partition.
        partition: String,
        /// The epoch in the request.
        known: LeaderEpoch,
        /// The current one.
        epoch: LeaderEpoch,
    },
    /// The client's metadata is newer than this replica.
    #[error("{partition}: this node has not heard of leader epoch {known} yet, but of {epoch}; try again")]
    UnknownLeaderEpoch {
        /// Topic and partition.
        partition: String,
        /// The epoch in the request.
        known: LeaderEpoch,
        /// The latest that this replica knows.
        epoch: LeaderEpoch,
    },
    /// The partition that keeps a group is led by another node.
    #[error(
        "another node coordinates the groups in {GROUPS_TOPIC}/{0}, or none does at this moment; ask for the coordinator and try again"
    )]
    NotCoordinator(PartitionIndex),
    /// This node has begun to lead the partition that keeps a group, and reads it.
    #[error(
        "the groups in {GROUPS_TOPIC}/{0} are being loaded, because another node coordinated them before; try again"
    )]
    LoadingGroups(PartitionIndex),
    /// Fewer replicas are reachable than an acknowledgement needs.
    #[error(
        "{partition}: {live} replicas can be reached and min.insync.replicas asks for {needed}; nothing was written; try again when more of them run"
    )]
    NotEnoughReplicas {
        /// Topic and partition.
        partition: String,
        /// Replicas within reach, with the leader.
        live: usize,
        /// Replicas that must have a batch before it is acknowledged.
        needed: usize,
    },
    /// A batch was appended, and fewer replicas are reachable than its acknowledgement needs.
    #[error(
        "{partition}: the batch was written, but {live} replicas can be reached and min.insync.replicas asks for {needed}; send it again when more \
         of them run"
    )]
    NotEnoughReplicasAfterAppend {
        /// Topic and partition.
        partition: String,
        /// Replicas within reach, with the leader.
        live: usize,
        /// Replicas that must have a batch before it is acknowledged.
        needed: usize,
    },
    /// The store did not append a batch.
    #[error("{partition}: {error}")]
    Append {
        /// Topic and partition.
        partition: String,
        /// Why not.
        error: AppendError,
    },
    /// An earlier batch of the same producer was rejected and has to be appended before this one.
    #[error("the batch with sequence {sequence} before it was rejected; send that one first, then this one")]
    EarlierBatchRejected {
        /// The first sequence of the rejected batch.
        sequence: i32,
    },
    /// A bug of the broker; its log has the details.
    #[error("internal error: {0}; see the broker's log")]
    Internal(&'static str),
}

/// Says where to find the leader.
fn leader_hint(leader: Option<NodeId>, epoch: LeaderEpoch) -> String {
    match leader {
        Some(leader) => {
            format!("node {leader} leads it in epoch {epoch}: ask for metadata and connect there")
        }
        None => format!("it knows of no leader since epoch {epoch}: ask for metadata and try again"),
    }
}

impl ApiError {
    /// The error for a reply of another kind than its request needs: a bug, which fails only this request.
    pub(crate) fn wrong_reply(reply: &impl std::fmt::Debug) -> Self {
        tracing::error!(?reply, "a request was answered with a reply of another kind");
        Self::Internal("a reply of another kind came back")
    }

    /// One of each kind.
    #[cfg(test)]
    pub(crate) fn samples() -> Vec<Self> {
        use highwater_protocol::ids::Timestamp;

        let (topic, partition) = ("t".to_owned(), PartitionIndex(3));
        let reason = "because".to_owned();
        let services = [Service::Controller, Service::ProducerIds, Service::Groups, Service::Partitions];
        let starting = services.into_iter().map(Self::Starting);
        let stopping = services.into_iter().map(Self::Stopping);
        let others = [
            Self::UnknownTopic(topic.clone()),
            Self::UnknownTopicId(TopicId([1; 16])),
            Self::TopicDeleted,
            Self::UnknownPartition { partition, count: 3 },
            Self::WrongShard { topic: topic.clone(), partition, owner: ShardId(1), here: ShardId(0) },
            Self::TopicExists(topic.clone()),
            Self::InvalidTopicName(reason.clone()),
            Self::InternalTopic,
            Self::InvalidPartitionCount(reason.clone()),
            Self::InvalidReplicationFactor(reason.clone()),
            Self::InvalidAssignment(reason.clone()),
            Self::InvalidNode(reason.clone()),
            Self::NotController,
            Self::InvalidConfig(reason.clone()),
            Self::TooManyConnections(reason.clone()),
            Self::MetadataLogFull,
            Self::ProducerIdsTaken,
            Self::ProducerIdsExhausted,
            Self::TooManyProducers,
            Self::ReplyTooLarge { bytes: 2, max: 1 },
            Self::SearchTooLarge { bytes: 2, max: 1 },
            Self::OffsetOutOfRange {
                partition: reason.clone(),
                offset: Offset(5),
                start: Offset(0),
                end: Offset(4),
            },
            Self::OffsetAfterDamage { partition: reason.clone(), offset: Offset(5), end: Offset(4) },
            Self::GroupsDamaged(PartitionIndex(3)),
            Self::GroupsAwaitSpace(PartitionIndex(3)),
            Self::PartitionDamaged,
            Self::RecordsDamaged { partition: reason.clone(), offset: Offset(5), resume_at: Offset(6) },
            Self::NotLeader { partition: reason.clone(), leader: Some(NodeId(2)), epoch: LeaderEpoch(3) },
            Self::NotLeader { partition: reason.clone(), leader: None, epoch: LeaderEpoch(3) },
            Self::LeaderNotReady { partition: reason.clone() },
            Self::FencedLeaderEpoch {
                partition: reason.clone(),
                known: LeaderEpoch(3),
                epoch: LeaderEpoch(4),
            },
            Self::UnknownLeaderEpoch {
                partition: reason.clone(),
                known: LeaderEpoch(4),
                epoch: LeaderEpoch(3),
            },
            Self::NotCoordinator(PartitionIndex(3)),
            Self::LoadingGroups(PartitionIndex(3)),
            Self::NotEnoughReplicas { partition: reason.clone(), live: 1, needed: 2 },
            Self::NotEnoughReplicasAfterAppend { partition: reason, live: 1, needed: 2 },
            Self::EarlierBatchRejected { sequence: 3 },
            Self::Internal("because"),
        ];
        let append = [
            AppendError::StorageFull,
            AppendError::Faulty,
            AppendError::TooLarge { bytes: 2, max: 1 },
            AppendError::Busy,
            AppendError::Duplicate {
                base_offset: Offset(1),
                next_offset: Offset(2),
                timestamp: Timestamp(3),
            },
            AppendError::OutOfOrder { expected: 4 },
            AppendError::Fenced,
            AppendError::Deleted,
        ];
        let append = append.into_iter().map(|error| Self::Append { partition: "t/3".to_owned(), error });
        starting.chain(stopping).chain(others).chain(append).collect()
    }
}
