//! A lane: the batches of one partition, from filling and queueing to sending, acknowledgement and retries.
//!
//! Why a retry neither duplicates nor reorders records:
//! - A batch gets its sequence when it is first sent and keeps it for every retry, so the broker recognises a batch
//!   that it already has.
//! - After a rejection nothing is sent until every request in flight is answered. Then all remaining batches are sent
//!   again, in order.
//! - The broker remembers the last five batches of a producer id. So no batch is sent for the first time while the
//!   batch five places before it is unsettled. Acknowledged batches after an unsettled one count too, or a retry of it
//!   would not be recognised.
//! - Until a producer id has its first acknowledgement in the partition, only one batch is in flight: a broker that
//!   does not know the id accepts any first sequence, and must not accept the second batch's.
//! - When a batch fails or times out, its sequence is skipped, and the broker cannot tell the gap from a lost batch:
//!   the sequence is *broken*. Batches that may have been written are settled under the old producer id. Batches that
//!   the broker rejected as out of order were certainly not written; once all others are settled, they are sent under a
//!   new id from sequence 0.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BatchProducer};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::ProducerId;

use self::batch::BatchState;
pub(crate) use self::batch::{Batch, Payload};
use super::backoff::Backoff;
use super::ticket::Ticket;
use crate::error::WriteOutcome;

/// Maximum number of times a batch is renumbered before it fails. A broker that keeps losing producer state would
/// otherwise cause endless retries.
const RENUMBERED_MAX: u32 = 3;

/// A producer id and epoch assigned by the broker. `generation` counts the ids that this producer has had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) producer: ProducerId,
    pub(crate) epoch: i16,
    pub(crate) generation: u32,
}

/// Limits and settings shared by all lanes of a producer.
#[derive(Clone, Debug)]
pub(crate) struct LaneLimits {
    pub(crate) linger: Duration,
    pub(crate) in_flight_max: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) idempotent: bool,
}

/// A batch to send.
#[derive(Debug)]
pub(crate) enum BatchSend {
    /// Sent for the first time: encode it with this stamp and pass the bytes to [`Lane::set_encoded`].
    Fresh { batch: u64, buffer: Box<BatchBuilder>, stamp: BatchProducer },
    /// Encoded before: replace its stamp with this one and pass the bytes to [`Lane::set_encoded`].
    Renumber { batch: u64, bytes: Bytes, stamp: BatchProducer },
    /// Send the same bytes again.
    Retry { batch: u64, bytes: Bytes },
}

/// What a lane needs next.
#[derive(Debug)]
pub(crate) enum LaneAction {
    Send(BatchSend),
    /// A producer id of a later generation than this one.
    Identity(u32),
    /// A connection to the partition's leader. Requested once. `misrouted`: the last connection did not lead to the
    /// partition.
    Route {
        misrouted: bool,
    },
    /// Ask the lane again at this time.
    WakeAt(Instant),
    /// Nothing until the next event.
    Idle,
}

/// The effect of a rejection.
#[derive(Debug)]
pub(crate) enum RejectionOutcome {
    /// The batch will be sent again.
    Retry,
    /// The batch failed.
    Failed(Batch, WriteOutcome),
    /// The batch had failed before.
    Settled,
}

/// See the module documentation.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts; their combinations are the point")]
pub(crate) struct Lane {
    open: Option<Batch>,
    /// Closed batches that were not sent.
    queue: VecDeque<Batch>,
    /// Batches sent under `identity` and not settled, in order of sequence.
    sent: VecDeque<Batch>,
    in_flight: usize,
    /// Send nothing until all requests in flight are answered.
    drain: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    identity: Option<Identity>,
    generation: u32,
    next_sequence: i32,
    /// A batch of the current identity was acknowledged in this partition.
    acknowledged: bool,
    sequence_broken: bool,
    route: Route,
    /// The last route did not lead to the partition.
    misrouted: bool,
    /// In the producer core's queue of ready lanes.
    pub(crate) is_ready: bool,
    /// The time for which the producer core has a timer for the oldest batch.
    pub(crate) expiry_armed: Option<Instant>,
}

/// The state of the connection to the partition's leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    Down,
    Asked,
    Up,
}

impl Lane {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            open: None,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            in_flight: 0,
            drain: false,
            retry_at: None,
            backoff,
            identity: None,
            generation: 0,
            next_sequence: 0,
            acknowledged: false,
            sequence_broken: false,
            route: Route::Down,
            misrouted: false,
            is_ready: false,
            expiry_armed: None,
        }
    }

    // Getters.

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.queue.is_empty() && self.sent.iter().all(|batch| batch.settled)
    }

    pub(crate) fn is_routed(&self) -> bool {
        self.route == Route::Up
    }

    /// Returns whether a batch started now would wait for earlier batches, a retry pause or a connection. A partition
    /// that was never written to is not busy: how long connecting takes is only known once it is tried.
    pub(crate) fn is_busy(&self, limits: &LaneLimits) -> bool {
        let queued = !self.queue.is_empty() || self.retry_at.is_some();
        let disconnected = self.route != Route::Up && !self.is_empty();
        queued || disconnected || self.in_flight >= self.in_flight_max(limits)
    }

    /// Returns the number of unsettled batches, including the open one.
    pub(crate) fn backlog(&self) -> usize {
        self.sent.len() + self.queue.len() + usize::from(self.open.is_some())
    }

    pub(crate) fn has_open(&self) -> bool {
        self.open.is_some()
    }

    fn in_flight_max(&self, limits: &LaneLimits) -> usize {
        let careful = limits.idempotent && (self.sequence_broken || !self.acknowledged);
        if careful { 1 } else { limits.in_flight_max }
    }

    /// Returns the open batch.
    pub(crate) fn open_mut(&mut self) -> Option<&mut Batch> {
        self.open.as_mut()
    }

    /// Returns the tickets of all unsettled batches.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        let sent = self.sent.iter().filter(|batch| !batch.settled);
        sent.chain(&self.queue).chain(&self.open).map(|batch| &batch.ticket)
    }

    /// Returns when the oldest batch expires.
    pub(crate) fn expires_at(&self, limits: &LaneLimits) -> Option<Instant> {
        let sent = self.sent.iter().find(|batch| !batch.settled);
        let oldest = sent.or(self.queue.front()).or(self.open.as_ref())?;
        Some(oldest.created_at + limits.delivery_timeout)
    }

    // Commands.

    /// Opens a batch. Panics if one is open.
    pub(crate) fn begin(&mut self, id: u64, buffer: Box<BatchBuilder>, now: Instant) -> &mut Batch {
        assert!(self.open.is_none(), "a batch is open");
        self.open.insert(Batch {
            id,
            ticket: Arc::default(),
            records: 0,
            charged: 0,
            created_at: now,
            payload: Payload::Building(buffer),
            state: BatchState::Unsent,
            maybe_written: false,
            rejected: false,
            settled: false,
            renumbered: 0,
        })
    }

    /// Closes the open batch. Returns whether there was one.
    pub(crate) fn close_open(&mut self) -> bool {
        let open = self.open.take();
        let closed = open.is_some();
        self.queue.extend(open);
        closed
    }

    /// Sends everything queued without lingering.
    pub(crate) fn flush(&mut self) {
        self.close_open();
    }

    /// Sets whether there is a connection to send on.
    pub(crate) fn set_routed(&mut self, up: bool) {
        self.route = if up { Route::Up } else { Route::Down };
    }

    /// Returns what the lane needs next. `identity` is the producer's newest.
    pub(crate) fn next(
        &mut self,
        limits: &LaneLimits,
        identity: Option<Identity>,
        now: Instant,
    ) -> LaneAction {
        if self.drain && self.in_flight > 0 {
            return LaneAction::Idle;
        }
        self.drain = false;
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            return LaneAction::WakeAt(at);
        }
        self.retry_at = None;
        match self.route {
            Route::Up => {}
            Route::Down if !self.is_empty() => {
                self.route = Route::Asked;
                return LaneAction::Route { misrouted: std::mem::take(&mut self.misrouted) };
            }
            Route::Down | Route::Asked => return LaneAction::Idle,
        }
        let is_rejected = self.sent.front().is_some_and(|batch| batch.rejected);
        if self.sequence_broken && self.in_flight == 0 && is_rejected {
            self.requeue_sent();
        }
        if self.in_flight >= self.in_flight_max(limits) {
            return LaneAction::Idle;
        }
        if let Some(batch) = self.sent.iter_mut().find(|batch| batch.state == BatchState::Retry) {
            let Payload::Encoded(bytes) = &batch.payload else { panic!("a batch to retry has its bytes") };
            batch.state = BatchState::InFlight;
            self.in_flight += 1;
            return LaneAction::Send(BatchSend::Retry { batch: batch.id, bytes: bytes.clone() });
        }
        if limits.idempotent && self.sent.len() >= if self.sequence_broken { 1 } else { limits.in_flight_max }
        {
            return LaneAction::Idle;
        }
        self.next_fresh(limits, identity, now)
    }

    fn next_fresh(&mut self, limits: &LaneLimits, identity: Option<Identity>, now: Instant) -> LaneAction {
        if self.queue.is_empty() {
            let Some(open) = &self.open else { return LaneAction::Idle };
            let due = open.created_at + limits.linger;
            if now < due {
                return LaneAction::WakeAt(due);
            }
            self.close_open();
        }
        let mut stamp = BatchProducer::NONE;
        if limits.idempotent {
            if self.sequence_broken || self.identity.is_none() {
                let Some(identity) = identity.filter(|identity| identity.generation > self.generation) else {
                    return LaneAction::Identity(self.generation);
                };
                self.identity = Some(identity);
                self.generation = identity.generation;
                self.next_sequence = 0;
                self.acknowledged = false;
                self.sequence_broken = false;
            }
            let identity = self.identity.expect("just adopted");
            stamp =
                BatchProducer { id: identity.producer, epoch: identity.epoch, sequence: self.next_sequence };
        }
        let mut batch = self.queue.pop_front().expect("just checked");
        batch.state = BatchState::InFlight;
        batch.rejected = false;
        self.next_sequence = stamp.sequence_after(batch.records);
        self.in_flight += 1;
        let id = batch.id;
        let send = match std::mem::replace(&mut batch.payload, Payload::Encoding) {
            Payload::Building(buffer) => BatchSend::Fresh { batch: id, buffer, stamp },
            Payload::Encoded(bytes) => BatchSend::Renumber { batch: id, bytes, stamp },
            Payload::Encoding | Payload::Gone => panic!("an unsent batch has its records"),
        };
        self.sent.push_back(batch);
        LaneAction::Send(send)
    }

    /// Moves all sent batches back to the queue. They were certainly not written and will be numbered under a new
    /// identity.
    fn requeue_sent(&mut self) {
        while let Some(mut batch) = self.sent.pop_back() {
            if batch.settled {
                continue;
            }
            batch.state = BatchState::Unsent;
            batch.maybe_written = false;
            self.queue.push_front(batch);
        }
        self.identity = None;
    }

    // Events.

    /// Stores the encoded bytes of a batch.
    pub(crate) fn set_encoded(&mut self, id: u64, bytes: &Bytes) {
        if let Some(batch) = self.sent.iter_mut().find(|batch| batch.id == id && !batch.settled) {
            batch.payload = Payload::Encoded(bytes.clone());
        }
    }

    /// A batch was acknowledged, or written to the socket if no acknowledgement was requested. Returns none if it had
    /// failed before.
    pub(crate) fn handle_acked(&mut self, id: u64) -> Option<Batch> {
        let at = self.in_flight_at(id)?;
        self.in_flight -= 1;
        self.acknowledged = true;
        self.backoff.succeed();
        let batch = &mut self.sent[at];
        batch.state = BatchState::Done;
        let settled = batch.settled;
        let batch = batch.split_off();
        self.forget_done();
        (!settled).then_some(batch)
    }

    /// The broker rejected a batch.
    pub(crate) fn handle_rejection(
        &mut self,
        id: u64,
        code: ErrorCode,
        limits: &LaneLimits,
        now: Instant,
        jitter: f64,
    ) -> RejectionOutcome {
        let Some(at) = self.in_flight_at(id) else { return RejectionOutcome::Settled };
        self.in_flight -= 1;
        if self.sent[at].settled {
            self.remove(at);
            self.sequence_broken = limits.idempotent;
            return RejectionOutcome::Settled;
        }
        let out_of_order = limits.idempotent && code == ErrorCode::OutOfOrderSequence;
        if out_of_order && at > 0 {
            // Its predecessor was rejected and must be sent again first.
            self.retry(at);
            return RejectionOutcome::Retry;
        }
        let batch = &mut self.sent[at];
        if out_of_order && batch.renumbered < RENUMBERED_MAX {
            batch.renumbered += 1;
            batch.rejected = true;
            self.sequence_broken = true;
            self.retry(at);
            return RejectionOutcome::Retry;
        }
        if code.is_retryable() {
            if code.is_misrouted() {
                self.route = Route::Down;
                self.misrouted = true;
            }
            self.retry(at);
            self.retry_at = Some(now + self.backoff.fail(jitter));
            return RejectionOutcome::Retry;
        }
        if matches!(code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition) {
            // A topic of that name may have been recreated; look it up again.
            self.route = Route::Down;
            self.misrouted = true;
        }
        let batch = self.remove(at);
        self.sequence_broken = limits.idempotent;
        let outcome = if batch.maybe_written { WriteOutcome::Unknown } else { WriteOutcome::NotWritten };
        RejectionOutcome::Failed(batch, outcome)
    }

    /// The connection was lost before an answer; `sent`: the broker may have received the request.
    pub(crate) fn handle_lost(&mut self, id: u64, sent: bool, limits: &LaneLimits) {
        self.route = Route::Down;
        let Some(at) = self.in_flight_at(id) else { return };
        self.in_flight -= 1;
        let batch = &mut self.sent[at];
        if batch.settled {
            self.remove(at);
            self.sequence_broken = limits.idempotent;
            return;
        }
        batch.state = BatchState::Retry;
        batch.maybe_written |= sent;
    }

    /// Removes the batches that are older than the delivery timeout.
    pub(crate) fn handle_expired(
        &mut self,
        limits: &LaneLimits,
        now: Instant,
        out: &mut Vec<(Batch, WriteOutcome)>,
    ) {
        let old = |batch: &Batch| batch.created_at + limits.delivery_timeout <= now;
        self.give_up(limits, old, out);
    }

    /// Removes all batches.
    pub(crate) fn handle_close(&mut self, limits: &LaneLimits, out: &mut Vec<(Batch, WriteOutcome)>) {
        self.give_up(limits, |_| true, out);
    }

    fn give_up(
        &mut self,
        limits: &LaneLimits,
        which: impl Fn(&Batch) -> bool,
        out: &mut Vec<(Batch, WriteOutcome)>,
    ) {
        let mut at = 0;
        while let Some(batch) = self.sent.get_mut(at) {
            if batch.settled || !which(batch) {
                at += 1;
            } else if batch.state == BatchState::InFlight {
                // Its answer will still show whether there is a gap.
                out.push((batch.split_off(), WriteOutcome::Unknown));
                at += 1;
            } else {
                let batch = self.remove(at);
                let outcome =
                    if batch.maybe_written { WriteOutcome::Unknown } else { WriteOutcome::NotWritten };
                self.sequence_broken = limits.idempotent;
                out.push((batch, outcome));
            }
        }
        while self.queue.front().is_some_and(&which) {
            out.extend(self.queue.pop_front().map(|batch| (batch, WriteOutcome::NotWritten)));
        }
        if self.queue.is_empty() && self.open.as_ref().is_some_and(which) {
            out.extend(self.open.take().map(|batch| (batch, WriteOutcome::NotWritten)));
        }
    }

    fn retry(&mut self, at: usize) {
        self.sent[at].state = BatchState::Retry;
        self.drain = true;
    }

    fn remove(&mut self, at: usize) -> Batch {
        let batch = self.sent.remove(at).expect("it was found there");
        self.forget_done();
        batch
    }

    /// Removes acknowledged batches that have no unsettled batch before them.
    fn forget_done(&mut self) {
        while self.sent.front().is_some_and(|batch| batch.state == BatchState::Done) {
            self.sent.pop_front();
        }
    }

    fn in_flight_at(&self, id: u64) -> Option<usize> {
        self.sent.iter().position(|batch| batch.id == id && batch.state == BatchState::InFlight)
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
