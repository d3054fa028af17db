//! Counting against the clock.

use std::io;
use std::time::{Duration, Instant};

/// Processor time of the calling thread.
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
    assert_eq!(result, 0, "every thread has a clock");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How fast a count grows, from the first look after the warm-up to the last one.
pub(super) struct Meter {
    warm: Instant,
    end: Instant,
    from: Option<(Instant, u64)>,
    last: Option<(Instant, u64)>,
}

impl Meter {
    /// A tenth of the time goes by before anything counts: the first operations find cold caches and sleeping threads.
    pub(super) fn start(duration: Duration) -> Self {
        let now = Instant::now();
        Self { warm: now + duration / 10, end: now + duration, from: None, last: None }
    }

    /// The count is so high by now.
    pub(super) fn look(&mut self, count: u64) {
        let now = Instant::now();
        if self.from.is_none() && now >= self.warm {
            self.from = Some((now, count));
        }
        self.last = Some((now, count));
    }

    /// Whether the time is over, and has been long enough for anything to grow.
    pub(super) fn is_over(&self) -> bool {
        match (self.from, self.last) {
            (Some((_, before)), Some((at, count))) => at >= self.end && count > before,
            _ => false,
        }
    }

    /// The count's growth a second.
    pub(super) fn per_second(&self) -> io::Result<f64> {
        match (self.from, self.last) {
            (Some((from, before)), Some((to, after))) if to > from && after > before => {
                Ok((after - before) as f64 / to.duration_since(from).as_secs_f64())
            }
            _ => Err(io::Error::other(
                "the time was too short to measure anything: give it a longer --duration",
            )),
        }
    }
}
