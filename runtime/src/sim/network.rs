//! Byte streams between two sides with TCP's semantics: in order, without duplicates, and without loss while both sides live. Data
//! may be split arbitrarily, arrive late, be blocked by a slow reader, stalled by a cut, or ended by a reset.
//!
//! A packet that a real network loses is sent again, so to a program it is late: loss shows as a delay, and lasting loss ends the
//! connection. So it is here. [`super::paths`] has the faults between nodes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;

use super::clock::SimClock;
use super::node::SimNode;
use super::paths::Paths;
use super::pipe::{Pipe, Segment, StreamEnd, segment_bytes};
use super::rng::SimRng;
use super::timed_queue::TimedQueue;
use crate::plane::Instant;

/// How the network behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// Delay of a segment. Drawn for each segment, but segments never overtake each other.
    pub delay: RangeInclusive<Duration>,
    /// Time until the kernel takes queued bytes.
    pub take: RangeInclusive<Duration>,
    /// Limit on bytes of one direction of a connection that were taken but not yet read.
    pub window_bytes: usize,
    /// How long a side of a connection between nodes whose path is cut waits for an answer before the connection ends with an error.
    pub give_up: RangeInclusive<Duration>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
        Self {
            delay: micros(20, 1000),
            take: micros(0, 50),
            window_bytes: 256 << 10,
            give_up: Duration::from_secs(30)..=Duration::from_mins(2),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkId(pub(super) u64);

impl LinkId {
    /// Returns the socket of the side that accepts the connection.
    pub(super) fn accepting(self) -> Socket {
        Socket { link: self, side: Side::Accepting }
    }
}

/// A side of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Side {
    Connecting,
    Accepting,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Connecting, Self::Accepting];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Connecting => Self::Accepting,
            Self::Accepting => Self::Connecting,
        }
    }
}

/// One side of one link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Socket {
    pub(super) link: LinkId,
    pub(super) side: Side,
}

impl Socket {
    /// Returns the socket at the other side.
    pub(super) fn other(self) -> Self {
        Self { side: self.side.other(), ..self }
    }
}

/// An event for the owner of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NetworkEvent {
    /// A connection request arrived.
    Connect(LinkId, SocketAddr),
    /// The other side has accepted the connection. Only for sockets of nodes.
    Established(Socket),
    /// Queued bytes were taken.
    Taken(Socket, usize),
    /// Bytes, or the end of the stream, have arrived.
    Readable(Socket),
}

/// State of a side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SideState {
    Open,
    /// Finished sending, and discards what arrives.
    Draining,
    /// Answers anything that arrives with a reset.
    Closed,
}

pub(super) struct Link {
    to: SocketAddr,
    /// The node of each side. The connecting side may be a client of the test, and the address may be nobody's.
    pub(super) nodes: [Option<SimNode>; 2],
    /// A node has accepted the connection.
    accepted: bool,
    /// The direction from each side.
    pub(super) pipes: [Pipe; 2],
    pub(super) states: [SideState; 2],
    /// Cut by the client.
    pub(super) cut: bool,
    /// Counts how often the path between the nodes was cut or healed.
    pub(super) cut_changes: u64,
}

impl Link {
    /// Returns whether a node has opened it, and not a client of the test.
    pub(super) fn is_from_node(&self) -> bool {
        self.nodes[Side::Connecting as usize].is_some()
    }
}

pub(super) enum Step {
    Connect(LinkId),
    Take(Socket),
    /// A segment that this socket has sent arrives at the other side.
    Arrive(Socket),
    /// This side gives up, if the path has been cut since.
    GiveUp(Socket, u64),
    /// This side is reset by the network.
    Break(Socket),
}

pub(super) struct Network {
    pub(super) clock: SimClock,
    pub(super) rng: SimRng,
    pub(super) config: NetworkConfig,
    pub(super) paths: Paths,
    pub(super) links: BTreeMap<LinkId, Link>,
    next_link: u64,
    pub(super) steps: TimedQueue<Step>,
}

impl Network {
    pub(super) fn new(clock: SimClock, rng: SimRng, config: NetworkConfig) -> Self {
        Self {
            clock,
            rng,
            config,
            paths: Paths::default(),
            links: BTreeMap::new(),
            next_link: 0,
            steps: TimedQueue::default(),
        }
    }

    pub(super) fn set_config(&mut self, config: NetworkConfig) {
        self.config = config;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.steps.next_due()
    }

    /// Opens a link, and sends a connection request to that address, which is a listener of the node `at`. `from` is the node that
    /// connects; a client of the test is none. Returns the connecting side.
    pub(super) fn connect(&mut self, from: Option<SimNode>, to: SocketAddr, at: Option<SimNode>) -> Socket {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let link = Link {
            to,
            nodes: [from, at],
            accepted: false,
            pipes: Default::default(),
            states: [SideState::Open; 2],
            cut: false,
            cut_changes: 0,
        };
        let is_cut = self.paths.is_link_cut(&link);
        self.links.insert(id, link);
        let socket = Socket { link: id, side: Side::Connecting };
        let due = self.after(&self.delay(socket));
        self.steps.push(due, Step::Connect(id));
        if is_cut {
            self.start_give_up(id);
        }
        socket
    }

    /// Returns the address of the connecting side.
    pub(super) fn peer_address(&self, link: LinkId) -> SocketAddr {
        let from = self.links.get(&link).and_then(|link| link.nodes[Side::Connecting as usize]);
        if let Some(node) = from {
            let port = 32_768 + (link.0 % 28_000) as u16;
            return SocketAddr::from((node.address(), port));
        }
        let [.., high, low] = link.0.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, 255, high, low), 40_000))
    }

    /// Marks a link as accepted by the node of its address.
    pub(super) fn accept(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.accepted = true;
        if link.is_from_node() {
            self.transmit(id.accepting(), Segment::Established);
        }
    }

    pub(super) fn send(&mut self, socket: Socket, data: Bytes) {
        let Some(link) = self.links.get_mut(&socket.link).filter(|_| !data.is_empty()) else { return };
        if link.states[socket.side as usize] == SideState::Closed {
            // It broke, which its owner does not know yet.
            return;
        }
        let pipe = &mut link.pipes[socket.side as usize];
        assert!(!pipe.finish_when_sent, "cannot send after the end of the stream");
        pipe.queued_bytes += data.len();
        pipe.queued.push_back(data);
        self.plan_take(socket);
    }

    /// Returns the bytes sent but not yet taken.
    pub(super) fn queued_bytes(&self, socket: Socket) -> usize {
        self.links.get(&socket.link).map_or(0, |link| link.pipes[socket.side as usize].queued_bytes)
    }

    /// Returns the bytes that can be read.
    pub(super) fn arrived_bytes(&self, socket: Socket) -> usize {
        self.links.get(&socket.link).map_or(0, |link| link.pipes[socket.side.other() as usize].arrived_bytes)
    }

    /// Returns how the direction towards this side ended, once everything before the end has been read.
    pub(super) fn end(&self, socket: Socket) -> Option<StreamEnd> {
        let Some(link) = self.links.get(&socket.link) else { return Some(StreamEnd::Reset) };
        let pipe = &link.pipes[socket.side.other() as usize];
        pipe.end.filter(|_| pipe.arrived_bytes == 0)
    }

    /// Reads up to `bytes` bytes that have arrived.
    pub(super) fn read(&mut self, socket: Socket, bytes: usize) -> Vec<u8> {
        let Some(link) = self.links.get_mut(&socket.link) else { return Vec::new() };
        let is_silent = link.is_from_node() && self.paths.is_blocked(link, socket.side);
        let pipe = &mut link.pipes[socket.side.other() as usize];
        let data = pipe.read(bytes);
        if is_silent {
            pipe.unacknowledged_bytes += data.len();
        }
        self.plan_take(socket.other());
        data
    }

    /// Returns bytes that were read, so that they are read again first.
    pub(super) fn unread(&mut self, socket: Socket, data: Bytes) {
        if let Some(pipe) = self.pipe(socket.other()).filter(|_| !data.is_empty()) {
            pipe.arrived_bytes += data.len();
            pipe.unread_bytes += data.len();
            pipe.arrived.push_front(data);
        }
    }

    /// Ends the direction from this side after what is queued.
    pub(super) fn finish_sending(&mut self, socket: Socket) {
        if let Some(pipe) = self.pipe(socket) {
            pipe.finish_when_sent = true;
            self.plan_take(socket);
        }
    }

    /// Like `finish_sending`, and also discards what arrives.
    pub(super) fn finish(&mut self, socket: Socket) {
        self.finish_sending(socket);
        let Some(link) = self.links.get_mut(&socket.link) else { return };
        link.states[socket.side as usize] = SideState::Draining;
        link.pipes[socket.side.other() as usize].drain();
        self.plan_take(socket.other());
        self.forget_if_over(socket.link);
    }

    /// Closes this side immediately. Queued bytes are lost; bytes that were taken still arrive. Unread bytes turn the close into a
    /// reset.
    pub(super) fn abandon(&mut self, socket: Socket, reset: bool) {
        let Socket { link: id, side } = socket;
        let Some(link) = self.links.get_mut(&id) else { return };
        if side == Side::Connecting && link.is_from_node() && !link.accepted {
            // Nobody but this side knows of the connection.
            self.links.remove(&id);
            return;
        }
        link.states[side as usize] = SideState::Closed;
        let incoming = &mut link.pipes[side.other() as usize];
        let reset = reset || incoming.arrived_bytes > 0;
        incoming.drain();
        let outgoing = &mut link.pipes[side as usize];
        outgoing.clear_queue();
        outgoing.finish_when_sent = true;
        let finished = std::mem::replace(&mut outgoing.fin_sent, true);
        if reset {
            self.transmit(socket, Segment::End(StreamEnd::Reset));
        } else if !finished {
            self.transmit(socket, Segment::End(StreamEnd::Fin));
        }
        self.forget_if_over(id);
    }

    /// Performs the next step.
    pub(super) fn advance(&mut self) -> Option<NetworkEvent> {
        match self.steps.pop()? {
            Step::Connect(id) => {
                let link = self.links.get(&id)?;
                if self.paths.is_blocked(link, Side::Connecting) {
                    // Nothing answers: the request is sent again.
                    let again = self.clock.now().after(Duration::from_secs(1));
                    self.steps.push(again, Step::Connect(id));
                    return None;
                }
                Some(NetworkEvent::Connect(id, link.to))
            }
            Step::Take(socket) => self.take(socket),
            Step::Arrive(socket) => self.arrive(socket),
            Step::GiveUp(socket, cut_changes) => self.give_up(socket, cut_changes),
            Step::Break(socket) => self.break_side(socket, StreamEnd::Reset),
        }
    }

    fn take(&mut self, socket: Socket) -> Option<NetworkEvent> {
        let window = self.config.window_bytes;
        let pipe = self.pipe(socket)?;
        pipe.take_pending = false;
        let most = pipe.takeable_bytes(window);
        if most == 0 {
            if pipe.queued_bytes == 0 && pipe.finish_when_sent && !pipe.fin_sent {
                pipe.fin_sent = true;
                self.transmit(socket, Segment::End(StreamEnd::Fin));
            }
            return None;
        }
        let bytes = segment_bytes(most, &mut self.rng);
        let data = self.pipe(socket)?.take(bytes);
        self.transmit(socket, Segment::Data(data));
        self.plan_take(socket);
        Some(NetworkEvent::Taken(socket, bytes))
    }

    fn arrive(&mut self, from: Socket) -> Option<NetworkEvent> {
        let at = from.other();
        let link = self.links.get_mut(&from.link)?;
        if self.paths.is_blocked(link, from.side) {
            return None;
        }
        let state = link.states[at.side as usize];
        let pipe = &mut link.pipes[from.side as usize];
        match pipe.in_transit.pop_front()? {
            Segment::Established => {
                return (state == SideState::Open).then_some(NetworkEvent::Established(at));
            }
            Segment::Data(data) if state == SideState::Open => {
                pipe.arrived_bytes += data.len();
                pipe.arrived.push_back(data);
            }
            Segment::Data(data) => {
                pipe.unread_bytes -= data.len();
                if state == SideState::Closed {
                    self.transmit(at, Segment::End(StreamEnd::Reset));
                }
                self.plan_take(from);
                return None;
            }
            Segment::End(end) => {
                if end == StreamEnd::Reset {
                    // A reset may discard bytes that were not read yet.
                    if self.rng.random() {
                        pipe.drain();
                    }
                    pipe.in_transit.clear();
                    pipe.unread_bytes = pipe.arrived_bytes;
                    link.pipes[at.side as usize].clear_queue();
                }
                let pipe = &mut link.pipes[from.side as usize];
                pipe.end = pipe.end.filter(|_| end == StreamEnd::Fin).or(Some(end));
                self.forget_if_over(from.link);
            }
        }
        Some(NetworkEvent::Readable(at))
    }

    pub(super) fn transmit(&mut self, from: Socket, segment: Segment) {
        let drawn = self.after(&self.delay(from));
        let Some(pipe) = self.pipe(from) else { return };
        let due = pipe.last_due.map_or(drawn, |last| last.max(drawn));
        pipe.last_due = Some(due);
        pipe.in_transit.push_back(segment);
        self.steps.push(due, Step::Arrive(from));
    }

    pub(super) fn plan_take(&mut self, socket: Socket) {
        let window = self.config.window_bytes;
        let due = self.after(&self.config.take.clone());
        let Some(pipe) = self.pipe(socket) else { return };
        let nothing_left = pipe.queued_bytes == 0 && pipe.finish_when_sent && !pipe.fin_sent;
        if (nothing_left || pipe.takeable_bytes(window) > 0) && !pipe.take_pending {
            pipe.take_pending = true;
            self.steps.push(due, Step::Take(socket));
        }
    }

    pub(super) fn pipe(&mut self, from: Socket) -> Option<&mut Pipe> {
        self.links.get_mut(&from.link).map(|link| &mut link.pipes[from.side as usize])
    }

    /// Returns the delays of segments that this socket sends.
    pub(super) fn delay(&self, from: Socket) -> RangeInclusive<Duration> {
        let link = self.links.get(&from.link);
        let own = link.and_then(|link| self.paths.delay(link, from.side));
        own.unwrap_or_else(|| self.config.delay.clone())
    }

    pub(super) fn after(&mut self, range: &RangeInclusive<Duration>) -> Instant {
        self.clock.now().after(draw(range, &mut self.rng))
    }

    pub(super) fn forget_if_over(&mut self, id: LinkId) {
        let Some(Link { pipes, states, .. }) = self.links.get(&id) else { return };
        let ends = pipes.each_ref().map(|pipe| pipe.end);
        let broke = ends.iter().flatten().any(|end| end.is_error());
        let both_ended = broke || !ends.contains(&None);
        if !states.contains(&SideState::Open) && (both_ended || *states == [SideState::Closed; 2]) {
            self.links.remove(&id);
        }
    }
}

/// Draws a duration from this range.
pub(super) fn draw(range: &RangeInclusive<Duration>, rng: &mut SimRng) -> Duration {
    let nanos = |d: &Duration| d.as_nanos() as u64;
    Duration::from_nanos(rng.random_range(nanos(range.start())..=nanos(range.end())))
}
