//! What a shard is started with, and why it may not start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use highwater_runtime::plane::Disk;
use highwater_storage::state_log::{FILE_BYTES_DEFAULT, Owner, Recovered, StateLog, StateLogError};
use highwater_storage::{DurableForm, OpenError as StoreError};

use crate::broker::HostPort;
use crate::broker::data_dir::Identity;
use crate::coord::groups::{GroupConfig, GroupsError};
use crate::counters::ShardCounters;
use crate::limits::ShardLimits;
use crate::meta::RecoverError;
use crate::meta::controller::ReadyReport;

/// Called on shard 0 when every shard serves.
pub type OnReady = Box<dyn Fn(ReadyReport) + Send + Sync>;

/// What all shards of a broker are started with.
pub struct ShardSetup {
    /// The data directory, already opened.
    pub data_dir: PathBuf,
    /// Whose data it is.
    pub identity: Identity,
    /// Shards of this broker.
    pub shards: u16,
    /// Stores of this broker, at least as many as shards.
    pub stores: u16,
    /// Sizes.
    pub limits: ShardLimits,
    /// How writes become durable.
    pub durable_form: DurableForm,
    /// What each shard has done.
    pub counters: Box<[ShardCounters]>,
    /// What clients of each listener are told to connect to; none: the address that they have connected to.
    pub advertised: Vec<Option<HostPort>>,
    /// What Kafka clients get.
    pub kafka: KafkaSetup,
    /// How groups are coordinated.
    pub groups: GroupConfig,
    /// Who wants to know that the broker is ready.
    pub on_ready: OnReady,
}

/// What Kafka clients get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaSetup {
    /// The first of the Kafka listeners; all behind it are Kafka's too.
    pub first_listener: u16,
    /// The addresses of the Kafka listeners.
    pub listeners: Vec<SocketAddr>,
    /// Create topics that clients ask for.
    pub auto_create_topics: bool,
    /// Partitions of a topic unless its creator says how many.
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
    /// The metadata is not what it should be.
    #[error(transparent)]
    Metadata(#[from] RecoverError),
    /// The groups and their offsets are not what they should be.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// The directory is not complete.
    #[error("{0}")]
    Incomplete(String),
    /// The broker cannot be run like this.
    #[error("{0}")]
    Config(String),
}

/// What to do about a state log that was lost.
fn lost(name: &str, error: StateLogError) -> OpenError {
    let way_back = match &error {
        StateLogError::Older { .. } => format!("or remove {name}.mark to go on with these"),
        StateLogError::Damaged { .. } => {
            format!("or make an empty file {name}.forget beside them to go on without")
        }
        _ => return OpenError::StateLog(error),
    };
    OpenError::Incomplete(format!("{error}; restore them from a backup of the data directory, {way_back}"))
}

impl ShardSetup {
    /// Opens a state log of the data directory; damage that was healed goes to `warnings`.
    pub(super) fn open_log(
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
        .map_err(|e| lost(name, e))?;
        for note in &recovered.notes {
            tracing::info!("{note}");
        }
        warnings.extend(recovered.damage.iter().cloned());
        Ok((log, recovered))
    }
}
