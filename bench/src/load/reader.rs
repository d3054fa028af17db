//! The consumers of a run: at the tail, of the backlog, and the one that reads everything back at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::check::{Checker, Sent};
use super::control::Control;
use super::recorder::{histogram, record as record_latency};
use crate::backend::{Backend, BackendError, Consumer, From, Incoming};
use crate::outcome::Drain;
use crate::scenario::Scenario;

/// How long nothing may come before reading ends, where the back end cannot say where the end is.
const QUIET: Duration = Duration::from_secs(2);

/// How long a reader waits for a record that should be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// When consumers at the tail are done.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// Records are still being sent.
    NotYet,
    /// When they have reached these offsets.
    At(Vec<i64>),
    /// When nothing comes for a while.
    WhenQuiet,
}

/// What a consumer at the tail has come to.
pub(crate) struct Tail {
    pub(crate) checker: Checker,
    pub(crate) end_to_end: Histogram<u64>,
    /// Of the measured time.
    pub(crate) records: u64,
}

/// Waits for the next records, for so long at most. None: nothing came.
async fn next(
    consumer: &mut dyn Consumer,
    wait: Duration,
    mut take: impl FnMut(Incoming<'_>),
) -> Option<Result<(), BackendError>> {
    let records = std::future::poll_fn(|cx| consumer.poll_records(cx, &mut take));
    tokio::time::timeout(wait, records).await.ok()
}

/// Reads at the tail until the offsets in `ends` are reached, which are told when sending has ended.
pub(crate) async fn tail(
    mut consumer: Box<dyn Consumer>,
    mut tail: Tail,
    control: Arc<Control>,
    ending: tokio::sync::watch::Receiver<Ending>,
) -> Result<Tail, BackendError> {
    let (from, to) = (control.from, control.to);
    let mut quiet = Instant::now();
    loop {
        let done = match &*ending.borrow() {
            Ending::NotYet => false,
            Ending::At(ends) => passed(tail.checker.offsets(), ends) || quiet.elapsed() > PATIENCE,
            Ending::WhenQuiet => quiet.elapsed() > QUIET,
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
            quiet = Instant::now();
        }
    }
}

fn passed(offsets: &[i64], ends: &[i64]) -> bool {
    offsets.iter().zip(ends).all(|(offset, end)| offset >= end)
}

/// Reads a backlog of so many records from the beginning, as fast as it comes.
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
        let took = next(&mut *consumer, PATIENCE, |record| {
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
                "a consumer of the backlog has waited {} s for the next record",
                PATIENCE.as_secs()
            )));
        };
        result?;
    }
    drain.took = begin.map_or(Duration::ZERO, |begin| begin.elapsed());
    Ok(drain)
}

/// Reads everything there is in a topic. False if it took longer than it may.
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
            Some(ends) => (passed(checker.offsets(), ends), PATIENCE),
            None if checker.has(sent) => (false, QUIET),
            None => (false, PATIENCE),
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

/// Nothing read yet.
pub(crate) fn at_tail(checker: Checker) -> Tail {
    Tail { checker, end_to_end: histogram(), records: 0 }
}
