//! Sending records.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use highwater_protocol::batch::Compression;
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_protocol::limits::{BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, DEDUP_BATCHES_MAX};
use highwater_protocol::native::{Acks, DescribeTopicReply, DescribeTopicRequest};
use highwater_protocol::text::counted;

use tracing::Instrument;

use crate::core::lane::LaneLimits;
use crate::core::producer::{NotAppended, ProducerCore};
use crate::core::ticket::Ticket;
use crate::error::{Outcome, ProduceError, ProduceErrorKind, TrySendError};
use crate::io::calls::Repeat;
use crate::io::cluster::Cluster;
use crate::io::producer::{ProducerShared, Unsent, drive};
use crate::record::{Record, now_ms};

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
    /// batch has left, has no offset, and what has left is not sent again.
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

/// Sends records to a topic. Clones share buffer, order and connections.
///
/// Records with the same key, or to the same partition, are written in the order in which they were taken. A record whose connection
/// is lost is sent again until its delivery timeout, and is not written twice.
///
/// When the last clone is dropped, what is in the buffer is still sent; [`Producer::close`] waits for it.
#[derive(Clone, Debug)]
pub struct Producer(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<ProducerShared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.handles_gone();
    }
}

impl Producer {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.0.0.topic
    }

    /// Partitions of the topic, as far as the producer knows.
    pub fn partitions(&self) -> u32 {
        self.0.0.peek(|core| core.partitions())
    }

    /// Takes a record, waiting while the buffer is full. The [`Delivery`] tells what became of it; dropping that changes nothing.
    ///
    /// Cancel-safe: either the delivery is returned or the record was not taken.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let shared = &*self.0.0;
        let charge = shared.charge(&record)?;
        // A loop of sends that always find room would leave no turn to the tasks that carry the records away.
        tokio::task::coop::consume_budget().await;
        let room = match shared.room.try_acquire_many(charge) {
            Ok(room) => room,
            Err(_) => shared.room.acquire_many(charge).await.map_err(|_| shared.closed())?,
        };
        let delivery = shared.append(&record, charge as usize)?;
        room.forget();
        Ok(delivery)
    }

    /// Takes a record if there is room for it now; if not, it comes back.
    pub fn try_send(&self, record: Record) -> Result<Delivery, TrySendError> {
        let shared = &*self.0.0;
        let charge = match shared.charge(&record) {
            Ok(charge) => charge,
            Err(error) => return Err(TrySendError::Rejected { record, error }),
        };
        let Ok(room) = shared.room.try_acquire_many(charge) else { return Err(TrySendError::Full(record)) };
        match shared.append(&record, charge as usize) {
            Ok(delivery) => {
                room.forget();
                Ok(delivery)
            }
            Err(error) => Err(TrySendError::Rejected { record, error }),
        }
    }

    /// Sends everything that was taken before this call, without lingering, and waits until its fate is known. The first
    /// error, if there was one; each record's own is with its delivery.
    ///
    /// Cancel-safe: what it began goes on.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        let tickets = self.0.0.with(ProducerCore::flush);
        let mut result = Ok(());
        for ticket in tickets {
            if let Err(error) = fate_of(&ticket).await {
                result = result.and(Err(error));
            }
        }
        result
    }

    /// Takes no more records, waits until all are acknowledged or given up, or for `timeout`, and gives back what is then not
    /// acknowledged, each partition's records in order. Their deliveries fail.
    ///
    /// Cancel-safe: no more records are taken, and those that were are still sent.
    pub async fn close(self, timeout: Duration) -> Result<Vec<Unsent>, ProduceError> {
        let shared = &self.0.0;
        shared.with(|core| {
            core.refuse_more();
            core.flush();
        });
        let all_settled = async {
            loop {
                let settled = shared.settled.notified();
                if shared.peek(|core| core.is_empty()) {
                    return;
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(timeout, all_settled).await;
        Ok(shared.close())
    }
}

async fn fate_of(ticket: &Ticket) -> Result<(), ProduceError> {
    let mut place = None;
    std::future::poll_fn(|cx| ticket.poll(cx, &mut place).map(|fate| fate.clone().map(drop))).await
}

impl ProducerShared {
    /// Bytes of the buffer that a record takes.
    fn charge(&self, record: &Record) -> Result<u32, ProduceError> {
        let charge = record.charge();
        let max = self.buffer_bytes.min(BATCH_BYTES_MAX + (64 << 10));
        if charge > max {
            return Err(self.too_large(charge, max));
        }
        Ok(charge as u32)
    }

    fn append(&self, record: &Record, charge: usize) -> Result<Delivery, ProduceError> {
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        match self.peek(|core| core.append(record, timestamp, charge, Instant::now)) {
            Ok(appended) => {
                if appended.wake {
                    self.wake();
                }
                Ok(Delivery {
                    ticket: appended.ticket,
                    partition: appended.partition,
                    index: appended.index,
                    timestamp,
                    place: None,
                })
            }
            Err(NotAppended::Closed) => Err(self.closed()),
            Err(NotAppended::NoPartition { partition, partitions }) => {
                let count = counted(partitions as usize, "partition");
                let text = format!(
                    "topic {} has {count}, numbered from 0, and no partition {partition}",
                    self.topic
                );
                Err(ProduceError::new(ProduceErrorKind::UnknownTopic, Outcome::NotWritten, text))
            }
            Err(NotAppended::TooLarge { bytes, max }) => Err(self.too_large(bytes, max)),
            Err(NotAppended::Headers(count)) => {
                let text = format!("{}: {count} headers are more than a record may have", self.topic);
                Err(ProduceError::new(ProduceErrorKind::Invalid, Outcome::NotWritten, text))
            }
        }
    }

    fn too_large(&self, bytes: usize, max: usize) -> ProduceError {
        let text = format!(
            "{}: the record needs a batch of {bytes} bytes, the limit is {max}; split it or raise the topic's max.message.bytes",
            self.topic
        );
        ProduceError::new(ProduceErrorKind::TooLarge, Outcome::NotWritten, text)
    }

    fn closed(&self) -> ProduceError {
        let text = format!("{}: the producer was closed", self.topic);
        ProduceError::new(ProduceErrorKind::Closed, Outcome::NotWritten, text)
    }
}

/// What becomes of one record: a future of its [`Receipt`]. Need not be awaited: the record is sent in any case.
///
/// Cancel-safe: it can be polled, kept and polled again.
#[derive(Debug)]
pub struct Delivery {
    ticket: Arc<Ticket>,
    partition: u32,
    index: u32,
    timestamp: Timestamp,
    place: Option<usize>,
}

impl Delivery {
    /// The partition the record goes to.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The result, if it is known already.
    pub fn result(&self) -> Option<Result<Receipt, ProduceError>> {
        self.ticket.fate().map(|fate| self.receipt(fate))
    }

    fn receipt(&self, fate: &crate::core::ticket::Fate) -> Result<Receipt, ProduceError> {
        fate.clone().map(|acked| Receipt {
            partition: self.partition,
            offset: acked.base_offset.map(|base| base.plus(i64::from(self.index))),
            timestamp: acked.log_append_time.unwrap_or(self.timestamp),
        })
    }
}

impl Future for Delivery {
    type Output = Result<Receipt, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut place = this.place;
        let fate = this.ticket.poll(cx, &mut place).map(|fate| this.receipt(fate));
        this.place = place;
        fate
    }
}

/// Where an acknowledged record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    partition: u32,
    offset: Option<Offset>,
    timestamp: Timestamp,
}

impl Receipt {
    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The offset. None only with [`Acks::None`].
    pub fn offset(&self) -> Option<Offset> {
        self.offset
    }

    /// The timestamp: the record's own, or the broker's if the topic uses log append time.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}
