//! What the shards of a process share: a queue for each pair of shards, and the means to wake a sleeping shard.
//!
//! A shard that is about to sleep sets a flag and then checks its queues once more. A sender checks the flag after sending. With a
//! full fence between the two steps on both sides, at least one of them sees the other's step, so no message waits for a sleeping
//! shard. A shard that is awake is never interrupted.

mod spsc;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;

use self::spsc::{Receiver, Sender, queue};
use super::jobs::JobDone;
use super::limits::MESH_QUEUE_MESSAGES;
use crate::plane::{BACKLOG_MAX, Endpoints, ListenerId, ShardIndex};

/// An item in the queue between two shards.
pub(super) enum Envelope<M> {
    /// A message of the application.
    Message(M),
    /// A connection that moves.
    Connection(Box<Moved<M>>),
}

/// A connection that is moving to another shard.
pub(super) struct Moved<M> {
    pub(super) socket: OwnedFd,
    pub(super) listener: ListenerId,
    pub(super) endpoints: Endpoints,
    pub(super) payload: M,
    pub(super) unread: Bytes,
}

/// The part of a shard that every thread of the process may access.
pub(crate) struct Doorbell {
    /// Pipe for threads without a ring. It is not an eventfd, because the shard's ring signals its host through an eventfd, and the
    /// kernel does not do that from inside a write to another eventfd: it defers the first signal and drops all later ones (seen on
    /// 6.18), so a shard asleep in its host would never be woken again.
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// The shard's ring, for wake-ups from ring to ring. A separate descriptor, so that the number can never refer to another ring:
    /// neither one of ours nor, worse, one of glommio's, which would take a wake-up for one of its own completions.
    ring: OnceLock<OwnedFd>,
    sleeping: AtomicBool,
    ended: AtomicBool,
    shutdown: AtomicBool,
    jobs_done: Mutex<Vec<JobDone>>,
}

impl Doorbell {
    fn new() -> std::io::Result<Self> {
        let (read_end, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Writers never block. The read end stays blocking: the ring does not wait for data on a non-blocking one.
        rustix::fs::fcntl_setfl(&write_end, OFlags::NONBLOCK)?;
        Ok(Self {
            read_end,
            write_end,
            ring: OnceLock::new(),
            sleeping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            jobs_done: Mutex::new(Vec::new()),
        })
    }

    /// Returns the descriptor that the shard reads.
    pub(super) fn read_fd(&self) -> RawFd {
        self.read_end.as_raw_fd()
    }

    /// Wakes the shard, from any thread.
    fn notify(&self) {
        // This fails only if the pipe is full, in which case the shard is being woken anyway.
        let _ = rustix::io::write(&self.write_end, &[1]);
    }

    /// Makes the shard call `on_shutdown`.
    pub(crate) fn request_shutdown(&self) {
        self.shutdown.store(true, Ordering::Release);
        self.notify();
    }

    pub(super) fn is_shutdown_requested(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    /// Passes the result of a job to the shard.
    pub(super) fn job_done(&self, done: JobDone) {
        self.jobs_done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.notify();
    }

    pub(super) fn take_jobs_done(&self) -> Vec<JobDone> {
        std::mem::take(&mut *self.jobs_done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All doorbells, by shard.
pub(crate) type Doorbells = Arc<[Doorbell]>;

pub(crate) fn doorbells(shards: u16) -> std::io::Result<Doorbells> {
    (0..shards).map(|_| Doorbell::new()).collect()
}

struct Outbox<M> {
    sender: Sender<Envelope<M>>,
    /// Messages that do not fit in the queue.
    overflow: VecDeque<Envelope<M>>,
    /// Whether something was sent since the receiver was last woken.
    dirty: bool,
}

/// One shard's ends of all its queues.
pub(crate) struct Mailbox<M> {
    shard: ShardIndex,
    doorbells: Doorbells,
    outboxes: Vec<Outbox<M>>,
    inboxes: Vec<Receiver<Envelope<M>>>,
    /// Number of messages in the overflow of all outboxes.
    overflow: usize,
    /// Whether some of them found space since the application was last notified.
    overflow_moved: bool,
}

/// Creates queues from every shard to every other.
pub(crate) fn mailboxes<M: Send>(doorbells: &Doorbells) -> Vec<Mailbox<M>> {
    let shards = doorbells.len();
    let mut boxes: Vec<Mailbox<M>> = (0..shards)
        .map(|shard| Mailbox {
            shard: shard as ShardIndex,
            doorbells: Arc::clone(doorbells),
            outboxes: Vec::new(),
            inboxes: Vec::new(),
            overflow: 0,
            overflow_moved: false,
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            let (sender, receiver) = queue(if from == to { 1 } else { MESH_QUEUE_MESSAGES });
            boxes[from].outboxes.push(Outbox { sender, overflow: VecDeque::new(), dirty: false });
            boxes[to].inboxes.push(receiver);
        }
    }
    boxes
}

impl<M: Send> Mailbox<M> {
    pub(crate) fn shards(&self) -> u16 {
        self.outboxes.len() as u16
    }

    pub(super) fn shard(&self) -> ShardIndex {
        self.shard
    }

    pub(super) fn doorbell(&self) -> &Doorbell {
        &self.doorbells[usize::from(self.shard)]
    }

    /// Lets other shards wake this one through its ring.
    pub(super) fn open(&self, ring: OwnedFd) {
        assert!(self.doorbell().ring.set(ring).is_ok(), "a shard has one ring");
    }

    /// Marks this shard as ended: it takes no more messages.
    pub(super) fn close(&self) {
        self.doorbell().ended.store(true, Ordering::Release);
    }

    /// Sends to another shard.
    pub(super) fn post(&mut self, to: ShardIndex, envelope: Envelope<M>) {
        debug_assert_ne!(to, self.shard, "messages to itself need no queue");
        let outbox = &mut self.outboxes[usize::from(to)];
        outbox.dirty = true;
        if outbox.overflow.is_empty() {
            if let Err(envelope) = outbox.sender.push(envelope) {
                outbox.overflow.push_back(envelope);
                self.overflow += 1;
            }
            return;
        }
        assert!(outbox.overflow.len() < BACKLOG_MAX, "{BACKLOG_MAX} messages wait for shard {to}");
        outbox.overflow.push_back(envelope);
        self.overflow += 1;
    }

    /// Moves overflowing messages into the queues as far as they fit, and wakes shards that have work. `wake` wakes one through its
    /// ring.
    pub(super) fn flush(&mut self, mut wake: impl FnMut(RawFd)) {
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            if !outbox.dirty && outbox.overflow.is_empty() {
                continue;
            }
            let doorbell = &self.doorbells[to];
            let before = outbox.overflow.len();
            if doorbell.ended.load(Ordering::Acquire) {
                outbox.overflow.clear();
            }
            outbox.drain_overflow();
            if !outbox.overflow.is_empty() {
                outbox.sender.request_space();
                outbox.drain_overflow();
            }
            let moved = before - outbox.overflow.len();
            self.overflow -= moved;
            self.overflow_moved |= moved > 0;
            if outbox.dirty {
                outbox.dirty = false;
                doorbell.wake_if_asleep(&mut wake);
            }
        }
    }

    /// Returns the number of messages that wait for space in another shard's queue.
    pub(super) fn overflow(&self) -> usize {
        self.overflow
    }

    /// Returns whether some of them found space since the last `take_*`.
    pub(super) fn has_overflow_moved(&self) -> bool {
        self.overflow_moved
    }

    pub(super) fn take_overflow_moved(&mut self) -> bool {
        std::mem::take(&mut self.overflow_moved)
    }

    /// Returns whether messages wait for space in another shard's queue.
    pub(super) fn has_overflow(&self) -> bool {
        self.outboxes.iter().any(|outbox| !outbox.overflow.is_empty())
    }

    /// Returns the next message from another shard.
    pub(super) fn pop(&mut self, from: ShardIndex) -> Option<Envelope<M>> {
        self.inboxes[usize::from(from)].pop()
    }

    /// Wakes a sender that ran out of space. Must be called after taking messages.
    pub(super) fn notify_of_space(&mut self, from: ShardIndex, mut wake: impl FnMut(RawFd)) {
        if self.inboxes[usize::from(from)].take_space_request() {
            self.doorbells[usize::from(from)].wake_if_asleep(&mut wake);
        }
    }

    /// Returns whether there are messages to take, or space for overflowing ones. (A receiver that makes space while the sender is
    /// still awake wakes nobody, so the sender has to check before it sleeps.)
    pub(super) fn has_work(&mut self) -> bool {
        self.inboxes.iter_mut().any(|inbox| !inbox.is_empty())
            || self.outboxes.iter().any(|out| !out.overflow.is_empty() && out.sender.has_space())
    }

    /// Marks this shard as sleeping. Afterwards the caller must check once more for everything that could keep it awake.
    pub(super) fn mark_asleep(&self) {
        self.doorbell().sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn mark_awake(&self) {
        self.doorbell().sleeping.store(false, Ordering::Relaxed);
    }
}

impl<M: Send> Outbox<M> {
    fn drain_overflow(&mut self) {
        while let Some(envelope) = self.overflow.pop_front() {
            self.dirty = true;
            if let Err(envelope) = self.sender.push(envelope) {
                self.overflow.push_front(envelope);
                return;
            }
        }
    }
}

impl Doorbell {
    fn wake_if_asleep(&self, wake: &mut impl FnMut(RawFd)) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            match self.ring.get() {
                Some(ring) => wake(ring.as_raw_fd()),
                None => self.notify(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(envelope: Option<Envelope<u32>>) -> Option<u32> {
        match envelope? {
            Envelope::Message(m) => Some(m),
            Envelope::Connection(_) => None,
        }
    }

    #[test]
    fn messages_beyond_the_queues_capacity_wait_at_the_sender_and_keep_their_order() {
        let doorbells = doorbells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&doorbells);
        let count = MESH_QUEUE_MESSAGES as u32 * 3 + 5;
        for n in 0..count {
            boxes[0].post(1, Envelope::Message(n));
        }
        assert!(boxes[0].has_overflow() && !boxes[0].has_overflow_moved());
        assert_eq!(boxes[0].overflow(), count as usize - MESH_QUEUE_MESSAGES);
        let mut next = 0;
        while next < count {
            boxes[0].flush(|_| panic!("no shard sleeps"));
            while let Some(n) = message(boxes[1].pop(0)) {
                assert_eq!(n, next);
                next += 1;
            }
        }
        assert!(!boxes[0].has_overflow() && boxes[0].overflow() == 0);
        assert!(boxes[0].take_overflow_moved() && !boxes[0].has_overflow_moved());
        assert!(!boxes[1].has_work());
    }

    #[test]
    fn a_sleeping_shard_is_woken_once_and_a_starved_sender_is_notified_of_space() {
        let doorbells = doorbells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&doorbells);
        let rings: Vec<RawFd> = boxes
            .iter()
            .map(|mailbox| {
                let stand_in = mailbox.doorbell().read_end.try_clone().expect("a descriptor");
                let number = stand_in.as_raw_fd();
                mailbox.open(stand_in);
                number
            })
            .collect();
        boxes[1].mark_asleep();
        for n in 0..=MESH_QUEUE_MESSAGES as u32 {
            boxes[0].post(1, Envelope::Message(n));
        }
        let mut woken = Vec::new();
        boxes[0].flush(|ring| woken.push(ring));
        boxes[0].flush(|ring| woken.push(ring));
        assert_eq!(woken, [rings[1]]);
        boxes[0].mark_asleep();
        assert_eq!(message(boxes[1].pop(0)), Some(0));
        boxes[1].notify_of_space(0, |ring| woken.push(ring));
        boxes[1].notify_of_space(0, |ring| woken.push(ring));
        assert_eq!(woken, [rings[1], rings[0]]);
    }

    #[test]
    fn space_made_before_the_sender_sleeps_keeps_it_awake() {
        let doorbells = doorbells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&doorbells);
        for n in 0..=MESH_QUEUE_MESSAGES as u32 {
            boxes[0].post(1, Envelope::Message(n));
        }
        boxes[0].flush(|_| panic!("no shard sleeps"));
        assert!(!boxes[0].has_work(), "no space yet: sleep");
        assert_eq!(message(boxes[1].pop(0)), Some(0));
        boxes[1].notify_of_space(0, |_| panic!("no shard sleeps"));
        boxes[0].mark_asleep();
        assert!(boxes[0].has_work(), "space: stay awake");
        boxes[0].flush(|_| panic!("no shard sleeps"));
        assert!(!boxes[0].has_overflow() && !boxes[0].has_work());
    }

    #[test]
    fn messages_to_a_shard_that_has_ended_are_dropped() {
        let doorbells = doorbells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&doorbells);
        for n in 0..=MESH_QUEUE_MESSAGES as u32 {
            boxes[0].post(1, Envelope::Message(n));
        }
        boxes[1].close();
        boxes[0].flush(|_| panic!("no shard sleeps"));
        assert!(!boxes[0].has_overflow() && boxes[0].overflow() == 0);
    }
}
