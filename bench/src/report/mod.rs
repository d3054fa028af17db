//! What was measured, for programs and for people. The types here are the JSON: fields are only ever added; what they mean changes
//! only with `schema`. Everything else is made of them.
//!
//! | module | what it makes |
//! |---|---|
//! | [`file`] | the JSON file, written and read |
//! | [`run`] | a [`Run`] of an [`Outcome`](crate::outcome::Outcome) |
//! | [`group`] | the runs of one workload on one broker, together |
//! | [`text`] | the table |
//! | [`compare`] | two reports side by side |
//! | [`plots`] | a folder of plots and percentile files |
//! | [`histogram`] | histograms as they stand in the JSON, in `.hgrm` files and in interval logs |

pub mod compare;
pub mod file;
pub mod group;
pub mod histogram;
pub(crate) mod numbers;
pub mod plots;
pub mod run;
pub mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of these types.
pub const SCHEMA: u32 = 1;

/// A file that `--json` writes and `compare` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where it was measured.
    pub environment: Environment,
    /// The machine's limits, measured beside the runs.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// The runs.
    pub runs: Vec<Run>,
}

/// The machine and the program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Environment {
    pub cpu: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub kernel: String,
    pub disk: String,
    pub filesystem: String,
    /// Of this program, with `-dirty` if the tree was.
    pub commit: String,
    pub version: String,
    /// In UTC, RFC 3339.
    pub started: String,
    /// Anything else worth knowing: frequency governor, mount options, load at the start.
    pub notes: BTreeMap<String, String>,
}

/// One limit of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Limit {
    pub name: String,
    pub value: f64,
    pub unit: String,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Run {
    pub scenario: String,
    pub backend: String,
    pub acknowledgement: String,
    pub run: u32,
    /// `open` or `closed`.
    pub load: String,
    /// Records a second asked for; zero for a closed loop.
    pub rate: u64,
    pub partitions: u32,
    pub record_bytes: u64,
    /// Distinct keys; zero: records without one.
    pub keys: u32,
    /// Each with connections of its own.
    pub producers: u32,
    pub batch_bytes: u64,
    pub batch_records: u32,
    pub linger_us: u64,
    /// Batches of a partition.
    pub in_flight: u32,
    /// Records of a producer that wait for their acknowledgement, at most.
    pub outstanding: u32,
    pub compression: String,
    pub tail_consumers: u32,
    pub cold_consumers: u32,
    /// When measuring began, in milliseconds since 1970.
    pub started_ms: i64,
    pub warmup_seconds: f64,
    pub seconds: f64,
    pub records: u64,
    pub bytes: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// The limit it runs into, and how near it came.
    pub limit_name: Option<String>,
    pub limit_percent: Option<f64>,
    pub latency_ns: Latencies,
    /// By kind.
    pub errors: BTreeMap<String, u64>,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub saturated: bool,
    pub saturated_why: Option<String>,
    pub longest_gap_ns: u64,
    pub tail_records: u64,
    pub cold_bytes_per_second: Option<f64>,
    pub generator: ProcessUse,
    pub broker: Option<ProcessUse>,
    /// One a second or shorter.
    pub intervals: Vec<IntervalRow>,
}

/// Latencies by what they span.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Latencies {
    pub produce: Option<Percentiles>,
    pub end_to_end: Option<Percentiles>,
    pub service: Option<Percentiles>,
    pub send_delay: Option<Percentiles>,
}

/// A histogram in short, in nanoseconds, and in full: HdrHistogram V2 deflate, base64.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
    pub count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<String>,
}

/// What a process used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ProcessUse {
    pub cpu_seconds: f64,
    /// For each 10^9 bytes acknowledged.
    pub cpu_seconds_per_gb: f64,
    pub rss_bytes_max: u64,
    pub context_switches: u64,
    pub bytes_written: u64,
    /// Bytes given to the disk for each byte acknowledged.
    pub bytes_written_per_byte: f64,
    pub syncs: Option<u64>,
    pub syncs_per_second: Option<f64>,
}

/// A piece of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct IntervalRow {
    pub at_seconds: f64,
    pub seconds: f64,
    pub records: u64,
    pub bytes: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}
