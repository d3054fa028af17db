//! Reports of measurements. The types here define the JSON format: fields are only ever added, and their meaning changes only with `schema`.
//! All other formats are derived from them.
//!
//! | module | contents |
//! |---|---|
//! | [`file`] | reading and writing of the JSON file |
//! | [`run`] | conversion of an [`Outcome`](crate::outcome::Outcome) to a [`Run`] |
//! | [`group`] | groups of runs of one workload on one broker |
//! | [`text`] | the table |
//! | [`compare`] | comparison of reports |
//! | [`plots`] | plots and percentile files |
//! | [`histogram`] | histograms in the JSON, in `.hgrm` files and in interval logs |

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

/// Version of the format.
pub const SCHEMA: u32 = 1;

/// A report, written by `--json` and read by `compare`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The machine and program measured.
    pub environment: Environment,
    /// The machine's limits, measured between the runs.
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
    /// Commit of the program, with `-dirty` if the tree had changes.
    pub commit: String,
    pub version: String,
    /// Start time, in UTC, RFC 3339.
    pub started: String,
    /// Other properties: frequency governor, mount options, load at the start.
    pub notes: BTreeMap<String, String>,
}

/// A limit of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Limit {
    pub name: String,
    pub value: f64,
    pub unit: String,
}

/// A run.
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
    /// Target rate in records per second; zero for a closed loop.
    pub rate: u64,
    pub partitions: u32,
    pub record_bytes: u64,
    /// Number of distinct keys; zero for records without keys.
    pub keys: u32,
    /// Number of producers, each with its own connections.
    pub producers: u32,
    pub batch_bytes: u64,
    pub batch_records: u32,
    pub linger_us: u64,
    /// Maximum number of batches in flight per partition.
    pub in_flight: u32,
    /// Maximum number of unacknowledged records of a producer.
    pub outstanding: u32,
    pub compression: String,
    pub tail_consumers: u32,
    pub cold_consumers: u32,
    /// Start of the measurement, in milliseconds since 1970.
    pub started_ms: i64,
    pub warmup_seconds: f64,
    pub seconds: f64,
    pub records: u64,
    pub bytes: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// The limit that applies to the workload, and the percentage of it that the run reached.
    pub limit_name: Option<String>,
    pub limit_percent: Option<f64>,
    pub latency_ns: Latencies,
    /// Number of errors, by kind.
    pub errors: BTreeMap<String, u64>,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub saturated: bool,
    pub saturated_why: Option<String>,
    pub longest_gap_ns: u64,
    pub tail_records: u64,
    pub cold_bytes_per_second: Option<f64>,
    /// The percentage of the disk's sequential reads that this is.
    pub cold_limit_percent: Option<f64>,
    pub generator: ProcessUse,
    pub broker: Option<ProcessUse>,
    /// Intervals of at least a second, unless the run is shorter.
    pub intervals: Vec<IntervalRow>,
}

/// Latencies of the parts of a record's path.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Latencies {
    pub produce: Option<Percentiles>,
    pub end_to_end: Option<Percentiles>,
    pub service: Option<Percentiles>,
    pub send_delay: Option<Percentiles>,
}

/// Summary of a histogram in nanoseconds, and the full histogram (HdrHistogram V2 deflate, base64).
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

/// Resource usage of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ProcessUse {
    pub cpu_seconds: f64,
    /// Processor time in seconds per 10^9 bytes acknowledged.
    pub cpu_seconds_per_gb: f64,
    pub rss_bytes_max: u64,
    pub context_switches: u64,
    pub bytes_written: u64,
    /// Bytes written to the disk per byte acknowledged.
    pub bytes_written_per_byte: f64,
    pub syncs: Option<u64>,
    pub syncs_per_second: Option<f64>,
}

/// An interval of a run.
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
