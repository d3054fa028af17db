//! The configuration of a broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use highwater_protocol::address::{KAFKA_PORT_DEFAULT, NATIVE_PORT_DEFAULT};
use highwater_protocol::ids::NodeId;
use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
pub use highwater_runtime::HostKind;

use crate::address::HostPort;
use crate::limits::{CLEANUP_INTERVAL_DEFAULT, FREE_SPACE_KEPT_BYTES_DEFAULT};

/// An address to listen on, and the address to advertise to its clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where to listen. A name is resolved at the start, and all of its addresses are bound. Port 0 selects a free port.
    pub address: HostPort,
    /// The address to advertise to clients of this listener. `None` for the address that each has connected to, which is right unless addresses
    /// are translated on the way.
    pub advertised: Option<HostPort>,
}

impl From<HostPort> for Listener {
    fn from(address: HostPort) -> Self {
        Self { address, advertised: None }
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        HostPort::from(address).into()
    }
}

/// Partitions of the topic that keeps groups, unless something else is configured.
pub const GROUPS_PARTITIONS_DEFAULT: u32 = 16;

/// The configuration of a broker. [`Default`] is that of `highwater start` without arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerConfig {
    /// The data directory. It is created if it does not exist.
    pub data_dir: PathBuf,
    /// Listeners for native clients.
    pub listen: Vec<Listener>,
    /// Listeners for Kafka clients; may be empty.
    pub kafka_listen: Vec<Listener>,
    /// Listeners for the other nodes of the cluster; none: this broker exchanges nothing with other nodes.
    pub peer_listen: Vec<Listener>,
    /// The nodes that found a cluster together, the same list on all of them; for a node that joins later, any members. None: this node founds a cluster
    /// by itself. A node that is a member already does not ask them.
    pub seeds: Vec<HostPort>,
    /// The number of this node in its cluster; none: the one that it has, or is given when it joins.
    pub node_id: Option<NodeId>,
    /// Whether unknown topics are created when Kafka clients request their metadata.
    pub auto_create_topics: bool,
    /// Number of partitions of topics that are created without one.
    pub default_partitions: u32,
    /// How long an empty group of the classic protocol waits for more members before its first generation.
    pub group_initial_rebalance_delay: Duration,
    /// Heartbeat interval for members of the consumer protocol, including native clients.
    pub group_heartbeat_interval: Duration,
    /// Time after which the partitions of a silent member of the consumer protocol are assigned to others.
    pub group_session_timeout: Duration,
    /// How long committed offsets are kept after their group has become empty. Offsets of named consumers are kept until they are deleted.
    pub offsets_retention: Duration,
    /// How often partitions are looked at for records to delete or to compact.
    pub cleanup_interval: Duration,
    /// Partitions of the topic that keeps groups and offsets, `__consumer_offsets`. It is created when a client first asks for a group, and its
    /// number of partitions never changes.
    pub groups_partitions: u32,
    /// The rack that this node is in. Replicas of a partition are on nodes in different racks, as far as there are enough.
    pub rack: Option<String>,
    /// Number of cores to use; `None` for all that the process may use.
    pub cores: Option<u16>,
    /// Memory for caches and buffers of all cores; `None` for a quarter of what the process may use, at least 256 MiB and at most 8 GiB.
    pub memory_bytes: Option<u64>,
    /// Maximum size of a record batch, whatever a topic's `max.message.bytes`: from 1 MiB to
    /// [`BATCH_BYTES_MAX`](highwater_protocol::limits::BATCH_BYTES_MAX).
    pub batch_bytes_max: usize,
    /// Bytes of free space that is kept for new records. What is free beyond it for some time is returned to the file system.
    pub free_space_kept_bytes: u64,
    /// The host of the shards.
    pub host: HostKind,
    /// How writes are made durable.
    pub durable: DurableChoice,
    /// The records of a partition go into the journal if a commit round has at most this many bytes of them, and otherwise directly to their
    /// extent; none: a limit that suits the disk, if that is measured, or else 64 KiB.
    pub journal_tail_bytes_max: Option<u64>,
    /// Allow addresses that are reachable from other machines, although connections are neither encrypted nor authenticated.
    pub insecure: bool,
    /// Stop gracefully on SIGTERM, SIGINT and SIGHUP. A program that embeds a broker may want to handle these itself.
    pub stop_on_signals: bool,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("highwater-data"),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, NATIVE_PORT_DEFAULT)).into()],
            kafka_listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, KAFKA_PORT_DEFAULT)).into()],
            peer_listen: Vec::new(),
            seeds: Vec::new(),
            node_id: None,
            auto_create_topics: true,
            default_partitions: 1,
            group_initial_rebalance_delay: Duration::from_secs(3),
            group_heartbeat_interval: Duration::from_secs(5),
            group_session_timeout: Duration::from_secs(45),
            offsets_retention: Duration::from_hours(7 * 24),
            cleanup_interval: CLEANUP_INTERVAL_DEFAULT,
            groups_partitions: GROUPS_PARTITIONS_DEFAULT,
            rack: None,
            cores: None,
            memory_bytes: None,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            free_space_kept_bytes: FREE_SPACE_KEPT_BYTES_DEFAULT,
            host: HostKind::Glommio,
            durable: DurableChoice::Measure,
            journal_tail_bytes_max: None,
            insecure: false,
            stop_on_signals: true,
        }
    }
}

/// How writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DurableChoice {
    /// The faster one on this disk, by a short measurement at the start.
    Measure,
    /// Each write is durable by itself (RWF_DSYNC).
    Dsync,
    /// Plain writes, then one sync per commit round.
    SyncPerRound,
}
