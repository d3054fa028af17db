//! Configuring a producer.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_protocol::batch::Compression;
use highwater_protocol::limits::{BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, DEDUP_BATCHES_MAX};
use highwater_protocol::native::{Acks, DescribeTopicReply, DescribeTopicRequest};
use tracing::Instrument;

use super::{Handle, Producer};
use crate::core::lane::LaneLimits;
use crate::core::producer::ProducerCore;
use crate::error::{Outcome, ProduceError, ProduceErrorKind};
use crate::io::calls::Repeat;
use crate::io::cluster::Cluster;
use crate::io::producer::{ProducerShared, drive};

/// Configures a producer; await it to have the producer. Made by [`Client::producer`](crate::Client::producer).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is awaited"]
pub struct ProducerBuilder {
    cluster: Arc<Cluster>,
    topic: String,
    linger: Duration,
    batch_bytes: usize,
    buffer_bytes: usize,
    in_flight: usize,
    delivery_timeout: Duration,
    compression: Compression,
    acks: Acks,
    idempotent: bool,
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, topic: String) -> Self {
        Self {
            cluster,
            topic,
            linger: Duration::ZERO,
            batch_bytes: 256 << 10,
            buffer_bytes: 32 << 20,
            in_flight: DEDUP_BATCHES_MAX,
            delivery_timeout: Duration::from_mins(2),
            compression: Compression::None,
            acks: Acks::All,
            idempotent: true,
        }
    }

    /// How long a batch waits for more records. Default: zero, which still fills batches while earlier ones are in flight.
    /// Timers have a resolution of about a millisecond.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bytes a batch is filled to. Default: 256 KiB, and never more than the topic's `max.message.bytes`.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Bytes of records the producer holds before `send` waits. Default: 32 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Batches sent to a partition and not yet acknowledged. Default and, for an idempotent producer, the most: 5.
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.in_flight = batches;
        self
    }

    /// How long after being sent a record is given up. Default: 2 minutes. Until then it is retried.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// How batches are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// What an acknowledgement means. Default: [`Acks::All`]. With [`Acks::None`] there is none: a delivery is ready once its
    /// batch has left, has no offset, and what has left is not sent again. What the broker then refuses comes out of
    /// [`Producer::flush`] and [`Producer::close`], counted and without the records; what is lost with a connection does not.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Whether the broker recognises a batch that it gets twice. Default: yes. Without, a retry may duplicate and reorder.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    async fn start(self) -> Result<Producer, ProduceError> {
        let invalid = |text: &str| ProduceError::new(ProduceErrorKind::Invalid, Outcome::NotWritten, text);
        let idempotent = self.idempotent && self.acks != Acks::None;
        if self.in_flight == 0 || (idempotent && self.in_flight > DEDUP_BATCHES_MAX) {
            return Err(invalid(&format!(
                "in_flight({}): between 1 and {DEDUP_BATCHES_MAX}, which is what the broker remembers of a producer",
                self.in_flight
            )));
        }
        if self.buffer_bytes == 0 || self.buffer_bytes > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(invalid("buffer_bytes: must be positive and fit the address space"));
        }
        let name: Arc<str> = self.topic.into();
        let failed = |error| ProduceError::from_call(format_args!("cannot produce to topic {name}"), &error);
        let info = self.cluster.topic(&name, Some(Instant::now())).await.map_err(failed)?;
        let describe = DescribeTopicRequest { name: name.to_string() };
        let described: DescribeTopicReply =
            self.cluster.call(&describe, Repeat::Always).await.map_err(failed)?;
        let batch_bytes_max = max_message_bytes(&described).clamp(1, BATCH_BYTES_MAX);

        let limits = LaneLimits {
            linger: self.linger,
            in_flight_max: self.in_flight,
            delivery_timeout: self.delivery_timeout,
            idempotent,
        };
        let mut core =
            ProducerCore::new(limits, self.compression, self.batch_bytes, batch_bytes_max, rand::random());
        core.set_partitions(info.partitions.len() as u32);
        let shared = Arc::new(ProducerShared::new(
            name,
            self.cluster,
            core,
            self.acks,
            self.delivery_timeout,
            self.buffer_bytes,
        ));
        let span = tracing::debug_span!("producer", topic = %shared.topic);
        shared.cluster.runtime.spawn(drive(shared.clone()).instrument(span));
        Ok(Producer(Arc::new(Handle(shared))))
    }
}

fn max_message_bytes(topic: &DescribeTopicReply) -> usize {
    let config = topic.configs.iter().find(|(name, ..)| name == "max.message.bytes");
    config.and_then(|(_, value, _)| value.parse().ok()).unwrap_or(BATCH_BYTES_DEFAULT)
}

impl IntoFuture for ProducerBuilder {
    type Output = Result<Producer, ProduceError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
