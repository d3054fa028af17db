//! Rates over time, and processor time.

use std::io;
use std::time::{Duration, Instant};

/// Measures the processor time of the calling thread.
pub(super) struct ThreadClock(f64);

impl ThreadClock {
    pub(super) fn start() -> Self {
        Self(thread_seconds())
    }

    pub(super) fn seconds(&self) -> f64 {
        thread_seconds() - self.0
    }
}

fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists since Linux 2.6.12, and the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every thread has a CPU clock");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Measures how fast a count grows, from the first sample after the warm-up to the last one.
pub(super) struct Meter {
    warm: Instant,
    end: Instant,
    from: Option<(Instant, u64)>,
    last: Option<(Instant, u64)>,
}

impl Meter {
    /// Starts a measurement. The first tenth of the time is warm-up: the first operations meet cold caches and sleeping threads.
    pub(super) fn start(duration: Duration) -> Self {
        let now = Instant::now();
        Self { warm: now + duration / 10, end: now + duration, from: None, last: None }
    }

    /// Records the current count.
    pub(super) fn sample(&mut self, count: u64) {
        let now = Instant::now();
        if self.from.is_none() && now >= self.warm {
            self.from = Some((now, count));
        }
        self.last = Some((now, count));
    }

    /// Returns whether the time is over and the count has grown.
    pub(super) fn is_over(&self) -> bool {
        match (self.from, self.last) {
            (Some((_, before)), Some((at, count))) => at >= self.end && count > before,
            _ => false,
        }
    }

    /// Returns the growth of the count per second.
    pub(super) fn per_second(&self) -> io::Result<f64> {
        match (self.from, self.last) {
            (Some((from, before)), Some((to, after))) if to > from && after > before => {
                Ok((after - before) as f64 / to.duration_since(from).as_secs_f64())
            }
            _ => Err(io::Error::other("the time was too short for a measurement: use a longer --duration")),
        }
    }
}
