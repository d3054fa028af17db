//! Settled batches: resolves deliveries, frees the buffer, and keeps failed records.

use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::batch::{BatchProducer, BatchView};

use super::ProducerShared;
use crate::core::lane::Payload;
use crate::core::producer::{SettledBatch, Settlement};
use crate::core::ticket::Acked;
use crate::error::{ProduceError, ProduceErrorKind, WriteOutcome, produce_kind};
use crate::events::Event;
use crate::record::{Record, RecordHeader};

impl ProducerShared {
    /// Resolves the deliveries of settled batches and frees their share of the buffer. `keep_all`: keeps failed records
    /// regardless of limits.
    pub(super) fn settle(&self, settled: Vec<SettledBatch>, keep_all: bool) {
        if settled.is_empty() {
            return;
        }
        let metrics = &self.cluster.metrics;
        for SettledBatch { lane, mut batch, settlement } in settled {
            let result = match self.result(lane, settlement) {
                Ok(acked) => {
                    metrics.batches_acknowledged.add(1);
                    metrics.records_acknowledged.add(u64::from(batch.records));
                    Ok(acked)
                }
                Err(error) => {
                    metrics.records_failed.add(u64::from(batch.records));
                    let records = |max| records_of(&mut batch.payload, &self.topic, lane, max);
                    Err(self.failures.add(batch.records, error, records, keep_all))
                }
            };
            batch.ticket.resolve(result);
            self.room.add_permits(batch.charged);
            if let Payload::Encoded(bytes) = batch.payload
                && let Ok(buffer) = bytes.try_into_mut()
            {
                self.lock().core.recycle(buffer);
            }
        }
        self.settled.notify_waiters();
    }

    pub(super) fn result(&self, lane: u32, settlement: Settlement) -> Result<Acked, ProduceError> {
        let partition = format_args!("{}/{lane}", self.topic);
        let may = |outcome| match outcome {
            WriteOutcome::NotWritten => "it was not written",
            WriteOutcome::Unknown | WriteOutcome::Written => "it may have been written",
        };
        Err(match settlement {
            Settlement::Acked(acked) => return Ok(acked),
            Settlement::Rejected { code, text, outcome } => {
                let text =
                    format!("{partition}: the broker rejected the record: {text} ({code}); {}", may(outcome));
                ProduceError::with_code(produce_kind(code), outcome, code, text)
            }
            Settlement::TimedOut(outcome) => ProduceError::new(
                ProduceErrorKind::TimedOut,
                outcome,
                format!(
                    "{partition}: the record was not acknowledged within {} s; {}",
                    self.settings.delivery_timeout.as_secs_f64(),
                    may(outcome)
                ),
            ),
            Settlement::Closed(outcome) => ProduceError::new(
                ProduceErrorKind::Closed,
                outcome,
                format!(
                    "{partition}: the producer was closed before the record was acknowledged; {}",
                    may(outcome)
                ),
            ),
        })
    }

    /// Reports failures that nobody will ask for any more, because the producer has ended.
    pub(super) fn report_unreported(&self) {
        let Some(error) = self.failures.take() else { return };
        tracing::warn!(topic = %self.topic, %error, "a producer was dropped with unreported failures");
        let (topic, count) = (self.topic.to_string(), error.count());
        let reason = error.first().to_string();
        self.cluster.events.emit(&Event::DeliveriesFailed { topic, count, reason });
    }
}

/// Returns the first `max` records of a failed batch, if they still exist.
fn records_of(payload: &mut Payload, topic: &Arc<str>, partition: u32, max: usize) -> Vec<Record> {
    let bytes = match std::mem::replace(payload, Payload::Gone) {
        Payload::Building(mut builder) => builder.finish(BatchProducer::NONE),
        Payload::Encoded(bytes) => Some(bytes.into()),
        Payload::Encoding | Payload::Gone => None,
    };
    let Some(bytes) = bytes.map(bytes::BytesMut::freeze) else { return Vec::new() };
    let mut scratch = Vec::new();
    let batch = BatchView::parse(&bytes).expect("a batch that was just made");
    let records = batch.records(&mut scratch).expect("a batch that was just made");
    records
        .take(max)
        .map(|record| {
            let record = record.expect("a batch that was just made");
            let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
            Record {
                key: record.key.map(own),
                value: record.value.map(own),
                headers: record
                    .headers
                    .map(|header| RecordHeader { key: own(header.key), value: header.value.map(own) })
                    .collect(),
                topic: Some(topic.clone()),
                partition: Some(partition),
                timestamp: Some(record.timestamp),
            }
        })
        .collect()
}
