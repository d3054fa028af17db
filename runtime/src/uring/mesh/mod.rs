//! What the shards of a process share: a queue from each to each, and the means to wake one that sleeps.
//!
//! A shard that is about to sleep says so and then looks at its queues once more; one that sends looks, after sending, whether the
//! other sleeps. With a full fence between the two steps on both sides, at least one of them sees the other, so no message
//! waits for a sleeper; and a shard that is awake is never interrupted.

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
use crate::plane::{BACKLOG_MAX, Ends, ListenerId, ShardIndex};

/// What travels between shards.
pub(super) enum Envelope<M> {
    /// A message of the application.
    Message(M),
    /// A connection that moves.
    Connection(Box<Moved<M>>),
}

/// A connection on its way to another shard.
pub(super) struct Moved<M> {
    pub(super) socket: OwnedFd,
    pub(super) listener: ListenerId,
    pub(super) ends: Ends,
    pub(super) baggage: M,
    pub(super) unread: Bytes,
}

/// The part of a shard that every thread of the process may touch.
pub(crate) struct Bell {
    /// Rung by threads that have no ring. A pipe, because the shard's ring tells its host of completions through an eventfd, and the kernel
    /// does not do that from inside a write to another eventfd: it puts it off the first time and drops it every time after (seen on
    /// 6.18), so that a shard asleep in its host would never hear the bell again.
    heard: OwnedFd,
    rope: OwnedFd,
    /// The shard's ring, for wake-ups from ring to ring. A descriptor of its own, so that the number never comes to mean another
    /// ring: not one of ours, and above all not one of glommio's, which would take a wake-up for one of its own completions.
    ring: OnceLock<OwnedFd>,
    sleeping: AtomicBool,
    ended: AtomicBool,
    shutdown: AtomicBool,
    jobs_done: Mutex<Vec<JobDone>>,
}

impl Bell {
    fn new() -> std::io::Result<Self> {
        let (heard, rope) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Whoever rings never waits. The other end stays as it is: the ring does not wait for data on a non-blocking one.
        rustix::fs::fcntl_setfl(&rope, OFlags::NONBLOCK)?;
        Ok(Self {
            heard,
            rope,
            ring: OnceLock::new(),
            sleeping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            jobs_done: Mutex::new(Vec::new()),
        })
    }

    /// What the shard reads to hear it.
    pub(super) fn heard(&self) -> RawFd {
        self.heard.as_raw_fd()
    }

    /// Wakes the shard, from any thread.
    fn ring(&self) {
        // Fails only when the pipe is full, and then the shard is being woken anyway.
        let _ = rustix::io::write(&self.rope, &[1]);
    }

    /// Has the shard call `on_shutdown`.
    pub(crate) fn ask_for_shutdown(&self) {
        self.shutdown.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_shutdown_asked(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    /// Gives the shard the result of a job.
    pub(super) fn job_done(&self, done: JobDone) {
        self.jobs_done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.ring();
    }

    pub(super) fn take_jobs_done(&self) -> Vec<JobDone> {
        std::mem::take(&mut *self.jobs_done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All bells, by shard.
pub(crate) type Bells = Arc<[Bell]>;

pub(crate) fn bells(shards: u16) -> std::io::Result<Bells> {
    (0..shards).map(|_| Bell::new()).collect()
}

struct Outbox<M> {
    sender: Sender<Envelope<M>>,
    /// What does not fit in the queue now.
    parked: VecDeque<Envelope<M>>,
    /// Something was sent since the receiver was last looked after.
    touched: bool,
}

/// One shard's ends of all its queues.
pub(crate) struct Mailbox<M> {
    shard: ShardIndex,
    bells: Bells,
    outboxes: Vec<Outbox<M>>,
    inboxes: Vec<Receiver<Envelope<M>>>,
    /// Messages that are parked, all outboxes together.
    parked: usize,
    /// Some found room since the application was last told.
    unparked: bool,
}

/// Queues from every shard to every other.
pub(crate) fn mailboxes<M: Send>(bells: &Bells) -> Vec<Mailbox<M>> {
    let shards = bells.len();
    let mut boxes: Vec<Mailbox<M>> = (0..shards)
        .map(|shard| Mailbox {
            shard: shard as ShardIndex,
            bells: Arc::clone(bells),
            outboxes: Vec::new(),
            inboxes: Vec::new(),
            parked: 0,
            unparked: false,
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            let (sender, receiver) = queue(if from == to { 1 } else { MESH_QUEUE_MESSAGES });
            boxes[from].outboxes.push(Outbox { sender, parked: VecDeque::new(), touched: false });
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

    pub(super) fn bell(&self) -> &Bell {
        &self.bells[usize::from(self.shard)]
    }

    /// This shard can be woken through its ring from now on.
    pub(super) fn open(&self, ring: OwnedFd) {
        assert!(self.bell().ring.set(ring).is_ok(), "a shard has one ring");
    }

    /// This shard takes no more messages.
    pub(super) fn close(&self) {
        self.bell().ended.store(true, Ordering::Release);
    }

    /// Sends to another shard.
    pub(super) fn post(&mut self, to: ShardIndex, envelope: Envelope<M>) {
        debug_assert_ne!(to, self.shard, "messages to oneself need no queue");
        let outbox = &mut self.outboxes[usize::from(to)];
        outbox.touched = true;
        if outbox.parked.is_empty() {
            if let Err(envelope) = outbox.sender.push(envelope) {
                outbox.parked.push_back(envelope);
                self.parked += 1;
            }
            return;
        }
        assert!(outbox.parked.len() < BACKLOG_MAX, "{BACKLOG_MAX} messages wait for shard {to}");
        outbox.parked.push_back(envelope);
        self.parked += 1;
    }

    /// Moves what was parked as far as it fits and wakes the shards that have something to do: through `wake` for one that has a ring.
    pub(super) fn flush(&mut self, mut wake: impl FnMut(RawFd)) {
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            if !outbox.touched && outbox.parked.is_empty() {
                continue;
            }
            let bell = &self.bells[to];
            let before = outbox.parked.len();
            if bell.ended.load(Ordering::Acquire) {
                outbox.parked.clear();
            }
            outbox.unpark();
            if !outbox.parked.is_empty() {
                outbox.sender.ask_for_room();
                outbox.unpark();
            }
            let found_room = before - outbox.parked.len();
            self.parked -= found_room;
            self.unparked |= found_room > 0;
            if outbox.touched {
                outbox.touched = false;
                bell.wake_if_asleep(&mut wake);
            }
        }
    }

    /// Messages that wait here for room in another shard's queue.
    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Whether some found room since [`Self::take_unparked`] was last called.
    pub(super) fn has_unparked(&self) -> bool {
        self.unparked
    }

    pub(super) fn take_unparked(&mut self) -> bool {
        std::mem::take(&mut self.unparked)
    }

    /// Whether messages wait here for room in another shard's queue.
    pub(super) fn has_parked(&self) -> bool {
        self.outboxes.iter().any(|outbox| !outbox.parked.is_empty())
    }

    /// The next message of another shard.
    pub(super) fn pop(&mut self, from: ShardIndex) -> Option<Envelope<M>> {
        self.inboxes[usize::from(from)].pop()
    }

    /// To be called after messages were taken: lets a sender that ran out of room go on.
    pub(super) fn tell_of_room(&mut self, from: ShardIndex, mut wake: impl FnMut(RawFd)) {
        if self.inboxes[usize::from(from)].take_ask_for_room() {
            self.bells[usize::from(from)].wake_if_asleep(&mut wake);
        }
    }

    /// Whether there is something to take, or room for something that was parked. (A receiver that makes room while the sender is
    /// still awake wakes nobody, so the sender has to look before it sleeps.)
    pub(super) fn has_mail(&mut self) -> bool {
        self.inboxes.iter_mut().any(|inbox| !inbox.is_empty())
            || self.outboxes.iter().any(|out| !out.parked.is_empty() && out.sender.was_told_of_room())
    }

    /// Says that this shard is going to sleep. To be followed by a last look at everything that could keep it awake.
    pub(super) fn fall_asleep(&self) {
        self.bell().sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn wake_up(&self) {
        self.bell().sleeping.store(false, Ordering::Relaxed);
    }
}

impl<M: Send> Outbox<M> {
    fn unpark(&mut self) {
        while let Some(envelope) = self.parked.pop_front() {
            self.touched = true;
            if let Err(envelope) = self.sender.push(envelope) {
                self.parked.push_front(envelope);
                return;
            }
        }
    }
}

impl Bell {
    fn wake_if_asleep(&self, wake: &mut impl FnMut(RawFd)) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            match self.ring.get() {
                Some(ring) => wake(ring.as_raw_fd()),
                None => self.ring(),
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
    fn messages_beyond_the_queue_wait_with_the_sender_and_keep_their_order() {
        let bells = bells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&bells);
        let count = MESH_QUEUE_MESSAGES as u32 * 3 + 5;
        for n in 0..count {
            boxes[0].post(1, Envelope::Message(n));
        }
        assert!(boxes[0].has_parked() && !boxes[0].has_unparked());
        assert_eq!(boxes[0].parked(), count as usize - MESH_QUEUE_MESSAGES);
        let mut next = 0;
        while next < count {
            boxes[0].flush(|_| panic!("nobody sleeps"));
            while let Some(n) = message(boxes[1].pop(0)) {
                assert_eq!(n, next);
                next += 1;
            }
        }
        assert!(!boxes[0].has_parked() && boxes[0].parked() == 0);
        assert!(boxes[0].take_unparked() && !boxes[0].has_unparked());
        assert!(!boxes[1].has_mail());
    }

    #[test]
    fn a_sleeping_shard_is_woken_once_and_a_starved_sender_is_told_of_room() {
        let bells = bells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&bells);
        let rings: Vec<RawFd> = boxes
            .iter()
            .map(|mailbox| {
                let stand_in = mailbox.bell().heard.try_clone().expect("a descriptor");
                let number = stand_in.as_raw_fd();
                mailbox.open(stand_in);
                number
            })
            .collect();
        boxes[1].fall_asleep();
        for n in 0..=MESH_QUEUE_MESSAGES as u32 {
            boxes[0].post(1, Envelope::Message(n));
        }
        let mut woken = Vec::new();
        boxes[0].flush(|ring| woken.push(ring));
        boxes[0].flush(|ring| woken.push(ring));
        assert_eq!(woken, [rings[1]]);
        boxes[0].fall_asleep();
        assert_eq!(message(boxes[1].pop(0)), Some(0));
        boxes[1].tell_of_room(0, |ring| woken.push(ring));
        boxes[1].tell_of_room(0, |ring| woken.push(ring));
        assert_eq!(woken, [rings[1], rings[0]]);
    }

    #[test]
    fn room_made_before_the_sender_sleeps_keeps_it_awake() {
        let bells = bells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&bells);
        for n in 0..=MESH_QUEUE_MESSAGES as u32 {
            boxes[0].post(1, Envelope::Message(n));
        }
        boxes[0].flush(|_| panic!("nobody sleeps"));
        assert!(!boxes[0].has_mail(), "no room yet: sleep");
        assert_eq!(message(boxes[1].pop(0)), Some(0));
        boxes[1].tell_of_room(0, |_| panic!("nobody sleeps"));
        boxes[0].fall_asleep();
        assert!(boxes[0].has_mail(), "room: stay awake");
        boxes[0].flush(|_| panic!("nobody sleeps"));
        assert!(!boxes[0].has_parked() && !boxes[0].has_mail());
    }

    #[test]
    fn messages_to_a_shard_that_has_ended_are_dropped() {
        let bells = bells(2).expect("pipes");
        let mut boxes = mailboxes::<u32>(&bells);
        for n in 0..=MESH_QUEUE_MESSAGES as u32 {
            boxes[0].post(1, Envelope::Message(n));
        }
        boxes[1].close();
        boxes[0].flush(|_| panic!("nobody sleeps"));
        assert!(!boxes[0].has_parked() && boxes[0].parked() == 0);
    }
}
