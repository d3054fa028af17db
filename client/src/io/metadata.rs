//! What is known of topics, and the way to a partition's leader.

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
    /// Nodes and topics, asked for now.
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
            // A slow answer does not undo what was asked later.
            if known.topics.get(&topic.name).is_some_and(|(at, _)| *at > asked) {
                continue;
            }
            let kept = known.topics.get(&topic.name).map(|(_, kept)| kept.clone());
            if topic.error.is_some() {
                changed |= known.topics.remove(&topic.name).is_some();
                continue;
            }
            // A list of everything is no reason to keep everything up to date.
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

    /// A topic as it was at `since` or later.
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
            return Err(CallError::Malformed(format!("metadata without the topic {name}")));
        };
        match info.error {
            None => Ok(Arc::new(info)),
            Some(code) => Err(CallError::Refused { code, text: format!("there is no topic {name}") }),
        }
    }

    /// A topic as it is now. If it is missing and `create` says with how many partitions, it is created.
    pub(crate) async fn topic_or_create(
        self: &Arc<Self>,
        name: &str,
        create: Option<u32>,
    ) -> Result<Arc<TopicInfo>, CallError> {
        let found = self.topic(name, Some(Instant::now())).await;
        let is_missing = matches!(&found, Err(CallError::Refused { code: ErrorCode::UnknownTopic, .. }));
        let Some(partitions) = create.filter(|_| is_missing) else { return found };
        let (configs, validate_only) = (Vec::new(), false);
        let request = CreateTopicRequest { name: name.to_owned(), partitions, configs, validate_only };
        match self.call::<_, CreateTopicReply>(&request, RetryPolicy::Always).await {
            // Somebody else was faster, or this client is: it may have been asked twice.
            Ok(_) | Err(CallError::Refused { code: ErrorCode::TopicExists, .. }) => {}
            Err(error) => return Err(error),
        }
        self.topic(name, Some(Instant::now())).await
    }

    fn known_topic(&self, name: &str, since: Option<Instant>) -> Option<Arc<TopicInfo>> {
        let known = self.known();
        let (at, info) = known.topics.get(name)?;
        since.is_none_or(|since| *at >= since).then(|| info.clone())
    }

    /// How many partitions a topic is known to have.
    pub(crate) fn partitions_of(&self, name: &str) -> Option<u32> {
        self.known_topic(name, None).map(|info| info.partitions.len() as u32)
    }

    /// Asks again about every topic in use.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        let topics: Vec<String> = self.known().topics.keys().cloned().collect();
        if !topics.is_empty() && !self.is_closed() {
            // Next time, if not now.
            let _ = self.metadata(Some(topics)).await;
        }
    }

    /// A connection to the leader of a partition, however long it takes. Fails only if there is no such partition, or for good.
    ///
    /// `misrouted`: the last one led elsewhere, so what is known is out of date.
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
                let text =
                    format!("topic {topic} has {count}, numbered from 0, and no partition {partition}");
                return Err(CallError::Refused { code: ErrorCode::UnknownPartition, text });
            };
            match self.connection(leader.leader, leader.shard).await {
                Ok(conn) => {
                    let partition = PartitionIndex(partition);
                    return Ok((conn, TopicPartition { topic: info.id, partition }));
                }
                Err(error) if error.kind() == ConnectErrorKind::Closed => return Err(CallError::Closed),
                // It may lead elsewhere by now.
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
    async fn an_answer_that_was_overtaken_changes_nothing() {
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
