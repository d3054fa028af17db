//! A producer: where records go, which lane is next, and what the buffer holds.
//!
//! Commands: [`append`](ProducerCore::append), [`flush`](ProducerCore::flush), [`close`](ProducerCore::close). Events: `handle_*`.
//! Actions: [`poll_send`](ProducerCore::poll_send) until it has none, then [`next_deadline`](ProducerCore::next_deadline);
//! [`take_settled`](ProducerCore::take_settled) after everything. Moments never go back.

mod sticky;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{AppendError, BatchBuilder, Compression, Header, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ProducerId, Timestamp};
use highwater_protocol::partitioner::partition_for_key;

use super::backoff::Backoff;
use super::lane::{Batch, BatchSend, Identity, Lane, LaneAction, LaneLimits, Payload, RejectionOutcome};
use super::ticket::{Acked, Ticket};
use crate::error::Outcome;
use crate::record::Record;

/// Emptied builders and buffers kept for batches to come.
const SPARES_MAX: usize = 16;
/// The shortest and the longest pause before a refused batch goes again.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long records without a key go to a partition that is not connected yet.
const ROUTE_WAIT_MAX: Duration = Duration::from_millis(10);

/// A batch whose fate is known, or becomes known by what the caller makes of it.
#[derive(Debug)]
pub(crate) struct SettledBatch {
    pub(crate) lane: u32,
    pub(crate) batch: Batch,
    pub(crate) settlement: Settlement,
}

/// How a batch was settled.
#[derive(Debug)]
pub(crate) enum Settlement {
    Acked(Acked),
    Refused { code: ErrorCode, text: String, outcome: Outcome },
    TimedOut(Outcome),
    Closed(Outcome),
}

/// Where a record was put.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) partition: u32,
    pub(crate) ticket: Arc<Ticket>,
    /// Its number within its batch.
    pub(crate) index: u32,
    /// The driver has something new to look at.
    pub(crate) wake: bool,
}

/// Why a record cannot be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotAppended {
    Closed,
    NoPartition { partition: u32, partitions: u32 },
    TooLarge { bytes: usize, max: usize },
    Headers(usize),
}

/// What to do.
#[derive(Debug)]
pub(crate) enum ProducerAction {
    Send {
        lane: u32,
        send: BatchSend,
    },
    /// Find the way to the partition's leader; answered by [`ProducerCore::handle_route`].
    Route {
        lane: u32,
        misrouted: bool,
    },
    /// Ask for a producer id; answered by [`ProducerCore::handle_identity`].
    InitProducer,
}

/// See the module's doc.
pub(crate) struct ProducerCore {
    limits: LaneLimits,
    /// Bytes a batch is filled to.
    batch_bytes: usize,
    /// Bytes a batch with a single record may have.
    batch_bytes_max: usize,
    lanes: Vec<Lane>,
    identity: Option<Identity>,
    /// An answer to [`ProducerAction::InitProducer`] is awaited.
    identity_asked: bool,
    /// The generation that some lane needs a successor of.
    identity_wanted: Option<u32>,
    /// Lanes to ask what they want.
    ready: VecDeque<u32>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The lane of records without a key.
    sticky: u32,
    next_batch: u64,
    settled: Vec<SettledBatch>,
    compression: Compression,
    #[allow(clippy::vec_box, reason = "they move in and out of batches, boxed")]
    spare: Vec<Box<BatchBuilder>>,
    spare_memory: Vec<BytesMut>,
    closed: bool,
}

impl ProducerCore {
    /// `seed` decides where records without a key begin.
    pub(crate) fn new(
        limits: LaneLimits,
        compression: Compression,
        batch_bytes: usize,
        batch_bytes_max: usize,
        seed: u32,
    ) -> Self {
        Self {
            limits,
            compression,
            batch_bytes: batch_bytes.min(batch_bytes_max),
            batch_bytes_max,
            lanes: Vec::new(),
            identity: None,
            identity_asked: false,
            identity_wanted: None,
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            sticky: seed,
            next_batch: 0,
            settled: Vec::new(),
            spare: Vec::new(),
            spare_memory: Vec::new(),
            closed: false,
        }
    }

    // Getters.

    pub(crate) fn partitions(&self) -> u32 {
        self.lanes.len() as u32
    }

    /// No record waits for its fate.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    /// The next moment at which [`ProducerCore::poll_send`] may have something to do by itself.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    // Commands.

    /// The topic has this many partitions, never fewer than before.
    pub(crate) fn set_partitions(&mut self, partitions: u32) {
        while self.partitions() < partitions {
            self.lanes.push(Lane::new(Backoff::new(RETRY_MIN, RETRY_MAX)));
        }
    }

    /// Puts a record into the batch of its partition. `now` is asked only when a batch begins.
    pub(crate) fn append(
        &mut self,
        record: &Record,
        timestamp: Timestamp,
        charge: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Appended, NotAppended> {
        if self.closed {
            return Err(NotAppended::Closed);
        }
        let partition = self.partition_of(record)?;
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|header| Header { key: &header.key, value: header.value.as_deref() })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let record = NewRecord { timestamp, key, value, headers: &headers };
        match partition {
            Some(partition) => self.append_to(partition, &record, charge, now),
            None => self.append_sticky(&record, charge, now),
        }
    }

    /// Where a record has to go. None: anywhere.
    fn partition_of(&self, record: &Record) -> Result<Option<u32>, NotAppended> {
        let partitions = self.partitions();
        match (record.partition, &record.key) {
            (Some(partition), _) if partition < partitions => Ok(Some(partition)),
            (Some(partition), _) => Err(NotAppended::NoPartition { partition, partitions }),
            (None, _) if partitions == 0 => Err(NotAppended::NoPartition { partition: 0, partitions }),
            (None, Some(key)) => Ok(Some(partition_for_key(key, partitions))),
            (None, None) => Ok(None),
        }
    }

    fn append_to(
        &mut self,
        partition: u32,
        record: &NewRecord<'_>,
        charge: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Appended, NotAppended> {
        if let Some(appended) = self.append_open(partition, record, charge)? {
            return Ok(appended);
        }
        let mut builder = self.builder();
        let bytes = builder.bytes_with(record);
        if bytes > self.batch_bytes_max {
            self.spare.push(builder);
            return Err(NotAppended::TooLarge { bytes, max: self.batch_bytes_max });
        }
        if let Err(error) = builder.append(record) {
            self.spare.push(builder);
            return Err(error.into());
        }
        let now = now();
        let id = self.next_batch;
        self.next_batch += 1;
        let lane = &mut self.lanes[partition as usize];
        let closed = lane.close_open();
        let full = builder.bytes() >= self.batch_bytes;
        let appended = lane.begin(id, builder, now).add_record(partition, charge, true);
        if full {
            lane.close_open();
        }
        if (closed || full) && partition == self.sticky_partition() {
            self.advance_sticky();
        }
        self.mark_ready(partition);
        Ok(appended)
    }

    /// Puts a record into the open batch of a partition, if there is one with room for it.
    fn append_open(
        &mut self,
        partition: u32,
        record: &NewRecord<'_>,
        charge: usize,
    ) -> Result<Option<Appended>, NotAppended> {
        let Some(open) = self.lanes[partition as usize].open_mut() else { return Ok(None) };
        let Payload::Building(builder) = &mut open.payload else { panic!("an open batch is being built") };
        // The charge is never less than what the record takes: far from the end there is nothing to reckon.
        let fits = builder.bytes() + charge <= self.batch_bytes;
        if fits || builder.bytes_with(record) <= self.batch_bytes {
            match builder.append(record) {
                Ok(()) => return Ok(Some(open.add_record(partition, charge, false))),
                Err(AppendError::Full) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Everything appended so far goes without lingering. The tickets of all of it.
    pub(crate) fn flush(&mut self) -> Vec<Arc<Ticket>> {
        let mut tickets = Vec::new();
        for at in 0..self.partitions() {
            let lane = &mut self.lanes[at as usize];
            if !lane.is_empty() {
                lane.flush();
                tickets.extend(lane.tickets().cloned());
                self.mark_ready(at);
            }
        }
        tickets
    }

    /// No more records. What is here still goes.
    pub(crate) fn stop_accepting(&mut self) {
        self.closed = true;
    }

    /// Gives everything up that is not acknowledged.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        let mut gone = Vec::new();
        for at in 0..self.partitions() {
            self.lanes[at as usize].handle_close(&self.limits, &mut gone);
            let settled = gone.drain(..);
            self.settled.extend(settled.map(|(batch, outcome)| SettledBatch {
                lane: at,
                batch,
                settlement: Settlement::Closed(outcome),
            }));
        }
    }

    // Events.

    /// Whether there is a connection to the partition's leader.
    pub(crate) fn handle_route(&mut self, lane: u32, up: bool) {
        self.lanes[lane as usize].set_routed(up);
        if up {
            self.mark_ready(lane);
        }
    }

    /// There is no way to the partition and there will be none: its records are refused.
    pub(crate) fn handle_unroutable(&mut self, lane: u32, code: ErrorCode, text: &str) {
        let mut gone = Vec::new();
        self.lanes[lane as usize].set_routed(false);
        self.lanes[lane as usize].handle_close(&self.limits, &mut gone);
        self.settled.extend(gone.into_iter().map(|(batch, outcome)| {
            let settlement = Settlement::Refused { code, text: text.to_owned(), outcome };
            SettledBatch { lane, batch, settlement }
        }));
        if lane == self.sticky_partition() {
            self.advance_sticky();
        }
    }

    /// The broker gave a producer id. True if it is not the first.
    pub(crate) fn handle_identity(&mut self, producer: ProducerId, epoch: i16) -> bool {
        self.identity_asked = false;
        self.identity_wanted = None;
        let generation = self.identity.map_or(0, |identity| identity.generation) + 1;
        self.identity = Some(Identity { producer, epoch, generation });
        for lane in 0..self.partitions() {
            self.mark_ready(lane);
        }
        generation > 1
    }

    /// A batch was encoded.
    pub(crate) fn handle_encoded(&mut self, lane: u32, batch: u64, bytes: &Bytes) {
        self.lanes[lane as usize].set_encoded(batch, bytes);
    }

    /// A batch was acknowledged, or handed over where no acknowledgement is asked for.
    pub(crate) fn handle_acked(&mut self, lane: u32, batch: u64, acked: Acked) {
        if let Some(batch) = self.lanes[lane as usize].handle_acked(batch) {
            self.settled.push(SettledBatch { lane, batch, settlement: Settlement::Acked(acked) });
        }
        self.mark_ready(lane);
    }

    /// A batch was refused.
    pub(crate) fn handle_refused(
        &mut self,
        lane: u32,
        batch: u64,
        error: (ErrorCode, String),
        now: Instant,
        jitter: f64,
    ) {
        let (code, text) = error;
        let refused = self.lanes[lane as usize].handle_refused(batch, code, &self.limits, now, jitter);
        if let RejectionOutcome::Failed(batch, outcome) = refused {
            self.settled.push(SettledBatch {
                lane,
                batch,
                settlement: Settlement::Refused { code, text, outcome },
            });
        }
        self.mark_ready(lane);
    }

    /// The connection was lost before the answer came; `sent`: the request may have arrived.
    pub(crate) fn handle_lost(&mut self, lane: u32, batch: u64, sent: bool) {
        self.lanes[lane as usize].handle_lost(batch, sent, &self.limits);
        self.mark_ready(lane);
    }

    // Actions.

    /// What to do next, if anything.
    pub(crate) fn poll_send(&mut self, now: Instant) -> Option<ProducerAction> {
        while let Some(Reverse((at, lane))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            self.expire(lane, now);
            self.mark_ready(lane);
        }
        while let Some(at) = self.ready.pop_front() {
            let lane = &mut self.lanes[at as usize];
            lane.is_ready = false;
            if lane.expiry_armed.is_none()
                && let Some(expires) = lane.expires_at(&self.limits)
            {
                lane.expiry_armed = Some(expires);
                self.timers.push(Reverse((expires, at)));
            }
            match lane.next(&self.limits, self.identity, now) {
                LaneAction::Send(send) => {
                    self.mark_ready(at);
                    if at == self.sticky_partition() && matches!(send, BatchSend::Fresh { .. }) {
                        self.advance_sticky();
                    }
                    return Some(ProducerAction::Send { lane: at, send });
                }
                LaneAction::Route { misrouted } => {
                    // Most routes are found at once. If this one is not, the lane is asked again.
                    self.timers.push(Reverse((now + ROUTE_WAIT_MAX, at)));
                    return Some(ProducerAction::Route { lane: at, misrouted });
                }
                LaneAction::WakeAt(then) => {
                    self.avoid_blocked(at);
                    self.timers.push(Reverse((then, at)));
                }
                LaneAction::Identity(generation) => self.identity_wanted = Some(generation),
                LaneAction::Idle => self.avoid_blocked(at),
            }
        }
        let known = self.identity.map_or(0, |identity| identity.generation);
        if self.identity_wanted.is_some_and(|wanted| wanted >= known) && !self.identity_asked {
            self.identity_asked = true;
            return Some(ProducerAction::InitProducer);
        }
        None
    }

    fn expire(&mut self, at: u32, now: Instant) {
        let lane = &mut self.lanes[at as usize];
        if lane.expiry_armed.is_none_or(|armed| armed > now) {
            return;
        }
        lane.expiry_armed = None;
        let mut gone = Vec::new();
        lane.handle_expired(&self.limits, now, &mut gone);
        let gone = gone.into_iter();
        self.settled.extend(gone.map(|(batch, outcome)| SettledBatch {
            lane: at,
            batch,
            settlement: Settlement::TimedOut(outcome),
        }));
    }

    /// Batches whose fate became known. Their records' charge is free again.
    pub(crate) fn take_settled(&mut self) -> Vec<SettledBatch> {
        std::mem::take(&mut self.settled)
    }

    fn builder(&mut self) -> Box<BatchBuilder> {
        let new = || Box::new(BatchBuilder::new(self.compression, 0));
        let mut builder = self.spare.pop().unwrap_or_else(new);
        if let Some(memory) = self.spare_memory.pop() {
            builder.recycle(memory);
        }
        builder
    }

    /// Takes an emptied builder for batches to come.
    pub(crate) fn reuse(&mut self, builder: Box<BatchBuilder>) {
        if self.spare.len() < SPARES_MAX {
            self.spare.push(builder);
        }
    }

    /// Takes the memory of an acknowledged batch for one to come.
    pub(crate) fn recycle(&mut self, memory: BytesMut) {
        // A compressing builder keeps its own.
        if self.compression == Compression::None && self.spare_memory.len() < SPARES_MAX {
            self.spare_memory.push(memory);
        }
    }

    fn mark_ready(&mut self, at: u32) {
        let lane = &mut self.lanes[at as usize];
        if !lane.is_ready {
            lane.is_ready = true;
            self.ready.push_back(at);
        }
    }
}

impl Batch {
    fn add_record(&mut self, partition: u32, charge: usize, wake: bool) -> Appended {
        let index = self.records;
        self.records += 1;
        self.charged += charge;
        Appended { partition, ticket: self.ticket.clone(), index, wake }
    }
}

impl From<AppendError> for NotAppended {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Headers(count) => Self::Headers(count),
            AppendError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            _ => panic!("an empty batch is never full"),
        }
    }
}

#[cfg(test)]
#[path = "producer_tests.rs"]
mod tests;
