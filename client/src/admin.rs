//! Administration of topics, offsets and the cluster.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    AlterTopicRequest, CommitOffsetsRequest, CommittedOffset, CreateTopicReply, CreateTopicRequest,
    DeleteTopicRequest, DescribeTopicRequest, ListedOffset, MessageKind, ReadOffsetsReply,
    ReadOffsetsRequest, ReleaseSpaceRequest, Start,
};

use crate::client::Client;
use crate::error::{AdminError, CallError};
use crate::io::calls::RetryPolicy;
use crate::{BrokerStats, ClusterMetadata, TopicDescription};

/// The result of an administrative call.
pub type AdminResult<T> = Result<T, AdminError>;

impl Client {
    /// Returns the cluster's nodes and all topics.
    pub async fn metadata(&self) -> AdminResult<ClusterMetadata> {
        self.cluster.metadata(None).await.map_err(failed(format_args!("the cluster cannot be described")))
    }

    /// Returns the counters of one broker, one that the client is connected to. `docs/operations.md` describes them.
    pub async fn stats(&self) -> AdminResult<BrokerStats> {
        let result = self.cluster.call_without_body(MessageKind::Stats).await;
        result.map_err(failed(format_args!("the broker's statistics cannot be read")))
    }

    /// Has one broker, one that the client is connected to, return its free space to the file system, all but `kept_bytes`. It does that in the
    /// background; its counters show the progress.
    pub async fn release_space(&self, kept_bytes: u64) -> AdminResult<()> {
        let request = ReleaseSpaceRequest { kept_bytes };
        let result = self.cluster.call_empty(&request, RetryPolicy::Always).await;
        result.map_err(failed(format_args!("the broker's free space cannot be released")))
    }

    /// Returns a builder that creates a topic; await it to create the topic. The topic can be used as soon as that is
    /// done.
    pub fn create_topic(&self, name: impl Into<String>) -> CreateTopic {
        let request = CreateTopicRequest {
            name: name.into(),
            partitions: 1,
            configs: Vec::new(),
            validate_only: false,
            replicas: None,
        };
        CreateTopic { client: self.clone(), request, if_not_exists: false }
    }

    /// Deletes a topic with all its records.
    pub async fn delete_topic(&self, name: impl Into<String>) -> AdminResult<()> {
        let request = DeleteTopicRequest { name: name.into() };
        let result = self.cluster.call_empty(&request, RetryPolicy::IfUnsent).await;
        result.map_err(failed(format_args!("topic {} cannot be deleted", request.name)))
    }

    /// Returns a builder that changes a topic; await it to make the changes.
    pub fn alter_topic(&self, name: impl Into<String>) -> AlterTopic {
        let request = AlterTopicRequest { name: name.into(), configs: Vec::new(), partitions: None };
        AlterTopic { client: self.clone(), request }
    }

    /// Returns a topic's configuration and the offset bounds of its partitions.
    pub async fn describe_topic(&self, name: impl Into<String>) -> AdminResult<TopicDescription> {
        let request = DescribeTopicRequest { name: name.into() };
        let result = self.cluster.describe_topic(&request).await;
        result.map_err(failed(format_args!("topic {} cannot be described", request.name)))
    }

    /// Returns the start or the end of each partition, or its first offset with a timestamp at or after a time.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = (u32, Start)>,
    ) -> AdminResult<Vec<ListedOffset>> {
        let failed = failed(format_args!("offsets of topic {topic} cannot be listed"));
        let partitions =
            partitions.into_iter().map(|(partition, at)| (PartitionIndex(partition), at)).collect();
        self.cluster.list_offsets(topic, partitions).await.map_err(failed)
    }

    /// Deletes the records before these offsets. They are gone once the call returns.
    pub async fn delete_records(
        &self,
        topic: &str,
        before: impl IntoIterator<Item = (u32, Offset)>,
    ) -> AdminResult<()> {
        let failed = failed(format_args!("records of topic {topic} cannot be deleted"));
        let partitions =
            before.into_iter().map(|(partition, offset)| (PartitionIndex(partition), offset)).collect();
        self.cluster.delete_records(topic, partitions).await.map_err(failed)
    }

    /// Returns the positions that a named consumer has committed.
    pub async fn committed_offsets(&self, consumer: &str, topic: &str) -> AdminResult<Vec<CommittedOffset>> {
        let failed = failed(format_args!("positions of {consumer} in topic {topic} cannot be read"));
        let topic = self.topic_id(topic).await.map_err(&failed)?;
        let request = ReadOffsetsRequest { consumer: consumer.to_owned(), topic };
        let reply: ReadOffsetsReply =
            self.cluster.call_group(&request, RetryPolicy::Always).await.map_err(failed)?;
        Ok(reply.positions)
    }

    /// Sets the positions of a named consumer. A running consumer is not affected.
    pub async fn commit_offsets(
        &self,
        consumer: &str,
        topic: &str,
        positions: impl IntoIterator<Item = (u32, Offset)>,
    ) -> AdminResult<()> {
        let failed = failed(format_args!("positions of {consumer} in topic {topic} cannot be set"));
        let positions = positions.into_iter().map(to_committed).collect();
        // A topic that was deleted and created again has another id: the known one is rejected then.
        let known = self.cluster.topic(topic, None).await.map_err(&failed)?.id;
        let mut request = CommitOffsetsRequest { consumer: consumer.to_owned(), topic: known, positions };
        let committed = self.cluster.call_group_empty(&request, RetryPolicy::Always).await;
        let Err(CallError::Rejected { code: ErrorCode::UnknownTopic, .. }) = committed else {
            return committed.map_err(failed);
        };
        request.topic = self.topic_id(topic).await.map_err(&failed)?;
        self.cluster.call_group_empty(&request, RetryPolicy::Always).await.map_err(failed)
    }

    pub(crate) async fn topic_id(&self, name: &str) -> Result<TopicId, CallError> {
        // Fetch metadata anew: a recreated topic has another id.
        let info = self.cluster.topic(name, Some(std::time::Instant::now())).await?;
        Ok(info.id)
    }
}

pub(crate) fn to_committed((partition, offset): (u32, Offset)) -> CommittedOffset {
    CommittedOffset {
        partition: PartitionIndex(partition),
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    }
}

pub(crate) fn failed(what: fmt::Arguments<'_>) -> impl Fn(CallError) -> AdminError + use<> {
    let what = what.to_string();
    move |error| AdminError::from_call(&what, &error)
}

/// Creates a topic when awaited. Made by [`Client::create_topic`].
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct CreateTopic {
    client: Client,
    request: CreateTopicRequest,
    if_not_exists: bool,
}

impl CreateTopic {
    /// Sets the number of partitions. Default: 1.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.request.partitions = partitions;
        self
    }

    /// Sets the number of replicas of each partition, each on another node. Default: 3, or one for each node if there are fewer.
    pub fn replicas(mut self, replicas: u8) -> Self {
        self.request.replicas = Some(replicas);
        self
    }

    /// Sets a configuration entry, by its name in Kafka.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.configs.push((name.into(), value.into()));
        self
    }

    /// If the topic already exists, leaves it unchanged, whatever its partitions and configuration, and returns its id.
    pub fn if_not_exists(mut self) -> Self {
        self.if_not_exists = true;
        self
    }

    /// Checks whether the topic could be created, without creating it.
    pub fn validate_only(mut self) -> Self {
        self.request.validate_only = true;
        self
    }
}

impl IntoFuture for CreateTopic {
    type Output = AdminResult<TopicId>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, request, if_not_exists } = self;
            let failed = failed(format_args!("topic {} cannot be created", request.name));
            let repeat = if if_not_exists { RetryPolicy::Always } else { RetryPolicy::IfUnsent };
            match client.cluster.call(&request, repeat).await {
                Ok(CreateTopicReply { id, .. }) => Ok(id),
                Err(CallError::Rejected { code: ErrorCode::TopicExists, .. }) if if_not_exists => {
                    client.topic_id(&request.name).await.map_err(failed)
                }
                Err(error) => Err(failed(error)),
            }
        })
    }
}

/// Changes a topic when awaited. Made by [`Client::alter_topic`].
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct AlterTopic {
    client: Client,
    request: AlterTopicRequest,
}

impl AlterTopic {
    /// Sets the new number of partitions, which can only grow. Keys may map to other partitions from then on.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.request.partitions = Some(partitions);
        self
    }

    /// Sets a configuration entry, by its name in Kafka.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.configs.push((name.into(), Some(value.into())));
        self
    }

    /// Resets a configuration entry to its default.
    pub fn reset_config(mut self, name: impl Into<String>) -> Self {
        self.request.configs.push((name.into(), None));
        self
    }
}

impl IntoFuture for AlterTopic {
    type Output = AdminResult<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            // The call is idempotent.
            let result = self.client.cluster.call_empty(&self.request, RetryPolicy::Always).await;
            let failed = failed(format_args!("topic {} cannot be changed", self.request.name));
            result.map_err(failed)?;
            self.client.cluster.refresh().await;
            Ok(())
        })
    }
}
