//! The parts of a simulated node: shards with their inboxes, connections, timers, and a disk.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use rand::RngExt as _;

use super::disk::SimDisk;
use super::network::LinkId;
use super::rng::SimRng;
use crate::buf::AlignedBuf;
use crate::plane::{
    Close, CloseReason, Completion, ConnId, Endpoints, Instant, ListenerId, ShardIndex, Token,
};

/// A node of the simulated world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SimNode(pub usize);

/// Why a node is not running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeEnd {
    /// It has not been started yet.
    NeverStarted,
    /// All its shards exited their loops.
    Exited,
    /// It ended itself with [`Plane::fatal`](crate::plane::Plane::fatal): the exit code and the reason.
    Fatal(u8, String),
    /// The test crashed it.
    Crashed,
}

pub(super) struct Node<M> {
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) disk: SimDisk,
    pub(super) shards: Vec<Shard<M>>,
    /// `None` while it runs.
    pub(super) end: Option<NodeEnd>,
    pub(super) paused: bool,
    pub(super) isolated: bool,
    pub(super) started: Instant,
    pub(super) wall_clock_ms: i64,
    /// The shard and connection that accepted each link.
    pub(super) links: BTreeMap<LinkId, (ShardIndex, ConnId)>,
    /// Connections that move to another shard as soon as their queued bytes are sent: source, destination, connection.
    pub(super) moving: BTreeMap<LinkId, (ShardIndex, ShardIndex, Box<Migrant<M>>)>,
}

impl<M> Node<M> {
    pub(super) fn shard(&mut self, shard: ShardIndex) -> &mut Shard<M> {
        &mut self.shards[usize::from(shard)]
    }

    /// Ends every shard, like the end of the process. Returns the links that were open.
    pub(super) fn stop(&mut self) -> Vec<LinkId> {
        let arriving: Vec<LinkId> = self.shards.iter_mut().flat_map(Shard::end).collect();
        let links = std::mem::take(&mut self.links).into_keys();
        links.chain(std::mem::take(&mut self.moving).into_keys()).chain(arriving).collect()
    }
}

/// Source of an event. Events of one source are delivered in order, events of different sources in any order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    Conn(ConnId),
    Mesh(ShardIndex),
    Disk,
    Timer,
    Shutdown,
}

/// An event for a shard.
pub(super) enum Event<M> {
    Accept(ConnId),
    Readable(ConnId),
    Sent(ConnId, usize),
    Closed(ConnId, CloseReason),
    Disk(Token, Completion),
    Message(ShardIndex, M),
    Migrated(Box<Migrant<M>>),
    Timer(Token),
    Shutdown,
}

/// A connection that is moving to another shard.
pub(super) struct Migrant<M> {
    pub(super) link: LinkId,
    pub(super) listener: ListenerId,
    pub(super) endpoints: Endpoints,
    pub(super) payload: M,
    pub(super) unread: Bytes,
}

/// An item in the queue between two shards.
pub(super) enum MeshItem<M> {
    Message(M),
    Migrant(Box<Migrant<M>>),
}

pub(super) struct Conn {
    pub(super) link: LinkId,
    pub(super) listener: ListenerId,
    pub(super) endpoints: Endpoints,
    pub(super) hello: bool,
    pub(super) receiving: Receiving,
    pub(super) bulk: Option<Bulk>,
    pub(super) closing: Option<Close>,
    /// The peer has finished; queued bytes are still sent.
    pub(super) finished: bool,
    pub(super) readable_queued: bool,
}

/// Whether a connection receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    On,
    /// Paused, but bytes that were received ahead are still delivered.
    Ahead,
    Off,
}

pub(super) struct Bulk {
    pub(super) buf: AlignedBuf,
    pub(super) filled: usize,
    pub(super) end: usize,
}

impl Conn {
    pub(super) fn new(link: LinkId, listener: ListenerId, endpoints: Endpoints) -> Self {
        Self {
            link,
            listener,
            endpoints,
            hello: true,
            receiving: Receiving::On,
            bulk: None,
            closing: None,
            finished: false,
            readable_queued: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Running,
    /// The loop ends after this turn.
    Exiting,
    Ended,
}

/// The work of a shard in one turn, counted by its calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TurnWork {
    /// Messages posted.
    pub messages: usize,
    /// Bytes passed to [`Net::send`](crate::plane::Net::send).
    pub bytes_sent: usize,
    /// Reads, writes and syncs started.
    pub disk_operations: usize,
    /// Bytes of these operations.
    pub disk_bytes: usize,
    /// Maximum bytes of reads in flight, including those of earlier turns.
    pub disk_read_bytes_inflight: usize,
}

impl TurnWork {
    /// Returns the maximum of each field.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            messages: self.messages.max(other.messages),
            bytes_sent: self.bytes_sent.max(other.bytes_sent),
            disk_operations: self.disk_operations.max(other.disk_operations),
            disk_bytes: self.disk_bytes.max(other.disk_bytes),
            disk_read_bytes_inflight: self.disk_read_bytes_inflight.max(other.disk_read_bytes_inflight),
        }
    }
}

pub(super) struct Shard<M> {
    /// Work of the current turn, and the maximum of all turns.
    pub(super) work: TurnWork,
    pub(super) busiest: TurnWork,
    /// Bytes of the disk reads in flight.
    pub(super) reads_inflight: BTreeMap<Token, usize>,
    pub(super) inbox: Inbox<M>,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) next_conn: u64,
    pub(super) timers: BTreeMap<(Instant, u64), (Token, Instant)>,
    pub(super) next_timer: u64,
    pub(super) now: Instant,
    /// Start of the next turn, if one is scheduled.
    pub(super) turn_at: Option<Instant>,
    /// End of the current turn's duration: the next turn starts after it.
    pub(super) busy_until: Instant,
    pub(super) accepting: bool,
    pub(super) shutdown_sent: bool,
    pub(super) life: Life,
    /// The connection whose `on_recv` or `on_bulk` is running.
    pub(super) receiving: Option<ConnId>,
    pub(super) rng: SimRng,
}

impl<M> Shard<M> {
    pub(super) fn new(rng: SimRng, now: Instant) -> Self {
        Self {
            work: TurnWork::default(),
            busiest: TurnWork::default(),
            reads_inflight: BTreeMap::new(),
            inbox: Inbox::default(),
            conns: BTreeMap::new(),
            next_conn: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            now,
            turn_at: Some(now),
            busy_until: now,
            accepting: true,
            shutdown_sent: false,
            life: Life::Running,
            receiving: None,
            rng,
        }
    }

    pub(super) fn add_conn(&mut self, conn: Conn) -> ConnId {
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.insert(id, conn);
        id
    }

    pub(super) fn is_running(&self) -> bool {
        self.life != Life::Ended
    }

    /// Returns the time of the next turn, if there is one.
    pub(super) fn due(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|(_, (_, fires))| *fires);
        let due = self.turn_at.into_iter().chain(timer).min()?;
        Some(due.max(self.busy_until))
    }

    /// Moves due timers to the inbox, in the order of their times.
    pub(super) fn collect_timers(&mut self) {
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= self.now) {
            let (token, _) = timer.remove();
            self.inbox.push(Source::Timer, Event::Timer(token));
        }
    }

    /// Queues an event for a connection that may have bytes to read or has ended.
    pub(super) fn readable(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.readable_queued) {
            conn.readable_queued = true;
            self.inbox.push(Source::Conn(id), Event::Readable(id));
        }
    }

    /// Ends the shard. Returns the links of connections that had moved here but were not delivered.
    pub(super) fn end(&mut self) -> Vec<LinkId> {
        self.life = Life::Ended;
        let arriving = self.inbox.clear();
        self.conns.clear();
        self.timers.clear();
        self.turn_at = None;
        arriving
    }
}

pub(super) struct Inbox<M> {
    queues: Vec<(Source, VecDeque<Event<M>>)>,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self { queues: Vec::new() }
    }
}

impl<M> Inbox<M> {
    pub(super) fn push(&mut self, source: Source, event: Event<M>) {
        match self.queues.iter_mut().find(|(other, _)| *other == source) {
            Some((_, queue)) => queue.push_back(event),
            None => self.queues.push((source, VecDeque::from([event]))),
        }
    }

    /// Removes and returns the oldest event of a randomly chosen source.
    pub(super) fn pick(&mut self, rng: &mut SimRng) -> Option<Event<M>> {
        if self.queues.is_empty() {
            return None;
        }
        let at = rng.random_range(0..self.queues.len());
        let event = self.queues[at].1.pop_front();
        if self.queues[at].1.is_empty() {
            self.queues.swap_remove(at);
        }
        event
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Discards all events. Returns the links of connections that were moving here.
    fn clear(&mut self) -> Vec<LinkId> {
        let events = self.queues.drain(..).flat_map(|(_, queue)| queue);
        let link = |event| match event {
            Event::Migrated(migrant) => Some(migrant.link),
            _ => None,
        };
        events.filter_map(link).collect()
    }
}
