//! Settings of a broker. The precedence is: flags, environment, configuration file, defaults.

mod args;

use std::fmt::{self, Write as _};
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, ValueEnum};
use highwater_engine::limits::{CLEANUP_INTERVAL_DEFAULT, FREE_SPACE_KEPT_BYTES_DEFAULT};
use highwater_engine::{BrokerConfig, DurableChoice, GROUPS_PARTITIONS_DEFAULT, Listener};
use highwater_protocol::ids::NodeId;
use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
use serde::Deserialize;

use crate::addresses::{
    ADDRESS_DEFAULT, AddressList, Advertise, KAFKA_ADDRESS_DEFAULT, KafkaListen, Listen, PeerAddresses,
    listeners,
};
use crate::failure::Failure;
use crate::units::ByteSize;

pub(crate) use args::StartArgs;

/// Default data directory.
pub(crate) const DATA_DIR_DEFAULT: &str = "./highwater-data";

/// Default log level of a broker.
pub(crate) const LOG_LEVEL_DEFAULT: &str = "warn";

/// Description of the default of `memory`.
const MEMORY_DEFAULT: &str = "a quarter of what the process may use, at least 256MiB and at most 8GiB";

/// Description of the default of `advertise`.
const ADVERTISE_DEFAULT: &str = "the address that each client has connected to";

/// Description of the default of `peer_advertise`.
const PEER_ADVERTISE_DEFAULT: &str =
    "the one of seeds that is this node, or else the address that it listens on";

/// Description of the default of `node_id`.
const NODE_ID_DEFAULT: &str = "0 for the founder, the smallest free one for others";

/// Method of making writes durable.
#[derive(ValueEnum, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Durability {
    /// The faster of the two on this disk, according to a short measurement at start
    #[default]
    Measure,
    /// Every write is durable by itself (RWF_DSYNC)
    Dsync,
    /// One sync for several writes
    SyncPerRound,
}

impl Durability {
    fn name(self) -> &'static str {
        match self {
            Self::Measure => "measure",
            Self::Dsync => "dsync",
            Self::SyncPerRound => "sync-per-round",
        }
    }
}

impl From<Durability> for DurableChoice {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Measure => Self::Measure,
            Durability::Dsync => Self::Dsync,
            Durability::SyncPerRound => Self::SyncPerRound,
        }
    }
}

/// Source of a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// The default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// A value and its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where the value comes from.
    pub source: Source,
}

/// The effective settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settings {
    /// Directory for the broker's data.
    pub data_dir: Setting<PathBuf>,
    /// Addresses to listen on.
    pub listen: Setting<Listen>,
    /// Advertised addresses; `None` to advertise the address that each client connected to.
    pub advertise: Setting<Option<Advertise>>,
    /// Addresses to listen on for Kafka clients.
    pub kafka_listen: Setting<KafkaListen>,
    /// Advertised addresses for Kafka clients; `None` to advertise the address that each client connected to.
    pub kafka_advertise: Setting<Option<Advertise>>,
    /// Addresses to listen on for other nodes; `None` to take no others.
    pub peer_listen: Setting<Option<PeerAddresses>>,
    /// Addresses at which other nodes reach these.
    pub peer_advertise: Setting<Option<Advertise>>,
    /// Nodes that found a cluster, or members of one.
    pub seeds: Setting<Option<PeerAddresses>>,
    /// Number of the node in its cluster.
    pub node_id: Setting<Option<u32>>,
    /// Whether to create missing topics when Kafka clients request them.
    pub auto_create_topics: Setting<bool>,
    /// Number of partitions of topics that are created without a number.
    pub default_partitions: Setting<u32>,
    /// Number of partitions of the topic that keeps groups.
    pub offsets_topic_partitions: Setting<u32>,
    /// Rack that the node is in, if it is known.
    pub rack: Setting<Option<String>>,
    /// Number of cores; `None` for every core the process may use.
    pub cores: Setting<Option<u16>>,
    /// Memory for requests and cache; `None` for a share of what the process may use.
    pub memory: Setting<Option<ByteSize>>,
    /// Maximum size of a record batch.
    pub batch_bytes_max: Setting<ByteSize>,
    /// Free space that is kept for new records.
    pub free_space_kept: Setting<ByteSize>,
    /// Method of making writes durable.
    pub durability: Setting<Durability>,
    pub journal_tail_bytes_max: Setting<Option<ByteSize>>,
    /// How often partitions are looked at for records to delete or to compact, in milliseconds.
    pub cleanup_interval_ms: Setting<u32>,
    /// Log filter.
    pub log_level: Setting<String>,
    /// How long an empty group waits for more members, in milliseconds.
    pub group_initial_rebalance_delay_ms: Setting<u32>,
    /// Interval between heartbeats of members, in milliseconds.
    pub group_heartbeat_interval_ms: Setting<u32>,
    /// Time without a heartbeat after which a member is removed, in milliseconds.
    pub group_session_timeout_ms: Setting<u32>,
    /// How long unused offsets are kept, in minutes.
    pub offsets_retention_minutes: Setting<u32>,
    /// Whether to allow listening on external addresses without encryption.
    pub insecure: Setting<bool>,
}

/// The configuration file. Unknown names are errors.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<Listen>,
    advertise: Option<Advertise>,
    kafka_listen: Option<KafkaListen>,
    kafka_advertise: Option<Advertise>,
    peer_listen: Option<PeerAddresses>,
    peer_advertise: Option<Advertise>,
    seeds: Option<PeerAddresses>,
    node_id: Option<u32>,
    auto_create_topics: Option<bool>,
    default_partitions: Option<u32>,
    offsets_topic_partitions: Option<u32>,
    rack: Option<String>,
    cores: Option<u16>,
    memory: Option<Size>,
    batch_bytes_max: Option<Size>,
    free_space_kept: Option<Size>,
    durability: Option<Durability>,
    journal_tail_bytes_max: Option<Size>,
    cleanup_interval_ms: Option<NonZeroU32>,
    log_level: Option<String>,
    group_initial_rebalance_delay_ms: Option<u32>,
    group_heartbeat_interval_ms: Option<NonZeroU32>,
    group_session_timeout_ms: Option<NonZeroU32>,
    offsets_retention_minutes: Option<NonZeroU32>,
    insecure: Option<bool>,
}

#[derive(Deserialize, Debug)]
#[serde(untagged, expecting = "a size such as \"2GiB\" or a number of bytes")]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(self) -> Result<ByteSize, String> {
        match self {
            Self::Bytes(n) => Ok(ByteSize(n)),
            Self::Text(text) => text.parse(),
        }
    }
}

/// Returns the bytes of a size in the configuration file.
fn size_in_file(path: &Path, name: &str, size: Option<Size>) -> Result<Option<ByteSize>, Failure> {
    size.map(Size::bytes)
        .transpose()
        .map_err(|e| Failure::configuration(format_args!("{}: {name}: {e}", path.display())))
}

impl Settings {
    /// Merges command line, environment and file. `matches` are those of the `start` command.
    pub(crate) fn resolve(
        args: &StartArgs,
        log_level: Option<&String>,
        matches: &ArgMatches,
    ) -> Result<Self, Failure> {
        let file = args.config.as_deref().map_or_else(|| Ok(File::default()), File::read)?;
        let merge = Merge { matches };
        let path = args.config.as_deref().unwrap_or(Path::new(""));
        let memory_in_file = size_in_file(path, "memory", file.memory)?;
        let journal_tail_in_file = size_in_file(path, "journal_tail_bytes_max", file.journal_tail_bytes_max)?;
        let size = |name, given, in_file, default| -> Result<Setting<ByteSize>, Failure> {
            Ok(merge.pick(name, given, size_in_file(path, name, in_file)?, || ByteSize(default)))
        };
        let count = |name, given, in_file, default: u32| merge.pick(name, given, in_file, || default);
        macro_rules! time {
            ($name:ident, $default:expr) => {
                merge.pick(stringify!($name), args.$name, file.$name.map(NonZeroU32::get), || $default)
            };
        }
        macro_rules! addresses {
            ($name:ident) => {
                merge.optional(stringify!($name), joined(&args.$name)?, file.$name)
            };
        }
        let (largest, kept) = (BATCH_BYTES_MAX_DEFAULT as u64, FREE_SPACE_KEPT_BYTES_DEFAULT);
        let settings = Self {
            data_dir: merge
                .pick("data_dir", args.data_dir.clone(), file.data_dir, || DATA_DIR_DEFAULT.into()),
            listen: merge.pick("listen", joined(&args.listen)?, file.listen, || {
                ADDRESS_DEFAULT.parse().expect("the default address is an address")
            }),
            advertise: addresses!(advertise),
            kafka_listen: merge.pick("kafka_listen", joined(&args.kafka_listen)?, file.kafka_listen, || {
                KAFKA_ADDRESS_DEFAULT.parse().expect("the default address is an address")
            }),
            kafka_advertise: addresses!(kafka_advertise),
            peer_listen: addresses!(peer_listen),
            peer_advertise: addresses!(peer_advertise),
            seeds: addresses!(seeds),
            node_id: merge.optional("node_id", args.node_id, file.node_id),
            auto_create_topics: merge.pick(
                "auto_create_topics",
                args.auto_create_topics,
                file.auto_create_topics,
                || true,
            ),
            default_partitions: count(
                "default_partitions",
                args.default_partitions,
                file.default_partitions,
                1,
            ),
            offsets_topic_partitions: count(
                "offsets_topic_partitions",
                args.offsets_topic_partitions,
                file.offsets_topic_partitions,
                GROUPS_PARTITIONS_DEFAULT,
            ),
            rack: merge.optional("rack", args.rack.clone(), file.rack),
            cores: merge.optional("cores", args.cores, file.cores),
            memory: merge.optional("memory", args.memory, memory_in_file),
            batch_bytes_max: size("batch_bytes_max", args.batch_bytes_max, file.batch_bytes_max, largest)?,
            free_space_kept: size("free_space_kept", args.free_space_kept, file.free_space_kept, kept)?,
            durability: merge.pick("durability", args.durability, file.durability, Durability::default),
            journal_tail_bytes_max: merge.optional(
                "journal_tail_bytes_max",
                args.journal_tail_bytes_max,
                journal_tail_in_file,
            ),
            cleanup_interval_ms: time!(cleanup_interval_ms, CLEANUP_INTERVAL_DEFAULT.as_millis() as u32),
            log_level: merge
                .pick("log_level", log_level.cloned(), file.log_level, || LOG_LEVEL_DEFAULT.into()),
            group_initial_rebalance_delay_ms: merge.pick(
                "group_initial_rebalance_delay_ms",
                args.group_initial_rebalance_delay_ms,
                file.group_initial_rebalance_delay_ms,
                || 3_000,
            ),
            group_heartbeat_interval_ms: time!(group_heartbeat_interval_ms, 5_000),
            group_session_timeout_ms: time!(group_session_timeout_ms, 45_000),
            offsets_retention_minutes: time!(offsets_retention_minutes, 7 * 24 * 60),
            insecure: merge.pick("insecure", args.insecure, file.insecure, || false),
        };
        settings.listeners().map_err(Failure::configuration)?;
        Ok(settings)
    }

    /// Returns the native listeners, those for Kafka clients and those for other nodes, with their advertised addresses.
    fn listeners(&self) -> Result<[Vec<Listener>; 3], String> {
        let native = listeners(&self.listen.value.0, self.advertise.value.as_ref(), "advertise")?;
        let advertise = self.kafka_advertise.value.as_ref();
        let kafka = listeners(&self.kafka_listen.value.0, advertise, "kafka-advertise")?;
        let listen = self.peer_listen.value.as_ref().map_or(&[][..], |listen| &listen.0);
        let peers = listeners(listen, self.peer_advertise.value.as_ref(), "peer-advertise")?;
        Ok([native, kafka, peers])
    }

    /// Converts to the engine's configuration. The engine validates the settings that depend on the machine.
    pub(crate) fn to_broker_config(&self) -> BrokerConfig {
        let mut config = BrokerConfig::default();
        config.data_dir.clone_from(&self.data_dir.value);
        [config.listen, config.kafka_listen, config.peer_listen] =
            self.listeners().expect("validated by `resolve`");
        config.seeds = self.seeds.value.as_ref().map(|seeds| seeds.0.clone()).unwrap_or_default();
        config.node_id = self.node_id.value.map(NodeId);
        config.auto_create_topics = self.auto_create_topics.value;
        config.default_partitions = self.default_partitions.value;
        config.groups_partitions = self.offsets_topic_partitions.value;
        config.rack.clone_from(&self.rack.value);
        config.cores = self.cores.value;
        config.memory_bytes = self.memory.value.map(|size| size.0);
        config.batch_bytes_max = usize::try_from(self.batch_bytes_max.value.0).unwrap_or(usize::MAX);
        config.free_space_kept_bytes = self.free_space_kept.value.0;
        config.durable = self.durability.value.into();
        config.journal_tail_bytes_max = self.journal_tail_bytes_max.value.map(|size| size.0);
        config.cleanup_interval = Duration::from_millis(self.cleanup_interval_ms.value.into());
        config.group_initial_rebalance_delay =
            Duration::from_millis(self.group_initial_rebalance_delay_ms.value.into());
        config.group_heartbeat_interval =
            Duration::from_millis(self.group_heartbeat_interval_ms.value.into());
        config.group_session_timeout = Duration::from_millis(self.group_session_timeout_ms.value.into());
        config.offsets_retention = Duration::from_mins(self.offsets_retention_minutes.value.into());
        config.insecure = self.insecure.value;
        config
    }

    /// Formats the settings as a configuration file, with the source of each.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: Option<toml::Value>, source: Source, unset: &str| {
            let _ = match value {
                Some(value) => writeln!(out, "{name} = {value}  # {source}"),
                None => writeln!(out, "# {name} is not set: {unset}"),
            };
        };
        let text = |s: &str| toml::Value::String(s.to_owned());
        line("data_dir", Some(text(&self.data_dir.value.to_string_lossy())), self.data_dir.source, "");
        line("listen", Some(self.listen.value.to_toml()), self.listen.source, "");
        let advertise = self.advertise.value.as_ref().map(Advertise::to_toml);
        line("advertise", advertise, self.advertise.source, ADVERTISE_DEFAULT);
        line("kafka_listen", Some(self.kafka_listen.value.to_toml()), self.kafka_listen.source, "");
        let kafka_advertise = self.kafka_advertise.value.as_ref().map(Advertise::to_toml);
        line("kafka_advertise", kafka_advertise, self.kafka_advertise.source, ADVERTISE_DEFAULT);
        let peer_listen = self.peer_listen.value.as_ref().map(PeerAddresses::to_toml);
        line("peer_listen", peer_listen, self.peer_listen.source, "no other nodes");
        let peer_advertise = self.peer_advertise.value.as_ref().map(Advertise::to_toml);
        line("peer_advertise", peer_advertise, self.peer_advertise.source, PEER_ADVERTISE_DEFAULT);
        let seeds = self.seeds.value.as_ref().map(PeerAddresses::to_toml);
        line("seeds", seeds, self.seeds.source, "a cluster of one");
        let node_id = self.node_id.value.map(|n| toml::Value::Integer(n.into()));
        line("node_id", node_id, self.node_id.source, NODE_ID_DEFAULT);
        let auto_create = toml::Value::Boolean(self.auto_create_topics.value);
        line("auto_create_topics", Some(auto_create), self.auto_create_topics.source, "");
        let partitions = toml::Value::Integer(self.default_partitions.value.into());
        line("default_partitions", Some(partitions), self.default_partitions.source, "");
        let partitions = toml::Value::Integer(self.offsets_topic_partitions.value.into());
        line("offsets_topic_partitions", Some(partitions), self.offsets_topic_partitions.source, "");
        line("rack", self.rack.value.as_deref().map(text), self.rack.source, "unknown");
        let cores = self.cores.value.map(|n| toml::Value::Integer(n.into()));
        line("cores", cores, self.cores.source, "every core the process may use");
        let memory = self.memory.value.map(|size| text(&size.to_string()));
        // Show the resulting value. If it is invalid, `start` reports the error.
        let in_force = match highwater_engine::memory_in_force(&self.to_broker_config()) {
            Ok(choice) => format!("{MEMORY_DEFAULT}; here {} {}", ByteSize(choice.bytes), choice.because),
            Err(_) => MEMORY_DEFAULT.to_owned(),
        };
        line("memory", memory, self.memory.source, &in_force);
        let batch_bytes_max = text(&self.batch_bytes_max.value.to_string());
        line("batch_bytes_max", Some(batch_bytes_max), self.batch_bytes_max.source, "");
        let free_space_kept = text(&self.free_space_kept.value.to_string());
        line("free_space_kept", Some(free_space_kept), self.free_space_kept.source, "");
        line("durability", Some(text(self.durability.value.name())), self.durability.source, "");
        let journal_tail = self.journal_tail_bytes_max.value.map(|size| text(&size.to_string()));
        let unset = "as the disk requires, if durability is \"measure\", or else 64KiB";
        line("journal_tail_bytes_max", journal_tail, self.journal_tail_bytes_max.source, unset);
        line("log_level", Some(text(&self.log_level.value)), self.log_level.source, "");
        for (name, setting) in [
            ("cleanup_interval_ms", &self.cleanup_interval_ms),
            ("group_initial_rebalance_delay_ms", &self.group_initial_rebalance_delay_ms),
            ("group_heartbeat_interval_ms", &self.group_heartbeat_interval_ms),
            ("group_session_timeout_ms", &self.group_session_timeout_ms),
            ("offsets_retention_minutes", &self.offsets_retention_minutes),
        ] {
            line(name, Some(toml::Value::Integer(setting.value.into())), setting.source, "");
        }
        line("insecure", Some(toml::Value::Boolean(self.insecure.value)), self.insecure.source, "");
        out
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|e| Failure::configuration(format_args!("cannot read {}: {e}", path.display())))?;
        toml::from_str(&text).map_err(|e| {
            Failure::configuration(format_args!("{}: {}", path.display(), e.to_string().trim_end()))
        })
    }
}

/// Returns the addresses of a flag, which may be given several times.
fn joined<T: AddressList>(given: &[T]) -> Result<Option<T>, Failure> {
    T::join(given).map_err(Failure::usage)
}

struct Merge<'a> {
    matches: &'a ArgMatches,
}

impl Merge<'_> {
    fn pick<T>(
        &self,
        id: &str,
        given: Option<T>,
        in_file: Option<T>,
        default: impl FnOnce() -> T,
    ) -> Setting<T> {
        match (given, in_file) {
            (Some(value), _) => {
                let source = match self.matches.value_source(id) {
                    Some(ValueSource::EnvVariable) => Source::Environment,
                    _ => Source::Flag,
                };
                Setting { value, source }
            }
            (None, Some(value)) => Setting { value, source: Source::File },
            (None, None) => Setting { value: default(), source: Source::Default },
        }
    }

    /// The same for a setting that may be absent.
    fn optional<T>(&self, id: &str, given: Option<T>, in_file: Option<T>) -> Setting<Option<T>> {
        self.pick(id, given.map(Some), in_file.map(Some), || None)
    }
}

#[cfg(test)]
mod tests;
