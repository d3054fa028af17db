//! One producer: sends when the schedule or the number outstanding says so, and notes what becomes of each record.

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

/// How late a record of an open loop may be sent before it counts as late.
pub(crate) const LATE: u64 = 20_000_000;

/// How often an open loop wakes at most: what comes due in between is sent together, this much late at most.
const WAKE: u64 = 100_000;

/// A record made ready.
struct Ready {
    key: Option<Bytes>,
    pending: Pending,
}

/// A record whose fate is not known.
#[derive(Clone, Copy)]
struct Pending {
    intended: u64,
    sent: u64,
    sequence: u64,
    partition: u32,
    crc: u32,
}

/// See the module's doc.
pub(crate) struct Sender {
    control: Arc<Control>,
    recorder: Rc<RefCell<Recorder>>,
    producer: Box<dyn Producer>,
    which: u32,
    /// None: the closed loop.
    schedule: Option<Schedule>,
    outstanding: usize,
    /// Records that may still be made ready.
    left: u64,
    record_bytes: usize,
    chunk: usize,
    routes: Routes,
    values: Values,
    /// Values made ready, and their records from `ready_at` on.
    ready_values: Bytes,
    ready: Vec<Ready>,
    ready_at: usize,
    /// By tag.
    pending: Vec<Pending>,
    free: Vec<u32>,
    acks: Vec<Ack>,
    sent: Sent,
    alarm: Alarm,
    /// Wakes the task at the end of sending, and at the end of waiting.
    deadline: Pin<Box<Sleep>>,
    ending: bool,
    /// The last time that the client or the bound took no more.
    held_back_at: u64,
}

/// What a sender is made from.
pub(crate) struct SenderPlan {
    pub(crate) which: u32,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) outstanding: usize,
    /// Records after which it ends; none: it ends by the clock.
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
        let alarm = Alarm::new().map_err(|e| BackendError(format!("the kernel gives no timer: {e}")))?;
        let deadline = Box::pin(tokio::time::sleep_until(control.instant(control.to).into()));
        Ok(Self {
            control,
            recorder,
            producer,
            which: plan.which,
            schedule: plan.schedule,
            outstanding: plan.outstanding,
            left: plan.limit.unwrap_or(u64::MAX),
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

    /// Sends until the run's end and waits for what is out. What it has sent.
    pub(crate) async fn run(mut self) -> Sent {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        self.sent
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.producer.poll_acks(cx, &mut self.acks).is_ready() {
            let now = self.control.now();
            self.settle(now);
        }
        let now = self.control.now();
        let done = self.left == 0 && self.ready.is_empty();
        if self.ending || done || now >= self.control.to {
            return self.end(cx, now);
        }
        let _ = self.deadline.as_mut().poll(cx);
        if self.ready.is_empty() {
            self.make_ready(now);
        }
        let refused = self.send(now);
        if refused || self.in_flight() >= self.outstanding {
            self.held_back_at = now;
            return Poll::Pending;
        }
        match &self.schedule {
            None => cx.waker().wake_by_ref(),
            Some(schedule) if schedule.next() <= now => cx.waker().wake_by_ref(),
            Some(schedule) => {
                // Those that come due shortly after each other go together, at the same moments for all producers.
                let at = schedule.next().div_ceil(WAKE) * WAKE;
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

    /// Makes the records ready whose moment has come, or for which the closed loop has room: a chunk at most.
    fn make_ready(&mut self, now: u64) {
        let room = self.outstanding.saturating_sub(self.in_flight()).min(self.chunk);
        let room = self.left.min(room as u64) as usize;
        let is_due =
            |schedule: &Option<Schedule>| schedule.as_ref().is_none_or(|schedule| schedule.next() <= now);
        if room == 0 || !is_due(&self.schedule) {
            return;
        }
        let producer = self.which;
        let mut chunk = self.values.begin();
        while self.ready.len() < room && is_due(&self.schedule) {
            let intended = self.schedule.as_mut().map_or(now, Schedule::take);
            let (partition, key) = self.routes.next();
            let sequence = self.sent.number(partition);
            let crc = chunk.stamp(&Stamp { producer, partition, sequence, intended, slot: chunk.slot() });
            let pending = Pending { intended, sent: 0, sequence, partition, crc };
            self.ready.push(Ready { key, pending });
        }
        self.left -= self.ready.len() as u64;
        self.ready_values = chunk.finish();
    }

    /// Gives the client what is ready. True if it takes no more.
    fn send(&mut self, now: u64) -> bool {
        let mut recorder = self.recorder.borrow_mut();
        while let Some(Ready { key, pending }) = self.ready.get_mut(self.ready_at) {
            pending.sent = now;
            let place = self.free.pop().unwrap_or_else(|| {
                self.pending.push(*pending);
                self.pending.len() as u32 - 1
            });
            self.pending[place as usize] = *pending;
            let at = self.ready_at * self.record_bytes;
            let value = self.ready_values.slice(at..at + self.record_bytes);
            let record = Outgoing { tag: place.into(), partition: pending.partition, key: key.take(), value };
            if let Err(record) = self.producer.send(record) {
                *key = record.key;
                self.free.push(place);
                return true;
            }
            self.ready_at += 1;
            recorder.sent(pending.intended, now, LATE, self.held_back_at >= pending.intended);
        }
        if self.ready_at > 0 {
            self.ready.clear();
            self.ready_at = 0;
            self.values.end(std::mem::take(&mut self.ready_values));
        }
        false
    }

    /// Notes the fates that have become known.
    fn settle(&mut self, now: u64) {
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
                    self.sent.gave_up(pending.partition, pending.sequence, pending.crc);
                    recorder.error(&kind, 1);
                }
            }
        }
    }

    /// Sends no more, and waits for what is out.
    fn end(&mut self, cx: &mut Context<'_>, now: u64) -> Poll<()> {
        if !self.ending {
            self.ending = true;
            self.producer.flush();
            self.deadline.as_mut().reset(self.control.instant(self.control.give_up).into());
            let mut recorder = self.recorder.borrow_mut();
            // Made ready and not sent: their sequence numbers are used, and nothing of them is anywhere.
            for Ready { pending, .. } in self.ready.drain(..).skip(self.ready_at) {
                self.sent.gave_up(pending.partition, pending.sequence, pending.crc);
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
        self.free.iter().for_each(|place| free[*place as usize] = true);
        let mut recorder = self.recorder.borrow_mut();
        for (pending, _) in self.pending.iter().zip(free).filter(|(_, free)| !free) {
            self.sent.gave_up(pending.partition, pending.sequence, pending.crc);
            recorder.error("not acknowledged by the end", 1);
            // As late as it is by now, at least.
            recorder.acknowledged(pending.intended, pending.sent, now);
        }
        Poll::Ready(())
    }
}
