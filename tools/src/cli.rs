//! The command line as a type. What a flag does is said here, once; `--help`, completions and the documentation follow it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use highwater_bench::cli::BenchCommand;

use crate::format::{self, Format};
use crate::settings::{Durability, KafkaListen};
use crate::start_at::StartPosition;
use crate::units::ByteSize;

/// Where a broker listens and a client looks for it when neither is told otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "127.0.0.1:9191";

/// Where a broker listens for Kafka clients when it is not told otherwise.
pub(crate) const KAFKA_ADDRESS_DEFAULT: &str = "127.0.0.1:9092";

/// Highwater: an event-streaming broker. An acknowledged record is on stable storage.
#[derive(Parser, Debug)]
#[command(name = "highwater", version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to log on stderr: off, error, warn, info, debug, trace, or a filter such as `info,highwater_storage=debug`
    /// [default: warn for `start`, off elsewhere]
    #[arg(long, global = true, env = "HIGHWATER_LOG_LEVEL", value_name = "FILTER", hide_env_values = true)]
    pub log_level: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C, 141 the reader of the \
output went away, 143 ended by SIGTERM. `start` also: 70 internal error, 73 data directory in use, 74 disk error, 75 data of a newer version or of \
another cluster, 78 configuration.";

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a broker; prints one line `ready ...` on stdout when clients can connect
    Start(StartArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Send the lines of stdin as records; exits 0 only when all of them are acknowledged
    Produce(ProduceArgs),
    /// Print records; ends at what was the end when it began, unless told to follow or to count
    Consume(ConsumeArgs),
    /// List, describe and delete groups of consumers
    #[command(subcommand)]
    Group(GroupCommand),
    /// Look at a stopped broker's data
    #[command(subcommand)]
    Log(LogCommand),
    /// Measure a broker: named workloads, in open or closed loop, checked for loss
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `start`. Every value is optional here: what is not given comes from the configuration file or the defaults.
#[derive(Args, Debug, Default)]
pub(crate) struct StartArgs {
    /// Directory for the broker's data, made if it is missing [default: ./highwater-data]
    #[arg(long, env = "HIGHWATER_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// Addresses to listen on, separated by commas; port 0 picks a free one [default: 127.0.0.1:9191]
    #[arg(
        long,
        env = "HIGHWATER_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub listen: Option<Vec<SocketAddr>>,

    /// Address that clients are told to connect to, if it is not the first one listened on
    #[arg(long, env = "HIGHWATER_ADVERTISE", value_name = "HOST:PORT", hide_env_values = true)]
    pub advertise: Option<String>,

    /// Addresses to listen on for Kafka clients, separated by commas; port 0 picks a free one, `none` is no listener
    /// [default: 127.0.0.1:9092]
    #[arg(long, env = "HIGHWATER_KAFKA_LISTEN", value_name = "IP:PORT", hide_env_values = true)]
    pub kafka_listen: Option<KafkaListen>,

    /// Address that Kafka clients are told to connect to, if it is not the first one listened on for them
    #[arg(long, env = "HIGHWATER_KAFKA_ADVERTISE", value_name = "HOST:PORT", hide_env_values = true)]
    pub kafka_advertise: Option<String>,

    /// Create topics that Kafka clients ask for and that do not exist [default: true]
    #[arg(
        long,
        env = "HIGHWATER_AUTO_CREATE_TOPICS",
        value_name = "BOOL",
        value_parser = clap::builder::BoolishValueParser::new(),
        hide_env_values = true
    )]
    pub auto_create_topics: Option<bool>,

    /// Partitions of a topic that a Kafka client creates without saying how many [default: 1]
    #[arg(long, env = "HIGHWATER_DEFAULT_PARTITIONS", value_name = "N", hide_env_values = true)]
    pub default_partitions: Option<u32>,

    /// Number of cores to use, one thread each [default: every core the process may use]
    #[arg(long, env = "HIGHWATER_CORES", value_name = "N", hide_env_values = true)]
    pub cores: Option<u16>,

    /// Memory for requests and cache, all cores together, such as 2GiB [default: a quarter of the machine's, at least
    /// 256MiB and at most 8GiB]
    #[arg(long, env = "HIGHWATER_MEMORY", value_name = "SIZE", hide_env_values = true)]
    pub memory: Option<ByteSize>,

    /// How writes are made durable [default: measure]
    #[arg(long, env = "HIGHWATER_DURABILITY", value_name = "FORM", hide_env_values = true)]
    pub durability: Option<Durability>,

    /// Milliseconds that an empty group of Kafka clients waits for more members before it divides the partitions [default: 3000]
    #[arg(
        long,
        env = "HIGHWATER_GROUP_INITIAL_REBALANCE_DELAY_MS",
        value_name = "MS",
        hide_env_values = true
    )]
    pub group_initial_rebalance_delay_ms: Option<u32>,

    /// Milliseconds between two heartbeats of a group's member, of Highwater's clients and of Kafka's with group.protocol=consumer
    /// [default: 5000]
    #[arg(
        long,
        env = "HIGHWATER_GROUP_HEARTBEAT_INTERVAL_MS",
        value_name = "MS",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub group_heartbeat_interval_ms: Option<u32>,

    /// Milliseconds without a heartbeat after which such a member's partitions go to others [default: 45000]
    #[arg(
        long,
        env = "HIGHWATER_GROUP_SESSION_TIMEOUT_MS",
        value_name = "MS",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub group_session_timeout_ms: Option<u32>,

    /// Minutes for which offsets of a group are kept that none of its members needs [default: 10080, seven days]
    #[arg(
        long,
        env = "HIGHWATER_OFFSETS_RETENTION_MINUTES",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub offsets_retention_minutes: Option<u32>,

    /// Allow listening beyond this machine although nothing is encrypted and nobody is authenticated [default: false]
    #[arg(
        long,
        env = "HIGHWATER_INSECURE",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new(),
        hide_env_values = true
    )]
    pub insecure: Option<bool>,

    /// TOML file with any of these settings, named as the flags are, with `_` for `-`
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// Print the settings in force and where each comes from, as a configuration file, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// How to find the broker.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// Addresses of brokers, separated by commas; one that answers is enough
    #[arg(
        long,
        env = "HIGHWATER_SERVER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = ADDRESS_DEFAULT,
        hide_env_values = true
    )]
    pub server: Vec<String>,
}

/// `topic`.
#[derive(Subcommand, Debug)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create {
        /// Its name
        topic: String,
        /// Number of partitions
        #[arg(long, short, value_name = "N", default_value_t = 1)]
        partitions: u32,
        /// A setting, such as retention.ms=7d or retention.bytes=10GiB; may be given more than once
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Do nothing if there is a topic of that name
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List topics
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a topic's partitions and settings
    Describe {
        /// Its name
        #[arg(required = true)]
        topic: Vec<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change a topic's settings or add partitions
    Alter {
        /// Its name
        topic: String,
        /// New number of partitions, more than before
        #[arg(long, short, value_name = "N")]
        partitions: Option<u32>,
        /// A setting, such as retention.ms=7d; may be given more than once
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// A setting to return to its default; may be given more than once
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete topics and all their records
    Delete {
        /// Their names
        #[arg(required = true)]
        topic: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// How a producer compresses its batches.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum CompressionArg {
    /// As they are
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

/// `produce`.
#[derive(Args, Debug)]
pub(crate) struct ProduceArgs {
    /// Topic to send to
    pub topic: String,
    /// What separates key and value in a line, at its first occurrence; a line without it has no key. Escapes as in --format
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = separator, conflicts_with = "json")]
    pub key_separator: Option<Separator>,
    /// A header for every record; may be given more than once
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = setting)]
    pub header: Vec<(String, String)>,
    /// Read JSON lines as `consume --json` prints them: key, value, headers, timestamp
    #[arg(long)]
    pub json: bool,
    /// Compression of batches
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none")]
    pub compression: CompressionArg,
    /// Send everything to this partition; otherwise the key decides
    #[arg(long, short, value_name = "N")]
    pub partition: Option<u32>,
    /// How long to try for the acknowledgement of a record, reconnecting as needed, before giving up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = patience)]
    pub timeout: Duration,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Bytes between key and value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Separator(pub Vec<u8>);

/// `consume`.
#[derive(Args, Debug)]
pub(crate) struct ConsumeArgs {
    /// Topic to read
    pub topic: String,
    /// Where to begin: earliest, latest, an offset, -N (N records before the end of each partition), or a time:
    /// 2025-01-31T08:00:00Z, @MILLISECONDS, @-90m
    #[arg(long, short, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: StartPosition,
    /// Stop after this many records, waiting for them if they are not there yet
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<u64>,
    /// Wait for new records at the end
    #[arg(long, short = 'F')]
    pub follow: bool,
    /// How to print a record [default: %v\n]
    #[arg(long, value_name = "TEXT", value_parser = Format::parse, conflicts_with = "json", long_help = format_help())]
    pub format: Option<Format>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Only this partition; may be given more than once
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Continue where this consumer stopped, and remember how far it came; --from counts where it has no position yet
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// Share the partitions with the other members of this group, Kafka's among them, and continue where the group stopped; --from counts
    /// where it has no position yet
    #[arg(long, short, value_name = "NAME", conflicts_with_all = ["consumer", "partition"])]
    pub group: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `group`.
#[derive(Subcommand, Debug)]
pub(crate) enum GroupCommand {
    /// List groups: of native clients, of Kafka clients, and named consumers
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a group's members, who has which partition, and how far each partition is
    Describe {
        /// Its name
        #[arg(required = true)]
        group: Vec<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete groups that have no members, and their positions
    Delete {
        /// Their names
        #[arg(required = true)]
        group: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `log`.
#[derive(Subcommand, Debug)]
pub(crate) enum LogCommand {
    /// List the partitions and how much each holds
    Ls {
        /// List the extents instead: where in which file lies what
        #[arg(long)]
        extents: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print the frames of a partition
    Dump {
        /// Topic, by name or id
        topic: String,
        /// Its partition
        #[arg(long, short, value_name = "N", default_value_t = 0)]
        partition: u32,
        /// Begin at this offset
        #[arg(long, value_name = "OFFSET", default_value_t = 0)]
        from: i64,
        /// Stop after this many frames
        #[arg(long, short = 'n', value_name = "N")]
        limit: Option<u64>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Read everything and check every checksum; exits 1 if damage is found
    Verify {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// A stopped broker's data.
#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    /// The broker's data directory
    #[arg(
        long,
        env = "HIGHWATER_DATA_DIR",
        value_name = "DIR",
        default_value = crate::settings::DATA_DIR_DEFAULT,
        hide_env_values = true
    )]
    pub data_dir: PathBuf,
}

fn format_help() -> String {
    format!("How to print a record [default: %v\\n]: {}", format::LETTERS_HELP)
}

/// `NAME=VALUE`, split at the first `=`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    Duration::try_from(crate::units::duration(text)?).map_err(|_| format!("`{text}` is before now"))
}

fn separator(text: &str) -> Result<Separator, String> {
    let bytes = crate::escape::unescape(text)?;
    match bytes.as_slice() {
        [] => Err("an empty separator separates nothing".into()),
        bytes if bytes.contains(&b'\n') => {
            Err("a record is a line: a newline cannot separate key and value".into())
        }
        _ => Ok(Separator(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_quick_start_are_understood() {
        for line in [
            "highwater start",
            "highwater topic create orders --partitions 8",
            "highwater produce orders --key-separator :",
            "highwater consume orders --from earliest --limit 1000000 --format %k:%v\\n",
            "highwater consume orders --from latest --follow --json",
            "highwater produce orders --header k=v --json --compression zstd --partition 3",
            "highwater consume orders --from -10 --partition 1 --partition 2 --consumer billing",
            "highwater consume orders --group billing --follow",
            "highwater group describe billing",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn a_key_separator_is_at_least_one_byte_and_no_newline() {
        assert_eq!(separator(r"\t"), Ok(Separator(b"\t".to_vec())));
        assert_eq!(separator("::"), Ok(Separator(b"::".to_vec())));
        assert!(separator("").is_err());
        assert!(separator(r"a\n").is_err());
    }

    #[test]
    fn a_setting_is_split_at_its_first_equals_sign() {
        assert_eq!(setting("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(setting("a="), Ok(("a".into(), String::new())));
        assert!(setting("a").is_err());
        assert!(setting("=b").is_err());
    }
}
