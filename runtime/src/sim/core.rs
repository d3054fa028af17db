//! The simulated world without its applications, which access it through their planes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::{Rng as _, RngExt as _};

use super::clock::SimClock;
use super::network::{LinkId, Network, NetworkEvent, Side, Socket, draw};
use super::node::{Conn, Event, MeshItem, Node, SimNode, Source};
use super::rng::{SimRng, mix};
use super::timed_queue::TimedQueue;
use crate::plane::{BACKLOG_MAX, Close, CloseReason, ConnId, Endpoints, Instant, ListenerId, ShardIndex};

/// How shards are scheduled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduleConfig {
    /// Delay between an event and the turn that delivers it.
    pub wake: RangeInclusive<Duration>,
    /// Duration of a turn.
    pub turn: RangeInclusive<Duration>,
    /// Maximum number of calls in a turn.
    pub calls_per_turn: RangeInclusive<usize>,
    /// Delay of a message to another shard.
    pub message: RangeInclusive<Duration>,
    /// How late timers fire.
    pub timer_late: RangeInclusive<Duration>,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
        Self {
            wake: micros(0, 60),
            turn: micros(1, 30),
            calls_per_turn: 1..=64,
            message: micros(1, 150),
            timer_late: micros(0, 1000),
        }
    }
}

pub(super) struct Core<M> {
    pub(super) clock: SimClock,
    pub(super) schedule: ScheduleConfig,
    pub(super) schedule_rng: SimRng,
    pub(super) network: Rc<RefCell<Network>>,
    mesh: TimedQueue<(SimNode, ShardIndex, ShardIndex, MeshItem<M>)>,
    /// Arrival time of the last message of each pair of shards, so that no message overtakes another.
    mesh_last: std::collections::BTreeMap<(SimNode, ShardIndex, ShardIndex), Instant>,
    /// Messages of each pair of shards that were posted and not delivered.
    mesh_waiting: std::collections::BTreeMap<(SimNode, ShardIndex, ShardIndex), usize>,
    timeouts: TimedQueue<(SimNode, ShardIndex, ConnId, Timeout)>,
    pub(super) nodes: Vec<Node<M>>,
    pub(super) trace: Trace,
}

/// What happens to a connection at a time, unless it has ended before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timeout {
    /// Its time to send what is queued is over.
    Flush,
    /// Its time to be connected is over.
    Connect,
}

/// How long a connection that is being closed, or whose peer has finished, may take to send what is queued. As in the io_uring
/// plane.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// Capacity of the queue between two shards. As in the io_uring plane.
const MESH_QUEUE_MESSAGES: usize = 1024;

/// The next event of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Network,
    Mesh,
    Timeout,
    Disk(SimNode),
    Turn(SimNode, ShardIndex),
}

impl<M> Core<M> {
    pub(super) fn new(
        clock: SimClock,
        schedule: ScheduleConfig,
        schedule_rng: SimRng,
        network: Network,
        trace: Trace,
    ) -> Self {
        Self {
            clock,
            schedule,
            schedule_rng,
            network: Rc::new(RefCell::new(network)),
            mesh: TimedQueue::default(),
            mesh_last: std::collections::BTreeMap::new(),
            mesh_waiting: std::collections::BTreeMap::new(),
            timeouts: TimedQueue::default(),
            nodes: Vec::new(),
            trace,
        }
    }

    pub(super) fn node(&mut self, node: SimNode) -> &mut Node<M> {
        &mut self.nodes[node.0]
    }

    pub(super) fn flip(&mut self) -> bool {
        self.schedule_rng.random()
    }

    pub(super) fn random_below(&mut self, below: usize) -> usize {
        (self.schedule_rng.next_u64() % below as u64) as usize
    }

    /// Schedules a turn for a shard that has an event.
    pub(super) fn wake(&mut self, node: SimNode, shard: ShardIndex) {
        let at = self.clock.now().after(draw(&self.schedule.wake.clone(), &mut self.schedule_rng));
        let shard = self.nodes[node.0].shard(shard);
        if shard.is_running() && shard.turn_at.is_none() {
            shard.turn_at = Some(at);
        }
    }

    pub(super) fn post(&mut self, node: SimNode, from: ShardIndex, to: ShardIndex, item: MeshItem<M>) {
        if self.nodes[node.0].end.is_some() {
            return;
        }
        assert!(
            usize::from(to) < self.nodes[node.0].shards.len(),
            "a message to shard {to}, which does not exist"
        );
        let drawn = self.clock.now().after(draw(&self.schedule.message.clone(), &mut self.schedule_rng));
        let last = self.mesh_last.entry((node, from, to)).or_insert(drawn);
        *last = (*last).max(drawn);
        if matches!(item, MeshItem::Message(_)) {
            let waiting = self.mesh_waiting.entry((node, from, to)).or_default();
            *waiting += 1;
            assert!(*waiting < BACKLOG_MAX, "{BACKLOG_MAX} messages wait for shard {to}");
        }
        self.mesh.push(*last, (node, from, to, item));
    }

    /// Returns the number of a shard's waiting messages: all of those to itself, and those to others that exceed the queue's
    /// capacity.
    pub(super) fn backlog(&self, node: SimNode, from: ShardIndex) -> usize {
        let of_shard = self.mesh_waiting.range((node, from, 0)..=(node, from, ShardIndex::MAX));
        let waiting = |(key, count): (&(SimNode, ShardIndex, ShardIndex), &usize)| {
            if key.2 == from { *count } else { count.saturating_sub(MESH_QUEUE_MESSAGES) }
        };
        of_shard.map(waiting).sum()
    }

    /// Counts a message as delivered or lost. Wakes the sender if it has others waiting for space.
    pub(super) fn message_taken(&mut self, node: SimNode, from: ShardIndex, to: ShardIndex) {
        let Some(waiting) = self.mesh_waiting.get_mut(&(node, from, to)) else { return };
        *waiting -= 1;
        if *waiting >= MESH_QUEUE_MESSAGES && from != to {
            self.wake(node, from);
        }
    }

    /// Returns the next event and its time. Events at the same time happen in the order of [`Next`].
    pub(super) fn next(&self) -> Option<(Instant, Next)> {
        let mut first: Option<(Instant, Next)> = None;
        let mut offer = |due: Option<Instant>, next: Next| {
            if let Some(due) = due
                && first.is_none_or(|(other, _)| due < other)
            {
                first = Some((due, next));
            }
        };
        offer(self.network.borrow().next_due(), Next::Network);
        offer(self.mesh.next_due(), Next::Mesh);
        offer(self.timeouts.next_due(), Next::Timeout);
        for (at, node) in self.nodes.iter().enumerate() {
            let id = SimNode(at);
            offer(node.disk.next_due(), Next::Disk(id));
            if !node.paused && node.end.is_none() {
                for (shard, state) in (0..).zip(&node.shards) {
                    offer(state.due().filter(|_| state.is_running()), Next::Turn(id, shard));
                }
            }
        }
        // Events that were due while a node was paused happen now.
        first.map(|(due, next)| (due.max(self.clock.now()), next))
    }

    pub(super) fn advance_network(&mut self) {
        let event = self.network.borrow_mut().advance();
        match event {
            Some(NetworkEvent::Connect(link, to)) => self.connect(link, to),
            Some(NetworkEvent::Established(socket)) => self.established(socket),
            Some(NetworkEvent::Taken(socket, bytes)) => self.taken(socket, bytes),
            Some(NetworkEvent::Readable(socket)) => self.readable(socket),
            None => {}
        }
    }

    pub(super) fn advance_mesh(&mut self) {
        let Some((node, from, to, item)) = self.mesh.pop() else { return };
        let shard = self.nodes[node.0].shard(to);
        match item {
            MeshItem::Migrant(migrant) if !shard.is_running() => {
                self.network.borrow_mut().abandon(migrant.link.accepting(), true);
            }
            _ if !shard.is_running() => self.message_taken(node, from, to),
            MeshItem::Message(message) => shard.inbox.push(Source::Mesh(from), Event::Message(from, message)),
            MeshItem::Migrant(migrant) => shard.inbox.push(Source::Mesh(from), Event::Migrated(migrant)),
        }
        self.wake(node, to);
    }

    /// Limits the time in which a connection may send what is queued.
    pub(super) fn start_flush_timeout(&mut self, node: SimNode, shard: ShardIndex, conn: ConnId) {
        self.start_timeout(FLUSH_TIME_MAX, (node, shard, conn, Timeout::Flush));
    }

    pub(super) fn start_timeout(&mut self, after: Duration, timeout: (SimNode, ShardIndex, ConnId, Timeout)) {
        self.timeouts.push(self.clock.now().after(after), timeout);
    }

    pub(super) fn advance_timeouts(&mut self) {
        match self.timeouts.pop() {
            Some((node, shard, conn, Timeout::Flush)) => self.flush_timed_out(node, shard, conn),
            Some((node, shard, conn, Timeout::Connect)) => self.connect_timed_out(node, shard, conn),
            None => {}
        }
    }

    fn flush_timed_out(&mut self, node: SimNode, shard: ShardIndex, id: ConnId) {
        let owner = self.nodes[node.0].shard(shard);
        let Some(conn) = owner.conns.get_mut(&id) else { return };
        let reason = if conn.closing.is_some() { CloseReason::Local } else { CloseReason::Peer };
        conn.closing = Some(Close::Now);
        let socket = conn.socket;
        owner.inbox.push(Source::Conn(id), Event::Closed(id, reason));
        self.network.borrow_mut().abandon(socket, false);
        self.wake(node, shard);
    }

    pub(super) fn advance_disk(&mut self, node: SimNode) {
        let Some((shard, token, completion)) = self.nodes[node.0].disk.complete_next() else { return };
        if self.nodes[node.0].shard(shard).is_running() {
            self.nodes[node.0].shard(shard).inbox.push(Source::Disk, Event::Disk(token, completion));
            self.wake(node, shard);
        }
    }

    /// Ends the process of a node: its connections are reset or closed, and its messages are lost.
    pub(super) fn clean_up(&mut self, node: SimNode, reset: bool) {
        let mut network = self.network.borrow_mut();
        for socket in self.nodes[node.0].stop() {
            network.abandon(socket, reset);
        }
        self.mesh.retain(|(other, _, _, item)| {
            if let MeshItem::Migrant(migrant) = item
                && *other == node
            {
                network.abandon(migrant.link.accepting(), true);
            }
            *other != node
        });
        self.mesh_last.retain(|(other, _, _), _| *other != node);
        self.mesh_waiting.retain(|(other, _, _), _| *other != node);
        self.timeouts.retain(|(other, ..)| *other != node);
    }

    /// Returns the node and the listener with this address.
    pub(super) fn listener(&self, address: SocketAddr) -> Option<(SimNode, ListenerId)> {
        self.nodes.iter().enumerate().find_map(|(at, node)| {
            let listener = node.listeners.iter().position(|other| *other == address)?;
            Some((SimNode(at), ListenerId(listener as u16)))
        })
    }

    fn connect(&mut self, link: LinkId, to: SocketAddr) {
        let Some((node, listener)) = self.listener(to) else { return self.reject_connect(link) };
        let shards = (0..).zip(&self.nodes[node.0].shards);
        let accepting: Vec<ShardIndex> =
            shards.filter(|(_, shard)| shard.is_running() && shard.accepting).map(|(at, _)| at).collect();
        if accepting.is_empty() || self.nodes[node.0].end.is_some() {
            return self.reject_connect(link);
        }
        let shard = accepting[self.random_below(accepting.len())];
        let peer = {
            let mut network = self.network.borrow_mut();
            network.accept(link);
            network.peer_address(link)
        };
        let owner = self.nodes[node.0].shard(shard);
        let conn = owner.add_conn(Conn::accepted(link, listener, Endpoints::new(peer, to)));
        owner.inbox.push(Source::Conn(conn), Event::Accept(conn));
        owner.readable(conn);
        self.nodes[node.0].sockets.insert(link.accepting(), (shard, conn));
        self.wake(node, shard);
    }

    /// Moves a migrating connection to its new shard once its queued sends have left.
    pub(super) fn move_if_sent(&mut self, node: SimNode, link: LinkId) {
        if self.network.borrow().queued_bytes(link.accepting()) == 0
            && let Some((from, to, migrant)) = self.node(node).moving.remove(&link)
        {
            self.post(node, from, to, MeshItem::Migrant(migrant));
        }
    }

    fn move_any_if_sent(&mut self, socket: Socket) {
        let Socket { link, side: Side::Accepting } = socket else { return };
        let owner = self.nodes.iter().position(|node| node.moving.contains_key(&link));
        if let Some(node) = owner {
            self.move_if_sent(SimNode(node), link);
        }
    }

    fn reject_connect(&mut self, link: LinkId) {
        self.network.borrow_mut().abandon(link.accepting(), true);
    }

    fn readable(&mut self, socket: Socket) {
        let Some((node, shard, conn)) = self.owner(socket) else { return self.move_any_if_sent(socket) };
        if !self.reject_connecting(node, shard, conn) {
            self.nodes[node.0].shard(shard).readable(conn);
        }
        self.wake(node, shard);
    }

    fn taken(&mut self, socket: Socket, bytes: usize) {
        let Some((node, shard, conn)) = self.owner(socket) else { return self.move_any_if_sent(socket) };
        let left = self.network.borrow().queued_bytes(socket);
        let owner = self.nodes[node.0].shard(shard);
        owner.inbox.push(Source::Conn(conn), Event::Sent(conn, bytes));
        let state = owner.conns.get(&conn).map(|conn| (conn.closing, conn.finished));
        let reason = match state.filter(|_| left == 0) {
            Some((Some(Close::AfterSends), _)) => Some(CloseReason::Local),
            Some((None, true)) => Some(CloseReason::Peer),
            _ => None,
        };
        if let Some(reason) = reason {
            owner.inbox.push(Source::Conn(conn), Event::Closed(conn, reason));
        }
        self.wake(node, shard);
    }

    pub(super) fn owner(&self, socket: Socket) -> Option<(SimNode, ShardIndex, ConnId)> {
        self.nodes.iter().enumerate().find_map(|(at, node)| {
            let (shard, conn) = node.sockets.get(&socket)?;
            Some((SimNode(at), *shard, *conn))
        })
    }
}

/// A running hash of all events: two runs are equal if their hashes are.
pub(super) struct Trace {
    hash: u64,
    events: u64,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        Self { hash: mix(seed), events: 0 }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn add(&mut self, what: &str, number: u64) {
        self.events += 1;
        self.add_word(number);
        self.words(what.as_bytes());
    }

    pub(super) fn add_bytes(&mut self, what: &str, number: u64, bytes: &[u8]) {
        self.add(what, number);
        self.add_word(bytes.len() as u64);
        self.words(bytes);
    }

    fn words(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.add_word(u64::from_le_bytes(word));
        }
    }

    fn add_word(&mut self, word: u64) {
        self.hash = mix(self.hash ^ word);
    }
}
