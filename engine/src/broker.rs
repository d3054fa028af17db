//! A broker in this process: start, stop, and what went wrong.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use highwater_protocol::ids::{ClusterId, NodeId};

use crate::config::BrokerConfig;

/// A running broker.
///
/// Dropping it stops it the way [`shutdown`](Self::shutdown) and [`wait`](Self::wait) do.
#[derive(Debug)]
pub struct Broker {
    ready: ReadyInfo,
}

/// What there is to tell once clients can connect.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReadyInfo {
    /// Addresses of the native listener, with the ports they got.
    pub native: Vec<SocketAddr>,
    /// What clients are told to connect to.
    pub advertised: String,
    /// Where the data rests.
    pub data_dir: PathBuf,
    /// Cores in use.
    pub cores: u16,
    /// How writes are made durable on this disk, for people.
    pub durability: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// This broker's number in it.
    pub node: NodeId,
    /// Topics and partitions found.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// What recovery has to say that a person should read: damage, partitions out of service, files moved to quarantine.
    pub warnings: Vec<String>,
    /// From the call of [`Broker::start`] to ready.
    pub took: Duration,
}

/// Why a broker did not start. Each says what, which and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Something in the configuration cannot be.
    #[error("{0}")]
    Config(String),
    /// Another broker runs on the data directory.
    #[error("{0}")]
    Locked(String),
    /// The data directory belongs to another cluster, or a newer version wrote it, or it is damaged beyond what can be repaired.
    #[error("{0}")]
    Storage(String),
    /// The disk reported an error.
    #[error("{0}")]
    Disk(String),
    /// An address cannot be listened on.
    #[error("{0}")]
    Listen(String),
    /// The kernel or a limit of the process does not allow what a broker needs.
    #[error("{0}")]
    Environment(String),
}

impl StartError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Locked(_) => 73,
            Self::Storage(_) => 75,
            Self::Disk(_) => 74,
            Self::Listen(_) | Self::Environment(_) => 1,
        }
    }
}

impl Broker {
    /// Starts a broker; returns when clients can connect.
    pub fn start(config: BrokerConfig) -> Result<Self, StartError> {
        let BrokerConfig { data_dir, .. } = config;
        Err(StartError::Environment(format!(
            "cannot serve {} yet: the shards of this build are not connected",
            data_dir.display()
        )))
    }

    /// The first address of the native listener.
    pub fn native_addr(&self) -> SocketAddr {
        self.ready.native[0]
    }

    /// What there is to tell once clients can connect.
    pub fn ready(&self) -> &ReadyInfo {
        &self.ready
    }

    /// Asks it to stop: finish what is in flight, make everything durable, end. Returns at once.
    pub fn shutdown(&self) {}

    /// Waits until it has ended. Gives the exit code for the process.
    pub fn wait(self) -> u8 {
        0
    }
}
