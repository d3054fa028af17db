//! Connections that nodes open: the connecting side, from the request to the outcome.

use std::net::SocketAddr;
use std::time::Duration;

use super::core::{Core, Timeout};
use super::network::Socket;
use super::node::{Conn, Connecting, Event, SimNode, Source};
use crate::plane::{
    CONNECT_TIME_MAX, ConnId, ConnectError, ConnectFailure, Endpoints, OUTGOING_CONNECTIONS_MAX, ShardIndex,
    Token,
};

impl<M> Core<M> {
    pub(super) fn start_connect(
        &mut self,
        (node, shard): (SimNode, ShardIndex),
        to: SocketAddr,
        within: Duration,
        token: Token,
    ) -> ConnId {
        let at = self.listener(to).map(|(node, _)| node);
        let Self { nodes, trace, network, .. } = self;
        let is_dead = nodes[node.0].end.is_some();
        let me = nodes[node.0].shard(shard);
        if is_dead {
            return me.new_conn_id();
        }
        if me.outgoing >= OUTGOING_CONNECTIONS_MAX {
            let id = me.new_conn_id();
            let error = ConnectError { to, why: ConnectFailure::LimitReached };
            me.inbox.push(Source::Conn(id), Event::ConnectFailed(id, token, error));
            self.wake(node, shard);
            return id;
        }
        let within = within.min(CONNECT_TIME_MAX);
        let (socket, local) = {
            let mut network = network.borrow_mut();
            let socket = network.connect(Some(node), to, at);
            (socket, network.peer_address(socket.link))
        };
        let connecting = Connecting { token, to, within, established: false };
        let id = me.add_conn(Conn::connecting(socket, Endpoints::new(to, local), connecting));
        trace.add("connect", id.0);
        nodes[node.0].sockets.insert(socket, (shard, id));
        self.start_timeout(within, (node, shard, id, Timeout::Connect));
        id
    }

    fn connecting(&mut self, node: SimNode, shard: ShardIndex, conn: ConnId) -> Option<&mut Connecting> {
        let conn = self.nodes[node.0].shard(shard).conns.get_mut(&conn)?;
        conn.connecting.as_mut().filter(|connecting| !connecting.established)
    }

    /// Handles the answer of the other side.
    pub(super) fn established(&mut self, socket: Socket) {
        let Some((node, shard, conn)) = self.owner(socket) else { return };
        let Some(connecting) = self.connecting(node, shard, conn) else { return };
        connecting.established = true;
        self.nodes[node.0].shard(shard).inbox.push(Source::Conn(conn), Event::Connected(conn));
        self.wake(node, shard);
    }

    /// Ends a connect that was answered with a reset. Returns whether it was one.
    pub(super) fn reject_connecting(&mut self, node: SimNode, shard: ShardIndex, conn: ConnId) -> bool {
        let is_connecting = self.connecting(node, shard, conn).is_some();
        if is_connecting {
            self.fail_connect(node, shard, conn, ConnectFailure::Refused);
        }
        is_connecting
    }

    pub(super) fn connect_timed_out(&mut self, node: SimNode, shard: ShardIndex, conn: ConnId) {
        if let Some(within) = self.connecting(node, shard, conn).map(|connecting| connecting.within) {
            self.fail_connect(node, shard, conn, ConnectFailure::TimedOut(within));
        }
    }

    /// Ends a connect whose outcome was not delivered.
    pub(super) fn fail_connect(&mut self, node: SimNode, shard: ShardIndex, id: ConnId, why: ConnectFailure) {
        let owner = self.nodes[node.0].shard(shard);
        let Some(conn) = owner.remove_conn(id) else { return };
        let Some(Connecting { token, to, .. }) = conn.connecting else { return };
        owner.inbox.push(Source::Conn(id), Event::ConnectFailed(id, token, ConnectError { to, why }));
        self.nodes[node.0].sockets.remove(&conn.socket);
        self.network.borrow_mut().abandon(conn.socket, true);
        self.wake(node, shard);
    }
}
