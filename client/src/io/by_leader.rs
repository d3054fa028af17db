//! Requests about partitions of a topic that only their leaders can answer, each for its own. Partitions whose leader has changed, or cannot be reached, are asked for
//! again, until the time for the whole request is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    DeleteRecordsRequest, DescribeTopicReply, DescribeTopicRequest, ListOffsetsReply, ListOffsetsRequest,
    ListedOffset, Start, TopicInfo,
};

use super::calls::RetryPolicy;
use super::cluster::Cluster;
use crate::core::backoff::Backoff;
use crate::error::CallError;

/// A partition of a request, with its number in the request.
type Entry<T> = (usize, PartitionIndex, T);

/// Partitions of a request by the nodes that lead them, and those without a known leader.
type ByLeader<T> = (BTreeMap<NodeId, Vec<Entry<T>>>, Vec<Entry<T>>);

/// Returns the partitions of a request by the nodes that lead them. Those without a known leader are returned apart.
fn by_leader<T>(info: &TopicInfo, entries: Vec<Entry<T>>) -> ByLeader<T> {
    let (mut led, mut leaderless) = (BTreeMap::<NodeId, Vec<Entry<T>>>::new(), Vec::new());
    let any = info.partitions.iter().find_map(|partition| partition.leader);
    for entry in entries {
        let node = match info.partitions.get(entry.1.0 as usize) {
            Some(partition) => partition.leader,
            // Any node says that there is no such partition.
            None => any,
        };
        match node {
            Some(node) => led.entry(node).or_default().push(entry),
            None => leaderless.push(entry),
        }
    }
    (led, leaderless)
}

/// Partitions of a request that have no answer yet, the time for it, and the pauses between its attempts.
struct Asking<T> {
    left: Vec<Entry<T>>,
    /// Why some are left after an attempt. `None` before the first one.
    failure: Option<CallError>,
    deadline: tokio::time::Instant,
    pause: Backoff,
}

impl<T> Asking<T> {
    fn new(cluster: &Cluster, partitions: Vec<(PartitionIndex, T)>) -> Self {
        let config = &cluster.config;
        let numbered = partitions.into_iter().enumerate();
        Self {
            left: numbered.map(|(number, (index, what))| (number, index, what)).collect(),
            failure: None,
            deadline: tokio::time::Instant::now() + config.request_timeout,
            pause: Backoff::new(config.backoff_min, config.backoff_max),
        }
    }

    /// Begins the next attempt, after a pause if it is not the first one. Returns the topic's id, and which partitions to ask which node about; `None` if all
    /// have their answer. Fails if there is no time for another attempt.
    async fn next(
        &mut self,
        cluster: &Arc<Cluster>,
        topic: &str,
    ) -> Result<Option<(TopicId, BTreeMap<NodeId, Vec<Entry<T>>>)>, CallError> {
        if let Some(failure) = self.failure.take() {
            if self.left.is_empty() {
                return Ok(None);
            }
            self.wait(failure).await?;
        }
        self.failure = Some(no_leader());
        let info = cluster.topic(topic, Some(Instant::now())).await?;
        let (led, leaderless) = by_leader(&info, std::mem::take(&mut self.left));
        self.left = leaderless;
        Ok(Some((info.id, led)))
    }

    /// Handles that a node has not answered: its partitions are asked about again, unless the error says that this is no use.
    fn fail(&mut self, entries: Vec<Entry<T>>, error: CallError) -> Result<(), CallError> {
        if !error.is_transient() {
            return Err(error);
        }
        self.left.extend(entries);
        self.failure = Some(error);
        Ok(())
    }

    /// Waits for the next attempt. Fails with `error` if there is no time for one.
    async fn wait(&mut self, error: CallError) -> Result<(), CallError> {
        let next = tokio::time::Instant::now() + self.pause.fail(rand::random());
        if next >= self.deadline {
            return Err(error);
        }
        tokio::time::sleep_until(next).await;
        Ok(())
    }
}

fn no_leader() -> CallError {
    let text = "a partition has no leader at the moment".to_owned();
    CallError::Rejected { code: ErrorCode::NotLeader, text }
}

impl Cluster {
    /// Returns the offsets at these places, in the order of `partitions`.
    pub(crate) async fn list_offsets(
        self: &Arc<Self>,
        topic: &str,
        partitions: Vec<(PartitionIndex, Start)>,
    ) -> Result<Vec<ListedOffset>, CallError> {
        let mut listed: Vec<Option<ListedOffset>> = partitions.iter().map(|_| None).collect();
        let mut asking = Asking::new(self, partitions);
        while let Some((topic, led)) = asking.next(self, topic).await? {
            for (node, entries) in led {
                let partitions = entries.iter().map(|(_, index, start)| (*index, *start)).collect();
                let request = ListOffsetsRequest { topic, partitions };
                match self.call_node::<_, ListOffsetsReply>(node, &request).await {
                    Ok(reply) => {
                        for (entry, found) in entries.into_iter().zip(reply.partitions) {
                            match found.found {
                                Err(code) if code.is_retryable() => asking.left.push(entry),
                                _ => listed[entry.0] = Some(found),
                            }
                        }
                    }
                    Err(error) => asking.fail(entries, error)?,
                }
            }
        }
        Ok(listed.into_iter().flatten().collect())
    }

    /// Deletes the records of partitions before these offsets.
    pub(crate) async fn delete_records(
        self: &Arc<Self>,
        topic: &str,
        partitions: Vec<(PartitionIndex, Offset)>,
    ) -> Result<(), CallError> {
        let mut asking = Asking::new(self, partitions);
        while let Some((topic, led)) = asking.next(self, topic).await? {
            for (node, entries) in led {
                let partitions = entries.iter().map(|(_, index, to)| (*index, *to)).collect();
                let request = DeleteRecordsRequest { topic, partitions };
                if let Err(error) = self.call_node_empty(node, &request).await {
                    asking.fail(entries, error)?;
                }
            }
        }
        Ok(())
    }

    /// Describes a topic. The logs of partitions whose leaders cannot be reached are missing.
    pub(crate) async fn describe_topic(
        self: &Arc<Self>,
        request: &DescribeTopicRequest,
    ) -> Result<DescribeTopicReply, CallError> {
        let mut described: DescribeTopicReply = self.call(request, RetryPolicy::Always).await?;
        let is_missing = described.partitions.iter().any(|partition| partition.log.is_none());
        if !is_missing {
            return Ok(described);
        }
        // The addresses of nodes that this client has not connected to yet.
        self.metadata(Some(vec![request.name.clone()])).await?;
        let unknown = described.partitions.iter().filter(|partition| partition.log.is_none());
        let mut nodes: Vec<NodeId> = unknown.filter_map(|partition| partition.info.leader).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let reply: DescribeTopicReply = match self.call_node(node, request).await {
                Ok(reply) => reply,
                Err(error) => {
                    tracing::debug!(node = node.0, topic = request.name, %error, "a leader does not answer");
                    continue;
                }
            };
            if reply.id != described.id {
                continue;
            }
            for (partition, theirs) in described.partitions.iter_mut().zip(reply.partitions) {
                if partition.log.is_none() && theirs.log.is_some() {
                    *partition = theirs;
                }
            }
        }
        Ok(described)
    }
}
