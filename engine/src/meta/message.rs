//! Requests to the controller and their replies, as nodes send them to each other. Each is a version byte and an archive of rkyv, as the records of the
//! metadata are.

use std::ops::Range;

use highwater_protocol::ids::{NodeId, ProducerId, TopicId};

use super::record::{DecodeRecordError, NodeRecord, decode, encode};
use crate::api::{
    AlterTopic, ApiError, ConfigChange, ConfigChanges, ConfigureTopic, ControllerReply, ControllerRequest,
    CreateGroupsTopic, CreateTopic, CreatedTopic, DeleteTopic, DeleteTopicById, Node, RegisterNode,
    Replication, Service,
};

/// The version of requests and replies.
const VERSION: u8 = 1;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum RequestMessage {
    CreateTopic {
        name: String,
        partitions: u32,
        replication: ReplicationMessage,
        configs: Vec<(String, String)>,
        validate_only: bool,
    },
    DeleteTopic(String),
    DeleteTopicById([u8; 16]),
    AlterTopic {
        name: String,
        configs: Vec<(String, Option<String>)>,
        partitions: Option<u32>,
        replication: ReplicationMessage,
        validate_only: bool,
    },
    ConfigureTopic {
        name: String,
        changes: Vec<(String, ChangeMessage)>,
        resets_others: bool,
        validate_only: bool,
    },
    ReserveProducerIds,
    CreateGroupsTopic {
        for_old_groups: bool,
    },
    RegisterNode(NodeRecord),
}

/// Which nodes get the replicas of new partitions.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum ReplicationMessage {
    Default,
    Factor(u32),
    Assigned(Vec<Vec<u32>>),
}

/// A change of a setting.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum ChangeMessage {
    Set(String),
    Reset,
    Append(String),
    Subtract(String),
}

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum ReplyMessage {
    Done,
    Created { id: [u8; 16], replicas: u32 },
    ProducerIds { start: i64, end: i64 },
    Failed(ErrorMessage),
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum ErrorMessage {
    NotController,
    Starting,
    Stopping,
    UnknownTopic(String),
    UnknownTopicId([u8; 16]),
    TopicExists(String),
    InvalidTopicName(String),
    InvalidPartitionCount(String),
    InvalidReplicationFactor(String),
    InvalidAssignment(String),
    InternalTopic,
    InvalidConfig(String),
    InvalidNode(String),
    MetadataLogFull,
    ProducerIdsExhausted,
}

encode!(RequestMessage => VERSION, ReplyMessage => VERSION);

impl RequestMessage {
    /// Decodes what [`encode`](Self::encode) returns.
    pub(super) fn decode(message: &[u8]) -> Result<Self, DecodeRecordError> {
        check_version(message)?;
        decode(message)
    }
}

impl ReplyMessage {
    /// Decodes what [`encode`](Self::encode) returns.
    pub(super) fn decode(message: &[u8]) -> Result<Self, DecodeRecordError> {
        check_version(message)?;
        decode(message)
    }
}

fn check_version(message: &[u8]) -> Result<(), DecodeRecordError> {
    match message.first() {
        Some(&VERSION) => Ok(()),
        Some(&version) if version > VERSION => Err(DecodeRecordError::Newer(version)),
        _ => Err(DecodeRecordError::Malformed(format!("{} bytes without a version", message.len()))),
    }
}

impl From<&Replication> for ReplicationMessage {
    fn from(replication: &Replication) -> Self {
        match replication {
            Replication::Default => Self::Default,
            Replication::Factor(factor) => Self::Factor(*factor),
            Replication::Assigned(partitions) => {
                let ids = |nodes: &Vec<NodeId>| nodes.iter().map(|node| node.0).collect();
                Self::Assigned(partitions.iter().map(ids).collect())
            }
        }
    }
}

impl From<ReplicationMessage> for Replication {
    fn from(message: ReplicationMessage) -> Self {
        match message {
            ReplicationMessage::Default => Self::Default,
            ReplicationMessage::Factor(factor) => Self::Factor(factor),
            ReplicationMessage::Assigned(partitions) => {
                let nodes = |ids: Vec<u32>| ids.into_iter().map(NodeId).collect();
                Self::Assigned(partitions.into_iter().map(nodes).collect())
            }
        }
    }
}

impl RequestMessage {
    /// Returns a request as it is sent to the node that leads; `None` for one that is not forwarded.
    pub(super) fn of(request: &ControllerRequest) -> Option<Self> {
        Some(match request {
            ControllerRequest::CreateTopic(request) => Self::CreateTopic {
                name: request.name.clone(),
                partitions: request.partitions,
                replication: (&request.replication).into(),
                configs: request.configs.clone(),
                validate_only: request.validate_only,
            },
            ControllerRequest::DeleteTopic(DeleteTopic(name)) => Self::DeleteTopic(name.clone()),
            ControllerRequest::DeleteTopicById(DeleteTopicById(id)) => Self::DeleteTopicById(id.0),
            ControllerRequest::AlterTopic(request) => Self::AlterTopic {
                name: request.name.clone(),
                configs: request.configs.clone(),
                partitions: request.partitions,
                replication: (&request.replication).into(),
                validate_only: request.validate_only,
            },
            ControllerRequest::ConfigureTopic(request) => {
                let change = |(name, change): (&String, &ConfigChange)| {
                    let change = match change.clone() {
                        ConfigChange::Set(value) => ChangeMessage::Set(value),
                        ConfigChange::Reset => ChangeMessage::Reset,
                        ConfigChange::Append(value) => ChangeMessage::Append(value),
                        ConfigChange::Subtract(value) => ChangeMessage::Subtract(value),
                    };
                    (name.clone(), change)
                };
                Self::ConfigureTopic {
                    name: request.name.clone(),
                    changes: request.changes.named.iter().map(change).collect(),
                    resets_others: request.changes.resets_others,
                    validate_only: request.validate_only,
                }
            }
            ControllerRequest::ReserveProducerIds => Self::ReserveProducerIds,
            ControllerRequest::CreateGroupsTopic(CreateGroupsTopic { for_old_groups }) => {
                Self::CreateGroupsTopic { for_old_groups: *for_old_groups }
            }
            ControllerRequest::RegisterNode(RegisterNode(node)) => Self::RegisterNode(node.to_record()),
            ControllerRequest::Join(_) => return None,
        })
    }
}

impl From<RequestMessage> for ControllerRequest {
    fn from(message: RequestMessage) -> Self {
        match message {
            RequestMessage::CreateTopic { name, partitions, replication, configs, validate_only } => {
                let replication = replication.into();
                Self::CreateTopic(CreateTopic { name, partitions, replication, configs, validate_only })
            }
            RequestMessage::DeleteTopic(name) => Self::DeleteTopic(DeleteTopic(name)),
            RequestMessage::DeleteTopicById(id) => Self::DeleteTopicById(DeleteTopicById(TopicId(id))),
            RequestMessage::AlterTopic { name, configs, partitions, replication, validate_only } => {
                let replication = replication.into();
                Self::AlterTopic(AlterTopic { name, configs, partitions, replication, validate_only })
            }
            RequestMessage::ConfigureTopic { name, changes, resets_others, validate_only } => {
                let change = |(name, change)| {
                    let change = match change {
                        ChangeMessage::Set(value) => ConfigChange::Set(value),
                        ChangeMessage::Reset => ConfigChange::Reset,
                        ChangeMessage::Append(value) => ConfigChange::Append(value),
                        ChangeMessage::Subtract(value) => ConfigChange::Subtract(value),
                    };
                    (name, change)
                };
                let named = changes.into_iter().map(change).collect();
                let changes = ConfigChanges { named, resets_others };
                Self::ConfigureTopic(ConfigureTopic { name, changes, validate_only })
            }
            RequestMessage::ReserveProducerIds => Self::ReserveProducerIds,
            RequestMessage::CreateGroupsTopic { for_old_groups } => {
                Self::CreateGroupsTopic(CreateGroupsTopic { for_old_groups })
            }
            RequestMessage::RegisterNode(node) => Self::RegisterNode(RegisterNode(Node::of(&node))),
        }
    }
}

impl From<&ApiError> for ErrorMessage {
    /// Errors that only concern the node itself become one after which the sender tries again.
    fn from(error: &ApiError) -> Self {
        match error.clone() {
            ApiError::Starting(_) => Self::Starting,
            ApiError::Stopping(_) => Self::Stopping,
            ApiError::UnknownTopic(name) => Self::UnknownTopic(name),
            ApiError::UnknownTopicId(id) => Self::UnknownTopicId(id.0),
            ApiError::TopicExists(name) => Self::TopicExists(name),
            ApiError::InvalidTopicName(why) => Self::InvalidTopicName(why),
            ApiError::InvalidPartitionCount(why) => Self::InvalidPartitionCount(why),
            ApiError::InvalidReplicationFactor(why) => Self::InvalidReplicationFactor(why),
            ApiError::InvalidAssignment(why) => Self::InvalidAssignment(why),
            ApiError::InternalTopic => Self::InternalTopic,
            ApiError::InvalidConfig(why) => Self::InvalidConfig(why),
            ApiError::InvalidNode(why) => Self::InvalidNode(why),
            ApiError::MetadataLogFull => Self::MetadataLogFull,
            ApiError::ProducerIdsExhausted => Self::ProducerIdsExhausted,
            _ => Self::NotController,
        }
    }
}

impl ErrorMessage {
    fn into_error(self, service: Service) -> ApiError {
        match self {
            Self::NotController => ApiError::NotController,
            Self::Starting => ApiError::Starting(service),
            Self::Stopping => ApiError::Stopping(service),
            Self::UnknownTopic(name) => ApiError::UnknownTopic(name),
            Self::UnknownTopicId(id) => ApiError::UnknownTopicId(TopicId(id)),
            Self::TopicExists(name) => ApiError::TopicExists(name),
            Self::InvalidTopicName(why) => ApiError::InvalidTopicName(why),
            Self::InvalidPartitionCount(why) => ApiError::InvalidPartitionCount(why),
            Self::InvalidReplicationFactor(why) => ApiError::InvalidReplicationFactor(why),
            Self::InvalidAssignment(why) => ApiError::InvalidAssignment(why),
            Self::InternalTopic => ApiError::InternalTopic,
            Self::InvalidConfig(why) => ApiError::InvalidConfig(why),
            Self::InvalidNode(why) => ApiError::InvalidNode(why),
            Self::MetadataLogFull => ApiError::MetadataLogFull,
            Self::ProducerIdsExhausted => ApiError::ProducerIdsExhausted,
        }
    }
}

impl ReplyMessage {
    pub(super) fn of(outcome: &Result<ControllerReply, ApiError>) -> Self {
        match outcome {
            Ok(ControllerReply::Done) => Self::Done,
            Ok(ControllerReply::Created(CreatedTopic { id, replicas })) => {
                Self::Created { id: id.0, replicas: *replicas as u32 }
            }
            Ok(ControllerReply::ProducerIds(Range { start, end })) => {
                Self::ProducerIds { start: start.0, end: end.0 }
            }
            // Requests to join are not forwarded.
            Ok(ControllerReply::Join(_)) => Self::Failed(ErrorMessage::NotController),
            Err(error) => Self::Failed(error.into()),
        }
    }

    pub(super) fn into_outcome(self, service: Service) -> Result<ControllerReply, ApiError> {
        match self {
            Self::Done => Ok(ControllerReply::Done),
            Self::Created { id, replicas } => {
                let replicas = replicas as usize;
                Ok(ControllerReply::Created(CreatedTopic { id: TopicId(id), replicas }))
            }
            Self::ProducerIds { start, end } => {
                Ok(ControllerReply::ProducerIds(ProducerId(start)..ProducerId(end)))
            }
            Self::Failed(error) => Err(error.into_error(service)),
        }
    }
}
