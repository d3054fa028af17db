//! What one run came to, before it is made text or JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::scenario::Scenario;

/// Digits that a histogram keeps.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// One run of a scenario. Everything counts the measured time only, without the warm-up, but losses and the like, which count all of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The workload, with what the command line changed of it.
    pub scenario: Scenario,
    /// The client.
    pub backend: String,
    /// What an acknowledgement meant.
    pub acknowledgement: String,
    /// Which of the runs, from 1.
    pub run: u32,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// How long was measured.
    pub measured: Duration,
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of keys and values acknowledged.
    pub bytes: u64,
    /// Records read by consumers at the tail.
    pub tail_records: u64,
    /// Records and bytes read by consumers of the backlog, and the time they took.
    pub cold: Option<Drain>,
    /// From the intended moment to the acknowledgement.
    pub produce: Histogram<u64>,
    /// From the actual moment of sending to the acknowledgement.
    pub service: Histogram<u64>,
    /// From the intended to the actual moment of sending.
    pub send_delay: Histogram<u64>,
    /// From the intended moment to a consumer at the tail having it.
    pub end_to_end: Histogram<u64>,
    /// Errors by kind.
    pub errors: BTreeMap<String, u64>,
    /// Acknowledged and not to be read.
    pub lost: u64,
    /// Read more than once.
    pub duplicated: u64,
    /// Read in another order than sent.
    pub reordered: u64,
    /// Why the generator, not the broker, was the limit. The run's latencies mean nothing then.
    pub saturated: Option<String>,
    /// Why the broker, not the generator, did not keep up with an open loop: its acknowledgements came too slowly.
    pub overloaded: Option<String>,
    /// Why not everything was read back and compared, if so. Losses are then counted among what was.
    pub unchecked: Option<String>,
    /// The longest time without an acknowledgement.
    pub longest_gap: Duration,
    /// The run in short pieces.
    pub intervals: Vec<Interval>,
    /// What this process used.
    pub generator: Usage,
    /// What the broker's process used, if it is on this machine.
    pub broker: Option<Usage>,
}

/// A backlog read.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Records.
    pub records: u64,
    /// Bytes of values.
    pub bytes: u64,
    /// From the first to the last.
    pub took: Duration,
}

/// A piece of a run.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Its beginning, from that of measuring.
    pub at: Duration,
    /// Its length.
    pub took: Duration,
    /// Records acknowledged.
    pub records: u64,
    /// Bytes acknowledged.
    pub bytes: u64,
    /// From the intended moment to the acknowledgement.
    pub produce: Histogram<u64>,
}

/// What a process used in the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Seconds of processor time.
    pub cpu_seconds: f64,
    /// The most memory resident, in bytes.
    pub rss_bytes_max: u64,
    /// Context switches.
    pub context_switches: u64,
    /// Bytes given to the disk.
    pub bytes_written: u64,
    /// Flushes and durable writes, where the broker tells.
    pub syncs: Option<u64>,
}
