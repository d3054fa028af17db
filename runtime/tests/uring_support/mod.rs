//! Shared by the tests of the io_uring plane: an application that answers frames, and clients for it.
//!
//! A frame is the length of the payload (u32, little endian), its kind (u32) and the payload. The reply to a [`SUM`] frame is the
//! hash of its payload, the reply to an [`ECHO`] frame the frame itself.

#![allow(dead_code)] // each test binary uses only a part

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    Close, CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::{HostKind, Runtime, RuntimeConfig, available_cpus, bind, start};

pub(crate) const HEADER: usize = 8;
pub(crate) const SUM: u32 = 1;
pub(crate) const ECHO: u32 = 2;
/// Closes the connection after the replies.
pub(crate) const BYE: u32 = 3;
/// Requests this many bytes (u32 in the payload) of [`pattern`].
pub(crate) const GIVE: u32 = 4;

/// Payloads of at least this size are received in place.
pub(crate) const BULK_MIN: usize = 64 << 10;

pub(crate) const HOSTS: [HostKind; 2] = [HostKind::Glommio, HostKind::Thread];

/// Time limit for anything that a test waits for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn hash(data: &[u8]) -> u64 {
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write(data);
    hasher.finish()
}

/// Returns pseudo-random bytes, so that misplaced bytes are detected.
pub(crate) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(bytes);
    data
}

pub(crate) fn frame(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What the application reports to the test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Accepted(ConnId),
    Sent(ConnId, usize),
    Closed(ConnId, CloseReason),
    Message(ShardIndex, u64),
}

#[derive(Default)]
struct Peer {
    unread: Vec<u8>,
    bulk: Option<(u32, usize)>,
}

pub(crate) struct FrameApp {
    peers: BTreeMap<ConnId, Peer>,
    events: Option<Sender<Event>>,
    stopping: bool,
    pub(crate) stream: bool,
}

impl FrameApp {
    pub(crate) fn new(events: Option<Sender<Event>>) -> Self {
        Self { peers: BTreeMap::new(), events, stopping: false, stream: true }
    }

    fn report(&self, event: Event) {
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }

    fn answer(plane: &mut dyn Plane<u64>, conn: ConnId, kind: u32, payload: &[u8]) {
        match kind {
            SUM => plane.send(conn, Bytes::copy_from_slice(&hash(payload).to_le_bytes())),
            ECHO => plane.send(conn, Bytes::from(frame(ECHO, payload))),
            BYE => plane.close(conn, Close::AfterSends),
            GIVE => {
                let count = u32::from_le_bytes(payload[..4].try_into().expect("four bytes"));
                for at in (0..count as usize).step_by(100_000) {
                    let bytes = (count as usize - at).min(100_000);
                    plane.send(conn, Bytes::from(pattern(at as u64, bytes)));
                }
            }
            other => panic!("frame of kind {other}"),
        }
    }

    /// Answers complete frames. Starts a bulk for an incomplete one if it is large.
    fn digest(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let mut at = 0;
        while peer.unread.len() - at >= HEADER {
            let header = &peer.unread[at..at + HEADER];
            let bytes = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
            let kind = u32::from_le_bytes(header[4..].try_into().expect("four bytes"));
            let body = &peer.unread[at + HEADER..];
            if body.len() >= bytes {
                Self::answer(plane, conn, kind, &body[..bytes]);
                at += HEADER + bytes;
            } else if bytes >= BULK_MIN {
                let mut buf = AlignedBuf::new(bytes + 64);
                buf[64..64 + body.len()].copy_from_slice(body);
                let filled = 64 + body.len();
                peer.bulk = Some((kind, bytes));
                peer.unread.clear();
                plane.recv_into(conn, buf, filled, 64 + bytes);
                return;
            } else {
                break;
            }
        }
        peer.unread.drain(..at);
    }
}

impl ShardApp for FrameApp {
    type Message = u64;

    fn on_accept(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, _: ListenerId, _: SocketAddr) {
        self.peers.insert(conn, Peer::default());
        if self.stream {
            plane.stream(conn);
        }
        self.report(Event::Accepted(conn));
    }

    fn on_connected(
        &mut self,
        _: &mut dyn Plane<u64>,
        conn: ConnId,
        _: Token,
        outcome: Result<(), ConnectError>,
    ) {
        panic!("{conn:?} was not opened here: {outcome:?}");
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, data: &[u8]) {
        let peer = self.peers.get_mut(&conn).expect("the connection is open");
        assert!(peer.bulk.is_none(), "bytes of a bulk are received into the bulk");
        peer.unread.extend_from_slice(data);
        self.digest(plane, conn);
    }

    fn on_bulk(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, buf: AlignedBuf) {
        let peer = self.peers.get_mut(&conn).expect("the connection is open");
        let (kind, bytes) = peer.bulk.take().expect("a bulk was requested");
        Self::answer(plane, conn, kind, &buf[64..64 + bytes]);
    }

    fn on_sent(&mut self, _: &mut dyn Plane<u64>, conn: ConnId, bytes: usize) {
        self.report(Event::Sent(conn, bytes));
    }

    fn on_closed(&mut self, plane: &mut dyn Plane<u64>, conn: ConnId, reason: CloseReason) {
        self.peers.remove(&conn).expect("closed once");
        self.report(Event::Closed(conn, reason));
        if self.stopping && self.peers.is_empty() {
            plane.exit();
        }
    }

    fn on_disk(&mut self, _: &mut dyn Plane<u64>, _: Token, _: Completion) {}

    fn on_message(&mut self, _: &mut dyn Plane<u64>, from: ShardIndex, message: u64) {
        self.report(Event::Message(from, message));
    }

    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<u64>,
        conn: ConnId,
        _: ListenerId,
        _: SocketAddr,
        payload: u64,
    ) {
        self.peers.insert(conn, Peer::default());
        plane.stream(conn);
        self.report(Event::Message(plane.shard(), payload));
    }

    fn on_timer(&mut self, _: &mut dyn Plane<u64>, _: Token) {}

    fn on_shutdown(&mut self, plane: &mut dyn Plane<u64>) {
        plane.stop_accepting();
        self.stopping = true;
        if self.peers.is_empty() {
            plane.exit();
        }
        for conn in self.peers.keys() {
            plane.close(*conn, Close::AfterSends);
        }
    }

    fn on_turn_end(&mut self, _: &mut dyn Plane<u64>) {}
}

/// Runs a [`FrameApp`] on this many shards. Returns the address to connect to.
pub(crate) fn serve(host: HostKind, shards: usize, events: Option<Sender<Event>>) -> (Runtime, SocketAddr) {
    let listener = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let cpus = available_cpus().expect("affinity").into_iter().cycle().take(shards).collect();
    let mut config = RuntimeConfig::new(cpus);
    config.host = host;
    config.listeners = vec![listener];
    let runtime = start(config, move |_, _| Ok(FrameApp::new(events.clone()))).expect("shards start");
    (runtime, address)
}

/// Stops the shards and waits for them.
pub(crate) fn stop(runtime: Runtime) {
    runtime.shutdown_handle().shutdown();
    runtime.wait().expect("no shard panics");
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the shards listen");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
    stream.set_write_timeout(Some(TIMEOUT)).expect("a socket option");
    stream
}

/// Sends a frame and checks the hash in the reply.
pub(crate) fn sum(stream: &mut TcpStream, payload: &[u8]) {
    stream.write_all(&frame(SUM, payload)).expect("the shard reads");
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("the shard answers");
    assert_eq!(u64::from_le_bytes(answer), hash(payload));
}
