//! A shard's turn: submit, take what has completed, tell the application.

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
use crate::plane::{ShardApp, ShardIndex, Token};
use crate::slab::Key;

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// The application asked for it.
    App(Token),
    /// A connection has had its time to end.
    GiveUp(Key),
    /// Accepting may work again.
    Accept(u16),
}

/// What a host does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Nothing happened and nothing waits: sleep.
    Idle,
    /// Call again.
    Busy,
    /// The application has ended this shard.
    Exit,
}

/// A plane and what drives it. Dropping it ends every operation first.
pub(crate) struct Driver<M: Send + 'static> {
    pub(crate) plane: UringPlane<M>,
    /// Beside the plane, not in it, so that the application can read a buffer while it uses the plane. None after the end.
    buffers: Option<RecvBuffers>,
    /// Whether nothing has been told yet.
    fresh: bool,
    shutdown_told: bool,
}

impl<M: Send + 'static> Driver<M> {
    /// To be called on the shard's thread.
    pub(crate) fn new(parts: PlaneParts<M>) -> io::Result<Self> {
        let plane = UringPlane::new(parts)?;
        let buffers = RecvBuffers::register(plane.ring.uring())?;
        Ok(Self { plane, buffers: Some(buffers), fresh: true, shutdown_told: false })
    }

    /// Starts to serve.
    pub(crate) fn open(&mut self) {
        self.plane.open();
    }

    /// One turn. If there is nothing to do, it waits in the ring until there is, or until the time given.
    pub(crate) fn turn<A>(&mut self, app: &mut A, longest: Option<Duration>) -> Turn
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        if !self.fresh && !plane.has_news() {
            plane.mailbox.fall_asleep();
            if plane.mailbox.has_mail() {
                plane.ring.submit();
            } else {
                plane.read_clock();
                plane.ring.submit_and_wait(plane.until_timer().into_iter().chain(longest).min());
            }
            plane.mailbox.wake_up();
        } else {
            plane.ring.submit();
        }
        plane.read_clock();
        let told = self.dispatch(app);
        let plane = &mut self.plane;
        if told {
            app.on_turn_end(plane);
        }
        plane.flush();
        if plane.exiting {
            Turn::Exit
        } else if told || plane.has_news() {
            Turn::Busy
        } else {
            Turn::Idle
        }
    }

    /// Has completions signal an eventfd while the shard is parked outside of its ring.
    pub(crate) fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.plane.ring.register_eventfd(eventfd)
    }

    /// Gets ready to sleep until the eventfd is signalled; false if there is something to do first.
    pub(crate) fn park(&mut self) -> bool {
        let plane = &mut self.plane;
        plane.read_clock();
        plane.set_deadline();
        plane.ring.submit();
        plane.mailbox.fall_asleep();
        plane.ring.listen();
        if plane.ring.is_ready() || plane.has_news() {
            self.unpark();
            return false;
        }
        true
    }

    /// Awake again.
    pub(crate) fn unpark(&mut self) {
        self.plane.ring.mute();
        self.plane.mailbox.wake_up();
    }

    fn dispatch<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let mut told = std::mem::take(&mut self.fresh);
        // What was waiting for room has left: the application may go on with what it held back.
        told |= self.plane.mailbox.take_unparked();
        told |= self.tell_news(app);
        told |= self.tell_messages(app);
        told |= self.tell_timers(app);
        for _ in 0..TURN_COMPLETIONS_MAX {
            let Some(cqe) = self.plane.ring.pop() else { break };
            told |= self.on_completion(app, cqe);
        }
        told |= self.tell_news(app);
        told
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
                if let Some(bytes) = plane.on_send_over(key, cqe) {
                    app.on_sent(plane, conn_id(key), bytes);
                }
            }
            Op::Disk(key) => {
                if let Some((token, completion)) = plane.on_disk_completed(key, cqe) {
                    app.on_disk(plane, token, completion);
                }
            }
            Op::Accept(index) => {
                if let Some(key) = plane.on_accepted(index, cqe)
                    && let Some(conn) = plane.conns.get(key)
                {
                    let (listener, peer) = (conn.listener, conn.ends.peer);
                    plane.list_to_receive(key);
                    app.on_accept(plane, conn_id(key), listener, peer);
                }
            }
            Op::Doorbell => {
                plane.listen_to_bell();
                for done in plane.mailbox.bell().take_jobs_done() {
                    plane.on_job_done(done);
                }
                if plane.mailbox.bell().is_shutdown_asked() && !self.shutdown_told {
                    self.shutdown_told = true;
                    app.on_shutdown(plane);
                }
            }
            Op::Deadline => {
                plane.deadline = None;
                return false;
            }
            Op::Woken | Op::Quiet => return false,
        }
        true
    }

    fn tell_news<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        let mut told = false;
        for _ in 0..plane.closed.len() {
            let Some((conn, because)) = plane.closed.pop_front() else { break };
            app.on_closed(plane, conn, because);
            told = true;
        }
        for _ in 0..plane.answers.len() {
            let Some((token, completion)) = plane.answers.pop_front() else { break };
            app.on_disk(plane, token, completion);
            told = true;
        }
        told
    }

    fn tell_messages<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let own = self.plane.mailbox.shard();
        let mut told = false;
        for _ in 0..self.plane.to_self.len().min(TURN_MESSAGES_MAX) {
            let Some(envelope) = self.plane.to_self.pop_front() else { break };
            self.tell_envelope(app, own, envelope);
            told = true;
        }
        for from in (0..self.plane.mailbox.shards()).filter(|from| *from != own) {
            let mut taken = 0;
            while taken < TURN_MESSAGES_MAX
                && let Some(envelope) = self.plane.mailbox.pop(from)
            {
                taken += 1;
                self.tell_envelope(app, from, envelope);
            }
            if taken > 0 {
                told = true;
                let UringPlane { mailbox, ring, .. } = &mut self.plane;
                mailbox.tell_of_room(from, |target| wake(ring, target));
            }
        }
        told
    }

    fn tell_envelope<A>(&mut self, app: &mut A, from: ShardIndex, envelope: Envelope<M>)
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        match envelope {
            Envelope::Message(message) => app.on_message(plane, from, message),
            Envelope::Connection(moved) => {
                let (listener, peer) = (moved.listener, moved.ends.peer);
                let (key, baggage, unread) = plane.adopt_moved(*moved);
                app.on_migrated(plane, conn_id(key), listener, peer, baggage);
                plane.deliver(app, key, &unread);
                plane.list_to_receive(key);
            }
        }
    }

    fn tell_timers<A>(&mut self, app: &mut A) -> bool
    where
        A: ShardApp<Message = M>,
    {
        let plane = &mut self.plane;
        let limit = plane.timers.sequence();
        let mut told = false;
        for _ in 0..TURN_TIMERS_MAX {
            match plane.timers.pop_due(plane.now, limit) {
                None => break,
                Some(Due::App(token)) => {
                    told = true;
                    app.on_timer(plane, token);
                }
                Some(Due::GiveUp(key)) => plane.give_up(key),
                Some(Due::Accept(index)) => plane.accept(index),
            }
        }
        told
    }

    /// Hands over the last messages and ends every operation, so that no memory or file is in the kernel's hands any more.
    fn finish(&mut self) {
        let plane = &mut self.plane;
        let started = Clock::now();
        plane.flush();
        while plane.mailbox.has_parked() && started.elapsed() < MESH_DRAIN_TIME_MAX {
            plane.ring.submit();
            std::thread::sleep(Duration::from_micros(200));
            plane.flush();
        }
        plane.mailbox.close();
        let started = Clock::now();
        while plane.ring.in_flight() > 0 && started.elapsed() < CANCEL_TIME_MAX {
            let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build();
            // SAFETY: the entry names no memory.
            unsafe { plane.ring.push(entry, Op::Quiet) };
            plane.ring.submit_and_wait(Some(Duration::from_millis(50)));
            while let Some(cqe) = plane.ring.pop() {
                if let (Op::Accept(_), Ok(fd)) = (cqe.op, cqe.outcome()) {
                    // SAFETY: a successful accept gives a new descriptor that nobody else knows of.
                    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
                }
            }
        }
        if plane.ring.in_flight() > 0 {
            tracing::error!(
                operations = plane.ring.in_flight(),
                "operations did not end with their shard; their memory is kept"
            );
            std::mem::forget(std::mem::replace(&mut plane.conns, crate::slab::Slab::new(0)));
            std::mem::forget(std::mem::replace(&mut plane.disk_ops, crate::slab::Slab::new(0)));
            std::mem::forget(std::mem::take(&mut plane.rung));
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
