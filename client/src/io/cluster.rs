//! What a client knows of its cluster, and its connections: one per (node, shard), made when first needed and again when lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ClusterId, NodeId, PartitionIndex, ShardId, TopicPartition};
use highwater_protocol::native::{
    Body, HelloReply, MessageKind, MetadataReply, MetadataRequest, NodeInfo, TopicInfo, empty_message,
    message,
};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::conn::{Conn, Driver, Patience, decode};
use super::connect::{Greeted, Introduction, connect_first};
use crate::config::Config;
use crate::core::backoff::Backoff;
use crate::error::{CallError, ConnectError, ConnectErrorKind, Outcome};
use crate::events::{Event, EventHub};
use crate::metrics::Metrics;

/// A connection that lived shorter than this does not count as a success: a broker that accepts and drops is not hammered.
const HEALTHY_LIFE: Duration = Duration::from_secs(1);

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) events: EventHub,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) runtime: Handle,
    known: Mutex<Known>,
    slots: Mutex<AHashMap<(NodeId, ShardId), Arc<Slot>>>,
    /// For when it does not matter which broker answers and none is connected.
    any: Slot,
    /// One refresh of metadata at a time; those that waited for it take its result.
    refreshing: tokio::sync::Mutex<()>,
    /// Counts changes of topics.
    changes: watch::Sender<u64>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    cluster: Option<ClusterId>,
    nodes: AHashMap<NodeId, NodeInfo>,
    /// Where a node was last reached: the way back to one that advertises an address nobody reaches.
    reached_at: AHashMap<NodeId, Arc<str>>,
    topics: AHashMap<String, (Instant, Arc<TopicInfo>)>,
    last_failure: Option<ConnectError>,
}

/// A place for a connection.
#[derive(Debug)]
struct Slot {
    conn: Mutex<Option<(Arc<Conn>, Instant)>>,
    /// Held while connecting: one attempt at a time.
    attempts: tokio::sync::Mutex<Attempts>,
}

#[derive(Debug)]
struct Attempts {
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// Whether a call may be made again when nobody knows what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Always,
    /// Only if the request cannot have arrived.
    Unsent,
}

impl Cluster {
    pub(crate) fn new(config: Config) -> Self {
        let backoff = Backoff::new(config.backoff_min, config.backoff_max);
        Self {
            any: Slot::new(backoff),
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

    /// Changes whenever a topic known here does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends every connection, for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for slot in self.slots().values() {
            if let Some((conn, _)) = slot.conn().as_ref() {
                conn.close("the client was closed");
            }
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The first connection: every bootstrap address once.
    pub(crate) async fn bootstrap(self: &Arc<Self>) -> Result<(), ConnectError> {
        self.connect_any().await.map(drop)
    }

    // Connections.

    /// A connection to any broker, waiting as long as it takes.
    async fn any(self: &Arc<Self>) -> Result<Arc<Conn>, ConnectError> {
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

    /// The connection to a shard. One attempt, after the pause that failures before it ask for.
    async fn connection(self: &Arc<Self>, node: NodeId, shard: ShardId) -> Result<Arc<Conn>, ConnectError> {
        let slot = self.slot(node, shard);
        if let Some(conn) = slot.live() {
            return Ok(conn);
        }
        let mut attempts = slot.attempts.lock().await;
        if let Some(conn) = slot.live() {
            return Ok(conn);
        }
        let short_lived = slot.conn().take().is_some_and(|(_, since)| since.elapsed() < HEALTHY_LIFE);
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
        let failures = attempts.backoff.failures();
        self.events.emit(&Event::ConnectFailed { reason: error.to_string(), failures, retry_in });
    }

    async fn connect_to(self: &Arc<Self>, node: NodeId, shard: ShardId) -> Result<Arc<Conn>, ConnectError> {
        let addresses = self.addresses_of(node);
        let check = move |hello: &HelloReply| {
            if (hello.node, hello.shard) == (node, shard) {
                Ok(())
            } else {
                Err(format!(
                    "expected was shard {shard} of node {node}, there is shard {} of node {}",
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
            return Err(ConnectError::new(
                ConnectErrorKind::Closed,
                Outcome::NotWritten,
                "the client was closed",
            ));
        }
        let introduction =
            Introduction { client_name: self.config.name.clone(), shard, cluster: self.known().cluster };
        let greeted = connect_first(addresses, &introduction, self.config.connect_timeout, check).await?;
        Ok(self.adopt(greeted))
    }

    /// Puts a new connection into its slot and lets it run.
    fn adopt(self: &Arc<Self>, greeted: Greeted<TcpStream>) -> Arc<Conn> {
        let Greeted { stream, rest, hello, address } = greeted;
        let conn = Arc::new(Conn::new(hello.node, hello.shard, address.clone()));
        {
            let mut known = self.known();
            known.cluster = Some(hello.cluster);
            known.reached_at.insert(hello.node, address.clone());
            known.last_failure = None;
        }
        let patience =
            Patience { keep_alive: self.config.keep_alive, request_timeout: self.config.request_timeout };
        let mut driver = Driver::new(conn.clone(), stream, rest, patience, self.metrics.clone());
        self.metrics.connects.add(1);
        self.events.emit(&Event::Connected {
            node: hello.node,
            shard: hello.shard,
            address: address.to_string(),
        });
        let replaced = self.slot(hello.node, hello.shard).conn().replace((conn.clone(), Instant::now()));
        drop(replaced);
        let cluster = Arc::downgrade(self);
        let handle = conn.clone();
        self.runtime.spawn(async move {
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
        });
        conn
    }

    /// Where to try a node: what it advertises, unless that is no place, and where it was reached before.
    fn addresses_of(&self, node: NodeId) -> Vec<Arc<str>> {
        let known = self.known();
        let advertised = known.nodes.get(&node).map(|info| info.address.as_str());
        let mut addresses: Vec<Arc<str>> =
            advertised.filter(|address| is_a_place(address)).map(Into::into).into_iter().collect();
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

    fn slot(&self, node: NodeId, shard: ShardId) -> Arc<Slot> {
        let backoff = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        self.slots().entry((node, shard)).or_insert_with(|| Arc::new(Slot::new(backoff))).clone()
    }

    // Calls.

    /// Asks any broker and reads the answer.
    pub(crate) async fn call<Q: Body, A: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: Repeat,
    ) -> Result<A, CallError> {
        let answer = self.call_raw(Q::KIND, |id| message(id, request), repeat).await?;
        decode(&answer)
    }

    /// As [`Cluster::call`], for an answer without a body.
    pub(crate) async fn call_empty<Q: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: Repeat,
    ) -> Result<(), CallError> {
        self.call_raw(Q::KIND, |id| message(id, request), repeat).await.map(drop)
    }

    /// As [`Cluster::call`], for a request without a body.
    pub(crate) async fn ask<A: Body>(self: &Arc<Self>, kind: MessageKind) -> Result<A, CallError> {
        let answer = self.call_raw(kind, |id| empty_message(kind, id), Repeat::Always).await?;
        decode(&answer)
    }

    async fn call_raw(
        self: &Arc<Self>,
        kind: MessageKind,
        message: impl Fn(u64) -> Bytes,
        repeat: Repeat,
    ) -> Result<Bytes, CallError> {
        let timeout = self.config.request_timeout;
        let deadline = tokio::time::Instant::now() + timeout;
        let timed_out = |sent| CallError::TimedOut { sent, seconds: timeout.as_secs_f64() };
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        let mut last = None;
        loop {
            let conn = match tokio::time::timeout_at(deadline, self.any()).await {
                Ok(Ok(conn)) => conn,
                Ok(Err(error)) if error.kind() == ConnectErrorKind::Closed => return Err(CallError::Closed),
                Ok(Err(error)) => return Err(CallError::Unreachable(error)),
                Err(_) => {
                    let unreachable = self.known().last_failure.clone().map(CallError::Unreachable);
                    return Err(unreachable.or(last).unwrap_or_else(|| timed_out(false)));
                }
            };
            let asked = Instant::now();
            let error = match tokio::time::timeout_at(deadline, conn.call(kind, &message)).await {
                Ok(Ok(answer)) => {
                    self.metrics.call_latency.record(asked.elapsed());
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => return Err(timed_out(true)),
            };
            if self.is_closed() {
                return Err(CallError::Closed);
            }
            let may_repeat = repeat == Repeat::Always || error.outcome() == Outcome::NotWritten;
            if !error.is_transient() || !may_repeat {
                return Err(error);
            }
            let wait = tokio::time::Instant::now() + pause.fail(rand::random());
            if wait >= deadline {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep_until(wait).await;
        }
    }

    // Metadata.

    /// Nodes and topics, asked for now.
    pub(crate) async fn metadata(
        self: &Arc<Self>,
        topics: Option<Vec<String>>,
    ) -> Result<MetadataReply, CallError> {
        let asked = Instant::now();
        let reply: MetadataReply = self.call(&MetadataRequest { topics }, Repeat::Always).await?;
        self.learn(&reply, asked);
        Ok(reply)
    }

    fn learn(&self, reply: &MetadataReply, asked: Instant) {
        let mut changed = false;
        let mut known = self.known();
        known.cluster = Some(reply.cluster);
        known.nodes = reply.nodes.iter().map(|node| (node.node, node.clone())).collect();
        for topic in &reply.topics {
            // Only topics that someone uses are kept, and they are asked for by name first.
            let kept = known.topics.get(&topic.name).map(|(_, kept)| kept.clone());
            let same = kept.as_deref() == Some(topic);
            changed |= !same;
            let info = kept.filter(|_| same).unwrap_or_else(|| Arc::new(topic.clone()));
            known.topics.insert(topic.name.clone(), (asked, info));
        }
        drop(known);
        if changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// A topic as it was at `since` or later.
    pub(crate) async fn topic(
        self: &Arc<Self>,
        name: &str,
        since: Option<Instant>,
    ) -> Result<Arc<TopicInfo>, CallError> {
        let found = |info: Arc<TopicInfo>| match info.error {
            None => Ok(info),
            Some(code) => Err(CallError::Refused { code, text: format!("there is no topic {name}") }),
        };
        if let Some(info) = self.known_topic(name, since)
            && info.error.is_none()
        {
            return Ok(info);
        }
        let asked = Instant::now();
        let _one_at_a_time = self.refreshing.lock().await;
        if let Some(info) = self.known_topic(name, Some(asked)) {
            return found(info);
        }
        let reply = self.metadata(Some(vec![name.to_owned()])).await?;
        match reply.topics.into_iter().find(|topic| topic.name == name) {
            Some(info) => found(Arc::new(info)),
            None => Err(CallError::Nonsense(format!("metadata without the topic {name}"))),
        }
    }

    fn known_topic(&self, name: &str, since: Option<Instant>) -> Option<Arc<TopicInfo>> {
        let known = self.known();
        let (at, info) = known.topics.get(name)?;
        since.is_none_or(|since| *at >= since).then(|| info.clone())
    }

    /// How many partitions a topic is known to have.
    pub(crate) fn partitions_of(&self, name: &str) -> Option<u32> {
        let info = self.known_topic(name, None)?;
        (info.error.is_none()).then_some(info.partitions.len() as u32)
    }

    /// Asks again about every topic in use.
    pub(crate) async fn refresh(self: &Arc<Self>) {
        let topics: Vec<String> = self.known().topics.keys().cloned().collect();
        if !topics.is_empty() && !self.is_closed() {
            // Next time, if not now.
            let _ = self.metadata(Some(topics)).await;
        }
    }

    /// A connection to the leader of a partition, however long it takes. Fails only if there is no such partition, or for good.
    ///
    /// `misrouted`: the last one led elsewhere, so what is known is out of date.
    pub(crate) async fn route(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
        misrouted: bool,
    ) -> Result<(Arc<Conn>, TopicPartition), CallError> {
        let mut since = misrouted.then(Instant::now);
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        loop {
            if self.is_closed() {
                return Err(CallError::Closed);
            }
            let info = match self.topic(topic, since).await {
                Ok(info) => info,
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(pause.fail(rand::random())).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(leader) = info.partitions.get(partition as usize) else {
                let text = format!("topic {topic} has {} partitions, numbered from 0", info.partitions.len());
                return Err(CallError::Refused { code: ErrorCode::UnknownPartition, text });
            };
            match self.connection(leader.leader, leader.shard).await {
                Ok(conn) => {
                    let partition = PartitionIndex(partition);
                    return Ok((conn, TopicPartition { topic: info.id, partition }));
                }
                Err(error) if error.kind() == ConnectErrorKind::Closed => return Err(CallError::Closed),
                // It may lead elsewhere by now.
                Err(_) => since = Some(Instant::now()),
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, AHashMap<(NodeId, ShardId), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.close();
    }
}

impl Slot {
    fn new(backoff: Backoff) -> Self {
        Self {
            conn: Mutex::default(),
            attempts: tokio::sync::Mutex::new(Attempts { backoff, not_before: None }),
        }
    }

    fn conn(&self) -> MutexGuard<'_, Option<(Arc<Conn>, Instant)>> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Option<Arc<Conn>> {
        self.conn().as_ref().map(|(conn, _)| conn.clone()).filter(|conn| !conn.is_closed())
    }
}

impl Attempts {
    async fn wait(&mut self) {
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at.into()).await;
        }
    }

    fn fail(&mut self) -> Duration {
        let wait = self.backoff.fail(rand::random());
        self.not_before = Some(Instant::now() + wait);
        wait
    }

    fn succeed(&mut self) {
        self.backoff.succeed();
        self.not_before = None;
    }
}

/// Whether an advertised address can be connected to: the address that means "every address of this machine" cannot.
fn is_a_place(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    !matches!(host, "" | "0.0.0.0" | "[::]" | "::")
}

#[cfg(test)]
mod tests {
    use super::is_a_place;

    #[test]
    fn an_address_that_means_every_address_is_no_place_to_connect_to() {
        for address in ["0.0.0.0:9191", "[::]:9191", ":9191", ""] {
            assert!(!is_a_place(address), "{address}");
        }
        for address in ["localhost:9191", "10.0.0.1:9191", "[::1]:9191", "broker-0.example:1"] {
            assert!(is_a_place(address), "{address}");
        }
    }
}
