//! The application of the shard that runs until the node is a member of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use highwater_replication::join::{Joined, JoinerConfig};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    Close, CloseReason, Completion, ConnId, ConnectError, Instant, ListenerId, Plane, ShardApp, ShardIndex,
    Token,
};

use super::asking::Asking;
use super::guests::Guests;
use crate::address::Resolve;
use crate::message::Message;

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JoinEnd {
    /// The node founds a cluster, or is a member of one.
    Joined(Joined),
    /// It cannot be a member as it is, for this reason.
    Refused(String),
    /// The process was asked to stop.
    Stopped,
}

/// Called once, before the shard exits.
pub type OnJoined = Box<dyn FnMut(JoinEnd) + Send>;

/// See the [module](super).
pub struct Joining {
    asking: Asking,
    guests: Guests,
    armed: Option<Instant>,
    on_end: OnJoined,
    /// Set when the process was asked to stop.
    is_stopping: bool,
    is_over: bool,
}

impl Joining {
    /// Begins to join a cluster. `names` resolves the addresses of seeds.
    pub fn new(
        plane: &mut dyn Plane<Message>,
        config: JoinerConfig,
        names: Arc<dyn Resolve>,
        on_end: OnJoined,
    ) -> Self {
        let now = plane.now();
        plane.set_timer(now, Token(0));
        Self {
            asking: Asking::new(config, names, now),
            guests: Guests::default(),
            armed: Some(now),
            on_end,
            is_stopping: false,
            is_over: false,
        }
    }

    fn arm(&mut self, plane: &mut dyn Plane<Message>) {
        let deadlines = [self.asking.joiner.next_deadline(), self.guests.next_deadline()];
        let Some(next) = deadlines.into_iter().flatten().min() else { return };
        if self.armed.is_none_or(|armed| next < armed) {
            self.armed = Some(next);
            plane.set_timer(next, Token(0));
        }
    }

    /// Reports the outcome, if there is one, and ends the shard.
    fn end_if_over(&mut self, plane: &mut dyn Plane<Message>) {
        let end = match self.asking.joiner.outcome() {
            Some(Ok(joined)) => JoinEnd::Joined(joined.clone()),
            Some(Err(reason)) => JoinEnd::Refused(reason.clone()),
            None if self.is_stopping => JoinEnd::Stopped,
            None => return,
        };
        if !std::mem::replace(&mut self.is_over, true) {
            (self.on_end)(end);
            plane.stop_accepting();
            plane.exit();
        }
    }
}

impl ShardApp for Joining {
    type Message = Message;

    fn on_accept(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        _listener: ListenerId,
        _peer: SocketAddr,
    ) {
        let now = plane.now();
        self.guests.handle_accepted(plane, now, conn);
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        _token: Token,
        outcome: Result<(), ConnectError>,
    ) {
        self.asking.handle_connected(plane, conn, outcome);
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, data: &[u8]) {
        if self.asking.owns(conn) {
            self.asking.handle_received(plane, conn, data);
        } else {
            let joiner = &self.asking.joiner;
            self.guests.handle_received(plane, conn, data, || joiner.answer());
        }
    }

    fn on_bulk(&mut self, _plane: &mut dyn Plane<Message>, _conn: ConnId, _buf: AlignedBuf) {}

    fn on_sent(&mut self, _plane: &mut dyn Plane<Message>, _conn: ConnId, _bytes: usize) {}

    fn on_closed(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, because: CloseReason) {
        self.guests.handle_closed(conn);
        self.asking.handle_closed(plane, conn, because);
    }

    fn on_disk(&mut self, _plane: &mut dyn Plane<Message>, _token: Token, _completion: Completion) {}

    fn on_message(&mut self, _plane: &mut dyn Plane<Message>, _from: ShardIndex, message: Message) {
        tracing::error!(?message, "a message arrived while the node joins a cluster");
    }

    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        _listener: ListenerId,
        _peer: SocketAddr,
        _payload: Message,
    ) {
        plane.close(conn, Close::Now);
    }

    fn on_timer(&mut self, plane: &mut dyn Plane<Message>, _token: Token) {
        // It may have been replaced by an earlier one.
        self.armed = self.armed.filter(|armed| *armed > plane.now());
        self.asking.handle_deadline(plane);
        let now = plane.now();
        self.guests.handle_deadline(plane, now);
    }

    fn on_shutdown(&mut self, _plane: &mut dyn Plane<Message>) {
        self.is_stopping = true;
    }

    fn on_turn_end(&mut self, plane: &mut dyn Plane<Message>) {
        if !self.is_stopping {
            self.asking.run(plane);
        }
        self.end_if_over(plane);
        self.arm(plane);
    }
}
