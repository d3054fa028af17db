//! What a broker is told when it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use highwater_protocol::address::{KAFKA_PORT_DEFAULT, NATIVE_PORT_DEFAULT};
use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;
pub use highwater_runtime::HostKind;

use crate::broker::address::HostPort;

/// An address to listen on, and what its clients are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where to listen. A name is resolved at start, and all of its addresses are listened on. Port 0 takes a free one.
    pub address: HostPort,
    /// What clients that come in here are told to connect to. None: the address that each has connected to, which is right unless something
    /// on the way translates addresses.
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

/// How a broker is to run. [`Default`] is what `highwater start` does without arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerConfig {
    /// Where the data rests. Created if it is not there.
    pub data_dir: PathBuf,
    /// Where native clients connect.
    pub listen: Vec<Listener>,
    /// Where Kafka clients connect. Empty: nowhere.
    pub kafka_listen: Vec<Listener>,
    /// Kafka clients that ask for a topic that does not exist get it created.
    pub auto_create_topics: bool,
    /// Partitions of topics that are created without saying how many.
    pub default_partitions: u32,
    /// How long an empty group of the classic protocol waits for more members before its first generation.
    pub group_initial_rebalance_delay: Duration,
    /// How often members of groups with the consumer protocol, which native clients speak too, send heartbeats.
    pub group_heartbeat_interval: Duration,
    /// How long nothing may be heard from such a member before its partitions go to others.
    pub group_session_timeout: Duration,
    /// How long committed offsets are kept that no member of their group needs. Those of named consumers stay until they are deleted.
    pub offsets_retention: Duration,
    /// How many cores to use; none: all that the process may use.
    pub cores: Option<u16>,
    /// Memory for caches and buffers of all cores; none: a quarter of what this process may use, at least 256 MiB and at most 8 GiB.
    pub memory_bytes: Option<u64>,
    /// Bytes of the largest record batch, whatever a topic's `max.message.bytes`: from 1 MiB to
    /// [`BATCH_BYTES_MAX`](highwater_protocol::limits::BATCH_BYTES_MAX).
    pub batch_bytes_max: usize,
    /// What hosts the shards.
    pub host: HostKind,
    /// How writes are made durable.
    pub durable: DurableChoice,
    /// Listen on addresses that other machines can reach although connections are neither encrypted nor authenticated.
    pub insecure: bool,
    /// Stop cleanly on SIGTERM, SIGINT and SIGHUP. A program that embeds a broker may want to handle these itself.
    pub stop_on_signals: bool,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("highwater-data"),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, NATIVE_PORT_DEFAULT)).into()],
            kafka_listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, KAFKA_PORT_DEFAULT)).into()],
            auto_create_topics: true,
            default_partitions: 1,
            group_initial_rebalance_delay: Duration::from_secs(3),
            group_heartbeat_interval: Duration::from_secs(5),
            group_session_timeout: Duration::from_secs(45),
            offsets_retention: Duration::from_hours(7 * 24),
            cores: None,
            memory_bytes: None,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            host: HostKind::Glommio,
            durable: DurableChoice::Measure,
            insecure: false,
            stop_on_signals: true,
        }
    }
}

/// How writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DurableChoice {
    /// Whatever a short measurement at start finds faster on this disk.
    Measure,
    /// Every write by itself (RWF_DSYNC).
    Dsync,
    /// Writes first, then one sync for the round.
    SyncPerRound,
}
