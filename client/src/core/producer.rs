//! A producer: assigns records to lanes, schedules lanes, and recycles buffers.
//!
//! Commands: [`append`](ProducerCore::append), [`flush`](ProducerCore::flush), [`close`](ProducerCore::close). Events:
//! `handle_*`. Actions: call [`poll_send`](ProducerCore::poll_send) until it returns none, then
//! [`next_deadline`](ProducerCore::next_deadline). Call [`take_settled`](ProducerCore::take_settled) after everything.
//! Times passed in must not decrease.

mod append;
mod sticky;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{BatchBuilder, Compression};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::ProducerId;

use super::backoff::Backoff;
use super::lane::{Batch, BatchSend, Identity, Lane, LaneAction, LaneLimits, RejectionOutcome};
use super::ticket::{Acked, Ticket};
use crate::error::WriteOutcome;

/// Maximum number of empty builders and of buffers kept for reuse.
const SPARES_MAX: usize = 16;
/// Shortest and longest pause before a rejected batch is sent again.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long records without a key may wait for a partition that is not connected yet.
const ROUTE_WAIT_MAX: Duration = Duration::from_millis(10);

/// A batch whose outcome is decided.
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
    Rejected { code: ErrorCode, text: String, outcome: WriteOutcome },
    TimedOut(WriteOutcome),
    Closed(WriteOutcome),
}

/// Where a record was appended.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) partition: u32,
    pub(crate) ticket: Arc<Ticket>,
    /// Index of the record within its batch.
    pub(crate) index: u32,
    /// The driver must poll the core.
    pub(crate) wake: bool,
}

/// Why a record cannot be appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotAppended {
    Closed,
    NoPartition { partition: u32, partitions: u32 },
    TooLarge { bytes: usize, max: usize },
    Headers(usize),
}

/// What the driver must do.
#[derive(Debug)]
pub(crate) enum ProducerAction {
    Send {
        lane: u32,
        send: BatchSend,
    },
    /// Find a connection to the partition's leader, then call [`ProducerCore::handle_route`].
    Route {
        lane: u32,
        misrouted: bool,
    },
    /// Request a producer id, then call [`ProducerCore::handle_identity`].
    InitProducer,
}

/// See the module documentation.
pub(crate) struct ProducerCore {
    limits: LaneLimits,
    /// Size to which a batch is filled.
    batch_bytes: usize,
    /// Maximum size of a batch with a single record.
    batch_bytes_max: usize,
    /// Number of records at which a batch is complete, whatever its size.
    batch_records_max: u32,
    lanes: Vec<Lane>,
    identity: Option<Identity>,
    /// A [`ProducerAction::InitProducer`] is unanswered.
    identity_asked: bool,
    /// Some lane needs an identity of a later generation than this.
    identity_wanted: Option<u32>,
    /// Lanes to ask for their next action.
    ready: VecDeque<u32>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The current partition for records without a key, modulo the number of partitions.
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
    /// Creates a producer without partitions. `seed` decides the first partition for records without a key.
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
            batch_records_max: u32::MAX,
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

    /// Returns whether all records are settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    /// Returns when [`ProducerCore::poll_send`] must be called again if nothing else happens.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    // Commands.

    /// Sets the number of records at which a batch is complete.
    pub(crate) fn set_batch_records_max(&mut self, records: u32) {
        self.batch_records_max = records;
    }

    /// Sets the number of partitions, which never decreases.
    pub(crate) fn set_partitions(&mut self, partitions: u32) {
        while self.partitions() < partitions {
            self.lanes.push(Lane::new(Backoff::new(RETRY_MIN, RETRY_MAX)));
        }
    }

    /// Sends everything appended so far without lingering. Returns the tickets of all of it.
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

    /// Rejects further records. Those appended before are still sent.
    pub(crate) fn stop_accepting(&mut self) {
        self.closed = true;
    }

    /// Fails all records that are not acknowledged.
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

    /// The connection to the partition's leader was established or lost.
    pub(crate) fn handle_route(&mut self, lane: u32, up: bool) {
        self.lanes[lane as usize].set_routed(up);
        if up {
            self.mark_ready(lane);
        }
    }

    /// No route to the partition exists or ever will: its records fail.
    pub(crate) fn handle_unroutable(&mut self, lane: u32, code: ErrorCode, text: &str) {
        let mut gone = Vec::new();
        self.lanes[lane as usize].set_routed(false);
        self.lanes[lane as usize].handle_close(&self.limits, &mut gone);
        self.settled.extend(gone.into_iter().map(|(batch, outcome)| {
            let settlement = Settlement::Rejected { code, text: text.to_owned(), outcome };
            SettledBatch { lane, batch, settlement }
        }));
        if lane == self.sticky_partition() {
            self.advance_sticky();
        }
    }

    /// The broker assigned a producer id. Returns true if it is not the first.
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

    /// A batch was acknowledged, or written to the socket if no acknowledgement was requested.
    pub(crate) fn handle_acked(&mut self, lane: u32, batch: u64, acked: Acked) {
        if let Some(batch) = self.lanes[lane as usize].handle_acked(batch) {
            self.settled.push(SettledBatch { lane, batch, settlement: Settlement::Acked(acked) });
        }
        self.mark_ready(lane);
    }

    /// The broker rejected a batch.
    pub(crate) fn handle_rejection(
        &mut self,
        lane: u32,
        batch: u64,
        error: (ErrorCode, String),
        now: Instant,
        jitter: f64,
    ) {
        let (code, text) = error;
        let rejected = self.lanes[lane as usize].handle_rejection(batch, code, &self.limits, now, jitter);
        if let RejectionOutcome::Failed(batch, outcome) = rejected {
            self.settled.push(SettledBatch {
                lane,
                batch,
                settlement: Settlement::Rejected { code, text, outcome },
            });
        }
        self.mark_ready(lane);
    }

    /// The connection was lost before an answer; `sent`: the broker may have received the request.
    pub(crate) fn handle_lost(&mut self, lane: u32, batch: u64, sent: bool) {
        self.lanes[lane as usize].handle_lost(batch, sent, &self.limits);
        self.mark_ready(lane);
    }

    // Actions.

    /// Returns the next action, if there is one.
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
                    // Most routes are found immediately. If this one is not, ask the lane again.
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

    /// Takes the batches settled since the last call. Their charge can be returned to the buffer.
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

    /// Keeps an empty builder for reuse.
    pub(crate) fn reuse(&mut self, builder: Box<BatchBuilder>) {
        if self.spare.len() < SPARES_MAX {
            self.spare.push(builder);
        }
    }

    /// Keeps the memory of an acknowledged batch for reuse.
    pub(crate) fn recycle(&mut self, memory: BytesMut) {
        // A compressing builder has its own buffer.
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

#[cfg(test)]
#[path = "producer_tests.rs"]
mod tests;
