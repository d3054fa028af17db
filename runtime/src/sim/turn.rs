//! A turn of a simulated shard: the calls to its application.

use super::core::Core;
use super::network::{Network, Socket, draw};
use super::node::{Conn, Event, Receiving, SimNode};
use super::pipe::{StreamEnd, segment_bytes};
use super::simplane::SimPlane;
use crate::plane::{CloseReason, ConnId, ShardApp, ShardIndex};

/// Maximum bytes of one `on_recv`.
const RECV_BYTES_MAX: usize = 64 << 10;

/// Maximum bytes of one `on_recv` in hello mode.
const HELLO_RECV_BYTES_MAX: usize = 4 << 10;

/// An application and the shard that runs it.
pub(super) struct Turn<'a, A: ShardApp> {
    pub(super) core: &'a mut Core<A::Message>,
    pub(super) app: &'a mut A,
    pub(super) node: SimNode,
    pub(super) shard: ShardIndex,
}

impl<A: ShardApp> Turn<'_, A> {
    /// Delivers as many events to the application as one turn takes, and calls `on_turn_end`.
    pub(super) fn run(&mut self) {
        let (node, shard) = (self.node, self.shard);
        let now = self.core.clock.now();
        let schedule = &self.core.schedule;
        let takes = draw(&schedule.turn.clone(), &mut self.core.schedule_rng);
        let range = self.core.schedule.calls_per_turn.clone();
        let calls = range.start() + self.core.random_below(range.end() - range.start() + 1);
        let me = self.core.node(node).shard(shard);
        me.turn_at = None;
        me.now = now;
        me.collect_timers();
        for _ in 0..calls {
            let Core { nodes, schedule_rng, .. } = &mut *self.core;
            let Some(event) = nodes[node.0].shard(shard).inbox.pick(schedule_rng) else { break };
            self.dispatch(event);
            if self.core.node(node).end.is_some() {
                return;
            }
        }
        self.call("turn end", 0, |app, plane| app.on_turn_end(plane));
        let me = self.core.node(node).shard(shard);
        me.busiest = me.busiest.max(std::mem::take(&mut me.work));
        me.busy_until = now.after(takes);
        if !me.inbox.is_empty() && me.turn_at.is_none() {
            me.turn_at = Some(now.after(takes));
        }
    }

    fn call(&mut self, what: &str, number: u64, f: impl FnOnce(&mut A, &mut SimPlane<'_, A::Message>)) {
        let at = self.core.clock.now().0 ^ (self.node.0 as u64) << 48 ^ u64::from(self.shard) << 56;
        self.core.trace.add(what, at);
        self.core.trace.add(what, number);
        tracing::trace!(at = self.core.clock.now().0, node = self.node.0, shard = self.shard, what, number);
        let mut plane = SimPlane { core: self.core, node: self.node, shard: self.shard };
        f(self.app, &mut plane);
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.core.node(self.node).shard(self.shard).conns.get_mut(&id)
    }

    fn dispatch(&mut self, event: Event<A::Message>) {
        match event {
            Event::Accept(id) => {
                let Some(conn) = self.conn(id) else { return };
                let (Some(listener), peer) = (conn.listener, conn.endpoints.peer) else { return };
                self.call("accept", id.0, |app, plane| app.on_accept(plane, id, listener, peer));
            }
            Event::Connected(id) => {
                // None if it was closed in the meantime, which has an event of its own.
                if let Some(connecting) = self.conn(id).and_then(|conn| conn.connecting.take()) {
                    self.call("connected", id.0, |app, plane| {
                        app.on_connected(plane, id, connecting.token, Ok(()));
                    });
                    self.core.node(self.node).shard(self.shard).readable(id);
                }
            }
            Event::ConnectFailed(id, token, error) => {
                self.call("connect failed", id.0, |app, plane| {
                    app.on_connected(plane, id, token, Err(error));
                });
            }
            Event::Readable(id) => self.readable(id),
            Event::Sent(id, bytes) => {
                if self.conn(id).is_some_and(|conn| conn.closing.is_none()) {
                    self.call("sent", bytes as u64, |app, plane| app.on_sent(plane, id, bytes));
                }
            }
            Event::Closed(id, reason) => {
                // The application may have sent more to a peer that has finished.
                let may_send = self.conn(id).is_some_and(|conn| conn.finished && conn.closing.is_none());
                let more = may_send && self.queued_bytes(id) > 0;
                if !more {
                    self.end_conn(id, reason);
                }
            }
            Event::Disk(token, completion) => {
                self.core.node(self.node).shard(self.shard).reads_inflight.remove(&token);
                self.call("disk", token.0, |app, plane| app.on_disk(plane, token, completion));
            }
            Event::Message(from, message) => {
                self.core.message_taken(self.node, from, self.shard);
                self.call("message", u64::from(from), |app, plane| app.on_message(plane, from, message));
            }
            Event::Migrated(migrant) => {
                let (link, listener, endpoints) = (migrant.link, migrant.listener, migrant.endpoints);
                self.core.network.borrow_mut().unread(link.accepting(), migrant.unread);
                let node = self.core.node(self.node);
                let id = node.shard(self.shard).add_conn(Conn::accepted(link, listener, endpoints));
                node.sockets.insert(link.accepting(), (self.shard, id));
                node.shard(self.shard).readable(id);
                let payload = migrant.payload;
                self.call("migrated", id.0, |app, plane| {
                    app.on_migrated(plane, id, listener, endpoints.peer, payload);
                });
            }
            Event::Timer(token) => self.call("timer", token.0, |app, plane| app.on_timer(plane, token)),
            Event::Shutdown => self.call("shutdown", 0, |app, plane| app.on_shutdown(plane)),
        }
    }

    /// Delivers some of the received bytes, or the end of the connection.
    fn readable(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        conn.readable_queued = false;
        let (socket, closing, hello) = (conn.socket, conn.closing, conn.hello);
        let paused = conn.receiving == Receiving::Off;
        // Bytes received ahead are delivered once. A bulk already has its memory and is filled to its end.
        if conn.receiving == Receiving::Ahead && conn.bulk.is_none() {
            conn.receiving = Receiving::Off;
        }
        let room = conn.bulk.as_ref().map(|bulk| bulk.end - bulk.filled);
        let (available, end) = {
            let network = self.core.network.borrow();
            (network.arrived_bytes(socket), network.end(socket))
        };
        if closing.is_some() || paused {
            // Nothing is read, but a reset still ends the connection.
            if let Some(why) = end.and_then(broken) {
                self.end_conn(id, if closing.is_some() { CloseReason::Local } else { why });
            }
            return;
        }
        if room == Some(0) || available > 0 {
            let most = room.unwrap_or(if hello { HELLO_RECV_BYTES_MAX } else { RECV_BYTES_MAX });
            let data = self.read(socket, available.min(most));
            self.received(id, &data);
        } else if let Some(why) = end.and_then(broken) {
            self.end_conn(id, why);
        } else if end == Some(StreamEnd::Fin) && self.queued_bytes(id) == 0 {
            self.end_conn(id, CloseReason::Peer);
        } else if end == Some(StreamEnd::Fin)
            && let Some(conn) = self.conn(id).filter(|conn| !conn.finished)
        {
            conn.finished = true;
            conn.bulk = None;
            self.core.start_flush_timeout(self.node, self.shard, id);
        }
    }

    fn read(&mut self, socket: Socket, most: usize) -> Vec<u8> {
        if most == 0 {
            return Vec::new();
        }
        let bytes = segment_bytes(most, &mut self.core.schedule_rng);
        let network: &mut Network = &mut self.core.network.borrow_mut();
        network.read(socket, bytes)
    }

    fn received(&mut self, id: ConnId, data: &[u8]) {
        let Some(conn) = self.conn(id) else { return };
        let mut full = None;
        if let Some(bulk) = &mut conn.bulk {
            bulk.buf[bulk.filled..bulk.filled + data.len()].copy_from_slice(data);
            bulk.filled += data.len();
            if bulk.filled == bulk.end {
                full = conn.bulk.take();
            }
        }
        let in_bulk = conn.bulk.is_some();
        self.core.node(self.node).shard(self.shard).receiving = Some(id);
        if let Some(bulk) = full {
            self.call("bulk", id.0, |app, plane| app.on_bulk(plane, id, bulk.buf));
        } else if !in_bulk {
            self.core.trace.add_bytes("received", id.0, data);
            self.call("recv", id.0, |app, plane| app.on_recv(plane, id, data));
        }
        let me = self.core.node(self.node).shard(self.shard);
        me.receiving = None;
        me.readable(id);
    }

    /// Removes a connection and reports its end to the application.
    fn end_conn(&mut self, id: ConnId, reason: CloseReason) {
        let node = self.core.node(self.node);
        let Some(conn) = node.shard(self.shard).remove_conn(id) else { return };
        node.sockets.remove(&conn.socket);
        if conn.closing.is_none() {
            self.core.network.borrow_mut().abandon(conn.socket, false);
        }
        self.call("closed", id.0, |app, plane| app.on_closed(plane, id, reason));
    }

    fn queued_bytes(&mut self, id: ConnId) -> usize {
        let socket = self.conn(id).map(|conn| conn.socket);
        socket.map_or(0, |socket| self.core.network.borrow().queued_bytes(socket))
    }
}

/// Returns the reason of a connection that broke.
fn broken(end: StreamEnd) -> Option<CloseReason> {
    let why = match end {
        StreamEnd::Fin => return None,
        StreamEnd::Reset => "connection reset by peer",
        StreamEnd::TimedOut => "connection timed out",
    };
    Some(CloseReason::Error(why.into()))
}
