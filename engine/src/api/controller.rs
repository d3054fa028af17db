//! Requests to the controller on shard 0: topics and producer ids.

use std::ops::Range;

use highwater_protocol::ids::{NodeId, ProducerId, TopicId};
use highwater_replication::join::{JoinReply, JoinRequest};

use crate::api::{ApiError, ConfigChanges, Node};

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
    /// Create the topic that keeps groups, unless it exists.
    CreateGroupsTopic(CreateGroupsTopic),
    /// Register a node, or something new about one.
    RegisterNode(RegisterNode),
    /// Decide about a node that asks to be a member.
    Join(Join),
}

/// The reply to a [`ControllerRequest`].
#[derive(Debug)]
pub enum ControllerReply {
    /// Done: durable, and applied on every shard.
    Done,
    /// The topic was created, or could be.
    Created(CreatedTopic),
    /// Producer ids for the shard that sent the request.
    ProducerIds(Range<ProducerId>),
    /// The answer to a node that asks to be a member. If it is a welcome, its registration is durable, and applied on every shard.
    Join(JoinReply),
}

/// Which nodes get the replicas of new partitions.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Replication {
    /// As many as the topic's other partitions have; for a new topic [`REPLICAS_DEFAULT`](crate::limits::REPLICAS_DEFAULT), or one for each node.
    #[default]
    Default,
    /// So many, on nodes that the controller chooses.
    Factor(u32),
    /// On these nodes, for each partition.
    Assigned(Vec<Vec<NodeId>>),
}

/// A topic that was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its id; zero if the request was only validated.
    pub id: TopicId,
    /// Replicas of each partition.
    pub replicas: usize,
}

/// A new topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopic {
    /// Name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Where its replicas are.
    pub replication: Replication,
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
    /// Where the replicas of the new ones are.
    pub replication: Replication,
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

/// Creates the topic that keeps groups, unless it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateGroupsTopic {
    /// Create it only if groups of an earlier build are to be kept in it.
    pub for_old_groups: bool,
}

/// Registers a node that has been admitted to the cluster, or something new about one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterNode(
    /// The node.
    pub Node,
);

/// Decides about a node that asks to be a member of the cluster, or that has something new to tell about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join(
    /// Its request.
    pub Box<JoinRequest>,
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
    CreateTopic => CreatedTopic {
        call => ControllerRequest::CreateTopic(call), ControllerReply::Created(topic) => Ok(topic)
    }
    DeleteTopic => () { call => ControllerRequest::DeleteTopic(call), ControllerReply::Done => Ok(()) }
    DeleteTopicById => () { call => ControllerRequest::DeleteTopicById(call), ControllerReply::Done => Ok(()) }
    Join => JoinReply { call => ControllerRequest::Join(call), ControllerReply::Join(reply) => Ok(reply) }
    RegisterNode => () { call => ControllerRequest::RegisterNode(call), ControllerReply::Done => Ok(()) }
    AlterTopic => () { call => ControllerRequest::AlterTopic(call), ControllerReply::Done => Ok(()) }
    ConfigureTopic => () { call => ControllerRequest::ConfigureTopic(call), ControllerReply::Done => Ok(()) }
    CreateGroupsTopic => () {
        call => ControllerRequest::CreateGroupsTopic(call), ControllerReply::Done => Ok(())
    }
    ReserveProducerIds => Range<ProducerId> {
        _call => ControllerRequest::ReserveProducerIds, ControllerReply::ProducerIds(ids) => Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_another_kind_fails_the_one_request() {
        let created = CreatedTopic { id: TopicId([7; 16]), replicas: 1 };
        assert_eq!(CreateTopic::reply_of(ControllerReply::Created(created)), Ok(created));
        for reply in [ControllerReply::Done, ControllerReply::ProducerIds(ProducerId(0)..ProducerId(1))] {
            let error = CreateTopic::reply_of(reply).expect_err("it is of another kind");
            assert!(matches!(error, ApiError::Internal(_)), "{error}");
        }
    }
}
