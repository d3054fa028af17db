//! The channels of a shard to the shards of other nodes, and what its partitions exchange over them.
//!
//! ```text
//!            plane                                                     partition/
//!   connections, bytes, time --> Peers: a Channel for each  --events--> Exchange --> Partitions
//!                                shard of each other node   <--sends---          <-- due, messages
//! ```
//!
//! | type | what it is |
//! |---|---|
//! | [`Peers`] | the connections: who opens them, their hellos, channels, deadlines. Knows nothing about partitions |
//! | `Directory` | the other nodes, and which of their shards have which partitions |
//! | [`Exchange`] | brings what channels receive to the partitions, and what partitions have to send to the channels |
//! | `Visits` | visits the partitions of a node that was lost or can be reached again, some in each turn |
//! | `Elections` | partitions that have no leader, by the time at which they try to become one |
//! | [`LeaderTable`] | on shard 0: who leads what, as the shards of this node and the other nodes say, and which nodes are offline |
//! | `HeldFrames` | received frames that are not durable: their senders get the credit back when they are |
//!
//! Every shard has a channel to every shard of every other node, because partitions may be anywhere. A node decides alone which of its shards has a
//! partition. Until another one has learned which, it takes a guess; the wrong shard answers with the right one, and the replica is sent to
//! again ([`PeerChange::Moved`](crate::partition::PeerChange)).
//!
//! There is one timer for all channels and elections ([`Exchange::poll_deadline`]), and none for a partition. A partition whose leader's lease lasts costs
//! nothing.
//!
//! Invariant: what an ended session carried counts for nothing: the partitions of a channel have handled its loss before anything that a
//! later session of the same two shards has received.

mod connections;
mod directory;
mod elections;
mod exchange;
mod held;
mod leader_table;
mod link;
#[cfg(test)]
mod tests;
mod visits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::ids::{NodeId, Offset, ShardId, TopicPartition};
use highwater_replication::peer::{
    Goodbye, Incoming, Kind, LeaderNews, Local, Offer, PeerShard, RemoteHandle, Route, Settings, Source,
};
use highwater_replication::raft::{Envelope, ReplicaId};
use highwater_runtime::plane::{ConnId, Instant, Plane};

pub(crate) use connections::Arrival;
pub use directory::PeerNode;
pub(crate) use exchange::{Exchange, ForController};
pub(crate) use leader_table::{LeaderTable, NodeEvent};

use connections::Greeting;
use directory::Directory;
use link::{Link, Open};

use crate::address::Resolve;
use crate::api::Reach;
use crate::limits::NODE_MISSED_AFTER;

/// The shard of each node that has the controller.
const CONTROLLER_SHARD: ShardId = ShardId(0);

/// Numbers the channels of a shard, so that what belongs to an earlier one is recognised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct SessionNumber(pub(crate) u64);

/// What has come over a channel.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// There is a new session, which reaches these replicas. [`Peers::change_handled`] is to be called when all partitions have handled it.
    Reachable(ReplicaId),
    /// The session has ended. [`Peers::change_handled`] is to be called when all partitions have handled it.
    Lost(ReplicaId),
    /// A message for a replica.
    Message(SessionNumber, Box<Incoming>),
    /// A request to the controller, or a reply from it.
    Controller { session: SessionNumber, kind: Kind, body: Bytes },
    /// What the peer's node leads.
    Leaders(SessionNumber, LeaderNews),
    /// The shard does not have a partition. `shard`: the one that has it; `None`: the node does not have it.
    Elsewhere { route: Route, shard: Option<ShardId> },
}

/// What channels have done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct PeerCounters {
    /// Sessions that were established.
    pub(crate) sessions: u64,
    /// Sessions that ended.
    pub(crate) lost: u64,
    /// Channels that were closed because the peer violated the protocol.
    pub(crate) violations: u64,
    /// Bytes received.
    pub(crate) received: u64,
    /// Bytes sent.
    pub(crate) sent: u64,
}

/// The channels of a shard. See the [module](self).
///
/// Connections, bytes and time go in by `handle_*`, which are called from the plane's callbacks of the same names. At the end of a turn take the
/// [events](Self::poll_event), send, and [flush](Self::flush).
pub(crate) struct Peers {
    local: Local,
    settings: Settings,
    names: Arc<dyn Resolve>,
    directory: Directory,
    links: BTreeMap<PeerShard, Link>,
    conns: BTreeMap<ConnId, PeerShard>,
    /// Accepted connections whose hello has not arrived, and those of nodes that ask to join.
    greetings: BTreeMap<ConnId, Greeting>,
    events: BTreeMap<PeerShard, VecDeque<PeerEvent>>,
    /// Peers with events, in turn.
    eventful: VecDeque<PeerShard>,
    /// Peers to which there may be something to send.
    active: BTreeSet<PeerShard>,
    /// A deadline may be earlier than the last one that was returned.
    is_rearming: bool,
    last_session: SessionNumber,
    is_stopped: bool,
    counted: PeerCounters,
}

impl Peers {
    /// Creates a component that knows no other node. `names` resolves the addresses of nodes.
    pub(crate) fn new(local: Local, settings: Settings, names: Arc<dyn Resolve>) -> Self {
        Self {
            local,
            settings,
            names,
            directory: Directory::default(),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            greetings: BTreeMap::new(),
            events: BTreeMap::new(),
            eventful: VecDeque::new(),
            active: BTreeSet::new(),
            is_rearming: false,
            last_session: SessionNumber(0),
            is_stopped: false,
            counted: PeerCounters::default(),
        }
    }

    // Getters.

    /// Returns whether this is a connection to another node.
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn) || self.greetings.contains_key(&conn)
    }

    /// Returns the shard of another node that has a partition, as far as is known. `None`: the node is not known.
    pub(crate) fn owner(&self, node: NodeId, tp: TopicPartition) -> Option<PeerShard> {
        self.directory.owner(node, tp)
    }

    /// Returns the session with a peer that reaches a replica; `None` if it cannot be reached. After a node's disk was replaced, those that were on the
    /// old one cannot.
    pub(crate) fn session_with(&self, peer: PeerShard, replica: ReplicaId) -> Option<SessionNumber> {
        let open = self.open(peer)?;
        (open.channel.is_open() && open.replica == Some(replica)).then_some(open.session)
    }

    /// Returns whether a replica is on the disk that its node had when it was last reached.
    pub(crate) fn is_current(&self, replica: ReplicaId) -> bool {
        self.directory.is_current(replica)
    }

    /// Returns whether partitions have yet to handle that a peer was lost or can be reached again.
    pub(crate) fn is_changing(&self, peer: PeerShard) -> bool {
        self.links.get(&peer).is_some_and(|link| link.changes > 0)
    }

    /// Returns whether a node is reached: by a channel to any of its shards. One that was registered a moment ago may not be among the nodes yet.
    pub(crate) fn reach(&self, node: NodeId, now: Instant) -> Reach {
        let of = |shard| PeerShard { node, shard: ShardId(shard) };
        let links = || self.links.range(of(0)..=of(u16::MAX)).map(|(_, link)| link);
        if links().any(|link| link.open.as_ref().is_some_and(|open| open.channel.is_open())) {
            return Reach::Connected;
        }
        let is_missed = |link: &Link| link.seen.is_none_or(|seen| seen.after(NODE_MISSED_AFTER) <= now);
        let is_new = links().next().is_none();
        if !is_new && links().all(is_missed) { Reach::Missed } else { Reach::Recent }
    }

    /// Returns the number of established channels.
    pub(crate) fn established(&self) -> usize {
        (self.counted.sessions - self.counted.lost) as usize
    }

    /// Returns the bytes of received frames that were not released.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> u64 {
        let open = self.links.values().filter_map(|link| link.open.as_ref());
        open.map(|open| open.channel.held_bytes()).sum()
    }

    /// Returns how many partitions are known to be on another shard than the one that is tried first.
    #[cfg(test)]
    pub(crate) fn learned(&self) -> usize {
        self.directory.learned()
    }

    pub(crate) fn counted(&self) -> PeerCounters {
        self.counted
    }

    fn open(&self, peer: PeerShard) -> Option<&Open> {
        self.links.get(&peer)?.open.as_deref()
    }

    /// Returns the channel to a peer. There may be something to send over it afterwards.
    fn open_mut(&mut self, peer: PeerShard) -> Option<&mut Open> {
        let open = self.links.get_mut(&peer)?.open.as_deref_mut()?;
        self.active.insert(peer);
        Some(open)
    }

    /// Returns the channel to a replica.
    fn open_to(&mut self, to: ReplicaId, tp: TopicPartition) -> Option<&mut Open> {
        let peer = self.owner(to.node, tp)?;
        self.open_mut(peer).filter(|open| open.replica == Some(to))
    }

    fn open_in(&mut self, peer: PeerShard, session: SessionNumber) -> Option<&mut Open> {
        self.open_mut(peer).filter(|open| open.session == session)
    }

    // Events.

    /// Takes the next event of a peer that is not held back. Peers take turns.
    pub(crate) fn poll_event(
        &mut self,
        is_held: impl Fn(PeerShard) -> bool,
    ) -> Option<(PeerShard, PeerEvent)> {
        for _ in 0..self.eventful.len() {
            let peer = self.eventful.pop_front()?;
            if is_held(peer) {
                self.eventful.push_back(peer);
                continue;
            }
            let Some(queue) = self.events.get_mut(&peer) else { continue };
            let event = queue.pop_front();
            if queue.is_empty() {
                self.events.remove(&peer);
            } else {
                self.eventful.push_back(peer);
            }
            if let Some(event) = event {
                return Some((peer, event));
            }
        }
        None
    }

    /// Returns whether there are events of peers that are not held back.
    pub(crate) fn has_events(&self, is_held: impl Fn(PeerShard) -> bool) -> bool {
        self.eventful.iter().any(|peer| !is_held(*peer))
    }

    fn push_event(&mut self, peer: PeerShard, event: PeerEvent) {
        let queue = self.events.entry(peer).or_default();
        if queue.is_empty() {
            self.eventful.push_back(peer);
        }
        queue.push_back(event);
    }

    /// Notes that all partitions have handled a loss of a peer, or that it can be reached again.
    pub(crate) fn change_handled(&mut self, peer: PeerShard) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.changes = link.changes.saturating_sub(1);
        }
    }

    // Commands.

    /// Sends a message to the shard that has the receiver. It is dropped if that cannot be reached: what was under way is lost with a session, and the
    /// partitions learn of that. Frames need credit: see [`offer`](Self::offer).
    pub(crate) fn send(&mut self, tp: TopicPartition, envelope: Envelope, frames: Vec<Bytes>) {
        if let Some(open) = self.open_to(envelope.to, tp) {
            open.channel.send(tp, envelope, frames);
        }
    }

    /// Sends the message with which a log starts anew at an offset.
    pub(crate) fn send_start(&mut self, tp: TopicPartition, envelope: &Envelope, offset: Offset) {
        if let Some(open) = self.open_to(envelope.to, tp) {
            open.channel.send_start(tp, envelope, offset);
        }
    }

    /// Sends a request to the controller on another node, or a reply from it: in one session, if it is given. Returns whether the node can be reached.
    pub(crate) fn send_controller(
        &mut self,
        node: NodeId,
        session: Option<SessionNumber>,
        kind: Kind,
        body: Bytes,
    ) -> bool {
        let peer = PeerShard { node, shard: CONTROLLER_SHARD };
        let is_current = |open: &&mut Open| session.is_none_or(|session| session == open.session);
        let open = self.open_mut(peer).filter(is_current);
        open.is_some_and(|open| open.channel.send_controller(kind, body))
    }

    /// Asks whether a partition may send frames to a peer now. `None`: the peer cannot be reached.
    pub(crate) fn offer(&mut self, peer: PeerShard, route: Route, source: Source) -> Option<Offer> {
        let open = self.open_mut(peer).filter(|open| open.channel.is_open())?;
        Some(open.channel.offer(route, source))
    }

    /// Returns the peers to which there may be something to send.
    pub(crate) fn active(&self) -> Vec<PeerShard> {
        self.active.iter().copied().collect()
    }

    /// Notes that there may be something to send to a peer.
    pub(crate) fn keep_active(&mut self, peer: PeerShard) {
        self.active.insert(peer);
    }

    /// Takes the next partition whose turn it is to send frames to a peer. See [`Channel::poll_turn`](highwater_replication::peer::Channel::poll_turn).
    pub(crate) fn poll_turn(&mut self, peer: PeerShard) -> Option<(Route, usize, SessionNumber)> {
        let open = self.links.get_mut(&peer)?.open.as_deref_mut()?;
        let (route, bytes) = open.channel.poll_turn(open.queued)?;
        Some((route, bytes, open.session))
    }

    /// Ends the turn of a partition that has nothing to send.
    pub(crate) fn cancel(&mut self, peer: PeerShard, session: SessionNumber, route: &Route) {
        if let Some(open) = self.open_in(peer, session) {
            open.channel.cancel(route);
        }
    }

    /// Returns the bytes of frames that may be sent to a peer.
    pub(crate) fn credit(&self, peer: PeerShard) -> usize {
        self.open(peer).map_or(0, |open| open.channel.credit())
    }

    /// Notes that received frames have left the memory that they came in.
    pub(crate) fn release(&mut self, peer: PeerShard, session: SessionNumber, bytes: usize) {
        if bytes > 0
            && let Some(open) = self.open_in(peer, session)
        {
            open.channel.release(bytes);
        }
    }

    /// Answers that this shard does not have the partition of a message. `shard`: the one that does.
    pub(crate) fn refuse(
        &mut self,
        peer: PeerShard,
        session: SessionNumber,
        handle: RemoteHandle,
        shard: Option<ShardId>,
    ) {
        if let Some(open) = self.open_in(peer, session) {
            open.channel.refuse(handle, shard);
        }
    }

    /// Sends a node's shard 0 what this node leads.
    pub(crate) fn send_leaders(&mut self, node: NodeId, session: SessionNumber, news: &LeaderNews) {
        if let Some(open) = self.open_in(PeerShard { node, shard: ShardId(0) }, session) {
            open.channel.send_leaders(news);
        }
    }

    /// Notes which shard of a node has a partition. Returns whether another one was thought to have it.
    pub(crate) fn learn(&mut self, owner: PeerShard, tp: TopicPartition) -> bool {
        self.directory.learn(owner, tp)
    }

    /// Forgets how a partition is named on a channel.
    pub(crate) fn forget_route(&mut self, peer: PeerShard, route: &Route) {
        if let Some(open) = self.open_mut(peer) {
            open.channel.forget(route);
        }
    }

    /// Forgets a partition that has no replica here any more.
    pub(crate) fn forget(&mut self, node: NodeId, route: &Route) {
        if let Some(peer) = self.owner(node, route.partition) {
            self.forget_route(peer, route);
        }
        self.directory.forget(node, route.partition);
    }

    /// Closes the channel to a peer that has violated the protocol, as `text` says.
    pub(crate) fn reject<M>(
        &mut self,
        plane: &mut dyn Plane<M>,
        peer: PeerShard,
        session: SessionNumber,
        text: &str,
    ) {
        let Some(open) = self.open_in(peer, session) else { return };
        open.channel.close(Goodbye::Violation, text);
        self.counted.violations += 1;
        self.warn(peer, &format!("protocol violation: {text}"));
        self.pump(plane, peer);
    }

    /// Closes all channels, because this node stops.
    pub(crate) fn stop<M>(&mut self, plane: &mut dyn Plane<M>) {
        self.is_stopped = true;
        self.set_nodes(plane, Vec::new());
    }

    /// Hands what was sent over to the connections, as far as they take it.
    pub(crate) fn flush<M>(&mut self, plane: &mut dyn Plane<M>) {
        for peer in std::mem::take(&mut self.active) {
            self.pump(plane, peer);
            let Some(open) = self.links.get_mut(&peer).and_then(|link| link.open.as_deref_mut()) else {
                continue;
            };
            self.counted.sent += open.flush(plane) as u64;
        }
    }

    // Deadlines.

    /// Updates when [`handle_deadline`](Self::handle_deadline) is to be called, if that may have changed.
    fn update_deadline(&mut self, deadline: &mut Option<Instant>) {
        if std::mem::take(&mut self.is_rearming) {
            let links = self.links.values().filter_map(Link::next_deadline);
            let greetings = self.greetings.values().map(Greeting::deadline);
            *deadline = links.chain(greetings).min();
        }
    }
}
