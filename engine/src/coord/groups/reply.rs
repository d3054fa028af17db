//! Replies of the coordinator. An `error` of `None` is success.

use bytes::Bytes;
use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

use super::error::GroupError;
use super::request::{CommittedPartition, GroupRequest};

/// Topic, partition, and why its offset was not committed or deleted.
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
    /// To `Commit`: in the order of the request.
    Commit(Vec<CommitOutcome>),
    /// To `Fetch`, in the order of the request.
    Fetch(Vec<FetchReply>),
    /// To `DeleteOffsets`: partition by partition, or an error for all.
    DeleteOffsets(Result<Vec<CommitOutcome>, GroupError>),
    /// To `List`.
    List {
        /// The groups, by name.
        groups: Vec<ListedGroup>,
        /// Whether more follow, because the list was cut.
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
    /// To `Within`: the reply would take more memory than it may.
    NeedsMemory {
        /// The bytes that it would take now.
        bytes: usize,
        /// The request, without its limit.
        request: Box<GroupRequest>,
    },
}

/// The outcome of a join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinReply {
    /// Why not.
    pub error: Option<GroupError>,
    /// The generation, or −1.
    pub generation: i32,
    /// The protocol type.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// Whether the leader need not assign partitions.
    pub skip_assignment: bool,
    /// The member's id, given by the coordinator.
    pub member: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member in the reply to the leader.
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
    /// Why there is none.
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
    /// In the order of the request: member id and instance id as sent, and why not.
    pub members: Vec<(String, Option<String>, Option<GroupError>)>,
}

/// Offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchReply {
    /// Why there are none.
    pub error: Option<GroupError>,
    /// The offsets. A requested partition that is missing has none (Kafka writes −1 and no error).
    pub offsets: Vec<CommittedPartition>,
}

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    /// Its name.
    pub group: String,
    /// `consumer`, `connect`, and so on; empty if it never had members.
    pub protocol_type: String,
    /// As Kafka writes it: `Stable`, `Empty`, and so on.
    pub state: &'static str,
    /// `classic` or `consumer`.
    pub group_type: &'static str,
}

/// What an entry of a list counts for in a reply's memory, apart from its texts: its place, and what their allocations take.
const ENTRY_BYTES: usize = 64;

/// What an offset counts for apart from its metadata: its entry as the coordinator made it, and as an adapter keeps it.
const OFFSET_BYTES: usize = 160;

/// What a topic counts for in a list of offsets or of partitions: with its name, which an adapter adds.
const TOPIC_BYTES: usize = 384;

impl ListedGroup {
    /// Returns about how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + ENTRY_BYTES + self.group.len() + self.protocol_type.len()
    }
}

impl FetchReply {
    /// Returns about how many bytes of memory the offsets from number `from` on take, with what adapters make of them. `last` is the topic of
    /// the one before.
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
    /// Returns about how many bytes of memory it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let instance = self.instance.as_ref().map_or(0, String::len);
        let names = self.member.len() + instance + self.client_id.len() + self.client_host.len();
        size_of::<Self>() + ENTRY_BYTES + names + self.metadata.len() + self.assignment.len()
    }
}

impl DescribedConsumerMember {
    /// Returns about how many bytes of memory it takes, with the names of topics that adapters add.
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
    /// As Kafka writes it.
    pub state: &'static str,
    /// The protocol type.
    pub protocol_type: String,
    /// The protocol that was chosen; empty unless the group is stable.
    pub protocol: String,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member of it.
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
    /// What it said about the protocol that was chosen; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}

/// The reply to a heartbeat of a member of the consumer protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatReply {
    /// Why it was rejected.
    pub error: Option<GroupError>,
    /// The same as text.
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
    /// As Kafka writes it.
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

/// A member of it.
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
