//! Measurements of a generator thread: the latencies of all records, by interval of the run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::control::Control;
use crate::outcome::{Interval, SIGNIFICANT_DIGITS};

/// Creates an auto-resizing histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("a valid number of digits")
}

/// Records a latency in nanoseconds `count` times.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: u64, count: u64) {
    let recorded = histogram.record_n(latency.clamp(1, LATENCY_MAX), count);
    recorded.expect("an auto-resizing histogram accepts every value");
}

/// Maximum recorded latency: an hour, in nanoseconds. Longer latencies are recorded as this.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Histogram that records runs of equal values together. Records acknowledged together mostly have the same latency.
struct RunLengthHistogram {
    histogram: Histogram<u64>,
    value: u64,
    count: u64,
}

impl RunLengthHistogram {
    fn new() -> Self {
        Self { histogram: histogram(), value: 0, count: 0 }
    }

    fn record(&mut self, value: u64) {
        if value != self.value {
            self.flush();
            self.value = value;
        }
        self.count += 1;
    }

    fn flush(&mut self) {
        if self.count > 0 {
            record(&mut self.histogram, self.value, self.count);
            self.count = 0;
        }
    }

    fn take(&mut self) -> Histogram<u64> {
        self.flush();
        std::mem::replace(&mut self.histogram, histogram())
    }
}

/// Recorder of the measurements of a thread.
pub(crate) struct Recorder {
    control: Arc<Control>,
    /// Whether the load is an open loop. In a closed loop, the send delay is zero and the service time equals the latency.
    open: bool,
    /// Index of the current interval.
    at: u64,
    current: Interval,
    produce: RunLengthHistogram,
    service: RunLengthHistogram,
    send_delay: RunLengthHistogram,
    /// Receives each interval when it is complete, to show progress.
    finished: Sender<Interval>,
    measured: Measured,
}

/// Measurements of a thread.
pub(crate) struct Measured {
    pub(crate) intervals: Vec<Interval>,
    pub(crate) service: Histogram<u64>,
    pub(crate) send_delay: Histogram<u64>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) longest_gap: u64,
    /// Number of records sent in an open loop.
    pub(crate) sent: u64,
    /// Number of records sent late because the generator was late.
    pub(crate) late: u64,
    /// Number of records sent late because too many were unacknowledged.
    pub(crate) held_back: u64,
    /// Number of records that were due but never sent.
    pub(crate) unsent: u64,
}

impl Recorder {
    pub(crate) fn new(control: Arc<Control>, open: bool, finished: Sender<Interval>) -> Self {
        let current = empty(&control, 0);
        let measured = Measured {
            intervals: Vec::new(),
            service: histogram(),
            send_delay: histogram(),
            errors: BTreeMap::new(),
            longest_gap: 0,
            sent: 0,
            late: 0,
            held_back: 0,
            unsent: 0,
        };
        let [produce, service, send_delay] = std::array::from_fn(|_| RunLengthHistogram::new());
        Self { control, open, at: 0, current, produce, service, send_delay, finished, measured }
    }

    /// Counts acknowledgements received at `now`. Their latencies are recorded next, with [`Self::acknowledged`].
    pub(crate) fn acknowledgements(&mut self, records: u64, bytes: u64, now: u64) {
        let gap = self.control.acknowledged(records, now);
        if now < self.control.from || now >= self.control.to {
            return;
        }
        self.measured.longest_gap = self.measured.longest_gap.max(gap.min(now - self.control.from));
        let at = (now - self.control.from) / self.control.interval;
        while self.at < at {
            self.finish_interval();
        }
        self.current.records += records;
        self.current.bytes += bytes;
    }

    /// Records the latency of an acknowledged record, if it was scheduled in the measured time.
    pub(crate) fn acknowledged(&mut self, intended: u64, sent: u64, now: u64) {
        if !self.measures(intended) {
            return;
        }
        self.produce.record(now.saturating_sub(intended).max(1));
        if self.open {
            self.service.record(now.saturating_sub(sent).max(1));
        }
    }

    /// Records that a record was sent at `now`, `bound` nanoseconds late at most if it is in time. Late records of the warm-up count only if
    /// they are sent in the measured time, because a broker may be slow while it creates a topic or compiles its code.
    pub(crate) fn sent(&mut self, intended: u64, now: u64, bound: u64, held_back: bool) {
        if !self.open || now < self.control.from {
            return;
        }
        let delay = now.saturating_sub(intended);
        self.measured.sent += 1;
        if delay > bound {
            *if held_back { &mut self.measured.held_back } else { &mut self.measured.late } += 1;
        }
        if self.measures(intended) {
            self.send_delay.record(delay.max(1));
        }
    }

    /// Counts records that were due but never sent.
    pub(crate) fn unsent(&mut self, records: u64) {
        self.measured.unsent += records;
    }

    /// Counts records that failed with this kind of error.
    pub(crate) fn error(&mut self, kind: &str, records: u64) {
        if let Some(count) = self.measured.errors.get_mut(kind) {
            *count += records;
        } else {
            self.measured.errors.insert(kind.to_owned(), records);
        }
    }

    fn measures(&self, intended: u64) -> bool {
        (self.control.from..self.control.to).contains(&intended)
    }

    fn finish_interval(&mut self) {
        self.at += 1;
        let mut done = std::mem::replace(&mut self.current, empty(&self.control, self.at));
        done.produce = self.produce.take();
        // The receiver may be dropped at the end of the run.
        let _ = self.finished.send(done.clone());
        self.measured.intervals.push(done);
    }

    /// Finishes the last interval and returns the measurements.
    pub(crate) fn finish(mut self) -> Measured {
        self.finish_interval();
        self.measured.service = self.service.take();
        self.measured.send_delay = self.send_delay.take();
        self.measured
    }
}

fn empty(control: &Control, at: u64) -> Interval {
    let begin = at * control.interval;
    let end = (begin + control.interval).min(control.to - control.from);
    Interval {
        at: Duration::from_nanos(begin),
        took: Duration::from_nanos(end - begin),
        records: 0,
        bytes: 0,
        produce: histogram(),
    }
}

/// Adds the intervals of a thread to those of the others.
pub(crate) fn merge_intervals(all: &mut Vec<Interval>, more: Vec<Interval>) {
    for (at, interval) in more.into_iter().enumerate() {
        match all.get_mut(at) {
            Some(here) => {
                here.records += interval.records;
                here.bytes += interval.bytes;
                here.produce += interval.produce;
            }
            None => all.push(interval),
        }
    }
}
