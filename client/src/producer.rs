//! Producers.

mod builder;
mod delivery;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_protocol::native::{Acks, Body as _, MetadataRequest, message};
use highwater_protocol::text::counted;

pub use self::builder::ProducerBuilder;
pub use self::delivery::{Delivery, Receipt};
use crate::core::failures::BatchFailure;
use crate::core::producer::{NotAppended, ProducerCore};
use crate::core::ticket::{BatchResult, Ticket};
use crate::error::{ProduceError, ProduceErrorKind, TrySendError, WriteOutcome};
use crate::io::conn::Conn;
use crate::io::producer::topics::Topics;
use crate::io::producer::{Partitioner, ProducerShared};
use crate::record::{Record, now_ms};
use crate::undelivered::DeliveryError;

/// Sends records to one topic or to several. Clones share the buffer, the order of records and the connections.
///
/// Records with the same key, or to the same partition, are written in the order in which they were sent. A record
/// whose connection is lost is sent again until its delivery timeout, and is not written twice.
///
/// A record goes to the producer's topic, or to the topic it names with [`Record::topic`]. The producer looks a topic
/// up when the first record to it is sent.
///
/// When the last clone is dropped, buffered records are still sent in the background; [`Producer::close`] waits for
/// them.
#[derive(Clone, Debug)]
pub struct Producer(Arc<ProducerHandle>);

#[derive(Debug)]
struct ProducerHandle {
    own: Option<Arc<ProducerShared>>,
    topics: Arc<Topics>,
}

impl Drop for ProducerHandle {
    fn drop(&mut self) {
        for topic in self.topics.close() {
            topic.handles_dropped();
        }
    }
}

impl Producer {
    /// Returns the topic of records that do not name one. None for a producer that was made without a topic.
    pub fn topic(&self) -> Option<&str> {
        self.0.own.as_ref().map(|own| &*own.topic)
    }

    /// Returns the number of partitions of [`Producer::topic`] that the producer knows of; 0 without a topic.
    pub fn partitions(&self) -> u32 {
        self.0.own.as_ref().map_or(0, |own| own.peek(|core| core.partitions()))
    }

    /// Accepts a record, waiting while the buffer is full, and returns a [`Delivery`] for its outcome. The delivery may
    /// be dropped: if the record then fails, the next [`Producer::flush`] or [`Producer::close`] returns the failure.
    ///
    /// Cancel-safe: either the delivery is returned or the record was not accepted.
    pub async fn send(&self, mut record: Record) -> Result<Delivery, ProduceError> {
        let looked_up;
        let shared = match self.0.topic_of(&record)? {
            TopicLookup::Own(own) => own,
            TopicLookup::Known(known) => {
                looked_up = known;
                &looked_up
            }
            TopicLookup::Unknown(topic) => {
                looked_up = self.0.topics.open(topic).await?;
                &looked_up
            }
        };
        let charge = shared.charge(&record)?;
        // A loop of sends that always find room must not starve the tasks that send the records.
        tokio::task::coop::consume_budget().await;
        let room = match shared.room.try_acquire_many(charge) {
            Ok(room) => room,
            Err(_) => shared.room.acquire_many(charge).await.map_err(|_| shared.closed())?,
        };
        shared.choose_partition(&mut record);
        let delivery = shared.append(&record, charge as usize)?;
        room.forget();
        Ok(delivery)
    }

    /// Accepts a record if the buffer has room for it now; otherwise returns the record.
    #[allow(
        clippy::result_large_err,
        reason = "it has the record, which is not to cost an allocation to come back"
    )]
    pub fn try_send(&self, mut record: Record) -> Result<Delivery, TrySendError> {
        let known;
        let shared = match self.0.topic_of(&record) {
            Ok(TopicLookup::Own(own)) => own,
            Ok(TopicLookup::Known(topic)) => {
                known = topic;
                &known
            }
            Ok(TopicLookup::Unknown(topic)) => {
                self.0.topics.open_soon(topic.clone());
                return Err(TrySendError::NotReady(record));
            }
            Err(error) => return Err(TrySendError::Rejected { record, error }),
        };
        let charge = match shared.charge(&record) {
            Ok(charge) => charge,
            Err(error) => return Err(TrySendError::Rejected { record, error }),
        };
        let Ok(room) = shared.room.try_acquire_many(charge) else { return Err(TrySendError::Full(record)) };
        shared.choose_partition(&mut record);
        match shared.append(&record, charge as usize) {
            Ok(delivery) => {
                room.forget();
                Ok(delivery)
            }
            Err(error) => Err(TrySendError::Rejected { record, error }),
        }
    }

    /// Sends all records accepted before this call, without lingering, and waits for their outcomes.
    ///
    /// The error has the records that failed since the last flush and whose [`Delivery`] did not return the failure. So
    /// `Ok` means that every record accepted since then was written or its failure was returned.
    ///
    /// Cancel-safe: the records are still sent, and the next flush returns the failures.
    pub async fn flush(&self) -> Result<(), DeliveryError> {
        let topics = self.0.topics.all();
        let tickets: Vec<_> = topics.iter().flat_map(|topic| topic.with(ProducerCore::flush)).collect();
        let mut failed = Vec::new();
        for ticket in tickets {
            failed.extend(wait_for_result(&ticket).await.err());
        }
        confirm_unacknowledged(&topics).await;
        // A concurrent flush that waits for the same records may have taken their failures.
        take_unreported(&topics).or_else(|| failed.iter().find_map(BatchFailure::taken)).map_or(Ok(()), Err)
    }

    /// Accepts no more records and waits, for at most `timeout`, until all are acknowledged or have failed. Records
    /// that are not acknowledged by then fail.
    ///
    /// The error has the records that failed since the last [`Producer::flush`] and whose failure was not returned, and
    /// all records that failed because of the close, in order for each partition. The deliveries of these fail as well.
    ///
    /// Cancel-safe: no more records are accepted, and those accepted before are still sent.
    pub async fn close(self, timeout: Duration) -> Result<(), DeliveryError> {
        let topics = self.0.topics.close();
        for topic in &topics {
            topic.with(|core| {
                core.stop_accepting();
                core.flush();
            });
        }
        let all_settled = async {
            for topic in &topics {
                topic.until_settled().await;
            }
            confirm_unacknowledged(&topics).await;
        };
        let _ = tokio::time::timeout(timeout, all_settled).await;
        for topic in &topics {
            topic.close(true);
        }
        take_unreported(&topics).map_or(Ok(()), Err)
    }
}

/// How the topic of a record was found.
enum TopicLookup<'own, 'record> {
    Own(&'own Arc<ProducerShared>),
    Known(Arc<ProducerShared>),
    Unknown(&'record Arc<str>),
}

impl ProducerHandle {
    fn topic_of<'own, 'record>(
        &'own self,
        record: &'record Record,
    ) -> Result<TopicLookup<'own, 'record>, ProduceError> {
        match (&record.topic, &self.own) {
            (None, Some(own)) => Ok(TopicLookup::Own(own)),
            (Some(topic), Some(own)) if *topic == own.topic => Ok(TopicLookup::Own(own)),
            (Some(topic), _) => {
                Ok(self.topics.get(topic).map_or(TopicLookup::Unknown(topic), TopicLookup::Known))
            }
            (None, None) => {
                let text = "the record names no topic and the producer has none: set one by Record::topic";
                Err(ProduceError::new(ProduceErrorKind::Invalid, WriteOutcome::NotWritten, text))
            }
        }
    }
}

/// Takes the unreported failures of all topics.
fn take_unreported(topics: &[Arc<ProducerShared>]) -> Option<DeliveryError> {
    topics.iter().filter_map(|topic| topic.failures.take()).reduce(DeliveryError::and)
}

/// Without acknowledgements: waits until the broker has read all batches sent, so that its rejections are known.
async fn confirm_unacknowledged(topics: &[Arc<ProducerShared>]) {
    let unacknowledged = topics.iter().filter(|topic| topic.settings.acks == Acks::None);
    let mut conns: Vec<Arc<Conn>> = Vec::new();
    for conn in unacknowledged.flat_map(|topic| topic.connections()) {
        if !conns.iter().any(|known| Arc::ptr_eq(known, &conn)) {
            conns.push(conn);
        }
    }
    // The broker answers the requests of a connection in order.
    let nothing = MetadataRequest { topics: Some(Vec::new()) };
    let answers: Vec<_> =
        conns.iter().map(|conn| conn.call(MetadataRequest::KIND, |id| message(id, &nothing))).collect();
    // Send all requests before waiting for the first answer. A lost connection fails its request at once, and the
    // request timeout bounds the rest.
    for answer in answers {
        let _ = answer.await;
    }
}

async fn wait_for_result(ticket: &Ticket) -> BatchResult {
    let mut waker_index = None;
    std::future::poll_fn(|cx| ticket.poll(cx, &mut waker_index).map(BatchResult::clone)).await
}

impl ProducerShared {
    async fn until_settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.peek(|core| core.is_empty()) {
                return;
            }
            settled.await;
        }
    }

    /// Calls the producer's custom partitioner, if it has one and the record names no partition.
    fn choose_partition(&self, record: &mut Record) {
        if let (Some(Partitioner(choose)), None) = (&self.settings.partitioner, record.partition) {
            let partitions = self.peek(|core| core.partitions());
            record.partition = choose(&self.topic, record, partitions);
        }
    }

    /// Returns how many bytes of the buffer the record takes: the whole buffer if the record is larger.
    fn charge(&self, record: &Record) -> Result<u32, ProduceError> {
        let charge = record.charge();
        let max = BATCH_BYTES_MAX + (64 << 10);
        if charge > max {
            return Err(self.too_large(charge, max));
        }
        Ok(charge.min(self.settings.buffer_bytes) as u32)
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
                    waker_index: None,
                    is_seen: AtomicBool::new(false),
                })
            }
            Err(NotAppended::Closed) => Err(self.closed()),
            Err(NotAppended::NoPartition { partition, partitions }) => {
                let count = counted(partitions as usize, "partition");
                let text = format!(
                    "topic {} has {count}, numbered from 0, and no partition {partition}",
                    self.topic
                );
                Err(ProduceError::new(ProduceErrorKind::UnknownTopic, WriteOutcome::NotWritten, text))
            }
            Err(NotAppended::TooLarge { bytes, max }) => Err(self.too_large(bytes, max)),
            Err(NotAppended::Headers(count)) => {
                let text = format!("{}: {count} headers exceed the limit of a record", self.topic);
                Err(ProduceError::new(ProduceErrorKind::Invalid, WriteOutcome::NotWritten, text))
            }
        }
    }

    fn too_large(&self, bytes: usize, max: usize) -> ProduceError {
        let text = format!(
            "{}: the record needs a batch of {bytes} bytes, the limit is {max}; split it or raise the topic's max.message.bytes",
            self.topic
        );
        ProduceError::new(ProduceErrorKind::TooLarge, WriteOutcome::NotWritten, text)
    }

    fn closed(&self) -> ProduceError {
        let text = format!("{}: the producer was closed", self.topic);
        ProduceError::new(ProduceErrorKind::Closed, WriteOutcome::NotWritten, text)
    }
}
