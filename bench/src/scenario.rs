//! What a workload is: a small TOML file with a name. The same file drives every back end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A workload.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: that of the file without `.toml`.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// The topic it uses, made anew for each run.
    pub topic: Topic,
    /// The records.
    pub record: RecordShape,
    /// Who sends them.
    pub producers: Producers,
    /// When they are sent.
    pub load: Load,
    /// Who reads them.
    #[serde(default)]
    pub consumers: Consumers,
    /// What is done to a broker of its own meanwhile.
    #[serde(default)]
    pub disturbance: Option<Disturbance>,
}

/// The topic.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Partitions.
    pub partitions: u32,
    /// Settings by their names, such as `retention.bytes`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Partitions of another topic that nobody uses, made before the run.
    #[serde(default)]
    pub idle_partitions: u32,
}

/// A record.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordShape {
    /// Bytes of the value; at least [`crate::scenario::VALUE_BYTES_MIN`], which is what checking needs.
    pub bytes: usize,
    /// Distinct keys. Zero: no key, and the partitions in turn.
    #[serde(default)]
    pub keys: u32,
}

/// The smallest value: producer, sequence number and moments stand in front.
pub const VALUE_BYTES_MIN: usize = 32;

/// The producers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producers {
    /// How many; each is a client with connections of its own.
    pub count: u32,
    /// Bytes a batch is filled to.
    pub batch_bytes: usize,
    /// Records in a batch at most. Zero: as many as fit.
    #[serde(default)]
    pub batch_records: u32,
    /// How long a batch waits for more, in microseconds.
    #[serde(default)]
    pub linger_us: u64,
    /// Batches of a partition in flight.
    #[serde(default = "five")]
    pub in_flight: u32,
    /// `none`, `lz4`, `zstd`, `snappy` or `gzip`.
    #[serde(default)]
    pub compression: Compression,
}

fn five() -> u32 {
    5
}

/// How batches are compressed.
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
    /// Records not yet acknowledged, of each producer: the closed loop. With an open loop it is where the generator gives up keeping
    /// the schedule and says that it is saturated.
    pub outstanding: u32,
    /// Records a second, all producers together: the open loop. Zero: the closed loop.
    #[serde(default)]
    pub rate: u64,
    /// How an open loop's moments are spread.
    #[serde(default)]
    pub arrival: Arrival,
    /// Seconds before measuring begins.
    #[serde(default)]
    pub warmup_s: f64,
    /// Seconds of measuring.
    pub duration_s: f64,
    /// How often the whole is done.
    #[serde(default = "three")]
    pub runs: u32,
}

fn three() -> u32 {
    3
}

/// The open loop's schedule.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Arrival {
    /// The same time between any two.
    #[default]
    Constant,
    /// Independent of each other.
    Poisson,
    /// From nothing to the rate over the measured time.
    Ramp,
    /// The rate is multiplied by `factor` for `seconds` in the middle.
    Step {
        /// What the rate is multiplied by.
        factor: f64,
        /// For how long.
        seconds: f64,
    },
}

/// The consumers.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumers {
    /// Each reads every record as it comes.
    #[serde(default)]
    pub tail: u32,
    /// Each reads, while the load goes on, a backlog made before it, from the beginning.
    #[serde(default)]
    pub cold: u32,
    /// Bytes of that backlog.
    #[serde(default)]
    pub backlog_bytes: u64,
}

/// What is done to a broker of the run's own.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disturbance {
    /// Killed with SIGKILL in the middle, and started again at once.
    pub kill: bool,
}

impl Scenario {
    /// Whether the topic forgets old records by itself.
    pub fn removes_records(&self) -> bool {
        self.topic.config.keys().any(|name| name.starts_with("retention."))
    }
}

impl Load {
    /// Time before measuring.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_s)
    }

    /// Time of measuring.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }
}
