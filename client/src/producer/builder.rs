//! Configuring a producer.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::batch::Compression;
use highwater_protocol::limits::DEDUP_BATCHES_MAX;
use highwater_protocol::native::Acks;

use super::{Producer, ProducerHandle};
use crate::error::{Outcome, ProduceError, ProduceErrorKind};
use crate::io::cluster::Cluster;
use crate::io::producer::topics::Topics;
use crate::io::producer::{Partitioner, Settings};
use crate::record::Record;

/// Configures a producer; await it to have the producer. Made by [`Client::producer`](crate::Client::producer) and
/// [`Client::multi_topic_producer`](crate::Client::multi_topic_producer).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is awaited"]
pub struct ProducerBuilder {
    cluster: Arc<Cluster>,
    topic: Option<String>,
    settings: Settings,
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, topic: Option<String>) -> Self {
        let settings = Settings {
            linger: Duration::ZERO,
            batch_bytes: 256 << 10,
            buffer_bytes: 32 << 20,
            in_flight: DEDUP_BATCHES_MAX,
            delivery_timeout: Duration::from_mins(2),
            compression: Compression::None,
            acks: Acks::All,
            idempotent: true,
            create: None,
            partitioner: None,
        };
        Self { cluster, topic, settings }
    }

    /// How long a batch waits for more records. Default: zero, which still fills batches while earlier ones are in flight.
    /// Timers have a resolution of about a millisecond.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Bytes a batch is filled to. Default: 256 KiB, and never more than the topic's `max.message.bytes`.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// Bytes of records the producer holds before `send` waits, those to all topics together; a record that is larger waits until it is alone. Default:
    /// 32 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// Batches sent to a partition and not yet acknowledged. Default and, for an idempotent producer, the most: 5.
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.settings.in_flight = batches;
        self
    }

    /// How long after being sent a record is given up. Default: 2 minutes. Until then it is retried.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// How batches are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// What an acknowledgement means. Default: [`Acks::All`]. With [`Acks::None`] there is none: a delivery is ready once its
    /// batch has left, has no offset, and what has left is not sent again. What the broker then refuses comes out of
    /// [`Producer::flush`] and [`Producer::close`], counted and without the records; what is lost with a connection does not.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// Whether the broker recognises a batch that it gets twice. Default: yes. Without, a retry may duplicate and reorder.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// Creates topics that are missing, with so many partitions and the broker's default configuration. Default: a missing topic is an error.
    /// To choose the configuration, see [`CreateTopic::if_missing`](crate::CreateTopic::if_missing).
    pub fn create_if_missing(mut self, partitions: u32) -> Self {
        self.settings.create = Some(partitions);
        self
    }

    /// Chooses the partition of records that do not name one, from the topic, the record and the topic's number of partitions. Where it returns
    /// none the default holds: the key decides, as with Kafka's clients; records without a key change the partition with every batch.
    ///
    /// ```no_run
    /// # async fn example(client: highwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // All of a tenant's records on one partition, whatever the key is beyond the tenant.
    /// let producer = client.producer("orders").partitioner(|_topic, record, partitions| {
    ///     let tenant = record.key_bytes()?.split(|byte| *byte == b'/').next()?;
    ///     Some(highwater_client::partition_for_key(tenant, partitions))
    /// });
    /// let producer = producer.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn partitioner(
        mut self,
        choose: impl Fn(&str, &Record, u32) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        self.settings.partitioner = Some(Partitioner(Box::new(choose)));
        self
    }

    async fn start(self) -> Result<Producer, ProduceError> {
        let Self { cluster, topic, settings } = self;
        let invalid = |text: &str| ProduceError::new(ProduceErrorKind::Invalid, Outcome::NotWritten, text);
        let idempotent = settings.idempotent && settings.acks != Acks::None;
        if settings.in_flight == 0 || (idempotent && settings.in_flight > DEDUP_BATCHES_MAX) {
            return Err(invalid(&format!(
                "in_flight({}): between 1 and {DEDUP_BATCHES_MAX}, which is what the broker remembers of a producer",
                settings.in_flight
            )));
        }
        if settings.buffer_bytes == 0 || settings.buffer_bytes > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(invalid("buffer_bytes: must be positive and fit the address space"));
        }
        let topics = Arc::new(Topics::new(cluster, settings));
        let own = match topic {
            Some(topic) => Some(topics.open(&topic.into()).await?),
            None => None,
        };
        Ok(Producer(Arc::new(ProducerHandle { own, topics })))
    }
}

impl IntoFuture for ProducerBuilder {
    type Output = Result<Producer, ProduceError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
