//! The parts of a simulated node: shards with their inboxes, connections, timers, and a disk.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;

use super::disk::SimDisk;
use super::network::{LinkId, Socket};
use super::rng::SimRng;
use crate::buf::AlignedBuf;
use crate::plane::{
    Close, CloseReason, Completion, ConnId, ConnectError, Endpoints, Instant, ListenerId, ShardIndex, Token,
};

/// A node of the simulated world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SimNode(pub usize);

impl SimNode {
    /// Returns the address of the node.
    pub(super) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.0 as u8 + 1)
    }
}

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
    pub(super) started: Instant,
    pub(super) wall_clock_ms: i64,
    /// The shard and connection that each socket belongs to.
    pub(super) sockets: BTreeMap<Socket, (ShardIndex, ConnId)>,
    /// Connections that move to another shard as soon as their queued bytes are sent: source, destination, connection.
    pub(super) moving: BTreeMap<LinkId, (ShardIndex, ShardIndex, Box<Migrant<M>>)>,
}

impl<M> Node<M> {
    pub(super) fn shard(&mut self, shard: ShardIndex) -> &mut Shard<M> {
        &mut self.shards[usize::from(shard)]
    }

    /// Ends every shard, like the end of the process. Returns the sockets that were open.
    pub(super) fn stop(&mut self) -> Vec<Socket> {
        let arriving: Vec<Socket> = self.shards.iter_mut().flat_map(Shard::end).collect();
        let sockets = std::mem::take(&mut self.sockets).into_keys();
        let moving = std::mem::take(&mut self.moving).into_keys().map(LinkId::accepting);
        sockets.chain(moving).chain(arriving).collect()
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
    Connected(ConnId),
    ConnectFailed(ConnId, Token, ConnectError),
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
    pub(super) socket: Socket,
    /// `None` if this side has opened the connection.
    pub(super) listener: Option<ListenerId>,
    pub(super) endpoints: Endpoints,
    /// The connect whose outcome was not delivered.
    pub(super) connecting: Option<Connecting>,
    pub(super) hello: bool,
    pub(super) receiving: Receiving,
    pub(super) bulk: Option<Bulk>,
    pub(super) closing: Option<Close>,
    /// The peer has finished; queued bytes are still sent.
    pub(super) finished: bool,
    pub(super) readable_queued: bool,
}

/// A connect in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connecting {
    pub(super) token: Token,
    pub(super) to: SocketAddr,
    pub(super) within: Duration,
    /// The other side has accepted.
    pub(super) established: bool,
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
    /// Creates an accepted connection.
    pub(super) fn accepted(link: LinkId, listener: ListenerId, endpoints: Endpoints) -> Self {
        Self { listener: Some(listener), hello: true, ..Self::new(link.accepting(), endpoints) }
    }

    /// Creates a connection that this side opens.
    pub(super) fn connecting(socket: Socket, endpoints: Endpoints, connecting: Connecting) -> Self {
        Self { connecting: Some(connecting), ..Self::new(socket, endpoints) }
    }

    fn new(socket: Socket, endpoints: Endpoints) -> Self {
        Self {
            socket,
            listener: None,
            endpoints,
            connecting: None,
            hello: false,
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
    /// How many of the connections this side has opened.
    pub(super) outgoing: usize,
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
            outgoing: 0,
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

    pub(super) fn new_conn_id(&mut self) -> ConnId {
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        id
    }

    pub(super) fn add_conn(&mut self, conn: Conn) -> ConnId {
        let id = self.new_conn_id();
        self.outgoing += usize::from(conn.listener.is_none());
        self.conns.insert(id, conn);
        id
    }

    pub(super) fn remove_conn(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self.conns.remove(&id)?;
        self.outgoing -= usize::from(conn.listener.is_none());
        Some(conn)
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

    /// Ends the shard. Returns the sockets of connections that had moved here but were not delivered.
    pub(super) fn end(&mut self) -> Vec<Socket> {
        self.life = Life::Ended;
        let arriving = self.inbox.clear();
        self.conns.clear();
        self.outgoing = 0;
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

    /// Discards all events. Returns the sockets of connections that were moving here.
    fn clear(&mut self) -> Vec<Socket> {
        let events = self.queues.drain(..).flat_map(|(_, queue)| queue);
        let socket = |event| match event {
            Event::Migrated(migrant) => Some(migrant.link.accepting()),
            _ => None,
        };
        events.filter_map(socket).collect()
    }
}
