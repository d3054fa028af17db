//! The life of connections: who opens them, the hello or the request to join, the channel, deadlines.
//!
//! The smaller (node, shard) of two opens the connection. Any shard of the other node may accept it; the hello names the shard that it is for, and the
//! connection moves there once, before anything after the hello is read. A later connection of the same two shards replaces the one before.

use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ids::ShardId;
use highwater_replication::join::JoinRequest;
use highwater_replication::peer::limits::HANDSHAKE_TIME;
use highwater_replication::peer::{Channel, Dialer, Goodbye, Hello, PeerError, PeerShard, Refusal, judge};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{Close, ConnId, ConnectError, Instant, Plane, Token};

use super::link::{Link, Open};
use super::{PeerNode, Peers, SessionNumber};
use crate::address::HostPort;
use crate::limits::{PEER_GREETINGS_MAX, PEER_JOIN_TIME, PEER_LINKS_MAX};

/// Maximum time until a connection is open.
const CONNECT_TIME_MAX: Duration = HANDSHAKE_TIME;

/// An accepted connection whose hello has not arrived, or whose request to join is being decided.
#[derive(Debug)]
pub(super) struct Greeting {
    received: Vec<u8>,
    is_joining: bool,
    deadline: Instant,
}

impl Greeting {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// What a new connection is for.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A channel to another shard of this node, to which the connection has to move.
    Elsewhere(Greeted),
    /// A node asks to be a member of the cluster. The connection is waiting for the answer and for nothing else.
    Join(Box<JoinRequest>),
}

/// A hello for another shard of this node, to which the connection has to move.
#[derive(Debug)]
pub(crate) struct Greeted {
    /// The shard.
    pub(crate) shard: ShardId,
    /// The hello.
    pub(crate) hello: Hello,
    /// Bytes that were received after it.
    pub(crate) unread: Bytes,
}

impl Peers {
    /// Replaces the nodes of the cluster, without this one. Channels to those that are gone are closed.
    pub(crate) fn set_nodes<M>(&mut self, plane: &mut dyn Plane<M>, nodes: Vec<PeerNode>) {
        let me = self.local.me.node;
        self.directory.set(nodes.into_iter().filter(|node| node.id != me));
        self.sync_links(plane);
    }

    /// Begins to connect to shards that are new, and closes the channels to those that are gone.
    pub(super) fn sync_links<M>(&mut self, plane: &mut dyn Plane<M>) {
        let gone: Vec<PeerShard> =
            self.links.keys().copied().filter(|peer| !self.directory.knows(*peer)).collect();
        for peer in gone {
            if let Some(open) = self.open_mut(peer) {
                open.channel.close(Goodbye::Stopping, "");
                self.pump(plane, peer);
            }
            let link = self.links.remove(&peer);
            if let Some((conn, _)) = link.and_then(|link| link.connecting) {
                self.conns.remove(&conn);
                plane.close(conn, Close::Now);
            }
        }
        let mut count = 0;
        for peer in self.directory.shards() {
            count += 1;
            if count > PEER_LINKS_MAX {
                tracing::error!(
                    "the cluster has more than {PEER_LINKS_MAX} shards; this one connects to no more"
                );
                break;
            }
            let dials = self.local.me.opens_to(peer);
            let now = plane.now();
            let dialer = dials.then(|| Dialer::new(now));
            let link = || Link { dialer, seen: Some(now), ..Link::default() };
            self.links.entry(peer).or_insert_with(link);
        }
        self.is_rearming = true;
    }

    /// Handles a connection to the listener for other nodes.
    pub(crate) fn handle_accepted<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId) {
        if self.is_stopped || self.greetings.len() >= PEER_GREETINGS_MAX {
            return plane.close(conn, Close::Now);
        }
        let deadline = plane.now().after(HANDSHAKE_TIME);
        self.greetings.insert(conn, Greeting { received: Vec::new(), is_joining: false, deadline });
        self.is_rearming = true;
    }

    /// Handles received bytes. Returns what a new connection is for, if the caller has to do something about it.
    pub(crate) fn handle_received<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        conn: ConnId,
        data: &[u8],
    ) -> Option<Arrival> {
        self.counted.received += data.len() as u64;
        if self.greetings.contains_key(&conn) {
            return self.greet(plane, conn, data);
        }
        let peer = *self.conns.get(&conn)?;
        let open = self.open_mut(peer)?;
        open.channel.handle_bytes(plane.now(), data);
        self.pump(plane, peer);
        self.lend(plane, peer);
        None
    }

    /// Handles the filled pages of a large frame.
    pub(crate) fn handle_bulk<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, pages: AlignedBuf) {
        let Some(peer) = self.conns.get(&conn).copied() else { return };
        let Some(open) = self.open_mut(peer) else { return };
        open.channel.return_pages(plane.now(), pages);
        self.pump(plane, peer);
        self.lend(plane, peer);
    }

    fn lend<M>(&mut self, plane: &mut dyn Plane<M>, peer: PeerShard) {
        if let Some(open) = self.open_mut(peer) {
            let lent = open.lend_pages(plane);
            self.counted.received += lent as u64;
        }
    }

    /// Reads the first message of a connection.
    fn greet<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, data: &[u8]) -> Option<Arrival> {
        let greeting = self.greetings.get_mut(&conn).filter(|greeting| !greeting.is_joining)?;
        greeting.received.extend_from_slice(data);
        let taken = match JoinRequest::take(&greeting.received) {
            Ok(Some(request)) => {
                greeting.is_joining = true;
                greeting.deadline = plane.now().after(PEER_JOIN_TIME);
                self.is_rearming = true;
                return Some(Arrival::Join(Box::new(request)));
            }
            Ok(None) => Ok(None),
            Err(PeerError::NotAPeer) => Hello::take(&greeting.received),
            Err(error) => Err(error),
        };
        let (hello, end) = match taken {
            Ok(None) => return None,
            Ok(Some(found)) => found,
            Err(error) => {
                tracing::debug!("a connection to the listener for other nodes is closed: {error}");
                self.greetings.remove(&conn);
                plane.close(conn, Close::Now);
                return None;
            }
        };
        let received = self.greetings.remove(&conn)?.received;
        let unread = Bytes::from(received).slice(end..);
        let shard = hello.to.shard;
        if hello.to.node == self.local.me.node && shard != self.local.me.shard {
            // The shard that it is for knows which connection is the current one.
            if let Err(refusal) = judge(&self.local, &hello, self.directory.knows(hello.from), None) {
                self.refuse_hello(plane, conn, &hello, refusal);
                return None;
            }
            return Some(Arrival::Elsewhere(Greeted { shard, hello, unread }));
        }
        self.accept(plane, conn, &hello, &unread);
        None
    }

    /// Handles a connection that has moved here from another shard of this node.
    pub(crate) fn handle_migrated<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, hello: &Hello) {
        if self.is_stopped || hello.to != self.local.me {
            return plane.close(conn, Close::Now);
        }
        self.accept(plane, conn, hello, &[]);
    }

    fn refuse_hello<M>(&self, plane: &mut dyn Plane<M>, conn: ConnId, hello: &Hello, refusal: Refusal) {
        tracing::debug!(node = hello.from.node.0, shard = hello.from.shard.0, "a peer is refused: {refusal}");
        plane.send(conn, Channel::refusal(&self.local, refusal));
        plane.close(conn, Close::AfterSends);
    }

    /// Accepts a connection to this shard, unless its hello is refused. It replaces an earlier one.
    fn accept<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId, hello: &Hello, unread: &[u8]) {
        let peer = hello.from;
        let current = self.open(peer).and_then(|open| open.attempt);
        let version = match judge(&self.local, hello, self.directory.knows(peer), current) {
            Ok(version) => version,
            Err(refusal) => return self.refuse_hello(plane, conn, hello, refusal),
        };
        if let Some(open) = self.open_mut(peer) {
            open.channel.close(Goodbye::Replaced, "");
            self.pump(plane, peer);
        }
        let random = plane.random_u64();
        let mut channel = Channel::accept(self.local, self.settings, hello, version, random, plane.now());
        plane.stream(conn);
        channel.handle_bytes(plane.now(), unread);
        self.open_link(peer, conn, channel, Some(hello.attempt));
        self.pump(plane, peer);
    }

    fn open_link(
        &mut self,
        peer: PeerShard,
        conn: ConnId,
        channel: Channel,
        attempt: Option<highwater_replication::peer::Attempt>,
    ) {
        self.last_session = SessionNumber(self.last_session.0 + 1);
        let session = self.last_session;
        let open = Open { conn, channel, session, replica: None, attempt, queued: 0 };
        self.conns.insert(conn, peer);
        self.links.entry(peer).or_default().open = Some(Box::new(open));
        self.active.insert(peer);
        self.is_rearming = true;
    }

    /// Handles the outcome of an attempt to connect.
    pub(crate) fn handle_connected<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        conn: ConnId,
        outcome: Result<(), ConnectError>,
    ) {
        let Some(peer) = self.conns.get(&conn).copied() else { return };
        let (random, now) = (plane.random_u64(), plane.now());
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some((_, attempt)) = link.connecting.take() else { return };
        self.is_rearming = true;
        match outcome {
            Ok(()) => {
                let channel = Channel::open(self.local, self.settings, peer, attempt, random, now);
                self.open_link(peer, conn, channel, None);
            }
            Err(error) => {
                tracing::debug!(node = peer.node.0, shard = peer.shard.0, "{error}");
                self.conns.remove(&conn);
                if let Some(dialer) = &mut link.dialer {
                    dialer.handle_closed(now, random);
                }
            }
        }
    }

    /// Handles that a connection has sent bytes.
    pub(crate) fn handle_sent(&mut self, conn: ConnId, bytes: usize) {
        let Some(peer) = self.conns.get(&conn).copied() else { return };
        if let Some(open) = self.open_mut(peer) {
            open.queued = open.queued.saturating_sub(bytes);
        }
    }

    /// Handles the end of a connection.
    pub(crate) fn handle_closed<M>(&mut self, plane: &mut dyn Plane<M>, conn: ConnId) {
        self.greetings.remove(&conn);
        let Some(peer) = self.conns.remove(&conn) else { return };
        if let Some(open) = self.open_mut(peer).filter(|open| open.conn == conn) {
            open.channel.handle_disconnected();
            self.pump(plane, peer);
        }
    }

    /// Handles that time has passed.
    pub(crate) fn handle_deadline<M>(&mut self, plane: &mut dyn Plane<M>) {
        let now = plane.now();
        self.is_rearming = true;
        let late = |(conn, greeting): (&ConnId, &Greeting)| (greeting.deadline() <= now).then_some(*conn);
        let silent: Vec<ConnId> = self.greetings.iter().filter_map(late).collect();
        for conn in silent {
            self.greetings.remove(&conn);
            plane.close(conn, Close::Now);
        }
        let is_due = |(peer, link): (&PeerShard, &Link)| {
            link.next_deadline().is_some_and(|due| due <= now).then_some(*peer)
        };
        let due: Vec<PeerShard> = self.links.iter().filter_map(is_due).collect();
        for peer in due {
            if let Some(open) = self.open_mut(peer) {
                open.channel.handle_deadline(now);
                self.pump(plane, peer);
            }
            self.dial(plane, peer);
        }
    }

    /// Opens a connection to a peer, if an attempt is due.
    fn dial<M>(&mut self, plane: &mut dyn Plane<M>, peer: PeerShard) {
        let node = self.directory.get(peer.node);
        let address: Option<HostPort> = node.map(|node| node.address.clone());
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(attempt) = link.dialer.as_mut().and_then(|dialer| dialer.poll_attempt(plane.now())) else {
            return;
        };
        let Some(address) = address else { return };
        let address = match self.names.resolve(&address) {
            Ok(address) => address,
            Err(reason) => {
                tracing::debug!(node = peer.node.0, "cannot connect to {address}: {reason}");
                let (random, now) = (plane.random_u64(), plane.now());
                if let Some(dialer) = &mut link.dialer {
                    dialer.handle_closed(now, random);
                }
                return;
            }
        };
        let conn = plane.connect(address, CONNECT_TIME_MAX, Token(0));
        link.connecting = Some((conn, attempt));
        self.conns.insert(conn, peer);
    }
}
