//! Definition of a workload: a small TOML file, which works with every backend.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A workload.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name: that of the file without `.toml`.
    pub name: String,
    /// One-sentence description of what it shows.
    pub about: String,
    /// The topic, created for each run.
    pub topic: Topic,
    /// The records.
    pub record: RecordShape,
    /// The producers.
    pub producers: Producers,
    /// When records are sent.
    pub load: Load,
    /// The consumers.
    #[serde(default)]
    pub consumers: Consumers,
    /// Disturbance of a broker started for the run.
    #[serde(default)]
    pub disturbance: Option<Disturbance>,
}

/// The topic of a workload.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Number of partitions.
    pub partitions: u32,
    /// Number of replicas of each partition. Brokers started for the run are as many.
    #[serde(default = "one")]
    pub replicas: u8,
    /// Topic settings, such as `retention.bytes`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Number of partitions of an additional, unused topic, created before the run.
    #[serde(default)]
    pub idle_partitions: u32,
}

fn one() -> u8 {
    1
}

/// The records of a workload.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordShape {
    /// Size of the value in bytes, at least [`crate::scenario::VALUE_BYTES_MIN`].
    pub bytes: usize,
    /// Number of distinct keys. Zero: no keys, and round-robin partitioning.
    #[serde(default)]
    pub keys: u32,
}

/// Minimum size of a value: that of the stamp at its start.
pub const VALUE_BYTES_MIN: usize = 32;

/// The producers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producers {
    /// Number of producers, each a client with its own connections.
    pub count: u32,
    /// Maximum size of a batch in bytes.
    pub batch_bytes: usize,
    /// Maximum number of records in a batch. Zero: limited by size only. Without keys, as many records in a row go to one partition, so that batches are
    /// full whatever the number of partitions is.
    #[serde(default)]
    pub batch_records: u32,
    /// How long a batch waits for more records, in microseconds.
    #[serde(default)]
    pub linger_us: u64,
    /// Maximum number of batches in flight per partition.
    #[serde(default = "five")]
    pub in_flight: u32,
    /// `none`, `lz4`, `zstd`, `snappy` or `gzip`.
    #[serde(default)]
    pub compression: Compression,
}

fn five() -> u32 {
    5
}

/// Compression of batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Compression {
    #[default]
    None,
    Lz4,
    Zstd,
    Snappy,
    Gzip,
}

/// When records are sent.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Maximum number of unacknowledged records of each producer. It drives the closed loop. In an open loop, the schedule is not kept when
    /// it is reached.
    pub outstanding: u32,
    /// Records per second of an open loop, over all producers. Zero: closed loop.
    #[serde(default)]
    pub rate: u64,
    /// Arrival process of an open loop.
    #[serde(default)]
    pub arrival: Arrival,
    /// Warm-up in seconds.
    #[serde(default)]
    pub warmup_s: f64,
    /// Measured time in seconds.
    pub duration_s: f64,
    /// Number of runs.
    #[serde(default = "three")]
    pub runs: u32,
}

fn three() -> u32 {
    3
}

/// Arrival process of an open loop.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Arrival {
    /// Constant time between records.
    #[default]
    Constant,
    /// Independent, exponentially distributed times between records.
    Poisson,
    /// The rate grows linearly from zero over the measured time.
    Ramp,
    /// The rate is multiplied by `factor` for `seconds` in the middle of the measured time.
    Step {
        /// Factor of the rate.
        factor: f64,
        /// Duration in seconds.
        seconds: f64,
    },
}

/// The consumers.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumers {
    /// Number of consumers at the tail. Each reads every record as it arrives.
    #[serde(default)]
    pub tail: u32,
    /// Number of consumers of a backlog. Each reads it from the beginning while the load runs.
    #[serde(default)]
    pub cold: u32,
    /// Size of the backlog in bytes, written before the load.
    #[serde(default)]
    pub backlog_bytes: u64,
}

/// Disturbance of a broker started for the run.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disturbance {
    /// Kill a broker with SIGKILL in the middle of the run: of several, the one that has founded the cluster.
    pub kill: bool,
    /// Time until it is restarted, in seconds.
    #[serde(default)]
    pub down_s: f64,
}

impl Scenario {
    /// Returns whether retention or compaction removes records from the topic.
    pub fn removes_records(&self) -> bool {
        self.topic.config.keys().any(|name| name.starts_with("retention.")) || self.is_compacted()
    }

    /// Returns whether the topic is compacted.
    pub fn is_compacted(&self) -> bool {
        self.topic.config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"))
    }
}

impl Load {
    /// Returns the warm-up.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_s)
    }

    /// Returns the measured time.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }
}
