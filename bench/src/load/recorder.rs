//! What a thread of the generator measures: every record's latencies, into the piece of the run they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::control::Control;
use crate::outcome::{Interval, SIGNIFICANT_DIGITS};

/// A histogram of nanoseconds that grows as it has to.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("the digits are a constant in range")
}

/// Records a latency `count` times. The histogram grows, up to an hour.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: u64, count: u64) {
    let recorded = histogram.record_n(latency.clamp(1, LATENCY_MAX), count);
    recorded.expect("a histogram that grows takes every value");
}

/// Longer latencies count as this: an hour.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Records of one moment are recorded together: neighbours mostly share their latency.
struct Runs {
    histogram: Histogram<u64>,
    value: u64,
    count: u64,
}

impl Runs {
    fn new() -> Self {
        Self { histogram: histogram(), value: 0, count: 0 }
    }

    fn record(&mut self, value: u64) {
        if value != self.value {
            self.settle();
            self.value = value;
        }
        self.count += 1;
    }

    fn settle(&mut self) {
        if self.count > 0 {
            record(&mut self.histogram, self.value, self.count);
            self.count = 0;
        }
    }

    fn take(&mut self) -> Histogram<u64> {
        self.settle();
        std::mem::replace(&mut self.histogram, histogram())
    }
}

/// See the module's doc.
pub(crate) struct Recorder {
    control: Arc<Control>,
    /// The open loop's send delay and service time differ from nothing and from the whole.
    open: bool,
    at: u64,
    current: Interval,
    produce: Runs,
    service: Runs,
    send_delay: Runs,
    /// Finished pieces are handed over at once, for those who watch.
    finished: Sender<Interval>,
    measured: Measured,
}

/// What a thread has measured.
pub(crate) struct Measured {
    pub(crate) intervals: Vec<Interval>,
    pub(crate) service: Histogram<u64>,
    pub(crate) send_delay: Histogram<u64>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) longest_gap: u64,
    /// Records of an open loop that were sent.
    pub(crate) sent: u64,
    /// Records sent late because the generator came late, and because there was no room for them.
    pub(crate) late: u64,
    pub(crate) held_back: u64,
    /// Records that were due and never sent.
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
        let (produce, service, send_delay) = (Runs::new(), Runs::new(), Runs::new());
        Self { control, open, at: 0, current, produce, service, send_delay, finished, measured }
    }

    /// Some acknowledgements came at `now`, which are recorded next.
    pub(crate) fn acknowledgements(&mut self, records: u64, bytes: u64, now: u64) {
        let gap = self.control.acknowledged(records, now);
        if now < self.control.from || now >= self.control.to {
            return;
        }
        self.measured.longest_gap = self.measured.longest_gap.max(gap.min(now - self.control.from));
        let at = (now - self.control.from) / self.control.interval;
        while self.at < at {
            self.turn();
        }
        self.current.records += records;
        self.current.bytes += bytes;
    }

    /// One record's moments. Those meant for the measured time count, whenever they were acknowledged.
    pub(crate) fn acknowledged(&mut self, intended: u64, sent: u64, now: u64) {
        if !self.measures(intended) {
            return;
        }
        self.produce.record(now.saturating_sub(intended).max(1));
        if self.open {
            self.service.record(now.saturating_sub(sent).max(1));
        }
    }

    /// A record was sent at `now`. A backlog of the warm-up counts as far as it lasts into the measured time: that a broker is slow
    /// while it makes a topic or compiles its own code is what the warm-up is there for.
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

    /// Records whose moment came and that were never sent.
    pub(crate) fn unsent(&mut self, records: u64) {
        self.measured.unsent += records;
    }

    /// Something failed.
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

    fn turn(&mut self) {
        self.at += 1;
        let mut done = std::mem::replace(&mut self.current, empty(&self.control, self.at));
        done.produce = self.produce.take();
        // Nobody watches any more at the end.
        let _ = self.finished.send(done.clone());
        self.measured.intervals.push(done);
    }

    /// The run is over.
    pub(crate) fn finish(mut self) -> Measured {
        self.turn();
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

/// Puts the pieces of several threads together, by their place.
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
