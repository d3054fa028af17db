//! The application under test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;

use super::bulk::Parcels;
use super::closing::{Closing, Observed, Observer, Vanishing};
use super::connecting::{Exchange, Opener};
use super::disk::{DiskCheck, JobByJob};
use super::mesh::{Counts, MeshCheck};
use super::sending::Sending;
use super::simple::{Echo, InTurnEnd, LocalAddress, Paused, PeerAddress, Who};
use super::timers::TimerCheck;
use crate::buf::AlignedBuf;
use crate::plane::{
    Close, CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};

/// Message between test applications.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TestMessage {
    /// Payload of a migrating connection: how often it has moved.
    Moved(u8),
    /// One of a sequence of messages.
    Count {
        /// Number of the sender's behaviour on its shard.
        number: u32,
        /// Position of this message in the sequence.
        n: u32,
        /// Length of the sequence.
        of: u32,
    },
    /// All messages of a sequence have arrived in order.
    Counted {
        /// Number of the sender's behaviour on its shard.
        number: u32,
    },
}

pub(super) type TestPlane<'a> = dyn Plane<TestMessage> + 'a;

/// Behaviour of the application on one connection.
pub(super) trait Behaviour {
    fn recv(&mut self, ctx: &mut Ctx<'_, '_>, data: &[u8]);
    fn bulk(&mut self, _: &mut Ctx<'_, '_>, _: AlignedBuf) {
        panic!("an unrequested bulk");
    }
    fn sent(&mut self, _: &mut Ctx<'_, '_>, _: usize) {}
    fn timer(&mut self, _: &mut Ctx<'_, '_>, token: u32) {
        panic!("timer {token} was never set");
    }
    fn disk(&mut self, _: &mut Ctx<'_, '_>, token: u32, completion: Completion) {
        panic!("completion {token} without an operation: {completion:?}");
    }
    fn counted(&mut self, _: &mut Ctx<'_, '_>, _: ShardIndex) {
        panic!("an unrequested count");
    }
    fn turn_end(&mut self, _: &mut Ctx<'_, '_>, _: &Observed) {}
    /// Handles the outcome of a connect that this behaviour has started. Returns what the new connection does.
    fn connected(
        &mut self,
        _: &mut Ctx<'_, '_>,
        conn: ConnId,
        _: Result<(), ConnectError>,
    ) -> Option<Box<dyn Behaviour>> {
        panic!("{conn:?} was not opened");
    }
    /// The connection has ended. No other call follows.
    fn ended(&mut self, _: &mut TestPlane<'_>, _: &CloseReason) {}
    /// Returns the label under which the end of the connection is recorded.
    fn label(&self) -> Option<u8> {
        None
    }
}

/// Context in which a behaviour acts.
pub(super) struct Ctx<'a, 'p> {
    pub(super) plane: &'a mut TestPlane<'p>,
    pub(super) conn: ConnId,
    pub(super) listener: ListenerId,
    /// Identifies this connection's behaviour on its shard.
    pub(super) number: u32,
    pub(super) dir: &'a PathBuf,
}

impl Ctx<'_, '_> {
    /// Returns a token whose events are passed to this behaviour.
    pub(super) fn token(&self, own: u32) -> Token {
        Token(u64::from(self.number) << 32 | u64::from(own))
    }

    pub(super) fn reply(&mut self, data: impl Into<Bytes>) {
        self.plane.send(self.conn, data.into());
    }
}

/// The listener whose connections are closed as soon as they are accepted.
pub(super) const CLOSING_LISTENER: ListenerId = ListenerId(3);

/// Takes the place of the listener for connections that the application has opened.
const NO_LISTENER: ListenerId = ListenerId(u16::MAX);

/// Chooses the behaviour of an accepted connection by its first bytes:
///
/// | first bytes | behaviour |
/// |---|---|
/// | `E` | echoes |
/// | `H` | echoes, without leaving hello mode |
/// | `W` | sends shard, listener and number of moves of the connection, one byte each; then echoes |
/// | `A` | sends the address that its client connected to, on a line |
/// | `N` | sends the address of its client, on a line |
/// | `G` how, milliseconds:u16, address, newline | opens a connection to this address, see `connecting.rs` |
/// | `Q` | exchanges large messages with the connection that its client has opened with `G` |
/// | `M` shard | moves to that shard, and starts over with the bytes that follow |
/// | `P` quota:u32 | echoes, and pauses receiving each time it has received `quota` bytes |
/// | `U` | echoes from `on_turn_end` |
/// | `B` | receives parcels, see `bulk.rs` |
/// | `S` bytes:u64 | sends that many bytes of a pattern, counts `on_sent`, ends with "all sent" |
/// | `C` label, how, bytes:u32 | sends that many bytes and closes: `A` after sends, `N` now |
/// | `V` label, how | requests a bulk and closes before it has arrived, see `closing.rs` |
/// | `L` label | reads and discards, and records under the label how the connection ended |
/// | `O` label | sends how the connection with that label ended, once it has |
/// | `X` count:u32 | sends that many messages to every shard; replies "in order" when all have arrived |
/// | `T` | checks timers |
/// | `D` seed:u64 | checks the disk |
/// | `J` | runs file jobs one at a time |
/// | `Z` | exits this shard |
///
/// Connections of the fourth listener are closed as soon as they are accepted.
pub struct TestApp {
    dir: PathBuf,
    conns: BTreeMap<ConnId, Entry>,
    numbers: BTreeMap<u32, ConnId>,
    next_number: u32,
    counts: Counts,
    observed: Observed,
    stopping: bool,
    events_since_turn_end: bool,
}

struct Entry {
    number: u32,
    listener: ListenerId,
    peer: SocketAddr,
    moves: u8,
    doing: Doing,
}

enum Doing {
    /// Too few bytes to choose a behaviour.
    Choosing(Vec<u8>),
    Running(Box<dyn Behaviour>),
    Closing,
}

impl TestApp {
    /// Creates an application that keeps its files in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            conns: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            counts: Counts::default(),
            observed: Observed::default(),
            stopping: false,
            events_since_turn_end: false,
        }
    }

    fn add(&mut self, conn: ConnId, listener: ListenerId, peer: SocketAddr, moves: u8) {
        self.add_doing(conn, listener, peer, moves, Doing::Choosing(Vec::new()));
    }

    fn add_doing(&mut self, conn: ConnId, listener: ListenerId, peer: SocketAddr, moves: u8, doing: Doing) {
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(number, conn);
        let old = self.conns.insert(conn, Entry { number, listener, peer, moves, doing });
        assert!(old.is_none(), "{conn:?} was opened twice");
    }

    fn act(
        &mut self,
        plane: &mut TestPlane<'_>,
        conn: ConnId,
        f: impl FnOnce(&mut dyn Behaviour, &mut Ctx<'_, '_>),
    ) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if let Doing::Running(behaviour) = &mut entry.doing {
            let (number, listener) = (entry.number, entry.listener);
            f(behaviour.as_mut(), &mut Ctx { plane, conn, listener, number, dir: &self.dir });
        }
    }

    fn act_by_number(
        &mut self,
        plane: &mut TestPlane<'_>,
        number: u32,
        f: impl FnOnce(&mut dyn Behaviour, &mut Ctx<'_, '_>),
    ) {
        if let Some(conn) = self.numbers.get(&number).copied() {
            self.act(plane, conn, f);
        }
    }

    fn forget(&mut self, conn: ConnId) -> Entry {
        let entry = self.conns.remove(&conn).unwrap_or_else(|| panic!("{conn:?} is not open"));
        self.numbers.remove(&entry.number);
        entry
    }

    /// In hello mode, chooses the behaviour by the first bytes.
    fn choose(&mut self, plane: &mut TestPlane<'_>, conn: ConnId, data: &[u8]) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let Doing::Choosing(bytes) = &mut entry.doing else { unreachable!("still choosing") };
        assert!(data.len() <= 4096, "{} bytes in hello mode", data.len());
        bytes.extend_from_slice(data);
        let bytes = std::mem::take(bytes);
        let Some((behaviour, used)) = chosen(&bytes, entry.moves, entry.peer) else {
            entry.doing = Doing::Choosing(bytes);
            return;
        };
        let rest = &bytes[used..];
        match behaviour {
            Chosen::Move(to) => {
                let moves = entry.moves + 1;
                self.forget(conn);
                plane.migrate(conn, to, TestMessage::Moved(moves), Bytes::copy_from_slice(rest));
            }
            Chosen::Exit => plane.exit(),
            Chosen::Behaviour { behaviour, stream } => {
                entry.doing = Doing::Running(behaviour);
                if stream {
                    plane.stream(conn);
                }
                self.act(plane, conn, |behaviour, ctx| behaviour.recv(ctx, rest));
            }
        }
    }
}

enum Chosen {
    Move(ShardIndex),
    Exit,
    Behaviour { behaviour: Box<dyn Behaviour>, stream: bool },
}

/// Returns the behaviour that these bytes choose, and how many of them it consumes.
fn chosen(bytes: &[u8], moves: u8, peer: SocketAddr) -> Option<(Chosen, usize)> {
    let (first, rest) = bytes.split_first()?;
    let number = |from: usize, len: usize| {
        let mut number = [0; 8];
        number[..len].copy_from_slice(rest.get(from..from + len)?);
        Some(u64::from_le_bytes(number))
    };
    let (behaviour, used): (Box<dyn Behaviour>, usize) = match first {
        b'M' => return Some((Chosen::Move(number(0, 1)? as ShardIndex), 2)),
        b'Z' => return Some((Chosen::Exit, 1)),
        b'H' => return Some((Chosen::Behaviour { behaviour: Box::new(Echo), stream: false }, 1)),
        b'E' => (Box::new(Echo), 0),
        b'A' => (Box::new(LocalAddress), 0),
        b'N' => (Box::new(PeerAddress::new(peer)), 0),
        b'G' => {
            let (opener, used) = Opener::parse(rest)?;
            (Box::new(opener), used)
        }
        b'Q' => (Box::new(Exchange::default()), 0),
        b'W' => (Box::new(Who::new(moves)), 0),
        b'P' => (Box::new(Paused::new(number(0, 4)? as usize)), 4),
        b'U' => (Box::new(InTurnEnd::default()), 0),
        b'B' => (Box::new(Parcels::default()), 0),
        b'S' => (Box::new(Sending::new(number(0, 8)?)), 8),
        b'C' => {
            let how = if number(1, 1)? as u8 == b'A' { Close::AfterSends } else { Close::Now };
            (Box::new(Closing::new(number(0, 1)? as u8, Some(how), number(2, 4)?)), 6)
        }
        b'V' => (Box::new(Vanishing::new(number(0, 1)? as u8, number(1, 1)? as u8)), 2),
        b'L' => (Box::new(Closing::new(number(0, 1)? as u8, None, 0)), 1),
        b'O' => (Box::new(Observer::new(number(0, 1)? as u8)), 1),
        b'X' => (Box::new(MeshCheck::new(number(0, 4)? as u32)), 4),
        b'T' => (Box::new(TimerCheck::default()), 0),
        b'D' => (Box::new(DiskCheck::new(number(0, 8)?)), 8),
        b'J' => (Box::new(JobByJob::default()), 0),
        other => panic!("no behaviour for {:?}", char::from(*other)),
    };
    Some((Chosen::Behaviour { behaviour, stream: true }, 1 + used))
}

impl ShardApp for TestApp {
    type Message = TestMessage;

    fn on_accept(&mut self, plane: &mut TestPlane<'_>, conn: ConnId, listener: ListenerId, peer: SocketAddr) {
        self.events_since_turn_end = true;
        assert!(peer.port() != 0, "a peer has an address");
        assert!(plane.local_addr(conn).is_some(), "a new connection has a local address");
        self.add(conn, listener, peer, 0);
        if self.stopping || listener == CLOSING_LISTENER {
            plane.close(conn, Close::Now);
        }
    }

    fn on_connected(
        &mut self,
        plane: &mut TestPlane<'_>,
        conn: ConnId,
        token: Token,
        outcome: Result<(), ConnectError>,
    ) {
        self.events_since_turn_end = true;
        let is_open = outcome.is_ok();
        let local = plane.local_addr(conn);
        assert_eq!(local.is_some(), is_open, "a connection has a local address if it is open");
        let mut behaviour = None;
        self.act_by_number(plane, (token.0 >> 32) as u32, |opener, ctx| {
            behaviour = opener.connected(ctx, conn, outcome);
        });
        if let Some(local) = local {
            let doing = behaviour.map_or(Doing::Closing, Doing::Running);
            if matches!(doing, Doing::Closing) {
                // Whoever has asked for it is gone.
                plane.close(conn, Close::Now);
            }
            self.add_doing(conn, NO_LISTENER, local, 0, doing);
        }
    }

    fn on_recv(&mut self, plane: &mut TestPlane<'_>, conn: ConnId, data: &[u8]) {
        self.events_since_turn_end = true;
        assert!(!data.is_empty(), "on_recv without bytes");
        let entry = self.conns.get(&conn).unwrap_or_else(|| panic!("{conn:?} is not open"));
        match entry.doing {
            Doing::Choosing(_) => self.choose(plane, conn, data),
            Doing::Running(_) => self.act(plane, conn, |behaviour, ctx| behaviour.recv(ctx, data)),
            Doing::Closing => panic!("{conn:?} was being closed"),
        }
    }

    fn on_bulk(&mut self, plane: &mut TestPlane<'_>, conn: ConnId, buf: AlignedBuf) {
        self.events_since_turn_end = true;
        self.act(plane, conn, |behaviour, ctx| behaviour.bulk(ctx, buf));
    }

    fn on_sent(&mut self, plane: &mut TestPlane<'_>, conn: ConnId, bytes: usize) {
        self.events_since_turn_end = true;
        assert!(self.conns.contains_key(&conn), "{conn:?} is not open");
        self.act(plane, conn, |behaviour, ctx| behaviour.sent(ctx, bytes));
    }

    fn on_closed(&mut self, plane: &mut TestPlane<'_>, conn: ConnId, reason: CloseReason) {
        self.events_since_turn_end = true;
        assert_eq!(plane.local_addr(conn), None, "a closed connection has no address");
        if let Doing::Running(mut behaviour) = self.forget(conn).doing {
            behaviour.ended(plane, &reason);
            if let Some(label) = behaviour.label() {
                self.observed.closed(label, &reason);
            }
        }
    }

    fn on_disk(&mut self, plane: &mut TestPlane<'_>, token: Token, completion: Completion) {
        self.events_since_turn_end = true;
        self.act_by_number(plane, (token.0 >> 32) as u32, |behaviour, ctx| {
            behaviour.disk(ctx, token.0 as u32, completion);
        });
    }

    fn on_message(&mut self, plane: &mut TestPlane<'_>, from: ShardIndex, message: TestMessage) {
        self.events_since_turn_end = true;
        match message {
            TestMessage::Count { number, n, of } => {
                if self.counts.count(from, number, n, of) {
                    plane.post(from, TestMessage::Counted { number });
                }
            }
            TestMessage::Counted { number } => {
                self.act_by_number(plane, number, |behaviour, ctx| behaviour.counted(ctx, from));
            }
            TestMessage::Moved(_) => panic!("a migration message without a connection"),
        }
    }

    fn on_migrated(
        &mut self,
        _: &mut TestPlane<'_>,
        conn: ConnId,
        listener: ListenerId,
        peer: SocketAddr,
        payload: TestMessage,
    ) {
        self.events_since_turn_end = true;
        let TestMessage::Moved(moves) = payload else { panic!("unexpected migration message: {payload:?}") };
        self.add(conn, listener, peer, moves);
    }

    fn on_timer(&mut self, plane: &mut TestPlane<'_>, token: Token) {
        self.events_since_turn_end = true;
        self.act_by_number(plane, (token.0 >> 32) as u32, |behaviour, ctx| {
            behaviour.timer(ctx, token.0 as u32);
        });
    }

    fn on_shutdown(&mut self, plane: &mut TestPlane<'_>) {
        self.events_since_turn_end = true;
        assert!(!std::mem::replace(&mut self.stopping, true), "on_shutdown is called once");
        plane.stop_accepting();
        for (conn, entry) in &mut self.conns {
            plane.send(*conn, Bytes::from_static(b"bye"));
            plane.close(*conn, Close::AfterSends);
            entry.doing = Doing::Closing;
        }
    }

    fn on_turn_end(&mut self, plane: &mut TestPlane<'_>) {
        self.events_since_turn_end = false;
        for (conn, entry) in &mut self.conns {
            if let Doing::Running(behaviour) = &mut entry.doing {
                let (number, listener) = (entry.number, entry.listener);
                let mut ctx = Ctx { plane, conn: *conn, listener, number, dir: &self.dir };
                behaviour.turn_end(&mut ctx, &self.observed);
            }
        }
        if self.stopping && self.conns.is_empty() {
            plane.exit();
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.events_since_turn_end, "the last turn did not end with on_turn_end");
        }
    }
}
