//! Requests about partitions of a topic that only their leaders can answer, each for its own. Partitions whose leader has changed, or cannot be reached, are asked for
//! again, until the time for the whole request is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, PartitionIndex};
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

/// The time for a request, and the pauses between its attempts.
struct Attempts {
    deadline: tokio::time::Instant,
    pause: Backoff,
}

impl Attempts {
    fn new(cluster: &Cluster) -> Self {
        let config = &cluster.config;
        let deadline = tokio::time::Instant::now() + config.request_timeout;
        Self { deadline, pause: Backoff::new(config.backoff_min, config.backoff_max) }
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
        let numbered = partitions.into_iter().enumerate();
        let mut left: Vec<Entry<Start>> =
            numbered.map(|(number, (index, start))| (number, index, start)).collect();
        let mut attempts = Attempts::new(self);
        loop {
            let info = self.topic(topic, Some(Instant::now())).await?;
            let (led, leaderless) = by_leader(&info, std::mem::take(&mut left));
            let mut last = no_leader();
            left = leaderless;
            for (node, entries) in led {
                let partitions = entries.iter().map(|(_, index, start)| (*index, *start)).collect();
                let request = ListOffsetsRequest { topic: info.id, partitions };
                match self.call_node::<_, ListOffsetsReply>(node, &request).await {
                    Ok(reply) => {
                        for (entry, found) in entries.into_iter().zip(reply.partitions) {
                            match found.found {
                                Err(code) if code.is_retryable() => left.push(entry),
                                _ => listed[entry.0] = Some(found),
                            }
                        }
                    }
                    Err(error) if error.is_transient() => {
                        left.extend(entries);
                        last = error;
                    }
                    Err(error) => return Err(error),
                }
            }
            if left.is_empty() {
                return Ok(listed.into_iter().flatten().collect());
            }
            attempts.wait(last).await?;
        }
    }

    /// Deletes the records of partitions before these offsets.
    pub(crate) async fn delete_records(
        self: &Arc<Self>,
        topic: &str,
        partitions: Vec<(PartitionIndex, Offset)>,
    ) -> Result<(), CallError> {
        let numbered = partitions.into_iter().enumerate();
        let mut left: Vec<Entry<Offset>> =
            numbered.map(|(number, (index, to))| (number, index, to)).collect();
        let mut attempts = Attempts::new(self);
        loop {
            let info = self.topic(topic, Some(Instant::now())).await?;
            let (led, leaderless) = by_leader(&info, std::mem::take(&mut left));
            let mut last = no_leader();
            left = leaderless;
            for (node, entries) in led {
                let partitions = entries.iter().map(|(_, index, to)| (*index, *to)).collect();
                let request = DeleteRecordsRequest { topic: info.id, partitions };
                match self.call_node_empty(node, &request).await {
                    Ok(()) => {}
                    Err(error) if error.is_transient() => {
                        left.extend(entries);
                        last = error;
                    }
                    Err(error) => return Err(error),
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            attempts.wait(last).await?;
        }
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
