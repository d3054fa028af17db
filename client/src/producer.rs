//! Sending records.

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
use crate::core::failures::Failed;
use crate::core::producer::{NotAppended, ProducerCore};
use crate::core::ticket::{Fate, Ticket};
use crate::error::{Outcome, ProduceError, ProduceErrorKind, TrySendError};
use crate::io::producer::ProducerShared;
use crate::record::{Record, now_ms};
use crate::undelivered::DeliveryError;

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

    /// Takes a record, waiting while the buffer is full. The [`Delivery`] returns what became of it. It may be dropped: a record that fails
    /// then comes out of the next [`Producer::flush`] or [`Producer::close`].
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

    /// Sends everything that was taken before this call, without lingering, and waits until its fate is known.
    ///
    /// The error has what failed since the last flush, unless the record's [`Delivery`] returned the failure already: records of which nobody
    /// knows yet that they failed. So `Ok` means that every record taken since is written or was seen to fail.
    ///
    /// Cancel-safe: what it began goes on, and what failed comes out of the next one.
    pub async fn flush(&self) -> Result<(), DeliveryError> {
        let shared = &*self.0.0;
        let mut failed = Vec::new();
        for ticket in shared.with(ProducerCore::flush) {
            failed.extend(fate_of(&ticket).await.err());
        }
        shared.confirm_unacknowledged().await;
        // Another flush that waits for the same records may have taken their failures.
        match shared.failures.take().or_else(|| failed.iter().find_map(Failed::taken)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Takes no more records and waits until all are acknowledged or given up, or for `timeout`; what is then not acknowledged is given up.
    ///
    /// The error has the records that failed since the last [`Producer::flush`] and that nobody has seen fail, and all that were given
    /// up now, each partition's in order. The deliveries of these fail as well.
    ///
    /// Cancel-safe: no more records are taken, and those that were are still sent.
    pub async fn close(self, timeout: Duration) -> Result<(), DeliveryError> {
        let shared = &self.0.0;
        shared.with(|core| {
            core.refuse_more();
            core.flush();
        });
        let all_settled = async {
            loop {
                let settled = shared.settled.notified();
                if shared.peek(|core| core.is_empty()) {
                    return shared.confirm_unacknowledged().await;
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(timeout, all_settled).await;
        shared.close(true);
        shared.failures.take().map_or(Ok(()), Err)
    }
}

async fn fate_of(ticket: &Ticket) -> Fate {
    let mut place = None;
    std::future::poll_fn(|cx| ticket.poll(cx, &mut place).map(Fate::clone)).await
}

impl ProducerShared {
    /// Without acknowledgements: waits until the broker has read what has left, so that what it refuses of that is known.
    async fn confirm_unacknowledged(&self) {
        if self.acks != Acks::None {
            return;
        }
        // Requests of a connection are answered in their order.
        let nothing = MetadataRequest { topics: Some(Vec::new()) };
        let answers = self.connections().into_iter().map(|conn| {
            let answer = conn.call(MetadataRequest::KIND, |id| message(id, &nothing));
            tokio::time::timeout(self.cluster.config.request_timeout, answer)
        });
        // All are asked before the first is waited for. A lost connection is no answer, and no other is to be had.
        for answer in answers.collect::<Vec<_>>() {
            let _ = answer.await;
        }
    }

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
