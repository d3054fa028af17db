//! The plane on Linux: one io_uring ring per shard carries everything a shard does with the machine.
//!
//! A turn submits what the application asked for, takes what has completed and tells the application, all in one system call
//! whatever the number of operations. The ring belongs to the shard's thread; other threads reach it through its
//! [`Bell`](mesh::Bell) only.

mod accept;
mod conn;
mod disk;
mod jobs;
pub(crate) mod limits;
mod mesh;
mod net;
mod recv;
mod recv_buffers;
mod ring;
mod send;
mod timers;
mod token;
mod turn;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use io_uring::{opcode, types};

pub(crate) use self::jobs::{Job, spawn as spawn_file_thread};
pub(crate) use self::mesh::{Bells, Mailbox, bells, mailboxes};
pub(crate) use self::ring::build as build_ring;
pub(crate) use self::turn::{Driver, Turn};

use self::accept::Listener;
use self::conn::Conn;
use self::disk::DiskOp;
use self::limits::WAITING_MAX;
use self::mesh::Envelope;

use self::ring::Ring;
use self::timers::Timers;
use self::token::Op;
use self::turn::Due;
use crate::osfs::OsFs;
use crate::plane::{BACKLOG_MAX, ClosedBecause, Completion, ConnId, Instant, Plane, ShardIndex, Token};
use crate::slab::{Key, Slab};

/// What a shard's plane is made of.
pub(crate) struct PlaneParts<M> {
    pub(crate) mailbox: Mailbox<M>,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) ring_entries: u32,
    pub(crate) held: Option<Arc<File>>,
    /// When the process's planes started; the same for all of them.
    pub(crate) epoch: std::time::Instant,
}

/// The plane of one shard. What the kernel reads and writes while an operation runs (sockets, files, buffers) is kept in its
/// slabs until the operation's last completion.
pub(crate) struct UringPlane<M> {
    ring: Ring,
    mailbox: Mailbox<M>,
    jobs: mpsc::Sender<Job>,
    fs: OsFs,
    epoch: std::time::Instant,
    now: Instant,

    listeners: Vec<Listener>,
    accept_stopped: bool,
    conns: Slab<Conn<M>>,
    to_send: Vec<Key>,
    to_receive: Vec<Key>,
    /// Connections whose end has not been told yet.
    closed: VecDeque<(ConnId, ClosedBecause)>,

    disk_ops: Slab<DiskOp>,
    disk_waiting: VecDeque<Key>,
    disk_in_flight: usize,
    /// Results that came by another way than the ring.
    answers: VecDeque<(Token, Completion)>,

    timers: Timers<Due>,
    /// The time the ring's own timeout is set to, and what the kernel reads it from.
    deadline: Option<Instant>,
    deadline_spec: Box<types::Timespec>,
    /// Messages of this shard to itself.
    to_self: VecDeque<Envelope<M>>,
    /// Where the kernel puts what it reads from the bell.
    rung: Box<[u8; 32]>,
    exiting: bool,
}

impl<M: Send + 'static> UringPlane<M> {
    fn new(parts: PlaneParts<M>) -> io::Result<Self> {
        let ring = Ring::new(parts.ring_entries)?;
        if let Some(held) = &parts.held {
            ring.keep_open(held.as_raw_fd())?;
        }
        // SAFETY: the ring is open.
        let fd = unsafe { BorrowedFd::borrow_raw(ring.fd()) };
        parts.mailbox.open(fd.try_clone_to_owned()?);
        Ok(Self {
            ring,
            mailbox: parts.mailbox,
            jobs: parts.jobs,
            fs: OsFs::new(),
            epoch: parts.epoch,
            now: Instant(0),
            listeners: parts.listeners.into_iter().map(Listener::new).collect(),
            accept_stopped: false,
            conns: Slab::new(u32::MAX),
            to_send: Vec::new(),
            to_receive: Vec::new(),
            closed: VecDeque::new(),
            disk_ops: Slab::new(u32::MAX),
            disk_waiting: VecDeque::new(),
            disk_in_flight: 0,
            answers: VecDeque::new(),
            timers: Timers::new(),
            deadline: None,
            deadline_spec: Box::new(types::Timespec::new()),
            to_self: VecDeque::new(),
            rung: Box::new([0; 32]),
            exiting: false,
        })
    }

    fn read_clock(&mut self) {
        self.now = Instant(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Starts to serve: listens to clients and to other threads.
    fn open(&mut self) {
        self.listen_to_bell();
        for index in 0..self.listeners.len() {
            self.accept(index as u16);
        }
    }

    fn listen_to_bell(&mut self) {
        let into = self.rung.as_mut_ptr();
        let entry = opcode::Read::new(types::Fd(self.mailbox.bell().heard()), into, 32).build();
        // SAFETY: the memory and the bell live as long as the plane, and nobody else looks at the memory.
        unsafe { self.ring.push(entry, Op::Doorbell) };
    }

    fn post_envelope(&mut self, to: ShardIndex, envelope: Envelope<M>) {
        if to == self.mailbox.shard() {
            assert!(self.to_self.len() < BACKLOG_MAX, "{BACKLOG_MAX} messages of a shard to itself wait");
            self.to_self.push_back(envelope);
        } else {
            self.mailbox.post(to, envelope);
        }
    }

    /// Makes operations of everything the application asked for since the last time.
    fn flush(&mut self) {
        self.start_receives();
        self.start_sends();
        let Self { mailbox, ring, .. } = self;
        mailbox.flush(|target| wake(ring, target));
    }

    /// Whether there is something to tell that no completion will announce.
    fn has_news(&mut self) -> bool {
        !self.closed.is_empty()
            || !self.answers.is_empty()
            || !self.to_self.is_empty()
            || self.mailbox.has_unparked()
            || self.mailbox.has_mail()
            || self.timers.next_at().is_some_and(|at| at <= self.now)
    }

    /// How long until the next timer.
    fn until_timer(&self) -> Option<Duration> {
        self.timers.next_at().map(|at| at.since(self.now))
    }

    /// Has the ring complete something when the next timer is due.
    fn set_deadline(&mut self) {
        let Some(at) = self.timers.next_at() else { return };
        if self.deadline.is_some_and(|set| set <= at) {
            return;
        }
        let spec = types::Timespec::from(at.since(self.now));
        let update = self.deadline.is_some();
        *self.deadline_spec = spec;
        self.deadline = Some(at);
        let spec = &raw const *self.deadline_spec;
        if update {
            let entry = opcode::TimeoutUpdate::new(Op::Deadline.pack(), spec).build();
            // SAFETY: the kernel reads the time when it takes the entry, which happens before the next change of it: every caller
            // submits at once.
            unsafe { self.ring.push(entry, Op::Quiet) };
        } else {
            let entry = opcode::Timeout::new(spec).build();
            // SAFETY: as above.
            unsafe { self.ring.push(entry, Op::Deadline) };
        }
        self.ring.submit();
    }
}

/// Wakes the shard that has this ring.
fn wake(ring: &mut Ring, target: RawFd) {
    let entry = opcode::MsgRingData::new(types::Fd(target), 0, Op::Woken.pack(), None).build();
    // SAFETY: the entry names no memory; the descriptor is open for as long as any shard runs.
    unsafe { ring.push(entry, Op::Quiet) };
}

impl<M: Send + 'static> Plane<M> for UringPlane<M> {
    fn shard(&self) -> ShardIndex {
        self.mailbox.shard()
    }

    fn shards(&self) -> u16 {
        self.mailbox.shards()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn wall_clock_ms(&self) -> i64 {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    fn random_u64(&mut self) -> u64 {
        rand::random()
    }

    fn post(&mut self, to: ShardIndex, message: M) {
        self.post_envelope(to, Envelope::Message(message));
    }

    fn backlog(&self) -> usize {
        self.to_self.len() + self.mailbox.parked()
    }

    fn set_timer(&mut self, at: Instant, token: Token) {
        assert!(self.timers.len() < WAITING_MAX, "{WAITING_MAX} timers are set");
        self.timers.set(at, Due::App(token));
    }

    fn migrate(&mut self, conn: ConnId, to: ShardIndex, baggage: M, unread: Bytes) {
        self.migrate_conn(conn, to, baggage, unread);
    }

    fn exit(&mut self) {
        self.exiting = true;
    }

    fn fatal(&mut self, exit_code: u8, why: String) {
        if tracing::dispatcher::has_been_set() {
            tracing::error!(shard = self.shard(), exit_code, "{why}");
        } else {
            eprintln!("fatal: {why}");
        }
        std::process::exit(i32::from(exit_code));
    }
}
