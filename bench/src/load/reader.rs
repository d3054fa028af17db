//! The consumers of a run: at the tail, of the backlog, and for reading everything back at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::check::{Checker, Sent};
use super::control::Control;
use super::recorder::{histogram, record as record_latency};
use crate::backend::{Backend, BackendError, Consumer, From, Incoming};
use crate::outcome::Drain;
use crate::scenario::Scenario;

/// Time without records after which reading ends, for backends that do not know the end offsets.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a reader waits for an expected record.
const RECORD_TIMEOUT: Duration = Duration::from_secs(20);

/// Condition for consumers at the tail to end.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// Records are still being sent.
    NotYet,
    /// When these offsets are reached.
    At(Vec<i64>),
    /// When no records arrive for a while.
    WhenIdle,
}

/// Results of a consumer at the tail.
pub(crate) struct Tail {
    pub(crate) checker: Checker,
    pub(crate) end_to_end: Histogram<u64>,
    /// Number of records in the measured time.
    pub(crate) records: u64,
}

/// Waits at most `wait` for the next records. Returns `None` on timeout.
async fn next(
    consumer: &mut dyn Consumer,
    wait: Duration,
    mut take: impl FnMut(Incoming<'_>),
) -> Option<Result<(), BackendError>> {
    let records = std::future::poll_fn(|cx| consumer.poll_records(cx, &mut take));
    tokio::time::timeout(wait, records).await.ok()
}

/// Reads at the tail until the condition in `ending` holds, which is set when sending has ended.
pub(crate) async fn tail(
    mut consumer: Box<dyn Consumer>,
    mut tail: Tail,
    control: Arc<Control>,
    ending: tokio::sync::watch::Receiver<Ending>,
) -> Result<Tail, BackendError> {
    let (from, to) = (control.from, control.to);
    let mut last_received = Instant::now();
    loop {
        let done = match &*ending.borrow() {
            Ending::NotYet => false,
            Ending::At(ends) => {
                passed(tail.checker.offsets(), ends) || last_received.elapsed() > RECORD_TIMEOUT
            }
            Ending::WhenIdle => last_received.elapsed() > IDLE_TIMEOUT,
        };
        if done {
            return Ok(tail);
        }
        let mut now = None;
        let took = next(&mut *consumer, Duration::from_millis(100), |record| {
            let now = *now.get_or_insert_with(|| control.now());
            let Some(stamp) = tail.checker.read(record.partition, record.offset, record.value) else {
                return;
            };
            if (from..to).contains(&stamp.intended) {
                record_latency(&mut tail.end_to_end, now.saturating_sub(stamp.intended), 1);
                tail.records += 1;
            }
        });
        if let Some(result) = took.await {
            result?;
            last_received = Instant::now();
        }
    }
}

fn passed(offsets: &[i64], ends: &[i64]) -> bool {
    offsets.iter().zip(ends).all(|(offset, end)| offset >= end)
}

/// Reads the backlog up to the offsets `ends`, at the maximum rate.
pub(crate) async fn cold(
    backend: &dyn Backend,
    topic: &str,
    scenario: &Scenario,
    ends: &[i64],
) -> Result<Drain, BackendError> {
    let mut consumer = backend.consumer(topic, From::Earliest, scenario).await?;
    let mut offsets = vec![0; ends.len()];
    let mut drain = Drain { records: 0, bytes: 0, took: Duration::ZERO };
    let mut begin = None;
    while !passed(&offsets, ends) {
        let took = next(&mut *consumer, RECORD_TIMEOUT, |record| {
            begin.get_or_insert_with(Instant::now);
            let at = record.partition as usize;
            if record.offset < ends[at] {
                drain.records += 1;
                drain.bytes += record.value.len() as u64;
            }
            offsets[at] = record.offset + 1;
        });
        let Some(result) = took.await else {
            return Err(BackendError(format!(
                "a consumer of the backlog received no record for {} s",
                RECORD_TIMEOUT.as_secs()
            )));
        };
        result?;
    }
    drain.took = begin.map_or(Duration::ZERO, |begin| begin.elapsed());
    Ok(drain)
}

/// Reads all records of a topic. Returns false if that is not complete after `at_most`.
pub(crate) async fn read_back(
    backend: &dyn Backend,
    topic: &str,
    scenario: &Scenario,
    sent: &[Sent],
    checker: &mut Checker,
    at_most: Duration,
) -> Result<bool, BackendError> {
    let ends = backend.ends(topic, scenario.topic.partitions).await?;
    let mut consumer = backend.consumer(topic, From::Earliest, scenario).await?;
    let until = Instant::now() + at_most;
    loop {
        let (done, wait) = match &ends {
            Some(ends) => (passed(checker.offsets(), ends), RECORD_TIMEOUT),
            None if checker.has(sent) => (false, IDLE_TIMEOUT),
            None => (false, RECORD_TIMEOUT),
        };
        if done {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        let took = next(&mut *consumer, wait, |record| {
            checker.read(record.partition, record.offset, record.value);
        });
        match took.await {
            Some(result) => result?,
            None => return Ok(true),
        }
    }
}

/// Returns the initial state of a consumer at the tail.
pub(crate) fn at_tail(checker: Checker) -> Tail {
    Tail { checker, end_to_end: histogram(), records: 0 }
}
