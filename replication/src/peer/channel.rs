//! The channel: the state machine of one connection.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ids::{LogIndex, Offset, ShardId, TopicPartition};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Instant;

use super::body::{Route, goodbye};
use super::credit::ReceiveCredit;
use super::error::{CloseReason, Goodbye};
use super::flow::{Flow, Offer, Source};
use super::group::{Content, GroupEntry};
use super::handles::{Handles, RemoteHandles};
use super::header::Kind;
use super::hello::{Hello, HelloReply, Local, PeerShard, Refusal, Session};
use super::intake::{Frames, Lent};
use super::leaders::LeaderNews;
use super::limits::{
    CREDIT_BYTES_DEFAULT, HANDSHAKE_TIME, HEARTBEAT_INTERVAL, QUEUE_BYTES_MAX, SILENCE_DEFAULT, VERSION_MAX,
};
use super::outbox::{Outbox, Writer};
use super::receive::Assembler;
use crate::raft::{Envelope, Message, ReplicaId};

/// What the owner decides about a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The peer is lost if nothing comes from it for this long: the election timeout.
    pub silence: Duration,
    /// Frames of the peer that may be in memory, in bytes.
    pub credit_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { silence: SILENCE_DEFAULT, credit_bytes: CREDIT_BYTES_DEFAULT }
    }
}

/// The other side of a channel, after the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The shard.
    pub shard: PeerShard,
    /// Incarnation of the node's disk.
    pub incarnation: u32,
    /// Version of the protocol.
    pub version: u16,
    /// The session.
    pub session: Session,
}

/// A handle of the peer, to answer about the partition for which it stands. Only of use in the session that it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteHandle(pub(crate) u32);

/// A message from the peer.
#[derive(Debug)]
pub struct Incoming {
    /// The peer's handle for the partition.
    pub handle: RemoteHandle,
    /// The partition.
    pub partition: TopicPartition,
    /// The message. The nodes of its sender and receiver are those of the channel.
    pub envelope: Envelope,
    /// The frames of an append.
    pub frames: Vec<Frames>,
    /// Bytes of the frames: to be [released](Channel::release).
    pub frames_bytes: usize,
    /// The offset at which a log starts anew: there with [`Message::StartAt`], and only with it.
    pub start_offset: Option<Offset>,
}

/// Frames for a hole in a log.
#[derive(Debug)]
pub struct Repair {
    /// The partition.
    pub partition: TopicPartition,
    /// The replica that sends them.
    pub from: ReplicaId,
    /// The replica that asked for them.
    pub to: ReplicaId,
    /// Index of the first entry.
    pub first: LogIndex,
    /// Index after the last entry.
    pub until: LogIndex,
    /// The frames.
    pub frames: Vec<Frames>,
    /// Bytes of the frames: to be [released](Channel::release).
    pub frames_bytes: usize,
}

/// What has happened on a channel.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete: the peer can be reached, over a new session. Comes once.
    Established(Peer),
    /// A message for a replica.
    Message(Incoming),
    /// Frames for a replica that cannot read its own.
    Repair(Repair),
    /// A request to the controller, or a reply from it: what a node of the cluster has sent by [`Channel::send_controller`].
    Controller {
        /// [`Kind::ControllerRequest`] or [`Kind::ControllerReply`].
        kind: Kind,
        /// The message, whose content the channel does not know.
        body: Bytes,
    },
    /// The peer's shard does not have a partition.
    Elsewhere {
        /// The partition, as this side has bound it.
        route: Route,
        /// The peer's shard that has it; `None` if the peer's node does not have it.
        shard: Option<ShardId>,
    },
    /// What the peer's node says about the partitions that it leads.
    Leaders(LeaderNews),
    /// The peer of an established channel is lost: the leases that the channel carried end now. Comes once, before `Closed`.
    PeerLost,
    /// The channel is closed. Comes once, and is the last event. The owner sends what [`Channel::poll_output`] still has, and closes the connection.
    Closed(CloseReason),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The hello was sent.
    Opening,
    /// The answer to a hello was sent. The session begins with the first message of the opener, which proves that the hello was not a late one.
    Accepted,
    Open,
    Closed,
}

/// One connection between a shard of this node and a shard of another one. See the [module](super).
///
/// Bytes go in by [`handle_bytes`](Self::handle_bytes); afterwards take all [events](Self::poll_event), and lend [pages](Self::lend_pages) if there
/// are any to lend. Send messages at any time, and at the end of the turn take all [output](Self::poll_output). Times never decrease.
#[derive(Debug)]
pub struct Channel {
    pub(super) local: Local,
    pub(super) settings: Settings,
    pub(super) state: State,
    /// The peer; before the handshake is complete, as far as it is known.
    pub(super) peer: Peer,
    started: Instant,
    pub(super) heard: Instant,
    sent: Instant,
    pub(super) assembler: Assembler,
    pub(super) handles: Handles,
    pub(super) remote: RemoteHandles,
    pub(super) outbox: Outbox,
    pub(super) writer: Writer,
    pub(super) flow: Flow,
    pub(super) credit: ReceiveCredit,
    pub(super) events: VecDeque<Event>,
    heartbeat_due: bool,
}

impl Channel {
    fn new(local: Local, settings: Settings, peer: Peer, state: State, now: Instant) -> Self {
        Self {
            local,
            settings,
            state,
            peer,
            started: now,
            heard: now,
            sent: now,
            assembler: Assembler::default(),
            handles: Handles::default(),
            remote: RemoteHandles::default(),
            outbox: Outbox::default(),
            writer: Writer::new(),
            flow: Flow::default(),
            credit: ReceiveCredit::new(settings.credit_bytes),
            events: VecDeque::new(),
            heartbeat_due: false,
        }
    }

    /// Creates the channel of a connection that this shard has opened to `to`. `attempt` increases with each attempt; `random` is a new random number.
    ///
    /// Panics if the other side has to open the connection: see [`PeerShard::opens_to`].
    pub fn open(
        local: Local,
        settings: Settings,
        to: PeerShard,
        attempt: u32,
        random: u64,
        now: Instant,
    ) -> Self {
        assert!(local.me.opens_to(to), "the smaller shard opens the connection");
        let session = Session { opener: random, acceptor: 0 };
        let peer = Peer { shard: to, incarnation: 0, version: VERSION_MAX, session };
        let mut channel = Self::new(local, settings, peer, State::Opening, now);
        channel.writer.put(Kind::Hello, &Hello::new(&local, to, attempt, random).encode());
        channel
    }

    /// Creates the channel of a connection that was accepted, with a hello that was [judged](super::judge) and found to be in `version`.
    pub fn accept(
        local: Local,
        settings: Settings,
        hello: &Hello,
        version: u16,
        random: u64,
        now: Instant,
    ) -> Self {
        assert_eq!(hello.to, local.me, "the connection moves to the shard that its hello names");
        let session = Session { opener: hello.session, acceptor: random };
        let peer = Peer { shard: hello.from, incarnation: hello.incarnation, version, session };
        let mut channel = Self::new(local, settings, peer, State::Accepted, now);
        let outcome = Ok(version);
        let reply = HelloReply { outcome, from: local.me, incarnation: local.incarnation, session: random };
        channel.writer.put(Kind::HelloReply, &reply.encode());
        channel.begin_session();
        channel
    }

    /// Returns the answer to a hello that is not accepted. The owner sends it and closes the connection.
    pub fn refusal(local: &Local, why: Refusal) -> Bytes {
        let reply =
            HelloReply { outcome: Err(why), from: local.me, incarnation: local.incarnation, session: 0 };
        let mut writer = Writer::new();
        writer.put(Kind::HelloReply, &reply.encode());
        writer.poll().expect("a message was written")
    }

    pub(super) fn begin_session(&mut self) {
        let tag = self.peer.session.tag();
        self.writer.begin_session(tag);
        self.assembler.begin_session(tag);
    }

    /// Returns the peer, once the channel is established.
    pub fn peer(&self) -> Option<&Peer> {
        self.is_open().then_some(&self.peer)
    }

    /// Returns whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns whether the channel is closed.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes the next bytes to send, of everything that was sent so far. Call it until it returns `None`.
    pub fn poll_output(&mut self, now: Instant) -> Option<Bytes> {
        if matches!(self.state, State::Open | State::Accepted) {
            if let Some(bytes) = self.credit.take_grant() {
                self.writer.put(Kind::Credit, &bytes.to_le_bytes());
                self.heartbeat_due = false;
            }
            if self.outbox.write(&mut self.handles, &mut self.writer) {
                self.heartbeat_due = false;
            }
            if std::mem::take(&mut self.heartbeat_due) {
                self.writer.put(Kind::Heartbeat, &[]);
            }
        }
        let bytes = self.writer.poll()?;
        self.sent = now;
        Some(bytes)
    }

    /// Returns when [`handle_deadline`](Self::handle_deadline) is to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening | State::Accepted => Some(self.started.after(HANDSHAKE_TIME)),
            State::Open => {
                let lost = self.heard.after(self.settings.silence);
                let silent = self.sent.after(HEARTBEAT_INTERVAL);
                Some(if self.heartbeat_due { lost } else { lost.min(silent) })
            }
            State::Closed => None,
        }
    }

    /// Handles that time has passed.
    pub fn handle_deadline(&mut self, now: Instant) {
        match self.state {
            State::Opening | State::Accepted if now >= self.started.after(HANDSHAKE_TIME) => {
                self.end(CloseReason::HandshakeTimeout(HANDSHAKE_TIME), None);
            }
            State::Open if now >= self.heard.after(self.settings.silence) => {
                let silent = now.since(self.heard);
                self.end(CloseReason::Silent(silent), Some((Goodbye::Lost, "no sign of life")));
            }
            State::Open => self.heartbeat_due |= now >= self.sent.after(HEARTBEAT_INTERVAL),
            _ => {}
        }
    }

    /// Handles that the connection has ended.
    pub fn handle_disconnected(&mut self) {
        self.end(CloseReason::Disconnected, None);
    }

    /// Closes the channel. The peer gets `text`, cut off at [`GOODBYE_TEXT_BYTES_MAX`](super::limits::GOODBYE_TEXT_BYTES_MAX): for example which
    /// rule a message violated.
    pub fn close(&mut self, why: Goodbye, text: &str) {
        self.end(CloseReason::Local(why), Some((why, text)));
    }

    /// Closes the channel. What was not sent is dropped, and `last` is sent.
    pub(super) fn end(&mut self, reason: CloseReason, last: Option<(Goodbye, &str)>) {
        if self.state == State::Closed {
            return;
        }
        if let Some((why, text)) = last.filter(|_| self.state != State::Opening) {
            self.writer.put(Kind::Goodbye, &goodbye(why, text));
        }
        if self.state == State::Open {
            self.events.push_back(Event::PeerLost);
        }
        self.state = State::Closed;
        self.events.push_back(Event::Closed(reason));
        self.outbox = Outbox::default();
        self.assembler.stop();
    }

    /// Sends a message to the other replica of a partition, with the frames of an append. Returns whether the channel is open; otherwise the message is
    /// dropped, as everything is that was under way when a channel closed.
    ///
    /// Frames need credit: ask by [`offer`](Self::offer) or take a turn by [`poll_turn`](Self::poll_turn). The append must begin where the log goes on then.
    /// A log is started anew by [`send_start`](Self::send_start).
    pub fn send(&mut self, partition: TopicPartition, envelope: Envelope, frames: Vec<Bytes>) -> bool {
        let Envelope { from, to, message } = envelope;
        let Some(handle) = self.handle_for(partition, from, to) else { return false };
        match message {
            Message::Append(append) => {
                let frames_bytes = frames.iter().map(Bytes::len).sum();
                self.flow.sent(handle, append.term, append.end, frames_bytes);
                let entry = GroupEntry { handle, content: Content::Append(append), frames_bytes };
                self.outbox.group(&mut self.handles, &entry, frames);
            }
            Message::Appended { term, durable_end } => {
                self.outbox.ack(&mut self.handles, handle, term, durable_end);
            }
            message => self.outbox.control(&mut self.handles, handle, &message, None),
        }
        self.check_queue()
    }

    /// Sends a [`Message::StartAt`] with the offset at which the log starts anew. Otherwise like [`send`](Self::send).
    pub fn send_start(&mut self, partition: TopicPartition, envelope: &Envelope, offset: Offset) -> bool {
        let Envelope { from, to, message } = envelope;
        let Some(handle) = self.handle_for(partition, *from, *to) else { return false };
        self.outbox.control(&mut self.handles, handle, message, Some(offset));
        self.check_queue()
    }

    /// Sends committed frames to a replica that cannot read its own. They need credit as those of an append do.
    pub fn send_repair(
        &mut self,
        partition: TopicPartition,
        (from, to): (ReplicaId, ReplicaId),
        (first, until): (LogIndex, LogIndex),
        frames: Vec<Bytes>,
    ) -> bool {
        let Some(handle) = self.handle_for(partition, from, to) else { return false };
        let frames_bytes = frames.iter().map(Bytes::len).sum();
        self.flow.spend(handle, frames_bytes);
        let content = Content::Committed { from: first, until };
        self.outbox.group(&mut self.handles, &GroupEntry { handle, content, frames_bytes }, frames);
        self.check_queue()
    }

    /// Sends a request to the controller, or a reply from it. Returns whether the channel is open; otherwise the message is dropped.
    pub fn send_controller(&mut self, kind: Kind, body: Bytes) -> bool {
        assert!(matches!(kind, Kind::ControllerRequest | Kind::ControllerReply), "{kind:?}");
        assert!(body.len() <= kind.body_bytes_max(), "{kind:?}: {} bytes", body.len());
        if !self.is_open() {
            return false;
        }
        self.outbox.whole(kind, body);
        self.check_queue()
    }

    pub(super) fn check_queue(&mut self) -> bool {
        if self.outbox.bytes() > QUEUE_BYTES_MAX {
            let text = "it does not receive what is sent";
            self.end(CloseReason::QueueFull(QUEUE_BYTES_MAX), Some((Goodbye::Lost, text)));
        }
        self.is_open()
    }

    fn handle_for(&mut self, partition: TopicPartition, from: ReplicaId, to: ReplicaId) -> Option<u32> {
        assert_eq!(
            (from.node, to.node),
            (self.local.me.node, self.peer.shard.node),
            "the nodes of the channel"
        );
        self.bind(Route { partition, from: from.incarnation, to: to.incarnation })
    }

    /// Returns the handle of a route, which is bound if it is not yet. `None`: the channel is not open.
    fn bind(&mut self, route: Route) -> Option<u32> {
        if !self.is_open() {
            return None;
        }
        if let Some(handle) = self.handles.get(&route) {
            return Some(handle);
        }
        let Some(handle) = self.handles.bind(route) else {
            self.end(CloseReason::OutOfHandles, Some((Goodbye::Replaced, "the session has no free handles")));
            return None;
        };
        self.outbox.bind(&mut self.handles, handle, &route);
        Some(handle)
    }

    /// Asks whether a partition may send frames, the next of which are at `source`. If not now, it gets a turn. `Later` without a turn to come if
    /// the channel is not open.
    pub fn offer(&mut self, route: Route, source: Source) -> Offer {
        match self.bind(route) {
            Some(handle) => self.flow.offer(handle, source),
            None => Offer::Later,
        }
    }

    /// Takes the next partition whose turn it is, with the bytes of frames that it may send. The owner reads them, from disk if need be, and
    /// sends them, or calls [`cancel`](Self::cancel). If there is more to send then, it asks again by [`offer`](Self::offer). `queued`: bytes that were taken
    /// by [`poll_output`](Self::poll_output) and that the socket has not taken yet.
    pub fn poll_turn(&mut self, queued: usize) -> Option<(Route, usize)> {
        if !self.is_open() {
            return None;
        }
        let (handle, bytes) = self.flow.poll_turn(queued)?;
        Some((self.handles.bound(handle).route, bytes))
    }

    /// Ends the turn of a partition that has nothing to send any more, or cannot.
    pub fn cancel(&mut self, route: &Route) {
        if let Some(handle) = self.handles.get(route) {
            self.flow.cancel(handle);
        }
    }

    /// Returns the bytes of a partition's frames that were sent and not acknowledged.
    pub fn in_flight(&self, route: &Route) -> usize {
        self.handles.get(route).map_or(0, |handle| self.flow.in_flight(handle))
    }

    /// Returns the bytes of frames that may be sent now.
    pub fn credit(&self) -> usize {
        self.flow.credit.available()
    }

    /// Forgets a partition that has no replica here any more. What was sent about it still leaves.
    pub fn forget(&mut self, route: &Route) {
        if self.is_open()
            && let Some(handle) = self.handles.unbind(route)
        {
            self.flow.forget(handle);
            self.outbox.unbind(handle);
        }
    }

    /// Answers that this shard does not have the partition of a message. `shard`: the one that does.
    pub fn refuse(&mut self, handle: RemoteHandle, shard: Option<ShardId>) {
        if self.is_open() {
            self.outbox.elsewhere(handle.0, shard);
        }
    }

    /// Notes that received frames have left the memory that they came in, to be called once for the frames of every event: the peer may send as many bytes
    /// again.
    pub fn release(&mut self, frames_bytes: usize) {
        self.credit.release(frames_bytes);
    }

    /// Returns the bytes of received frames that were not released.
    pub fn held_bytes(&self) -> u64 {
        self.credit.held()
    }

    /// Lends the pages of a large frame, so that the plane receives the next part of it into them. Returns `None` if no large frame is being
    /// received. All bytes that were received are to be handled before.
    pub fn lend_pages(&mut self) -> Option<Lent> {
        self.assembler.lend()
    }

    /// Takes back the pages, filled up to the end that [`lend_pages`](Self::lend_pages) gave.
    pub fn return_pages(&mut self, now: Instant, pages: AlignedBuf) {
        self.assembler.take_back(pages);
        self.handle_bytes(now, &[]);
    }
}
