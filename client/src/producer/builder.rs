//! Configuration of a producer.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::batch::Compression;
use highwater_protocol::limits::DEDUP_BATCHES_MAX;
use highwater_protocol::native::Acks;

use super::{Producer, ProducerHandle};
use crate::error::{ProduceError, ProduceErrorKind, WriteOutcome};
use crate::io::cluster::Cluster;
use crate::io::producer::topics::Topics;
use crate::io::producer::{Partitioner, Settings};
use crate::record::Record;

/// Configures a producer; await it to create the producer. Made by [`Client::producer`](crate::Client::producer) and
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
            batch_records: u32::MAX,
            buffer_bytes: 32 << 20,
            in_flight_max: DEDUP_BATCHES_MAX,
            delivery_timeout: Duration::from_mins(2),
            compression: Compression::None,
            acks: Acks::All,
            idempotent: true,
            create: None,
            partitioner: None,
        };
        Self { cluster, topic, settings }
    }

    /// Sets how long a batch waits for more records. Default: zero, with which batches still fill up while earlier ones
    /// are in flight. Timers have a resolution of about a millisecond.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Sets the size in bytes to which a batch is filled. Default: 256 KiB. Never exceeds the topic's
    /// `max.message.bytes`.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// Sets how many records a batch has at most. It is sent when it has as many, without lingering. Default: as many as fit
    /// [`ProducerBuilder::batch_bytes`].
    pub fn batch_records(mut self, records: u32) -> Self {
        self.settings.batch_records = records;
        self
    }

    /// Sets how many bytes of records to all topics the producer buffers before `send` waits. A larger record waits
    /// until the buffer is empty. Default: 32 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// Sets how many batches to one partition may be sent and not yet acknowledged. Default: 5, which is also the
    /// maximum for an idempotent producer.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.settings.in_flight_max = batches;
        self
    }

    /// Sets how long a record is retried after `send` before it fails. Default: 2 minutes.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// Sets how batches are compressed. Default: not at all.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Sets what an acknowledgement means. Default: [`Acks::All`].
    ///
    /// With [`Acks::None`] there is no acknowledgement: a delivery completes once its batch was written to the socket,
    /// and has no offset. A batch that was written is never sent again. If the broker rejects one, [`Producer::flush`]
    /// and [`Producer::close`] count its records but do not return them; batches lost with a connection are not
    /// reported.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.settings.acks = acks;
        self
    }

    /// Sets whether the broker recognises a batch that it receives twice. Default: yes. Without it, a retry may
    /// duplicate and reorder records.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// Creates missing topics with this many partitions each and the broker's default configuration. Default: a missing
    /// topic is an error. To choose the configuration, see [`CreateTopic::if_not_exists`](crate::CreateTopic::if_not_exists).
    pub fn create_if_not_exists(mut self, partitions: u32) -> Self {
        self.settings.create = Some(partitions);
        self
    }

    /// Sets a function that chooses the partition of records that do not name one, from the topic, the record and the
    /// topic's number of partitions. If it returns none, the default applies: the key decides, as with Kafka's clients,
    /// and records without a key change the partition with every batch.
    ///
    /// ```no_run
    /// # async fn example(client: highwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// // All records of a tenant go to one partition, whatever follows the tenant in the key.
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
        let invalid =
            |text: &str| ProduceError::new(ProduceErrorKind::Invalid, WriteOutcome::NotWritten, text);
        let idempotent = settings.idempotent && settings.acks != Acks::None;
        if settings.in_flight_max == 0 || (idempotent && settings.in_flight_max > DEDUP_BATCHES_MAX) {
            return Err(invalid(&format!(
                "max_in_flight({}) must be between 1 and {DEDUP_BATCHES_MAX}, the number of batches that the broker remembers of a producer",
                settings.in_flight_max
            )));
        }
        if settings.batch_records == 0 {
            return Err(invalid("batch_records must be positive"));
        }
        if settings.buffer_bytes == 0 || settings.buffer_bytes > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(invalid("buffer_bytes must be positive and fit the address space"));
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
