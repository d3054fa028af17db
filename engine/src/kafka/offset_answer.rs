//! The response to OffsetFetch: built topic by topic, and encoded in pieces.

use std::iter::Peekable;
use std::vec::IntoIter;

use bytes::BytesMut;
use highwater_net::Entries;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    OffsetFetchGroupPartitionResponse, OffsetFetchGroupResponse, OffsetFetchGroupTopicResponse,
    OffsetFetchResponse,
};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::error::code;
use super::offset_fetch::{Group, RequestedTopic};
use crate::context::{AnswerTo, ClientJob, Context, ReplyMemory};
use crate::coord::groups::{CommittedPartition, FetchReply};
use crate::counters::Work;
use crate::limits::PARTITIONS_PER_PART;

type GroupEntry = OffsetFetchGroupResponse<'static>;
type TopicEntry = OffsetFetchGroupTopicResponse<'static>;
type PartitionEntry = OffsetFetchGroupPartitionResponse<'static>;

/// The offset of a partition without a committed offset.
const NO_OFFSET: i64 = -1;

/// The first version with an error code for each group.
const ERROR_FROM: i16 = 2;

/// The first version with several groups in a response.
const GROUPS_FROM: i16 = 8;

/// A response that is being built.
pub(super) struct FillJob {
    call: Call,
    groups: IntoIter<Group>,
    replies: Result<IntoIter<FetchReply>, KafkaError>,
    current: Option<Current>,
    found: Vec<GroupEntry>,
    parts: Vec<Part>,
    /// Bytes of memory of the requested names and partitions, with or without offsets.
    name_bytes: usize,
    /// The memory that the offsets are charged to.
    memory: ReplyMemory,
}

/// The group that is being filled in, which is the last one of the response.
struct Current {
    all: bool,
    topics: IntoIter<RequestedTopic>,
    /// The offsets, in the order of the request.
    offsets: Peekable<IntoIter<CommittedPartition>>,
    /// The error for partitions without an offset.
    error: KafkaError,
}

/// A part of the response: some partitions of a topic, with the fields before and after them if they are the first or the last.
#[derive(Clone, Copy, Debug)]
struct Part {
    group: u32,
    topic: u32,
    from: u32,
}

impl ClientJob for FillJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over() {
            let Some(mut current) = self.current.take() else {
                let Some(group) = self.groups.next() else { return true };
                work.spend(1);
                self.begin(group);
                continue;
            };
            let topic = if current.all {
                current.next_topic_with_offsets(context, work)
            } else {
                current.topics.next().map(|topic| current.fill(topic, work))
            };
            match topic {
                None => self.end(),
                Some(topic) => {
                    self.push(topic);
                    self.current = Some(current);
                }
            }
        }
        self.current.is_none() && self.groups.len() == 0
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        answer_offsets(context, *self);
    }
}

impl FillJob {
    pub(super) fn new(
        call: Call,
        groups: Vec<Group>,
        replies: Result<Vec<FetchReply>, KafkaError>,
        memory: ReplyMemory,
    ) -> Self {
        let found = Vec::with_capacity(groups.len());
        let replies = replies.map(Vec::into_iter);
        let groups = groups.into_iter();
        Self { call, groups, replies, current: None, found, parts: Vec::new(), name_bytes: 0, memory }
    }

    fn begin(&mut self, group: Group) {
        let Group { name, all, topics, .. } = group;
        let reply = match &mut self.replies {
            Ok(replies) => replies.next().ok_or(KafkaError::UNKNOWN_SERVER_ERROR),
            Err(error) => Err(*error),
        };
        let (error_code, offsets) = match reply {
            Ok(FetchReply { error, offsets }) => (code(error), offsets),
            Err(error) => (error, Vec::new()),
        };
        // The oldest versions have no other field for the error.
        let lists_partitions = !error_code.is_err() || (self.call.version() < ERROR_FROM && !all);
        self.found.push(GroupEntry { group_id: name.into(), topics: Vec::new(), error_code });
        self.current = Some(Current {
            all,
            topics: if lists_partitions { topics } else { Vec::new() }.into_iter(),
            offsets: if lists_partitions { offsets } else { Vec::new() }.into_iter().peekable(),
            error: error_code,
        });
    }

    /// Adds a topic to the last group.
    fn push(&mut self, topic: TopicEntry) {
        let group = self.found.len() as u32 - 1;
        let Some(found) = self.found.last_mut() else { return };
        self.name_bytes += topic.name.len() + size_of_val(&topic.partitions[..]) + size_of::<TopicEntry>();
        let number = found.topics.len() as u32;
        let partitions = topic.partitions.len().max(1) as u32;
        let from = (0..partitions).step_by(PARTITIONS_PER_PART);
        self.parts.extend(from.map(|from| Part { group, topic: number, from }));
        found.topics.push(topic);
    }

    /// Ends a group. A group without topics is a part too.
    fn end(&mut self) {
        let group = self.found.len() as u32 - 1;
        if self.found.last().is_some_and(|found| found.topics.is_empty()) {
            self.parts.push(Part { group, topic: 0, from: 0 });
        }
    }
}

impl Current {
    /// Returns the requested partitions of a topic, with their offsets.
    fn fill(&mut self, topic: RequestedTopic, work: &mut Work) -> TopicEntry {
        work.spend(1 + topic.partitions.len() / 16);
        let RequestedTopic { name, id, error, partitions, .. } = topic;
        let error_code = if error.is_err() { error } else { self.error };
        let is_of = |of: &CommittedPartition, index| {
            of.topic.0 == id && i64::from(of.partition.0) == i64::from(index)
        };
        let partitions =
            partitions.into_iter().map(|index| match self.offsets.next_if(|of| is_of(of, index)) {
                Some(offset) => partition_entry(offset),
                None => PartitionEntry {
                    partition_index: index,
                    committed_offset: NO_OFFSET,
                    committed_leader_epoch: -1,
                    metadata: Some("".into()),
                    error_code,
                },
            });
        TopicEntry { name: name.into(), topic_id: id, partitions: partitions.collect() }
    }

    /// Returns the next topic with offsets. Topics that were deleted meanwhile are left out.
    fn next_topic_with_offsets(&mut self, context: &Context<'_>, work: &mut Work) -> Option<TopicEntry> {
        loop {
            let id = self.offsets.peek()?.topic;
            let of_topic = std::iter::from_fn(|| self.offsets.next_if(|of| of.topic == id));
            let partitions: Vec<PartitionEntry> = of_topic.map(partition_entry).collect();
            work.spend(1 + partitions.len() / 16);
            if let Some(topic) = context.metadata.and_then(|metadata| metadata.topic_by_id(id)) {
                return Some(TopicEntry { name: topic.name.clone().into(), topic_id: id.0, partitions });
            }
        }
    }
}

fn partition_entry(offset: CommittedPartition) -> PartitionEntry {
    PartitionEntry {
        partition_index: offset.partition.0 as i32,
        committed_offset: offset.offset.0,
        committed_leader_epoch: offset.leader_epoch.0,
        metadata: Some(offset.metadata.into()),
        error_code: KafkaError::NONE,
    }
}

/// Sends the response.
pub(super) fn answer_offsets(context: &mut Context<'_>, filling: FillJob) {
    let FillJob { call, found: groups, parts, name_bytes, memory, .. } = filling;
    let version = call.version();
    let (entries, error_code) = match groups.first() {
        Some(group) if version < GROUPS_FROM => (group.topics.len(), group.error_code),
        _ => (groups.len(), KafkaError::NONE),
    };
    let response = OffsetFetchResponse { error_code, ..Default::default() };
    let Frame { front, back } = response.frame(version, entries);
    let name_bytes = name_bytes + size_of_val(&groups[..]) + size_of_val(&parts[..]);
    let pieces = memory.hold(front, Offsets { version, groups, parts, name_bytes }, back);
    context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
}

/// The groups of a response.
#[derive(Debug)]
struct Offsets {
    version: i16,
    groups: Vec<GroupEntry>,
    parts: Vec<Part>,
    name_bytes: usize,
}

impl Entries for Offsets {
    fn count(&self) -> usize {
        self.parts.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let Part { group, topic, from } = self.parts[entry];
        let group = &self.groups[group as usize];
        let (topic, from) = (topic as usize, from as usize);
        if (topic, from) == (0, 0) {
            group.put_front(self.version, group.topics.len(), out);
        }
        let until = from + PARTITIONS_PER_PART;
        let mut is_last = true;
        if let Some(of) = group.topics.get(topic) {
            if from == 0 {
                of.put_front(self.version, out);
            }
            for partition in of.partitions.iter().skip(from).take(PARTITIONS_PER_PART) {
                partition.put(self.version, out);
            }
            is_last = until >= of.partitions.len();
            if is_last {
                TopicEntry::put_back(self.version, out);
            }
        }
        if is_last && topic + 1 >= group.topics.len() {
            group.put_back(self.version, out);
        }
        false
    }

    fn memory_bytes(&self) -> usize {
        // A `ReplyMemory` counts the offsets.
        self.name_bytes
    }
}
