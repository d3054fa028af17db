//! Pauses between retries.

use std::time::Duration;

/// Pauses that double from `min` to `max`. Each is drawn from the upper half of its step, so that clients cut off
/// together do not reconnect together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), failures: 0 }
    }

    /// Returns the number of failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and returns how long to wait. `jitter` is drawn from 0.0..1.0.
    pub(crate) fn fail(&mut self, jitter: f64) -> Duration {
        let step = self.min.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_restart_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let waits: Vec<_> = (0..8).map(|_| backoff.fail(1.0).as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(backoff.failures(), 8);
        backoff.succeed();
        assert_eq!(backoff.fail(0.0), Duration::from_millis(10));
        for _ in 0..100 {
            assert!(backoff.fail(0.5) <= Duration::from_secs(1));
        }
    }
}
