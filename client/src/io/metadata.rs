//! Topic metadata, and routes to partition leaders.

use std::sync::Arc;
use std::time::Instant;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{PartitionIndex, TopicPartition};
use highwater_protocol::native::{
    CreateTopicReply, CreateTopicRequest, MetadataReply, MetadataRequest, TopicInfo,
};
use highwater_protocol::text::counted;

use super::calls::RetryPolicy;
use super::cluster::Cluster;
use super::conn::Conn;
use crate::core::backoff::Backoff;
use crate::error::{CallError, ConnectErrorKind};

impl Cluster {
    /// Fetches nodes and topics now.
    pub(crate) async fn metadata(
        self: &Arc<Self>,
        topics: Option<Vec<String>>,
    ) -> Result<MetadataReply, CallError> {
        let asked = Instant::now();
        let by_name = topics.is_some();
        let reply: MetadataReply = self.call(&MetadataRequest { topics }, RetryPolicy::Always).await?;
        self.learn(&reply, by_name, asked);
        Ok(reply)
    }

    fn learn(&self, reply: &MetadataReply, by_name: bool, asked: Instant) {
        let mut changed = false;
        let mut known = self.known();
        known.cluster = Some(reply.cluster);
        known.nodes = reply.nodes.iter().map(|node| (node.node, node.clone())).collect();
        for topic in &reply.topics {
            // A slow answer must not overwrite a later one.
            if known.topics.get(&topic.name).is_some_and(|(at, _)| *at > asked) {
                continue;
            }
            let kept = known.topics.get(&topic.name).map(|(_, kept)| kept.clone());
            if topic.error.is_some() {
                changed |= known.topics.remove(&topic.name).is_some();
                continue;
            }
            // A list of all topics must not mark them all as in use.
            if kept.is_none() && !by_name {
                continue;
            }
            let same = kept.as_deref() == Some(topic);
            changed |= !same;
            let info = kept.filter(|_| same).unwrap_or_else(|| Arc::new(topic.clone()));
            known.topics.insert(topic.name.clone(), (asked, info));
        }
        drop(known);
        if changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Returns a topic as of `since` or later.
    pub(crate) async fn topic(
        self: &Arc<Self>,
        name: &str,
        since: Option<Instant>,
    ) -> Result<Arc<TopicInfo>, CallError> {
        if let Some(info) = self.known_topic(name, since) {
            return Ok(info);
        }
        let asked = Instant::now();
        let _one_at_a_time = self.refreshing.lock().await;
        if let Some(info) = self.known_topic(name, Some(asked)) {
            return Ok(info);
        }
        let reply = self.metadata(Some(vec![name.to_owned()])).await?;
        let Some(info) = reply.topics.into_iter().find(|topic| topic.name == name) else {
            return Err(CallError::Malformed(format!("the metadata does not contain topic {name}")));
        };
        match info.error {
            None => Ok(Arc::new(info)),
            Some(code) => Err(CallError::Rejected { code, text: format!("there is no topic {name}") }),
        }
    }

    /// Returns a topic as of now. If it is missing and `create` is set, creates it with this many partitions.
    pub(crate) async fn topic_or_create(
        self: &Arc<Self>,
        name: &str,
        create: Option<u32>,
    ) -> Result<Arc<TopicInfo>, CallError> {
        let found = self.topic(name, Some(Instant::now())).await;
        let is_missing = matches!(&found, Err(CallError::Rejected { code: ErrorCode::UnknownTopic, .. }));
        let Some(partitions) = create.filter(|_| is_missing) else { return found };
        let (configs, validate_only) = (Vec::new(), false);
        let request =
            CreateTopicRequest { name: name.to_owned(), partitions, configs, validate_only, replicas: None };
        match self.call::<_, CreateTopicReply>(&request, RetryPolicy::Always).await {
            // Created concurrently, by another client or by a retry of this call.
            Ok(_) | Err(CallError::Rejected { code: ErrorCode::TopicExists, .. }) => {}
            Err(error) => return Err(error),
        }
        self.topic(name, Some(Instant::now())).await
    }

    fn known_topic(&self, name: &str, since: Option<Instant>) -> Option<Arc<TopicInfo>> {
        let known = self.known();
        let (at, info) = known.topics.get(name)?;
        since.is_none_or(|since| *at >= since).then(|| info.clone())
    }

    /// Returns a topic's known number of partitions.
    pub(crate) fn partitions_of(&self, name: &str) -> Option<u32> {
        self.known_topic(name, None).map(|info| info.partitions.len() as u32)
    }

    /// Fetches metadata of every topic in use.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        let topics: Vec<String> = self.known().topics.keys().cloned().collect();
        if !topics.is_empty() && !self.is_closed() {
            // If this fails, the next refresh will do.
            let _ = self.metadata(Some(topics)).await;
        }
    }

    /// Returns a connection to a partition's leader, waiting until there is one. Fails if the partition does not exist,
    /// or if no retry can succeed.
    ///
    /// `misrouted`: the last connection did not lead to the partition, so known metadata is stale.
    pub(crate) async fn route(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
        misrouted: bool,
    ) -> Result<(Arc<Conn>, TopicPartition), CallError> {
        let mut since = misrouted.then(Instant::now);
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        loop {
            if self.is_closed() {
                return Err(CallError::Closed);
            }
            let info = match self.topic(topic, since).await {
                Ok(info) => info,
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(pause.fail(rand::random())).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(leader) = info.partitions.get(partition as usize) else {
                let count = counted(info.partitions.len(), "partition");
                let text = format!("the topic has {count}, numbered from 0, and no partition {partition}");
                return Err(CallError::Rejected { code: ErrorCode::UnknownPartition, text });
            };
            let Some(node) = leader.leader else {
                // One is being elected.
                tokio::time::sleep(pause.fail(rand::random())).await;
                since = Some(Instant::now());
                continue;
            };
            match self.connection(node, leader.shard).await {
                Ok(conn) => {
                    let partition = PartitionIndex(partition);
                    return Ok((conn, TopicPartition { topic: info.id, partition }));
                }
                Err(error) if error.kind() == ConnectErrorKind::Closed => return Err(CallError::Closed),
                // The partition may have another leader by now.
                Err(_) => since = Some(Instant::now()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use highwater_protocol::ids::{ClusterId, TopicId};

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_stale_metadata_answer_changes_nothing() {
        let cluster = Cluster::new(Config::default());
        let reply = |id, error| {
            let topic =
                TopicInfo { name: "orders".into(), error, id: TopicId([id; 16]), partitions: Vec::new() };
            MetadataReply { cluster: ClusterId([9; 16]), nodes: Vec::new(), topics: vec![topic] }
        };
        let earlier = Instant::now();
        let later = earlier + Duration::from_secs(1);
        cluster.learn(&reply(2, None), true, later);
        cluster.learn(&reply(1, None), true, earlier);
        cluster.learn(&reply(1, Some(ErrorCode::UnknownTopic)), true, earlier);
        assert_eq!(cluster.known_topic("orders", Some(later)).unwrap().id, TopicId([2; 16]));
        cluster.learn(&reply(3, None), true, later);
        assert_eq!(cluster.known_topic("orders", Some(later)).unwrap().id, TopicId([3; 16]));
    }
}
