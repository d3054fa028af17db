//! The groups made durable: the coordinator with one log on shard 0, many changes in one write.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    CommitOffsetsRequest, CommittedOffset, ReadOffsetsReply, ReadOffsetsRequest,
};
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token as DiskToken};
use highwater_storage::state_log::{Fatal, Recovered, StateLog};

use crate::groups::{
    CommitRequest, CommittedPartition, FetchRequest, GroupConfig, GroupCoordinator, GroupError, GroupReply,
    GroupRequest, GroupsError, Now, Token,
};
use crate::limits::OFFSETS_BYTES_MAX;
use crate::message::{Answer, Ticket};
use crate::metadata::Topic;

pub(crate) struct GroupsLog {
    log: StateLog,
    coordinator: GroupCoordinator,
    /// The log's number before the coordinator's first record; both count on from there.
    base: u64,
    /// Who waits for the reply to which token.
    asked: BTreeMap<Token, Asked>,
    last_token: u64,
}

/// Something about groups.
pub(crate) enum Question {
    /// From the native protocol: a named consumer commits.
    Commit(CommitOffsetsRequest),
    /// From the native protocol: a named consumer reads its positions.
    Read(ReadOffsetsRequest),
    /// Anything else.
    Group(GroupRequest),
}

struct Asked {
    to: (ShardIndex, Ticket),
    form: Form,
}

/// How the answer has to look.
enum Form {
    /// To a commit of this named consumer.
    Committed(String),
    /// The positions in this topic.
    Positions(TopicId),
    /// As it comes.
    Group,
}

impl GroupsLog {
    pub(crate) fn new(
        log: StateLog,
        recovered: &Recovered,
        config: GroupConfig,
        now: Now,
    ) -> Result<Self, GroupsError> {
        let records = recovered.records.iter().map(|r| &r[..]);
        let snapshot = recovered.snapshot.as_deref();
        let coordinator = GroupCoordinator::recover(config, now, snapshot, records)?;
        let base = log.appended().0;
        Ok(Self { log, coordinator, base, asked: BTreeMap::new(), last_token: 0 })
    }

    /// Takes a question. The answer comes when what it tells of is durable.
    pub(crate) fn ask(&mut self, now: Now, to: (ShardIndex, Ticket), question: Question, random: [u8; 16]) {
        let (form, request) = match question {
            Question::Commit(request) => (Form::Committed(request.consumer.clone()), to_commit(request)),
            Question::Read(request) => (
                Form::Positions(request.topic),
                GroupRequest::Fetch(FetchRequest {
                    group: request.consumer,
                    member: None,
                    partitions: None,
                    require_stable: false,
                }),
            ),
            Question::Group(request) => (Form::Group, request),
        };
        self.last_token += 1;
        let token = Token(self.last_token);
        self.asked.insert(token, Asked { to, form });
        self.coordinator.handle_stalled(self.log.is_stalled());
        self.coordinator.handle(now, token, request, random);
    }

    /// A topic is new or has changed.
    pub(crate) fn handle_topic(&mut self, topic: &Topic) {
        self.coordinator.handle_topic(topic.id, &topic.name, topic.stores.len() as u32);
    }

    /// Forgets a topic.
    pub(crate) fn delete_topic(&mut self, topic: TopicId) {
        self.coordinator.handle_topic_deleted(topic);
    }

    /// Forgets the offsets in topics that `keep` says no to.
    pub(crate) fn retain_topics(&mut self, keep: impl Fn(TopicId) -> bool) {
        self.coordinator.retain_topics(keep);
    }

    /// When [`Self::handle_time`] has something to do, in milliseconds of [`Now::ms`].
    pub(crate) fn next_deadline(&self) -> u64 {
        self.coordinator.next_deadline()
    }

    pub(crate) fn handle_time(&mut self, now: Now) {
        self.coordinator.handle_stalled(self.log.is_stalled());
        self.coordinator.handle_time(now);
    }

    /// An answer whose time has come.
    pub(crate) fn poll(&mut self) -> Option<((ShardIndex, Ticket), Answer)> {
        let (token, reply) = self.coordinator.poll_reply()?;
        let Asked { to, form } = self.asked.remove(&token).expect("every token is answered once");
        let answer = match (form, reply) {
            (Form::Committed(consumer), GroupReply::Commit(outcomes)) => {
                let refused = outcomes.into_iter().find_map(|(topic, partition, error)| {
                    error.map(|error| refuse_commit(&consumer, topic, partition, error))
                });
                Answer::Reply(refused.unwrap_or(Reply::Empty))
            }
            (Form::Positions(topic), GroupReply::Fetch(reply)) => {
                let positions = reply.offsets.into_iter().filter(|p| p.topic == topic).map(to_position);
                Answer::Reply(Reply::body(&ReadOffsetsReply { positions: positions.collect() }))
            }
            (_, reply) => Answer::Group(reply),
        };
        Some((to, answer))
    }

    /// To be called at the end of every turn.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) {
        while let Some((seq, payload)) = self.coordinator.poll_record() {
            let appended = self.log.append(&payload);
            assert_eq!(appended.0, self.base + seq, "the coordinator's records are all that this log has");
        }
        self.log.flush(disk);
        if self.log.wants_snapshot() {
            self.log.snapshot(disk, Bytes::from(self.coordinator.encode_snapshot()));
        }
        self.coordinator.handle_durable(self.log.durable().0.saturating_sub(self.base));
    }

    /// An operation of the log is done.
    pub(crate) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: DiskToken,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.log.on_disk(disk, token, completion)
    }

    /// Tries again what the disk had no space for.
    pub(crate) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        if self.log.is_stalled() {
            self.log.retry_stalled(disk);
        }
    }

    /// Whether everything kept is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.log.is_idle()
    }
}

/// A named consumer is a group without members, whose offsets are kept until somebody deletes them.
fn to_commit(request: CommitOffsetsRequest) -> GroupRequest {
    let topic = request.topic;
    let offsets = request.positions.into_iter().map(|p| CommittedPartition {
        topic,
        partition: p.partition.0,
        offset: p.offset.0,
        leader_epoch: p.leader_epoch,
        metadata: p.metadata,
    });
    GroupRequest::Commit(CommitRequest {
        group: request.consumer,
        member: String::new(),
        instance: None,
        generation: -1,
        knows_epochs: true,
        forever: true,
        offsets: offsets.collect(),
    })
}

fn to_position(of: CommittedPartition) -> CommittedOffset {
    CommittedOffset {
        partition: PartitionIndex(of.partition),
        offset: Offset(of.offset),
        leader_epoch: of.leader_epoch,
        metadata: of.metadata,
    }
}

fn refuse_commit(consumer: &str, topic: TopicId, partition: u32, error: GroupError) -> Reply {
    let (code, text) = match error {
        GroupError::CoordinatorNotAvailable => {
            (ErrorCode::StorageFull, "the disk is full: positions cannot be kept".to_owned())
        }
        GroupError::InvalidCommitOffsetSize => (
            ErrorCode::TooLarge,
            format!("the positions of all consumers have reached their limit of {OFFSETS_BYTES_MAX} bytes"),
        ),
        GroupError::OffsetMetadataTooLarge => (
            ErrorCode::TooLarge,
            format!("what is to be kept with the position of partition {partition} is too long"),
        ),
        GroupError::UnknownTopicOrPartition => {
            (ErrorCode::UnknownPartition, format!("topic {topic} has no partition {partition}"))
        }
        GroupError::UnknownMemberId => (
            ErrorCode::InvalidArgument,
            format!(
                "{consumer} is a group with members, and only these commit; stop them or use another name"
            ),
        ),
        other => (ErrorCode::InvalidArgument, format!("positions of {consumer} cannot be kept: {other}")),
    };
    Reply::error(code, text)
}
