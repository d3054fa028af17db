//! A shard's turn: submit, take completions, deliver them to the application.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant as Clock};

use io_uring::{opcode, types};

use super::limits::{
    CANCEL_TIME_MAX, MESH_DRAIN_TIME_MAX, TURN_COMPLETIONS_MAX, TURN_MESSAGES_MAX, TURN_TIMERS_MAX,
};
use super::mesh::Envelope;
use super::net::conn_id;
use super::recv_buffers::RecvBuffers;
use super::ring::Cqe;
use super::token::Op;
use super::{PlaneParts, UringPlane, wake};
use crate::plane::{ListenerId, ShardApp, ShardIndex, Token};
use crate::slab::Key;

/// Purpose of a timer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// A timer of the application.
    App(Token),
    /// A connection's time to flush or linger is over.
    CloseTimeout(Key),
    /// A connection's time to be connected is over.
    ConnectTimeout(Key),
    /// Retry accepting.
    Accept(u16),
}

/// What the host does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Nothing happened and nothing is waiting: sleep.
    Idle,
    /// Run another turn.
    Busy,
    /// The application has ended this shard.
    Exit,
}

/// A plane and its main loop. Dropping it ends all operations first.
pub(crate) struct Driver<M: Send + 'static> {
    pub(crate) plane: UringPlane<M>,
    /// Separate from the plane, so that the application can read a buffer while it uses the plane. `None` after the end.
    buffers: Option<RecvBuffers>,
    /// Whether no turn has run yet.
    first_turn: bool,
    shutdown_delivered: bool,
}

impl<M: Send + 'static> Driver<M> {
    /// Creates the plane. Must be called on the shard's thread.
    pub(crate) fn new(parts: PlaneParts<M>) -> io::Result<Self> {
        let plane = UringPlane::new(parts)?;
        let buffers = RecvBuffers::register(plane.ring.uring())?;
        Ok(Self { plane, buffers: Some(buffers), first_turn: true, shutdown_delivered: false })
    }

    /// Starts to serve.
    pub(crate) fn open(&mut self) {
        self.plane.open();
    }

    /// Runs one turn. If there is nothing to do, waits in the ring for an event, at most for the time given.
    pub(crate) fn turn<A>(&mut self, app: &mut A, longest: Option<Duration>) -> Turn
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        if !self.first_turn && !plane.has_events() {
            plane.mailbox.mark_asleep();
            if plane.mailbox.has_work() {
                plane.ring.submit();
            } else {
                plane.read_clock();
                plane.ring.submit_and_wait(plane.until_timer().into_iter().chain(longest).min());
            }
            plane.mailbox.mark_awake();
        } else {
            plane.ring.submit();
        }
        plane.read_clock();
        let delivered = self.dispatch(app);
        let plane = &mut self.plane;
        if delivered {
            app.on_turn_end(plane);
        }
        plane.flush();
        plane.end_turn();
        if plane.exiting {
            Turn::Exit
        } else if delivered || plane.has_events() {
            Turn::Busy
        } else {
            Turn::Idle
        }
    }

    /// Makes completions signal an eventfd while the shard is parked outside its ring.
    pub(crate) fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.plane.ring.register_eventfd(eventfd)
    }

    /// Prepares for sleeping until the eventfd is signalled. Returns false if there is something to do first.
    pub(crate) fn park(&mut self) -> bool {
        let plane = &mut self.plane;
        plane.read_clock();
        plane.set_deadline();
        plane.ring.submit();
        plane.mailbox.mark_asleep();
        plane.ring.enable_eventfd();
        if plane.ring.is_ready() || plane.has_events() {
            self.unpark();
            return false;
        }
        true
    }

    /// Ends a park.
    pub(crate) fn unpark(&mut self) {
        self.plane.ring.disable_eventfd();
        self.plane.mailbox.mark_awake();
    }

    fn dispatch<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let mut delivered = std::mem::take(&mut self.first_turn);
        // Messages that waited for space have left, so the application may continue with what it held back.
        delivered |= self.plane.mailbox.take_overflow_moved();
        delivered |= self.deliver_events(app);
        delivered |= self.deliver_messages(app);
        delivered |= self.deliver_timers(app);
        for _ in 0..TURN_COMPLETIONS_MAX {
            let Some(cqe) = self.plane.ring.pop() else { break };
            delivered |= self.on_completion(app, cqe);
        }
        delivered |= self.deliver_events(app);
        delivered
    }

    fn on_completion<A>(&mut self, app: &mut A, cqe: Cqe) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let Self { plane, buffers, .. } = self;
        match cqe.op {
            Op::Recv(key) => {
                if let Some(buffers) = buffers {
                    plane.on_received(app, buffers, key, cqe);
                }
            }
            Op::Send(key) => {
                if let Some(bytes) = plane.on_sent(key, cqe) {
                    app.on_sent(plane, conn_id(key), bytes);
                }
            }
            Op::Disk(key) => {
                if let Some((token, completion)) = plane.on_disk_completed(key, cqe) {
                    app.on_disk(plane, token, completion);
                }
            }
            Op::ReadPiece(key) => {
                if let Some((token, completion)) = plane.on_read_piece_completed(key, cqe) {
                    app.on_disk(plane, token, completion);
                }
            }
            Op::Accept(index) => {
                if let Some(key) = plane.on_accepted(index, cqe)
                    && let Some(conn) = plane.conns.get(key)
                {
                    let (listener, peer) = (ListenerId(index), conn.endpoints.peer);
                    plane.queue_receive(key);
                    app.on_accept(plane, conn_id(key), listener, peer);
                }
            }
            Op::Connect(key) => {
                if let Some((token, outcome)) = plane.on_connect_completed(key, cqe) {
                    app.on_connected(plane, conn_id(key), token, outcome);
                }
            }
            Op::Doorbell => {
                plane.read_doorbell();
                for done in plane.mailbox.doorbell().take_jobs_done() {
                    plane.on_job_done(done);
                }
                if plane.mailbox.doorbell().is_shutdown_requested() && !self.shutdown_delivered {
                    self.shutdown_delivered = true;
                    app.on_shutdown(plane);
                }
            }
            Op::Deadline => {
                plane.deadline = None;
                return false;
            }
            Op::Woken | Op::Ignored => return false,
        }
        true
    }

    fn deliver_events<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        let mut delivered = false;
        for _ in 0..plane.closed.len() {
            let Some((conn, reason)) = plane.closed.pop_front() else { break };
            app.on_closed(plane, conn, reason);
            delivered = true;
        }
        for _ in 0..plane.connects_failed.len() {
            let Some((conn, token, error)) = plane.connects_failed.pop_front() else { break };
            app.on_connected(plane, conn, token, Err(error));
            delivered = true;
        }
        for _ in 0..plane.completions.len() {
            let Some((token, completion)) = plane.completions.pop_front() else { break };
            app.on_disk(plane, token, completion);
            delivered = true;
        }
        delivered
    }

    fn deliver_messages<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let own = self.plane.mailbox.shard();
        let mut delivered = false;
        for _ in 0..self.plane.to_self.len().min(TURN_MESSAGES_MAX) {
            let Some(envelope) = self.plane.to_self.pop_front() else { break };
            self.deliver_envelope(app, own, envelope);
            delivered = true;
        }
        for from in (0..self.plane.mailbox.shards()).filter(|from| *from != own) {
            let mut taken = 0;
            while taken < TURN_MESSAGES_MAX
                && let Some(envelope) = self.plane.mailbox.pop(from)
            {
                taken += 1;
                self.deliver_envelope(app, from, envelope);
            }
            if taken > 0 {
                delivered = true;
                let UringPlane { mailbox, ring, .. } = &mut self.plane;
                mailbox.notify_of_space(from, |target| wake(ring, target));
            }
        }
        delivered
    }

    fn deliver_envelope<A>(&mut self, app: &mut A, from: ShardIndex, envelope: Envelope<M>)
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        match envelope {
            Envelope::Message(message) => app.on_message(plane, from, message),
            Envelope::Connection(moved) => {
                let (listener, peer) = (moved.listener, moved.endpoints.peer);
                let (key, payload, unread) = plane.adopt_moved(*moved);
                app.on_migrated(plane, conn_id(key), listener, peer, payload);
                plane.deliver(app, key, &unread);
                plane.queue_receive(key);
            }
        }
    }

    fn deliver_timers<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        let limit = plane.timers.sequence();
        let mut delivered = false;
        for _ in 0..TURN_TIMERS_MAX {
            match plane.timers.pop_due(plane.now, limit) {
                None => break,
                Some(Due::App(token)) => {
                    delivered = true;
                    app.on_timer(plane, token);
                }
                Some(Due::CloseTimeout(key)) => plane.on_close_timeout(key),
                Some(Due::ConnectTimeout(key)) => plane.on_connect_timeout(key),
                Some(Due::Accept(index)) => plane.accept(index),
            }
        }
        delivered
    }

    /// Delivers the last messages to other shards and ends all operations, so that the kernel uses no memory or file any more.
    fn finish(&mut self) {
        let plane = &mut self.plane;
        let started = Clock::now();
        plane.flush();
        while plane.mailbox.has_overflow() && started.elapsed() < MESH_DRAIN_TIME_MAX {
            plane.ring.submit();
            std::thread::sleep(Duration::from_micros(200));
            plane.flush();
        }
        plane.mailbox.close();
        let started = Clock::now();
        while plane.ring.in_flight() > 0 && started.elapsed() < CANCEL_TIME_MAX {
            let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build();
            // SAFETY: the entry refers to no memory.
            unsafe { plane.ring.push(entry, Op::Ignored) };
            plane.ring.submit_and_wait(Some(Duration::from_millis(50)));
            while let Some(cqe) = plane.ring.pop() {
                if let (Op::Accept(_), Ok(fd)) = (cqe.op, cqe.outcome()) {
                    // SAFETY: a successful accept returns a new descriptor that nothing else owns.
                    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
                }
            }
        }
        if plane.ring.in_flight() > 0 {
            tracing::error!(
                operations = plane.ring.in_flight(),
                "operations did not end with their shard; leaking the memory that they use"
            );
            std::mem::forget(std::mem::replace(&mut plane.conns, crate::slab::Slab::new(0)));
            std::mem::forget(std::mem::replace(&mut plane.disk_ops, crate::slab::Slab::new(0)));
            std::mem::forget(std::mem::replace(&mut plane.reads, crate::slab::Slab::new(0)));
            std::mem::forget(std::mem::take(&mut plane.doorbell_bytes));
            if let Some(buffers) = self.buffers.take() {
                buffers.leak();
            }
        }
    }
}

impl<M: Send + 'static> Drop for Driver<M> {
    fn drop(&mut self) {
        self.finish();
    }
}
