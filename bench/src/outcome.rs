//! Results of a run, from which the report is made.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::scenario::Scenario;

/// Significant digits of histograms.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Results of one run of a scenario. Lost, duplicated and reordered records are counted over the whole run; everything else only over the
/// measured time, without the warm-up.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The workload, with the overrides of the command line.
    pub scenario: Scenario,
    /// Name of the client.
    pub backend: String,
    /// Meaning of an acknowledgement.
    pub acknowledgement: String,
    /// Number of the run, from 1.
    pub run: u32,
    /// Start of the measurement, in milliseconds since 1970.
    pub started_ms: i64,
    /// Measured time.
    pub measured: Duration,
    /// Number of records acknowledged.
    pub records: u64,
    /// Bytes of keys and values acknowledged.
    pub bytes: u64,
    /// Number of records read by consumers at the tail.
    pub tail_records: u64,
    /// Records read by consumers of the backlog.
    pub cold: Option<Drain>,
    /// Latency from the scheduled time of sending to the acknowledgement.
    pub produce: Histogram<u64>,
    /// Latency from the actual time of sending to the acknowledgement.
    pub service: Histogram<u64>,
    /// Delay from the scheduled to the actual time of sending.
    pub send_delay: Histogram<u64>,
    /// Latency from the scheduled time of sending to the receipt by a consumer at the tail.
    pub end_to_end: Histogram<u64>,
    /// Number of errors by kind.
    pub errors: BTreeMap<String, u64>,
    /// Records acknowledged but not read.
    pub lost: u64,
    /// Records read more than once.
    pub duplicated: u64,
    /// Records read in a different order than sent.
    pub reordered: u64,
    /// Why the generator was the bottleneck, if so. The latencies are not valid then.
    pub saturated: Option<String>,
    /// Why the broker did not keep up with an open loop, if so.
    pub overloaded: Option<String>,
    /// Why not all records were read back and compared, if so. Only what was read is checked then.
    pub unchecked: Option<String>,
    /// Longest time without an acknowledgement.
    pub longest_gap: Duration,
    /// The intervals of the run.
    pub intervals: Vec<Interval>,
    /// Resource usage of this process.
    pub generator: Usage,
    /// Resource usage of the broker's process, if it is on this machine.
    pub broker: Option<Usage>,
}

/// Reading of a backlog.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Number of records.
    pub records: u64,
    /// Bytes of values.
    pub bytes: u64,
    /// Time from the first record to the last.
    pub took: Duration,
}

/// An interval of a run.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Start, relative to the start of the measurement.
    pub at: Duration,
    /// Length.
    pub took: Duration,
    /// Number of records acknowledged.
    pub records: u64,
    /// Bytes acknowledged.
    pub bytes: u64,
    /// Latency from the scheduled time of sending to the acknowledgement.
    pub produce: Histogram<u64>,
}

/// Resource usage of a process in the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time in seconds.
    pub cpu_seconds: f64,
    /// Peak resident memory in bytes.
    pub rss_bytes_max: u64,
    /// Number of context switches.
    pub context_switches: u64,
    /// Bytes written to the disk.
    pub bytes_written: u64,
    /// Flushes and durable writes, if the broker counts them.
    pub syncs: Option<u64>,
}
