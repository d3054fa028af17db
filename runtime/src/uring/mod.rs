//! The plane on Linux: one io_uring ring per shard performs all I/O of the shard.
//!
//! A turn submits the application's requests, takes completions and delivers them to the application, with one system call for any
//! number of operations. The ring belongs to the shard's thread; other threads reach it only through its
//! [`Doorbell`](mesh::Doorbell).

mod accept;
mod conn;
mod connect;
mod disk;
mod disk_reads;
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
pub(crate) use self::mesh::{Doorbells, Mailbox, doorbells, mailboxes};
pub(crate) use self::ring::build as build_ring;
pub(crate) use self::turn::{Driver, Turn};

use self::accept::Listener;
use self::conn::Conn;
use self::disk::DiskOp;
use self::disk_reads::{ReadOp, ReadPiece, ReadWindow};
use self::limits::WAITING_MAX;
use self::mesh::Envelope;

use self::ring::Ring;
use self::timers::Timers;
use self::token::Op;
use self::turn::Due;
use crate::osfs::OsFs;
use crate::plane::{
    BACKLOG_MAX, CloseReason, Completion, ConnId, ConnectError, Instant, Plane, ShardIndex, Token,
};
use crate::slab::{Key, Slab};

/// The parts that a shard's plane is made of.
pub(crate) struct PlaneParts<M> {
    pub(crate) mailbox: Mailbox<M>,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) ring_entries: u32,
    pub(crate) held: Option<Arc<File>>,
    /// When the process's planes started; equal for all of them.
    pub(crate) epoch: std::time::Instant,
}

/// The plane of one shard. Everything that the kernel accesses during an operation (sockets, files, buffers) is kept in its slabs
/// until the operation's last completion.
pub(crate) struct UringPlane<M> {
    ring: Ring,
    mailbox: Mailbox<M>,
    jobs: mpsc::Sender<Job>,
    fs: OsFs,
    epoch: std::time::Instant,
    now: Instant,
    longest_turn: Duration,

    listeners: Vec<Listener>,
    accept_stopped: bool,
    conns: Slab<Conn<M>>,
    /// How many of them this side has opened.
    outgoing: usize,
    /// Outcomes of connects that have failed and were not delivered yet.
    connects_failed: VecDeque<(ConnId, Token, ConnectError)>,
    to_send: Vec<Key>,
    to_receive: Vec<Key>,
    /// Connections whose end has not been delivered yet.
    closed: VecDeque<(ConnId, CloseReason)>,

    disk_ops: Slab<DiskOp>,
    disk_waiting: VecDeque<Key>,
    disk_in_flight: usize,
    reads: Slab<ReadOp>,
    read_pieces: Slab<ReadPiece>,
    /// Reads with pieces that were not started.
    reads_waiting: VecDeque<Key>,
    read_window: ReadWindow,
    /// Operations of the disk were queued since the last turn's end.
    has_new_disk_ops: bool,
    /// Completions that did not come through the ring.
    completions: VecDeque<(Token, Completion)>,

    timers: Timers<Due>,
    /// Expiry of the timeout in the ring, and the memory that the kernel reads it from.
    deadline: Option<Instant>,
    deadline_spec: Box<types::Timespec>,
    /// Messages of this shard to itself.
    to_self: VecDeque<Envelope<M>>,
    /// Memory for the bytes that the kernel reads from the doorbell.
    doorbell_bytes: Box<[u8; 32]>,
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
            longest_turn: Duration::ZERO,
            listeners: parts.listeners.into_iter().map(Listener::new).collect(),
            accept_stopped: false,
            conns: Slab::new(u32::MAX),
            outgoing: 0,
            connects_failed: VecDeque::new(),
            to_send: Vec::new(),
            to_receive: Vec::new(),
            closed: VecDeque::new(),
            disk_ops: Slab::new(u32::MAX),
            disk_waiting: VecDeque::new(),
            disk_in_flight: 0,
            reads: Slab::new(u32::MAX),
            read_pieces: Slab::new(u32::MAX),
            reads_waiting: VecDeque::new(),
            read_window: ReadWindow::new(),
            has_new_disk_ops: false,
            completions: VecDeque::new(),
            timers: Timers::new(),
            deadline: None,
            deadline_spec: Box::new(types::Timespec::new()),
            to_self: VecDeque::new(),
            doorbell_bytes: Box::new([0; 32]),
            exiting: false,
        })
    }

    fn read_clock(&mut self) {
        self.now = Instant(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Notes how long the turn has taken that began when the clock was read.
    fn end_turn(&mut self) {
        let begun = self.now;
        self.read_clock();
        self.longest_turn = self.longest_turn.max(self.now.since(begun));
    }

    /// Starts to serve clients and to react to other threads.
    fn open(&mut self) {
        self.read_doorbell();
        for index in 0..self.listeners.len() {
            self.accept(index as u16);
        }
    }

    fn read_doorbell(&mut self) {
        let into = self.doorbell_bytes.as_mut_ptr();
        let entry = opcode::Read::new(types::Fd(self.mailbox.doorbell().read_fd()), into, 32).build();
        // SAFETY: the memory and the doorbell live as long as the plane, and nothing else accesses the memory.
        unsafe { self.ring.push(entry, Op::Doorbell) };
    }

    fn post_envelope(&mut self, to: ShardIndex, envelope: Envelope<M>) {
        if to == self.mailbox.shard() {
            assert!(
                self.to_self.len() < BACKLOG_MAX,
                "a shard has {BACKLOG_MAX} messages waiting for itself"
            );
            self.to_self.push_back(envelope);
        } else {
            self.mailbox.post(to, envelope);
        }
    }

    /// Starts the operations that the application has requested since the last call.
    fn flush(&mut self) {
        self.submit_to_disk_before_sends();
        self.start_receives();
        self.start_sends();
        let Self { mailbox, ring, .. } = self;
        mailbox.flush(|target| wake(ring, target));
    }

    /// Returns whether there are events to deliver that cause no completion.
    fn has_events(&mut self) -> bool {
        !self.closed.is_empty()
            || !self.connects_failed.is_empty()
            || !self.completions.is_empty()
            || !self.to_self.is_empty()
            || self.mailbox.has_overflow_moved()
            || self.mailbox.has_work()
            || self.timers.next_at().is_some_and(|at| at <= self.now)
    }

    /// Returns the time until the next timer.
    fn until_timer(&self) -> Option<Duration> {
        self.timers.next_at().map(|at| at.since(self.now))
    }

    /// Makes the ring complete a timeout when the next timer is due.
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
            // SAFETY: the kernel reads the time when it takes the entry, which happens before the time is changed again: the entry
            // is submitted below.
            unsafe { self.ring.push(entry, Op::Ignored) };
        } else {
            let entry = opcode::Timeout::new(spec).build();
            // SAFETY: as above.
            unsafe { self.ring.push(entry, Op::Deadline) };
        }
        self.ring.submit();
    }
}

/// Wakes the shard with this ring.
fn wake(ring: &mut Ring, target: RawFd) {
    let entry = opcode::MsgRingData::new(types::Fd(target), 0, Op::Woken.pack(), None).build();
    // SAFETY: the entry refers to no memory; the descriptor is open as long as any shard runs.
    unsafe { ring.push(entry, Op::Ignored) };
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

    fn longest_turn(&self) -> Duration {
        self.longest_turn
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
        self.to_self.len() + self.mailbox.overflow()
    }

    fn set_timer(&mut self, at: Instant, token: Token) {
        assert!(self.timers.len() < WAITING_MAX, "more than {WAITING_MAX} timers are set");
        self.timers.set(at, Due::App(token));
    }

    fn migrate(&mut self, conn: ConnId, to: ShardIndex, payload: M, unread: Bytes) {
        self.migrate_conn(conn, to, payload, unread);
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
