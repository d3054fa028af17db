//! State shared by the threads of a run: the clock, the time plan and the progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::scenario::Load;

/// How long a run waits after its end for outstanding acknowledgements.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// Maximum number of intervals in a report. Intervals last at least a second, unless the run is shorter.
const INTERVALS_MAX: u32 = 300;

/// The time plan of a run, in nanoseconds since the start of the warm-up.
#[derive(Debug)]
pub(crate) struct Control {
    begin: Instant,
    /// Start of the measurement.
    pub(crate) from: u64,
    /// End of the measurement and of sending.
    pub(crate) to: u64,
    /// End of waiting for acknowledgements.
    pub(crate) give_up: u64,
    /// Length of an interval.
    pub(crate) interval: u64,
    acknowledged: AtomicU64,
    last_ack: AtomicU64,
}

impl Control {
    /// Starts the clock.
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

    /// Returns the time since the start of the run, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Converts a time of this clock to an [`Instant`].
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.begin + Duration::from_nanos(at)
    }

    /// Counts records acknowledged at `now`. Returns the time since the previous acknowledgement.
    pub(crate) fn acknowledged(&self, records: u64, now: u64) -> u64 {
        self.acknowledged.fetch_add(records, Ordering::Relaxed);
        now.saturating_sub(self.last_ack.swap(now, Ordering::Relaxed))
    }

    /// Returns the number of records acknowledged so far, including the warm-up.
    pub(crate) fn records(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}
