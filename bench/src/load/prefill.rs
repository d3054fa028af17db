//! Writes the backlog before a run, in large batches and at the maximum rate.

use std::sync::Arc;

use super::check::Sent;
use super::control::Control;
use super::generator::{Plan, generate};
use super::payload::Filling;
use crate::backend::{Backend, BackendError};
use crate::scenario::{Arrival, Load, Producers, Scenario};

/// Size of the unacknowledged records, in bytes.
const OUTSTANDING_BYTES: usize = 16 << 20;

/// Maximum duration in seconds.
const SECONDS_MAX: f64 = 3600.0;

/// Writes the scenario's backlog with the producer number `producer`, and waits until all of it is acknowledged.
pub(crate) async fn prefill(
    backend: &dyn Backend,
    scenario: &Scenario,
    topic: &str,
    filling: &Filling,
    producer: u32,
) -> Result<Sent, BackendError> {
    let bytes = scenario.record.bytes;
    let records = scenario.consumers.backlog_bytes.div_ceil(bytes as u64);
    let scenario = Scenario {
        producers: Producers {
            count: 1,
            batch_bytes: 1 << 20,
            batch_records: 0,
            linger_us: 5000,
            ..scenario.producers
        },
        load: Load {
            outstanding: (OUTSTANDING_BYTES / bytes).max(1) as u32,
            rate: 0,
            arrival: Arrival::Constant,
            warmup_s: 0.0,
            duration_s: SECONDS_MAX,
            runs: 1,
        },
        ..scenario.clone()
    };
    let control = Arc::new(Control::new(&scenario.load));
    let plan = Plan {
        scenario,
        topic: topic.to_owned(),
        filling: filling.clone(),
        first_producer: producer,
        threads: 1,
        limit: Some(records),
    };
    let (connected, _) = tokio::sync::oneshot::channel();
    let (go, begin) = tokio::sync::oneshot::channel();
    let (watch, _) = std::sync::mpsc::channel();
    let _ = go.send(control);
    let (mut sent, measured) = generate(backend, &plan, 0, connected, begin, watch).await?;
    let (_, sent) = sent.pop().expect("one producer");
    if sent.count() < records {
        let errors: Vec<_> = measured.errors.keys().map(String::as_str).collect();
        return Err(BackendError(format!(
            "cannot write the backlog: {} of {records} records acknowledged, errors: {}",
            sent.count(),
            errors.join(", ")
        )));
    }
    Ok(sent)
}
