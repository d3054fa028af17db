//! Everything of a simulated world but the applications: they see it through their planes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rand::{Rng as _, RngExt as _};

use super::agenda::Agenda;
use super::clock::SimClock;
use super::network::{LinkId, Network, Notice, Side, draw};
use super::node::{Conn, Event, Node, Parcel, SimNode, Source};
use super::rng::{SimRng, mix};
use crate::plane::{BACKLOG_MAX, Close, ClosedBecause, ConnId, Ends, Instant, ListenerId, ShardIndex};

/// How shards are scheduled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduleConfig {
    /// From something happening to the turn that tells of it.
    pub wake: RangeInclusive<Duration>,
    /// How long a turn takes.
    pub turn: RangeInclusive<Duration>,
    /// Calls of one turn.
    pub calls_per_turn: RangeInclusive<usize>,
    /// From one shard to another.
    pub message: RangeInclusive<Duration>,
    /// How late timers are.
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
    mesh: Agenda<(SimNode, ShardIndex, ShardIndex, Parcel<M>)>,
    /// When the last message of each pair of shards arrives: none overtakes it.
    mesh_last: std::collections::BTreeMap<(SimNode, ShardIndex, ShardIndex), Instant>,
    /// Messages of each pair of shards that were posted and not taken.
    mesh_waiting: std::collections::BTreeMap<(SimNode, ShardIndex, ShardIndex), usize>,
    /// Connections that are to end, if they have not by then.
    giving_up: Agenda<(SimNode, ShardIndex, ConnId)>,
    pub(super) nodes: Vec<Node<M>>,
    pub(super) trace: Trace,
}

/// How long a connection that is being closed, or whose other side has finished, may take to send what is queued for it. As in
/// the io_uring plane.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);

/// Messages on their way from one shard to another. As in the io_uring plane.
const MESH_QUEUE_MESSAGES: usize = 1024;

/// What happens next in the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Network,
    Mesh,
    GiveUp,
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
            mesh: Agenda::default(),
            mesh_last: std::collections::BTreeMap::new(),
            mesh_waiting: std::collections::BTreeMap::new(),
            giving_up: Agenda::default(),
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

    /// A shard has something to do.
    pub(super) fn wake(&mut self, node: SimNode, shard: ShardIndex) {
        let at = self.clock.now().after(draw(&self.schedule.wake.clone(), &mut self.schedule_rng));
        let shard = self.nodes[node.0].shard(shard);
        if shard.is_running() && shard.turn_at.is_none() {
            shard.turn_at = Some(at);
        }
    }

    pub(super) fn post(&mut self, node: SimNode, from: ShardIndex, to: ShardIndex, parcel: Parcel<M>) {
        if self.nodes[node.0].end.is_some() {
            return;
        }
        assert!(
            usize::from(to) < self.nodes[node.0].shards.len(),
            "a message to shard {to}, which there is not"
        );
        let drawn = self.clock.now().after(draw(&self.schedule.message.clone(), &mut self.schedule_rng));
        let last = self.mesh_last.entry((node, from, to)).or_insert(drawn);
        *last = (*last).max(drawn);
        if matches!(parcel, Parcel::Message(_)) {
            let waiting = self.mesh_waiting.entry((node, from, to)).or_default();
            *waiting += 1;
            assert!(*waiting < BACKLOG_MAX, "{BACKLOG_MAX} messages wait for shard {to}");
        }
        self.mesh.push(*last, (node, from, to, parcel));
    }

    /// Messages of a shard that wait: all of those to itself, and those to others that the queues there have no room for.
    pub(super) fn backlog(&self, node: SimNode, from: ShardIndex) -> usize {
        let of_shard = self.mesh_waiting.range((node, from, 0)..=(node, from, ShardIndex::MAX));
        let waiting = |(key, count): (&(SimNode, ShardIndex, ShardIndex), &usize)| {
            if key.2 == from { *count } else { count.saturating_sub(MESH_QUEUE_MESSAGES) }
        };
        of_shard.map(waiting).sum()
    }

    /// A message was taken, or is lost. Whoever has others waiting for room hears of it.
    pub(super) fn message_taken(&mut self, node: SimNode, from: ShardIndex, to: ShardIndex) {
        let Some(waiting) = self.mesh_waiting.get_mut(&(node, from, to)) else { return };
        *waiting -= 1;
        if *waiting >= MESH_QUEUE_MESSAGES && from != to {
            self.wake(node, from);
        }
    }

    /// What happens next, and when. At the same time: in the order of [`Next`].
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
        offer(self.giving_up.next_due(), Next::GiveUp);
        for (at, node) in self.nodes.iter().enumerate() {
            let id = SimNode(at);
            offer(node.disk.next_due(), Next::Disk(id));
            if !node.paused && node.end.is_none() {
                for (shard, state) in (0..).zip(&node.shards) {
                    offer(state.due().filter(|_| state.is_running()), Next::Turn(id, shard));
                }
            }
        }
        // What should have happened while a node was paused happens now.
        first.map(|(due, next)| (due.max(self.clock.now()), next))
    }

    pub(super) fn advance_network(&mut self) {
        let notice = self.network.borrow_mut().advance();
        match notice {
            Some(Notice::Connect(link, to)) => self.connect(link, to),
            Some(Notice::Taken(link, Side::Accepting, bytes)) => self.taken(link, bytes),
            Some(Notice::Readable(link, Side::Accepting)) => {
                if let Some((node, shard, conn)) = self.owner(link) {
                    self.nodes[node.0].shard(shard).readable(conn);
                    self.wake(node, shard);
                } else {
                    self.move_any_if_sent(link);
                }
            }
            _ => {}
        }
    }

    pub(super) fn advance_mesh(&mut self) {
        let Some((node, from, to, parcel)) = self.mesh.pop() else { return };
        let shard = self.nodes[node.0].shard(to);
        match parcel {
            Parcel::Migrant(migrant) if !shard.is_running() => {
                self.network.borrow_mut().abandon(migrant.link, Side::Accepting, true);
            }
            _ if !shard.is_running() => self.message_taken(node, from, to),
            Parcel::Message(message) => shard.inbox.push(Source::Mesh(from), Event::Message(from, message)),
            Parcel::Migrant(migrant) => shard.inbox.push(Source::Mesh(from), Event::Migrated(migrant)),
        }
        self.wake(node, to);
    }

    /// A connection has a limited time to send what is queued for it.
    pub(super) fn give_up_later(&mut self, node: SimNode, shard: ShardIndex, conn: ConnId) {
        self.giving_up.push(self.clock.now().after(FLUSH_TIME_MAX), (node, shard, conn));
    }

    pub(super) fn advance_giving_up(&mut self) {
        let Some((node, shard, id)) = self.giving_up.pop() else { return };
        let it = self.nodes[node.0].shard(shard);
        let Some(conn) = it.conns.get_mut(&id) else { return };
        let because = if conn.closing.is_some() { ClosedBecause::Local } else { ClosedBecause::Peer };
        conn.closing = Some(Close::Now);
        let link = conn.link;
        it.inbox.push(Source::Conn(id), Event::Closed(id, because));
        self.network.borrow_mut().abandon(link, Side::Accepting, false);
        self.wake(node, shard);
    }

    pub(super) fn advance_disk(&mut self, node: SimNode) {
        let Some((shard, token, completion)) = self.nodes[node.0].disk.complete_next() else { return };
        if self.nodes[node.0].shard(shard).is_running() {
            self.nodes[node.0].shard(shard).inbox.push(Source::Disk, Event::Disk(token, completion));
            self.wake(node, shard);
        }
    }

    /// The process of a node is gone: its connections break or end, its messages are lost.
    pub(super) fn clean_up(&mut self, node: SimNode, reset: bool) {
        let mut network = self.network.borrow_mut();
        for link in self.nodes[node.0].stop() {
            network.abandon(link, Side::Accepting, reset);
        }
        self.mesh.retain(|(other, _, _, parcel)| {
            if let Parcel::Migrant(migrant) = parcel
                && *other == node
            {
                network.abandon(migrant.link, Side::Accepting, true);
            }
            *other != node
        });
        self.mesh_last.retain(|(other, _, _), _| *other != node);
        self.mesh_waiting.retain(|(other, _, _), _| *other != node);
        self.giving_up.retain(|(other, _, _)| *other != node);
    }

    fn connect(&mut self, link: LinkId, to: SocketAddr) {
        let found = self.nodes.iter().enumerate().find_map(|(at, node)| {
            let listener = node.listeners.iter().position(|address| *address == to)?;
            Some((SimNode(at), ListenerId(listener as u16)))
        });
        let Some((node, listener)) = found else { return self.refuse(link) };
        if self.nodes[node.0].isolated {
            return self.network.borrow_mut().stall_connect(link);
        }
        let shards = (0..).zip(&self.nodes[node.0].shards);
        let accepting: Vec<ShardIndex> =
            shards.filter(|(_, shard)| shard.is_running() && shard.accepting).map(|(at, _)| at).collect();
        if accepting.is_empty() || self.nodes[node.0].end.is_some() {
            return self.refuse(link);
        }
        let shard = accepting[self.random_below(accepting.len())];
        let it = self.nodes[node.0].shard(shard);
        let conn = it.add_conn(Conn::new(link, listener, Ends::new(Network::peer_address(link), to)));
        it.inbox.push(Source::Conn(conn), Event::Accept(conn));
        it.readable(conn);
        self.nodes[node.0].links.insert(link, (shard, conn));
        self.wake(node, shard);
    }

    /// Sends a connection on its way to another shard if nothing of it is queued any more.
    pub(super) fn move_if_sent(&mut self, node: SimNode, link: LinkId) {
        if self.network.borrow().queued_bytes(link, Side::Accepting) == 0
            && let Some((from, to, migrant)) = self.node(node).moving.remove(&link)
        {
            self.post(node, from, to, Parcel::Migrant(migrant));
        }
    }

    fn move_any_if_sent(&mut self, link: LinkId) {
        let owner = self.nodes.iter().position(|node| node.moving.contains_key(&link));
        if let Some(node) = owner {
            self.move_if_sent(SimNode(node), link);
        }
    }

    fn refuse(&mut self, link: LinkId) {
        self.network.borrow_mut().abandon(link, Side::Accepting, true);
    }

    fn taken(&mut self, link: LinkId, bytes: usize) {
        let Some((node, shard, conn)) = self.owner(link) else { return self.move_any_if_sent(link) };
        let left = self.network.borrow().queued_bytes(link, Side::Accepting);
        let it = self.nodes[node.0].shard(shard);
        it.inbox.push(Source::Conn(conn), Event::Sent(conn, bytes));
        let state = it.conns.get(&conn).map(|conn| (conn.closing, conn.finished));
        let because = match state.filter(|_| left == 0) {
            Some((Some(Close::AfterSends), _)) => Some(ClosedBecause::Local),
            Some((None, true)) => Some(ClosedBecause::Peer),
            _ => None,
        };
        if let Some(because) = because {
            it.inbox.push(Source::Conn(conn), Event::Closed(conn, because));
        }
        self.wake(node, shard);
    }

    fn owner(&self, link: LinkId) -> Option<(SimNode, ShardIndex, ConnId)> {
        self.nodes.iter().enumerate().find_map(|(at, node)| {
            let (shard, conn) = node.links.get(&link)?;
            Some((SimNode(at), *shard, *conn))
        })
    }
}

/// A running hash of everything that happened: two runs are the same if theirs are.
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
