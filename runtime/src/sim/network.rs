//! Byte streams between two sides with TCP's semantics: in order, without duplicates, and without loss while both sides live. Data
//! may be split arbitrarily, arrive late, be blocked by a slow reader, stalled by a cut, or ended by a reset.
//!
//! ```text
//! send -> [ queued ] --take--> [ in transit ] --arrive--> [ arrived ] -> read
//!                              \______ at most `window_bytes` _____/
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use rand::RngExt as _;

use super::clock::SimClock;
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
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
        Self { delay: micros(20, 1000), take: micros(0, 50), window_bytes: 256 << 10 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkId(pub(super) u64);

/// A side of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Side {
    Connecting,
    Accepting,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Connecting => Self::Accepting,
            Self::Accepting => Self::Connecting,
        }
    }
}

/// How one direction of a link ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamEnd {
    Fin,
    Reset,
}

/// An event for the owner of a side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NetworkEvent {
    /// A connection request arrived.
    Connect(LinkId, SocketAddr),
    /// Queued bytes were taken.
    Taken(LinkId, Side, usize),
    /// Bytes, or the end of the stream, have arrived.
    Readable(LinkId, Side),
}

/// One direction of a link.
#[derive(Default)]
struct Pipe {
    queued: VecDeque<Bytes>,
    queued_bytes: usize,
    finish_when_sent: bool,
    fin_sent: bool,
    take_pending: bool,
    in_transit: VecDeque<Segment>,
    last_due: Option<Instant>,
    arrived: VecDeque<Bytes>,
    arrived_bytes: usize,
    /// Bytes taken but not yet read.
    unread_bytes: usize,
    end: Option<StreamEnd>,
}

enum Segment {
    Data(Bytes),
    End(StreamEnd),
}

/// State of a side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SideState {
    Open,
    /// Finished sending, and discards what arrives.
    Draining,
    /// Answers anything that arrives with a reset.
    Closed,
}

struct Link {
    to: SocketAddr,
    /// The direction from each side.
    pipes: [Pipe; 2],
    states: [SideState; 2],
    cut: bool,
}

enum Step {
    Connect(LinkId),
    Take(LinkId, Side),
    Arrive(LinkId, Side),
}

pub(super) struct Network {
    clock: SimClock,
    rng: SimRng,
    config: NetworkConfig,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    steps: TimedQueue<Step>,
}

impl Network {
    pub(super) fn new(clock: SimClock, rng: SimRng, config: NetworkConfig) -> Self {
        Self { clock, rng, config, links: BTreeMap::new(), next_link: 0, steps: TimedQueue::default() }
    }

    pub(super) fn set_config(&mut self, config: NetworkConfig) {
        self.config = config;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.steps.next_due()
    }

    /// Opens a link, and sends a connection request to that address.
    pub(super) fn connect(&mut self, to: SocketAddr) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let link = Link { to, pipes: Default::default(), states: [SideState::Open; 2], cut: false };
        self.links.insert(id, link);
        let due = self.after(&self.config.delay.clone());
        self.steps.push(due, Step::Connect(id));
        id
    }

    /// Returns the address of the connecting side.
    pub(super) fn peer_address(link: LinkId) -> SocketAddr {
        let [.., high, low] = link.0.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, 255, high, low), 40_000))
    }

    pub(super) fn send(&mut self, link: LinkId, from: Side, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let Some(pipe) = self.pipe(link, from) else { return };
        assert!(!pipe.finish_when_sent, "cannot send after the end of the stream");
        pipe.queued_bytes += data.len();
        pipe.queued.push_back(data);
        self.plan_take(link, from);
    }

    /// Returns the bytes sent but not yet taken.
    pub(super) fn queued_bytes(&self, link: LinkId, from: Side) -> usize {
        self.links.get(&link).map_or(0, |link| link.pipes[from as usize].queued_bytes)
    }

    /// Returns the bytes that can be read.
    pub(super) fn arrived_bytes(&self, link: LinkId, at: Side) -> usize {
        self.links.get(&link).map_or(0, |link| link.pipes[at.other() as usize].arrived_bytes)
    }

    /// Returns how the direction towards this side ended, once everything before the end has been read.
    pub(super) fn end(&self, link: LinkId, at: Side) -> Option<StreamEnd> {
        let Some(link) = self.links.get(&link) else { return Some(StreamEnd::Reset) };
        let pipe = &link.pipes[at.other() as usize];
        pipe.end.filter(|_| pipe.arrived_bytes == 0)
    }

    /// Reads up to `bytes` bytes that have arrived.
    pub(super) fn read(&mut self, link: LinkId, at: Side, bytes: usize) -> Vec<u8> {
        let from = at.other();
        let Some(pipe) = self.pipe(link, from) else { return Vec::new() };
        let mut data = Vec::with_capacity(bytes.min(pipe.arrived_bytes));
        while let Some(first) = pipe.arrived.front_mut().filter(|_| data.len() < bytes) {
            let part = first.split_to(first.len().min(bytes - data.len()));
            data.extend_from_slice(&part);
            if !first.has_remaining() {
                pipe.arrived.pop_front();
            }
        }
        pipe.arrived_bytes -= data.len();
        pipe.unread_bytes -= data.len();
        self.plan_take(link, from);
        data
    }

    /// Returns bytes that were read, so that they are read again first.
    pub(super) fn unread(&mut self, link: LinkId, at: Side, data: Bytes) {
        if let Some(pipe) = self.pipe(link, at.other()).filter(|_| !data.is_empty()) {
            pipe.arrived_bytes += data.len();
            pipe.unread_bytes += data.len();
            pipe.arrived.push_front(data);
        }
    }

    /// Ends the direction from this side after what is queued.
    pub(super) fn finish_sending(&mut self, link: LinkId, side: Side) {
        if let Some(pipe) = self.pipe(link, side) {
            pipe.finish_when_sent = true;
            self.plan_take(link, side);
        }
    }

    /// Like `finish_sending`, and also discards what arrives.
    pub(super) fn finish(&mut self, link: LinkId, side: Side) {
        self.finish_sending(link, side);
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.states[side as usize] = SideState::Draining;
        let incoming = &mut entry.pipes[side.other() as usize];
        incoming.drain();
        self.plan_take(link, side.other());
        self.forget_if_over(link);
    }

    /// Closes this side immediately. Queued bytes are lost; bytes that were taken still arrive. Unread bytes turn the close into a
    /// reset.
    pub(super) fn abandon(&mut self, link: LinkId, side: Side, reset: bool) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.states[side as usize] = SideState::Closed;
        let incoming = &mut entry.pipes[side.other() as usize];
        let reset = reset || incoming.arrived_bytes > 0;
        incoming.drain();
        let outgoing = &mut entry.pipes[side as usize];
        outgoing.queued.clear();
        outgoing.queued_bytes = 0;
        outgoing.finish_when_sent = true;
        let finished = std::mem::replace(&mut outgoing.fin_sent, true);
        if reset {
            self.transmit(link, side, Segment::End(StreamEnd::Reset));
        } else if !finished {
            self.transmit(link, side, Segment::End(StreamEnd::Fin));
        }
        self.forget_if_over(link);
    }

    /// Cuts or heals a link: while it is cut, nothing arrives.
    pub(super) fn set_cut(&mut self, link: LinkId, cut: bool) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let healed = std::mem::replace(&mut entry.cut, cut) && !cut;
        if healed {
            for side in [Side::Connecting, Side::Accepting] {
                for _ in 0..self.links[&link].pipes[side as usize].in_transit.len() {
                    let due = self.after(&self.config.delay.clone());
                    self.steps.push(due, Step::Arrive(link, side));
                }
            }
        }
    }

    /// Cuts or heals all links to these addresses.
    pub(super) fn set_cut_to(&mut self, addresses: &[SocketAddr], cut: bool) {
        let links = self.links.iter().filter(|(_, link)| addresses.contains(&link.to));
        let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
        for link in links {
            self.set_cut(link, cut);
        }
    }

    /// Retries a connection request later, because nothing answered it.
    pub(super) fn stall_connect(&mut self, id: LinkId) {
        self.set_cut(id, true);
        let again = self.clock.now().after(Duration::from_secs(1));
        self.steps.push(again, Step::Connect(id));
    }

    /// Performs the next step.
    pub(super) fn advance(&mut self) -> Option<NetworkEvent> {
        match self.steps.pop()? {
            Step::Connect(id) => {
                let link = self.links.get(&id)?;
                if link.cut {
                    self.stall_connect(id);
                    return None;
                }
                Some(NetworkEvent::Connect(id, link.to))
            }
            Step::Take(id, side) => self.take(id, side),
            Step::Arrive(id, side) => self.arrive(id, side),
        }
    }

    fn take(&mut self, id: LinkId, side: Side) -> Option<NetworkEvent> {
        let window = self.config.window_bytes;
        let pipe = self.pipe(id, side)?;
        pipe.take_pending = false;
        let most = pipe.queued_bytes.min(window.saturating_sub(pipe.unread_bytes));
        if most == 0 {
            if pipe.queued_bytes == 0 && pipe.finish_when_sent && !pipe.fin_sent {
                pipe.fin_sent = true;
                self.transmit(id, side, Segment::End(StreamEnd::Fin));
            }
            return None;
        }
        let bytes = segment_bytes(most, &mut self.rng);
        let pipe = self.pipe(id, side)?;
        let mut data = Vec::with_capacity(bytes);
        while let Some(first) = pipe.queued.front_mut().filter(|_| data.len() < bytes) {
            data.extend_from_slice(&first.split_to(first.len().min(bytes - data.len())));
            if first.is_empty() {
                pipe.queued.pop_front();
            }
        }
        pipe.queued_bytes -= bytes;
        pipe.unread_bytes += bytes;
        self.transmit(id, side, Segment::Data(data.into()));
        self.plan_take(id, side);
        Some(NetworkEvent::Taken(id, side, bytes))
    }

    fn arrive(&mut self, id: LinkId, side: Side) -> Option<NetworkEvent> {
        let at = side.other();
        let link = self.links.get_mut(&id)?;
        if link.cut {
            return None;
        }
        let state = link.states[at as usize];
        let pipe = &mut link.pipes[side as usize];
        match pipe.in_transit.pop_front()? {
            Segment::Data(data) if state == SideState::Open => {
                pipe.arrived_bytes += data.len();
                pipe.arrived.push_back(data);
            }
            Segment::Data(data) => {
                pipe.unread_bytes -= data.len();
                if state == SideState::Closed {
                    self.transmit(id, at, Segment::End(StreamEnd::Reset));
                }
                self.plan_take(id, side);
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
                    let back = &mut link.pipes[at as usize];
                    back.queued.clear();
                    back.queued_bytes = 0;
                }
                let pipe = &mut link.pipes[side as usize];
                pipe.end = pipe.end.filter(|_| end == StreamEnd::Fin).or(Some(end));
                self.forget_if_over(id);
            }
        }
        Some(NetworkEvent::Readable(id, at))
    }

    fn transmit(&mut self, id: LinkId, side: Side, segment: Segment) {
        let drawn = self.after(&self.config.delay.clone());
        let Some(pipe) = self.pipe(id, side) else { return };
        let due = pipe.last_due.map_or(drawn, |last| last.max(drawn));
        pipe.last_due = Some(due);
        pipe.in_transit.push_back(segment);
        self.steps.push(due, Step::Arrive(id, side));
    }

    fn plan_take(&mut self, id: LinkId, side: Side) {
        let window = self.config.window_bytes;
        let due = self.after(&self.config.take.clone());
        let Some(pipe) = self.pipe(id, side) else { return };
        let nothing_left = pipe.queued_bytes == 0 && pipe.finish_when_sent && !pipe.fin_sent;
        let can_take = pipe.queued_bytes > 0 && pipe.unread_bytes < window;
        if (nothing_left || can_take) && !pipe.take_pending {
            pipe.take_pending = true;
            self.steps.push(due, Step::Take(id, side));
        }
    }

    fn pipe(&mut self, link: LinkId, from: Side) -> Option<&mut Pipe> {
        self.links.get_mut(&link).map(|link| &mut link.pipes[from as usize])
    }

    fn after(&mut self, range: &RangeInclusive<Duration>) -> Instant {
        self.clock.now().after(draw(range, &mut self.rng))
    }

    fn forget_if_over(&mut self, id: LinkId) {
        let Link { pipes, states, .. } = &self.links[&id];
        let ends = pipes.each_ref().map(|pipe| pipe.end);
        let both_ended = ends.contains(&Some(StreamEnd::Reset)) || !ends.contains(&None);
        if !states.contains(&SideState::Open) && (both_ended || *states == [SideState::Closed; 2]) {
            self.links.remove(&id);
        }
    }
}

impl Pipe {
    /// Discards what has arrived.
    fn drain(&mut self) {
        self.arrived.clear();
        self.unread_bytes -= std::mem::take(&mut self.arrived_bytes);
    }
}

/// Returns a length between 1 and `most`: small, large and maximal ones are about equally likely.
pub(super) fn segment_bytes(most: usize, rng: &mut SimRng) -> usize {
    match rng.random_range(0..4) {
        0 => most,
        1 => rng.random_range(1..=most),
        _ => {
            let small = 1 << rng.random_range(0..16_u32);
            rng.random_range(1..=most.min(small))
        }
    }
}

/// Draws a duration from this range.
pub(super) fn draw(range: &RangeInclusive<Duration>, rng: &mut SimRng) -> Duration {
    let nanos = |d: &Duration| d.as_nanos() as u64;
    Duration::from_nanos(rng.random_range(nanos(range.start())..=nanos(range.end())))
}
