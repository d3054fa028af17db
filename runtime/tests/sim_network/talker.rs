//! Nodes that send each other numbered messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, ConnectFailure, Instant, ListenerId, Plane, ShardApp,
    ShardIndex, Token,
};
use highwater_runtime::sim::SimNode;

/// Time between two messages, and before a connection is opened again.
const TICK: Duration = Duration::from_millis(10);

/// Time that a connect may take.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The first byte of a connection is the number of the node that opened it. Messages follow: their number on this connection, and when
/// they were sent.
pub(crate) const MESSAGE_BYTES: usize = 16;

/// Opens a connection to every other node, again when it has ended, and sends messages on each.
pub(crate) struct Talker {
    node: usize,
    /// The connections that this node opens.
    pub(crate) links: BTreeMap<usize, Outgoing>,
    pub(crate) accepted: BTreeMap<ConnId, Incoming>,
    /// Messages received from each node, and how long they took.
    received: BTreeMap<usize, Received>,
    /// How the connections that this node has opened or accepted have ended.
    pub(crate) ends: Vec<CloseReason>,
    pub(crate) failures: Vec<ConnectFailure>,
}

pub(crate) struct Outgoing {
    to: SocketAddr,
    conn: Option<ConnId>,
    pub(crate) is_open: bool,
    next: u64,
    pub(crate) sent: u64,
}

#[derive(Default)]
pub(crate) struct Incoming {
    from: Option<usize>,
    unread: Vec<u8>,
    next: u64,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) messages: u64,
    pub(crate) slowest: Duration,
}

impl Talker {
    pub(crate) fn new(plane: &mut dyn Plane<()>, node: usize, others: &[(usize, SocketAddr)]) -> Self {
        plane.set_timer(plane.now(), Token(0));
        let link = |to: SocketAddr| Outgoing { to, conn: None, is_open: false, next: 0, sent: 0 };
        Self {
            node,
            links: others.iter().map(|(node, address)| (*node, link(*address))).collect(),
            accepted: BTreeMap::new(),
            received: BTreeMap::new(),
            ends: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn received_from(&self, node: SimNode) -> Received {
        self.received.get(&node.0).copied().unwrap_or_default()
    }
}

impl ShardApp for Talker {
    type Message = ();

    fn on_timer(&mut self, plane: &mut dyn Plane<()>, token: Token) {
        plane.set_timer(plane.now().after(TICK), token);
        for (node, link) in &mut self.links {
            match link.conn {
                None => link.conn = Some(plane.connect(link.to, CONNECT_WITHIN, Token(*node as u64))),
                Some(conn) if link.is_open => {
                    let mut message = Vec::with_capacity(MESSAGE_BYTES);
                    message.extend_from_slice(&link.next.to_le_bytes());
                    message.extend_from_slice(&plane.now().0.to_le_bytes());
                    plane.send(conn, message.into());
                    link.next += 1;
                    link.sent += 1;
                }
                Some(_) => {}
            }
        }
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<()>,
        conn: ConnId,
        token: Token,
        outcome: Result<(), ConnectError>,
    ) {
        let link = self.links.get_mut(&(token.0 as usize)).expect("it was connected to");
        assert_eq!(link.conn, Some(conn));
        assert!(!link.is_open, "a connect has one outcome");
        match outcome {
            Ok(()) => {
                link.is_open = true;
                link.next = 0;
                plane.send(conn, vec![self.node as u8].into());
            }
            Err(error) => {
                assert_eq!(error.to, link.to);
                link.conn = None;
                self.failures.push(error.why);
            }
        }
    }

    fn on_accept(&mut self, plane: &mut dyn Plane<()>, conn: ConnId, _: ListenerId, _: SocketAddr) {
        plane.stream(conn);
        self.accepted.insert(conn, Incoming::default());
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<()>, conn: ConnId, data: &[u8]) {
        let incoming = self.accepted.get_mut(&conn).expect("only accepted connections receive");
        incoming.unread.extend_from_slice(data);
        let from = match incoming.from {
            Some(from) => from,
            None => usize::from(incoming.unread.remove(0)),
        };
        incoming.from = Some(from);
        let received = self.received.entry(from).or_default();
        while let Some((message, rest)) = incoming.unread.split_first_chunk::<MESSAGE_BYTES>() {
            let [number, sent] = [0, 8].map(|at| {
                u64::from_le_bytes(message[at..at + 8].try_into().expect("a message has two numbers"))
            });
            assert_eq!(number, incoming.next, "messages arrive in order, once and without gaps");
            incoming.next += 1;
            received.messages += 1;
            let took = plane.now().since(Instant(sent));
            received.slowest = received.slowest.max(took);
            incoming.unread = rest.to_vec();
        }
    }

    fn on_closed(&mut self, _: &mut dyn Plane<()>, conn: ConnId, reason: CloseReason) {
        self.ends.push(reason);
        if self.accepted.remove(&conn).is_none() {
            let link = self.links.values_mut().find(|link| link.conn == Some(conn)).expect("it ends once");
            link.conn = None;
            link.is_open = false;
        }
    }

    fn on_bulk(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: AlignedBuf) {}
    fn on_sent(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: usize) {}
    fn on_disk(&mut self, _: &mut dyn Plane<()>, _: Token, _: Completion) {}
    fn on_message(&mut self, _: &mut dyn Plane<()>, _: ShardIndex, (): ()) {}
    fn on_migrated(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: ListenerId, _: SocketAddr, (): ()) {}
    fn on_turn_end(&mut self, _: &mut dyn Plane<()>) {}

    fn on_shutdown(&mut self, plane: &mut dyn Plane<()>) {
        plane.exit();
    }
}
