//! What the coordinator answers. An `error` of `None` is success.

use bytes::Bytes;
use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::error::GroupError;
use super::request::CommittedPartition;

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
    /// To `Fetch`.
    Fetch(FetchReply),
    /// To `FetchEach`, in the order of the request.
    FetchEach(Vec<FetchReply>),
    /// To `DeleteOffsets`: partition by partition, or an error for all.
    DeleteOffsets(Result<Vec<CommitOutcome>, GroupError>),
    /// To `List`.
    List(Vec<ListedGroup>),
    /// To `Describe`, in the order of the request.
    Describe(Vec<(String, Result<DescribedGroup, GroupError>)>),
    /// To `Delete`, in the order of the request.
    Delete(Vec<(String, Option<GroupError>)>),
    /// To `ConsumerHeartbeat`.
    ConsumerHeartbeat(ConsumerHeartbeatReply),
    /// To `ConsumerDescribe`, in the order of the request.
    ConsumerDescribe(Vec<(String, Result<DescribedConsumerGroup, GroupError>)>),
}

/// A member has joined, or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinReply {
    /// Why not.
    pub error: Option<GroupError>,
    /// The generation, or −1.
    pub generation: i32,
    /// The kind of group.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// A leader that does not have to assign.
    pub skip_assignment: bool,
    /// The member's id, given by the coordinator.
    pub member: String,
    /// For the leader: all members.
    pub members: Vec<JoinedMember>,
}

/// A member, as its leader is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub member: String,
    /// Its instance id.
    pub instance: Option<String>,
    /// What it said about the protocol that was chosen.
    pub metadata: Bytes,
}

/// A member's assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncReply {
    /// Why there is none.
    pub error: Option<GroupError>,
    /// The kind of group.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// What the leader sent for this member.
    pub assignment: Bytes,
}

/// Which members ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveReply {
    /// Why nothing was done.
    pub error: Option<GroupError>,
    /// In the order of the request: member id and instance id as sent, and why not.
    pub members: Vec<(String, Option<String>, Option<GroupError>)>,
}

/// Offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchReply {
    /// Why none are given.
    pub error: Option<GroupError>,
    /// The offsets there are; a partition asked for that is missing here has none (Kafka writes −1 and no error).
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

/// A group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    /// As Kafka writes it.
    pub state: &'static str,
    /// The kind of group.
    pub protocol_type: String,
    /// The protocol that was chosen; empty unless stable.
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
    /// What it said about the protocol that was chosen; empty unless stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless stable.
    pub assignment: Bytes,
}

/// What a member of the consumer protocol is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatReply {
    /// Why it was refused.
    pub error: Option<GroupError>,
    /// The same for a person.
    pub message: Option<String>,
    /// The member's id.
    pub member: String,
    /// Its epoch.
    pub epoch: i32,
    /// When to come again.
    pub heartbeat_interval_ms: i32,
    /// Whether it has all that it is meant to have, and nothing else.
    pub is_settled: bool,
    /// Its partitions, if they have changed or it cannot know them.
    pub assignment: Option<Vec<(TopicId, Vec<u32>)>>,
}

/// A group of the consumer protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumerGroup {
    /// As Kafka writes it.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of the target assignment.
    pub assignment_epoch: i32,
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
    /// Where it is.
    pub rack: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// Its client id.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Topics it wants, by name.
    pub topic_names: Vec<String>,
    /// Topics it wants, by a regular expression; empty if there is none.
    pub topic_regex: String,
    /// What it has.
    pub assignment: Vec<(TopicId, Vec<u32>)>,
    /// What it is meant to have.
    pub target: Vec<(TopicId, Vec<u32>)>,
}
