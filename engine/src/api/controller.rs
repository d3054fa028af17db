//! Requests to shard 0: topics, producer ids and groups.

use std::ops::Range;

use highwater_protocol::ids::{ProducerId, TopicId};

use crate::api::ApiError;
use crate::coord::groups::{
    CommitOutcome, CommitRequest, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, DeleteOffsetsRequest,
    DescribedConsumerGroup, DescribedGroup, FetchReply, FetchRequest, GroupError, GroupReply, GroupRequest,
    HeartbeatRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, ListRequest, ListedGroup, SyncReply,
    SyncRequest,
};
use crate::meta::config_changes::ConfigChanges;

/// A request to shard 0.
#[derive(Debug)]
pub enum ControllerRequest {
    /// Create a topic.
    CreateTopic(CreateTopic),
    /// Delete the topic of this name.
    DeleteTopic(DeleteTopic),
    /// Delete the topic with this id, even if another topic has its name by now.
    DeleteTopicById(DeleteTopicById),
    /// Set or reset settings, add partitions.
    AlterTopic(AlterTopic),
    /// Change settings as Kafka's clients do, or only validate the changes.
    ConfigureTopic(ConfigureTopic),
    /// Reserve a block of producer ids.
    ReserveProducerIds,
    /// A request to the group coordinator.
    Group(GroupRequest),
    /// Describe a group, whichever protocol its members speak, in a reply that holds only so much memory.
    DescribeGroup {
        /// Name.
        name: String,
        /// Maximum bytes of the reply in memory.
        bytes_max: usize,
    },
}

/// The reply to a [`ControllerRequest`].
#[derive(Debug)]
pub enum ControllerReply {
    /// Done: durable, and applied on every shard.
    Done,
    /// The topic was created, with this id; zero if the request was only validated.
    Created(TopicId),
    /// Producer ids for the shard that sent the request.
    ProducerIds(Range<ProducerId>),
    /// The group coordinator's reply.
    Group(GroupReply),
}

/// A new topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopic {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Settings: Kafka's names, values as text.
    pub configs: Vec<(String, String)>,
    /// Whether to only validate the request.
    pub validate_only: bool,
}

/// Deletes a topic by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteTopic(
    /// The topic's name.
    pub String,
);

/// Deletes a topic by its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeleteTopicById(
    /// The topic's id.
    pub TopicId,
);

/// Changes a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterTopic {
    /// Name.
    pub name: String,
    /// Settings to set (`Some`) or to reset to the default (`None`).
    pub configs: Vec<(String, Option<String>)>,
    /// New number of partitions, at least the current one.
    pub partitions: Option<u32>,
    /// Whether to only validate the request.
    pub validate_only: bool,
}

/// Changes a topic's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigureTopic {
    /// Name.
    pub name: String,
    /// The changes.
    pub changes: ConfigChanges,
    /// Whether to only validate the request.
    pub validate_only: bool,
}

/// Reserves a block of producer ids for the shard that sends the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReserveProducerIds;

/// Reads the offsets of groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchOffsets(
    /// The request for each group.
    pub Vec<FetchRequest>,
);

/// Describes groups of the classic protocol, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeGroups(
    /// Names.
    pub Vec<String>,
);

/// Describes groups of the consumer protocol, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeConsumerGroups(
    /// Names.
    pub Vec<String>,
);

/// Describes a group, whichever protocol its members speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeOneGroup(
    /// Name.
    pub String,
);

/// The reply to [`DescribeOneGroup`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DescribedOneGroup {
    /// Its members speak the classic protocol.
    Classic(DescribedGroup),
    /// Its members speak the consumer protocol.
    Consumer(DescribedConsumerGroup),
}

/// Deletes groups, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteGroups(
    /// Names.
    pub Vec<String>,
);

/// A request to shard 0 with the type of its reply.
pub trait ControllerCall: 'static {
    /// The type of the reply.
    type Reply: 'static;

    /// Returns the request to send.
    fn into_request(self) -> ControllerRequest;

    /// Returns the reply, if it is of the right kind.
    fn reply_of(reply: ControllerReply) -> Result<Self::Reply, ApiError>;
}

/// A request to shard 0 whose reply may be much larger than itself, so that memory has to be reserved for it.
pub trait MeasuredCall: ControllerCall {
    /// Returns the request to send, for a reply of at most `bytes_max` bytes in memory.
    fn within(self, bytes_max: usize) -> ControllerRequest;

    /// Returns the request that came back because its reply needs more memory.
    fn returned(request: GroupRequest) -> Result<Self, ApiError>
    where
        Self: Sized;
}

/// A request with the memory that its reply may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Within<C> {
    /// The request.
    pub call: C,
    /// Maximum bytes of the reply in memory.
    pub bytes_max: usize,
}

/// The reply to [`Within`].
#[derive(Debug)]
pub enum Measured<C: ControllerCall> {
    /// It fits.
    Fits(C::Reply),
    /// It would take so many bytes.
    NeedsMemory(usize, C),
}

impl<C: MeasuredCall> ControllerCall for Within<C> {
    type Reply = Measured<C>;

    fn into_request(self) -> ControllerRequest {
        self.call.within(self.bytes_max)
    }

    fn reply_of(reply: ControllerReply) -> Result<Self::Reply, ApiError> {
        match reply {
            ControllerReply::Group(GroupReply::NeedsMemory { bytes, request }) => {
                C::returned(*request).map(|call| Measured::NeedsMemory(bytes, call))
            }
            reply => C::reply_of(reply).map(Measured::Fits),
        }
    }
}

macro_rules! controller_calls {
    ($($call:ty => $reply:ty { $self:ident => $request:expr, $pattern:pat => $value:expr })+) => {$(
        impl ControllerCall for $call {
            type Reply = $reply;

            fn into_request(self) -> ControllerRequest {
                let $self = self;
                $request
            }

            fn reply_of(reply: ControllerReply) -> Result<Self::Reply, ApiError> {
                match reply {
                    $pattern => $value,
                    other => Err(ApiError::wrong_reply(&other)),
                }
            }
        }
    )+};
}

controller_calls! {
    CreateTopic => TopicId {
        call => ControllerRequest::CreateTopic(call), ControllerReply::Created(id) => Ok(id)
    }
    DeleteTopic => () { call => ControllerRequest::DeleteTopic(call), ControllerReply::Done => Ok(()) }
    DeleteTopicById => () { call => ControllerRequest::DeleteTopicById(call), ControllerReply::Done => Ok(()) }
    AlterTopic => () { call => ControllerRequest::AlterTopic(call), ControllerReply::Done => Ok(()) }
    ConfigureTopic => () { call => ControllerRequest::ConfigureTopic(call), ControllerReply::Done => Ok(()) }
    ReserveProducerIds => Range<ProducerId> {
        _call => ControllerRequest::ReserveProducerIds, ControllerReply::ProducerIds(ids) => Ok(ids)
    }
    JoinRequest => JoinReply {
        call => ControllerRequest::Group(GroupRequest::Join(call)),
        ControllerReply::Group(GroupReply::Join(reply)) => Ok(reply)
    }
    SyncRequest => SyncReply {
        call => ControllerRequest::Group(GroupRequest::Sync(call)),
        ControllerReply::Group(GroupReply::Sync(reply)) => Ok(reply)
    }
    HeartbeatRequest => Option<GroupError> {
        call => ControllerRequest::Group(GroupRequest::Heartbeat(call)),
        ControllerReply::Group(GroupReply::Heartbeat(error)) => Ok(error)
    }
    LeaveRequest => LeaveReply {
        call => ControllerRequest::Group(GroupRequest::Leave(call)),
        ControllerReply::Group(GroupReply::Leave(reply)) => Ok(reply)
    }
    CommitRequest => Vec<CommitOutcome> {
        call => ControllerRequest::Group(GroupRequest::Commit(call)),
        ControllerReply::Group(GroupReply::Commit(outcomes)) => Ok(outcomes)
    }
    FetchOffsets => Vec<FetchReply> {
        call => ControllerRequest::Group(GroupRequest::Fetch(call.0)),
        ControllerReply::Group(GroupReply::Fetch(replies)) => Ok(replies)
    }
    DeleteOffsetsRequest => Result<Vec<CommitOutcome>, GroupError> {
        call => ControllerRequest::Group(GroupRequest::DeleteOffsets(call)),
        ControllerReply::Group(GroupReply::DeleteOffsets(outcomes)) => Ok(outcomes)
    }
    ListRequest => Vec<ListedGroup> {
        call => ControllerRequest::Group(GroupRequest::List(call)),
        ControllerReply::Group(GroupReply::List(groups)) => Ok(groups)
    }
    DescribeGroups => Vec<(String, Result<DescribedGroup, GroupError>)> {
        call => ControllerRequest::Group(GroupRequest::Describe(call.0)),
        ControllerReply::Group(GroupReply::Describe(groups)) => Ok(groups)
    }
    DescribeConsumerGroups => Vec<(String, Result<DescribedConsumerGroup, GroupError>)> {
        call => ControllerRequest::Group(GroupRequest::ConsumerDescribe(call.0)),
        ControllerReply::Group(GroupReply::ConsumerDescribe(groups)) => Ok(groups)
    }
    DeleteGroups => Vec<(String, Option<GroupError>)> {
        call => ControllerRequest::Group(GroupRequest::Delete(call.0)),
        ControllerReply::Group(GroupReply::Delete(outcomes)) => Ok(outcomes)
    }
    ConsumerHeartbeatRequest => ConsumerHeartbeatReply {
        call => ControllerRequest::Group(GroupRequest::ConsumerHeartbeat(call)),
        ControllerReply::Group(GroupReply::ConsumerHeartbeat(reply)) => Ok(reply)
    }
}

macro_rules! measured_calls {
    ($($call:ty { $pattern:pat => $value:expr })+) => {$(
        impl MeasuredCall for $call {
            fn within(self, bytes_max: usize) -> ControllerRequest {
                match self.into_request() {
                    ControllerRequest::Group(request) => {
                        let request = Box::new(request);
                        ControllerRequest::Group(GroupRequest::Within { request, bytes_max })
                    }
                    other => other,
                }
            }

            fn returned(request: GroupRequest) -> Result<Self, ApiError> {
                match request {
                    $pattern => Ok($value),
                    other => Err(ApiError::wrong_reply(&other)),
                }
            }
        }
    )+};
}

measured_calls! {
    ListRequest { GroupRequest::List(request) => request }
    FetchOffsets { GroupRequest::Fetch(requests) => Self(requests) }
    DescribeGroups { GroupRequest::Describe(names) => Self(names) }
    DescribeConsumerGroups { GroupRequest::ConsumerDescribe(names) => Self(names) }
}

impl MeasuredCall for DescribeOneGroup {
    fn within(self, bytes_max: usize) -> ControllerRequest {
        ControllerRequest::DescribeGroup { name: self.0, bytes_max }
    }

    fn returned(request: GroupRequest) -> Result<Self, ApiError> {
        match request {
            GroupRequest::Describe(mut names) | GroupRequest::ConsumerDescribe(mut names) => {
                names.pop().map(Self).ok_or(ApiError::Internal("no group was to be described"))
            }
            other => Err(ApiError::wrong_reply(&other)),
        }
    }
}

impl ControllerCall for DescribeOneGroup {
    type Reply = Result<DescribedOneGroup, GroupError>;

    fn into_request(self) -> ControllerRequest {
        self.within(usize::MAX)
    }

    fn reply_of(reply: ControllerReply) -> Result<Self::Reply, ApiError> {
        let none = ApiError::Internal("no group was described");
        match reply {
            ControllerReply::Group(GroupReply::Describe(mut groups)) => {
                groups.pop().map(|(_, found)| found.map(DescribedOneGroup::Classic)).ok_or(none)
            }
            ControllerReply::Group(GroupReply::ConsumerDescribe(mut groups)) => {
                groups.pop().map(|(_, found)| found.map(DescribedOneGroup::Consumer)).ok_or(none)
            }
            other => Err(ApiError::wrong_reply(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_another_kind_fails_the_one_request() {
        assert_eq!(CreateTopic::reply_of(ControllerReply::Created(TopicId([7; 16]))), Ok(TopicId([7; 16])));
        for reply in [ControllerReply::Done, ControllerReply::Group(GroupReply::Heartbeat(None))] {
            let error = CreateTopic::reply_of(reply).expect_err("it is of another kind");
            assert!(matches!(error, ApiError::Internal(_)), "{error}");
        }
        let nothing = ControllerReply::Group(GroupReply::Describe(Vec::new()));
        assert!(matches!(DescribeOneGroup::reply_of(nothing), Err(ApiError::Internal(_))));
    }
}
