//! A producer of the generator: sends records as the schedule or the number of unacknowledged records allows, and records their outcomes.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Sleep;

use super::alarm::Alarm;
use super::check::Sent;
use super::control::Control;
use super::payload::{Stamp, Values};
use super::recorder::Recorder;
use super::routes::Routes;
use super::schedule::Schedule;
use crate::backend::{Ack, BackendError, Outgoing, Producer};

/// Delay, in nanoseconds, above which a record of an open loop counts as late.
pub(crate) const LATE_NS: u64 = 20_000_000;

/// Minimum time between wake-ups of an open loop, in nanoseconds. Records that become due meanwhile are sent together, late by at most this.
const WAKE_INTERVAL_NS: u64 = 100_000;

/// A record ready to be sent.
struct Ready {
    key: Option<Bytes>,
    pending: Pending,
}

/// A record in flight.
#[derive(Clone, Copy)]
struct Pending {
    intended: u64,
    sent: u64,
    sequence: u64,
    partition: u32,
    crc: u32,
}

/// A producer of the generator.
pub(crate) struct Sender {
    control: Arc<Control>,
    recorder: Rc<RefCell<Recorder>>,
    producer: Box<dyn Producer>,
    which: u32,
    /// `None` in a closed loop.
    schedule: Option<Schedule>,
    outstanding: usize,
    /// Number of records that may still be prepared.
    remaining: u64,
    record_bytes: usize,
    chunk: usize,
    routes: Routes,
    values: Values,
    /// Values of the records in `ready`.
    ready_values: Bytes,
    ready: Vec<Ready>,
    /// Index of the first record in `ready` that is not sent.
    ready_at: usize,
    /// Records in flight, indexed by tag; those in `free` are not in use.
    pending: Vec<Pending>,
    free: Vec<u32>,
    acks: Vec<Ack>,
    sent: Sent,
    alarm: Alarm,
    /// Wakes the task at the end of sending, and at the end of waiting for acknowledgements.
    deadline: Pin<Box<Sleep>>,
    ending: bool,
    /// The last time at which the client's buffer was full or too many records were outstanding.
    held_back_at: u64,
}

/// Parameters of a sender.
pub(crate) struct SenderPlan {
    pub(crate) which: u32,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) outstanding: usize,
    /// Number of records to send. `None` ends the sender by the clock.
    pub(crate) limit: Option<u64>,
    pub(crate) record_bytes: usize,
    pub(crate) chunk: usize,
    pub(crate) routes: Routes,
    pub(crate) values: Values,
    pub(crate) partitions: u32,
}

impl Sender {
    pub(crate) fn new(
        plan: SenderPlan,
        producer: Box<dyn Producer>,
        control: Arc<Control>,
        recorder: Rc<RefCell<Recorder>>,
    ) -> Result<Self, BackendError> {
        let alarm = Alarm::new().map_err(|e| BackendError(format!("cannot create a timer: {e}")))?;
        let deadline = Box::pin(tokio::time::sleep_until(control.instant(control.to).into()));
        Ok(Self {
            control,
            recorder,
            producer,
            which: plan.which,
            schedule: plan.schedule,
            outstanding: plan.outstanding,
            remaining: plan.limit.unwrap_or(u64::MAX),
            record_bytes: plan.record_bytes,
            chunk: plan.chunk,
            routes: plan.routes,
            values: plan.values,
            ready_values: Bytes::new(),
            ready: Vec::new(),
            ready_at: 0,
            pending: Vec::new(),
            free: Vec::new(),
            acks: Vec::new(),
            sent: Sent::new(plan.partitions),
            alarm,
            deadline,
            ending: false,
            held_back_at: 0,
        })
    }

    /// Sends until the end of the run and waits for outstanding acknowledgements. Returns the records sent.
    pub(crate) async fn run(mut self) -> Sent {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.sent
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.producer.poll_acks(cx, &mut self.acks).is_ready() {
            let now = self.control.now();
            self.process_acks(now);
        }
        let now = self.control.now();
        let done = self.remaining == 0 && self.ready.is_empty();
        if self.ending || done || now >= self.control.to {
            return self.end(cx, now);
        }
        let _ = self.deadline.as_mut().poll(cx);
        if self.ready.is_empty() {
            self.prepare(now);
        }
        let is_full = self.send(now);
        if is_full || self.in_flight() >= self.outstanding {
            self.held_back_at = now;
            return Poll::Pending;
        }
        match &self.schedule {
            None => cx.waker().wake_by_ref(),
            Some(schedule) if schedule.next() <= now => cx.waker().wake_by_ref(),
            Some(schedule) => {
                // Round up, so that records that become due soon after each other are sent together, at the same time for all producers.
                let at = schedule.next().div_ceil(WAKE_INTERVAL_NS) * WAKE_INTERVAL_NS;
                if self.alarm.poll(cx, at, now).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Pending
    }

    fn in_flight(&self) -> usize {
        self.pending.len() - self.free.len()
    }

    /// Prepares the records that are due, or that the closed loop allows: at most a chunk.
    fn prepare(&mut self, now: u64) {
        let count_max = self.outstanding.saturating_sub(self.in_flight()).min(self.chunk);
        let count_max = self.remaining.min(count_max as u64) as usize;
        let is_due =
            |schedule: &Option<Schedule>| schedule.as_ref().is_none_or(|schedule| schedule.next() <= now);
        if count_max == 0 || !is_due(&self.schedule) {
            return;
        }
        let producer = self.which;
        let mut chunk = self.values.begin();
        while self.ready.len() < count_max && is_due(&self.schedule) {
            let intended = self.schedule.as_mut().map_or(now, Schedule::take);
            let (partition, key) = self.routes.next();
            let sequence = self.sent.next_sequence(partition);
            let crc = chunk.stamp(&Stamp { producer, partition, sequence, intended, slot: chunk.slot() });
            let pending = Pending { intended, sent: 0, sequence, partition, crc };
            self.ready.push(Ready { key, pending });
        }
        self.remaining -= self.ready.len() as u64;
        self.ready_values = chunk.finish();
    }

    /// Passes the prepared records to the client. Returns true if its buffer is full.
    fn send(&mut self, now: u64) -> bool {
        let mut recorder = self.recorder.borrow_mut();
        while let Some(Ready { key, pending }) = self.ready.get_mut(self.ready_at) {
            pending.sent = now;
            let tag = self.free.pop().unwrap_or_else(|| {
                self.pending.push(*pending);
                self.pending.len() as u32 - 1
            });
            self.pending[tag as usize] = *pending;
            let at = self.ready_at * self.record_bytes;
            let value = self.ready_values.slice(at..at + self.record_bytes);
            let record = Outgoing { tag: tag.into(), partition: pending.partition, key: key.take(), value };
            if let Err(record) = self.producer.send(record) {
                *key = record.key;
                self.free.push(tag);
                return true;
            }
            self.ready_at += 1;
            recorder.sent(pending.intended, now, LATE_NS, self.held_back_at >= pending.intended);
        }
        if self.ready_at > 0 {
            self.ready.clear();
            self.ready_at = 0;
            self.values.end(std::mem::take(&mut self.ready_values));
        }
        false
    }

    /// Records the outcomes in `acks`.
    fn process_acks(&mut self, now: u64) {
        let mut recorder = self.recorder.borrow_mut();
        let acknowledged = self.acks.iter().filter(|ack| ack.result.is_ok()).count() as u64;
        if acknowledged > 0 {
            recorder.acknowledgements(acknowledged, acknowledged * self.record_bytes as u64, now);
        }
        for ack in self.acks.drain(..) {
            let pending = self.pending[ack.tag as usize];
            self.free.push(ack.tag as u32);
            match ack.result {
                Ok(_) => {
                    self.sent.acknowledged(pending.partition, pending.crc);
                    recorder.acknowledged(pending.intended, pending.sent, now);
                }
                Err(kind) => {
                    self.sent.failed(pending.partition, pending.sequence, pending.crc);
                    recorder.error(&kind, 1);
                }
            }
        }
    }

    /// Stops sending, and waits for outstanding acknowledgements.
    fn end(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<()> {
        if !self.ending {
            self.ending = true;
            self.producer.flush();
            self.deadline.as_mut().reset(self.control.instant(self.control.give_up).into());
            let mut recorder = self.recorder.borrow_mut();
            // Records that were prepared but not sent have used sequence numbers, so count them as failed.
            for Ready { pending, .. } in self.ready.drain(..).skip(self.ready_at) {
                self.sent.failed(pending.partition, pending.sequence, pending.crc);
                recorder.unsent(u64::from(self.schedule.is_some()));
            }
            if let Some(schedule) = &mut self.schedule {
                while schedule.next() < self.control.to {
                    schedule.take();
                    recorder.unsent(1);
                }
            }
        }
        if self.in_flight() == 0 {
            return Poll::Ready(());
        }
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut free = vec![false; self.pending.len()];
        self.free.iter().for_each(|tag| free[*tag as usize] = true);
        let mut recorder = self.recorder.borrow_mut();
        for (pending, _) in self.pending.iter().zip(free).filter(|(_, free)| !free) {
            self.sent.failed(pending.partition, pending.sequence, pending.crc);
            recorder.error("not acknowledged by the end", 1);
            // Its latency is at least the time until now.
            recorder.acknowledged(pending.intended, pending.sent, now);
        }
        Poll::Ready(())
    }
}
