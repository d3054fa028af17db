//! The setup of a shard, and why it cannot start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::{Disk, ListenerId};
use highwater_storage::state_log::{FILE_BYTES_DEFAULT, Owner, Recovered, StateLog, StateLogError};
use highwater_storage::{DurableForm, OpenError as StoreError};

use crate::address::{HostPort, Resolve};
use crate::coord::groups::{GroupConfig, GroupsError};
use crate::counters::ShardCounters;
use crate::data_dir::Identity;
use crate::limits::ShardLimits;
use crate::meta::controller::ReadyReport;
use crate::meta::{Node, RecoverError};
use crate::partition::{OpenStoresError, StoresSetup};
pub use crate::peers::PeerNode;

/// Called on shard 0 when every shard is ready.
pub type OnReady = Box<dyn Fn(ReadyReport) + Send + Sync>;

/// The setup that all shards of a broker share.
pub struct ShardSetup {
    /// The data directory, already opened.
    pub data_dir: PathBuf,
    /// The identity of the node that owns the data.
    pub identity: Identity,
    /// This node, as it registers itself in the cluster.
    pub registration: Node,
    /// The number of shards.
    pub shards: u16,
    /// The number of stores, at least as many as shards.
    pub stores: u16,
    /// Limits.
    pub limits: ShardLimits,
    /// How writes become durable.
    pub durable_form: DurableForm,
    /// The counters of each shard.
    pub counters: Box<[ShardCounters]>,
    /// The advertised address of each listener; `None` for the address that a client connected to.
    pub advertised: Vec<Option<HostPort>>,
    /// Settings for Kafka clients.
    pub kafka: KafkaSetup,
    /// The other nodes; `None`: this broker neither listens for any nor connects to any.
    pub peers: Option<PeerSetup>,
    /// Resolves the addresses of other nodes.
    pub names: Arc<dyn Resolve>,
    /// Settings of the group coordinator.
    pub groups: GroupConfig,
    /// Partitions of the topic that keeps groups, when it is created.
    pub groups_partitions: u32,
    /// Called when the broker is ready.
    pub on_ready: OnReady,
}

/// Settings for other nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSetup {
    /// The first of the listeners for other nodes; all after it are too.
    pub first_listener: u16,
    /// The nodes that are known at the start.
    pub nodes: Vec<PeerNode>,
}

/// Settings for Kafka clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaSetup {
    /// The first of the Kafka listeners; all after it are Kafka's too.
    pub first_listener: u16,
    /// The addresses of the Kafka listeners.
    pub listeners: Vec<SocketAddr>,
    /// Whether to create topics that clients name in Metadata requests.
    pub auto_create_topics: bool,
    /// Number of partitions of a topic if the request has none.
    pub default_partitions: u32,
}

impl Default for KafkaSetup {
    /// No Kafka listener.
    fn default() -> Self {
        Self {
            first_listener: u16::MAX,
            listeners: Vec::new(),
            auto_create_topics: true,
            default_partitions: 1,
        }
    }
}

impl fmt::Debug for ShardSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardSetup").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Why a shard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A state log cannot be opened.
    #[error(transparent)]
    StateLog(#[from] StateLogError),
    /// The metadata log is inconsistent.
    #[error(transparent)]
    Metadata(#[from] RecoverError),
    /// The log of groups and offsets is inconsistent.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// The directory is incomplete.
    #[error("{0}")]
    Incomplete(String),
    /// The configuration is invalid.
    #[error("{0}")]
    Config(String),
}

/// Returns the error for a lost state log, with what to do about it.
pub(crate) fn lost_log(name: &str, error: StateLogError) -> OpenError {
    let way_back = match &error {
        StateLogError::Older { .. } => format!("or remove {name}.mark to continue with these files"),
        StateLogError::Damaged { .. } => {
            format!("or create an empty file {name}.forget beside them to continue without them")
        }
        _ => return OpenError::StateLog(error),
    };
    OpenError::Incomplete(format!("{error}; restore them from a backup of the data directory, {way_back}"))
}

impl From<OpenStoresError> for OpenError {
    fn from(error: OpenStoresError) -> Self {
        match error {
            OpenStoresError::Store(error) => Self::Store(error),
            OpenStoresError::TooMany => Self::Config(error.to_string()),
        }
    }
}

impl ShardSetup {
    /// Returns the identity of this node's replicas.
    pub(crate) fn replica(&self) -> ReplicaId {
        ReplicaId { node: self.identity.node, incarnation: self.identity.incarnation }
    }

    /// Returns whether connections to a listener are those of other nodes.
    pub(crate) fn is_for_peers(&self, listener: ListenerId) -> bool {
        self.peers.as_ref().is_some_and(|peers| listener.0 >= peers.first_listener)
    }

    /// Returns what the shards need to open their stores.
    pub(crate) fn of_stores(&self) -> StoresSetup<'_> {
        StoresSetup {
            data_dir: &self.data_dir,
            cluster: self.identity.cluster,
            me: self.replica(),
            stores: self.stores,
            shards: self.shards,
            limits: self.limits.store,
            durable_form: self.durable_form,
        }
    }

    /// Opens a state log of the data directory; damage that was healed goes to `warnings`.
    pub(crate) fn open_log(
        &self,
        disk: &mut dyn Disk,
        name: &str,
        purpose: [u8; 4],
        token_space: u8,
        warnings: &mut Vec<String>,
    ) -> Result<(StateLog, Recovered), OpenError> {
        let owner = Owner { purpose, cluster: self.identity.cluster, number: 0 };
        let stem = self.data_dir.join(name);
        let (log, recovered) = StateLog::open_sized(
            disk,
            &stem,
            owner,
            token_space,
            self.limits.state_log_bytes.min(FILE_BYTES_DEFAULT),
        )
        .map_err(|e| lost_log(name, e))?;
        for note in &recovered.notes {
            tracing::info!("{note}");
        }
        warnings.extend(recovered.damage.iter().cloned());
        Ok((log, recovered))
    }
}
