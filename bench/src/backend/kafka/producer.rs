//! Producer on librdkafka.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;

use crate::backend::mailbox::Mailbox;
use crate::backend::{Ack, Outgoing, Producer};

/// Receives delivery reports on librdkafka's thread.
pub(super) struct Deliveries {
    pub(super) acks: Arc<Mailbox<Ack>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let result = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(kind(error)),
        };
        self.acks.push(Ack { tag: tag as u64, result });
    }
}

/// Returns the kind of an error, by which errors are counted.
fn kind(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"))
}

pub(super) struct KafkaProducer {
    /// `None` only while it is dropped.
    pub(super) client: Option<ThreadedProducer<Deliveries>>,
    pub(super) topic: String,
    pub(super) acks: Arc<Mailbox<Ack>>,
    /// Whether batches wait for more records.
    pub(super) lingers: bool,
}

impl Producer for KafkaProducer {
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing> {
        let Some(client) = &self.client else { return Err(record) };
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, record.tag as usize)
            .partition(record.partition as i32)
            .payload(&record.value[..]);
        if let Some(key) = &record.key {
            message = message.key(&key[..]);
        }
        match client.send(message) {
            Ok(()) => Ok(()),
            // There is space after the next delivery, which wakes the task.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Err(record),
            Err((error, _)) => {
                self.acks.push(Ack { tag: record.tag, result: Err(kind(&error)) });
                Ok(())
            }
        }
    }

    fn flush(&mut self) {
        if let Some(client) = &self.client
            && self.lingers
        {
            // A timeout of zero wakes librdkafka's threads without waiting; an error is expected.
            let _not_yet = client.flush(Timeout::After(Duration::ZERO));
        }
    }

    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        self.acks.poll_take(cx, out)
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        // Dropping a client joins its threads, which takes 0.1 s. Use a thread, so that hundreds of clients are dropped concurrently.
        if let Some(client) = self.client.take() {
            std::thread::spawn(move || drop(client));
        }
    }
}
