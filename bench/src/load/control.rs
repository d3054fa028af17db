//! What the threads of one run share: the clock, the plan and what shows progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::scenario::Load;

/// How long a run waits behind its end for acknowledgements that are still out.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// The pieces that the measured time is reported in: as many at most, and none shorter than a second unless the run is.
const INTERVALS_MAX: u32 = 300;

/// The plan of a run in nanoseconds of its clock, which begins with the warm-up.
#[derive(Debug)]
pub(crate) struct Control {
    begin: Instant,
    /// Measuring begins.
    pub(crate) from: u64,
    /// Measuring ends; nothing more is sent.
    pub(crate) to: u64,
    /// No acknowledgement is waited for any more.
    pub(crate) give_up: u64,
    /// Length of a piece.
    pub(crate) interval: u64,
    acknowledged: AtomicU64,
    last_ack: AtomicU64,
}

impl Control {
    /// The clock begins now.
    pub(crate) fn new(load: &Load) -> Self {
        let from = load.warmup().as_nanos() as u64;
        let length = load.duration().as_nanos() as u64;
        let interval = (length / u64::from(INTERVALS_MAX)).max(1_000_000_000).min(length);
        Self {
            begin: Instant::now(),
            from,
            to: from + length,
            give_up: from + length + DRAIN.as_nanos() as u64,
            interval,
            acknowledged: AtomicU64::new(0),
            last_ack: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the run's beginning.
    pub(crate) fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// That moment for those who want an [`Instant`].
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.begin + Duration::from_nanos(at)
    }

    /// Some records were acknowledged at `now`; how long before were the last ones.
    pub(crate) fn acknowledged(&self, records: u64, now: u64) -> u64 {
        self.acknowledged.fetch_add(records, Ordering::Relaxed);
        now.saturating_sub(self.last_ack.swap(now, Ordering::Relaxed))
    }

    /// Records acknowledged so far, of the warm-up too.
    pub(crate) fn records(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}
