//! The node to which a request goes.
//!
//! | request | node |
//! |---|---|
//! | about a group | the coordinator: the node that leads the partition of the groups' topic that keeps the group |
//! | that only the controller can carry out | the one that is asked first, and after [`ErrorCode::NotController`] the next one |
//! | any other | any |

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, ShardId};
use highwater_protocol::native::{
    Body, CommitGroupOffsetsRequest, CommitOffsetsRequest, DeleteGroupRequest, DescribeGroupRequest,
    GroupHeartbeatRequest, ReadGroupOffsetsRequest, ReadOffsetsRequest, TopicInfo,
};
use highwater_protocol::partitioner::partition_of_group;
use highwater_protocol::topic::GROUPS_TOPIC;

use super::calls::is_elsewhere;
use super::cluster::Cluster;
use super::conn::Conn;
use crate::error::{CallError, ConnectError, ConnectErrorKind};

/// A request that the coordinator of a group answers.
pub(crate) trait InGroup: Body {
    /// Returns the name of the group. A named consumer is a group.
    fn group(&self) -> &str;
}

macro_rules! in_group {
    ($($request:ident $field:ident,)+) => {
        $(impl InGroup for $request {
            fn group(&self) -> &str {
                &self.$field
            }
        })+
    };
}

in_group! {
    CommitGroupOffsetsRequest group,
    CommitOffsetsRequest consumer,
    DeleteGroupRequest name,
    DescribeGroupRequest name,
    GroupHeartbeatRequest group,
    ReadGroupOffsetsRequest group,
    ReadOffsetsRequest consumer,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Destination<'a> {
    group: Option<&'a str>,
    /// The node of the last attempt.
    last: Option<NodeId>,
    /// It did not lead what the request is about, or could not be reached.
    has_failed: bool,
}

impl<'a> Destination<'a> {
    /// Any node, and another one if that one is not the controller.
    pub(super) fn any() -> Self {
        Self { group: None, last: None, has_failed: false }
    }

    /// The coordinator of a group.
    pub(super) fn of_group(group: &'a str) -> Self {
        Self { group: Some(group), ..Self::any() }
    }

    /// Notes why the last attempt failed.
    pub(super) fn handle_failure(&mut self, error: &CallError) {
        self.has_failed = match error {
            CallError::Rejected { code, .. } => is_elsewhere(*code),
            // The group may have another coordinator by now. For other requests any node will do, also one that is not known yet.
            _ => self.group.is_some(),
        };
    }

    /// Returns a connection to the node.
    pub(super) async fn connect(&mut self, cluster: &Arc<Cluster>) -> Result<Arc<Conn>, CallError> {
        let node = match self.group {
            Some(group) => coordinator(cluster, group, self.has_failed).await?,
            None if self.has_failed => cluster.node_after(self.last),
            None => None,
        };
        let connected = match node {
            Some(node) => cluster.node_connection(node).await,
            None => cluster.any().await,
        };
        match connected {
            Ok(conn) => {
                self.last = Some(conn.node);
                Ok(conn)
            }
            Err(error) if error.kind() == ConnectErrorKind::Closed => Err(CallError::Closed),
            Err(error) => {
                self.last = node;
                Err(CallError::Unreachable(error))
            }
        }
    }
}

/// Fetches the groups' topic. Boxed, because this is itself a call, of the metadata.
fn groups_topic(
    cluster: &Arc<Cluster>,
    since: Option<Instant>,
) -> Pin<Box<dyn Future<Output = Result<Arc<TopicInfo>, CallError>> + Send + '_>> {
    Box::pin(cluster.topic(GROUPS_TOPIC, since))
}

/// Returns the node that coordinates a group; `None` if any node will do. `is_stale`: what is known about that was wrong.
async fn coordinator(
    cluster: &Arc<Cluster>,
    group: &str,
    is_stale: bool,
) -> Result<Option<NodeId>, CallError> {
    if !cluster.has_several_nodes() {
        return Ok(None);
    }
    let topic = match groups_topic(cluster, is_stale.then(Instant::now)).await {
        Ok(topic) => topic,
        // The first request about a group creates the topic.
        Err(CallError::Rejected { code: ErrorCode::UnknownTopic, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let partition = partition_of_group(group, topic.partitions.len() as u32);
    let leader = topic.partitions.get(partition as usize).and_then(|partition| partition.leader);
    let text = "the partition of the group has no leader at the moment".to_owned();
    let error = CallError::Rejected { code: ErrorCode::NotCoordinator, text };
    leader.map(Some).ok_or(error)
}

impl Cluster {
    /// Returns a connection to any shard of a node.
    pub(super) async fn node_connection(self: &Arc<Self>, node: NodeId) -> Result<Arc<Conn>, ConnectError> {
        match self.live_on(node) {
            Some(conn) => Ok(conn),
            None => self.connection(node, ShardId(0)).await,
        }
    }
}
