//! A client's state of its cluster, and its connections: one per (node, shard), established on first use and again
//! after a loss.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use highwater_protocol::ids::{ClusterId, NodeId, ShardId};
use highwater_protocol::native::{HelloReply, NodeInfo, TopicInfo};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::Instrument;

use super::conn::Conn;
use super::conn_slot::{Attempts, ConnSlot, is_connectable};
use super::connect::{Handshake, HelloParams, connect_first};
use super::driver::{Driver, Timeouts};
use crate::config::Config;
use crate::core::backoff::Backoff;
use crate::error::{ConnectError, ConnectErrorKind, WriteOutcome};
use crate::events::{Event, EventHub};
use crate::lock::lock;
use crate::metrics::Metrics;

/// A connection that ends sooner does not count as a success, so that the client backs off from a broker that accepts
/// and closes connections.
const HEALTHY_LIFE: Duration = Duration::from_secs(1);

const CLIENT_CLOSED: &str = "the client was closed";

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) events: EventHub,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) runtime: Handle,
    known: Mutex<ClusterState>,
    slots: Mutex<AHashMap<(NodeId, ShardId), Arc<ConnSlot>>>,
    /// Backoff for connecting to any broker, when none is connected.
    any: ConnSlot,
    /// Serialises metadata refreshes; those that waited for one use its result.
    pub(super) refreshing: tokio::sync::Mutex<()>,
    /// Incremented when a topic changes.
    pub(super) changes: watch::Sender<u64>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) cluster: Option<ClusterId>,
    pub(super) nodes: AHashMap<NodeId, NodeInfo>,
    /// The address at which a node was last reached, as a fallback if it advertises an unreachable one.
    pub(super) reached_at: AHashMap<NodeId, Arc<str>>,
    pub(super) topics: AHashMap<String, (Instant, Arc<TopicInfo>)>,
    pub(super) last_failure: Option<ConnectError>,
    /// The features of the broker that was connected to last.
    features: u64,
}

impl Cluster {
    pub(crate) fn new(config: Config) -> Self {
        let backoff = Backoff::new(config.backoff_min, config.backoff_max);
        Self {
            any: ConnSlot::new(backoff),
            config,
            events: EventHub::default(),
            metrics: Arc::default(),
            runtime: Handle::current(),
            known: Mutex::default(),
            slots: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> Option<ClusterId> {
        self.known().cluster
    }

    /// Returns whether the broker supports this protocol feature.
    pub(crate) fn understands(&self, feature: u64) -> bool {
        self.known().features & feature != 0
    }

    /// Returns a receiver that changes whenever a known topic does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Closes all connections, for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for slot in self.slots().values() {
            if let Some((conn, _)) = slot.conn().as_ref() {
                conn.close(CLIENT_CLOSED);
            }
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Establishes the first connection. Tries every bootstrap address once.
    pub(crate) async fn bootstrap(self: &Arc<Self>) -> Result<(), ConnectError> {
        self.connect_any().await.map(drop)
    }

    // Connections.

    /// Returns a connection to any broker, waiting until there is one.
    pub(super) async fn any(self: &Arc<Self>) -> Result<Arc<Conn>, ConnectError> {
        loop {
            if let Some(conn) = self.live() {
                return Ok(conn);
            }
            let mut attempts = self.any.attempts.lock().await;
            attempts.wait().await;
            if let Some(conn) = self.live() {
                return Ok(conn);
            }
            match self.connect_any().await {
                Ok(conn) => {
                    attempts.succeed();
                    return Ok(conn);
                }
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => self.failed(&mut attempts, &error),
            }
        }
    }

    /// Returns the connection to a shard. Makes one attempt, after the pause that earlier failures require.
    pub(super) async fn connection(
        self: &Arc<Self>,
        node: NodeId,
        shard: ShardId,
    ) -> Result<Arc<Conn>, ConnectError> {
        let slot = self.slot(node, shard);
        if let Some(conn) = slot.live() {
            return Ok(conn);
        }
        let mut attempts = slot.attempts.lock().await;
        if let Some(conn) = slot.live() {
            return Ok(conn);
        }
        let ended = slot.conn().take_if(|(conn, _)| conn.is_closed());
        let short_lived = ended.is_some_and(|(_, since)| since.elapsed() < HEALTHY_LIFE);
        if short_lived {
            attempts.fail();
        }
        attempts.wait().await;
        match self.connect_to(node, shard).await {
            Ok(conn) => {
                if !short_lived {
                    attempts.succeed();
                }
                Ok(conn)
            }
            Err(error) => {
                self.failed(&mut attempts, &error);
                Err(error)
            }
        }
    }

    fn failed(&self, attempts: &mut Attempts, error: &ConnectError) {
        self.metrics.connect_failures.add(1);
        self.known().last_failure = Some(error.clone());
        let retry_in = attempts.fail();
        let failures = attempts.failures();
        self.events.emit(&Event::ConnectFailed { reason: error.to_string(), failures, retry_in });
    }

    async fn connect_to(self: &Arc<Self>, node: NodeId, shard: ShardId) -> Result<Arc<Conn>, ConnectError> {
        let addresses = self.addresses_of(node);
        let check = move |hello: &HelloReply| {
            if (hello.node, hello.shard) == (node, shard) {
                Ok(())
            } else {
                Err(format!(
                    "expected shard {shard} of node {node}, found shard {} of node {}",
                    hello.shard, hello.node
                ))
            }
        };
        self.greet(&addresses, Some(shard), check).await
    }

    async fn connect_any(self: &Arc<Self>) -> Result<Arc<Conn>, ConnectError> {
        let mut addresses: Vec<Arc<str>> = self.config.bootstrap.clone();
        let nodes: Vec<NodeId> = self.known().nodes.keys().copied().collect();
        for address in nodes.into_iter().flat_map(|node| self.addresses_of(node)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        self.greet(&addresses, None, |_| Ok(())).await
    }

    async fn greet(
        self: &Arc<Self>,
        addresses: &[Arc<str>],
        shard: Option<ShardId>,
        check: impl Fn(&HelloReply) -> Result<(), String> + Clone + Send + 'static,
    ) -> Result<Arc<Conn>, ConnectError> {
        if self.is_closed() {
            return Err(ConnectError::new(ConnectErrorKind::Closed, WriteOutcome::NotWritten, CLIENT_CLOSED));
        }
        let hello_params =
            HelloParams { client_name: self.config.name.clone(), shard, cluster: self.known().cluster };
        let greeted = connect_first(addresses, &hello_params, self.config.connect_timeout, check).await?;
        Ok(self.adopt(greeted))
    }

    /// Puts a new connection into its slot and starts its driver. If another attempt has filled the slot in the
    /// meantime, that connection is kept and the new one is closed: otherwise its subscribers would be left on a
    /// connection that is in no slot.
    fn adopt(self: &Arc<Self>, greeted: Handshake<TcpStream>) -> Arc<Conn> {
        let Handshake { stream, rest, hello, address } = greeted;
        let conn = Arc::new(Conn::new(hello.node, hello.shard, address.clone()));
        {
            let mut known = self.known();
            known.cluster = Some(hello.cluster);
            known.reached_at.insert(hello.node, address.clone());
            known.last_failure = None;
            known.features = hello.features;
        }
        {
            let slot = self.slot(hello.node, hello.shard);
            let mut there = slot.conn();
            if let Some((there, _)) = there.as_ref().filter(|(there, _)| !there.is_closed()) {
                return there.clone();
            }
            *there = Some((conn.clone(), Instant::now()));
        }
        // If the client was closed before this, the close did not find the connection.
        if self.is_closed() {
            conn.close(CLIENT_CLOSED);
        }
        let timeouts = Timeouts {
            keep_alive_interval: self.config.keep_alive_interval,
            request_timeout: self.config.request_timeout,
        };
        let mut driver = Driver::new(conn.clone(), stream, rest, timeouts, self.metrics.clone());
        self.metrics.connects.add(1);
        self.events.emit(&Event::Connected {
            node: hello.node,
            shard: hello.shard,
            address: address.to_string(),
        });
        let cluster = Arc::downgrade(self);
        let handle = conn.clone();
        let span = tracing::debug_span!("connection", node = hello.node.0, shard = hello.shard.0, %address);
        let task = async move {
            let reason = (&mut driver).await;
            handle.close(&reason);
            drop(driver);
            let Some(cluster) = cluster.upgrade() else { return };
            cluster.metrics.disconnects.add(1);
            cluster.events.emit(&Event::Disconnected {
                node: handle.node,
                shard: handle.shard,
                address: handle.address.to_string(),
                reason,
            });
        };
        self.runtime.spawn(task.instrument(span));
        conn
    }

    /// Returns the addresses to try for a node: the advertised one, if it can be connected to, and the last one that
    /// worked.
    fn addresses_of(&self, node: NodeId) -> Vec<Arc<str>> {
        let known = self.known();
        let advertised = known.nodes.get(&node).map(|info| info.address.as_str());
        let mut addresses: Vec<Arc<str>> =
            advertised.filter(|address| is_connectable(address)).map(Into::into).into_iter().collect();
        if let Some(address) = known.reached_at.get(&node)
            && !addresses.contains(address)
        {
            addresses.push(address.clone());
        }
        addresses
    }

    fn live(&self) -> Option<Arc<Conn>> {
        self.slots().values().find_map(|slot| slot.live())
    }

    /// Returns a live connection to any shard of a node.
    pub(super) fn live_on(&self, node: NodeId) -> Option<Arc<Conn>> {
        self.slots().iter().find_map(|((of, _), slot)| slot.live().filter(|_| *of == node))
    }

    /// Returns whether the cluster is known to have several nodes.
    pub(super) fn has_several_nodes(&self) -> bool {
        self.known().nodes.len() > 1
    }

    /// Returns the node after this one in the order of their ids, and after the last one the first. `None` if no nodes are known.
    pub(super) fn node_after(&self, node: Option<NodeId>) -> Option<NodeId> {
        let known = self.known();
        let later = known.nodes.keys().copied().filter(|other| node.is_none_or(|node| *other > node)).min();
        later.or_else(|| known.nodes.keys().copied().min())
    }

    fn slot(&self, node: NodeId, shard: ShardId) -> Arc<ConnSlot> {
        let backoff = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        self.slots().entry((node, shard)).or_insert_with(|| Arc::new(ConnSlot::new(backoff))).clone()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, ClusterState> {
        lock(&self.known)
    }

    fn slots(&self) -> MutexGuard<'_, AHashMap<(NodeId, ShardId), Arc<ConnSlot>>> {
        lock(&self.slots)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.close();
    }
}
