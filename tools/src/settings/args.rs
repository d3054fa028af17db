//! Flags of `start`.

use std::path::PathBuf;

use clap::Args;

use super::Durability;
use crate::addresses::{Advertise, KafkaListen, Listen, PeerAddresses};
use crate::units::ByteSize;

/// `start`. All values are optional; missing ones come from the configuration file or the defaults.
#[derive(Args, Debug, Default)]
pub(crate) struct StartArgs {
    /// Directory for the broker's data, created if it does not exist [default: ./highwater-data]
    #[arg(long, env = "HIGHWATER_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// Addresses or host names to listen on, separated by commas or with repeated flags. The default port is 9191; port 0 picks a free
    /// one [default: 127.0.0.1:9191]. Example: --listen 127.0.0.1,[::1]
    #[arg(long, env = "HIGHWATER_LISTEN", value_name = "HOST:PORT", hide_env_values = true)]
    pub listen: Vec<Listen>,

    /// Addresses to advertise to clients, one for each address of --listen, in the same order, separated by commas; `auto` is the
    /// address that a client has connected to [default: auto for each]
    #[arg(long, env = "HIGHWATER_ADVERTISE", value_name = "HOST:PORT", hide_env_values = true)]
    pub advertise: Vec<Advertise>,

    /// Addresses to listen on for Kafka clients, as for --listen, with default port 9092; `none` disables the listener
    /// [default: 127.0.0.1:9092]
    #[arg(long, env = "HIGHWATER_KAFKA_LISTEN", value_name = "HOST:PORT", hide_env_values = true)]
    pub kafka_listen: Vec<KafkaListen>,

    /// Addresses to advertise to Kafka clients, one for each address of --kafka-listen, as for --advertise
    /// [default: auto for each]
    #[arg(long, env = "HIGHWATER_KAFKA_ADVERTISE", value_name = "HOST:PORT", hide_env_values = true)]
    pub kafka_advertise: Vec<Advertise>,

    /// Addresses to listen on for the other nodes of a cluster, as for --listen, with default port 9193
    /// [default: none, this node takes no others]
    #[arg(long, env = "HIGHWATER_PEER_LISTEN", value_name = "HOST:PORT", hide_env_values = true)]
    pub peer_listen: Vec<PeerAddresses>,

    /// Addresses at which the other nodes reach those of --peer-listen, as for --advertise
    /// [default: the one of --seeds that is this node, or else the address that it listens on]
    #[arg(long, env = "HIGHWATER_PEER_ADVERTISE", value_name = "HOST:PORT", hide_env_values = true)]
    pub peer_advertise: Vec<Advertise>,

    /// Nodes that found a cluster together, the same list on each of them; for a node that joins later, any members. The default
    /// port is 9193. Without it, a node with an empty directory founds a cluster of one. Example: --seeds a,b,c
    #[arg(long, env = "HIGHWATER_SEEDS", value_name = "HOST:PORT", hide_env_values = true)]
    pub seeds: Vec<PeerAddresses>,

    /// Number of this node in its cluster [default: 0 for the founder, the smallest free one for others]
    #[arg(long, env = "HIGHWATER_NODE_ID", value_name = "N", hide_env_values = true)]
    pub node_id: Option<u32>,

    /// Create missing topics when Kafka clients request them [default: true]
    #[arg(
        long,
        env = "HIGHWATER_AUTO_CREATE_TOPICS",
        value_name = "BOOL",
        value_parser = clap::builder::BoolishValueParser::new(),
        hide_env_values = true
    )]
    pub auto_create_topics: Option<bool>,

    /// Number of partitions of topics that Kafka clients create without a number [default: 1]
    #[arg(long, env = "HIGHWATER_DEFAULT_PARTITIONS", value_name = "N", hide_env_values = true)]
    pub default_partitions: Option<u32>,

    /// Number of partitions of the topic that keeps groups and their offsets; it is created when a client first asks for a group, and keeps
    /// this number [default: 16]
    #[arg(long, env = "HIGHWATER_OFFSETS_TOPIC_PARTITIONS", value_name = "N", hide_env_values = true)]
    pub offsets_topic_partitions: Option<u32>,

    /// Rack that this node is in: replicas of a partition are placed in different racks, as far as there are enough
    #[arg(long, env = "HIGHWATER_RACK", value_name = "NAME", hide_env_values = true)]
    pub rack: Option<String>,

    /// Number of cores to use, with one thread each [default: every core the process may use]
    #[arg(long, env = "HIGHWATER_CORES", value_name = "N", hide_env_values = true)]
    pub cores: Option<u16>,

    /// Memory for requests and cache of all cores, such as 2GiB [default: a quarter of what the process may use within its
    /// control groups; at least 256MiB and at most 8GiB]
    #[arg(long, env = "HIGHWATER_MEMORY", value_name = "SIZE", hide_env_values = true)]
    pub memory: Option<ByteSize>,

    /// Maximum size of a record batch, from 1MiB to 100MiB; a topic's max.message.bytes can only be lower
    /// [default: 16MiB]
    #[arg(long, env = "HIGHWATER_BATCH_BYTES_MAX", value_name = "SIZE", hide_env_values = true)]
    pub batch_bytes_max: Option<ByteSize>,

    /// Free space in the data directory that is kept for new records; what is free beyond it for half a minute is returned to the
    /// file system [default: 1GiB]
    #[arg(long, env = "HIGHWATER_FREE_SPACE_KEPT", value_name = "SIZE", hide_env_values = true)]
    pub free_space_kept: Option<ByteSize>,

    /// How writes are made durable [default: measure]
    #[arg(long, env = "HIGHWATER_DURABILITY", value_name = "FORM", hide_env_values = true)]
    pub durability: Option<Durability>,

    /// Maximum size of a partition's records that a commit round writes through the journal; more go directly to the
    /// partition's extent. From 0, which is no journal, to 1MiB [default: as the disk requires, from 16KiB to 256KiB]
    #[arg(long, env = "HIGHWATER_JOURNAL_TAIL_BYTES_MAX", value_name = "SIZE", hide_env_values = true)]
    pub journal_tail_bytes_max: Option<ByteSize>,

    /// Milliseconds between looks at each partition for records to delete or to compact [default: 15000]
    #[arg(
        long,
        env = "HIGHWATER_CLEANUP_INTERVAL_MS",
        value_name = "MS",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub cleanup_interval_ms: Option<u32>,

    /// Milliseconds that an empty group of Kafka clients waits for more members before it assigns partitions [default: 3000]
    #[arg(
        long,
        env = "HIGHWATER_GROUP_INITIAL_REBALANCE_DELAY_MS",
        value_name = "MS",
        hide_env_values = true
    )]
    pub group_initial_rebalance_delay_ms: Option<u32>,

    /// Milliseconds between heartbeats of group members: Highwater clients, and Kafka clients with group.protocol=consumer
    /// [default: 5000]
    #[arg(
        long,
        env = "HIGHWATER_GROUP_HEARTBEAT_INTERVAL_MS",
        value_name = "MS",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub group_heartbeat_interval_ms: Option<u32>,

    /// Milliseconds without a heartbeat after which such a member is removed from its group [default: 45000]
    #[arg(
        long,
        env = "HIGHWATER_GROUP_SESSION_TIMEOUT_MS",
        value_name = "MS",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub group_session_timeout_ms: Option<u32>,

    /// Minutes for which a group's offsets are kept after its last member has left [default: 10080, seven days]
    #[arg(
        long,
        env = "HIGHWATER_OFFSETS_RETENTION_MINUTES",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        hide_env_values = true
    )]
    pub offsets_retention_minutes: Option<u32>,

    /// Allow listening on external addresses, although there is no encryption or authentication [default: false]
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

    /// TOML file with any of these settings, named like the flags with `_` instead of `-`
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// Print the effective settings and their sources as a configuration file, and exit
    #[arg(long)]
    pub print_config: bool,
}
