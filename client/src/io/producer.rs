//! A producer's task: sends batches and passes answers to the core.

mod settle;
pub(crate) mod topics;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_protocol::batch::{BatchView, Compression, Compressor, stamp_producer};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, Timestamp, TopicPartition};
use highwater_protocol::native::{Acks, Body, InitProducerReply, MessageKind, ProduceReply};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::conn::Conn;
use super::sink::{ProduceSink, SentBatch};
use crate::core::conn::Answer;
use crate::core::failures::Failures;
use crate::core::lane::BatchSend;
use crate::core::producer::{ProducerAction, ProducerCore, Settlement};
use crate::core::ticket::Acked;
use crate::error::{CallError, WriteOutcome};
use crate::events::Event;
use crate::lock::lock;
use crate::record::Record;

/// Settings shared by all topics of a producer.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) batch_records: u32,
    pub(crate) buffer_bytes: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) compression: Compression,
    pub(crate) acks: Acks,
    pub(crate) idempotent: bool,
    /// Number of partitions for topics to create if they are missing.
    pub(crate) create: Option<u32>,
    pub(crate) partitioner: Option<Partitioner>,
}

/// Chooses a partition by topic, record and number of partitions.
pub(crate) struct Partitioner(pub(crate) Box<Choose>);

type Choose = dyn Fn(&str, &Record, u32) -> Option<u32> + std::marker::Send + Sync;

impl std::fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Partitioner")
    }
}

/// State of one topic of a producer, shared by the handles, the task and the connections.
#[derive(Debug)]
pub(crate) struct ProducerShared {
    pub(crate) topic: Arc<str>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) settings: Arc<Settings>,
    /// Free bytes of the buffer, shared by all topics.
    pub(crate) room: Arc<Semaphore>,
    state: Mutex<State>,
    /// Shared by all batches. Locked while a batch is being encoded, so that a close finds every batch in the core.
    encoding: Mutex<Compressor>,
    /// Wakes the task.
    work: Notify,
    /// Notified when a batch was settled.
    pub(crate) settled: Notify,
    /// Failures not reported to the user yet.
    pub(crate) failures: Failures,
}

struct State {
    core: ProducerCore,
    /// The connection of each lane, and the partition to address.
    routes: Vec<Option<(Arc<Conn>, TopicPartition)>>,
    handles_dropped: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("partitions", &self.core.partitions()).finish_non_exhaustive()
    }
}

impl ProducerShared {
    pub(crate) fn new(
        topic: Arc<str>,
        cluster: Arc<Cluster>,
        settings: Arc<Settings>,
        room: Arc<Semaphore>,
        core: ProducerCore,
    ) -> Self {
        Self {
            topic,
            cluster,
            settings,
            room,
            state: Mutex::new(State { core, routes: Vec::new(), handles_dropped: false }),
            encoding: Mutex::default(),
            work: Notify::new(),
            settled: Notify::new(),
            failures: Failures::default(),
        }
    }

    /// Changes the core, settles batches, and wakes the task.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut ProducerCore) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state.core);
        let settled = state.core.take_settled();
        drop(state);
        self.settle(settled, false);
        self.work.notify_one();
        result
    }

    /// Reads the core, or changes it in a way that concerns nobody else.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&mut ProducerCore) -> R) -> R {
        look(&mut self.lock().core)
    }

    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// The last handle was dropped: the task sends what is buffered and ends.
    pub(crate) fn handles_dropped(&self) {
        let mut state = self.lock();
        state.handles_dropped = true;
        state.core.stop_accepting();
        state.core.flush();
        drop(state);
        self.work.notify_one();
    }

    /// Fails every record that is not acknowledged. `keep_all`: keeps their records regardless of limits.
    pub(crate) fn close(&self, keep_all: bool) {
        let nothing_is_encoding = lock(&self.encoding);
        let mut state = self.lock();
        state.core.close();
        state.handles_dropped = true;
        let settled = state.core.take_settled();
        drop(state);
        drop(nothing_is_encoding);
        self.settle(settled, keep_all);
        self.work.notify_one();
    }

    /// Returns the connections on which batches were sent.
    pub(crate) fn connections(&self) -> Vec<Arc<Conn>> {
        let mut conns: Vec<Arc<Conn>> = Vec::new();
        for (conn, _) in self.lock().routes.iter().flatten() {
            if !conns.iter().any(|known| Arc::ptr_eq(known, conn)) {
                conns.push(conn.clone());
            }
        }
        conns
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl ProduceSink for ProducerShared {
    fn handle_answer(&self, lane: u32, batch: u64, answer: Answer) {
        match answer.map(|body| ProduceReply::decode(&body)) {
            Ok(Ok(reply)) => {
                let acked = Acked {
                    base_offset: Some(Offset(reply.base_offset.get())),
                    log_append_time: Some(Timestamp(reply.log_append_time.get())).filter(|time| time.0 >= 0),
                };
                self.with(|core| core.handle_acked(lane, batch, acked));
            }
            // The batch was probably written; the retry returns its offset.
            Ok(Err(_)) => self.handle_lost(lane, batch, true),
            Err(error) => {
                self.cluster.metrics.batches_retried.add(u64::from(error.0.is_retryable()));
                // A stale route is corrected without the user's knowledge.
                if error.0.is_retryable() && !error.0.is_misrouted() {
                    let (topic, reason) = (self.topic.to_string(), error.1.clone());
                    self.cluster.events.emit(&Event::ProduceRejected { topic, reason });
                }
                self.with(|core| core.handle_rejection(lane, batch, error, Instant::now(), rand::random()));
            }
        }
    }

    fn handle_sent(&self, lane: u32, batch: u64) {
        let acked = Acked { base_offset: None, log_append_time: None };
        self.with(|core| core.handle_acked(lane, batch, acked));
    }

    fn handle_lost(&self, lane: u32, batch: u64, sent: bool) {
        self.cluster.metrics.batches_retried.add(u64::from(sent));
        self.with(|core| core.handle_lost(lane, batch, sent));
    }

    fn handle_late_rejection(&self, lane: u32, records: u32, (code, text): (ErrorCode, String)) {
        let settlement = Settlement::Rejected { code, text, outcome: WriteOutcome::NotWritten };
        let Err(error) = self.result(lane, settlement) else { return };
        self.cluster.metrics.records_failed.add(u64::from(records));
        self.failures.add(records, error, |_| Vec::new(), false);
    }
}

/// The task of a producer's topic. Ends when the handles are dropped and everything is settled, or when the client is
/// closed.
pub(crate) async fn drive(shared: Arc<ProducerShared>) {
    let mut changes = shared.cluster.changes();
    // Partitions may have been added between the topic lookup and the subscription to changes.
    note_partitions(&shared);
    // Helpers end with the task: otherwise an unreachable broker would keep a dropped producer alive.
    let mut helpers = JoinSet::new();
    loop {
        while helpers.try_join_next().is_some() {}
        run_actions(&shared, &mut helpers);
        let (deadline, done) = {
            let state = shared.lock();
            (state.core.next_deadline(), state.handles_dropped && state.core.is_empty())
        };
        if done {
            return shared.report_unreported();
        }
        if shared.cluster.is_closed() {
            return shared.close(false);
        }
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.work.notified() => {}
            () = timer => {}
            _ = changes.changed() => note_partitions(&shared),
        }
    }
}

/// Runs all actions that the core has ready.
fn run_actions(shared: &Arc<ProducerShared>, helpers: &mut JoinSet<()>) {
    loop {
        let mut encoding = lock(&shared.encoding);
        let mut state = shared.lock();
        let action = state.core.poll_send(Instant::now());
        let settled = state.core.take_settled();
        match action {
            Some(ProducerAction::Send { lane, send }) => {
                let route = state.routes.get(lane as usize).cloned().flatten();
                drop(state);
                let (batch, bytes) = encode(shared, lane, send, &mut encoding);
                drop(encoding);
                transmit(shared, lane, batch, bytes, route);
            }
            Some(ProducerAction::Route { lane, misrouted }) => {
                drop(state);
                helpers.spawn(find_route(shared.clone(), lane, misrouted));
            }
            Some(ProducerAction::InitProducer) => {
                drop(state);
                helpers.spawn(init_producer(shared.clone()));
            }
            None => {
                drop(state);
                shared.settle(settled, false);
                return;
            }
        }
        shared.settle(settled, false);
    }
}

/// Encodes, compresses and stamps a batch. Does not hold the core's lock, because this is the expensive part.
fn encode(shared: &ProducerShared, lane: u32, send: BatchSend, compressor: &mut Compressor) -> (u64, Bytes) {
    match send {
        BatchSend::Fresh { batch, mut buffer, stamp } => {
            buffer.swap_compressor(compressor);
            let bytes = buffer.finish(stamp).expect("a batch has records").freeze();
            buffer.swap_compressor(compressor);
            let mut state = shared.lock();
            state.core.handle_encoded(lane, batch, &bytes);
            state.core.reuse(buffer);
            (batch, bytes)
        }
        BatchSend::Renumber { batch, bytes, stamp } => {
            let mut bytes = bytes::BytesMut::from(bytes);
            stamp_producer(&mut bytes, stamp);
            let bytes = bytes.freeze();
            shared.lock().core.handle_encoded(lane, batch, &bytes);
            (batch, bytes)
        }
        BatchSend::Retry { batch, bytes } => (batch, bytes),
    }
}

fn transmit(
    shared: &Arc<ProducerShared>,
    lane: u32,
    batch: u64,
    bytes: Bytes,
    route: Option<(Arc<Conn>, TopicPartition)>,
) {
    let Some((conn, to)) = route else { return shared.handle_lost(lane, batch, false) };
    shared.cluster.metrics.batch_bytes_sent.add(bytes.len() as u64);
    let records = BatchView::parse(&bytes).map_or(0, |batch| batch.header().count());
    let sent = SentBatch { sink: shared.clone(), lane, batch, records, sent_at: Instant::now() };
    if conn.produce(to, shared.settings.acks, bytes, sent).is_err() {
        shared.handle_lost(lane, batch, false);
    }
}

async fn find_route(shared: Arc<ProducerShared>, lane: u32, misrouted: bool) {
    match shared.cluster.route(&shared.topic, lane, misrouted).await {
        Ok(route) => {
            {
                let mut state = shared.lock();
                let lanes = state.core.partitions() as usize;
                state.routes.resize_with(lanes, || None);
                state.routes[lane as usize] = Some(route);
            }
            shared.with(|core| core.handle_route(lane, true));
        }
        Err(error) => {
            let (code, text) = match error {
                CallError::Rejected { code, text } => (code, text),
                other => (ErrorCode::Unavailable, other.to_string()),
            };
            shared.with(|core| core.handle_unroutable(lane, code, &text));
        }
    }
}

/// Requests a producer id until there is one.
async fn init_producer(shared: Arc<ProducerShared>) {
    loop {
        match shared.cluster.call_without_body::<InitProducerReply>(MessageKind::InitProducer).await {
            Ok(reply) => {
                let again = shared.with(|core| core.handle_identity(reply.producer, reply.epoch));
                if again {
                    let topic = shared.topic.to_string();
                    shared.cluster.events.emit(&Event::ProducerIdChanged { topic, producer: reply.producer });
                }
                return;
            }
            Err(_) if shared.cluster.is_closed() => return,
            Err(error) => {
                tracing::debug!(topic = %shared.topic, %error, "no producer id yet");
                tokio::time::sleep(shared.cluster.config.backoff_max).await;
            }
        }
    }
}

/// Passes new partitions to the core.
fn note_partitions(shared: &Arc<ProducerShared>) {
    if let Some(partitions) = shared.cluster.partitions_of(&shared.topic) {
        shared.peek(|core| core.set_partitions(partitions));
    }
}
