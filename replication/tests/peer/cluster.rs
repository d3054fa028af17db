//! Replicas of a few partitions on three nodes, which talk over channels only: what leaves a node is bytes.
//!
//! Each partition is a [`World`] of the consensus core's own tests, with its checks after every event. A world's messages are taken from its network, sent over the
//! channel between the two nodes, and put back when they come out of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::frame::{FRAME_HEADER_BYTES, Frame, Frames as FrameIter};
use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_replication::peer::{Attempt, Channel, Dialer, Event, Frames, Goodbye, Settings};
use highwater_replication::raft::{Config, Envelope, Member, Message, Part};
use highwater_runtime::plane::Instant;
use highwater_runtime::sim::SimRng;
use rand::RngExt as _;

use crate::disk::{Entry, Value};
use crate::pipe::{End, START, accept, output};
use crate::samples::{frame, local, partition, replica, send, shard, start_offset};
use crate::world::{Event as WorldEvent, Packet, World};

/// Credit of each side: a few messages.
const CREDIT: u64 = 600;

/// A connection that its opener has made.
struct Connection {
    /// The opener's end, while it has it.
    opener: Option<End>,
    /// The acceptor's end, after the hello.
    acceptor: Option<End>,
    /// Bytes on their way to an acceptor that has not read the hello.
    hello: Vec<u8>,
    attempt: Option<Attempt>,
    /// The opener is gone: nothing is added any more, and what is on its way may still arrive.
    cut: bool,
}

/// The connections between two nodes, of which the first opens them.
struct Link {
    dialer: Dialer,
    connections: Vec<Connection>,
    /// What the current sessions of both sides have not sent yet for lack of credit.
    waiting: [VecDeque<(usize, Packet)>; 2],
}

pub(crate) struct Cluster {
    pub(crate) worlds: Vec<World>,
    links: BTreeMap<(usize, usize), Link>,
    pub(crate) nodes: usize,
    pub(crate) now: Instant,
    processes: Vec<u64>,
    rng: SimRng,
    /// Sessions that were established.
    pub(crate) sessions: usize,
}

impl Cluster {
    pub(crate) fn new(nodes: usize, partitions: usize, rng: SimRng) -> Self {
        let worlds = (0..partitions).map(|_| World::new(nodes as u32, nodes as u32, 1)).collect();
        let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
        let link =
            || Link { dialer: Dialer::new(START), connections: Vec::new(), waiting: Default::default() };
        let links = pairs.map(|pair| (pair, link())).collect();
        let processes = (0..nodes as u64).collect();
        Self { worlds, links, nodes, now: START, processes, rng, sessions: 0 }
    }

    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        self.links.keys().copied().collect()
    }

    fn settings() -> Settings {
        Settings { credit_bytes: CREDIT, ..Settings::default() }
    }

    /// Lets an event happen to a partition, and sends what follows from it.
    pub(crate) fn apply(&mut self, world: usize, event: &WorldEvent) -> Result<(), String> {
        self.worlds[world].apply(event)?;
        self.collect(world)
    }

    /// Sends the messages of a partition. Those to nodes without a channel are lost.
    fn collect(&mut self, world: usize) -> Result<(), String> {
        loop {
            for packet in std::mem::take(&mut self.worlds[world].network) {
                let (from, to) = (packet.envelope.from.node.0 as usize, packet.envelope.to.node.0 as usize);
                let pair = (from.min(to), from.max(to));
                let side = usize::from(from > to);
                let link = self.links.get_mut(&pair).expect("every pair has a link");
                if link.channel(side).is_some() {
                    link.waiting[side].push_back((world, packet));
                    link.send_waiting(side);
                }
            }
            // A new leader takes all others for reachable.
            for at in 0..self.nodes {
                for peer in (0..self.nodes).filter(|peer| *peer != at) {
                    let reachable = self.reaches(at, peer);
                    let node = &mut self.worlds[world].nodes[at];
                    if !reachable && node.is_leader() {
                        node.replica.handle_peer_lost(replica(peer as u32, 0));
                    }
                }
            }
            self.settle(world)?;
            if self.worlds[world].network.is_empty() {
                return Ok(());
            }
        }
    }

    /// Returns whether a node has an established channel to another one.
    pub(crate) fn reaches(&self, at: usize, peer: usize) -> bool {
        let pair = (at.min(peer), at.max(peer));
        self.links[&pair].has_channel(usize::from(at > peer))
    }

    /// Describes the connections, for a failure.
    pub(crate) fn describe(&mut self) -> String {
        let mut text = String::new();
        for (pair, link) in &mut self.links {
            for side in 0..2 {
                let waiting = link.waiting[side].len();
                let credit = link.channel(side).map(|channel| channel.credit());
                writeln!(text, "{pair:?} side {side}: {waiting} messages wait, credit {credit:?}")
                    .expect("writing to a string cannot fail");
            }
        }
        text
    }

    /// Has a world carry out what its replicas want.
    fn settle(&mut self, world: usize) -> Result<(), String> {
        let start = self.worlds[world].nodes[0].log.start.end;
        self.worlds[world].apply(&WorldEvent::LogStart(0, start))
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), String> {
        self.now = self.now.after(time);
        for pair in self.pairs() {
            let (now, random) = (self.now, self.rng.random());
            let opener = local(pair.0 as u32, self.processes[pair.0]);
            let link = self.links.get_mut(&pair).expect("a pair");
            if let Some(attempt) = link.dialer.poll_attempt(now) {
                let to = shard(pair.1 as u32, 0);
                let channel = Channel::open(opener, Self::settings(), to, attempt, random, now);
                link.connections.push(Connection {
                    opener: Some(End::new(channel)),
                    acceptor: None,
                    hello: Vec::new(),
                    attempt: None,
                    cut: false,
                });
            }
            for connection in &mut link.connections {
                for end in [&mut connection.opener, &mut connection.acceptor].into_iter().flatten() {
                    end.channel.handle_deadline(now);
                }
            }
            self.take_events(pair)?;
        }
        Ok(())
    }

    /// Bytes move between two nodes: some of what is on its way arrives.
    pub(crate) fn exchange(&mut self, pair: (usize, usize), max: usize) -> Result<(), String> {
        let now = self.now;
        let lends = self.rng.random();
        for at in 0..self.links[&pair].connections.len() {
            self.accept(pair, at);
            let connection = &mut self.links.get_mut(&pair).expect("a pair").connections[at];
            let Connection { opener, acceptor, hello, attempt, cut } = connection;
            if let Some(end) = opener {
                let bytes = output(&mut end.channel, now);
                match acceptor {
                    Some(acceptor) => acceptor.inbox.extend(bytes),
                    // Nobody reads them any more.
                    None if attempt.is_some() => {}
                    None => hello.extend(bytes),
                }
            }
            if let Some(end) = acceptor {
                let bytes = output(&mut end.channel, now);
                if let Some(opener) = opener.as_mut().filter(|_| !*cut) {
                    opener.inbox.extend(bytes);
                }
            }
            for end in [opener, acceptor].into_iter().flatten() {
                end.receive(now, max, lends);
            }
        }
        self.take_events(pair)
    }

    /// The second node of a pair reads the hello of a connection.
    fn accept(&mut self, pair: (usize, usize), at: usize) {
        let (now, random) = (self.now, self.rng.random());
        let link = self.links.get_mut(&pair).expect("a pair");
        let current = link
            .connections
            .iter()
            .filter(|other| other.acceptor.is_some())
            .filter_map(|other| other.attempt)
            .next_back();
        let connection = &mut link.connections[at];
        if connection.hello.is_empty() {
            return;
        }
        let accepted = accept(pair.1 as u32, &connection.hello, current, Self::settings(), random, now);
        match accepted {
            None => {}
            Some(Err(why)) => {
                let answer = Channel::refusal(&local(pair.1 as u32, 0), why);
                if let Some(opener) = &mut connection.opener {
                    opener.inbox.extend(answer);
                }
                connection.hello.clear();
            }
            Some(Ok((channel, attempt, end))) => {
                let mut acceptor = End::new(channel);
                acceptor.inbox = connection.hello.split_off(end);
                connection.hello.clear();
                connection.acceptor = Some(acceptor);
                connection.attempt = Some(attempt);
                // It replaces the one before it.
                for other in link.connections.iter_mut().enumerate().filter(|(other, _)| *other != at) {
                    if let Some(end) = &mut other.1.acceptor {
                        end.channel.close(Goodbye::Replaced, "");
                    }
                }
            }
        }
    }

    /// The connection between two nodes breaks. Both notice, or only the one that opened it, and what it sent may still arrive.
    pub(crate) fn cut(&mut self, pair: (usize, usize), both: bool) -> Result<(), String> {
        let link = self.links.get_mut(&pair).expect("a pair");
        for connection in &mut link.connections {
            connection.cut = true;
            if let Some(end) = &mut connection.opener {
                end.channel.handle_disconnected();
            }
            if both && let Some(end) = &mut connection.acceptor {
                end.channel.handle_disconnected();
                connection.hello.clear();
            }
        }
        self.take_events(pair)
    }

    /// The process of a node ends, and starts again.
    pub(crate) fn crash(&mut self, at: usize, both: bool) -> Result<(), String> {
        for pair in self.pairs().into_iter().filter(|pair| pair.0 == at || pair.1 == at) {
            // Its own ends are gone with the process; the other node may notice later, if this one opened the connection.
            self.cut(pair, both || pair.1 == at)?;
        }
        self.processes[at] += self.nodes as u64;
        for world in 0..self.worlds.len() {
            self.apply(world, &WorldEvent::Crash(at))?;
        }
        Ok(())
    }

    fn take_events(&mut self, pair: (usize, usize)) -> Result<(), String> {
        for at in 0..self.links[&pair].connections.len() {
            for side in 0..2 {
                while let Some(event) = self.poll_event(pair, at, side) {
                    self.handle(pair, at, side, event)?;
                }
            }
        }
        let link = self.links.get_mut(&pair).expect("a pair");
        for side in 0..2 {
            link.send_waiting(side);
        }
        link.connections.retain(|connection| {
            connection.opener.is_some() || connection.acceptor.is_some() || !connection.hello.is_empty()
        });
        Ok(())
    }

    fn poll_event(&mut self, pair: (usize, usize), at: usize, side: usize) -> Option<Event> {
        self.links.get_mut(&pair)?.connections[at].end(side)?.channel.poll_event()
    }

    fn handle(&mut self, pair: (usize, usize), at: usize, side: usize, event: Event) -> Result<(), String> {
        let (me, peer) = if side == 0 { pair } else { (pair.1, pair.0) };
        let (now, random) = (self.now, self.rng.random());
        let link = self.links.get_mut(&pair).expect("a pair");
        match event {
            Event::Established(_) => {
                self.sessions += 1;
                if side == 0 {
                    link.dialer.handle_established(now);
                }
                for world in 0..self.worlds.len() {
                    self.worlds[world].nodes[me].replica.handle_peer_alive(replica(peer as u32, 0));
                    self.settle_and_collect(world)?;
                }
            }
            Event::Message(message) => {
                let end = link.connections[at].end(side).expect("it had an event");
                end.channel.release(message.frames_bytes);
                if message.start_offset != start_offset(&message.envelope.message) {
                    return Err(format!("a start came with offset {:?}", message.start_offset));
                }
                let world = message.partition.partition.0 as usize;
                let packet =
                    Packet { envelope: message.envelope, entries: entries(&message.frames), repair: None };
                self.worlds[world].network.push(packet);
                self.apply(world, &WorldEvent::Deliver { packet: 0, doubled: false })?;
            }
            Event::Repair(repair) => {
                let end = link.connections[at].end(side).expect("it had an event");
                end.channel.release(repair.frames_bytes);
                let world = repair.partition.partition.0 as usize;
                let message = Message::TimeoutNow { term: LeaderEpoch(0) };
                let envelope = Envelope { from: repair.from, to: repair.to, message };
                let range = Some((repair.first, repair.until));
                let packet = Packet { envelope, entries: entries(&repair.frames), repair: range };
                self.worlds[world].network.push(packet);
                self.apply(world, &WorldEvent::Deliver { packet: 0, doubled: false })?;
            }
            Event::PeerLost => {
                link.waiting[side].clear();
                for world in 0..self.worlds.len() {
                    self.worlds[world].nodes[me].replica.handle_peer_lost(replica(peer as u32, 0));
                    self.settle_and_collect(world)?;
                }
            }
            Event::Closed(reason) => {
                if matches!(reason, highwater_replication::peer::CloseReason::Violation(_)) {
                    return Err(format!("node {me}: {reason}"));
                }
                // Goodbyes reach the other side, if the connection is still there.
                let connection = &mut link.connections[at];
                let last = connection.end(side).map(|end| output(&mut end.channel, now)).unwrap_or_default();
                if side == 0 {
                    connection.opener = None;
                    link.dialer.handle_closed(now, random);
                    if let Some(other) = &mut link.connections[at].acceptor {
                        other.inbox.extend(last);
                    }
                } else {
                    connection.acceptor = None;
                    let cut = connection.cut;
                    if let Some(other) = connection.opener.as_mut().filter(|_| !cut) {
                        other.inbox.extend(last);
                    }
                }
            }
            Event::Elsewhere { .. } => return Err("nobody refuses a partition".to_owned()),
            Event::Controller { .. } => return Err("nobody asks the controller".to_owned()),
            Event::Leaders(_) => return Err("nobody says who leads".to_owned()),
        }
        Ok(())
    }

    fn settle_and_collect(&mut self, world: usize) -> Result<(), String> {
        self.settle(world)?;
        self.collect(world)
    }
}

impl Connection {
    fn end(&mut self, side: usize) -> Option<&mut End> {
        if side == 0 { self.opener.as_mut() } else { self.acceptor.as_mut() }
    }
}

impl Link {
    /// Returns the open channel of a side.
    fn channel(&mut self, side: usize) -> Option<&mut Channel> {
        let ends = self.connections.iter_mut().rev().filter_map(|connection| connection.end(side));
        ends.map(|end| &mut end.channel).find(|channel| channel.is_open())
    }

    fn has_channel(&self, side: usize) -> bool {
        let end = |connection: &Connection| {
            let end = if side == 0 { &connection.opener } else { &connection.acceptor };
            end.as_ref().is_some_and(|end| end.channel.is_open())
        };
        self.connections.iter().any(end)
    }

    /// Sends what waits, as far as the credit allows.
    fn send_waiting(&mut self, side: usize) {
        let mut waiting = std::mem::take(&mut self.waiting[side]);
        while let Some((world, packet)) = waiting.front() {
            let Some(channel) = self.channel(side) else { break };
            let frames: Vec<Bytes> = frames(packet);
            if !frames.is_empty() && channel.credit() == 0 {
                break;
            }
            let Envelope { from, to, .. } = packet.envelope;
            let partition = partition(*world as u32);
            match packet.repair {
                Some(range) => channel.send_repair(partition, (from, to), range, frames),
                None => send(channel, *world as u32, packet.envelope.clone(), frames),
            };
            waiting.pop_front();
        }
        self.waiting[side] = waiting;
    }
}

/// Returns the frames of a message's entries.
fn frames(packet: &Packet) -> Vec<Bytes> {
    let first = match (&packet.envelope.message, packet.repair) {
        (Message::Append(append), _) => append.from.0,
        (_, Some((_, until))) => until.0 - packet.entries.len() as u64,
        _ => 0,
    };
    let entries = (first..).zip(&packet.entries);
    entries.map(|(index, entry)| frame(index, entry.epoch.0, &encode(&entry.value))).collect()
}

fn entries(frames: &[Frames]) -> Vec<Entry> {
    let bytes: Vec<u8> = frames.iter().flat_map(|frames| frames.bytes().to_vec()).collect();
    let frames = FrameIter::new(&bytes).map(|frame| frame.expect("a frame that was sent"));
    let entry = |frame: Frame<'_>| Entry {
        epoch: LeaderEpoch(frame.header().leader_epoch.get()),
        value: decode(frame.payload()),
    };
    frames.map(entry).collect()
}

const PARTS: [Part; 5] = [Part::Learner, Part::Voter, Part::Incoming, Part::Outgoing, Part::Demoted];

fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::EpochStart => Vec::new(),
        Value::Lost => vec![1],
        Value::Data(number) => [&[2][..], &number.to_le_bytes()].concat(),
        Value::Config(config) => {
            let mut bytes = vec![3];
            for member in config.members() {
                bytes.extend(member.id.node.0.to_le_bytes());
                bytes.extend(member.id.incarnation.to_le_bytes());
                bytes.push(PARTS.iter().position(|part| *part == member.part).expect("one of them") as u8);
            }
            bytes
        }
    }
}

fn decode(payload: &[u8]) -> Value {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    match payload.split_first() {
        None => Value::EpochStart,
        Some((1, _)) => Value::Lost,
        Some((2, rest)) => Value::Data(number(rest)),
        Some((_, rest)) => {
            let member = |bytes: &[u8]| Member {
                id: replica(number(bytes), number(&bytes[4..])),
                part: PARTS[usize::from(bytes[8])],
            };
            Value::Config(Config::from_members(rest.chunks(9).map(member).collect()).expect("it was valid"))
        }
    }
}

#[test]
fn entries_of_every_kind_are_the_same_after_they_were_frames() {
    let config = Config::new([replica(0, 1), replica(2, 0)], [replica(1, 7)]).expect("valid");
    let values = [Value::EpochStart, Value::Lost, Value::Data(77), Value::Config(config)];
    for value in values {
        let bytes = frame(5, 3, &encode(&value));
        assert!(bytes.len() >= FRAME_HEADER_BYTES);
        let entry = entries(&[Frames::Small(bytes)]).pop().expect("one");
        assert_eq!(entry, Entry { epoch: LeaderEpoch(3), value });
    }
    let packet = Packet {
        envelope: Envelope {
            from: replica(0, 0),
            to: replica(1, 0),
            message: Message::TimeoutNow { term: LeaderEpoch(1) },
        },
        entries: Vec::new(),
        repair: Some((LogIndex(0), LogIndex(0))),
    };
    assert!(frames(&packet).is_empty());
}
