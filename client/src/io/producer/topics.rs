//! The topics of a producer. Each is looked up when the first record to it is sent, and has its own batches and task.

use std::sync::{Arc, Mutex};

use ahash::{AHashMap, AHashSet};
use highwater_protocol::limits::{BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX};
use highwater_protocol::native::{Acks, DescribeTopicReply, DescribeTopicRequest};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{ProducerShared, Settings, drive};
use crate::core::lane::LaneLimits;
use crate::core::producer::ProducerCore;
use crate::error::{ProduceError, ProduceErrorKind, WriteOutcome};
use crate::io::calls::RetryPolicy;
use crate::io::cluster::Cluster;
use crate::limits::PRODUCER_TOPICS_MAX;
use crate::lock::lock;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Topics {
    cluster: Arc<Cluster>,
    settings: Arc<Settings>,
    room: Arc<Semaphore>,
    known: Mutex<TopicTable>,
    /// Serialises lookups; those that waited for the same topic find it.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct TopicTable {
    open: AHashMap<Arc<str>, Arc<ProducerShared>>,
    /// Topics being looked up in the background.
    wanted: AHashSet<Arc<str>>,
    closed: bool,
}

impl Topics {
    pub(crate) fn new(cluster: Arc<Cluster>, settings: Settings) -> Self {
        Self {
            cluster,
            room: Arc::new(Semaphore::new(settings.buffer_bytes)),
            settings: Arc::new(settings),
            known: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the topics that were opened.
    pub(crate) fn all(&self) -> Vec<Arc<ProducerShared>> {
        lock(&self.known).open.values().cloned().collect()
    }

    /// Returns the topics that were opened, and opens no more.
    pub(crate) fn close(&self) -> Vec<Arc<ProducerShared>> {
        lock(&self.known).closed = true;
        self.all()
    }

    pub(crate) fn get(&self, topic: &str) -> Option<Arc<ProducerShared>> {
        lock(&self.known).open.get(topic).cloned()
    }

    /// Looks a topic up in the background, for a record that cannot wait.
    pub(crate) fn open_soon(self: &Arc<Self>, topic: Arc<str>) {
        let mut known = lock(&self.known);
        let has_room = known.open.len() + known.wanted.len() < PRODUCER_TOPICS_MAX;
        if known.closed || !has_room || !known.wanted.insert(topic.clone()) {
            return;
        }
        let topics = self.clone();
        self.cluster.runtime.spawn(async move {
            if let Err(error) = topics.open(&topic).await {
                tracing::debug!(%error, "topic lookup failed");
            }
            lock(&topics.known).wanted.remove(&topic);
        });
    }

    /// Returns the topic. Looks it up if this is the first record to it.
    pub(crate) async fn open(&self, topic: &Arc<str>) -> Result<Arc<ProducerShared>, ProduceError> {
        if let Some(open) = self.get(topic) {
            return Ok(open);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(open) = self.get(topic) {
            return Ok(open);
        }
        let shared = Arc::new(self.look_up(topic).await?);
        let mut known = lock(&self.known);
        if known.closed {
            let text = format!("{topic}: the producer was closed");
            return Err(ProduceError::new(ProduceErrorKind::Closed, WriteOutcome::NotWritten, text));
        }
        if known.open.len() == PRODUCER_TOPICS_MAX {
            let text = format!("{topic}: a producer sends to at most {PRODUCER_TOPICS_MAX} topics");
            return Err(ProduceError::new(ProduceErrorKind::Invalid, WriteOutcome::NotWritten, text));
        }
        known.open.insert(topic.clone(), shared.clone());
        drop(known);
        let span = tracing::debug_span!("producer", topic = %shared.topic);
        self.cluster.runtime.spawn(drive(shared.clone()).instrument(span));
        Ok(shared)
    }

    async fn look_up(&self, topic: &Arc<str>) -> Result<ProducerShared, ProduceError> {
        let Self { cluster, settings, room, .. } = self;
        let failed = |error| ProduceError::from_call(format_args!("cannot produce to topic {topic}"), &error);
        let info = cluster.topic_or_create(topic, settings.create).await.map_err(failed)?;
        let describe = DescribeTopicRequest { name: topic.to_string() };
        let described: DescribeTopicReply =
            cluster.call(&describe, RetryPolicy::Always).await.map_err(failed)?;
        let batch_bytes_max = max_message_bytes(&described).clamp(1, BATCH_BYTES_MAX);
        let limits = LaneLimits {
            linger: settings.linger,
            in_flight_max: settings.in_flight_max,
            delivery_timeout: settings.delivery_timeout,
            idempotent: settings.idempotent && settings.acks != Acks::None,
        };
        let (compression, batch_bytes) = (settings.compression, settings.batch_bytes);
        let mut core = ProducerCore::new(limits, compression, batch_bytes, batch_bytes_max, rand::random());
        core.set_batch_records_max(settings.batch_records);
        core.set_partitions(info.partitions.len() as u32);
        Ok(ProducerShared::new(topic.clone(), cluster.clone(), settings.clone(), room.clone(), core))
    }
}

fn max_message_bytes(topic: &DescribeTopicReply) -> usize {
    let config = topic.configs.iter().find(|(name, ..)| name == "max.message.bytes");
    config.and_then(|(_, value, _)| value.parse().ok()).unwrap_or(BATCH_BYTES_DEFAULT)
}
