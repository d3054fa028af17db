//! Replies of the coordinator. An `error` of `None` means success.

use bytes::Bytes;
use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

use super::error::GroupError;
use super::request::{CommittedPartition, GroupRequest};

/// A topic, a partition, and the error if its offset was not committed or deleted.
pub type CommitOutcome = (TopicId, PartitionIndex, Option<GroupError>);

/// A reply, of the kind of its request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupReply {
    /// To `Join`.
    Join(JoinReply),
    /// To `Sync`.
    Sync(SyncReply),
    /// To `Heartbeat`.
    Heartbeat(Option<GroupError>),
    /// To `Leave`.
    Leave(LeaveReply),
    /// To `Commit`, in the order of the request.
    Commit(Vec<CommitOutcome>),
    /// To `Fetch`, in the order of the request.
    Fetch(Vec<FetchReply>),
    /// To `DeleteOffsets`: an outcome for each partition, or an error for all.
    DeleteOffsets(Result<Vec<CommitOutcome>, GroupError>),
    /// To `List`.
    List {
        /// The groups, by name.
        groups: Vec<ListedGroup>,
        /// Whether more groups follow, because the list was cut.
        is_cut: bool,
    },
    /// To `Describe`, in the order of the request.
    Describe(Vec<(String, Result<DescribedGroup, GroupError>)>),
    /// To `Delete`, in the order of the request.
    Delete(Vec<(String, Option<GroupError>)>),
    /// To `ConsumerHeartbeat`.
    ConsumerHeartbeat(ConsumerHeartbeatReply),
    /// To `ConsumerDescribe`, in the order of the request.
    ConsumerDescribe(Vec<(String, Result<DescribedConsumerGroup, GroupError>)>),
    /// To `Within`: the reply would exceed its memory limit.
    NeedsMemory {
        /// The bytes that the reply would take.
        bytes: usize,
        /// The request, without its limit.
        request: Box<GroupRequest>,
    },
}

/// The outcome of a join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinReply {
    /// Why the join failed.
    pub error: Option<GroupError>,
    /// The generation; −1 on failure.
    pub generation: i32,
    /// The protocol type.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// Whether the leader need not assign partitions.
    pub skip_assignment: bool,
    /// The member's id, chosen by the coordinator.
    pub member: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member in the leader's [`JoinReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A member's assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncReply {
    /// Why there is no assignment.
    pub error: Option<GroupError>,
    /// The protocol type.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The leader's assignment for this member.
    pub assignment: Bytes,
}

/// The outcome of leaving.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveReply {
    /// Why no member was removed.
    pub error: Option<GroupError>,
    /// In the order of the request: member id and instance id as sent, and the error if the member was not removed.
    pub members: Vec<(String, Option<String>, Option<GroupError>)>,
}

/// The committed offsets of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchReply {
    /// Why there are no offsets.
    pub error: Option<GroupError>,
    /// The offsets. Requested partitions without an offset are missing (Kafka replies with −1 and no error).
    pub offsets: Vec<CommittedPartition>,
}

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    /// Its name.
    pub group: String,
    /// `consumer`, `connect`, and so on; empty if the group never had members.
    pub protocol_type: String,
    /// Kafka's name of the state: `Stable`, `Empty`, and so on.
    pub state: &'static str,
    /// `classic` or `consumer`.
    pub group_type: &'static str,
}

/// Approximate bytes of memory of a list entry, apart from its struct and texts: spare capacity of the list and overhead of allocations.
const ENTRY_BYTES: usize = 64;

/// Approximate bytes of memory of an offset, apart from its metadata: the coordinator's entry and a protocol adapter's copy.
const OFFSET_BYTES: usize = 160;

/// Approximate bytes of memory of a topic in a list of offsets or partitions, with its name, which a protocol adapter adds.
const TOPIC_BYTES: usize = 384;

impl ListedGroup {
    /// Returns its approximate bytes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + ENTRY_BYTES + self.group.len() + self.protocol_type.len()
    }
}

impl FetchReply {
    /// Returns the approximate bytes in memory of the offsets from index `from` on, with protocol adapters' copies. `last` is the topic of the offset
    /// before them.
    pub(super) fn memory_bytes_from(&self, from: usize, mut last: Option<TopicId>) -> usize {
        let mut bytes = 0;
        for of in self.offsets.iter().skip(from) {
            let is_new = last.replace(of.topic) != Some(of.topic);
            bytes += OFFSET_BYTES + of.metadata.len() + if is_new { TOPIC_BYTES } else { 0 };
        }
        bytes
    }
}

impl DescribedMember {
    /// Returns its approximate bytes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let instance = self.instance.as_ref().map_or(0, String::len);
        let names = self.member.len() + instance + self.client_id.len() + self.client_host.len();
        size_of::<Self>() + ENTRY_BYTES + names + self.metadata.len() + self.assignment.len()
    }
}

impl DescribedConsumerMember {
    /// Returns its approximate bytes in memory, with the topic names that protocol adapters add.
    pub(super) fn memory_bytes(&self) -> usize {
        let options = [&self.instance, &self.rack].into_iter().flatten();
        let names = [&self.member, &self.client_id, &self.client_host, &self.topic_regex].into_iter();
        let texts: usize = names.chain(options).map(String::len).sum();
        let topics: usize = self.topic_names.iter().map(|name| ENTRY_BYTES + name.len()).sum();
        let partitions = self.assignment.iter().chain(&self.target);
        let partitions: usize = partitions.map(|(_, of)| TOPIC_BYTES + size_of_val(&of[..])).sum();
        size_of::<Self>() + ENTRY_BYTES + texts + topics + partitions
    }
}

/// A group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// The protocol type.
    pub protocol_type: String,
    /// The protocol that was chosen; empty unless the group is stable.
    pub protocol: String,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member of a group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Its metadata for the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}

/// The reply to a heartbeat of a member of the consumer protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatReply {
    /// Why it was rejected.
    pub error: Option<GroupError>,
    /// The error as text.
    pub message: Option<String>,
    /// The member's id.
    pub member: String,
    /// Its epoch.
    pub epoch: GroupEpoch,
    /// The interval until the next heartbeat.
    pub heartbeat_interval_ms: i32,
    /// Whether its assignment is the target assignment.
    pub is_settled: bool,
    /// Its partitions, if they have changed or the member may not know them.
    pub assignment: Option<Vec<(TopicId, Vec<PartitionIndex>)>>,
}

/// A group of the consumer protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumerGroup {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: GroupEpoch,
    /// The epoch of the target assignment.
    pub assignment_epoch: GroupEpoch,
    /// The assignor in use.
    pub assignor: String,
    /// The members.
    pub members: Vec<DescribedConsumerMember>,
}

/// A member of a group of the consumer protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumerMember {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// Its rack.
    pub rack: Option<String>,
    /// Its epoch.
    pub epoch: GroupEpoch,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Its subscription: topics by name.
    pub topic_names: Vec<String>,
    /// Its subscription: topics by regular expression; empty if there is none.
    pub topic_regex: String,
    /// Its assigned partitions.
    pub assignment: Vec<(TopicId, Vec<PartitionIndex>)>,
    /// Its target assignment.
    pub target: Vec<(TopicId, Vec<PartitionIndex>)>,
}
