//! Counters and latencies of a client.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::lock::lock;

/// Longer latencies are recorded as this one.
const LATENCY_US_MAX: u64 = 600_000_000;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        #[derive(Debug)]
        pub(crate) struct Metrics {
            $(pub(crate) $name: Counter,)+
            pub(crate) produce_latency: Latency,
            pub(crate) call_latency: Latency,
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self {
                    $($name: Counter::default(),)+
                    produce_latency: Latency::new(),
                    call_latency: Latency::new(),
                }
            }
        }

        /// A snapshot of a client's counters and latencies. See [`Client::metrics`](crate::Client::metrics).
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)+
            /// Time from sending a batch to its acknowledgement.
            pub produce_latency: LatencySnapshot,
            /// Time from sending any other request to its answer.
            pub call_latency: LatencySnapshot,
        }

        impl Metrics {
            pub(crate) fn snapshot(&self) -> MetricsSnapshot {
                MetricsSnapshot {
                    $($name: self.$name.get(),)+
                    produce_latency: self.produce_latency.snapshot(),
                    call_latency: self.call_latency.snapshot(),
                }
            }
        }
    };
}

counters! {
    /// Connections established.
    connects,
    /// Failed attempts to connect.
    connect_failures,
    /// Connections lost.
    disconnects,
    /// Bytes written to sockets.
    bytes_written,
    /// Bytes read from sockets.
    bytes_read,
    /// Records acknowledged.
    records_acknowledged,
    /// Batches acknowledged.
    batches_acknowledged,
    /// Encoded bytes of the batches sent, including retries.
    batch_bytes_sent,
    /// Records that failed.
    records_failed,
    /// Batches sent again.
    batches_retried,
    /// Records delivered to consumers.
    records_consumed,
    /// Bytes of frames that consumers received.
    frame_bytes_received,
    /// Frames that did not match their checksum.
    frames_damaged,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct Latency(Mutex<Histogram<u64>>);

impl Latency {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are constants");
        Self(Mutex::new(histogram))
    }

    pub(crate) fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        lock(&self.0).saturating_record(us.max(1));
    }

    fn snapshot(&self) -> LatencySnapshot {
        LatencySnapshot(lock(&self.0).clone())
    }
}

/// A distribution of latencies, with three significant digits.
#[derive(Clone)]
pub struct LatencySnapshot(Histogram<u64>);

impl LatencySnapshot {
    /// Returns the number of latencies recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the latency that this share of the recorded ones did not exceed: `quantile(0.99)` is the 99th
    /// percentile.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// Returns the mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e6)
    }

    /// Returns the longest latency.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

impl fmt::Debug for LatencySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencySnapshot")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_the_quantiles_of_the_recorded_latencies() {
        let metrics = Metrics::default();
        for ms in 1..=100 {
            metrics.produce_latency.record(Duration::from_millis(ms));
        }
        metrics.records_acknowledged.add(7);
        let snapshot = metrics.snapshot();
        assert_eq!((snapshot.records_acknowledged, snapshot.records_failed), (7, 0));
        assert_eq!(snapshot.produce_latency.count(), 100);
        assert_eq!(snapshot.produce_latency.quantile(0.5).as_millis(), 50);
        assert_eq!(snapshot.call_latency.count(), 0);
    }
}
