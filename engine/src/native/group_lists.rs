//! Replies about groups that may be long, encoded in pieces: lists, descriptions, and committed offsets.

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces, Reply};
use highwater_protocol::limits::CONTROL_BODY_BYTES_MAX;
use highwater_protocol::native::{
    CommittedOffset, DescribeGroupReply, DescribeGroupRequest, GroupInfo, GroupMemberInfo, ListGroupsReply,
    ListGroupsRequest, ReadGroupOffsetsReply, ReadGroupOffsetsRequest, ReadOffsetsReply, ReadOffsetsRequest,
    TopicPositions,
};

use highwater_protocol::ids::GroupEpoch;

use super::Call;
use super::error::reply_of;
use super::groups::{error_reply, to_partitions};
use crate::api::ApiError;
use crate::calls::{DescribeOneGroup, DescribedOneGroup, FetchOffsets, GroupList};
use crate::context::{AnswerTo, BodyLimit, Context, ReplyMemory};
use crate::coord::groups::{
    CommittedPartition, DescribedConsumerMember, DescribedMember, FetchReply, FetchRequest, ListRequest,
};
use crate::limits::{PARTITIONS_PER_PART, SMALL_REPLY_BYTES_MAX};

/// Lists groups. A list that is longer than a small reply is truncated, and the client requests the rest.
pub(super) fn list_groups(context: &mut Context<'_>, call: Call, request: ListGroupsRequest) {
    let after = request.after;
    let cut_at_bytes = Some(SMALL_REPLY_BYTES_MAX);
    let request = ListRequest { after: after.clone(), cut_at_bytes, ..Default::default() };
    context.ask_group(call.conn, request, move |context, groups| {
        let reply = groups.map(|groups| list(&after, groups));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

fn list(after: &str, GroupList { groups, is_cut: more }: GroupList) -> Reply {
    let listed = groups.into_iter().filter(|group| group.group.as_str() > after).map(|group| {
        let protocol = protocol_name(group.group_type, &group.protocol_type).to_owned();
        GroupInfo { name: group.group, protocol, state: group.state.to_owned() }
    });
    Reply::body(&ListGroupsReply { groups: listed.collect(), more })
}

/// Returns the protocol of a group. Kafka's clients see a named consumer, which only has offsets, as a classic group.
fn protocol_name<'a>(group_type: &'a str, protocol_type: &str) -> &'a str {
    if group_type == "classic" && protocol_type.is_empty() { "named" } else { group_type }
}

/// Describes a group, whichever protocol its members speak.
pub(super) fn describe_group(context: &mut Context<'_>, call: Call, request: DescribeGroupRequest) {
    let ask = DescribeOneGroup(request.name);
    context.ask_measured(AnswerTo::Native(call), ask, move |context, found, memory| {
        let (head, members) = match found {
            Ok(Ok(DescribedOneGroup::Classic(group))) => {
                let head = DescribeGroupReply {
                    protocol: protocol_name("classic", &group.protocol_type).to_owned(),
                    state: group.state.to_owned(),
                    epoch: 0,
                    assignor: group.protocol,
                    members: Vec::new(),
                };
                (head, Members::Classic(group.members))
            }
            Ok(Ok(DescribedOneGroup::Consumer(group))) => {
                let head = DescribeGroupReply {
                    protocol: "consumer".to_owned(),
                    state: group.state.to_owned(),
                    epoch: group.epoch.0,
                    assignor: group.assignor,
                    members: Vec::new(),
                };
                (head, Members::Consumer(group.members))
            }
            Ok(Err(error)) => return context.reply(call, error_reply(error, None)),
            Err(error) => return context.reply_error(call, &error),
        };
        let mut front = BytesMut::new();
        head.put_front(members.count(), &mut front);
        let pieces = memory.hold(front.freeze(), members, Bytes::new());
        let advice = "the group has too many members and partitions for one message";
        context.reply_in_pieces(call, pieces, BodyLimit { bytes_max: CONTROL_BODY_BYTES_MAX, advice });
    });
}

/// The members in the description of a group.
#[derive(Debug)]
enum Members {
    Classic(Vec<DescribedMember>),
    Consumer(Vec<DescribedConsumerMember>),
}

impl Entries for Members {
    fn count(&self) -> usize {
        match self {
            Self::Classic(members) => members.len(),
            Self::Consumer(members) => members.len(),
        }
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        match self {
            Self::Classic(members) => of_classic(&members[entry]).put(out),
            Self::Consumer(members) => of_consumer(&members[entry]).put(out),
        }
        false
    }

    fn memory_bytes(&self) -> usize {
        // A `ReplyMemory` counts it.
        0
    }
}

/// Members of the classic protocol do not say what they subscribe to and own.
fn of_classic(member: &DescribedMember) -> GroupMemberInfo {
    GroupMemberInfo {
        member: member.member.clone(),
        instance: member.instance.clone(),
        client_name: member.client_id.clone(),
        host: member.client_host.clone(),
        epoch: 0,
        topics: Vec::new(),
        assignment: Vec::new(),
        target: Vec::new(),
    }
}

fn of_consumer(member: &DescribedConsumerMember) -> GroupMemberInfo {
    GroupMemberInfo {
        member: member.member.clone(),
        instance: member.instance.clone(),
        client_name: member.client_id.clone(),
        host: member.client_host.clone(),
        epoch: member.epoch.0,
        topics: member.topic_names.clone(),
        assignment: to_partitions(member.assignment.clone()),
        target: to_partitions(member.target.clone()),
    }
}

/// Reads the committed offsets of a named consumer.
pub(super) fn read_offsets(context: &mut Context<'_>, call: Call, request: ReadOffsetsRequest) {
    let topic = request.topic;
    if let Err(error) = context.targets().topic_by_id(topic) {
        return context.reply_error(call, &error);
    }
    let ask = FetchRequest { group: request.consumer, member: None, partitions: None, require_stable: false };
    read_measured(context, call, ask, move |context, mut offsets, memory| {
        offsets.retain(|of| of.topic == topic);
        let mut front = BytesMut::new();
        ReadOffsetsReply::put_front(offsets.len(), &mut front);
        answer_offsets(context, call, memory.hold(front.freeze(), Positions(offsets), Bytes::new()));
    });
}

/// Reads the committed offsets of a group, for a member or another client.
pub(super) fn read_group_offsets(context: &mut Context<'_>, call: Call, request: ReadGroupOffsetsRequest) {
    let partitions =
        request.partitions.map(|topics| topics.into_iter().map(|of| (of.topic, of.partitions)).collect());
    let member = request.member.map(|(member, epoch)| (member, GroupEpoch(epoch)));
    let ask = FetchRequest { group: request.group, member, partitions, require_stable: false };
    read_measured(context, call, ask, move |context, offsets, memory| {
        let topics = TopicsPositions::new(offsets);
        let mut front = BytesMut::new();
        ReadGroupOffsetsReply::put_front(topics.count(), &mut front);
        answer_offsets(context, call, memory.hold(front.freeze(), topics, Bytes::new()));
    });
}

fn read_measured(
    context: &mut Context<'_>,
    call: Call,
    ask: FetchRequest,
    finish: impl FnOnce(&mut Context<'_>, Vec<CommittedPartition>, ReplyMemory) + 'static,
) {
    context.ask_measured(AnswerTo::Native(call), FetchOffsets(vec![ask]), move |context, replies, memory| {
        let reply = replies.and_then(|mut replies| replies.pop().ok_or(NO_REPLY));
        match reply {
            Ok(FetchReply { error: Some(error), .. }) => context.reply(call, error_reply(error, None)),
            Ok(FetchReply { error: None, offsets }) => finish(context, offsets, memory),
            Err(error) => context.reply_error(call, &error),
        }
    });
}

const NO_REPLY: ApiError = ApiError::Internal("no offsets were read");

fn answer_offsets(context: &mut Context<'_>, call: Call, pieces: Pieces) {
    let advice = "request the positions of fewer partitions";
    context.reply_in_pieces(call, pieces, BodyLimit { bytes_max: CONTROL_BODY_BYTES_MAX, advice });
}

fn put_position(of: &CommittedPartition, out: &mut BytesMut) {
    let position = CommittedOffset {
        partition: of.partition,
        offset: of.offset,
        leader_epoch: of.leader_epoch.0,
        metadata: of.metadata.clone(),
    };
    position.put(out);
}

/// The offsets of a named consumer in one topic.
#[derive(Debug)]
struct Positions(Vec<CommittedPartition>);

impl Entries for Positions {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        put_position(&self.0[entry], out);
        false
    }

    fn memory_bytes(&self) -> usize {
        // A `ReplyMemory` counts it.
        0
    }
}

/// The offsets of a group, sorted by topic or in the order of the request.
#[derive(Debug)]
struct TopicsPositions {
    offsets: Vec<CommittedPartition>,
    /// The end index of the offsets of each topic.
    ends: Vec<u32>,
}

impl TopicsPositions {
    fn new(offsets: Vec<CommittedPartition>) -> Self {
        let mut end = 0;
        let ends = offsets.chunk_by(|a, b| a.topic == b.topic).map(|of| {
            end += of.len() as u32;
            end
        });
        Self { ends: ends.collect(), offsets }
    }
}

impl Entries for TopicsPositions {
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let begin = entry.checked_sub(1).map_or(0, |before| self.ends[before]) as usize;
        let positions = &self.offsets[begin..self.ends[entry] as usize];
        if part == 0
            && let Some(first) = positions.first()
        {
            TopicPositions::put_front(first.topic, positions.len(), out);
        }
        let from = part * PARTITIONS_PER_PART;
        positions.iter().skip(from).take(PARTITIONS_PER_PART).for_each(|of| put_position(of, out));
        positions.len() > from + PARTITIONS_PER_PART
    }

    fn memory_bytes(&self) -> usize {
        // A `ReplyMemory` counts it.
        0
    }
}
