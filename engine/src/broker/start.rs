//! Starts and stops a broker in this process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_protocol::limits::PARTITIONS_PER_TOPIC_MAX;
use highwater_replication::join::DiskId;
use highwater_runtime::fs::is_out_of_space;
use highwater_runtime::{
    Cpu, OsFs, Runtime, RuntimeConfig, ShutdownHandle, StartError as RuntimeError, available_cpus, measure,
    preflight,
};
use highwater_storage::state_log::StateLogError;
use highwater_storage::{DurableForm, OpenError as StoreError};

use crate::address::{IpAddresses, Resolve};
use crate::broker::config::{BrokerConfig, DurableChoice};
use crate::broker::listeners::{Bound, Listeners};
use crate::broker::membership::{Member, Start, random_id};
use crate::broker::names::Names;
use crate::broker::registration::registration;
use crate::broker::signals::{SignalThread, Stopper, handle_signals};
use crate::broker::{lock, memory, peer_address};
use crate::coord::groups::GroupConfig;
use crate::counters::ShardCounters;
use crate::data_dir::{self, DataDir, IDENTITY, Identity};
use crate::limits::{
    JOURNAL_TAIL_BYTES_LIMIT, ShardLimits, idle_buffer_bytes, journal_tail_bytes_max, members_bytes_max,
    offsets_bytes_max,
};
use crate::meta::Node;
use crate::meta::controller::ReadyReport;
use crate::peers::PeerNode;
use crate::setup::{KafkaSetup, OpenError, PeerSetup, ShardSetup};
use crate::shard::Shard;
use crate::start_error::{EXIT_INTERNAL, StartError};

/// A running broker.
///
/// Dropping it stops it like [`shutdown`](Self::shutdown) and [`wait`](Self::wait).
pub struct Broker {
    ready: ReadyInfo,
    runtime: Option<Runtime>,
    shutdown: ShutdownHandle,
    signals: Option<SignalThread>,
    /// Locked until the last file of the data directory is closed.
    lock: Option<Arc<File>>,
}

/// Information about a broker that is ready for clients.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReadyInfo {
    /// Addresses of the native listener, with their actual ports.
    pub native: Vec<SocketAddr>,
    /// Addresses of the Kafka listener, with their actual ports.
    pub kafka: Vec<SocketAddr>,
    /// Addresses of the listener for other nodes, with their actual ports.
    pub peers: Vec<SocketAddr>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Cores in use.
    pub cores: u16,
    /// Memory for requests and cache, of all cores together.
    pub memory_bytes: u64,
    /// How writes are made durable on this disk, for the user; `none` with the reason if they are not.
    pub durability: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node in the cluster.
    pub node: NodeId,
    /// Number of topics.
    pub topics: usize,
    /// Number of partitions of all topics.
    pub partitions: usize,
    /// Warnings for the operator: damage, partitions out of service, files moved to quarantine.
    pub warnings: Vec<String>,
    /// Time from the call of [`Broker::start`] until it was ready.
    pub took: Duration,
}

impl Broker {
    /// Starts a broker. Returns when clients can connect. A node with seeds waits until it is a member of their cluster.
    #[expect(clippy::needless_pass_by_value, reason = "a configuration is given away, as to any builder")]
    pub fn start(config: BrokerConfig) -> Result<Self, StartError> {
        let began = std::time::Instant::now();
        let listeners = Listeners::check(&config)?;
        peer_address::check(&config)?;
        let cpus = choose_cpus(config.cores)?;
        let shards = cpus.len() as u16;
        // Before anything is written or measured: its errors are clearer than later failures.
        preflight(config.host, cpus.len()).map_err(explain)?;
        check_journal_tail(&config)?;
        let memory_bytes = memory::choose(config.memory_bytes, shards, config.batch_bytes_max)?.bytes;
        let Process { lock, stopper, signals, names, bound, registration, nodes, data } =
            Process::prepare(&config, listeners, cpus[0], shards)?;
        let sockets = bound.listen()?;
        let Bound { advertised, native, kafka, peers, .. } = bound;
        let kafka_setup = kafka_setup(&config, native.len(), &kafka)?;
        let WriteChoice { form: durable_form, journal_tail_bytes_max } = choose_writes(&config)?;
        let stores = data.stores.max(shards);
        let mut limits = shard_limits(&config, memory_bytes, shards, stores);
        limits.store.journal_tail_bytes_max = journal_tail_bytes_max;
        let (ready_sender, ready) = mpsc::sync_channel(1);
        let setup = Arc::new(ShardSetup {
            data_dir: config.data_dir.clone(),
            identity: data.identity,
            registration,
            shards,
            stores,
            limits,
            durable_form,
            counters: ShardCounters::of_shards(shards),
            advertised,
            kafka: kafka_setup,
            peers: (!peers.is_empty())
                .then(|| PeerSetup { first_listener: (native.len() + kafka.len()) as u16, nodes }),
            names,
            groups: group_config(&config, memory_bytes),
            groups_partitions: config.groups_partitions,
            on_ready: Box::new(move |report| {
                // The receiver is dropped only if the start has failed.
                let _ = ready_sender.try_send(report);
            }),
        });
        let runtime_config = RuntimeConfig {
            host: config.host,
            listeners: sockets,
            held: Some(Arc::clone(&lock)),
            idle_buffer_bytes: Some(idle_buffer_bytes(memory_bytes, shards)),
            ..RuntimeConfig::new(cpus)
        };
        let runtime = highwater_runtime::start(runtime_config, move |_, plane| {
            Shard::open(plane, &setup).map_err(Into::into)
        })
        .map_err(explain)?;
        let shutdown = runtime.shutdown_handle();
        stopper.set(shutdown.clone());
        let described = describe(&config, &data, native, shards, durable_form)?;
        let mut broker = Self {
            ready: ReadyInfo { kafka, peers, memory_bytes, ..described },
            runtime: Some(runtime),
            shutdown,
            signals,
            lock: Some(lock),
        };
        if config.stop_on_signals && broker.signals.is_none() {
            broker.signals = Some(handle_signals(stopper.clone())?);
        }
        let ended = || StartError::Internal("the shards exited before they were ready; see the log".into());
        let report =
            ready.recv().map_err(|_| if stopper.is_stopping() { StartError::Stopped } else { ended() })?;
        if let Err(e) = data_dir::note_complete(&mut OsFs::new(), &data, stores) {
            // The disk is probably full. The next start tries again.
            tracing::warn!("cannot update {}: {e}", data.path.join(IDENTITY).display());
        }
        broker.ready.take_report(report);
        broker.ready.took = began.elapsed();
        Ok(broker)
    }

    /// Returns the first address of the native listener.
    pub fn native_addr(&self) -> SocketAddr {
        self.ready.native[0]
    }

    /// Returns the first address of the Kafka listener, if there is one.
    pub fn kafka_addr(&self) -> Option<SocketAddr> {
        self.ready.kafka.first().copied()
    }

    /// Returns information about the running broker.
    pub fn ready(&self) -> &ReadyInfo {
        &self.ready
    }

    /// Starts a graceful shutdown: requests in flight are finished and everything is made durable. Returns at once.
    pub fn shutdown(&self) {
        self.shutdown.shutdown();
    }

    /// Waits until the broker has stopped. Returns the exit code for the process.
    pub fn wait(mut self) -> u8 {
        self.join()
    }

    fn join(&mut self) -> u8 {
        let Some(runtime) = self.runtime.take() else { return 0 };
        let code = match runtime.wait() {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!("{error}");
                EXIT_INTERNAL
            }
        };
        self.signals = None;
        self.lock = None;
        code
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shutdown();
        self.join();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("ready", &self.ready).finish_non_exhaustive()
    }
}

/// A process that knows which node it is.
struct Process {
    lock: Arc<File>,
    stopper: Stopper,
    /// If it has waited for other nodes.
    signals: Option<SignalThread>,
    names: Arc<dyn Resolve>,
    bound: Bound,
    registration: Node,
    /// Members of the cluster, if the metadata of this node does not have them yet.
    nodes: Vec<PeerNode>,
    data: DataDir,
}

impl Process {
    /// Takes what belongs to the node, and waits until it is a member of a cluster.
    fn prepare(
        config: &BrokerConfig,
        listeners: Listeners<'_>,
        cpu: Cpu,
        shards: u16,
    ) -> Result<Self, StartError> {
        let lock = Arc::new(lock::take(&config.data_dir)?);
        let stopper = Stopper::default();
        let waits = config.stop_on_signals && !config.seeds.is_empty();
        let signals = if waits { Some(handle_signals(stopper.clone())?) } else { None };
        let bound = listeners.bind()?;
        let is_alone = bound.peers.is_empty();
        let names: Arc<dyn Resolve> = if is_alone { Arc::new(IpAddresses) } else { Arc::new(start_names()?) };
        let registration = registration(config, &bound, shards)?;
        let Member { identity, nodes } = if is_alone {
            Member { identity: only_node(config), nodes: Vec::new() }
        } else {
            let (node, names) = (&registration, Arc::clone(&names));
            let (bound, stopper, lock) = (&bound, &stopper, &lock);
            Start { config, bound, node, names, stopper, lock, cpu }.member()?
        };
        let data = data_dir::open(&mut OsFs::new(), &config.data_dir, identity)?;
        check_node_id(config, data.identity)?;
        let Identity { node: id, incarnation, disk, .. } = data.identity;
        let registration = Node { id, incarnation, disk, ..registration };
        Ok(Self { lock, stopper, signals, names, bound, registration, nodes, data })
    }
}

impl ReadyInfo {
    fn take_report(&mut self, report: ReadyReport) {
        self.topics = report.topics;
        self.partitions = report.partitions;
        self.warnings.extend(report.warnings);
    }
}

fn describe(
    config: &BrokerConfig,
    data: &DataDir,
    native: Vec<SocketAddr>,
    cores: u16,
    form: DurableForm,
) -> Result<ReadyInfo, StartError> {
    let mut warnings = data.warnings.clone();
    let volatile = measure::volatile_file_system(&config.data_dir)
        .map_err(|e| data_dir::failed("cannot examine the data directory", &config.data_dir, &e))?;
    if let Some(name) = volatile {
        warnings.push(format!(
            "the data directory {} is on {name}, held in memory: acknowledged records are lost when the machine stops",
            config.data_dir.display()
        ));
    }
    Ok(ReadyInfo {
        native,
        kafka: Vec::new(),
        peers: Vec::new(),
        data_dir: config.data_dir.clone(),
        cores,
        memory_bytes: 0,
        durability: match (volatile, form) {
            (Some(name), _) => format!("none ({name})"),
            (None, DurableForm::Dsync) => "dsync".into(),
            (None, DurableForm::SyncPerRound) => "sync-per-round".into(),
        },
        cluster: data.identity.cluster,
        node: data.identity.node,
        topics: 0,
        partitions: 0,
        warnings,
        took: Duration::ZERO,
    })
}

/// Returns the identity of the only node of a new cluster.
fn only_node(config: &BrokerConfig) -> Identity {
    let node = config.node_id.unwrap_or(NodeId(0));
    Identity::founder(ClusterId(random_id()), node, DiskId(random_id()))
}

/// Rejects a node id that is not the one of the data directory.
fn check_node_id(config: &BrokerConfig, identity: Identity) -> Result<(), StartError> {
    match config.node_id {
        Some(wanted) if wanted != identity.node => Err(StartError::Config(format!(
            "{} belongs to node {}, not to node {wanted}; start it without --node-id, or choose another --data-dir",
            config.data_dir.display(),
            identity.node
        ))),
        _ => Ok(()),
    }
}

fn start_names() -> Result<Names, StartError> {
    Names::new().map_err(|e| StartError::Environment(format!("cannot start a thread: {e}")))
}

fn shard_limits(config: &BrokerConfig, memory_bytes: u64, shards: u16, stores: u16) -> ShardLimits {
    let stores_per_shard = usize::from(stores).div_ceil(usize::from(shards));
    let limits = ShardLimits::production(memory_bytes, shards, stores_per_shard, config.batch_bytes_max);
    ShardLimits {
        cleanup_interval: config.cleanup_interval,
        ..limits.with_free_space(config.free_space_kept_bytes, stores)
    }
}

/// Returns the settings of the group coordinator.
fn group_config(config: &BrokerConfig, memory_bytes: u64) -> GroupConfig {
    GroupConfig {
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay.as_millis() as u64,
        consumer_heartbeat_interval_ms: i32::try_from(config.group_heartbeat_interval.as_millis())
            .unwrap_or(i32::MAX),
        consumer_session_timeout_ms: config.group_session_timeout.as_millis() as u64,
        offsets_retention_ms: config.offsets_retention.as_millis() as i64,
        offsets_bytes_max: offsets_bytes_max(memory_bytes),
        members_bytes_max: members_bytes_max(memory_bytes),
        ..GroupConfig::default()
    }
}

/// Returns the settings for Kafka clients.
fn kafka_setup(config: &BrokerConfig, native: usize, kafka: &[SocketAddr]) -> Result<KafkaSetup, StartError> {
    if config.default_partitions == 0 || config.default_partitions > PARTITIONS_PER_TOPIC_MAX {
        return Err(StartError::Config(format!(
            "invalid default number of partitions {}: the range is 1 to {PARTITIONS_PER_TOPIC_MAX}",
            config.default_partitions
        )));
    }
    if config.groups_partitions == 0 || config.groups_partitions > PARTITIONS_PER_TOPIC_MAX {
        return Err(StartError::Config(format!(
            "the topic that keeps groups cannot have {} partitions; 1 to {PARTITIONS_PER_TOPIC_MAX} are possible",
            config.groups_partitions
        )));
    }
    Ok(KafkaSetup {
        first_listener: native as u16,
        listeners: kafka.to_vec(),
        auto_create_topics: config.auto_create_topics,
        default_partitions: config.default_partitions,
    })
}

fn choose_cpus(cores: Option<u16>) -> Result<Vec<Cpu>, StartError> {
    let available = available_cpus().map_err(|e| {
        StartError::Environment(format!("cannot determine which CPUs this process may use: {e}"))
    })?;
    let count = cores.map_or(available.len(), usize::from);
    if count == 0 || count > available.len() {
        return Err(StartError::Config(format!(
            "cannot run on {count} cores: this process may use {}",
            available.len()
        )));
    }
    Ok(available[..count].to_vec())
}

fn check_journal_tail(config: &BrokerConfig) -> Result<(), StartError> {
    if let Some(bytes) = config.journal_tail_bytes_max.filter(|bytes| *bytes > JOURNAL_TAIL_BYTES_LIMIT) {
        return Err(StartError::Config(format!(
            "journal-tail-bytes-max of {bytes} bytes is not possible: it may be 0 to {} MiB",
            JOURNAL_TAIL_BYTES_LIMIT >> 20
        )));
    }
    Ok(())
}

/// How a store writes on this disk.
struct WriteChoice {
    form: DurableForm,
    journal_tail_bytes_max: u64,
}

fn choose_writes(config: &BrokerConfig) -> Result<WriteChoice, StartError> {
    let measured = match config.durable {
        DurableChoice::Measure => measure_disk(&config.data_dir)?,
        DurableChoice::Dsync | DurableChoice::SyncPerRound => None,
    };
    let form = match (config.durable, measured.map(|measured| measured.faster)) {
        (DurableChoice::SyncPerRound, _) | (_, Some(measure::DurableWrites::SyncPerRound)) => {
            DurableForm::SyncPerRound
        }
        (DurableChoice::Dsync | DurableChoice::Measure, _) => DurableForm::Dsync,
    };
    let break_even = measured.and_then(|measured| measured.break_even_bytes());
    let journal_tail_bytes_max =
        config.journal_tail_bytes_max.unwrap_or_else(|| journal_tail_bytes_max(break_even));
    tracing::info!(?measured, ?form, journal_tail_bytes_max, "durable writes");
    Ok(WriteChoice { form, journal_tail_bytes_max })
}

/// Measures the disk, unless it is full.
fn measure_disk(data_dir: &Path) -> Result<Option<measure::DurabilityMeasurement>, StartError> {
    match measure::durable_writes(data_dir) {
        Ok(measured) => Ok(Some(measured)),
        Err(e) if is_out_of_space(&e) => {
            tracing::warn!(
                "{}: the disk is full, so the speed of durable writes cannot be measured",
                data_dir.display()
            );
            Ok(None)
        }
        Err(e) => Err(data_dir::failed("cannot write directly and durably to", data_dir, &e)),
    }
}

/// Maps an error of the runtime or of a shard to the reason why the broker does not start.
pub(super) fn explain(error: RuntimeError) -> StartError {
    match error {
        RuntimeError::Config(text) => StartError::Config(text),
        RuntimeError::Machine(text) => StartError::Environment(text),
        RuntimeError::Os { .. } => StartError::Environment(error.to_string()),
        RuntimeError::App { source, .. } => match source.downcast::<OpenError>() {
            Ok(error) => {
                let text = error.to_string();
                match *error {
                    OpenError::Store(StoreError::Io { source, .. })
                    | OpenError::StateLog(StateLogError::Io { error: source, .. }) => {
                        if data_dir::is_forbidden(&source) {
                            StartError::Permission(text)
                        } else {
                            StartError::Disk(text)
                        }
                    }
                    OpenError::Config(_) => StartError::Config(text),
                    _ => StartError::Storage(text),
                }
            }
            Err(other) => StartError::Internal(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_cores_are_used_than_the_machine_has() {
        assert_eq!(choose_cpus(Some(1)).expect("one").len(), 1);
        assert!(choose_cpus(Some(0)).is_err());
        assert!(choose_cpus(Some(u16::MAX)).is_err());
        assert!(!choose_cpus(None).expect("all").is_empty());
    }
}
